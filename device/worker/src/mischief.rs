// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Queues that stand still and interrupts that do not come as they should: see [`vnet_faults`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_contract::queue::{rx_index, tx_index, Error};
use vnet_faults::{Faults, Hit, Kind, Site};
use vnet_irq::Vector;
use vnet_queue::{Fault, Rx, RxFilter, Tx};

use crate::counters::Tally;

/// Time between looks whether the plan is over, while a queue stands still or an interrupt is late.
const PLAN_LOOK: Duration = Duration::from_millis(50);

/// What goes wrong in a pair.
#[derive(Debug)]
pub(crate) struct Mischief {
    pub(crate) rx: Lane,
    pub(crate) tx: Lane,
}

/// What goes wrong with one queue of it.
#[derive(Debug)]
pub(crate) struct Lane {
    site: Site,
    /// It stands still: for a while, or until it is started anew.
    still: Option<Spell>,
    /// An interrupt that is yet to be raised.
    late: Option<Spell>,
}

/// Something that a fault began. It is over when the plan is, or its time in that, if not before.
#[derive(Clone, Copy, Debug)]
struct Spell {
    hit: Hit,
    until: Option<Instant>,
}

impl Spell {
    fn lasts(&self, site: &Site, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until) && site.lasts(&self.hit, now)
    }

    /// When to ask that again.
    fn look(&self, now: Instant) -> Instant {
        let look = now + PLAN_LOOK;
        self.until.map_or(look, |until| look.min(until))
    }
}

/// Whether a queue is served in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// It is.
    Given,
    /// Not before this time, at which to ask again.
    Withheld(Instant),
    /// It stops with an error.
    Failed(Fault),
}

/// What becomes of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is raised.
    Raised,
    /// It is not.
    Lost,
}

impl Mischief {
    pub(crate) fn new(pair: u16, faults: &Arc<Faults>) -> Self {
        let lane = |queue| Lane::new(Site::queue(Arc::clone(faults), queue));
        Self {
            rx: lane(rx_index(pair)),
            tx: lane(tx_index(pair)),
        }
    }

    /// A receive queue begins.
    pub(crate) fn start_rx(&mut self, rx: &mut Rx) {
        self.rx.begin();
        rx.set_faults(self.rx.site.clone());
    }

    /// A transmit queue begins.
    pub(crate) fn start_tx(&mut self, tx: &mut Tx) {
        self.tx.begin();
        tx.set_faults(self.tx.site.clone());
    }

    /// The filter to receive by: that of the driver, unless frames are to get past it.
    pub(crate) fn filter(&self, filter: &RxFilter) -> Option<RxFilter> {
        self.rx
            .site
            .may_now(&[Kind::FrameOversized])
            .then(|| RxFilter {
                mtu: u16::MAX,
                ..filter.clone()
            })
    }
}

impl Lane {
    fn new(site: Site) -> Self {
        Self {
            site,
            still: None,
            late: None,
        }
    }

    fn begin(&mut self) {
        (self.still, self.late) = (None, None);
        self.site.begin();
    }

    /// Asked once a round about a queue that runs.
    pub(crate) fn service(&mut self, now: impl Fn() -> Instant) -> Service {
        self.still = match self.still {
            Some(spell) if spell.lasts(&self.site, now()) => Some(spell),
            _ => self.stands_still(&now),
        };
        if let Some(spell) = self.still {
            return Service::Withheld(spell.look(now()));
        }
        match self.site.hit(Kind::DmaError) {
            Some(hit) => Service::Failed(Fault::new(Error::BufferFault, hit.random as u8)),
            None => Service::Given,
        }
    }

    /// Asks whether it is to stand still from this round on.
    fn stands_still(&self, now: impl Fn() -> Instant) -> Option<Spell> {
        if let Some(hit) = self.site.hit(Kind::StopFetching) {
            return Some(Spell { hit, until: None });
        }
        let hit = self.site.hit(Kind::Stall)?;
        let until = Some(now() + hit.delay);
        Some(Spell { hit, until })
    }

    /// True while a queue stands still, without a new event.
    pub(crate) fn is_held(&self, now: impl Fn() -> Instant) -> bool {
        self.still
            .is_some_and(|spell| spell.lasts(&self.site, now()))
    }

    /// Asked when an interrupt is to be raised.
    pub(crate) fn interrupt(&mut self, now: impl Fn() -> Instant) -> Fate {
        if self.site.hit(Kind::LostInterrupt).is_some() {
            return Fate::Lost;
        }
        if let Some(hit) = self.site.hit(Kind::LateInterrupt) {
            self.later(hit, now());
            return Fate::Lost;
        }
        if let Some(hit) = self.site.hit(Kind::DuplicateInterrupt) {
            self.later(hit, now());
        }
        Fate::Raised
    }

    fn later(&mut self, hit: Hit, now: Instant) {
        let until = Some(now + hit.delay);
        // One at a time: a vector has no more to say.
        self.late.get_or_insert(Spell { hit, until });
    }

    /// Raises what is late or comes for nothing, once a round. Says when to ask again.
    pub(crate) fn raise_more(
        &mut self,
        vector: Option<&Arc<Vector>>,
        tally: &Tally,
        idle: bool,
        now: impl Fn() -> Instant,
    ) -> Option<Instant> {
        let is_due = |spell: Spell| !spell.lasts(&self.site, now());
        let due = self.late.is_some_and(is_due);
        let spurious = idle && self.site.hit(Kind::SpuriousInterrupt).is_some();
        if due {
            self.late = None;
        }
        if let (true, Some(vector)) = (due || spurious, vector) {
            vector.raise();
            tally.interrupt();
        }
        self.late.map(|spell| spell.look(now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_faults::Plan;

    const MS: Duration = Duration::from_millis(1);

    fn planned(plan: &str) -> (Lane, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        faults.load(&plan.parse().unwrap());
        (Mischief::new(0, &faults).rx, faults)
    }

    fn lane(plan: &str) -> Lane {
        planned(plan).0
    }

    #[test]
    fn a_stall_ends_by_itself() {
        let start = Instant::now();
        let mut lane = lane("stall at=2 delay=5ms");
        let mut service = |at: u32| lane.service(|| start + at * MS);
        let held = Service::Withheld(start + 5 * MS);
        assert_eq!(service(0), Service::Given);
        assert_eq!((service(0), service(4)), (held, held));
        assert_eq!((service(5), service(6)), (Service::Given, Service::Given));
    }

    #[test]
    fn a_dead_queue_lives_again_when_it_is_started_or_the_plan_ends() {
        let start = Instant::now();
        let (mut lane, faults) = planned("stop-fetching count=2");
        let held = Service::Withheld(start + PLAN_LOOK);
        for _ in 0..3 {
            assert_eq!(lane.service(|| start), held);
        }
        assert!(lane.is_held(|| start));
        lane.begin();
        assert!(!lane.is_held(|| start));
        assert_eq!(lane.service(|| start), held, "twice");
        lane.begin();
        assert_eq!(lane.service(|| start), Service::Given);

        faults.load(&"stop-fetching".parse().unwrap());
        assert_eq!(lane.service(|| start), held);
        faults.load(&Plan::default());
        assert_eq!(lane.service(|| start), Service::Given);
    }

    #[test]
    fn what_takes_long_ends_with_the_plan_and_with_its_time() {
        let start = Instant::now();
        let after = |seconds: u64| move || start + Duration::from_secs(seconds);
        let held = |seconds| Service::Withheld(after(seconds)() + PLAN_LOOK);
        for (plan, ends) in [
            ("stop-fetching for=10s", true),
            ("stall delay=60s for=10s", true),
            ("stall delay=60s", false),
        ] {
            let (mut lane, faults) = planned(plan);
            assert_eq!(lane.service(after(0)), held(0), "{plan}");
            assert_eq!(lane.service(after(5)), held(5), "{plan}");
            assert_eq!(!lane.is_held(after(20)), ends, "{plan}");
            faults.load(&"stop-fetching at=9".parse().unwrap());
            assert!(!lane.is_held(after(6)), "{plan}");
            assert_eq!(lane.service(after(6)), Service::Given, "{plan}");
        }
        let (mut lane, faults) = planned("late-interrupt delay=60s");
        let vector = Arc::new(Vector::default());
        assert_eq!(lane.interrupt(after(0)), Fate::Lost);
        let look = lane.raise_more(Some(&vector), &Tally::default(), false, after(5));
        assert_eq!((vector.raised(), look), (0, Some(after(5)() + PLAN_LOOK)));
        faults.load(&Plan::default());
        assert_eq!(
            lane.raise_more(Some(&vector), &Tally::default(), false, after(6)),
            None
        );
        assert_eq!(vector.raised(), 1);
    }

    #[test]
    fn a_dma_error_is_a_fault_of_the_queue() {
        let mut lane = lane("dma-error at=1");
        let Service::Failed(fault) = lane.service(Instant::now) else {
            panic!("no fault");
        };
        assert_eq!(fault.error, Error::BufferFault);
        assert_eq!(lane.service(Instant::now), Service::Given);
    }

    #[test]
    fn interrupts_are_lost_late_doubled_and_made_up() {
        let start = Instant::now();
        let vector = Arc::new(Vector::default());
        let tally = Tally::default();
        let more = |lane: &mut Lane, idle, at: u32| {
            let before = vector.raised();
            let next = lane.raise_more(Some(&vector), &tally, idle, || start + at * MS);
            assert_eq!(tally.read().interrupts, vector.raised());
            (vector.raised() - before, next)
        };

        let mut lost = lane("lost-interrupt every=2");
        let fates = [(); 4].map(|()| lost.interrupt(|| start));
        assert_eq!(fates, [Fate::Raised, Fate::Lost, Fate::Raised, Fate::Lost]);
        assert_eq!(more(&mut lost, true, 9), (0, None));

        let soon = Some(start + 3 * MS);
        let mut late = lane("late-interrupt at=1 delay=3ms");
        assert_eq!(late.interrupt(|| start), Fate::Lost);
        assert_eq!(more(&mut late, true, 2), (0, soon));
        assert_eq!(more(&mut late, true, 3), (1, None));
        assert_eq!(more(&mut late, true, 4), (0, None));
        assert_eq!(late.interrupt(|| start), Fate::Raised);

        let mut twice = lane("duplicate-interrupt delay=3ms");
        assert_eq!(twice.interrupt(|| start), Fate::Raised);
        assert_eq!(more(&mut twice, false, 0), (0, soon));
        assert_eq!(more(&mut twice, false, 3), (1, None));

        let mut spurious = lane("spurious-interrupt every=2");
        assert_eq!(more(&mut spurious, true, 0), (0, None));
        assert_eq!(
            more(&mut spurious, false, 0),
            (0, None),
            "one is due anyway"
        );
        assert_eq!(more(&mut spurious, true, 0), (1, None));
    }

    #[test]
    fn only_oversized_frames_get_past_the_filter() {
        let filter = RxFilter {
            mtu: 1500,
            ..RxFilter::default()
        };
        for (plan, mtu) in [
            ("stall", None),
            ("frame-oversized queue=tx", None),
            ("frame-oversized", Some(u16::MAX)),
            ("frame-oversized from=3600s", None),
        ] {
            let faults = Arc::new(Faults::default());
            faults.load(&plan.parse().unwrap());
            let lax = Mischief::new(0, &faults).filter(&filter);
            assert_eq!(lax.map(|f| f.mtu), mtu, "{plan}");
        }
    }
}
