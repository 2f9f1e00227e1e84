// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The plan in force.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::plan::{random, Fault, Register, CARD, SITES};
use crate::{Kind, Plan};

/// The faults of one card. The plan may change while it runs.
#[derive(Debug, Default)]
pub struct Faults {
    active: ArcSwapOption<Active>,
    /// Plans so far.
    plans: AtomicU64,
    /// Queues that were started since their frames were last looked at, one bit each.
    begun: AtomicU64,
    witness: ArcSwapOption<Witness>,
}

/// Hears of each event that is made to go wrong, and of the queue that it is one of, if it is. Called where that
/// happens, and so must not wait.
pub struct Witness(Box<dyn Fn(Kind, Option<u16>) + Send + Sync>);

impl Witness {
    /// Has this called.
    pub fn new(hear: impl Fn(Kind, Option<u16>) + Send + Sync + 'static) -> Self {
        Self(Box::new(hear))
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

/// A plan, and how far it has come.
#[derive(Debug)]
struct Active {
    /// Which of the plans it is.
    number: u64,
    seed: u64,
    since: Instant,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    fault: Fault,
    sites: [Progress; SITES],
}

/// How far a fault has come at a site.
#[derive(Debug, Default)]
struct Progress {
    events: AtomicU64,
    hits: AtomicU64,
    /// It cannot come to pass any more. Noticed at the event after the last one that could go wrong: what that
    /// one did to a frame is through by then.
    over: AtomicBool,
}

/// An event that is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// A number to choose by how it goes wrong.
    pub random: u64,
    /// How long it takes, for kinds where that is a question.
    pub delay: Duration,
    /// The plan, and the end of the time that it gives the fault.
    plan: u64,
    until: Option<Instant>,
}

impl Faults {
    /// Puts a plan into force, in place of one that is. All its events are still to come.
    pub fn load(&self, plan: &Plan) {
        let active = Active {
            number: self.plans.fetch_add(1, Relaxed),
            seed: plan.seed,
            since: Instant::now(),
            entries: plan
                .faults
                .iter()
                .map(|&fault| Entry {
                    fault,
                    sites: std::array::from_fn(|_| Progress::default()),
                })
                .collect(),
        };
        let active = (!plan.faults.is_empty()).then(|| Arc::new(active));
        self.active.store(active);
    }

    /// Says who is to hear of events that go wrong, if somebody is.
    pub fn set_witness(&self, witness: Option<Witness>) {
        self.witness.store(witness.map(Arc::new));
    }

    /// A line for each fault of the plan in force: how many events there were, and how many of them
    /// went wrong.
    pub fn report(&self) -> Vec<String> {
        let active = self.active.load();
        let entries = active.iter().flat_map(|active| &active.entries);
        entries.map(Entry::report).collect()
    }
}

impl Entry {
    fn report(&self) -> String {
        let sum = |counter: fn(&Progress) -> &AtomicU64| -> u64 {
            self.sites.iter().map(|s| counter(s).load(Relaxed)).sum()
        };
        let (line, name) = (self.fault.line, self.fault.kind.name());
        let (hits, events) = (sum(|s| &s.hits), sum(|s| &s.events));
        format!("fault in line {line}, {name}: {hits} of {events} events")
    }

    fn event(&self, index: usize, site: usize, active: &Active) -> Option<Hit> {
        let fault = &self.fault;
        if !fault.scope.covers(site) || !active.is_time(fault) {
            return None;
        }
        let progress = &self.sites[site];
        let event = progress.events.fetch_add(1, Relaxed) + 1;
        if fault.is_over(event, progress.hits.load(Relaxed)) {
            progress.over.store(true, Relaxed);
            return None;
        }
        let random = random(active.seed, index, site, event);
        if !fault.trigger.fires(event, random) {
            return None;
        }
        // A site may be asked by several threads.
        let may = |hits: u64| {
            fault
                .count
                .is_none_or(|most| hits < most)
                .then_some(hits + 1)
        };
        progress.hits.fetch_update(Relaxed, Relaxed, may).ok()?;
        Some(Hit {
            // Not the number that the rate was decided by, of which the remainder is known.
            random: random.rotate_right(32),
            delay: fault.delay,
            plan: active.number,
            until: active.until(fault),
        })
    }
}

impl Active {
    fn is_time(&self, fault: &Fault) -> bool {
        if fault.from.is_zero() && fault.lasts.is_none() {
            return true;
        }
        match self.since.elapsed().checked_sub(fault.from) {
            Some(into) => fault.lasts.is_none_or(|lasts| into < lasts),
            None => false,
        }
    }

    /// When the time of a fault is over, if that is ever.
    fn until(&self, fault: &Fault) -> Option<Instant> {
        self.since
            .checked_add(fault.from)?
            .checked_add(fault.lasts?)
    }
}

/// A place where something can go wrong.
#[derive(Clone, Debug)]
pub struct Site {
    faults: Arc<Faults>,
    index: usize,
}

impl Site {
    /// The queue with this index.
    pub fn queue(faults: Arc<Faults>, queue: u16) -> Self {
        Self {
            faults,
            // A queue that cannot be has no faults but those of the card.
            index: usize::from(queue).min(CARD),
        }
    }

    /// The card as a whole.
    pub fn card(faults: Arc<Faults>) -> Self {
        Self {
            faults,
            index: CARD,
        }
    }

    /// The queue was started: what was in its ring before does not come again.
    pub fn begin(&self) {
        self.faults.begun.fetch_or(self.bit(), Relaxed);
    }

    /// True if it was since this was last asked.
    pub(crate) fn has_begun(&self) -> bool {
        self.faults.begun.fetch_and(!self.bit(), Relaxed) & self.bit() != 0
    }

    fn bit(&self) -> u64 {
        const { assert!(SITES <= u64::BITS as usize) };
        1 << self.index
    }

    /// Counts an event of this kind, and says if it is to go wrong. Of several faults of the same
    /// kind the first has its way.
    pub fn hit(&self, kind: Kind) -> Option<Hit> {
        self.hit_at(kind, None)
    }

    /// The same of a read of the register at this offset, if it is one.
    pub fn hit_at(&self, kind: Kind, register: Option<u64>) -> Option<Hit> {
        let active = self.faults.active.load();
        let active = active.as_ref()?;
        let mut first = None;
        for (index, entry) in active.entries.iter().enumerate() {
            let wanted = entry.fault.register;
            let is_it = |wanted: Register| register.is_some_and(|offset| wanted.is_at(offset));
            if entry.fault.kind == kind && wanted.is_none_or(is_it) {
                first = first.or(entry.event(index, self.index, active));
            }
        }
        if let (Some(_), Some(witness)) = (first, &*self.faults.witness.load()) {
            let queue = (self.index < CARD).then_some(self.index as u16);
            (witness.0)(kind, queue);
        }
        first
    }

    /// True if what began with an event may go on: the plan is in force, and it is still the time of the fault.
    pub fn lasts(&self, hit: &Hit, now: Instant) -> bool {
        let active = self.faults.active.load();
        active.as_ref().is_some_and(|a| a.number == hit.plan)
            && hit.until.is_none_or(|end| now < end)
    }

    /// True if the plan has a fault of one of these kinds.
    pub fn may(&self, kinds: &[Kind]) -> bool {
        self.any(kinds, |_, _| true)
    }

    /// True if one of these kinds can come to pass now.
    pub fn may_now(&self, kinds: &[Kind]) -> bool {
        self.any(kinds, |active, entry| {
            active.is_time(&entry.fault) && !entry.sites[self.index].over.load(Relaxed)
        })
    }

    fn any(&self, kinds: &[Kind], is_it: impl Fn(&Active, &Entry) -> bool) -> bool {
        self.faults.active.load().as_ref().is_some_and(|active| {
            active.entries.iter().any(|entry| {
                let fault = &entry.fault;
                kinds.contains(&fault.kind)
                    && fault.scope.covers(self.index)
                    && is_it(active, entry)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use vnet_contract::regs;

    fn faults(text: &str) -> Arc<Faults> {
        let faults = Faults::default();
        faults.load(&text.parse().unwrap());
        Arc::new(faults)
    }

    /// The numbers of the events that went wrong.
    fn hits(site: &Site, kind: Kind, events: u64) -> Vec<u64> {
        (1..=events).filter(|_| site.hit(kind).is_some()).collect()
    }

    #[test]
    fn without_a_plan_nothing_goes_wrong() {
        let site = Site::card(Arc::default());
        for &kind in Kind::ALL {
            assert_eq!(site.hit(kind), None);
        }
        assert!(!site.may(Kind::ALL));
    }

    #[test]
    fn a_witness_hears_of_what_goes_wrong() {
        let faults = faults("stall every=2\nreset at=1");
        let heard: Arc<Mutex<Vec<_>>> = Arc::default();
        let list = Arc::clone(&heard);
        let witness = Witness::new(move |kind, queue| list.lock().unwrap().push((kind, queue)));
        faults.set_witness(Some(witness));
        let queue = Site::queue(Arc::clone(&faults), 3);
        assert_eq!(hits(&queue, Kind::Stall, 4), [2, 4]);
        assert_eq!(hits(&Site::card(faults), Kind::Reset, 2), [1]);
        let due = [
            (Kind::Stall, Some(3)),
            (Kind::Stall, Some(3)),
            (Kind::Reset, None),
        ];
        assert_eq!(*heard.lock().unwrap(), due);
    }

    #[test]
    fn sites_count_for_themselves_and_limits_hold_for_each() {
        let faults = faults("stall every=2 count=2\nreset at=1");
        let [a, b] = [0, 1].map(|queue| Site::queue(Arc::clone(&faults), queue));
        assert_eq!(hits(&a, Kind::Stall, 3), [2]);
        assert_eq!(hits(&b, Kind::Stall, 9), [2, 4]);
        assert_eq!(hits(&a, Kind::Stall, 9), [1], "the fourth in all");
        assert!(hits(&a, Kind::DmaError, 3).is_empty());
        assert!(a.may(&[Kind::DmaError, Kind::Stall]) && !a.may(&[Kind::DmaError]));
        assert_eq!(
            faults.report(),
            [
                "fault in line 1, stall: 4 of 21 events",
                "fault in line 2, reset: 0 of 0 events"
            ]
        );
    }

    #[test]
    fn of_a_register_only_its_own_reads_count() {
        let faults = faults("register-ones register=ID at=2\nregister-ones at=5");
        let site = Site::card(Arc::clone(&faults));
        let offsets = [regs::ID, regs::STATUS, regs::ID, regs::ID, regs::STATUS];
        let hits = offsets.map(|at| site.hit_at(Kind::RegisterOnes, Some(at.into())).is_some());
        assert_eq!(hits, [false, false, true, false, true]);
        assert_eq!(
            faults.report(),
            [
                "fault in line 1, register-ones: 1 of 3 events",
                "fault in line 2, register-ones: 1 of 5 events"
            ]
        );
    }

    #[test]
    fn a_plan_that_is_loaded_again_does_the_same_again() {
        let text = "seed=7\nframe-lost queue=rx rate=1/3\nframe-lost at=5";
        let faults = faults(text);
        let site = Site::queue(Arc::clone(&faults), 4);
        let random = |_| site.hit(Kind::FrameLost).map(|hit| hit.random);
        let first: Vec<_> = (0..50).map(random).collect();
        assert!(first.iter().flatten().count() > 5);
        faults.load(&text.parse().unwrap());
        assert_eq!(first, (0..50).map(random).collect::<Vec<_>>());
        // Another seed, another course.
        faults.load(&text.replace('7', "8").parse().unwrap());
        assert_ne!(first, (0..50).map(random).collect::<Vec<_>>());
        faults.load(&Plan::default());
        assert!(hits(&site, Kind::FrameLost, 50).is_empty());
        assert!(faults.report().is_empty());
    }

    #[test]
    fn events_count_in_their_time_only() {
        let faults = faults("stall from=3600s\nreset for=3600s\nlink-down from=0s for=0s");
        let site = Site::card(faults);
        assert!(hits(&site, Kind::Stall, 3).is_empty());
        assert_eq!(hits(&site, Kind::Reset, 3), [1, 2, 3]);
        assert!(hits(&site, Kind::LinkDown, 3).is_empty());
    }

    #[test]
    fn a_fault_that_is_over_cannot_come_to_pass() {
        let may = |site: &Site| site.may_now(&[Kind::Stall]);
        for (plan, last) in [("at=3", 3), ("every=2 count=2", 4), ("count=1", 1)] {
            let site = Site::queue(faults(&format!("stall {plan}")), 0);
            for n in 1..=last {
                assert!(may(&site), "{plan}");
                assert_eq!(
                    site.hit(Kind::Stall).is_some(),
                    n == last || plan.starts_with('e') && n == 2
                );
            }
            // Of the last one, something may still be on its way.
            assert!(may(&site), "{plan}");
            assert_eq!(site.hit(Kind::Stall), None);
            assert!(!may(&site) && site.may(&[Kind::Stall]), "{plan}");
        }
        // One that is left is enough.
        let site = Site::queue(faults("stall at=1\nstall rate=1/9"), 0);
        hits(&site, Kind::Stall, 2);
        assert!(may(&site));
        for (plan, now) in [
            ("from=3600s", false),
            ("for=3600s", true),
            ("for=0s", false),
        ] {
            assert_eq!(
                may(&Site::card(faults(&format!("stall {plan}")))),
                now,
                "{plan}"
            );
        }
    }

    #[test]
    fn what_began_ends_with_the_plan_and_with_its_time() {
        let faults = faults("stall for=10s\nreset");
        let site = Site::queue(Arc::clone(&faults), 0);
        let now = Instant::now();
        let lasts = |hit: &Hit| [5, 20].map(|s| site.lasts(hit, now + Duration::from_secs(s)));
        let hit = site.hit(Kind::Stall).unwrap();
        assert_eq!(lasts(&hit), [true, false]);
        assert_eq!(lasts(&site.hit(Kind::Reset).unwrap()), [true, true]);
        // The same once more is another plan.
        faults.load(&"stall for=10s".parse().unwrap());
        assert_eq!(lasts(&hit), [false, false]);
        assert_eq!(lasts(&site.hit(Kind::Stall).unwrap()), [true, false]);
        faults.load(&Plan::default());
        assert!(!site.lasts(&hit, now));
    }

    #[test]
    fn a_limit_holds_among_threads() {
        let faults = faults("reset count=100");
        let hits: usize = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let site = Site::card(Arc::clone(&faults));
                    s.spawn(move || hits(&site, Kind::Reset, 1000).len())
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(hits, 100);
    }
}
