// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames: made from a plan, byte for byte the same each time but for the time in the stamp.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber, UdpPacket, UdpRepr,
};

use crate::config::{Config, Protocol, MIN_FRAME};
use crate::plan::Planned;
use crate::stamp;

/// Length of a frame of ARP, padded.
pub(crate) const ARP_LEN: usize = MIN_FRAME as usize;
const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const UDP_LEN: usize = 8;
const TCP_LEN: usize = 20;
/// The first source port, and the first identifier of echo requests.
const FIRST_FLOW: u16 = 0xc000;

/// Length of a frame of this protocol that is to be so long: what it carries has to fit.
pub(crate) fn len(protocol: Protocol, wanted: usize) -> usize {
    let header = match protocol {
        Protocol::Arp => return ARP_LEN,
        Protocol::Icmp | Protocol::Udp => UDP_LEN,
        Protocol::Tcp => TCP_LEN,
    };
    wanted.max(ETHERNET_LEN + IPV4_LEN + header + stamp::LEN)
}

/// A station: who sends, or is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Station {
    pub(crate) mac: EthernetAddress,
    pub(crate) ip: Ipv4Addr,
}

impl Station {
    /// The generator itself: locally administered, and different for each address.
    pub(crate) fn own(config: &Config) -> Self {
        let [a, b, c, d] = config.from.octets();
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
    let packet_len = plan.len - ETHERNET_LEN;
    let (protocol, header) = match plan.protocol {
        Protocol::Arp => {
            arp(
                frame,
                ArpOperation::Request,
                from,
                EthernetAddress::BROADCAST,
                to,
            );
            return frame;
        }
        Protocol::Icmp => (IpProtocol::Icmp, UDP_LEN),
        Protocol::Udp => (IpProtocol::Udp, UDP_LEN),
        Protocol::Tcp => (IpProtocol::Tcp, TCP_LEN),
    };
    let mut ethernet = EthernetFrame::new_unchecked(frame);
    ethernet.set_src_addr(from.mac);
    ethernet.set_dst_addr(to.mac);
    ethernet.set_ethertype(EthernetProtocol::Ipv4);
    let mut ip = Ipv4Packet::new_unchecked(ethernet.payload_mut());
    Ipv4Repr {
        src_addr: from.ip,
        dst_addr: to.ip,
        next_header: protocol,
        payload_len: packet_len - IPV4_LEN,
        hop_limit: 64,
    }
    .emit(&mut ip, &caps);
    let data = &content.payload[..packet_len - IPV4_LEN - header];
    let flow = FIRST_FLOW.wrapping_add(plan.flow);
    let (src, dst) = (from.ip.into(), to.ip.into());
    match plan.protocol {
        Protocol::Arp => {}
        Protocol::Icmp => Icmpv4Repr::EchoRequest {
            ident: flow,
            seq_no: content.position as u16,
            data,
        }
        .emit(&mut Icmpv4Packet::new_unchecked(ip.payload_mut()), &caps),
        Protocol::Udp => UdpRepr {
            src_port: flow,
            dst_port: content.port,
        }
        .emit(
            &mut UdpPacket::new_unchecked(ip.payload_mut()),
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
            .emit(
                &mut TcpPacket::new_unchecked(ip.payload_mut()),
                &src,
                &dst,
                &caps,
            );
        }
    }
    ethernet.into_inner()
}

/// What one frame adds to the position in its flow.
pub(crate) fn progress(plan: Planned, position: u32) -> u32 {
    match plan.protocol {
        Protocol::Tcp => {
            let data = (plan.len - ETHERNET_LEN - IPV4_LEN - TCP_LEN) as u32;
            // SYN has a number of its own.
            data + u32::from(position == 0)
        }
        _ => 1,
    }
}

/// Makes a message of ARP, of [`ARP_LEN`] bytes.
pub(crate) fn arp(
    frame: &mut [u8],
    operation: ArpOperation,
    from: Station,
    to_mac: EthernetAddress,
    about: Station,
) {
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
        source_protocol_addr: from.ip,
        target_hardware_addr: target,
        target_protocol_addr: about.ip,
    }
    .emit(&mut ArpPacket::new_unchecked(ethernet.payload_mut()));
}

/// What a frame that comes is, as far as a generator looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived<'a> {
    Arp {
        operation: ArpOperation,
        from: Station,
        about: Ipv4Addr,
    },
    /// To this address, with this behind the transport header.
    Payload { to: Ipv4Addr, bytes: &'a [u8] },
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
            let from = Station { mac, ip };
            mac.is_unicast().then_some(Arrived::Arp {
                operation,
                from,
                about,
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
                to: ip.dst_addr(),
                bytes: bytes.get(header..)?,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::IpAddress;

    use super::*;
    use crate::plan;

    fn stations(config: &Config) -> [Station; 2] {
        let to = Station {
            mac: EthernetAddress([2, 0, 0, 0, 0, 9]),
            ip: config.to,
        };
        [Station::own(config), to]
    }

    /// What is made is what another implementation of the same protocols takes, with checksums.
    #[test]
    fn frames_are_right_in_every_length() {
        let config: Config = "traffic=icmp+udp+tcp,size=60-2000,flows=3,port=9,seed=3"
            .parse()
            .unwrap();
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
            let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
            assert!(ip.verify_checksum());
            let (src, dst) = (IpAddress::Ipv4(from.ip), IpAddress::Ipv4(to.ip));
            match plan.protocol {
                Protocol::Icmp => {
                    let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
                    assert!(icmp.verify_checksum());
                    assert_eq!(icmp.echo_ident(), FIRST_FLOW + plan.flow);
                }
                Protocol::Udp => {
                    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
                    assert!(udp.verify_checksum(&src, &dst));
                    assert_eq!(
                        (udp.src_port(), udp.dst_port()),
                        (FIRST_FLOW + plan.flow, 9)
                    );
                }
                _ => {
                    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
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
    fn arp_is_understood() {
        let config = Config::default();
        let [from, to] = stations(&config);
        let mut frame = [0xee; ARP_LEN];
        arp(&mut frame, ArpOperation::Reply, to, from.mac, from);
        let due = Arrived::Arp {
            operation: ArpOperation::Reply,
            from: to,
            about: from.ip,
        };
        assert_eq!(parse(&frame), Some(due));
    }

    proptest::proptest! {
        /// Nothing that a guest sends does harm.
        #[test]
        fn any_bytes_are_looked_into(
            mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            kind in 0..4usize,
        ) {
            if bytes.len() > 34 {
                let ethertype = [[8, 6], [8, 0], [8, 0], [0x86, 0xdd]][kind];
                bytes[12..14].copy_from_slice(&ethertype);
                bytes[14] = 0x45 | bytes[14] & 0xf;
                bytes[23] = [1, 17, 6, 99][kind];
            }
            parse(&bytes);
        }
    }
}
