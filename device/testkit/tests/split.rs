// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Header-data split, end to end: the register, what lies where, and chains that break its rules.
#![allow(missing_docs)]

mod common;

use common::{options, round_trip};
use vnet_contract::features::HDR_SPLIT;
use vnet_contract::hdr::{self, NetHdr, F_SPLIT};
use vnet_contract::queue::{rx_index, Error};
use vnet_contract::regs::{self, queue_reg};
use vnet_contract::ring::{DESC_F_NEXT, DESC_F_WRITE};
use vnet_testkit::{Nic, Options, RawQueue, Server, LIMIT};

const SIZE: u16 = 64;
const HDR: usize = hdr::SIZE;
const RX: u16 = rx_index(0);

/// A card with two pairs, of which the receive queue of the first splits frames.
struct Rig {
    nic: Nic,
    raw: RawQueue,
    /// The header buffer and, behind it, a page for payload.
    page: u64,
}

impl Rig {
    fn new(server: &Server) -> Self {
        let usual = options();
        let mut nic = server
            .nic_with(Options {
                pairs: 2,
                features: usual.features | HDR_SPLIT,
                ..usual
            })
            .unwrap();
        nic.stop(RX).unwrap();
        let raw = RawQueue::new(&nic.ram, SIZE);
        let page = nic.ram.alloc(8192, 4096);
        Self { nic, raw, page }
    }

    /// Starts the queue with an empty ring.
    fn start(&mut self, split: u32) {
        self.nic.card.disable(RX).unwrap();
        self.raw.restart();
        let card = &mut self.nic.card;
        card.set_reg(queue_reg(RX, regs::Q_SPLIT), split).unwrap();
        let rings = self.raw.ring.addresses();
        card.enable(RX, SIZE.into(), rings, 0).unwrap();
        assert_eq!(card.queue_error(RX).unwrap(), None);
    }

    /// Offers the two buffers, and sends a frame to itself.
    fn exchange(&mut self, header_buffer: u32, frame: &[u8]) {
        self.raw
            .desc(0, self.page, header_buffer, DESC_F_WRITE | DESC_F_NEXT, 1);
        self.raw.desc(1, self.page + 4096, 4096, DESC_F_WRITE, 0);
        self.raw.offer(0);
        self.nic.card.doorbell(RX, self.raw.avail_index()).unwrap();
        self.nic.send(0, frame).unwrap();
    }

    /// Waits for the frame: its header, the header buffer behind it, and the payload buffer.
    fn arrived(&mut self, bytes: usize) -> (NetHdr, Vec<u8>, Vec<u8>) {
        let end = std::time::Instant::now() + LIMIT;
        while self.raw.used_index() != self.raw.avail_index() {
            assert!(std::time::Instant::now() < end, "nothing came");
            std::thread::yield_now();
        }
        let used = vnet_ring::Memory::used(&self.raw.ring, self.raw.used_index() - 1);
        assert_eq!((used.id, used.len as usize), (0, HDR + bytes));
        let head = self.nic.ram.read_vec(self.page, 256);
        let header = NetHdr::from_bytes(head.first_chunk().unwrap());
        let payload = self.nic.ram.read_vec(self.page + 4096, 4096);
        (header, head[HDR..].to_vec(), payload)
    }
}

/// A TCP segment to the card itself: 54 bytes of headers, and payload.
fn segment(nic: &Nic, payload: usize) -> Vec<u8> {
    let mut frame = [&nic.mac[..], &nic.mac, &[8, 0, 0x45]].concat();
    frame.resize(54, 0);
    frame[23] = 6;
    frame[46] = 5 << 4;
    frame.extend((0..payload).map(|n| n as u8));
    frame
}

#[test]
fn a_queue_splits_frames_while_its_register_says_so() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut rig = Rig::new(&server);
    // Bits without a meaning are not kept.
    rig.start(u32::MAX);
    let register = queue_reg(RX, regs::Q_SPLIT);
    let kept = rig.nic.card.reg(register).unwrap();
    assert_eq!(kept, regs::Q_SPLIT_ENABLE);

    let frame = segment(&rig.nic, 1000);
    rig.exchange(256, &frame);
    let (header, head, payload) = rig.arrived(frame.len());
    assert_eq!((header.flags, header.hdr_len), (F_SPLIT, 54));
    assert_eq!((&head[..54], &payload[..1000]), frame.split_at(54));

    // The headers do not fit.
    rig.exchange(40, &frame);
    let (header, head, payload) = rig.arrived(frame.len());
    assert_eq!((header.flags, header.hdr_len), (0, 0));
    let (start, end) = frame.split_at(40 - HDR);
    assert_eq!((&head[..start.len()], &payload[..end.len()]), (start, end));

    rig.start(0);
    rig.exchange(256, &frame);
    let (header, head, payload) = rig.arrived(frame.len());
    assert_eq!(header.flags, 0);
    let (start, end) = frame.split_at(256 - HDR);
    assert_eq!((&head[..], &payload[..end.len()]), (start, end));
}

#[test]
fn what_breaks_the_rules_stops_the_queue_alone() {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut rig = Rig::new(&server);
    let frame = segment(&rig.nic, 1000);
    for (buffers, error) in [
        (&[(0, 4096)][..], Error::BufferLength),
        (&[(0, HDR as u32 - 1), (4096, 4096)], Error::BufferLength),
        (&[(0, 256), (4096, 0)], Error::BufferLength),
        // Guest memory ends there, but the second buffer is not looked at first.
        (&[(1 << 40, 256), (4096, 4096)], Error::BufferFault),
    ] {
        rig.start(regs::Q_SPLIT_ENABLE);
        for (n, &(at, len)) in (0u16..).zip(buffers) {
            let last = usize::from(n) + 1 == buffers.len();
            let next = if last { 0 } else { DESC_F_NEXT };
            rig.raw
                .desc(n, rig.page + at, len, DESC_F_WRITE | next, n + 1);
        }
        rig.raw.offer(0);
        rig.nic.card.doorbell(RX, rig.raw.avail_index()).unwrap();
        rig.nic.send(0, &frame).unwrap();
        assert_eq!(rig.nic.card.wait_queue_error(RX).unwrap(), error);
        round_trip(&mut rig.nic, 1, 3);
    }
    rig.start(regs::Q_SPLIT_ENABLE);
    let register = queue_reg(RX, regs::Q_SPLIT);
    rig.nic.card.set_reg(register, 0).unwrap();
    let seen = rig.nic.card.wait_queue_error(RX).unwrap();
    assert_eq!(seen, Error::ConfigWhileRunning);
    assert_eq!(rig.nic.card.reg(register).unwrap(), regs::Q_SPLIT_ENABLE);
}
