// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The transmit engine on a ring that a hostile driver writes, also while the device works.

use std::cell::RefCell;

use arbitrary::{Result, Unstructured};
use vnet_backend::{Offloads, MAX_FRAME};
use vnet_contract::hdr::{self, NetHdr};
use vnet_queue::{Budget, Tx};

use crate::backend::Backend;
use crate::frames;
use crate::guest::{address, ring, used_ring, Driver, Guest};
use crate::input::{bytes, mostly, rarely};
use crate::witness::{Will, Witness};

thread_local! {
    static GUEST: RefCell<Guest> = RefCell::new(Guest::new());
    static WILL: Will = Will::new();
}

/// Steps of a driver and rounds of the device, which may die and be replaced. Each round keeps to
/// its budget, and changes nothing but the used ring.
pub fn tx(data: &[u8]) {
    GUEST.with_borrow_mut(|guest| {
        guest.clear();
        let _ = run(&mut Unstructured::new(data), guest);
    });
}

fn run(u: &mut Unstructured<'_>, guest: &mut Guest) -> Result<()> {
    let features = u.arbitrary()?;
    let config = ring(u, features)?;
    let mut driver = Driver::new(guest, config, false);
    let Ok(mut tx) = Tx::start(&config, &guest.view(0)) else {
        return Ok(());
    };
    let allowed = Some(used_ring(&config));
    let offloads = offloads(u)?;
    let mut witness = Witness::maybe(u)?;
    if let Some(witness) = &witness {
        tx.observe(witness.shadow(1, &config));
    }
    let will = WILL.with(Will::progress);
    will.begin(config.index_used);
    tx.track(will.clone());
    while !u.is_empty() {
        match u.int_in_range(0..=9)? {
            9 => {
                let resumed = Tx::resume(&config, &guest.view(0), will.clone(), || ());
                let Ok((next, recovered)) = resumed else {
                    return Ok(());
                };
                guest.accept(allowed);
                assert!(recovered.dropped <= recovered.shown.min(1));
                tx = next;
                if let Some(witness) = &witness {
                    tx.observe(witness.shadow(1, &config));
                }
            }
            8 => {
                if let Some(witness) = &mut witness {
                    let (memory, value) = (guest.view(view(u)?), u.arbitrary()?);
                    tx.tell(|observer, at| observer.doorbell(&memory, at, value));
                    witness.tick();
                    tx.tell(|observer, at| observer.tick(&memory, at));
                }
            }
            0 | 1 => driver.step(guest, u)?,
            2..=4 => offer(guest, u, &mut driver)?,
            5 => {
                let memory = guest.view(view(u)?);
                let due = tx.interrupt_due(&memory);
                if let Ok(Some(_)) = due {
                    tx.signalled();
                    witness.iter().for_each(Witness::raise);
                    assert_eq!(tx.interrupt_due(&memory), Ok(None));
                }
                let _ = tx.rearm(&memory);
                guest.accept(allowed);
            }
            _ => {
                let memory = guest.view(view(u)?);
                let budget = budget(u)?;
                let before = tx.indices();
                let mut backend = Backend {
                    guest: &mut *guest,
                    writes: writes(u)?,
                    allowed,
                    offloads,
                    takes: mostly(u, &[64, 0, 1])?,
                    asks: 0,
                    frames: Default::default(),
                    sent: 0,
                };
                let outcome = tx.run(&memory, &mut backend, budget);
                guest.accept(allowed);
                // Each frame moves both indices by one.
                let done = outcome.frames + outcome.drops;
                assert!(done <= budget.frames as u64);
                // A frame that is begun is finished.
                assert!(outcome.bytes < (budget.bytes.max(1) + MAX_FRAME) as u64);
                let (avail, used) = tx.indices();
                assert_eq!(u64::from(avail.wrapping_sub(before.0)), done);
                if let Some(fault) = outcome.fault {
                    if let Some(witness) = &witness {
                        witness.convict(fault.error, || tx.accuse(&memory, fault));
                    }
                    return Ok(());
                }
                assert_eq!(u64::from(used.wrapping_sub(before.1)), done);
            }
        }
    }
    Ok(())
}

/// A good frame with its header, or nearly so.
pub(crate) fn offer(
    guest: &mut Guest,
    u: &mut Unstructured<'_>,
    driver: &mut Driver,
) -> Result<()> {
    let (frame, meta) = frames::frame(u)?;
    let mut header = frames::header(&meta);
    if rarely(u, 8)? {
        header = NetHdr::from_bytes(&u.arbitrary()?);
    }
    let mut packet = header.to_bytes().to_vec();
    packet.resize(hdr::size(driver.config.features), 0);
    packet.extend(frame);
    driver.offer_bytes(guest, u, &packet)
}

fn offloads(u: &mut Unstructured<'_>) -> Result<Offloads> {
    if rarely(u, 3)? {
        return Ok(Offloads::ALL);
    }
    Ok(Offloads {
        checksum: u.arbitrary()?,
        tso4: u.arbitrary()?,
        tso6: u.arbitrary()?,
        ecn: u.arbitrary()?,
        uso: u.arbitrary()?,
    })
}

pub(crate) fn view(u: &mut Unstructured<'_>) -> Result<usize> {
    mostly(u, &[0])
}

pub(crate) fn budget(u: &mut Unstructured<'_>) -> Result<Budget> {
    let all = Budget::default();
    Ok(Budget {
        frames: mostly(u, &[all.frames, 1])? % 1000,
        bytes: mostly(u, &[all.bytes, 1])? % 1_000_000,
        descriptors: mostly(u, &[all.descriptors, 1])? % 10_000,
    })
}

pub(crate) fn writes(u: &mut Unstructured<'_>) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut writes = Vec::new();
    if rarely(u, 3)? {
        for _ in 0..u.int_in_range(1..=4)? {
            writes.push((address(u)?, bytes(u, 16)?.to_vec()));
        }
    }
    Ok(writes)
}
