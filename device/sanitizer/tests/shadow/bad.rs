// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Drivers that break a rule at a moment that only a test can choose.

use std::time::Duration;

use vnet_contract::features::{HDR_SPLIT, INDIRECT_DESC, MRG_RXBUF};
use vnet_contract::ring::{Desc, DESC_F_INDIRECT, DESC_F_NEXT};
use vnet_queue::mock::chain;

use crate::rig::{Rig, PATIENCE, RX, SIZE, TICK, TX};

const LONG: Duration = Duration::from_secs(9);

#[test]
fn a_frame_that_changes_while_the_card_has_it() {
    let mut rig = Rig::new(0);
    rig.offer(3);
    // The backend takes nothing.
    rig.serve_tx(false);
    rig.mem.write(Rig::tx_buffer(3) + 12 + 41, &[1]);
    rig.backend.takes = 1;
    rig.serve_tx(true);
    assert_eq!(rig.tx.used_idx(), 1);
    let seen = "another header or start of the frame";
    rig.expect("buffer-changed", TX, Some(3), seen);
}

#[test]
fn what_lies_behind_the_headers_may_change() {
    let mut rig = Rig::new(0);
    rig.offer(3);
    rig.serve_tx(false);
    rig.mem.write(Rig::tx_buffer(3) + 12 + 42, &[1]);
    rig.backend.takes = 1;
    rig.serve_tx(true);
    assert_eq!(rig.rules(), [""; 0]);
}

/// The first 64 bytes of the 32 buffers that come next are the card's alone.
#[test]
fn receive_buffers_that_change() {
    for (head, byte, found) in [(0, 63, true), (0, 64, false), (31, 0, true), (32, 0, false)] {
        let mut rig = Rig::new(0);
        (0..SIZE).for_each(|head| _ = rig.post(head));
        rig.pass(TICK, true);
        rig.mem.write(Rig::rx_buffer(head) + byte, &[1]);
        rig.pass(TICK, true);
        match found {
            true => rig.expect(
                "buffer-changed",
                RX,
                Some(head),
                "other contents than before",
            ),
            false => assert_eq!(rig.rules(), [""; 0], "{head}, {byte}"),
        }
    }
}

/// Platforms take memory away and give it back in one go when something is plugged in.
#[test]
fn memory_that_is_away_for_long() {
    for (ticks, found) in [(2, false), (3, true)] {
        let mut rig = Rig::new(0);
        rig.post(6);
        rig.pass(TICK, true);
        rig.take_buffers_away();
        rig.pass(TICK * ticks, true);
        rig.give_buffers_back();
        rig.pass(LONG, true);
        match found {
            true => {
                let seen = format!("bus address {:#x}", Rig::rx_buffer(6));
                rig.expect("dma-unmapped", RX, Some(6), &seen);
            }
            false => assert_eq!(rig.rules(), [""; 0]),
        }
    }
}

#[test]
fn a_descriptor_that_is_written_too_late() {
    let mut rig = Rig::new(0);
    rig.offer(3);
    rig.serve_tx(false);
    rig.tx.chain(3, &[(Rig::tx_buffer(3), 100)], false);
    rig.backend.takes = 1;
    rig.serve_tx(true);
    rig.expect("chain-changed", TX, Some(3), "other descriptors");
}

#[test]
fn two_chains_with_one_descriptor() {
    let mut rig = Rig::new(0);
    let at = Rig::tx_buffer(0);
    rig.tx.chain(3, &[(at, 12), (at, 60)], false);
    rig.tx.offer(3);
    rig.tx.chain(4, &[(at, 60)], false);
    rig.tx.offer(4);
    rig.serve_tx(false);
    let seen = "descriptor 4, which the chain at 3 takes";
    rig.expect("chain-reused", TX, Some(4), seen);
}

/// A frame that is sent from a buffer which the card may write a received one to.
#[test]
fn a_buffer_on_both_queues() {
    let mut rig = Rig::new(0);
    rig.post(6);
    rig.pass(TICK, true);
    let at = Rig::rx_buffer(6) + 100;
    rig.mem.write(at, &[0; 72]);
    rig.tx.chain(7, &[(at, 72)], false);
    rig.tx.offer(7);
    rig.serve_tx(false);
    let seen = format!("{at:#x}, which is also of the buffer at descriptor 6 of queue {RX}");
    rig.expect("buffer-overlap", TX, Some(7), &seen);
}

/// The same, but the frame was there first: its memory was freed too early. Later it is free.
#[test]
fn a_receive_buffer_in_a_frame_that_is_being_sent() {
    let mut rig = Rig::new(0);
    rig.offer(7);
    rig.serve_tx(false);
    let at = Rig::tx_buffer(7) + 40;
    rig.rx.chain(6, &[(at, 2048)], true);
    rig.rx.offer(6);
    rig.pass(TICK, true);
    let seen = format!("{at:#x}, which is also of the buffer at descriptor 7 of queue {TX}");
    rig.expect("buffer-overlap", RX, Some(6), &seen);
    rig.backend.takes = 1;
    rig.serve_tx(true);
    rig.rx.chain(8, &[(Rig::tx_buffer(7), 40)], true);
    rig.rx.offer(8);
    rig.pass(TICK, true);
    assert_eq!(rig.sanitizer.findings().total(), 1);
}

/// A doorbell for what is not there; one that is late is none.
#[test]
fn doorbells_are_judged_by_their_value() {
    let mut rig = Rig::new(0xfff0);
    rig.backend.takes = usize::MAX;
    for n in 0..40u16 {
        rig.offer(n % SIZE);
        rig.serve_tx(true);
    }
    for value in [0xfff0, 0xfff1, 0, 0x10, 0x17, 0x18] {
        rig.doorbell(TX, value);
    }
    assert_eq!(rig.rules(), [""; 0]);
    rig.doorbell(TX, 0x19);
    let seen = "avail index 24, next entry of the card 24";
    rig.expect("doorbell-early", TX, None, seen);
}

/// After so many entries the same value may be of another lap.
#[test]
fn a_doorbell_is_not_judged_when_it_may_be_old() {
    let mut rig = Rig::new(0);
    rig.backend.takes = usize::MAX;
    for n in 0..20_000u32 {
        rig.offer((n % u32::from(SIZE)) as u16);
        rig.serve_tx(true);
        while rig.tx.take_used().is_some() {}
    }
    rig.doorbell(TX, 20_001);
    assert_eq!(rig.rules(), [""; 0]);
    rig.pass(LONG, true);
    rig.doorbell(TX, 20_001);
    assert!(rig.rules().contains(&"doorbell-early"));
}

#[test]
fn a_doorbell_that_never_comes() {
    let mut rig = Rig::new(0);
    rig.serve_tx(true);
    assert!(rig.offer(0));
    rig.pass(LONG, false);
    assert_eq!(rig.rules(), [""; 0], "the guest stands still");
    rig.pass(Duration::from_millis(1000), true);
    assert_eq!(rig.rules(), [""; 0]);
    rig.pass(PATIENCE, true);
    rig.pass(LONG, true);
    let seen = "avail index 1, used index 0, used_event 0";
    rig.expect("doorbell-missing", TX, None, seen);
    assert_eq!(rig.sanitizer.findings().total(), 1, "told once");
}

#[test]
fn doorbells_of_a_receive_queue() {
    let mut rig = Rig::new(0);
    rig.post(0);
    rig.doorbell(RX, 2);
    let seen = "avail index 1, next entry of the card 0";
    rig.expect("doorbell-early", RX, None, seen);

    let mut rig = Rig::new(0);
    rig.backend.has = 1;
    rig.serve_rx(true);
    assert!(rig.post(0));
    rig.pass(LONG, true);
    let seen = "avail index 1, used index 0, used_event 0";
    rig.expect("doorbell-missing", RX, None, seen);
}

#[test]
fn received_frames_that_nobody_takes() {
    for index in [0, 0xffe0u16] {
        let mut rig = Rig::new(index);
        for head in 0..SIZE {
            rig.post(head);
        }
        rig.backend.has = 48;
        rig.serve_rx(false);
        rig.pass(PATIENCE * 2, true);
        let (avail, used) = (index.wrapping_add(SIZE), index.wrapping_add(48));
        let seen = format!("avail index {avail}, used index {used}, used_event {index}");
        rig.expect("used-ignored", RX, None, &seen);
        // It woke up, and took them; then it sleeps again.
        while let Some((head, _)) = rig.rx.take_used() {
            rig.post(head as u16);
        }
        rig.rx.rearm();
        rig.pass(LONG, true);
        rig.backend.has = 48;
        rig.serve_rx(false);
        rig.pass(LONG, true);
        assert_eq!(rig.sanitizer.findings().total(), 2);
    }
}

/// A driver may write anything there. What it is blamed for is that it takes nothing.
#[test]
fn any_event_index() {
    for first in [0, 0xffe0u16] {
        for event in [0, 1, 47, 48, 49, 111, 112, 0x7fff, 0x8000, 0xfffe, 0xffff] {
            let event = first.wrapping_add(event);
            let mut rig = Rig::new(first);
            rig.rx.set_used_event(event);
            rig.tx.set_used_event(event);
            for head in 0..SIZE {
                rig.post(head);
                rig.offer(head);
            }
            (rig.backend.has, rig.backend.takes) = (48, 48);
            rig.serve_rx(false);
            rig.serve_tx(false);
            rig.pass(LONG, true);
            let takes = [
                "used-ignored",
                "rearm-race",
                "rearm-missing",
                "tx-unreclaimed",
            ];
            let rules = rig.rules();
            assert!(
                rules.iter().all(|rule| takes.contains(rule)),
                "{event}: {rules:?}"
            );
        }
    }
}

/// Sent frames that nobody takes back: the driver sleeps, as its other queue shows.
#[test]
fn sent_frames_that_nobody_takes_back() {
    let mut rig = Rig::new(0);
    rig.tx.set_used_event(0xffff);
    rig.backend.takes = 3;
    for head in 0..3 {
        rig.offer(head);
    }
    rig.serve_tx(true);
    rig.rx.set_used_event(0xffff);
    rig.pass(LONG, true);
    assert_eq!(rig.rules(), [""; 0], "it may be polling");
    rig.rx.set_used_event(0);
    rig.pass(PATIENCE * 2, true);
    let seen = "avail index 3, used index 3, used_event 65535";
    rig.expect("tx-unreclaimed", TX, None, seen);
}

/// The driver may have taken back what there was when it was interrupted, or lost a race; but not
/// what it sends long after, without another interrupt.
#[test]
fn frames_that_are_sent_after_the_last_look() {
    for (first, used) in [(0u16, 2), (0xffff, 3)] {
        let mut rig = Rig::new(0);
        rig.tx.set_used_event(first);
        rig.backend.takes = usize::MAX;
        rig.offer(0);
        rig.serve_tx(true);
        if first == 0xffff {
            rig.offer(1);
            rig.serve_tx(true);
            // It sleeps, and frames were there already.
            rig.tx.set_used_event(0);
        }
        rig.pass(PATIENCE * 3, true);
        assert_eq!(rig.rules(), [""; 0]);
        rig.offer(2);
        rig.serve_tx(true);
        rig.pass(PATIENCE - Duration::from_millis(400), true);
        assert_eq!(rig.rules(), [""; 0]);
        rig.pass(Duration::from_secs(1), true);
        let seen = format!("avail index {used}, used index {used}, used_event 0");
        rig.expect("tx-unreclaimed", TX, None, &seen);
    }
}

/// A frame waits for an interrupt that waits for its vector; before that it may wait for company, and no vector
/// has it meanwhile.
#[test]
fn a_vector_that_is_never_unmasked() {
    for (kind, moderated) in [(RX, false), (TX, false), (RX, true), (TX, true)] {
        let mut rig = Rig::new(0);
        (rig.masked, rig.moderated) = (true, moderated);
        if kind == RX {
            rig.post(0);
            rig.backend.has = 1;
            rig.serve_rx(true);
        } else {
            rig.offer(0);
            rig.backend.takes = 1;
            rig.serve_tx(true);
        }
        if moderated {
            rig.pass(TICK, true);
            rig.moderated = false;
            rig.serve_rx(true);
            rig.serve_tx(true);
        }
        rig.pass(PATIENCE - TICK, true);
        assert_eq!(rig.rules(), [""; 0]);
        rig.pass(PATIENCE, true);
        let seen = "avail index 1, used index 1, used_event 0";
        rig.expect("vector-masked", kind, None, seen);
    }
}

#[test]
fn a_race_that_is_lost() {
    let mut rig = Rig::new(0);
    for head in 0..SIZE {
        rig.post(head);
    }
    rig.backend.has = 1;
    rig.serve_rx(false);
    // It polls, without interrupts.
    rig.rx.set_used_event(0xffff);
    assert!(rig.rx.take_used().is_some());
    // More come before it asks for an interrupt, and it does not look.
    rig.backend.has = 50;
    rig.serve_rx(false);
    assert!(rig.rx.rearm());
    rig.pass(PATIENCE * 2, true);
    let seen = "avail index 64, used index 51, used_event 1";
    rig.expect("rearm-race", RX, None, seen);
}

/// A frame goes on in a second chain, and that one is bad.
#[test]
fn a_bad_chain_behind_a_good_one() {
    let gone = 0x7000_0000;
    let cases = [
        (
            true,
            gone,
            "dma-unmapped",
            "bus address 0x70000000".to_owned(),
        ),
        (
            false,
            Rig::rx_buffer(7),
            "chain-direction",
            "descriptor 7 has the wrong direction".to_owned(),
        ),
    ];
    for (write, at, rule, seen) in cases {
        let mut rig = Rig::with(0, MRG_RXBUF);
        rig.sanitizer.unmapped(gone..=gone + 0xfff);
        rig.rx.chain(5, &[(Rig::rx_buffer(5), 40)], true);
        rig.rx.offer(5);
        rig.rx.chain(7, &[(at, 2048)], write);
        rig.rx.offer(7);
        rig.backend.has = 1;
        rig.fail(RX);
        rig.expect(rule, RX, Some(7), &seen);
    }
}

#[test]
fn an_indirect_table_that_was_taken_away() {
    let gone = 0x7000_0000u64;
    for kind in [RX, TX] {
        let mut rig = Rig::with(0, INDIRECT_DESC);
        rig.sanitizer.unmapped(gone..=gone + 0xfff);
        let queue = if kind == RX { &mut rig.rx } else { &mut rig.tx };
        let desc = Desc {
            addr: gone + 0x20,
            len: 32,
            flags: DESC_F_INDIRECT,
            next: 0,
        };
        queue.desc(15, desc);
        queue.offer(15);
        rig.backend.has = 1;
        rig.fail(kind);
        rig.expect("dma-unmapped", kind, Some(15), "bus address 0x70000020");
    }
}

/// What is named is the buffer that is out of reach, however the chain goes on.
#[test]
fn a_buffer_out_of_reach_in_a_chain_without_an_end() {
    let gone = 0x7000_0000u64;
    for indirect in [false, true] {
        let mut rig = Rig::with(0, INDIRECT_DESC);
        let mut descs = chain(3, &[(Rig::tx_buffer(0), 12), (gone, 60)], false);
        descs[1].flags = DESC_F_NEXT;
        descs[1].next = SIZE;
        if indirect {
            descs[0].next = 1;
            rig.tx.indirect(3, Rig::tx_buffer(1), &descs);
        } else {
            (3..)
                .zip(&descs)
                .for_each(|(index, desc)| rig.tx.desc(index, *desc));
        }
        rig.tx.offer(3);
        rig.fail(TX);
        rig.expect("dma-unreachable", TX, Some(3), "bus address 0x70000000");
    }
}

#[test]
fn a_header_buffer_in_two_ranges() {
    let mut rig = Rig::with(0, HDR_SPLIT);
    let border = Rig::two_ranges();
    rig.rx
        .chain(9, &[(border - 32, 64), (Rig::rx_buffer(9), 2048)], true);
    rig.rx.offer(9);
    rig.backend.has = 1;
    rig.fail(RX);
    let seen = format!("bus address {:#x}", border - 32);
    rig.expect("dma-unreachable", RX, Some(9), &seen);
}
