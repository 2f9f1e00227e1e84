// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Rounds for a pair whose rings or buffers lie in memory that the client does not share.
//!
//! Only the worker runs them, since they wait for the client. It has its turn at the relay for the
//! whole round, but the lock of the pair only while it looks where the queues are, while it serves,
//! and to show what has arrived: the message thread, which carries the messages, never waits for
//! one of them.
//!
//! The driver's event index comes with the avail ring. So the interrupt for a round is judged at the
//! start of the next one, which comes at once if there was something to push; and that one finds, as
//! it pulls the avail index again, what the driver made available before it saw that it should ring.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

use vnet_contract::queue::{Error, Kind};
use vnet_dma::{DmaMap, Failure, Turn, Way};
use vnet_queue::{Fault, Lack, Outline, Rx, Tx, Written};

use crate::round::Round;
use crate::shared::Shared;
use crate::slot::Slot;
use crate::state::State;

/// What the worker remembers of the queues from one round to the next.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    rx: Known,
    tx: Known,
    /// How often mirrors have been forgotten.
    forgotten: u64,
}

/// What is known of a queue.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    id: u64,
    /// Chains before this avail index are in the mirrors.
    until: u16,
    /// The event index that was pushed last.
    armed: Option<u16>,
}

/// A queue in a round.
struct Lane {
    outline: Outline,
    horizon: u16,
}

impl Fetched {
    fn known(&mut self, outline: &Outline) -> &mut Known {
        let known = match outline.kind {
            Kind::Rx => &mut self.rx,
            Kind::Tx => &mut self.tx,
        };
        if known.id != outline.id {
            *known = Known {
                id: outline.id,
                until: outline.next_avail,
                armed: None,
            };
        }
        known
    }
}

/// Serves a round, and says whether the pair receives.
pub(crate) fn round(shared: &Shared, fetched: &mut Fetched) -> (Round, bool) {
    let idle = |shared: &Shared| {
        let mut state = shared.gate.lock();
        state.sleep = Some(Default::default());
        (Round::default(), state.rx.is_running())
    };
    let Some(relay) = shared.dma.relay() else {
        return idle(shared);
    };
    let turn = relay.turn();
    // Taken anew for each round, so that what is gone is not touched by the next one.
    let Some(map) = shared.dma.mirrored() else {
        return idle(shared);
    };
    let forgotten = turn.trim();
    if std::mem::replace(&mut fetched.forgotten, forgotten) != forgotten {
        (fetched.rx, fetched.tx) = (Known::default(), Known::default());
    }
    let lanes = match fetch(shared, fetched, &turn, &map) {
        Ok(lanes) => lanes,
        Err(Failure::Cancelled) => {
            return (Round::again(), shared.gate.lock().rx.is_running());
        }
        Err(_) => return idle(shared),
    };
    let mut state = shared.gate.lock();
    let mut stale = false;
    for lane in lanes.iter().flatten() {
        stale |= !state.confine(lane);
    }
    // A queue that was started meanwhile is not confined yet, and must not be served.
    if stale || !state.is_covered(&lanes) {
        return (Round::again(), state.rx.is_running());
    }
    let (mut round, written) = shared.serve_unshared(&mut state, &map);
    shared.report(&round);
    shared.remind(&mut state, &round, Instant::now);
    for (kind, written) in [Kind::Rx, Kind::Tx].into_iter().zip(&written) {
        let pushes = written.shown.is_some() || written.armed.is_some();
        shared.pushing(kind).store(pushes, Ordering::Release);
    }
    state.sleep = Some(round.sleep);
    let receiving = state.rx.is_running();
    drop(state);

    for (lane, written) in lanes.iter().zip(written) {
        if let Some(lane) = lane {
            let known = fetched.known(&lane.outline);
            match push(lane, &written, known, &turn, &map) {
                Ok(pushed) => round.again |= pushed,
                Err(lack) => give_up(shared, &lane.outline, lack),
            }
            shared
                .pushing(lane.outline.kind)
                .store(false, Ordering::Release);
        }
    }
    (round, receiving)
}

/// Pulls what both queues may read in a round.
fn fetch(
    shared: &Shared,
    fetched: &mut Fetched,
    turn: &Turn<'_>,
    map: &Arc<DmaMap>,
) -> Result<[Option<Lane>; 2], Failure> {
    let outlines = {
        let state = shared.gate.lock();
        [
            state.rx.running().map(Rx::outline),
            state.tx.running().map(Tx::outline),
        ]
    };
    let rings = outlines.iter().flatten().map(Outline::avail_ring);
    match turn.exchange(map, Way::Pull, rings) {
        Err(Failure::Refused(address)) => {
            let of = |outline: &&Outline| {
                let ring = outline.avail_ring();
                address.wrapping_sub(ring.address) < ring.len as u64
            };
            let mut known = outlines.iter().flatten();
            let found = known.clone().find(of).or_else(|| known.next());
            if let Some(outline) = found {
                let fault = Fault::at(Error::RingFault, address);
                give_up(shared, outline, Lack::Fault(fault));
            }
            return Err(Failure::Cancelled);
        }
        Err(Failure::Silent) => {
            for outline in outlines.iter().flatten() {
                let fault = Fault::at(Error::RingFault, outline.avail_ring().address);
                give_up(shared, outline, Lack::Fault(fault));
            }
            return Err(Failure::Cancelled);
        }
        done => done?,
    }
    let mut lanes = [None, None];
    for (lane, outline) in lanes.iter_mut().zip(outlines) {
        let Some(outline) = outline else {
            continue;
        };
        let known = fetched.known(&outline);
        let mut pull = |list: Vec<_>| turn.exchange(map, Way::Pull, list);
        match outline.fetch(known.until, map, &mut pull) {
            Ok(horizon) => {
                known.until = horizon;
                *lane = Some(Lane { outline, horizon });
            }
            Err(Lack::Gone(failure)) => return Err(failure),
            Err(lack) => {
                give_up(shared, &outline, lack);
                return Err(Failure::Cancelled);
            }
        }
    }
    Ok(lanes)
}

/// Pushes what a queue has written. True if there was something.
fn push(
    lane: &Lane,
    written: &Written,
    known: &mut Known,
    turn: &Turn<'_>,
    map: &Arc<DmaMap>,
) -> Result<bool, Lack> {
    let outline = &lane.outline;
    let lack = |failure, address| match failure {
        Failure::Refused(address) => Lack::Fault(Fault::at(Error::RingFault, address)),
        Failure::Silent => Lack::Fault(Fault::at(Error::RingFault, address)),
        Failure::Cancelled | Failure::Closed => Lack::Gone(failure),
    };
    let mut last = Vec::new();
    if let Some(index) = written.shown {
        turn.exchange(map, Way::Push, outline.payload(written, map))
            .map_err(|e| lack(e, outline.used_index().address))?;
        // Into the mirror, or into the ring itself if that is shared. As a rule nobody is at the
        // queue now but the driver; a queue that was stopped meanwhile is finished like this.
        outline.show(map, index).map_err(Lack::Fault)?;
        last.push(outline.used_index());
    }
    let armed = written.armed.filter(|_| written.armed != known.armed);
    if armed.is_some() {
        known.armed = armed;
        last.push(outline.event_index());
    }
    let pushed = !last.is_empty();
    turn.exchange(map, Way::Push, last)
        .map_err(|e| lack(e, outline.used_index().address))?;
    Ok(pushed)
}

/// Ends a queue that the client does not let the card reach, if it is still the same.
fn give_up(shared: &Shared, outline: &Outline, lack: Lack) {
    let Lack::Fault(fault) = lack else {
        return;
    };
    let mut state = shared.gate.lock();
    let mut round = Round::default();
    let id = |running: Option<Outline>| running.is_some_and(|other| other.id == outline.id);
    match outline.kind {
        Kind::Rx if id(state.rx.running().map(Rx::outline)) => {
            round.rx_fault = Some(fault);
            shared.tallies.rx.error();
            state.rx.fail();
        }
        Kind::Tx if id(state.tx.running().map(Tx::outline)) => {
            round.tx_fault = Some(fault);
            shared.tallies.tx.error();
            state.tx.fail();
        }
        _ => {}
    }
    shared.report(&round);
}

impl State {
    /// Confines a queue to what was fetched; false if it is another one by now.
    fn confine(&mut self, lane: &Lane) -> bool {
        let id = lane.outline.id;
        match lane.outline.kind {
            Kind::Rx => match &mut self.rx {
                Slot::Running(rx, _) if rx.outline().id == id => rx.confine(lane.horizon),
                _ => return false,
            },
            Kind::Tx => match &mut self.tx {
                Slot::Running(tx, _) if tx.outline().id == id => tx.confine(lane.horizon),
                _ => return false,
            },
        }
        true
    }

    /// True if there are no queues but these.
    fn is_covered(&self, [rx, tx]: &[Option<Lane>; 2]) -> bool {
        self.rx.is_running() == rx.is_some() && self.tx.is_running() == tx.is_some()
    }
}
