// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the driver has to do sooner or later: ring, ask for interrupts, answer them, take back what
//! the card returned.
//!
//! All times here are of the guest, as `life` has it. That a driver took a used entry can be seen
//! in two ways only: it asks for an interrupt for a later one, or it makes the same chain available
//! again. A driver may do neither for a while, so what follows from their absence is judged with
//! care:
//!
//! - A driver that polls leaves its event index behind, one before the next entry in the case of
//!   ours, where it may look like that of one who waits for an entry that came long ago.
//! - A driver may gather empty buffers before it posts them again, up to half a ring. So receive
//!   queues are judged when three quarters of the ring are waiting.
//! - A transmit queue is polled with the receive queue of its pair, and a poll that frees frames
//!   need not say so. While that other one waits for an interrupt, which cannot be mistaken, nobody
//!   polls: so transmit queues are judged when that was so for long.
//! - Nor need a driver say so that an interrupt made look, or a race that it lost: with nothing left
//!   in flight there is no interrupt to ask for. So what came back until it must have looked counts
//!   as taken, and only frames that come back later are missed.

use std::time::Duration;

use vnet_contract::queue::Kind;

use crate::Rule;

/// How long a driver may take from writing its event index to its look at the used index, which is
/// what it does next.
const GLANCE: Duration = Duration::from_millis(400);

/// What the ring looks like at a tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Time of the guest.
    pub(crate) now: Duration,
    /// The avail index in memory.
    pub(crate) avail: u16,
    /// Where the driver wants the next interrupt.
    pub(crate) event: u16,
    /// The interrupt was raised and has nowhere to go.
    pub(crate) pending: bool,
    /// The driver does not seem to poll the pair.
    pub(crate) asleep: bool,
}

/// What is owed on one ring.
#[derive(Debug)]
pub(crate) struct Waits {
    kind: Kind,
    mask: u16,
    /// How long the driver may take over what it must do.
    patience: Duration,
    /// The queue has a vector: the driver works by interrupts.
    interrupts: bool,
    /// The card asked for a doorbell at this avail index, and has not looked since.
    armed: Option<u16>,
    /// Since when entries go beyond that.
    unheard: Option<Duration>,
    /// Next used entry.
    used: u16,
    /// Entries before this were taken by the driver.
    taken: u16,
    /// By used entry: when it was returned.
    times: Vec<Duration>,
    /// By chain: the used index behind the entry that last returned it.
    returned: Vec<Option<u16>>,
    /// The driver's event index when it was last read.
    event: Option<u16>,
    /// The event index that an interrupt has come due for.
    due: Option<u16>,
    /// That was since the last tick: it may wait for company, and not be raised yet. No interrupt does for as
    /// long as from one tick to the next.
    fresh: bool,
    /// The vector has taken that interrupt. If the event index stays where it is, it is due again after
    /// 2^16 entries, which nobody asked for.
    heard: bool,
    /// Until then the driver may be about to look at the used index. Whether it takes what it finds
    /// shows on a receive queue only.
    looks: Option<Duration>,
    /// Interrupts since the driver last made a chain available.
    idle_interrupts: u16,
    /// Since when an interrupt waits for its vector, and nobody took a used entry.
    pending: Option<Duration>,
    /// Since when the driver does not poll the pair.
    asleep: Option<Duration>,
    /// What is said already.
    said: Vec<Rule>,
}

impl Waits {
    pub(crate) fn new(kind: Kind, size: u16, interrupts: bool, patience: Duration) -> Self {
        Self {
            kind,
            mask: size - 1,
            patience,
            interrupts,
            armed: None,
            unheard: None,
            used: 0,
            taken: 0,
            times: vec![Duration::ZERO; usize::from(size)],
            returned: vec![None; usize::from(size)],
            event: None,
            due: None,
            fresh: false,
            heard: false,
            looks: None,
            idle_interrupts: 0,
            pending: None,
            asleep: None,
            said: Vec::new(),
        }
    }

    /// The next used entry, to begin with.
    pub(crate) fn place(&mut self, used: u16) {
        self.used = used;
        self.taken = used;
    }

    /// The card looks at the avail ring.
    pub(crate) fn looked(&mut self) {
        self.armed = None;
        self.unheard = None;
    }

    /// The card asks for a doorbell.
    pub(crate) fn armed(&mut self, event: u16) {
        self.armed = Some(event);
        self.unheard = None;
    }

    /// The driver made a chain available, which must be one of the ring.
    pub(crate) fn offered(&mut self, head: u16) {
        self.idle_interrupts = 0;
        if let Some(index) = self.returned[usize::from(head)].take() {
            self.advance(index);
        }
    }

    /// The card is about to return a chain, as the next used entry.
    pub(crate) fn returning(&mut self, head: u16, now: Duration) {
        self.times[usize::from(self.used & self.mask)] = now;
        self.used = self.used.wrapping_add(1);
        // Entries that were overwritten are nobody's any more.
        if self.outstanding() > self.mask + 1 {
            self.taken = self.used.wrapping_sub(self.mask + 1);
        }
        if let Some(returned) = self.returned.get_mut(usize::from(head)) {
            *returned = Some(self.used);
        }
    }

    /// The driver's event index, whenever it is read.
    pub(crate) fn event(&mut self, event: u16, now: Duration) {
        if self.due.is_some_and(|due| due != event) {
            self.due = None;
        }
        let moved = self.event.replace(event).is_some_and(|old| old != event);
        // One that is ahead, by up to a ring, waits for what is to come.
        let ahead = event.wrapping_sub(self.taken);
        if ahead <= self.outstanding() + self.mask + 1 {
            self.advance(event);
            if moved {
                self.looks = self.looks.max(Some(now + GLANCE));
            }
        }
    }

    /// An interrupt has come due for the entry `event`. True if too many have without any effect.
    pub(crate) fn due(&mut self, event: u16, now: Duration) -> bool {
        self.looks = Some(now + self.patience);
        self.fresh = true;
        if self.due != Some(event) {
            self.due = Some(event);
            self.heard = false;
            self.idle_interrupts = self.idle_interrupts.saturating_add(1);
        }
        // Of a transmit queue nothing would follow: there are no more of them than frames were sent, and
        // the driver may take back each by an interrupt of its own.
        let many = u32::from(self.idle_interrupts) * 4 > (u32::from(self.mask) + 1) * 3;
        many && self.kind == Kind::Rx && self.first(Rule::InterruptStorm)
    }

    /// Used entries that the driver may not have taken.
    fn outstanding(&self) -> u16 {
        self.used.wrapping_sub(self.taken)
    }

    /// The driver took all entries before `index`, as far as there are so many.
    fn advance(&mut self, index: u16) {
        let by = index.wrapping_sub(self.taken);
        let most = self.outstanding();
        if by < 1 << 15 && by > 0 {
            self.taken = self.taken.wrapping_add(by.min(most));
            self.pending = None;
            self.said.retain(|rule| *rule == Rule::InterruptStorm);
        }
    }

    /// Takes for granted what the driver may have taken without saying so.
    fn settle(&mut self) {
        while self.outstanding() > 0
            && Some(self.times[usize::from(self.taken & self.mask)]) <= self.looks
        {
            self.advance(self.taken.wrapping_add(1));
        }
    }

    /// True if the driver waits for what is to come.
    pub(crate) fn is_armed(&self, event: u16) -> bool {
        event.wrapping_sub(self.used) <= self.mask + 1
    }

    /// True the first time.
    fn first(&mut self, rule: Rule) -> bool {
        let new = !self.said.contains(&rule);
        if new {
            self.said.push(rule);
        }
        new
    }

    /// Looks for what was never done. Each is told once, until the driver goes on.
    pub(crate) fn tick(&mut self, look: Look) -> Vec<Rule> {
        let patience = self.patience;
        let late = |since: Option<Duration>| since.is_some_and(|at| look.now - at >= patience);
        let mut rules = Vec::new();
        self.event(look.event, look.now);
        let pending = std::mem::take(&mut self.fresh) || look.pending;
        match (self.kind, pending) {
            (Kind::Rx, _) => {}
            (Kind::Tx, false) => self.settle(),
            // It looks when the vector takes the interrupt.
            (Kind::Tx, true) => self.looks = Some(look.now + patience),
        }

        let unheard = self.armed.is_some_and(|event| event != look.avail);
        self.unheard = unheard.then(|| self.unheard.unwrap_or(look.now));
        if late(self.unheard) {
            rules.push(Rule::DoorbellMissing);
        }
        if self.interrupts {
            self.heard |= !pending;
            let unheard = self.due.is_some() && !self.heard;
            self.pending = unheard.then(|| self.pending.unwrap_or(look.now));
            self.asleep = look.asleep.then(|| self.asleep.unwrap_or(look.now));
            // A receive queue is not judged by whether it is polled.
            let many = u32::from(self.outstanding()) * 4 >= (u32::from(self.mask) + 1) * 3;
            let (asleep, enough) = match self.kind {
                Kind::Rx => (true, many),
                Kind::Tx => (late(self.asleep), true),
            };
            let oldest = self.times[usize::from(self.taken & self.mask)];
            let waiting = self.outstanding() > 0 && late(Some(oldest));
            if asleep && waiting && late(self.pending) {
                rules.push(Rule::VectorMasked);
            }
            if asleep && waiting && enough && !pending {
                rules.push(self.neglected(look));
            }
        }
        rules.retain(|rule| self.first(*rule));
        rules
    }

    /// Why the driver does not take used entries that wait for it.
    fn neglected(&self, look: Look) -> Rule {
        let behind = self.used.wrapping_sub(look.event);
        match self.kind {
            Kind::Tx => Rule::TxUnreclaimed,
            Kind::Rx if !(1..=self.outstanding()).contains(&behind) => Rule::RearmMissing,
            Kind::Rx if self.due == Some(look.event) => Rule::UsedIgnored,
            Kind::Rx => Rule::RearmRace,
        }
    }
}

/// What the driver did not do, if this is the rule that it broke.
pub(crate) fn due(rule: Rule) -> &'static str {
    match rule {
        Rule::DoorbellMissing => "a doorbell",
        Rule::VectorMasked => "a vector that takes the interrupt",
        Rule::UsedIgnored => "a look at the used entries",
        Rule::RearmRace => "another look at the used entries",
        _ => "a look at the used entries, or an interrupt asked for them",
    }
}
