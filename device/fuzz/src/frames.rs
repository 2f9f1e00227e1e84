// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames that are right, or wrong in a few places.

use arbitrary::{Result, Unstructured};
use vnet_backend::{checksum, Checksum, Gso, GsoKind, Meta};
use vnet_contract::hdr::{NetHdr, F_NEEDS_CSUM, GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};
use vnet_gateway::{net, ports};

use crate::input::{bytes, index, mostly, rarely};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const PROTOCOLS: [u8; 5] = [TCP, UDP, 1, 2, 58];

/// What is in a frame of a protocol with ports.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segment<'a> {
    pub(crate) source: u16,
    pub(crate) target: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) payload: &'a [u8],
}

/// A port of the gateway, or any.
pub(crate) fn port(u: &mut Unstructured<'_>) -> Result<u16> {
    mostly(
        u,
        &[
            ports::ECHO,
            ports::DISCARD,
            ports::CHARGEN,
            ports::DHCP_SERVER,
            ports::HTTP,
            ports::SINK,
            ports::SOURCE,
        ],
    )
}

/// Ethernet and network header of a frame to the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Headers {
    bytes: Vec<u8>,
    network: usize,
    v6: bool,
    protocol: u8,
}

impl Headers {
    pub(crate) fn new(u: &mut Unstructured<'_>, protocol: u8) -> Result<Self> {
        let mut bytes = net::MAC.0.to_vec();
        bytes.extend([0x52, 0x54, 0, 1, 2, 3]);
        if rarely(u, 4)? {
            for _ in 0..u.int_in_range(1..=3)? {
                let kind = *u.choose(&[[0x81, 0], [0x88, 0xa8]])?;
                bytes.extend(kind);
                bytes.extend(u.arbitrary::<[u8; 2]>()?);
            }
        }
        let v6 = u.arbitrary()?;
        bytes.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
        let network = bytes.len();
        if v6 {
            Self::ipv6(&mut bytes, u, protocol)?;
        } else {
            Self::ipv4(&mut bytes, u, protocol)?;
        }
        Ok(Self {
            bytes,
            network,
            v6,
            protocol,
        })
    }

    fn ipv4(bytes: &mut Vec<u8>, u: &mut Unstructured<'_>, protocol: u8) -> Result<()> {
        let options = match rarely(u, 4)? {
            true => u.int_in_range(1..=10)?,
            false => 0u8,
        };
        let fragment = match rarely(u, 8)? {
            true => u.arbitrary::<[u8; 2]>()?,
            false => [0x40, 0],
        };
        bytes.extend([0x45 + options, 0, 0, 0]);
        bytes.extend(u.arbitrary::<[u8; 2]>()?);
        bytes.extend(fragment);
        bytes.extend([64, protocol, 0, 0]);
        bytes.extend(net::IPV4_FIRST_GUEST.octets());
        bytes.extend(net::IPV4.octets());
        bytes.extend(std::iter::repeat_n(1, usize::from(options) * 4));
        Ok(())
    }

    fn ipv6(bytes: &mut Vec<u8>, u: &mut Unstructured<'_>, protocol: u8) -> Result<()> {
        let mut kinds = Vec::new();
        if rarely(u, 4)? {
            for _ in 0..u.int_in_range(1..=9)? {
                kinds.push((*u.choose(&[0, 43, 60, 44])?, u.int_in_range(0..=2)?));
            }
        }
        let mut nexts = kinds.iter().skip(1).map(|&(kind, _)| kind);
        bytes.extend([0x60, 0, 0, 0, 0, 0]);
        bytes.push(kinds.first().map_or(protocol, |&(kind, _)| kind));
        bytes.push(*u.choose(&[64, 255])?);
        bytes.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77]);
        bytes.extend(u.choose(&[net::IPV6_LINK_LOCAL, net::IPV6])?.octets());
        for &(_, units) in &kinds {
            bytes.push(nexts.next().unwrap_or(protocol));
            bytes.push(units);
            bytes.extend(std::iter::repeat_n(0, 6 + usize::from(units) * 8));
        }
        Ok(())
    }

    /// Offset of the transport header.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The frame with all lengths right, and the checksum of an IPv4 header.
    pub(crate) fn finish(&self, transport: &[u8]) -> Vec<u8> {
        let mut frame = [&self.bytes[..], transport].concat();
        let ip = &mut frame[self.network..];
        let len = ip.len();
        if self.v6 {
            ip[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        } else {
            ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            let header = usize::from(ip[0] & 15) * 4;
            let sum = !checksum::sum(&ip[..header]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        frame
    }

    /// The pseudo header's sum of a transport header with `len` bytes behind the network header,
    /// for a frame without a routing header.
    fn pseudo(&self, len: usize) -> u16 {
        let ip = &self.bytes[self.network..];
        let addresses = if self.v6 { &ip[8..40] } else { &ip[12..20] };
        let rest = [u16::from(self.protocol), len as u16];
        rest.iter()
            .fold(checksum::sum(addresses), |sum, &n| checksum::add(sum, n))
    }

    /// A frame of TCP or UDP, whose checksum holds the pseudo header's sum.
    pub(crate) fn segment(&self, segment: &Segment<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(segment.source.to_be_bytes());
        bytes.extend(segment.target.to_be_bytes());
        if self.protocol == TCP {
            bytes.extend(segment.seq.to_be_bytes());
            bytes.extend(segment.ack.to_be_bytes());
            // Eight bytes of options: a window scale, a segment size, an end.
            bytes.extend([0x70, segment.flags]);
            bytes.extend(segment.window.to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend([3, 3, 7, 2, 4, 5, 0xb4, 0]);
        } else {
            bytes.extend(((8 + segment.payload.len()) as u16).to_be_bytes());
            bytes.extend([0; 2]);
        }
        bytes.extend(segment.payload);
        let pseudo = self.pseudo(bytes.len()).to_be_bytes();
        let field = usize::from(self.checksum_offset());
        bytes[field..field + 2].copy_from_slice(&pseudo);
        self.finish(&bytes)
    }

    fn checksum_offset(&self) -> u16 {
        if self.protocol == TCP {
            16
        } else {
            6
        }
    }

    /// What the metadata of such a frame says, segmentation aside.
    pub(crate) fn checksum(&self) -> Checksum {
        Checksum::Partial {
            start: self.len() as u16,
            offset: self.checksum_offset(),
        }
    }

    fn gso(&self, u: &mut Unstructured<'_>) -> Result<Gso> {
        let (kind, headers) = match (self.protocol, self.v6) {
            (TCP, false) => (GsoKind::TcpV4, 28),
            (TCP, true) => (GsoKind::TcpV6, 28),
            _ => (GsoKind::Udp, 8),
        };
        Ok(Gso {
            kind,
            ecn: rarely(u, 4)?,
            size: mostly(u, &[1, 8, 48, 100, 1000, 1448])?.max(1),
            hdr_len: self.len() as u16 + headers,
        })
    }
}

/// A frame of at least 14 bytes and its metadata. Most fit each other.
pub(crate) fn frame(u: &mut Unstructured<'_>) -> Result<(Vec<u8>, Meta)> {
    let (mut frame, mut meta) = match u.int_in_range(0..=7)? {
        0 => (bytes(u, 200)?.to_vec(), Meta::default()),
        1 => (arp(u)?, Meta::default()),
        2 => {
            let protocol = mostly(u, &PROTOCOLS)?;
            let headers = Headers::new(u, protocol)?;
            let frame = headers.finish(bytes(u, 200)?);
            (frame, Meta::default())
        }
        _ => segment(u)?,
    };
    if rarely(u, 3)? {
        for _ in 0..u.int_in_range(1..=3)? {
            if !frame.is_empty() {
                let at = index(u, frame.len().min(128))?;
                frame[at] = u.arbitrary()?;
            }
        }
        if rarely(u, 4)? {
            frame.truncate(index(u, frame.len() + 1)?);
        }
    }
    frame.resize(frame.len().max(14), 0);
    if rarely(u, 4)? {
        meta = any_meta(u, frame.len())?;
    }
    let meta = within(meta, frame.len());
    Ok((frame, meta))
}

fn segment(u: &mut Unstructured<'_>) -> Result<(Vec<u8>, Meta)> {
    let protocol = *u.choose(&[TCP, UDP])?;
    let headers = Headers::new(u, protocol)?;
    let mut payload = bytes(u, 100)?.to_vec();
    if rarely(u, 3)? {
        let more: u16 = mostly(u, &[500, 1000, 1400, 3000, 8000])?;
        let most = u16::MAX - 1024;
        payload.resize(payload.len() + usize::from(more.min(most)), 0x5a);
    }
    let fields = Segment {
        source: u.int_in_range(1000..=1003)?,
        target: port(u)?,
        seq: u.arbitrary()?,
        ack: u.arbitrary()?,
        flags: *u.choose(&[2, 16, 24, 17, 4, 0x90, 1])?,
        window: u.arbitrary()?,
        payload: &payload,
    };
    let meta = Meta {
        checksum: headers.checksum(),
        gso: match rarely(u, 2)? {
            true => Some(headers.gso(u)?),
            false => None,
        },
    };
    Ok((headers.segment(&fields), meta))
}

fn arp(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut frame = vec![0xff; 6];
    let source = [0x52, 0x54, 0, 1, 2, 3];
    frame.extend(source);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0]);
    frame.push(mostly(u, &[1, 2])?);
    frame.extend(source);
    frame.extend(net::IPV4_FIRST_GUEST.octets());
    frame.extend([0; 6]);
    frame.extend(net::IPV4.octets());
    Ok(frame)
}

fn any_meta(u: &mut Unstructured<'_>, len: usize) -> Result<Meta> {
    let most = len.min(u16::MAX.into()) as u16;
    let checksum = match u.int_in_range(0..=2)? {
        0 => Checksum::Unverified,
        1 => Checksum::Valid,
        _ => Checksum::Partial {
            start: u.int_in_range(0..=most)?,
            offset: u.int_in_range(0..=most)?,
        },
    };
    let gso = match u.arbitrary()? {
        false => None,
        true => Some(Gso {
            kind: *u.choose(&[GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::Udp])?,
            ecn: u.arbitrary()?,
            size: u.int_in_range(1..=u16::MAX)?,
            hdr_len: u.int_in_range(0..=most)?,
        }),
    };
    Ok(Meta { checksum, gso })
}

/// What the seam promises about metadata: a partial checksum lies within the frame.
fn within(mut meta: Meta, len: usize) -> Meta {
    if let Checksum::Partial { start, offset } = meta.checksum {
        if usize::from(start) + usize::from(offset) + 2 > len {
            meta.checksum = Checksum::Unverified;
        }
    }
    meta
}

/// The header that a driver puts before a frame with this metadata.
pub(crate) fn header(meta: &Meta) -> NetHdr {
    let mut header = NetHdr::default();
    if let Checksum::Partial { start, offset } = meta.checksum {
        header.flags = F_NEEDS_CSUM;
        header.csum_start = start;
        header.csum_offset = offset;
    }
    if let Some(gso) = meta.gso {
        header.gso_type = match gso.kind {
            GsoKind::TcpV4 => GSO_TCPV4,
            GsoKind::TcpV6 => GSO_TCPV6,
            GsoKind::Udp => GSO_UDP_L4,
        };
        if gso.ecn {
            header.gso_type |= GSO_ECN;
        }
        header.gso_size = gso.size;
        header.hdr_len = gso.hdr_len;
    }
    header
}
