// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A client that does not share its memory: the card asks for every byte by message.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{burst, counter, options, own, round_trip};
use vnet_contract::hdr::{self, NetHdr};
use vnet_contract::ring::DESC_F_WRITE;
use vnet_contract::{queue, regs};
use vnet_testkit::{GuestRam, Manners, Nic, Options, RawQueue, Server, LIMIT, QUIET};

const RX: u16 = queue::rx_index(0);
const TX: u16 = queue::tx_index(0);

fn unshared() -> Options {
    Options {
        shared: false,
        ..options()
    }
}

/// The card answers at once, whatever its client does with what it is asked for.
fn assert_answers(nic: &mut Nic) {
    let start = Instant::now();
    assert_eq!(nic.card.reg(regs::ID).unwrap(), regs::ID_VALUE);
    // QEMU would freeze its guest for five seconds and then give up.
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn frames_of_every_length_come_back_as_they_were() {
    let mut server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(unshared()).unwrap();
    for len in (14..70).chain([127, 512, 1023, 1513, 1514]) {
        let frame = own(&nic, len, len as u64);
        nic.send(0, &frame).unwrap();
        assert_eq!(nic.expect(0).unwrap().frame, frame, "{len} bytes");
    }
    let keeper = nic.card.wire.keeper();
    let (reads, writes) = keeper.asked();
    assert!(reads > 100 && writes > 100, "{reads}, {writes}");
    assert!(!keeper.was_outside());
    drop(nic);
    let log = server.end().unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("share=on"), "{log}");
}

#[test]
fn a_stream_arrives_whole_and_in_order_around_the_ring() {
    let server = Server::start("loopback").unwrap();
    let small = Options {
        ring_size: 64,
        ..unshared()
    };
    let mut nic = server.nic_with(small).unwrap();
    const COUNT: u64 = 3000;
    burst(&mut nic, COUNT, 60, 1400);
    assert_eq!(counter(&mut nic, RX, regs::S_FRAMES), COUNT);
    assert_eq!(counter(&mut nic, TX, regs::S_FRAMES), COUNT);
    assert!(!nic.card.wire.keeper().was_outside());
}

#[test]
fn large_frames_fill_many_buffers() {
    let server = Server::start("loopback").unwrap();
    let large = Options {
        max_frame: 9000,
        mtu: 8986,
        rx_buffer: 1024,
        ..unshared()
    };
    let mut nic = server.nic_with(large).unwrap();
    for len in [1000, 1013, 4000, 8999, 9000] {
        let frame = own(&nic, len, 1);
        nic.send(0, &frame).unwrap();
        let back = nic.expect(0).unwrap();
        assert!(back.frame == frame, "{len} bytes");
    }
}

#[test]
fn several_pairs_take_turns() {
    let server = Server::start_with("loopback", &["--queues", "3"]).unwrap();
    let three = Options {
        pairs: 3,
        ..unshared()
    };
    let mut nic = server.nic_with(three).unwrap();
    for seed in 0..40 {
        for pair in 0..3 {
            round_trip(&mut nic, pair, seed * 3 + u64::from(pair));
        }
    }
}

/// What the memory looks like does not change any more.
fn assert_at_rest(nic: &Nic) {
    let look = || nic.ram.read_vec(nic.ram.base(), nic.ram.size() as usize);
    let before = look();
    std::thread::sleep(QUIET);
    assert!(
        before == look(),
        "the card has written after it came to rest"
    );
}

/// Sends as much as fits, without waiting for it.
fn flood(nic: &mut Nic) {
    for seed in 0..40 {
        let frame = own(nic, 1514, seed);
        nic.queue(0, NetHdr::default(), &frame).unwrap();
    }
    nic.flush(0).unwrap();
}

#[test]
fn a_queue_that_was_stopped_is_at_rest_and_has_shown_what_it_used() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(unshared()).unwrap();
    for round in 0..20 {
        flood(&mut nic);
        std::thread::sleep(Duration::from_micros(300 * round));
        for queue in [RX, TX] {
            nic.card.disable(queue).unwrap();
        }
        for (queue, used) in [(RX, nic.used_index(RX)), (TX, nic.used_index(TX))] {
            let index = nic.card.reg(regs::queue_reg(queue, regs::Q_INDEX)).unwrap();
            assert_eq!((index >> 16) as u16, used, "queue {queue}: {index:#x}");
        }
        assert_at_rest(&nic);
        nic.restart().unwrap();
    }
    round_trip(&mut nic, 0, 1);
}

#[test]
fn a_card_that_was_reset_is_at_rest() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(unshared()).unwrap();
    for round in 0..20 {
        flood(&mut nic);
        std::thread::sleep(Duration::from_micros(300 * round));
        nic.card.reset().unwrap();
        assert_at_rest(&nic);
        nic.restart().unwrap();
    }
    round_trip(&mut nic, 0, 1);
}

#[test]
fn without_bus_mastering_nothing_is_asked_for() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(unshared()).unwrap();
    round_trip(&mut nic, 0, 1);
    for _ in 0..5 {
        nic.card.set_bus_master(false).unwrap();
        flood(&mut nic);
        // What was asked for before may still come in.
        std::thread::sleep(QUIET);
        let before = nic.card.wire.keeper().asked();
        std::thread::sleep(QUIET);
        assert_eq!(nic.card.wire.keeper().asked(), before);
        nic.card.set_bus_master(true).unwrap();
        for seed in 0..40 {
            assert_eq!(nic.expect(0).unwrap().frame, own(&nic, 1514, seed));
        }
    }
}

#[test]
fn memory_that_is_gone_fails_the_queue_that_uses_it() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(unshared()).unwrap();
    round_trip(&mut nic, 0, 1);
    let (base, size) = (nic.ram.base(), nic.ram.size());
    nic.card.unmap(base, size).unwrap();
    nic.card.doorbell(TX, 0).unwrap();
    let error = nic.card.wait_queue_error(TX).unwrap();
    assert_eq!(error, queue::Error::RingFault);
    assert_at_rest(&nic);
}

#[test]
fn a_client_that_answers_badly_loses_its_queues_and_nothing_else() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(unshared()).unwrap();
    for manners in [
        Manners::Refuses(14),
        Manners::Refuses(0),
        Manners::Short,
        Manners::Long,
        Manners::Stranger,
    ] {
        round_trip(&mut nic, 0, 1);
        nic.card.wire.keeper().set(manners);
        let frame = own(&nic, 100, 2);
        nic.send(0, &frame).unwrap();
        let error = nic.card.wait_queue_error(TX).unwrap();
        assert_eq!(error, queue::Error::RingFault, "{manners:?}");
        assert_answers(&mut nic);
        nic.card.wire.keeper().set(Manners::Good);
        nic.restart().unwrap();
    }
    // Said twice is no harm.
    nic.card.wire.keeper().set(Manners::Twice);
    for seed in 0..5 {
        round_trip(&mut nic, 0, seed);
    }
}

#[test]
fn a_client_that_does_not_answer_is_not_waited_for() {
    let mut server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(unshared()).unwrap();
    round_trip(&mut nic, 0, 1);
    nic.card.wire.keeper().set(Manners::Silent);
    let frame = own(&nic, 100, 2);
    nic.send(0, &frame).unwrap();
    // All that a client asks for meanwhile is done: queues, mappings, reset.
    for _ in 0..10 {
        assert_answers(&mut nic);
        std::thread::sleep(Duration::from_millis(20));
    }
    let other = GuestRam::new(0x1_0000_0000, 0x1000).unwrap();
    nic.card.map(&other).unwrap();
    nic.card.unmap(other.base(), other.size()).unwrap();
    assert_eq!(
        nic.card.wait_queue_error(TX).unwrap(),
        queue::Error::RingFault
    );
    // It is about to be asked again, and goes away.
    nic.card.wire.keeper().set(Manners::Silent);
    drop(nic);
    let mut next = server.nic_with(unshared()).unwrap();
    round_trip(&mut next, 0, 3);
    next.card.wire.keeper().set(Manners::Silent);
    let frame = own(&next, 100, 4);
    next.send(0, &frame).unwrap();
    let start = Instant::now();
    server.end().unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "waits at its end");
}

#[test]
fn a_client_that_refuses_a_write_and_leaves_owing_another_harms_no_other() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(unshared()).unwrap();
    round_trip(&mut nic, 0, 1);
    nic.card.wire.keeper().set(Manners::Sulky);
    let before = nic.card.wire.keeper().asked().1;
    let frame = own(&nic, 1000, 2);
    nic.send(0, &frame).unwrap();
    let end = Instant::now() + LIMIT;
    while nic.card.wire.keeper().asked().1 < before + 2 {
        assert!(Instant::now() < end, "the frame is not delivered");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The two may be what TX has used, and the frame. Then comes what RX has used.
    std::thread::sleep(QUIET);
    assert_answers(&mut nic);
    drop(nic);
    // The worker may still be at it for a moment.
    let mut card = server.card().unwrap();
    let end = Instant::now() + LIMIT;
    while card.reg(regs::STATUS).unwrap() & regs::STATUS_READY == 0 {
        assert!(Instant::now() < end, "the card is never ready again");
    }
    let mut next = Nic::bring_up(card, unshared()).unwrap();
    round_trip(&mut next, 0, 3);
}

#[test]
fn rings_that_are_shared_and_buffers_that_are_not() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    let kept = Arc::new(GuestRam::new(0x1_0000_0000, 0x10_0000).unwrap());
    nic.card.keep(&kept).unwrap();
    // As fast as before: nothing is asked for.
    for seed in 0..20 {
        round_trip(&mut nic, 0, seed);
    }
    assert_eq!(nic.card.wire.keeper().asked(), (0, 0));

    let ram = Arc::clone(&nic.ram);
    let mut raw = [RawQueue::new(&ram, 64), RawQueue::new(&ram, 64)];
    for (queue, raw) in [RX, TX].into_iter().zip(&raw) {
        nic.stop(queue).unwrap();
        nic.card.enable(queue, 64, raw.ring.addresses(), 0).unwrap();
        assert_eq!(nic.card.queue_error(queue).unwrap(), None);
    }
    let header = hdr::SIZE as u64;
    for n in 0..100u16 {
        let slot = n % 64;
        let (out, back) = (
            kept.base() + 0x1000 * u64::from(slot),
            kept.base() + 0x8_0000 + 0x1000 * u64::from(slot),
        );
        let frame = own(&nic, 60 + 7 * usize::from(n), n.into());
        let len = header as u32 + frame.len() as u32;
        kept.write(out, &[0; hdr::SIZE]);
        kept.write(out + header, &frame);
        raw[0].desc(slot, back, 2048, DESC_F_WRITE, 0);
        raw[0].offer(slot);
        raw[1].desc(slot, out, len, 0, 0);
        raw[1].offer(slot);
        nic.card.doorbell(RX, n + 1).unwrap();
        nic.card.doorbell(TX, n + 1).unwrap();
        let end = Instant::now() + LIMIT;
        while raw[0].used_index() != n + 1 {
            assert!(Instant::now() < end, "frame {n} does not come back");
            std::thread::yield_now();
        }
        // The used index is shown when everything before it has arrived.
        assert_eq!(kept.read_vec(back + header, frame.len()), frame);
    }
    assert!(nic.card.wire.keeper().asked().1 >= 100);
}

#[test]
fn neither_the_sanitizer_nor_survival_go_with_it() {
    for option in ["--sanitize=report", "--survive"] {
        let mut server = Server::start_with("loopback", &[option]).unwrap();
        // Bus mastering is on before memory is mapped here, so it is turned on again.
        let mut card = server.card().unwrap();
        let ram = Arc::new(GuestRam::new(0, 0x1000).unwrap());
        card.keep(&ram).unwrap();
        let _ = card.set_bus_master(true);
        let status = server.process.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{option}");
        let text = server.process.stderr();
        assert!(text.contains("share=on"), "{option}: {text}");
    }
}
