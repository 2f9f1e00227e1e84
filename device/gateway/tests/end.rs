// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A guest whose last segment, which ends the stream, arrives before others that are sent again.

mod common;

use common::frames::{introduce, tcp};
use common::{open, receive};
use smoltcp::wire::{EthernetFrame, Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};
use vnet_backend::{mock, Meta, Queue};
use vnet_gateway::ports;

const PORT: u16 = 40_000;
const START: TcpSeqNumber = TcpSeqNumber(77);

struct Client {
    queue: Box<dyn Queue>,
    /// The next byte that is expected of the gateway.
    ack: Option<TcpSeqNumber>,
}

impl Client {
    fn send(&mut self, control: TcpControl, seq_number: TcpSeqNumber, data: &[u8]) {
        let repr = TcpRepr {
            src_port: PORT,
            dst_port: ports::SINK,
            control,
            seq_number,
            ack_number: self.ack,
            window_len: 60_000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: data,
        };
        assert!(mock::transmit(
            &mut *self.queue,
            &tcp(&repr),
            Meta::default()
        ));
    }

    /// What the gateway has acknowledged at last, and said since it was asked last.
    fn heard(&mut self) -> (TcpSeqNumber, Vec<u8>) {
        let (mut ack, mut said) = (START, Vec::new());
        for frame in receive(&mut *self.queue) {
            let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
            let Ok(packet) = Ipv4Packet::new_checked(frame.payload()) else {
                continue;
            };
            let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
            ack = tcp.ack_number();
            said.extend(tcp.payload());
            self.ack = Some(tcp.seq_number() + tcp.segment_len());
        }
        (ack, said)
    }
}

#[test]
fn the_end_is_taken_from_a_segment_whose_data_came_before() {
    let mut client = Client {
        queue: open(1).remove(0),
        ack: None,
    };
    introduce(&mut *client.queue);
    client.send(TcpControl::Syn, START, b"");
    let first = START + 1;
    assert_eq!(client.heard().0, first);
    client.send(TcpControl::None, first, b"");

    client.send(TcpControl::Fin, first + 6, b"second");
    assert_eq!(client.heard().0, first, "the first segment is lost");
    client.send(TcpControl::None, first, b"first ");
    assert_eq!(client.heard(), (first + 12, vec![]), "but for the end");
    client.send(TcpControl::Fin, first + 6, b"second");
    let (ack, said) = client.heard();
    assert_eq!(ack, first + 13);
    assert!(said.starts_with(b"12 "), "{said:?}");
}
