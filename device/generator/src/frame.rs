// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames: made from a plan, byte for byte the same each time but for the time in the stamp.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, IpRepr, Ipv4Packet,
    Ipv6Address, Ipv6Packet, NdiscNeighborFlags, NdiscRepr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber, UdpPacket, UdpRepr,
};

use crate::config::{Config, Protocol, MIN_FRAME};
use crate::plan::Planned;
use crate::stamp;

/// Length of a frame of ARP, padded.
const ARP_LEN: usize = MIN_FRAME as usize;
/// Length of a frame of neighbour discovery, with the address of a link in it.
const NEIGHBOUR_LEN: usize = ETHERNET_LEN + IPV6_LEN + 24 + 8;
const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const TCP_LEN: usize = 20;
/// The first source port, and the first identifier of echo requests.
const FIRST_FLOW: u16 = 0xc000;

/// Length of the header of IP.
pub(crate) fn network_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => IPV4_LEN,
        IpAddr::V6(_) => IPV6_LEN,
    }
}

/// Length of a frame that asks where an address is, or answers that.
pub(crate) fn neighbour_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => ARP_LEN,
        IpAddr::V6(_) => NEIGHBOUR_LEN,
    }
}

/// Length of a frame of this protocol that is to be so long: what it carries has to fit.
pub(crate) fn len(protocol: Protocol, wanted: usize, network: usize) -> usize {
    let header = match protocol {
        Protocol::Tcp => TCP_LEN,
        _ => UDP_LEN,
    };
    wanted.max(ETHERNET_LEN + network + header + stamp::LEN)
}

/// A station: who sends, or is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Station {
    pub(crate) mac: EthernetAddress,
    pub(crate) ip: IpAddr,
}

impl Station {
    /// The generator itself: locally administered, and different for each address.
    pub(crate) fn own(config: &Config) -> Self {
        let [a, b, c, d] = match config.from {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(address) => (address.to_bits() as u32).to_be_bytes(),
        };
        Self {
            mac: EthernetAddress([0x02, b'g', a, b, c, d]),
            ip: config.from,
        }
    }
}

/// What is not the same in all frames of a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content<'a> {
    /// Where in its flow: number of the frame, and of the first byte, for TCP.
    pub(crate) position: u32,
    /// Destination port.
    pub(crate) port: u16,
    /// The payload from the stamp on; as long as the longest frame.
    pub(crate) payload: &'a [u8],
}

/// Makes a frame in the first bytes of `out`, and returns it.
pub(crate) fn make<'a>(
    out: &'a mut [u8],
    plan: Planned,
    from: Station,
    to: Station,
    content: Content<'_>,
) -> &'a [u8] {
    let frame = &mut out[..plan.len];
    let caps = ChecksumCapabilities::default();
    let payload_len = plan.len - ETHERNET_LEN - plan.network;
    let (protocol, header) = match plan.protocol {
        Protocol::Arp => {
            ask(frame, from, to.ip);
            return frame;
        }
        Protocol::Icmp if to.ip.is_ipv6() => (IpProtocol::Icmpv6, UDP_LEN),
        Protocol::Icmp => (IpProtocol::Icmp, UDP_LEN),
        Protocol::Udp => (IpProtocol::Udp, UDP_LEN),
        Protocol::Tcp => (IpProtocol::Tcp, TCP_LEN),
    };
    let mut ethernet = EthernetFrame::new_unchecked(frame);
    ethernet.set_src_addr(from.mac);
    ethernet.set_dst_addr(to.mac);
    ethernet.set_ethertype(match to.ip {
        IpAddr::V4(_) => EthernetProtocol::Ipv4,
        IpAddr::V6(_) => EthernetProtocol::Ipv6,
    });
    let (src, dst) = (from.ip.into(), to.ip.into());
    // Both are of one version: a configuration with others is refused.
    IpRepr::new(src, dst, protocol, payload_len, 64).emit(ethernet.payload_mut(), &caps);
    let packet = &mut ethernet.payload_mut()[plan.network..];
    let data = &content.payload[..payload_len - header];
    let flow = FIRST_FLOW.wrapping_add(plan.flow);
    match plan.protocol {
        Protocol::Arp => {}
        Protocol::Icmp => {
            let (ident, seq_no) = (flow, content.position as u16);
            if let (IpAddr::V6(src), IpAddr::V6(dst)) = (from.ip, to.ip) {
                let mut packet = Icmpv6Packet::new_unchecked(packet);
                let echo = Icmpv6Repr::EchoRequest {
                    ident,
                    seq_no,
                    data,
                };
                echo.emit(&src, &dst, &mut packet, &caps);
            } else {
                let mut packet = Icmpv4Packet::new_unchecked(packet);
                let echo = Icmpv4Repr::EchoRequest {
                    ident,
                    seq_no,
                    data,
                };
                echo.emit(&mut packet, &caps);
            }
        }
        Protocol::Udp => UdpRepr {
            src_port: flow,
            dst_port: content.port,
        }
        .emit(
            &mut UdpPacket::new_unchecked(packet),
            &src,
            &dst,
            data.len(),
            |out| out.copy_from_slice(data),
            &caps,
        ),
        Protocol::Tcp => {
            let first = content.position == 0;
            TcpRepr {
                src_port: flow,
                dst_port: content.port,
                control: if first {
                    TcpControl::Syn
                } else {
                    TcpControl::Psh
                },
                // Sequence numbers have a sign there.
                seq_number: TcpSeqNumber(content.position as i32),
                ack_number: (!first).then_some(TcpSeqNumber(1)),
                window_len: u16::MAX,
                window_scale: None,
                max_seg_size: None,
                sack_permitted: false,
                sack_ranges: [None; 3],
                timestamp: None,
                payload: data,
            }
            .emit(&mut TcpPacket::new_unchecked(packet), &src, &dst, &caps);
        }
    }
    ethernet.into_inner()
}

/// What one frame adds to the position in its flow.
pub(crate) fn progress(plan: Planned, position: u32) -> u32 {
    match plan.protocol {
        Protocol::Tcp => {
            let data = (plan.len - ETHERNET_LEN - plan.network - TCP_LEN) as u32;
            // SYN has a number of its own.
            data + u32::from(position == 0)
        }
        _ => 1,
    }
}

/// Asks where an address is, in a frame of [`neighbour_len`].
pub(crate) fn ask(frame: &mut [u8], from: Station, about: IpAddr) {
    match (from.ip, about) {
        (IpAddr::V6(source), IpAddr::V6(target_addr)) => {
            let [.., a, b, c] = target_addr.octets();
            let group = Ipv6Address::new(
                0xff02,
                0,
                0,
                0,
                0,
                1,
                0xff00 | u16::from(a),
                u16::from_be_bytes([b, c]),
            );
            let mac = EthernetAddress([0x33, 0x33, 0xff, a, b, c]);
            let lladdr = Some(from.mac.into());
            let question = NdiscRepr::NeighborSolicit {
                target_addr,
                lladdr,
            };
            neighbour(frame, (from.mac, source), (mac, group), question);
        }
        (_, ip) => {
            let mac = EthernetAddress::BROADCAST;
            let about = Station { mac, ip };
            arp(frame, ArpOperation::Request, from, mac, about);
        }
    }
}

/// Tells somebody who has asked where `from` is, in a frame of [`neighbour_len`].
pub(crate) fn answer(frame: &mut [u8], from: Station, to: Station) {
    match (from.ip, to.ip) {
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let answer = NdiscRepr::NeighborAdvert {
                flags: NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
                target_addr: source,
                lladdr: Some(from.mac.into()),
            };
            neighbour(frame, (from.mac, source), (to.mac, target), answer);
        }
        _ => arp(frame, ArpOperation::Reply, from, to.mac, to),
    }
}

/// Makes a message of neighbour discovery (RFC 4861).
fn neighbour(
    frame: &mut [u8],
    from: (EthernetAddress, Ipv6Address),
    to: (EthernetAddress, Ipv6Address),
    message: NdiscRepr<'_>,
) {
    let caps = ChecksumCapabilities::default();
    frame.fill(0);
    let mut ethernet = EthernetFrame::new_unchecked(frame);
    ethernet.set_src_addr(from.0);
    ethernet.set_dst_addr(to.0);
    ethernet.set_ethertype(EthernetProtocol::Ipv6);
    let (src, dst) = (from.1.into(), to.1.into());
    let len = NEIGHBOUR_LEN - ETHERNET_LEN - IPV6_LEN;
    // From this link, as the hops that are left say.
    IpRepr::new(src, dst, IpProtocol::Icmpv6, len, 255).emit(ethernet.payload_mut(), &caps);
    let packet = &mut ethernet.payload_mut()[IPV6_LEN..];
    let mut packet = Icmpv6Packet::new_unchecked(packet);
    Icmpv6Repr::Ndisc(message).emit(&from.1, &to.1, &mut packet, &caps);
}

/// Makes a message of ARP, of [`ARP_LEN`] bytes.
fn arp(
    frame: &mut [u8],
    operation: ArpOperation,
    from: Station,
    to_mac: EthernetAddress,
    about: Station,
) {
    let (IpAddr::V4(source_protocol_addr), IpAddr::V4(target_protocol_addr)) = (from.ip, about.ip)
    else {
        return;
    };
    frame.fill(0);
    let mut ethernet = EthernetFrame::new_unchecked(frame);
    ethernet.set_src_addr(from.mac);
    ethernet.set_dst_addr(to_mac);
    ethernet.set_ethertype(EthernetProtocol::Arp);
    let target = match operation {
        ArpOperation::Reply => about.mac,
        _ => EthernetAddress([0; 6]),
    };
    ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: from.mac,
        source_protocol_addr,
        target_hardware_addr: target,
        target_protocol_addr,
    }
    .emit(&mut ArpPacket::new_unchecked(ethernet.payload_mut()));
}

/// What a frame that comes is, as far as a generator looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived<'a> {
    /// Somebody asks where `about` is, or tells `about` where it is itself.
    Neighbour {
        asks: bool,
        from: Station,
        about: IpAddr,
    },
    /// To this address, with this behind the transport header.
    Payload { to: IpAddr, bytes: &'a [u8] },
}

/// Looks into a frame. `None`: it is nothing for a generator, or makes no sense.
pub(crate) fn parse(frame: &[u8]) -> Option<Arrived<'_>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    match ethernet.ethertype() {
        EthernetProtocol::Arp => {
            let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
            let ArpRepr::EthernetIpv4 {
                operation,
                source_hardware_addr: mac,
                source_protocol_addr: ip,
                target_protocol_addr: about,
                ..
            } = ArpRepr::parse(&packet).ok()?
            else {
                return None;
            };
            let ip = ip.into();
            mac.is_unicast().then_some(Arrived::Neighbour {
                asks: operation == ArpOperation::Request,
                from: Station { mac, ip },
                about: about.into(),
            })
        }
        EthernetProtocol::Ipv4 => {
            let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
            if ip.version() != 4 || ip.more_frags() || ip.frag_offset() != 0 {
                return None;
            }
            let bytes = &frame[ETHERNET_LEN + usize::from(ip.header_len())
                ..ETHERNET_LEN + usize::from(ip.total_len())];
            let header = match ip.next_header() {
                IpProtocol::Icmp => {
                    // Only echo has what was sent in the same place.
                    const REPLY: u8 = 0;
                    const REQUEST: u8 = 8;
                    matches!(bytes.first(), Some(&(REPLY | REQUEST))).then_some(UDP_LEN)?
                }
                IpProtocol::Udp => UDP_LEN,
                IpProtocol::Tcp => usize::from(TcpPacket::new_checked(bytes).ok()?.header_len()),
                _ => return None,
            };
            Some(Arrived::Payload {
                to: ip.dst_addr().into(),
                bytes: bytes.get(header..)?,
            })
        }
        EthernetProtocol::Ipv6 => {
            let ip = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
            if ip.version() != 6 {
                return None;
            }
            let bytes = ip.payload();
            let header = match ip.next_header() {
                IpProtocol::Icmpv6 => {
                    const ECHO_REQUEST: u8 = 128;
                    const ECHO_REPLY: u8 = 129;
                    if !matches!(bytes.first(), Some(&(ECHO_REQUEST | ECHO_REPLY))) {
                        return discovered(ethernet.src_addr(), &ip);
                    }
                    UDP_LEN
                }
                IpProtocol::Udp => UDP_LEN,
                IpProtocol::Tcp => usize::from(TcpPacket::new_checked(bytes).ok()?.header_len()),
                _ => return None,
            };
            Some(Arrived::Payload {
                to: ip.dst_addr().into(),
                bytes: bytes.get(header..)?,
            })
        }
        _ => None,
    }
}

/// Reads a message of neighbour discovery.
fn discovered<'a>(sender: EthernetAddress, ip: &Ipv6Packet<&'a [u8]>) -> Option<Arrived<'a>> {
    let (src, dst) = (ip.src_addr(), ip.dst_addr());
    let packet = Icmpv6Packet::new_checked(ip.payload()).ok()?;
    let caps = ChecksumCapabilities::default();
    let (asks, from, about) = match Icmpv6Repr::parse(&src, &dst, &packet, &caps).ok()? {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. }) => {
            (true, src, target_addr)
        }
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, .. }) => {
            (false, target_addr, dst)
        }
        _ => return None,
    };
    // One that has no address yet only looks whether somebody else has it.
    let near = ip.hop_limit() == 255 && sender.is_unicast() && !from.is_unspecified();
    near.then_some(Arrived::Neighbour {
        asks,
        from: Station {
            mac: sender,
            ip: from.into(),
        },
        about: about.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;

    fn stations(config: &Config) -> [Station; 2] {
        let to = Station {
            mac: EthernetAddress([2, 0, 0, 0, 0, 9]),
            ip: config.to,
        };
        [Station::own(config), to]
    }

    #[test]
    fn frames_are_right_in_every_length() {
        for to in ["10.77.0.2", "fd00::2"] {
            frames_to(to);
        }
    }

    /// What is made is what another implementation of the same protocols takes, with checksums.
    fn frames_to(to: &str) {
        let options = "traffic=icmp+udp+tcp,size=60-2000,flows=3,port=9,seed=3";
        let config: Config = format!("to={to},{options}").parse().unwrap();
        let [from, to] = stations(&config);
        let payload: Vec<u8> = (0..70_000).map(|n| n as u8).collect();
        let mut out = vec![0xee; 70_000];
        for n in 0..3000 {
            let plan = plan::frame(&config, n);
            let content = Content {
                position: n as u32,
                port: 9,
                payload: &payload,
            };
            let frame = make(&mut out, plan, from, to, content);
            assert_eq!(frame.len(), plan.len);
            let ethernet = EthernetFrame::new_checked(frame).unwrap();
            assert_eq!(
                (ethernet.src_addr(), ethernet.dst_addr()),
                (from.mac, to.mac)
            );
            let (src, dst) = (from.ip.into(), to.ip.into());
            let packet = match to.ip {
                IpAddr::V4(_) => {
                    let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
                    assert!(ip.verify_checksum());
                    assert_eq!((ip.src_addr().into(), ip.dst_addr().into()), (src, dst));
                    ip.payload()
                }
                IpAddr::V6(_) => {
                    let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
                    assert_eq!((ip.src_addr().into(), ip.dst_addr().into()), (src, dst));
                    ip.payload()
                }
            };
            match plan.protocol {
                Protocol::Icmp => {
                    let ident = match (from.ip, to.ip) {
                        (IpAddr::V6(src), IpAddr::V6(dst)) => {
                            let icmp = Icmpv6Packet::new_checked(packet).unwrap();
                            assert!(icmp.verify_checksum(&src, &dst));
                            icmp.echo_ident()
                        }
                        _ => {
                            let icmp = Icmpv4Packet::new_checked(packet).unwrap();
                            assert!(icmp.verify_checksum());
                            icmp.echo_ident()
                        }
                    };
                    assert_eq!(ident, FIRST_FLOW + plan.flow);
                }
                Protocol::Udp => {
                    let udp = UdpPacket::new_checked(packet).unwrap();
                    assert!(udp.verify_checksum(&src, &dst));
                    assert_eq!(
                        (udp.src_port(), udp.dst_port()),
                        (FIRST_FLOW + plan.flow, 9)
                    );
                }
                _ => {
                    let tcp = TcpPacket::new_checked(packet).unwrap();
                    assert!(tcp.verify_checksum(&src, &dst));
                    assert_eq!(tcp.syn(), n == 0);
                    assert_eq!(tcp.seq_number(), TcpSeqNumber(n as i32));
                }
            }
            let Some(Arrived::Payload { to, bytes }) = parse(frame) else {
                panic!("{plan:?}");
            };
            assert_eq!(to, config.to);
            assert_eq!(bytes, &payload[..bytes.len()]);
            assert!(bytes.len() >= stamp::LEN);
        }
    }

    #[test]
    fn questions_and_answers_are_understood() {
        for text in ["seed=0", "to=fd00::2"] {
            let config: Config = text.parse().unwrap();
            let [own, other] = stations(&config);
            let mut frame = vec![0xee; neighbour_len(config.to)];
            ask(&mut frame, other, own.ip);
            let asks = true;
            let (from, about) = (other, own.ip);
            assert_eq!(
                parse(&frame),
                Some(Arrived::Neighbour { asks, from, about })
            );
            answer(&mut frame, other, own);
            let asks = false;
            assert_eq!(
                parse(&frame),
                Some(Arrived::Neighbour { asks, from, about })
            );
            // What is not of this link, or damaged, says nothing.
            if config.to.is_ipv6() {
                let mut far = frame.clone();
                far[ETHERNET_LEN + 7] = 254;
                assert_eq!(parse(&far), None);
                frame[ETHERNET_LEN + IPV6_LEN + 10] ^= 1;
                assert_eq!(parse(&frame), None);
            }
        }
    }

    proptest::proptest! {
        /// Nothing that a guest sends does harm.
        #[test]
        fn any_bytes_are_looked_into(
            mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            kind in 0..4usize,
        ) {
            if bytes.len() > 34 {
                let ethertype = [[8, 6], [8, 0], [0x86, 0xdd], [0x86, 0xdd]][kind];
                bytes[12..14].copy_from_slice(&ethertype);
                bytes[14] = [0x45, 0x45, 0x60, 0x60][kind] | bytes[14] & 0xf;
                bytes[23] = [1, 17, 6, 99][kind];
                bytes[20] = [6, 17, 58, 6][kind];
            }
            parse(&bytes);
        }
    }
}
