// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A well-behaved driver over the real socket.
#![allow(missing_docs)]

mod common;

use common::{burst, counter, frame, options, own, round_trip, silence, wait_counter};
use vnet_contract::hdr::{NetHdr, F_DATA_VALID, F_NEEDS_CSUM};
use vnet_contract::{features, queue, regs};
use vnet_testkit::{Options, Server, LIMIT};

const BROADCAST: [u8; 6] = [0xff; 6];

#[test]
fn frames_of_every_length_come_back_as_they_were() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    for len in (14..200).chain([511, 512, 1023, 1024, 1513, 1514]) {
        let frame = own(&nic, len, len as u64);
        nic.send(0, &frame).unwrap();
        let back = nic.expect(0).unwrap();
        assert_eq!(back.frame, frame, "{len} bytes");
        assert_eq!((back.header.flags, back.header.gso_type), (0, 0));
    }
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    const COUNT: u64 = 20_000;
    // No more than the loopback holds may be on its way.
    burst(&mut nic, COUNT, 200, 900);
    assert_eq!(nic.in_flight(0), 0);
    let (rx, tx) = (queue::rx_index(0), queue::tx_index(0));
    assert_eq!(counter(&mut nic, tx, regs::S_FRAMES), COUNT);
    assert_eq!(counter(&mut nic, rx, regs::S_FRAMES), COUNT);
    let bytes: u64 = (0..COUNT).map(|n| 60 + n % 900).sum();
    assert_eq!(counter(&mut nic, tx, regs::S_BYTES), bytes);
    assert_eq!(counter(&mut nic, rx, regs::S_BYTES), bytes);
    assert_eq!(counter(&mut nic, rx, regs::S_DROPS), 0);
    // The event index spares notifications: under load there are fewer than frames.
    assert!(counter(&mut nic, tx, regs::S_DOORBELLS) < COUNT / 2);
    assert!(counter(&mut nic, rx, regs::S_INTERRUPTS) < COUNT / 2);
}

#[test]
fn ring_indices_wrap() {
    let server = Server::start("null").unwrap();
    let small = Options {
        ring_size: queue::MIN_SIZE,
        ..options()
    };
    let mut nic = server.nic_with(small).unwrap();
    let frame = own(&nic, 60, 0);
    for _ in 0..70_000 {
        nic.queue(0, NetHdr::default(), &frame).unwrap();
    }
    nic.flush(0).unwrap();
    nic.drain(0).unwrap();
    wait_counter(&mut nic, queue::tx_index(0), regs::S_FRAMES, 70_000);
}

#[test]
fn every_pair_has_its_own_queues_and_vector() {
    let server = Server::start_with("loopback", &["--queues", "4"]).unwrap();
    let four = Options {
        pairs: 4,
        ..options()
    };
    let mut nic = server.nic_with(four).unwrap();
    assert_eq!(nic.card.reg(regs::QUEUE_PAIRS).unwrap(), 4);
    assert_eq!(nic.card.reg(regs::VECTORS).unwrap(), 5);
    for pair in 0..4 {
        for seed in 0..20 {
            round_trip(&mut nic, pair, seed);
        }
    }
    for pair in 0..4 {
        assert_eq!(counter(&mut nic, queue::tx_index(pair), regs::S_FRAMES), 20);
        assert_eq!(counter(&mut nic, queue::rx_index(pair), regs::S_FRAMES), 20);
    }
    // An interrupt of one pair does not reach another.
    for pair in 0..4 {
        assert!(nic.arm(pair).unwrap());
    }
    // What the last frames raised may have come after them.
    for vector in &nic.vectors {
        vector.take();
    }
    let frame = own(&nic, 60, 1);
    nic.send(2, &frame).unwrap();
    assert!(nic.vectors[2].wait(LIMIT).unwrap());
    assert_eq!(nic.expect(2).unwrap().frame, frame);
    for pair in [0, 1, 3] {
        assert_eq!(nic.vectors[pair].take(), 0, "pair {pair}");
    }
}

#[test]
fn a_long_frame_fills_several_buffers() {
    let server = Server::start("loopback").unwrap();
    let jumbo = Options {
        mtu: 9000,
        max_frame: 9014,
        ..options()
    };
    let mut nic = server.nic_with(jumbo).unwrap();
    for len in [2036, 2037, 4084, 4085, 9014] {
        let frame = own(&nic, len, len as u64);
        nic.send(0, &frame).unwrap();
        let back = nic.expect(0).unwrap();
        assert_eq!(back.frame, frame, "{len} bytes");
        let buffers = (len + 12).div_ceil(2048);
        assert_eq!(usize::from(back.header.num_buffers), buffers);
    }
}

#[test]
fn without_mergeable_buffers_a_frame_takes_one_or_is_dropped() {
    let server = Server::start("loopback").unwrap();
    let plain = Options {
        features: features::QUEUE_STATS,
        mtu: 9000,
        max_frame: 9014,
        ..options()
    };
    let mut nic = server.nic_with(plain).unwrap();
    let fits = own(&nic, 2036, 1);
    nic.send(0, &fits).unwrap();
    assert_eq!(nic.expect(0).unwrap().frame, fits);
    let long = own(&nic, 2037, 2);
    nic.send(0, &long).unwrap();
    nic.send(0, &fits).unwrap();
    assert_eq!(nic.expect(0).unwrap().frame, fits);
    wait_counter(&mut nic, queue::rx_index(0), regs::S_DROPS, 1);
}

#[test]
fn a_frame_above_the_mtu_is_not_received() {
    let server = Server::start("loopback").unwrap();
    let wide = Options {
        max_frame: 9014,
        ..options()
    };
    let mut nic = server.nic_with(wide).unwrap();
    let (fits, long) = (own(&nic, 1514, 1), own(&nic, 1515, 2));
    nic.send(0, &long).unwrap();
    nic.send(0, &fits).unwrap();
    assert_eq!(nic.expect(0).unwrap().frame, fits);
    nic.card.set_reg(regs::MTU, 1501).unwrap();
    nic.send(0, &long).unwrap();
    assert_eq!(nic.expect(0).unwrap().frame, long);
    assert_eq!(counter(&mut nic, queue::rx_index(0), regs::S_DROPS), 1);
}

#[test]
fn the_receive_filter_passes_what_it_is_told_to() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    let other = [0x52, 0x54, 0, 9, 9, 9];
    let group = [0x33, 0x33, 0, 0, 0, 1];
    let listed = [0x01, 0x00, 0x5e, 0, 0, 7];
    let (lo, hi) = regs::mac_to_regs(listed);
    nic.card.set_reg(regs::MAC_FILTER_LO, lo).unwrap();
    nic.card
        .set_reg(regs::MAC_FILTER_HI, hi | regs::MAC_FILTER_VALID)
        .unwrap();
    for (mode, passes) in [
        (0, [true, false, false, false, true]),
        (regs::RX_MODE_BROADCAST, [true, true, false, false, true]),
        (regs::RX_MODE_ALLMULTI, [true, false, false, true, true]),
        (regs::RX_MODE_PROMISC, [true, true, true, true, true]),
    ] {
        nic.card.set_reg(regs::RX_MODE, mode).unwrap();
        let to = [nic.mac, BROADCAST, other, group, listed];
        for (n, (to, pass)) in to.into_iter().zip(passes).enumerate() {
            let frame = frame(&nic, to, 60, n as u64);
            nic.send(0, &frame).unwrap();
            // Frames come in order, so the one behind tells whether this one was dropped.
            let last = own(&nic, 61, n as u64);
            nic.send(0, &last).unwrap();
            let first = nic.expect(0).unwrap().frame;
            assert_eq!(first == frame, pass, "mode {mode}, address {to:02x?}");
            if pass {
                assert_eq!(nic.expect(0).unwrap().frame, last);
            }
        }
    }
    // A new address takes effect with its upper half.
    nic.card.set_reg(regs::RX_MODE, 0).unwrap();
    let (lo, hi) = regs::mac_to_regs(other);
    nic.card.set_reg(regs::MAC_LO, lo).unwrap();
    nic.card.set_reg(regs::MAC_HI, hi).unwrap();
    nic.card.reg(regs::STATUS).unwrap();
    let (old, new) = (own(&nic, 60, 1), frame(&nic, other, 60, 2));
    nic.send(0, &old).unwrap();
    nic.send(0, &new).unwrap();
    assert_eq!(nic.expect(0).unwrap().frame, new);
}

/// An IPv4 UDP frame whose checksum field holds the sum of the pseudo header only.
fn partial(nic: &vnet_testkit::Nic) -> (NetHdr, Vec<u8>) {
    let mut frame = own(nic, 14, 0);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let payload: Vec<u8> = (0..99).collect();
    let udp_len = 8 + payload.len() as u16;
    let mut ip = vec![
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    ip[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    let sum = !fold(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut pseudo = vec![10, 0, 0, 1, 10, 0, 0, 2, 0, 17];
    pseudo.extend_from_slice(&udp_len.to_be_bytes());
    let mut udp = vec![0x10, 0, 0x20, 0];
    udp.extend_from_slice(&udp_len.to_be_bytes());
    udp.extend_from_slice(&fold(&pseudo).to_be_bytes());
    let header = NetHdr {
        flags: F_NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 6,
        ..NetHdr::default()
    };
    (header, [frame, ip, udp, payload].concat())
}

/// The ones' complement sum of big-endian words.
fn fold(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let sum: u32 = words
        .map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |&b| u32::from(b)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[test]
fn a_partial_checksum_is_completed_for_a_driver_that_does_not_take_it() {
    let server = Server::start("loopback").unwrap();
    for takes in [true, false] {
        let receive = if takes { features::RX_CSUM } else { 0 };
        let offloads = Options {
            features: features::TX_CSUM | receive,
            ..options()
        };
        let mut nic = server.nic_with(offloads).unwrap();
        let (header, frame) = partial(&nic);
        nic.send_with(0, header, &frame).unwrap();
        let back = nic.expect(0).unwrap();
        assert_eq!(back.frame.len(), frame.len());
        if takes && back.header.flags == F_NEEDS_CSUM {
            assert_eq!(back.frame, frame);
            assert_eq!((back.header.csum_start, back.header.csum_offset), (34, 6));
            continue;
        }
        assert!(takes || back.header.flags & F_DATA_VALID == 0);
        let udp = &back.frame[34..];
        let mut summed = vec![10, 0, 0, 1, 10, 0, 0, 2, 0, 17];
        summed.extend_from_slice(&udp[4..6]);
        summed.extend_from_slice(udp);
        assert_eq!(fold(&summed), 0xffff, "the checksum is not complete");
    }
}

#[test]
fn null_takes_everything_and_gives_nothing() {
    let server = Server::start("null").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    for seed in 0..500 {
        let frame = own(&nic, 1514, seed);
        nic.send(0, &frame).unwrap();
    }
    nic.drain(0).unwrap();
    assert_eq!(counter(&mut nic, queue::tx_index(0), regs::S_FRAMES), 500);
    silence(&mut nic, 0);
}

#[test]
fn an_interrupt_comes_only_when_it_was_asked_for() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    // After bring-up the event index of both rings asks for the first entry.
    let frame = own(&nic, 60, 0);
    nic.send(0, &frame).unwrap();
    assert!(nic.vectors[0].wait(LIMIT).unwrap());
    wait_counter(&mut nic, queue::rx_index(0), regs::S_FRAMES, 1);
    nic.vectors[0].take();
    // Neither index was moved since, so nothing more is due.
    for seed in 1..50 {
        let frame = own(&nic, 60, seed);
        nic.send(0, &frame).unwrap();
    }
    wait_counter(&mut nic, queue::rx_index(0), regs::S_FRAMES, 50);
    assert_eq!(nic.vectors[0].take(), 0);
    for seed in 0..50 {
        assert_eq!(nic.expect(0).unwrap().frame, own(&nic, 60, seed));
    }
}

#[test]
fn a_stopped_queue_is_left_alone_and_goes_on_where_it_stopped() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    for seed in 0..10 {
        round_trip(&mut nic, 0, seed);
    }
    let tx = queue::tx_index(0);
    nic.drain(0).unwrap();
    nic.card.disable(tx).unwrap();
    assert_eq!(nic.card.status(tx).unwrap(), 0);
    let index = nic.card.reg(regs::queue_reg(tx, regs::Q_INDEX)).unwrap();
    assert_eq!(index, 10 | 10 << 16);
    // Published while the queue is stopped: nothing happens, doorbell or not.
    let frame = own(&nic, 100, 99);
    nic.queue(0, NetHdr::default(), &frame).unwrap();
    nic.flush(0).unwrap();
    nic.card.doorbell(tx, 11).unwrap();
    silence(&mut nic, 0);
    assert_eq!(nic.in_flight(0), 1);
    // Enabled again, it fetches at once.
    nic.card
        .set_reg(regs::queue_reg(tx, regs::Q_CTRL), regs::Q_CTRL_ENABLE)
        .unwrap();
    assert_eq!(nic.expect(0).unwrap().frame, frame);
}

#[test]
fn without_bus_mastering_the_card_pauses() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    round_trip(&mut nic, 0, 1);
    nic.card.set_bus_master(false).unwrap();
    let frame = own(&nic, 100, 2);
    nic.queue(0, NetHdr::default(), &frame).unwrap();
    nic.flush(0).unwrap();
    nic.card.doorbell(queue::tx_index(0), 2).unwrap();
    silence(&mut nic, 0);
    assert_eq!(nic.card.queue_error(queue::tx_index(0)).unwrap(), None);
    nic.card.set_bus_master(true).unwrap();
    assert_eq!(nic.expect(0).unwrap().frame, frame);
}

#[test]
fn reset_under_traffic_leaves_a_card_that_works() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    for round in 0..30 {
        for seed in 0..40 {
            let frame = own(&nic, 1000, seed);
            nic.queue(0, NetHdr::default(), &frame).unwrap();
        }
        nic.flush(0).unwrap();
        nic.restart().unwrap();
        // Nothing of the time before the reset is left.
        assert_eq!(counter(&mut nic, queue::rx_index(0), regs::S_FRAMES), 0);
        round_trip(&mut nic, 0, round);
    }
}

#[test]
fn memory_that_is_taken_away_is_not_touched_again() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    round_trip(&mut nic, 0, 1);
    let (base, size) = (nic.ram.base(), nic.ram.size());
    for seed in 0..50 {
        let frame = own(&nic, 1000, seed);
        nic.queue(0, NetHdr::default(), &frame).unwrap();
    }
    nic.flush(0).unwrap();
    nic.card.unmap(base, size).unwrap();
    let before = nic.ram.read_vec(base, size as usize);
    nic.card.doorbell(queue::tx_index(0), 51).unwrap();
    std::thread::sleep(vnet_testkit::QUIET);
    assert!(before == nic.ram.read_vec(base, size as usize));
    assert_eq!(
        nic.card.wait_queue_error(queue::tx_index(0)).unwrap(),
        queue::Error::RingFault
    );
    let ram = std::sync::Arc::clone(&nic.ram);
    nic.card.map(&ram).unwrap();
    nic.restart().unwrap();
    round_trip(&mut nic, 0, 2);
}

/// The card has shown them as used long before, and asks for frames when they get there.
#[test]
fn frames_that_are_lost_behind_a_line_are_drops_of_the_transmit_queue() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("stream:path={}/nobody", dir.path().display());
    let server = Server::start_with(&nobody, &["--shape", "send.delay=20ms"]).unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    const COUNT: u64 = 100;
    for n in 0..COUNT {
        let frame = own(&nic, 60, n);
        nic.send(0, &frame).unwrap();
    }
    wait_counter(&mut nic, queue::tx_index(0), regs::S_DROPS, COUNT);
    assert_eq!(counter(&mut nic, queue::rx_index(0), regs::S_DROPS), 0);
}

#[test]
fn frames_that_the_driver_had_no_room_for_are_missed() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    // More than the ring and the loopback hold, and none is taken meanwhile.
    const COUNT: u64 = 3000;
    for n in 0..COUNT {
        let frame = own(&nic, 60, n);
        nic.send(0, &frame).unwrap();
    }
    nic.drain(0).unwrap();
    let (rx, tx) = (queue::rx_index(0), queue::tx_index(0));
    assert_eq!(counter(&mut nic, tx, regs::S_FRAMES), COUNT);
    let missed = counter(&mut nic, rx, regs::S_MISSED);
    assert!((1000..COUNT).contains(&missed), "{missed}");
    for _ in 0..COUNT - missed {
        nic.expect(0).unwrap();
    }
    silence(&mut nic, 0);
    assert_eq!(counter(&mut nic, rx, regs::S_MISSED), missed);
    assert_eq!(counter(&mut nic, rx, regs::S_DROPS), missed);
    for which in [regs::S_MISSED, regs::S_DROPS] {
        assert_eq!(counter(&mut nic, tx, which), 0);
    }
    nic.restart().unwrap();
    assert_eq!(counter(&mut nic, rx, regs::S_MISSED), 0);
}
