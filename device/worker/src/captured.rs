// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A pair whose frames are kept, or looked at: see [`vnet_capture`].

use vnet_capture::{Bell, Capture, Event, Onlooker, Recorder, Watch, What};
use vnet_contract::queue::{rx_index, tx_index, Kind};
use vnet_queue::{Fault, Picture};

use crate::gauge::Gauge;
use crate::shared::Shared;
use crate::state::State;

/// Who keeps the frames of a pair, and who looks at them.
#[derive(Debug)]
pub(crate) struct Captured {
    capture: Option<Capture>,
    rx: Lane,
    tx: Lane,
}

/// What this comes to for one queue.
#[derive(Debug)]
struct Lane {
    queue: u16,
    bell: Bell,
    watch: Option<Watch>,
    /// The same, for the recorder of a capture, which goes on when this changes.
    onlooker: Onlooker,
}

const BOTH: [Kind; 2] = [Kind::Rx, Kind::Tx];

impl Gauge {
    /// Has the frames of the pair kept, of queues that run and of those that will, or not any more. Waits
    /// for the batch that runs now.
    pub fn capture(&self, capture: Option<Capture>) {
        let shared = self.shared();
        let mut state = shared.gate.lock();
        let captured = state.captured.take();
        let mut captured = captured.unwrap_or_else(|| shared.captured());
        captured.capture = capture;
        state.captured = Some(captured);
        state.keep_both();
    }

    /// What the ring of a queue looks like now, if it runs and is in memory that is shared. Its frames,
    /// and those of queues of this kind that will run, are shown to `watch` from now on. Waits for the batch
    /// that runs now.
    pub fn look(&self, kind: Kind, watch: &Watch) -> Option<Picture> {
        let shared = self.shared();
        let mut state = shared.gate.lock();
        let captured = state.captured.get_or_insert_with(|| shared.captured());
        let seen = &captured.lane(kind).watch;
        let is_it = seen.as_ref().is_some_and(|seen| seen.is(watch));
        if !is_it && captured.show_to(kind, Some(watch.clone())) {
            state.keep(kind);
        }
        let outline = match kind {
            Kind::Rx => state.rx.running().map(|rx| rx.outline()),
            Kind::Tx => state.tx.running().map(|tx| tx.outline()),
        };
        // The rest is no matter of whoever serves the queue.
        drop(state);
        let snapshot = shared.dma.snapshot();
        outline?.picture(snapshot.memory()?).ok()
    }
}

impl Shared {
    /// Nobody keeps frames yet.
    fn captured(&self) -> Captured {
        let lane = |kind, queue| Lane {
            queue,
            bell: self.bell(kind).clone(),
            watch: None,
            onlooker: Onlooker::default(),
        };
        Captured {
            capture: None,
            rx: lane(Kind::Rx, rx_index(self.index)),
            tx: lane(Kind::Tx, tx_index(self.index)),
        }
    }
}

impl Captured {
    fn lane(&self, kind: Kind) -> &Lane {
        match kind {
            Kind::Rx => &self.rx,
            Kind::Tx => &self.tx,
        }
    }

    fn lane_mut(&mut self, kind: Kind) -> &mut Lane {
        match kind {
            Kind::Rx => &mut self.rx,
            Kind::Tx => &mut self.tx,
        }
    }

    /// Has somebody else look at a queue, or nobody. True: another recorder is needed for that.
    fn show_to(&mut self, kind: Kind, watch: Option<Watch>) -> bool {
        let lane = self.lane_mut(kind);
        lane.onlooker.set(watch.clone());
        lane.watch = watch;
        let queue = lane.queue;
        // That of a capture has frames in hand, of which not all is known yet.
        !self.capture.as_ref().is_some_and(|c| c.wants(queue))
    }

    /// Who is to be told of the frames of a queue.
    fn recorder(&self, kind: Kind) -> Option<Recorder> {
        let Lane {
            queue,
            bell,
            watch,
            onlooker,
        } = self.lane(kind);
        let capture = self.capture.as_ref();
        match capture.and_then(|capture| capture.recorder(*queue, bell)) {
            Some(recorder) => Some(recorder.shown_to(onlooker.clone())),
            None => watch.as_ref().map(|watch| watch.recorder(*queue, bell)),
        }
    }

    /// Lets go of those who want nothing any more; true if that takes other recorders.
    fn let_go(&mut self) -> bool {
        let capture = self.capture.take_if(|capture| capture.is_over());
        let watches = BOTH.map(|kind| {
            let watch = self.lane(kind).watch.as_ref();
            watch.is_some_and(Watch::is_over) && self.show_to(kind, None)
        });
        capture.is_some() || watches.contains(&true)
    }

    fn is_idle(&self) -> bool {
        self.capture.is_none() && BOTH.iter().all(|&kind| self.lane(kind).watch.is_none())
    }
}

impl State {
    /// Has the frames of a queue kept, if it runs, as far as somebody wants them.
    pub(crate) fn keep(&mut self, kind: Kind) {
        // The old one first: as it goes, it has the bell heard no more.
        self.record(kind, None);
        let recorder = self.captured.as_ref().and_then(|c| c.recorder(kind));
        self.record(kind, recorder.map(Box::new));
    }

    fn record(&mut self, kind: Kind, recorder: Option<Box<Recorder>>) {
        match kind {
            Kind::Rx => self.rx.set_recorder(recorder),
            Kind::Tx => self.tx.set_recorder(recorder),
        }
    }

    /// The same for both queues.
    fn keep_both(&mut self) {
        BOTH.into_iter().for_each(|kind| self.keep(kind));
        self.captured.take_if(|captured| captured.is_idle());
    }

    /// Keeps no frames that nobody wants any more.
    #[cold]
    pub(crate) fn release_if_over(&mut self) {
        if self.captured.as_mut().is_some_and(Captured::let_go) {
            self.keep_both();
        }
    }

    /// Puts it between the frames that a queue stops.
    pub(crate) fn keep_fault(&self, kind: Kind, fault: Fault) {
        let Some(captured) = &self.captured else {
            return;
        };
        if let Some(capture) = &captured.capture {
            let name = fault.error.name();
            capture.event(Event {
                time: vnet_capture::now(),
                queue: Some(captured.lane(kind).queue),
                what: What::Stopped,
                text: format!("{name}: {fault}"),
            });
        }
    }
}
