// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The flow parser, compared with another implementation's.

use arbitrary::{Result, Unstructured};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};
use vnet_rss::flow::{self, Addresses, Flow, Transport};

use crate::frames;

/// Finds the flow of arbitrary bytes and of a frame that is nearly right.
pub fn rss(data: &[u8]) {
    compare(data);
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let (frame, _) = frames::frame(u)?;
    compare(&frame);
    // Of a frame in many buffers the card sees the start only.
    compare(&frame[..frame.len().min(128)]);
    Ok(())
}

fn compare(frame: &[u8]) {
    let flow = flow::parse(frame);
    // The parser does not look beyond the bytes: what follows can add ports, and nothing else.
    let longer = [frame, &[0; 64]].concat();
    if let (Some(short), Some(long)) = (flow, flow::parse(&longer)) {
        assert_eq!(short.addresses, long.addresses);
        assert!(short.ports.is_none() || short.ports == long.ports);
    }
    if let Some(expected) = reference(frame) {
        let flow = flow.expect("IP to the one, but not to the other");
        assert_eq!(flow.addresses, expected.addresses);
        if expected.ports.is_some() {
            assert_eq!(flow.ports, expected.ports);
        }
    }
}

/// Untagged frames without extension headers, as smoltcp takes them apart.
fn reference(frame: &[u8]) -> Option<Flow<'_>> {
    let packet = frame.get(14..)?;
    match frame[12..14] {
        [8, 0] => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            if ip.version() != 4 || ip.header_len() < 20 {
                return None;
            }
            let addresses = Addresses::V4(packet.get(12..20)?.try_into().ok()?);
            let whole = !ip.more_frags() && ip.frag_offset() == 0;
            let ports = whole.then(|| ports(ip.next_header(), ip.payload()));
            Some(Flow {
                addresses,
                ports: ports.flatten(),
            })
        }
        [0x86, 0xdd] => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            if ip.version() != 6 {
                return None;
            }
            let addresses = Addresses::V6(packet.get(8..40)?.try_into().ok()?);
            Some(Flow {
                addresses,
                ports: ports(ip.next_header(), ip.payload()),
            })
        }
        _ => None,
    }
}

fn ports(protocol: IpProtocol, payload: &[u8]) -> Option<(Transport, flow::Ports)> {
    let (transport, source, target) = match protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).ok()?;
            (Transport::Tcp, tcp.src_port(), tcp.dst_port())
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).ok()?;
            (Transport::Udp, udp.src_port(), udp.dst_port())
        }
        _ => return None,
    };
    let [a, b] = source.to_be_bytes();
    let [c, d] = target.to_be_bytes();
    Some((transport, [a, b, c, d]))
}
