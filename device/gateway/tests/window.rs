// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A guest that closes its window on data that is on its way, as Linux does when a socket has no
//! memory left: it drops the data and says so.

mod common;

use std::time::{Duration, Instant};

use common::frames::{introduce, tcp};
use common::receive;
use smoltcp::wire::{
    EthernetFrame, IpProtocol, Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use vnet_backend::{mock, Meta, Queue};
use vnet_gateway::ports;

const PORT: u16 = 40_000;
const SCALE: u8 = 7;
const MSS: u16 = 1000;
/// Several times the stack's first retransmission timeout.
const PATIENCE: Duration = Duration::from_secs(8);

/// The guest's end of one connection to the source. It reads what it is told to, and nothing is
/// acknowledged for it.
struct Client {
    queue: Box<dyn Queue>,
    sent: TcpSeqNumber,
}

struct Segment {
    at: TcpSeqNumber,
    syn: bool,
    data: Vec<u8>,
}

impl Client {
    /// Sends a segment with a window of `window` bytes.
    fn send(&mut self, control: TcpControl, ack: Option<TcpSeqNumber>, window: usize, data: &[u8]) {
        let syn = control == TcpControl::Syn;
        let repr = TcpRepr {
            src_port: PORT,
            dst_port: ports::SOURCE,
            control,
            seq_number: self.sent,
            ack_number: ack,
            window_len: u16::try_from(window >> SCALE).unwrap(),
            window_scale: syn.then_some(SCALE),
            max_seg_size: syn.then_some(MSS),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: data,
        };
        self.sent += repr.segment_len();
        assert!(mock::transmit(
            &mut *self.queue,
            &tcp(&repr),
            Meta::default()
        ));
    }

    fn acknowledge(&mut self, at: TcpSeqNumber, window: usize) {
        self.send(TcpControl::None, Some(at), window, b"");
    }

    /// What has come meanwhile.
    fn receive(&mut self) -> Vec<Segment> {
        let frames = receive(&mut *self.queue);
        frames.iter().filter_map(|frame| segment(frame)).collect()
    }

    /// Waits for a segment with data that starts at `at`.
    fn expect(&mut self, at: TcpSeqNumber) -> Vec<u8> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(found) = self
                .receive()
                .into_iter()
                .find(|s| s.at == at && !s.data.is_empty())
            {
                return found.data;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("nothing from {at} on in {PATIENCE:?}");
    }
}

fn segment(frame: &[u8]) -> Option<Segment> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    if packet.next_header() != IpProtocol::Tcp {
        return None;
    }
    let tcp = TcpPacket::new_checked(packet.payload()).ok()?;
    Some(Segment {
        at: tcp.seq_number(),
        syn: tcp.syn(),
        data: tcp.payload().to_vec(),
    })
}

/// A connection on which the source has sent all that `window` bytes allow, and where that starts.
fn filled(window: usize) -> (Client, TcpSeqNumber, Vec<u8>) {
    let mut client = Client {
        queue: common::open(1).remove(0),
        sent: TcpSeqNumber(1000),
    };
    introduce(&mut *client.queue);
    client.send(TcpControl::Syn, None, window, b"");
    let answers = client.receive();
    let start = answers.iter().find(|s| s.syn).expect("a handshake").at + 1;
    client.send(TcpControl::Psh, Some(start), window, b"100000000 1\n");
    let mut data = Vec::new();
    while data.len() < window {
        for segment in client.receive() {
            if segment.at == start + data.len() {
                data.extend_from_slice(&segment.data);
            }
        }
    }
    assert_eq!(data.len(), window);
    (client, start, data)
}

#[test]
fn data_that_met_a_closed_window_is_sent_again() {
    const WINDOW: usize = 64 * 1024;
    let (mut client, start, data) = filled(WINDOW);
    // The second half was dropped.
    let half = WINDOW / 2;
    client.acknowledge(start + half, 0);
    client.acknowledge(start + half, half);
    let again = client.expect(start + half);
    assert!(data[half..].starts_with(&again));
}

#[test]
fn a_window_that_stays_closed_is_probed_with_little() {
    const WINDOW: usize = 64 * 1024;
    let (mut client, start, data) = filled(WINDOW);
    let half = WINDOW / 2;
    client.acknowledge(start + half, 0);
    let probe = client.expect(start + half);
    assert!(probe.len() <= 1 << SCALE);
    client.acknowledge(start + half, 0);
    // What was dropped need not be the probe, but all of it comes in the end.
    client.acknowledge(start + half, half);
    let again = client.expect(start + half);
    assert!(data[half..].starts_with(&again));
}

#[test]
fn a_window_that_was_used_up_is_probed_with_a_byte() {
    const WINDOW: usize = 32 * 1024;
    let (mut client, start, _) = filled(WINDOW);
    client.acknowledge(start + WINDOW, 0);
    assert_eq!(client.expect(start + WINDOW).len(), 1);
    client.acknowledge(start + WINDOW, WINDOW);
    assert_eq!(client.expect(start + WINDOW).len(), usize::from(MSS));
}
