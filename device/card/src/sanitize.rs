// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a card tells its sanitizer, and the thread that keeps the sanitizer's time.

use std::sync::mpsc::{sync_channel, Receiver, RecvTimeoutError, SyncSender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use tracing::{warn, Span};
use vnet_contract::regs;
use vnet_irq::Vector;
use vnet_sanitizer::{Finding, Ring, Rule, Sanitizer, Shadow};
use vnet_worker::{Clock, Fault, RingConfig};

use crate::card::Card;
use crate::config::Error;
use crate::decode::pair_of;

/// How often the rings are looked at when nothing happens.
const PERIOD: Duration = Duration::from_millis(200);

/// A card's sanitizer. Dropping this stops and joins the thread.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) sanitizer: Arc<Sanitizer>,
    stop: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
    /// Findings before the client that is there now, those of other processes included.
    pub(crate) before: u64,
}

impl Watch {
    fn spawn(sanitizer: Arc<Sanitizer>, clocks: Vec<Clock>) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(1);
        let shared = Arc::clone(&sanitizer);
        let span = Span::current();
        let thread = thread::Builder::new()
            .name("vnet-sanitizer".into())
            .spawn(move || {
                let _span = span.entered();
                run(&shared, &clocks, &stopped);
            })?;
        Ok(Self {
            sanitizer,
            stop,
            thread: Some(thread),
            before: 0,
        })
    }

    /// The client is gone.
    pub(crate) fn end_session(&mut self) {
        log(&self.sanitizer);
        self.sanitizer.end_session();
        let total = self.sanitizer.findings().total();
        let new = total.saturating_sub(std::mem::replace(&mut self.before, total));
        if new != 0 {
            warn!("sanitizer: the driver of this session broke rules {new} times");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Fails only if the thread is gone already.
        let _ = self.stop.try_send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        log(&self.sanitizer);
    }
}

fn run(sanitizer: &Sanitizer, clocks: &[Clock], stopped: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PERIOD) {
        sanitizer.tick(Instant::now());
        clocks.iter().for_each(Clock::tick);
        log(sanitizer);
    }
}

/// A few lines for each rule, however often it is broken.
fn log(sanitizer: &Sanitizer) {
    for finding in sanitizer.take_news() {
        warn!("sanitizer: {finding}");
    }
}

impl Card {
    /// Has the mistakes of the driver found.
    pub fn sanitized(mut self, sanitizer: Arc<Sanitizer>) -> Result<Self, Error> {
        let clocks = self.pairs.iter().map(|pair| pair.clock()).collect();
        self.watch = Some(Watch::spawn(sanitizer, clocks).map_err(Error::Thread)?);
        Ok(self)
    }

    /// Has the queue watched that is about to run, if anybody looks.
    pub(crate) fn watch_queue(&self, queue: u16, config: RingConfig, vector: Option<&Arc<Vector>>) {
        if let Some(sanitizer) = self.sanitizer() {
            let ring = Ring {
                queue,
                config,
                vector: vector.cloned(),
            };
            let shadow = Shadow::new(Arc::clone(sanitizer), ring);
            let (pair, kind) = pair_of(queue);
            self.pairs[pair].watch(kind, Box::new(shadow));
        }
    }

    /// Whoever judges what a message says, unless the last process may have done so.
    fn judge(&self) -> Option<&Arc<Sanitizer>> {
        self.sanitizer().filter(|_| !self.is_again())
    }

    /// What was found so far, if anybody looks.
    pub fn sanitizer(&self) -> Option<&Arc<Sanitizer>> {
        self.watch.as_ref().map(|watch| &watch.sanitizer)
    }

    /// An illegal access to BAR 0: counts it, unless the last process may have. `detail` is the width for
    /// [`Rule::RegisterWidth`], else the value that was written.
    pub(crate) fn illegal(&mut self, rule: Rule, offset: u64, detail: u64) {
        if self.is_again() {
            return;
        }
        self.illegal = self.illegal.saturating_add(1);
        self.changed = true;
        self.misuse(rule, offset, detail);
    }

    /// Reports how a register was used.
    fn misuse(&self, rule: Rule, offset: u64, detail: u64) {
        let Some(sanitizer) = self.judge() else {
            return;
        };
        let (seen, due) = match rule {
            Rule::RegisterWidth => (
                format!("{detail} bytes at {offset:#x}"),
                "4 or 8 bytes, and aligned to that",
            ),
            Rule::RegisterUnknown => (
                format!("an access at {offset:#x}"),
                "a register that this card has",
            ),
            Rule::RegisterReadOnly => (
                format!("{detail:#x} written at {offset:#x}"),
                "that it is only read",
            ),
            Rule::RegisterReserved => (
                format!("bits {detail:#x} at {offset:#x}"),
                "zeros, but for bits that are defined",
            ),
            _ => (
                format!("{detail:#x} written at {offset:#x}"),
                "a value that it takes now",
            ),
        };
        sanitizer.report(Finding::new(rule, seen, due));
    }

    /// Looks for ones in other bits than those that are defined, in a legal write.
    pub(crate) fn check_reserved(&self, defined: u32, offset: u64, value: u32) {
        let reserved = value & !defined;
        if reserved != 0 {
            self.misuse(Rule::RegisterReserved, offset, reserved.into());
        }
    }

    /// A set of features was committed and refused.
    pub(crate) fn check_commit(&self) {
        if let Some(sanitizer) = self.judge() {
            let written = format!("features {:#x}", self.negotiation.written());
            let due = format!(
                "of {:#x}, with all that they need",
                self.negotiation.offered()
            );
            sanitizer.report(Finding::new(Rule::FeaturesRefused, written, due));
        }
    }

    /// A queue was started.
    pub(crate) fn check_start(&self, queue: u16) {
        let vector = self.queues[usize::from(queue)].vector();
        if let (Some(sanitizer), Some(vector), false) =
            (self.sanitizer(), vector, self.space.msix_enabled())
        {
            let seen = format!("vector {vector} with MSI-X disabled");
            let due = "that MSI-X is enabled first";
            sanitizer.report(Finding::new(Rule::MsixDisabled, seen, due).queue(queue));
        }
    }

    /// The card did not start a queue.
    pub(crate) fn check_refusal(&self, queue: u16, fault: Fault) {
        if let Some(sanitizer) = self.judge() {
            let features = self.negotiation.accepted().unwrap_or(0);
            let config = self.queues[usize::from(queue)].ring(features);
            sanitizer.refused(queue, &config, fault, self.dma.memory().as_deref());
        }
    }

    /// A register of a queue that runs was written.
    pub(crate) fn check_running(&self, queue: u16, reg: u32) {
        if let Some(sanitizer) = self.judge() {
            let seen = format!("a write of register {reg:#x} of the queue");
            let due = "that the queue is stopped first";
            sanitizer.report(Finding::new(Rule::QueueRunning, seen, due).queue(queue));
        }
    }

    /// A doorbell was rung.
    pub(crate) fn check_doorbell(&self, queue: u16, value: u32) {
        let Some(sanitizer) = self.sanitizer() else {
            return;
        };
        if !self.queues[usize::from(queue)].started_once && !self.events.has_failed() {
            let seen = format!("{value:#x} written to the doorbell");
            let due = "that the queue is started first";
            sanitizer.report(Finding::new(Rule::DoorbellReset, seen, due).queue(queue));
        }
    }
}

/// The bits of a register of the card that have a meaning when it is written. What is judged as a value, and
/// the upper half of a doorbell, which is ignored, counts as defined.
pub(crate) fn defined(reg: u32) -> u32 {
    match reg {
        regs::CTRL => regs::CTRL_RESET | regs::CTRL_COMMIT_FEATURES,
        regs::MAC_HI => 0xffff,
        regs::RX_MODE => regs::RX_MODE_MASK,
        regs::EVENT_CAUSE | regs::EVENT_ENABLE => regs::EVENT_MASK,
        regs::RSS_CTRL => regs::RSS_CTRL_ENABLE | regs::RSS_CTRL_SYMMETRIC,
        regs::RSS_HASH_TYPES => regs::RSS_HASH_MASK,
        regs::MAC_FILTER_HI => regs::MAC_FILTER_VALID | 0xffff,
        _ => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regs::Access;

    /// Of the other bits, addresses have theirs; a register without any holds a value.
    #[test]
    fn bits_are_reserved_that_have_no_name() {
        for reg in regs::GLOBAL.iter().filter(|reg| reg.access != Access::Ro) {
            let named = regs::BITS
                .iter()
                .filter(|bit| bit.registers.contains(&reg.name))
                .fold(0, |bits, bit| bits | 1 << bit.bit);
            let bits = match reg.name {
                "MAC_HI" | "MAC_FILTER_HI" => named | 0xffff,
                _ => named,
            };
            let expected = if bits == 0 { u32::MAX } else { bits };
            assert_eq!(defined(reg.offset), expected, "{}", reg.name);
        }
    }
}
