// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The receive engine on a ring that a hostile driver writes, also while the device works.

use std::cell::RefCell;
use std::collections::VecDeque;

use arbitrary::{Result, Unstructured};
use vnet_backend::{Frame, Meta, MAX_FRAME};
use vnet_contract::hdr::FlowHash;
use vnet_queue::{Handed, Outcome, Rx, RxFilter, Steer};

use crate::backend::Backend;
use crate::frames;
use crate::guest::{ring, Driver, Guest};
use crate::input::{mostly, rarely};
use crate::tx::{budget, view, writes};
use crate::witness::{Will, Witness};

thread_local! {
    static GUEST: RefCell<Guest> = RefCell::new(Guest::new());
    static WILL: Will = Will::new();
}

/// Steps of a driver, and frames for it from the backend, or from another queue; the device may die
/// and be replaced. It writes to nothing that it must not write to, no frame counts twice, and each
/// round keeps to its budget.
pub fn rx(data: &[u8]) {
    GUEST.with_borrow_mut(|guest| {
        guest.clear();
        let _ = run(&mut Unstructured::new(data), guest);
    });
}

fn run(u: &mut Unstructured<'_>, guest: &mut Guest) -> Result<()> {
    let features = u.arbitrary()?;
    let config = ring(u, features)?;
    let mut driver = Driver::new(guest, config, true);
    let Ok(mut rx) = Rx::start(&config, &guest.view(0)) else {
        return Ok(());
    };
    let filter = RxFilter {
        promisc: !rarely(u, 8)?,
        mtu: mostly(u, &[1500, 9000])?,
        withheld: match rarely(u, 8)? {
            true => u.arbitrary()?,
            false => 0,
        },
        ..RxFilter::default()
    };
    let mut witness = Witness::maybe(u)?;
    if let Some(witness) = &witness {
        rx.observe(witness.shadow(0, &config));
    }
    let will = WILL.with(Will::progress);
    will.begin(config.index_used);
    rx.track(will.clone());
    let mut frames = VecDeque::new();
    while !u.is_empty() {
        match u.int_in_range(0..=9)? {
            9 => {
                let Ok((next, _)) = Rx::resume(&config, &guest.view(0), will.clone()) else {
                    return Ok(());
                };
                guest.accept(None);
                rx = next;
                if let Some(witness) = &witness {
                    rx.observe(witness.shadow(0, &config));
                }
            }
            8 => {
                if let Some(witness) = &mut witness {
                    let (memory, value) = (guest.view(view(u)?), u.arbitrary()?);
                    rx.tell(|observer, at| observer.doorbell(&memory, at, value));
                    witness.tick();
                    rx.tell(|observer, at| observer.tick(&memory, at));
                }
            }
            0..=3 => driver.step(guest, u)?,
            4 => frames.push_back(frames::frame(u)?),
            5 => {
                let memory = guest.view(view(u)?);
                if let Ok(Some(_)) = rx.interrupt_due(&memory) {
                    rx.signalled();
                    witness.iter().for_each(Witness::raise);
                    assert_eq!(rx.interrupt_due(&memory), Ok(None));
                }
                let _ = rx.rearm(&memory);
                guest.accept(None);
            }
            _ => {
                let memory = guest.view(view(u)?);
                let budget = budget(u)?;
                let before = rx.indices();
                let (waiting, bytes) = (frames.len(), bytes_of(&frames));
                let outcome = match u.int_in_range(0..=2)? {
                    0 => {
                        let mut handed = Parcel(&mut frames);
                        rx.take_over(&memory, &mut handed, &filter, budget)
                    }
                    how => {
                        let mut backend = Backend {
                            guest: &mut *guest,
                            writes: writes(u)?,
                            allowed: None,
                            offloads: Default::default(),
                            takes: 0,
                            asks: mostly(u, &[0u16, 1, 100, 2000])?.into(),
                            frames: std::mem::take(&mut frames),
                            sent: 0,
                        };
                        let outcome = if how == 1 {
                            rx.run(&memory, &mut backend, &filter, budget)
                        } else {
                            let steer = &mut Sieve(u.arbitrary()?);
                            rx.run_steered(&memory, &mut backend, &filter, steer, budget)
                        };
                        frames = backend.frames;
                        outcome
                    }
                };
                guest.accept(None);
                let bytes = bytes - bytes_of(&frames);
                // The first frame is always served, and one that is begun is finished.
                assert!(bytes < budget.bytes.max(1) + MAX_FRAME);
                assert!(waiting - frames.len() <= budget.frames.max(1));
                check(&outcome, waiting - frames.len(), before, rx.indices());
                if let Some(fault) = outcome.fault {
                    if let Some(witness) = &witness {
                        witness.convict(fault.error, || rx.accuse(&memory, fault));
                    }
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn bytes_of(frames: &VecDeque<(Vec<u8>, Meta)>) -> usize {
    frames.iter().map(|(frame, _)| frame.len()).sum()
}

fn check(outcome: &Outcome, taken: usize, before: (u16, u16), after: (u16, u16)) {
    let counted = outcome.frames + outcome.drops + outcome.handed;
    if outcome.fault.is_none() {
        assert_eq!(counted, taken as u64);
        // What was taken from the ring came back, or went into the used ring.
        let taken = after.0.wrapping_sub(before.0);
        assert_eq!(taken, after.1.wrapping_sub(before.1));
        assert!(u64::from(taken) >= outcome.frames);
    }
    assert!(counted <= taken as u64);
}

/// Frames that another queue received.
struct Parcel<'f>(&'f mut VecDeque<(Vec<u8>, Meta)>);

impl Handed for Parcel<'_> {
    fn front(&mut self) -> Option<(&[u8], Meta, FlowHash)> {
        let (frame, meta) = self.0.front()?;
        Some((frame, *meta, FlowHash::default()))
    }

    fn pop(&mut self) {
        self.0.pop_front();
    }
}

/// Lets some frames through, by their bits.
struct Sieve(u8);

impl Steer for Sieve {
    fn steer(&mut self, start: &[u8], frame: &Frame<'_>) -> Option<FlowHash> {
        assert!(start.len() <= frame.len && start.len() >= frame.len.min(14));
        self.0 = self.0.rotate_left(1);
        (self.0 & 1 == 0).then(FlowHash::default)
    }
}
