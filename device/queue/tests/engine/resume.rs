// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A process that dies in the middle of a batch, and the next one.
//!
//! It dies in a call of the backend, where a batch spends its time: unwinding leaves guest memory
//! and the cell as they are, and the queue is not used again.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use proptest::prelude::*;
use vnet_backend::{Frame, Offloads, Queue, RxRing};
use vnet_contract::features::MRG_RXBUF;
use vnet_contract::hdr::{NetHdr, SIZE as HEADER};
use vnet_queue::mock::{packet, Driver, Memory as Guest};
use vnet_queue::{Budget, Progress, Recovered, Rx, Tx};
use vnet_state::{Block, Cell, Memory};

use crate::backend::{driver, everything, frame, memory, Backend, BUFFERS};

const SIZE: u16 = 64;
const BUFFER: u64 = 0x800;

fn cell() -> Cell {
    Block::new(&Memory::create().unwrap(), 0).unwrap().cell(0)
}

/// Where a process dies.
#[derive(Clone, Copy, Debug)]
struct Death {
    /// Frames that it still carries.
    after: usize,
    /// Whether the next one got through to the other side.
    through: bool,
}

fn deaths() -> impl Strategy<Value = Vec<Death>> {
    let one = (0..40usize, any::<bool>()).prop_map(|(after, through)| Death { after, through });
    prop::collection::vec(one, 1..12)
}

/// A frame that carries its number.
fn numbered(n: u32) -> Vec<u8> {
    let mut bytes = frame(60 + n as usize % 3 * 700, 0);
    bytes[14..18].copy_from_slice(&n.to_le_bytes());
    bytes
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[14..18].try_into().unwrap())
}

/// The backend of a process that dies. The frames are the network's, and stay.
struct Mortal<'a> {
    inner: &'a mut Backend,
    death: Death,
}

impl Mortal<'_> {
    fn live(&mut self) {
        match self.death.after.checked_sub(1) {
            Some(left) => self.death.after = left,
            None => resume_unwind(Box::new(())),
        }
    }
}

impl Queue for Mortal<'_> {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        for frame in batch {
            if self.death.after > 0 || self.death.through {
                assert_eq!(self.inner.transmit(&[*frame]), 1);
            }
            self.live();
        }
        batch.len()
    }

    fn offloads(&self) -> Offloads {
        self.inner.offloads()
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        while let Some((frame, meta)) = self.inner.waiting.front() {
            let Some(room) = ring.room(frame.len()) else {
                return;
            };
            room.write(frame);
            let (len, meta) = (frame.len(), *meta);
            // One that is read from the network is not there any more.
            if self.death.after > 0 || self.death.through {
                self.inner.waiting.pop_front();
            }
            self.live();
            ring.commit(len, meta);
        }
    }
}

/// Runs a process until it dies.
fn live_and_die(inner: &mut Backend, death: Death, mut serve: impl FnMut(&mut dyn Queue) -> bool) {
    let mut mortal = Mortal { inner, death };
    let _ = catch_unwind(AssertUnwindSafe(|| while serve(&mut mortal) {}));
}

/// Posts numbered frames while there is room in the ring.
fn post(driver: &mut Driver, mem: &Guest, from: &mut u32, until: u32, out: &mut u32) {
    while *from < until && *out < u32::from(SIZE) {
        let slot = (*from % u32::from(SIZE)) as u16;
        let at = BUFFERS + u64::from(slot) * BUFFER;
        let bytes = packet(NetHdr::default(), &numbered(*from));
        mem.write(at, &bytes);
        driver.chain(slot, &[(at, bytes.len() as u32)], false);
        driver.offer(slot);
        (*from, *out) = (*from + 1, *out + 1);
    }
}

proptest! {
    #[test]
    fn no_frame_is_sent_twice_and_one_is_lost_for_each_death_at_most(
        deaths in deaths(),
        start in any::<u16>(),
        plain in any::<bool>(),
    ) {
        let mem = memory();
        let mut driver = driver(&mem, SIZE, 0).start_at(start);
        let mut network = Backend { plain, ..Backend::default() };
        let cell = cell();
        let mut tx = Tx::start(&driver.config, &mem.device()).unwrap();
        tx.track(Progress::new(cell.clone()));
        let (mut posted, mut out, mut returned, mut dropped) = (0, 0, 0, 0);
        let immortal = Death { after: usize::MAX, through: true };
        for death in deaths.iter().copied().chain([immortal]) {
            post(&mut driver, &mem, &mut posted, returned + 64, &mut out);
            live_and_die(&mut network, death, |backend| {
                let outcome = tx.run(&mem.device(), backend, Budget::default());
                assert_eq!(outcome.fault, None);
                outcome.frames > 0
            });
            (tx, _) =
                Tx::resume(&driver.config, &mem.device(), Progress::new(cell.clone()), || dropped += 1).unwrap();
            while let Some((head, len)) = driver.take_used() {
                prop_assert_eq!((head, len), (returned % u32::from(SIZE), 0));
                (returned, out) = (returned + 1, out - 1);
            }
        }
        prop_assert_eq!(returned, posted);
        let sent: Vec<_> = network.sent.iter().map(|(bytes, _)| number(bytes)).collect();
        prop_assert!(sent.windows(2).all(|w| w[0] < w[1]), "{sent:?}");
        let lost = posted - sent.len() as u32;
        prop_assert!(lost <= dropped && dropped <= deaths.len() as u32, "{lost} {dropped}");
    }

    #[test]
    fn no_frame_is_received_twice_and_one_is_lost_for_each_death_at_most(
        deaths in deaths(),
        start in any::<u16>(),
        mergeable in any::<bool>(),
    ) {
        let features = if mergeable { MRG_RXBUF } else { 0 };
        let mem = memory();
        // Small buffers that are merged, or large ones that are not.
        let buffer: u32 = if mergeable { 512 } else { BUFFER as u32 };
        let mut driver = driver(&mem, SIZE, features).start_at(start);
        for slot in 0..SIZE {
            driver.chain(slot, &[(BUFFERS + u64::from(slot) * BUFFER, buffer)], true);
            driver.offer(slot);
        }
        let mut network = Backend::with_frames((0..300).map(numbered));
        let cell = cell();
        let mut rx = Rx::start(&driver.config, &mem.device()).unwrap();
        rx.track(Progress::new(cell.clone()));
        let mut got = Vec::new();
        let immortal = Death { after: usize::MAX, through: true };
        for death in deaths.iter().copied().chain([immortal; 40]) {
            live_and_die(&mut network, death, |backend| {
                let budget = Budget { frames: 24, ..Budget::default() };
                let outcome = rx.run(&mem.device(), backend, &everything(), budget);
                assert_eq!(outcome.fault, None);
                outcome.frames > 0
            });
            (rx, _) =
                Rx::resume(&driver.config, &mem.device(), Progress::new(cell.clone())).unwrap();
            while let Some((head, len)) = driver.take_used() {
                let at = BUFFERS + u64::from(head) * BUFFER;
                let mut bytes = mem.read(at, len as usize);
                let header = NetHdr::from_bytes(bytes[..HEADER].try_into().unwrap());
                driver.offer(head as u16);
                for _ in 1..header.num_buffers {
                    // All buffers of a frame are shown at once.
                    let (head, len) = driver.take_used().unwrap();
                    let at = BUFFERS + u64::from(head) * BUFFER;
                    bytes.extend(mem.read(at, len as usize));
                    driver.offer(head as u16);
                }
                let n = number(&bytes[HEADER..]);
                prop_assert_eq!(&bytes[HEADER..], numbered(n));
                got.push(n);
            }
        }
        prop_assert!(got.windows(2).all(|w| w[0] < w[1]), "{got:?}");
        prop_assert!(network.waiting.is_empty());
        prop_assert!(300 - got.len() <= deaths.len(), "{} of 300", got.len());
    }
}

#[test]
fn an_index_that_does_not_fit_is_put_right() {
    let mem = memory();
    let driver = driver(&mem, SIZE, 0);
    let cell = cell();
    let resume = |value| {
        cell.set(value);
        let progress = Progress::new(cell.clone());
        let resumed = Tx::resume(&driver.config, &mem.device(), progress, || ());
        let (tx, recovered) = resumed.unwrap();
        assert_eq!(recovered, Recovered::default());
        assert_eq!(tx.indices().1, driver.used_idx());
        driver.used_idx()
    };
    // Entries that were never made available cannot have been done.
    assert_eq!(resume(3), 0);
    assert_eq!(resume(0x1_0003), 0);
    // The guest wrote something else there, or never anything.
    assert_eq!(resume(u64::from(SIZE) + 1), SIZE + 1);
    assert_eq!(resume(0x1_8000), 0x8000);
}

#[test]
fn a_frame_in_doubt_is_counted_before_it_is_given_back() {
    let mem = memory();
    let mut driver = driver(&mem, SIZE, 0);
    driver.chain(0, &[(BUFFERS, 100)], false);
    driver.offer(0);
    let cell = cell();
    // In the hands of a process that died.
    cell.set(0x1_0001);
    let resume = |dropped: &dyn Fn()| {
        let progress = Progress::new(cell.clone());
        let resume = || Tx::resume(&driver.config, &mem.device(), progress, dropped).unwrap();
        let (resumed, used) = (catch_unwind(AssertUnwindSafe(resume)), driver.used_idx());
        resumed.ok().map(|(_, recovered)| (recovered.dropped, used))
    };
    // So does the next one, as it counts it.
    assert_eq!(resume(&|| resume_unwind(Box::new(()))), None);
    assert_eq!(driver.used_idx(), 0);
    assert_eq!(resume(&|| ()), Some((1, 1)));
    assert_eq!(resume(&|| panic!("once more")), Some((0, 1)));
}
