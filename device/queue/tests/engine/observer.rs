// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What an observer is told, and when.

use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress};
use vnet_contract::features::{HDR_SPLIT, MRG_RXBUF};
use vnet_contract::hdr::NetHdr;
use vnet_contract::ring;
use vnet_dma::DmaMap;
use vnet_queue::mock::packet;
use vnet_queue::{Budget, Fault, Observer, Position, Rx, Tx};

use crate::backend::{driver, everything, frame, memory, Backend, BUFFERS};

/// Keeps what it is told, with the used index that the driver sees at that moment.
#[derive(Clone, Debug)]
struct Notes {
    used_idx: u64,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Notes {
    fn new(used: u64) -> Self {
        Self {
            used_idx: used + ring::RING_IDX as u64,
            lines: Arc::default(),
        }
    }

    fn add(&self, mem: &DmaMap, at: Position, what: String) {
        let used: u16 = mem.read_obj(GuestAddress(self.used_idx)).unwrap();
        let (avail, next) = (at.next_avail, at.next_used);
        let line = format!("{what}, avail {avail}, used {next}, shown {used}");
        self.lines.lock().unwrap().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

impl Observer for Notes {
    fn begin(&mut self, mem: &DmaMap, at: Position) {
        self.add(mem, at, "begin".into());
    }

    fn publish(&mut self, mem: &DmaMap, at: Position, count: u16) {
        self.add(mem, at, format!("publish {count}"));
    }

    fn end(&mut self, mem: &DmaMap, at: Position, lent: u16) {
        self.add(mem, at, format!("end {lent}"));
    }

    fn armed(&mut self, event: u16) {
        self.lines.lock().unwrap().push(format!("armed {event}"));
    }

    fn due(&mut self, event: u16) {
        self.lines.lock().unwrap().push(format!("due {event}"));
    }

    fn fault(&mut self, mem: &DmaMap, at: Position, bad: u16, fault: Fault) {
        self.add(mem, at, format!("{fault}, of entry {bad}"));
    }

    fn doorbell(&mut self, _: &DmaMap, _: Position, _: u32) {
        unreachable!("told of by the caller of the engine");
    }

    fn tick(&mut self, _: &DmaMap, _: Position) {
        unreachable!("told of by the caller of the engine");
    }
}

#[test]
fn a_transmit_queue_tells_before_the_driver_sees() {
    let mem = memory();
    let device = mem.device();
    let mut driver = driver(&mem, 64, 0);
    let mut tx = Tx::start(&driver.config, &device).unwrap();
    let notes = Notes::new(driver.config.used);
    tx.observe(Box::new(notes.clone()));
    mem.write(BUFFERS, &packet(NetHdr::default(), &frame(60, 1)));
    for head in [3, 5] {
        driver.chain(head, &[(BUFFERS, 72)], false);
        driver.offer(head);
    }
    let outcome = tx.run(&device, &mut Backend::default(), Budget::default());
    assert_eq!((outcome.frames, outcome.fault), (2, None));
    assert_eq!(
        notes.take(),
        [
            "begin, avail 0, used 0, shown 0",
            "publish 2, avail 2, used 0, shown 0",
        ]
    );
    tx.interrupt_due(&device).unwrap().unwrap();
    assert!(!tx.rearm(&device).unwrap());
    assert_eq!(notes.take(), ["due 0", "armed 2"]);
}

#[test]
fn a_receive_queue_tells_what_it_may_have_written_to() {
    let mem = memory();
    let device = mem.device();
    let mut driver = driver(&mem, 64, 0);
    let mut rx = Rx::start(&driver.config, &device).unwrap();
    let notes = Notes::new(driver.config.used);
    rx.observe(Box::new(notes.clone()));
    for head in 0..2u16 {
        let at = BUFFERS + u64::from(head) * 0x1000;
        driver.chain(head, &[(at, 2048)], true);
        driver.offer(head);
    }
    // The second frame is longer than the buffer that it was written to, and dropped.
    let mut backend = Backend::with_frames([frame(60, 1), frame(3000, 2)]);
    let outcome = rx.run(&device, &mut backend, &everything(), Budget::default());
    assert_eq!((outcome.frames, outcome.drops), (1, 1));
    assert_eq!(
        notes.take(),
        [
            "begin, avail 0, used 0, shown 0",
            "publish 1, avail 2, used 0, shown 0",
            "end 1, avail 1, used 1, shown 1",
        ]
    );
}

/// A frame that goes on in further chains, of which the third is bad: those before it are given back.
#[test]
fn a_fault_is_of_the_chain_that_is_bad() {
    for features in [MRG_RXBUF, MRG_RXBUF | HDR_SPLIT] {
        let mem = memory();
        let device = mem.device();
        let mut driver = driver(&mem, 64, features);
        let mut rx = Rx::start(&driver.config, &device).unwrap();
        let notes = Notes::new(driver.config.used);
        rx.observe(Box::new(notes.clone()));
        for head in [2, 4, 6] {
            let at = BUFFERS + u64::from(head) * 0x1000;
            driver.chain(head, &[(at, 64), (at + 64, 64)], head < 6);
            driver.offer(head);
        }
        let mut backend = Backend::with_frames([frame(300, 1)]);
        let outcome = rx.run(&device, &mut backend, &everything(), Budget::default());
        rx.accuse(&device, outcome.fault.unwrap());
        let lines = notes.take();
        let due = "descriptor 6 has the wrong direction, of entry 2, avail 0, used 0, shown 0";
        assert_eq!(lines.last().unwrap(), due);
    }
}
