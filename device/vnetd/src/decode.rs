// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames in a few words, by the `etherparse` crate: their beginning is enough.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, LinkSlice, TransportSlice};

/// What a frame is that begins like this.
pub(crate) fn decode(start: &[u8]) -> String {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(start) else {
        return "no Ethernet header".into();
    };
    let mut text = String::new();
    // Writing to a string does not fail.
    for vlan in packet.vlan_ids() {
        let _ = write!(text, "VLAN {} ", vlan.value());
    }
    match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let (from, to) = (header.source_addr(), header.destination_addr());
            transport(&mut text, &packet, &from.to_string(), &to.to_string());
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (from, to) = (header.source_addr(), header.destination_addr());
            let brackets = |ip: Ipv6Addr| format!("[{ip}]");
            transport(&mut text, &packet, &brackets(from), &brackets(to));
        }
        Some(LaxNetSlice::Arp(arp)) => {
            let address = |bytes: &[u8]| match bytes.first_chunk::<4>() {
                Some(bytes) => Ipv4Addr::from(*bytes).to_string(),
                None => "?".into(),
            };
            let sender = address(arp.sender_protocol_addr());
            let target = address(arp.target_protocol_addr());
            let _ = match arp.operation().0 {
                1 => write!(text, "ARP who has {target}? tell {sender}"),
                2 => write!(text, "ARP {sender} is here, {target}"),
                other => write!(text, "ARP operation {other}"),
            };
        }
        None => {
            let kind = match &packet.link {
                Some(LinkSlice::Ethernet2(ethernet)) => ethernet.ether_type().0,
                _ => 0,
            };
            let _ = write!(text, "type {kind:#06x}");
        }
    }
    text
}

fn transport(text: &mut String, packet: &LaxSlicedPacket<'_>, from: &str, to: &str) {
    let _ = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let flags = [
                (tcp.syn(), "SYN"),
                (tcp.fin(), "FIN"),
                (tcp.rst(), "RST"),
                (tcp.psh(), "PSH"),
                (tcp.ack(), "ACK"),
            ];
            let flags: Vec<_> = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
            let (from_port, to_port) = (tcp.source_port(), tcp.destination_port());
            let flags = flags.join(" ");
            write!(text, "TCP {from}:{from_port} → {to}:{to_port} {flags}")
        }
        Some(TransportSlice::Udp(udp)) => {
            let (from_port, to_port) = (udp.source_port(), udp.destination_port());
            write!(text, "UDP {from}:{from_port} → {to}:{to_port}")
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            let kind = match icmp.type_u8() {
                0 => "echo reply",
                8 => "echo request",
                _ => "message",
            };
            write!(text, "ICMP {from} → {to} {kind}")
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let kind = match icmp.type_u8() {
                128 => "echo request",
                129 => "echo reply",
                133..=136 => "neighbour discovery",
                143 => "listener report",
                _ => "message",
            };
            write!(text, "ICMPv6 {from} → {to} {kind}")
        }
        Some(TransportSlice::Igmp(_)) => write!(text, "IGMP {from} → {to}"),
        None => write!(text, "IP {from} → {to}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    #[test]
    fn frames_are_told_by_their_headers() {
        let builder =
            || PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64);
        let mut frame = Vec::new();
        builder()
            .icmpv4_echo_request(1, 2)
            .write(&mut frame, &[0; 56])
            .unwrap();
        assert_eq!(decode(&frame), "ICMP 10.0.0.2 → 10.0.0.1 echo request");
        frame.clear();
        builder()
            .tcp(1000, 80, 7, 100)
            .syn()
            .write(&mut frame, &[])
            .unwrap();
        assert_eq!(decode(&frame), "TCP 10.0.0.2:1000 → 10.0.0.1:80 SYN");
        // Only the beginning of a long one is there.
        frame.clear();
        builder().udp(5, 6).write(&mut frame, &[0; 1000]).unwrap();
        assert_eq!(decode(&frame[..128]), "UDP 10.0.0.2:5 → 10.0.0.1:6");
        assert_eq!(decode(&[0; 13]), "no Ethernet header");
    }

    proptest! {
        #[test]
        fn no_frame_is_too_strange(bytes: Vec<u8>) {
            decode(&bytes);
        }
    }
}
