// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A pair whose frames are kept: see [`vnet_capture`].

use vnet_capture::{Capture, Event, What};
use vnet_contract::queue::{rx_index, tx_index, Kind};
use vnet_queue::Fault;

use crate::gauge::Gauge;
use crate::shared::Shared;
use crate::state::State;

/// Who keeps the frames of a pair.
#[derive(Debug)]
pub(crate) struct Captured {
    capture: Capture,
    pair: u16,
}

const BOTH: [Kind; 2] = [Kind::Rx, Kind::Tx];

impl Gauge {
    /// Has the frames of the pair kept, of queues that run and of those that will, or not any more. Waits
    /// for the batch that runs now.
    pub fn capture(&self, capture: Option<Capture>) {
        let shared = self.shared();
        let mut state = shared.gate.lock();
        let pair = shared.index;
        state.release();
        state.captured = capture.map(|capture| Captured { capture, pair });
        for kind in BOTH {
            shared.keep(&mut state, kind);
        }
    }
}

impl Shared {
    /// Has the frames of a queue kept that has just been started, if somebody wants them.
    pub(crate) fn keep(&self, state: &mut State, kind: Kind) {
        if let Some(captured) = &state.captured {
            let queue = captured.queue(kind);
            let recorder = captured.capture.recorder(queue, self.bell(kind));
            let recorder = recorder.map(Box::new);
            match kind {
                Kind::Rx => state.rx.set_recorder(recorder),
                Kind::Tx => state.tx.set_recorder(recorder),
            }
        }
    }
}

impl Captured {
    fn queue(&self, kind: Kind) -> u16 {
        match kind {
            Kind::Rx => rx_index(self.pair),
            Kind::Tx => tx_index(self.pair),
        }
    }
}

impl State {
    /// Keeps no more frames.
    fn release(&mut self) {
        self.captured = None;
        self.rx.set_recorder(None);
        self.tx.set_recorder(None);
    }

    /// The same if nobody wants any.
    #[cold]
    pub(crate) fn release_if_over(&mut self) {
        let over = |captured: &Captured| captured.capture.is_over();
        if self.captured.as_ref().is_some_and(over) {
            self.release();
        }
    }

    /// Puts it between the frames that a queue stops.
    pub(crate) fn keep_fault(&self, kind: Kind, fault: Fault) {
        if let Some(captured) = &self.captured {
            let name = fault.error.name();
            captured.capture.event(Event {
                time: vnet_capture::now(),
                queue: Some(captured.queue(kind)),
                what: What::Stopped,
                text: format!("{name}: {fault}"),
            });
        }
    }
}
