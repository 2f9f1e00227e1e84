// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A queue in memory that the client does not share. What the engine may read is pulled into mirrors,
//! and what it has written is pushed; a twin that reaches the memory itself must do the same.

use std::cell::RefCell;
use std::collections::VecDeque;

use arbitrary::{Result, Unstructured};
use vnet_backend::{Frame, Meta, Offloads, Queue, RxRing, MAX_FRAME};
use vnet_contract::hdr;
use vnet_contract::ring::{self, DESC_SIZE};
use vnet_dma::{DmaMap, Failure, Stretch};
use vnet_queue::{
    Budget, Due, Fault, Lack, Outcome, Outline, RingConfig, Rx, RxFilter, Tx, Written,
};

use crate::frames;
use crate::guest::{ring, used_ring, Driver, Guest};
use crate::input::rarely;
use crate::mirrors::Mirrors;
use crate::slots::Slots;
use crate::tx::offer;

thread_local! {
    static CLIENT: RefCell<(Guest, Mirrors)> = RefCell::new({
        let guest = Guest::new();
        let mirrors = Mirrors::new(&guest);
        (guest, mirrors)
    });
}

/// Steps of a driver, and rounds of a device that asks a client for its memory. The client may refuse,
/// fall silent, or change memory while it is asked. What is asked for has bounds, a driver that follows
/// the rules sees what it would see of a device that shares its memory, and nothing is written that the
/// device must not write to.
pub fn unshared(data: &[u8]) {
    CLIENT.with_borrow_mut(|(guest, mirrors)| {
        guest.clear();
        mirrors.spoil();
        let u = &mut Unstructured::new(data);
        let _ = match u.arbitrary() {
            Ok(true) => run::<Tx>(u, guest, mirrors),
            _ => run::<Rx>(u, guest, mirrors),
        };
    });
}

/// What both engines have.
trait Engine: Sized {
    /// The device writes to buffers.
    const WRITES: bool;
    fn start(config: &RingConfig, mem: &DmaMap) -> std::result::Result<Self, Fault>;
    fn outline(&self) -> Outline;
    fn confine(&mut self, horizon: u16);
    fn written(&mut self) -> Written;
    fn indices(&self) -> (u16, u16);
    fn batch(&mut self, mem: &DmaMap, peer: &mut Peer) -> Outcome;
    fn interrupt_due(&mut self, mem: &DmaMap) -> std::result::Result<Option<Due>, Fault>;
    fn signalled(&mut self);
    fn rearm(&mut self, mem: &DmaMap) -> std::result::Result<bool, Fault>;
}

macro_rules! engine {
    ($engine:ty, $writes:expr, |$own:ident, $mem:ident, $peer:ident| $batch:expr) => {
        impl Engine for $engine {
            const WRITES: bool = $writes;
            fn start(config: &RingConfig, mem: &DmaMap) -> std::result::Result<Self, Fault> {
                <$engine>::start(config, mem)
            }
            fn outline(&self) -> Outline {
                self.outline()
            }
            fn confine(&mut self, horizon: u16) {
                self.confine(horizon);
            }
            fn written(&mut self) -> Written {
                self.written()
            }
            fn indices(&self) -> (u16, u16) {
                self.indices()
            }
            fn batch(&mut self, $mem: &DmaMap, $peer: &mut Peer) -> Outcome {
                let $own = self;
                $batch
            }
            fn interrupt_due(&mut self, mem: &DmaMap) -> std::result::Result<Option<Due>, Fault> {
                self.interrupt_due(mem)
            }
            fn signalled(&mut self) {
                self.signalled();
            }
            fn rearm(&mut self, mem: &DmaMap) -> std::result::Result<bool, Fault> {
                self.rearm(mem)
            }
        }
    };
}

engine!(Tx, false, |tx, mem, peer| tx.run(
    mem,
    peer,
    Budget::default()
));
engine!(Rx, true, |rx, mem, peer| {
    let filter = RxFilter {
        promisc: true,
        mtu: 9000,
        ..RxFilter::default()
    };
    rx.run(mem, peer, &filter, Budget::default())
});

/// The backend of an engine.
#[derive(Clone, Debug, Default, PartialEq)]
struct Peer {
    /// Frames that it takes in one call.
    takes: usize,
    sent: Vec<Vec<u8>>,
    frames: VecDeque<(Vec<u8>, Meta)>,
}

impl Queue for Peer {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        let n = self.takes.min(batch.len());
        for frame in &batch[..n] {
            let mut bytes = vec![0; MAX_FRAME];
            let len = frame.read(&mut bytes);
            bytes.truncate(len);
            self.sent.push(bytes);
        }
        n
    }

    fn offloads(&self) -> Offloads {
        Offloads::ALL
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        while let Some((frame, meta)) = self.frames.front() {
            let Some(room) = ring.room(frame.len()) else {
                return;
            };
            assert_eq!(room.write(frame), frame.len());
            ring.commit(frame.len(), *meta);
            self.frames.pop_front();
        }
    }

    fn has_frames(&self) -> bool {
        !self.frames.is_empty()
    }
}

/// A queue that is served by way of mirrors.
struct Near<E> {
    engine: E,
    peer: Peer,
    /// Chains before this avail index are in the mirrors.
    known: u16,
}

/// The same queue, in memory that is shared.
struct Twin<E> {
    engine: E,
    peer: Peer,
}

fn run<E: Engine>(u: &mut Unstructured<'_>, guest: &mut Guest, mirrors: &Mirrors) -> Result<()> {
    let features = u.arbitrary()?;
    let config = ring(u, features)?;
    // It changes memory while it is asked for it. What comes of that is its own affair.
    let meddles = rarely(u, 3)?;
    let mut driver = Driver::new(guest, config, E::WRITES);
    let (engine, twin) = match (
        E::start(&config, mirrors.map()),
        E::start(&config, &guest.view(0)),
    ) {
        (Ok(engine), Ok(twin)) => (engine, twin),
        (Err(near), Err(far)) => {
            assert_eq!(near, far);
            return Ok(());
        }
        _ => panic!("only one of them starts"),
    };
    let peer = Peer {
        takes: 64,
        ..Peer::default()
    };
    let mut near = Near {
        known: engine.indices().0,
        engine,
        peer: peer.clone(),
    };
    let mut twin = (!meddles).then_some(Twin { engine: twin, peer });
    let mut slots = Slots::new(&config);
    // What the device may write to.
    let allowed = (!E::WRITES).then_some(used_ring(&config));
    while !u.is_empty() {
        let (next, used) = near.engine.indices();
        // What was pulled and is not used yet must not change, or there is nothing to compare.
        let free = twin.is_none() || (!E::WRITES && near.known == next);
        match u.int_in_range(0..=9)? {
            0 | 1 if free => driver.step(guest, u)?,
            2 | 3 if free && !E::WRITES => offer(guest, u, &mut driver)?,
            0..=3 if E::WRITES => slots.offer(guest, u, &mut driver, used)?,
            4 if E::WRITES => {
                let frame = frames::frame(u)?;
                near.each_peer(&mut twin, |peer| peer.frames.push_back(frame.clone()));
            }
            5 => {
                let takes = *u.choose(&[64, 1, 0])?;
                near.each_peer(&mut twin, |peer| peer.takes = takes);
            }
            _ => {
                let before = guest.image();
                let served = near.round(u, guest, mirrors, &mut driver, meddles)?;
                guest.accept(allowed);
                if let Some(twin) = &mut twin {
                    let pushed = guest.image();
                    guest.restore(before);
                    let outcome = twin.round(&served, &guest.view(0));
                    guest.accept(allowed);
                    assert_eq!(outcome, served.outcome);
                    assert_eq!(near.peer, twin.peer, "frames differ");
                    match E::WRITES {
                        true => slots.assert_same(guest, &pushed, near.engine.indices().1),
                        false => assert_eq!(guest.image(), pushed, "memory differs"),
                    }
                }
                if served.is_over() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// What a round has done, for another one to do the same.
struct Served {
    due: std::result::Result<Option<Due>, Fault>,
    /// Nothing was served. The client refused all there was, or it is as if the card was reset.
    refused: bool,
    horizon: Option<u16>,
    armed: Option<std::result::Result<bool, Fault>>,
    outcome: Option<Outcome>,
}

impl Served {
    fn is_over(&self) -> bool {
        self.refused || self.outcome.is_some_and(|outcome| outcome.fault.is_some())
    }
}

impl<E: Engine> Near<E> {
    fn each_peer(&mut self, twin: &mut Option<Twin<E>>, mut change: impl FnMut(&mut Peer)) {
        change(&mut self.peer);
        if let Some(twin) = twin {
            change(&mut twin.peer);
        }
    }

    /// Pulls, serves, and pushes, as a worker does it.
    fn round(
        &mut self,
        u: &mut Unstructured<'_>,
        guest: &mut Guest,
        mirrors: &Mirrors,
        driver: &mut Driver,
        meddles: bool,
    ) -> Result<Served> {
        let map = mirrors.map();
        let outline = self.engine.outline();
        mirrors.pull(guest, &[outline.avail_ring()]);
        let mut served = Served {
            due: self.engine.interrupt_due(map),
            refused: false,
            horizon: None,
            armed: None,
            outcome: None,
        };
        self.engine.signalled();
        let size = driver.size();
        let mut pulls = 0;
        let mut failures = 0;
        let mut pull = |list: Vec<Stretch>| {
            pulls += 1;
            assert_bounded(&list, size);
            if meddles {
                let _ = driver.step(guest, u);
            }
            if let Some(failure) = refusal(u, &list) {
                failures += 1;
                return Err(failure);
            }
            mirrors.pull(guest, &list);
            Ok(())
        };
        let fetched = outline.fetch(self.known, map, &mut pull);
        // The table, and tables and buffers of all chains, once more for each that is refused.
        assert!(pulls <= 3 + failures, "it asks without end");
        let horizon = match fetched {
            Ok(horizon) => horizon,
            Err(lack) => {
                assert!(failures > 0, "a fault that is none");
                served.refused = matches!(lack, Lack::Fault(_));
                return Ok(served);
            }
        };
        served.horizon = Some(horizon);
        self.known = horizon;
        self.engine.confine(horizon);
        let outcome = self.engine.batch(map, &mut self.peer);
        let left = horizon.wrapping_sub(self.engine.indices().0);
        // An index that cannot be is found when the ring is looked at.
        if outcome.fault.is_none() && horizon.wrapping_sub(outline.next_avail) <= size {
            assert!(left <= size, "beyond the horizon");
        }
        served.outcome = Some(outcome);
        if u.arbitrary()? {
            served.armed = Some(self.engine.rearm(map));
        }
        let written = self.engine.written();
        if let Some(index) = written.shown {
            mirrors.push(guest, &outline.payload(&written, map));
            outline.show(map, index).expect("the ring was checked");
            mirrors.push(guest, &[outline.used_index()]);
        }
        if written.armed.is_some() {
            mirrors.push(guest, &[outline.event_index()]);
        }
        Ok(served)
    }
}

impl<E: Engine> Twin<E> {
    /// Serves as far as the other one did.
    fn round(&mut self, served: &Served, memory: &DmaMap) -> Option<Outcome> {
        assert_eq!(self.engine.interrupt_due(memory), served.due);
        self.engine.signalled();
        let outline = self.engine.outline();
        self.engine.confine(served.horizon?);
        let outcome = self.engine.batch(memory, &mut self.peer);
        if served.armed.is_some() {
            assert_eq!(Some(self.engine.rearm(memory)), served.armed);
        }
        if let Some(index) = self.engine.written().shown {
            outline.show(memory, index).expect("the ring was checked");
        }
        Some(outcome)
    }
}

/// What is asked for in one go does not depend on what a driver writes.
fn assert_bounded(list: &[Stretch], size: u16) {
    let budget = Budget::default();
    let descriptors = budget.descriptors + usize::from(size);
    let tables = descriptors * DESC_SIZE;
    let buffers = budget.bytes + hdr::SIZE + MAX_FRAME + 64 * hdr::SIZE;
    let most = tables.max(buffers).max(ring::desc_bytes(size));
    let bytes: usize = list.iter().map(|part| part.len).sum();
    assert!(bytes <= most, "{bytes} of {most} bytes");
    assert!(list.len() <= descriptors, "{} parts", list.len());
}

/// How a client answers that does not do what it is asked for.
fn refusal(u: &mut Unstructured<'_>, list: &[Stretch]) -> Option<Failure> {
    // At the end of the input, it is good.
    let how = u.int_in_range(0..=40u8).unwrap_or_default();
    match how {
        40 => Some(Failure::Silent),
        39 => Some(Failure::Cancelled),
        36..=38 => {
            let parts = list.iter().filter(|part| part.len > 0);
            let part = parts.clone().nth(u.int_in_range(0..=list.len()).ok()?)?;
            let beyond = u.int_in_range(0..=part.len - 1).ok()?;
            Some(Failure::Refused(part.address.wrapping_add(beyond as u64)))
        }
        _ => None,
    }
}
