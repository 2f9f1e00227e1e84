// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One queue of a pair and its interrupt.

use std::sync::Arc;
use std::time::Instant;

use vnet_capture::Recorder;
use vnet_dma::DmaMap;
use vnet_irq::Vector;
use vnet_queue::{Due, Fault, Observer, Position, Rx, Tx, Written};

use crate::counters::Tally;
use crate::mischief::{Fate, Lane};
use crate::moderation::{Moderation, Moderator, Verdict};

/// One queue of the pair.
#[derive(Debug)]
pub(crate) enum Slot<Q> {
    /// Not started.
    Off,
    /// Serving.
    Running(Q, Signal),
    /// Stopped with a fault, with these ring indices.
    Failed((u16, u16)),
}

/// How a queue that runs raises its interrupt.
#[derive(Debug)]
pub(crate) struct Signal {
    vector: Option<Arc<Vector>>,
    moderator: Moderator,
}

impl Signal {
    pub(crate) fn new(vector: Option<Arc<Vector>>) -> Self {
        Self {
            vector,
            moderator: Moderator::default(),
        }
    }
}

impl Signal {
    /// Judges an interrupt that is due, or none.
    pub(crate) fn judge(&mut self, due: Option<Due>, settings: Moderation) -> Verdict {
        self.moderator.judge(due, settings, Instant::now)
    }
}

/// What both kinds of queue can do.
pub(crate) trait Ring {
    fn interrupt_due(&mut self, mem: &DmaMap) -> Result<Option<Due>, Fault>;
    fn signalled(&mut self);
    fn unheard(&mut self);
    fn set_recorder(&mut self, recorder: Option<Box<Recorder>>);
    fn indices(&self) -> (u16, u16);
    fn written(&mut self) -> Written;
    fn tell(&mut self, what: impl FnOnce(&mut dyn Observer, Position));
    fn accuse(&mut self, mem: &DmaMap, fault: Fault);
}

impl Ring for Rx {
    fn interrupt_due(&mut self, mem: &DmaMap) -> Result<Option<Due>, Fault> {
        Rx::interrupt_due(self, mem)
    }

    fn signalled(&mut self) {
        Rx::signalled(self);
    }

    fn unheard(&mut self) {
        Rx::unheard(self);
    }

    fn set_recorder(&mut self, recorder: Option<Box<Recorder>>) {
        Rx::set_recorder(self, recorder);
    }

    fn indices(&self) -> (u16, u16) {
        Rx::indices(self)
    }

    fn written(&mut self) -> Written {
        Rx::written(self)
    }

    fn tell(&mut self, what: impl FnOnce(&mut dyn Observer, Position)) {
        Rx::tell(self, what);
    }

    fn accuse(&mut self, mem: &DmaMap, fault: Fault) {
        Rx::accuse(self, mem, fault);
    }
}

impl Ring for Tx {
    fn interrupt_due(&mut self, mem: &DmaMap) -> Result<Option<Due>, Fault> {
        Tx::interrupt_due(self, mem)
    }

    fn signalled(&mut self) {
        Tx::signalled(self);
    }

    fn unheard(&mut self) {
        Tx::unheard(self);
    }

    fn set_recorder(&mut self, recorder: Option<Box<Recorder>>) {
        Tx::set_recorder(self, recorder);
    }

    fn indices(&self) -> (u16, u16) {
        Tx::indices(self)
    }

    fn written(&mut self) -> Written {
        Tx::written(self)
    }

    fn tell(&mut self, what: impl FnOnce(&mut dyn Observer, Position)) {
        Tx::tell(self, what);
    }

    fn accuse(&mut self, mem: &DmaMap, fault: Fault) {
        Tx::accuse(self, mem, fault);
    }
}

impl<Q: Ring> Slot<Q> {
    /// The next avail and the next used index, if the queue was started.
    pub(crate) fn indices(&self) -> Option<(u16, u16)> {
        match self {
            Slot::Off => None,
            Slot::Running(queue, _) => Some(queue.indices()),
            Slot::Failed(indices) => Some(*indices),
        }
    }

    /// The queue, while it runs.
    pub(crate) fn running(&self) -> Option<&Q> {
        match self {
            Slot::Running(queue, _) => Some(queue),
            Slot::Off | Slot::Failed(_) => None,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Slot::Running(..))
    }

    /// What the queue has written to memory that is not shared, and that is to be pushed.
    pub(crate) fn written(&mut self) -> Written {
        match self {
            Slot::Running(queue, _) => queue.written(),
            Slot::Off | Slot::Failed(_) => Written::default(),
        }
    }

    /// Stops a queue that runs, for good.
    pub(crate) fn fail(&mut self) {
        if let Slot::Running(queue, _) = self {
            *self = Slot::Failed(queue.indices());
        }
    }

    /// Tells whoever watches the queue of something, while it runs.
    pub(crate) fn tell(&mut self, what: impl FnOnce(&mut dyn Observer, Position)) {
        if let Slot::Running(queue, _) = self {
            queue.tell(what);
        }
    }

    /// Tells whoever watches the queue of the fault that it stops with.
    pub(crate) fn accuse(&mut self, mem: &DmaMap, fault: Fault) {
        if let Slot::Running(queue, _) = self {
            queue.accuse(mem, fault);
        }
    }

    /// Says what is to be done about the interrupt. The queue stops if `fault` is set afterwards.
    pub(crate) fn judge(
        &mut self,
        mem: &DmaMap,
        settings: Moderation,
        fault: &mut Option<Fault>,
    ) -> Verdict {
        let Slot::Running(queue, signal) = self else {
            return Verdict::Idle;
        };
        let due = queue.interrupt_due(mem).unwrap_or_else(|broken| {
            fault.get_or_insert(broken);
            None
        });
        match signal.judge(due, settings) {
            // There is no other time.
            Verdict::Wait(_) if fault.is_some() => Verdict::Fire,
            verdict => verdict,
        }
    }

    /// The vector, while the queue runs and has one.
    pub(crate) fn vector(&self) -> Option<&Arc<Vector>> {
        match self {
            Slot::Running(_, signal) => signal.vector.as_ref(),
            Slot::Off | Slot::Failed(_) => None,
        }
    }

    /// Has the frames of the queue kept, or not, while it runs.
    pub(crate) fn set_recorder(&mut self, recorder: Option<Box<Recorder>>) {
        if let Slot::Running(queue, _) = self {
            queue.set_recorder(recorder);
        }
    }

    /// Raises the interrupt, unless `lane` is to lose it, which is returned.
    pub(crate) fn raise(&mut self, tally: &Tally, lane: Option<&mut Lane>) -> bool {
        let lost = lane.is_some_and(|lane| lane.interrupt(Instant::now) == Fate::Lost);
        if let (false, Some(vector)) = (lost, self.vector()) {
            vector.raise();
            tally.interrupt();
        }
        self.raised(lost);
        lost
    }

    /// Takes note that the interrupt was raised, by this queue or by another with its vector, or
    /// `lost` instead.
    pub(crate) fn raised(&mut self, lost: bool) {
        if let Slot::Running(queue, signal) = self {
            match lost {
                false => queue.signalled(),
                true => queue.unheard(),
            }
            signal.moderator.served();
        }
    }
}
