// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The gateway, and a guest that sends it anything.

use std::time::Instant;

use arbitrary::{Result, Unstructured};
use smoltcp::wire::TcpPacket;
use vnet_backend::{mock, Checksum, Endpoint, Meta, Queue};
use vnet_gateway::{net, Config, Gateway, MAX_MTU};

use crate::frames::{self, Headers, Segment, TCP};
use crate::input::{bytes, mostly, rarely};

/// Longest frame that the gateway may send.
const LONGEST: usize = 14 + MAX_MTU as usize;

/// Frames to the gateway and rounds of receiving. What it sends are frames, and when the guest is
/// silent it comes to rest.
pub fn gateway(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let config = Config {
        mtu: mostly(u, &[1500, 9000])?,
        ..Config::default()
    };
    let count = u.int_in_range(1..=2)?;
    let mut queues = Gateway::new(config).open(count).expect("opens");
    let mut peer = Peer::default();
    while !u.is_empty() {
        let index = usize::from(u.int_in_range(0..=count - 1)?);
        let queue = &mut *queues[index];
        match u.int_in_range(0..=15)? {
            0..=6 => {
                let (frame, meta) = frames::frame(u)?;
                send(queue, &frame, meta);
            }
            7..=10 => {
                let frame = peer.segment(u)?;
                let checksum = Checksum::Valid;
                let meta = Meta {
                    checksum,
                    gso: None,
                };
                send(queue, &frame, meta);
            }
            11 => queue.reset(),
            _ => {
                let buffers = u.int_in_range(0..=20)?;
                assert!(peer.receive(queue, buffers) <= buffers);
            }
        }
        queue.deadline();
    }
    let mut calls = 0;
    loop {
        let received: usize = queues
            .iter_mut()
            .map(|queue| peer.receive(&mut **queue, 100))
            .sum();
        let now = Instant::now();
        let busy =
            |queue: &dyn Queue| queue.has_work() || queue.deadline().is_some_and(|at| at <= now);
        if received == 0 && !queues.iter().any(|queue| busy(&**queue)) {
            return Ok(());
        }
        calls += 1;
        assert!(calls < 5000, "the gateway goes on and on");
    }
}

fn send(queue: &mut dyn Queue, frame: &[u8], meta: Meta) {
    // What it does not take, the segmenter turns into what it does; that has a target of its own.
    if queue.offloads().cover(&meta) {
        assert!(mock::transmit(queue, frame, meta));
    }
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
    /// A segment that goes on from there, or nearly so.
    fn segment(&self, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        const LINES: [&[u8]; 4] = [
            b"1000000 1\n",
            b"300000 1 sum\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"",
        ];
        let headers = Headers::new(u, TCP)?;
        let fields = Segment {
            source: self.own_port,
            target: self.port,
            seq: self.seq.wrapping_add(mostly(u, &[0, 0, 0, 1, 1000])?),
            ack: self.ack.wrapping_add(mostly(u, &[0, 0, 0, 1, 1000])?),
            flags: *u.choose(&[16, 24, 17, 20, 4, 2])?,
            window: mostly(u, &[0xffff, 0, 1, 1000])?,
            payload: match rarely(u, 2)? {
                true => bytes(u, 200)?,
                false => u.choose(&LINES)?,
            },
        };
        Ok(headers.segment(&fields))
    }

    /// Receives frames, checks that they are some, and returns how many.
    fn receive(&mut self, queue: &mut dyn Queue, buffers: usize) -> usize {
        let frames = mock::receive(queue, buffers, LONGEST);
        for (frame, meta) in &frames {
            assert!((14..=LONGEST).contains(&frame.len()));
            assert_eq!(frame[6..12], net::MAC.0);
            assert_eq!(meta.gso, None);
            // TCP over IPv4.
            if frame.len() >= 54 && frame[12..14] == [8, 0] && frame[23] == 6 {
                let tcp = TcpPacket::new_checked(&frame[34..]).expect("a good segment");
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
