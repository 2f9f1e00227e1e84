// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames that no honest guest sends. Whatever comes, the gateway does not panic, its answers are
//! frames, and when the guest is silent it comes to rest.

mod common;

use std::time::Instant;

use common::frames::{arp_request, fragment_v4, icmp, introduce, ipv4, ipv6, udp};
use common::open;
use proptest::prelude::*;
use smoltcp::wire::{IpProtocol, TcpPacket};
use vnet_backend::{mock, Checksum, Gso, GsoKind, Meta, Queue};
use vnet_gateway::ports;

/// What the guest does.
#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>, Meta),
    /// A segment that goes on from the last one that the gateway sent, but for these differences.
    Segment {
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        data: Vec<u8>,
    },
    Receive(usize),
    Reset,
    Disconnect,
}

fn tcp(port: u16, from: u16, flags: u8, seq: u32, ack: u32, window: u16, data: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend_from_slice(&from.to_be_bytes());
    segment.extend_from_slice(&port.to_be_bytes());
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&ack.to_be_bytes());
    // Eight bytes of options: a window scale, a segment size, an end.
    segment.extend_from_slice(&[0x70, flags]);
    segment.extend_from_slice(&window.to_be_bytes());
    segment.extend_from_slice(&[0; 4]);
    segment.extend_from_slice(&[3, 3, 7, 2, 4, 5, 0xb4, 0]);
    segment.extend_from_slice(data);
    segment
}

fn port() -> impl Strategy<Value = u16> + Clone {
    prop::sample::select(vec![
        ports::ECHO,
        ports::DISCARD,
        ports::CHARGEN,
        ports::DHCP_SERVER,
        ports::HTTP,
        ports::SINK,
        ports::SOURCE,
        53,
    ])
}

/// Frames that are right, as a start.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let data = prop::collection::vec(any::<u8>(), 0..200);
    let number = prop_oneof![Just(0u32), 0u32..4000, any::<u32>()];
    let segment = (
        port(),
        1000u16..1004,
        prop_oneof![Just(2u8), Just(16), Just(24), Just(17), any::<u8>()],
        number.clone(),
        number,
        any::<u16>(),
        data.clone(),
    )
        .prop_map(|(port, from, flags, seq, ack, window, data)| {
            tcp(port, from, flags, seq, ack, window, &data)
        });
    prop_oneof![
        Just(arp_request()),
        data.clone()
            .prop_map(|data| ipv4(IpProtocol::Icmp, &icmp(8, &data, 0))),
        data.clone()
            .prop_map(|data| ipv6(IpProtocol::Icmpv6, 255, &icmp(128, &data, 0))),
        (133u8..138, data.clone()).prop_map(|(kind, data)| ipv6(
            IpProtocol::Icmpv6,
            255,
            &icmp(kind, &data, 0)
        )),
        (port(), data.clone()).prop_map(|(port, data)| ipv4(IpProtocol::Udp, &udp(port, &data))),
        (any::<u8>(), data.clone(), any::<u16>(), any::<bool>()).prop_map(
            |(protocol, data, offset, more)| {
                let fragment = Some((usize::from(offset & 0xfff8), more));
                fragment_v4(protocol.into(), &data, 1, fragment)
            }
        ),
        segment
            .clone()
            .prop_map(|segment| ipv4(IpProtocol::Tcp, &segment)),
        segment.prop_map(|segment| ipv6(IpProtocol::Tcp, 64, &segment)),
        (any::<u8>(), data.clone()).prop_map(|(protocol, data)| ipv6(protocol.into(), 64, &data)),
        data,
    ]
}

fn meta() -> impl Strategy<Value = Meta> {
    let checksum = prop_oneof![
        2 => Just(Checksum::Unverified),
        4 => Just(Checksum::Valid),
        1 => (0u16..80, 0u16..40)
            .prop_map(|(start, offset)| Checksum::Partial { start, offset }),
    ];
    let kind = prop::sample::select(vec![GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::Udp]);
    let gso = (kind, 1u16..2000).prop_map(|(kind, size)| Gso {
        kind,
        ecn: false,
        size,
        hdr_len: 54,
    });
    (checksum, prop::option::weighted(0.1, gso)).prop_map(|(checksum, gso)| Meta { checksum, gso })
}

fn step() -> impl Strategy<Value = Step> {
    let mutation = (any::<prop::sample::Index>(), any::<u8>());
    let mutated = (
        frame(),
        prop::collection::vec(mutation, 0..4),
        prop::option::weighted(0.1, any::<prop::sample::Index>()),
    )
        .prop_map(|(mut frame, mutations, cut)| {
            if let Some(cut) = cut {
                frame.truncate(cut.index(frame.len() + 1));
            }
            frame.resize(frame.len().max(14), 0);
            for (at, value) in mutations {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            frame
        });
    let difference = prop_oneof![8 => Just(0u32), 1 => 0u32..3000, 1 => any::<u32>()];
    let flags = prop_oneof![4 => Just(16u8), 4 => Just(24), 1 => Just(17), 1 => any::<u8>()];
    let line = prop_oneof![
        Just(b"1000000 1\n".to_vec()),
        Just(b"300000 1 sum\n".to_vec()),
        Just(b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..1400),
    ];
    let segment = (flags, difference.clone(), difference, any::<u16>(), line).prop_map(
        |(flags, seq, ack, window, data)| Step::Segment {
            flags,
            seq,
            ack,
            window,
            data,
        },
    );
    prop_oneof![
        10 => segment,
        20 => (mutated, meta()).prop_map(|(frame, meta)| Step::Send(frame, meta)),
        8 => (0usize..20).prop_map(Step::Receive),
        1 => Just(Step::Reset),
        1 => Just(Step::Disconnect),
    ]
}

/// What the guest knows of the connection that it heard of last.
#[derive(Default)]
struct Peer {
    port: u16,
    own_port: u16,
    seq: u32,
    ack: u32,
}

impl Peer {
    /// Receives frames, checks that they are some, and returns how many.
    fn receive(&mut self, queue: &mut dyn Queue, buffers: usize) -> usize {
        let frames = mock::receive(queue, buffers, 9018);
        for (frame, meta) in &frames {
            assert!((14..=9014).contains(&frame.len()));
            assert_eq!(frame[6..12], vnet_gateway::net::MAC.0);
            assert_eq!(meta.gso, None);
            // TCP over IPv4.
            if frame.len() >= 54 && frame[12..14] == [8, 0] && frame[23] == 6 {
                let tcp = TcpPacket::new_checked(&frame[34..]).unwrap();
                let ends = u32::from(tcp.syn()) + u32::from(tcp.fin());
                self.port = tcp.src_port();
                self.own_port = tcp.dst_port();
                self.seq = tcp.ack_number().0 as u32;
                self.ack = (tcp.seq_number().0 as u32)
                    .wrapping_add(ends)
                    .wrapping_add(tcp.payload().len() as u32);
            }
        }
        frames.len()
    }
}

proptest! {
    #[test]
    fn the_gateway_stands_and_comes_to_rest(
        steps in prop::collection::vec(step(), 1..80),
        queues in 1u16..3,
    ) {
        let mut queues = open(queues);
        introduce(&mut *queues[0]);
        let mut peer = Peer::default();
        for (n, step) in steps.into_iter().enumerate() {
            let count = queues.len();
            let queue = &mut *queues[n % count];
            match step {
                Step::Send(frame, meta) => {
                    prop_assert!(mock::transmit(queue, &frame, meta));
                }
                Step::Segment { flags, seq, ack, window, data } => {
                    let seq = peer.seq.wrapping_add(seq);
                    let ack = peer.ack.wrapping_add(ack);
                    let segment =
                        tcp(peer.port, peer.own_port, flags, seq, ack, window, &data);
                    let meta = Meta { checksum: Checksum::Valid, gso: None };
                    let frame = ipv4(IpProtocol::Tcp, &segment);
                    prop_assert!(mock::transmit(queue, &frame, meta));
                }
                Step::Receive(buffers) => {
                    prop_assert!(peer.receive(queue, buffers) <= buffers);
                }
                Step::Reset => queue.reset(),
                Step::Disconnect => {
                    queue.reset();
                    queue.disconnect();
                }
            }
            queue.deadline();
        }
        let mut calls = 0;
        loop {
            let mut delivered = 0;
            for queue in &mut queues {
                delivered += peer.receive(&mut **queue, 100);
            }
            let now = Instant::now();
            let at_rest = queues.iter().all(|queue| {
                !queue.has_work() && queue.deadline().is_none_or(|at| at > now)
            });
            if delivered == 0 && at_rest {
                break;
            }
            calls += 1;
            prop_assert!(calls < 5000, "the gateway goes on and on");
        }
    }
}
