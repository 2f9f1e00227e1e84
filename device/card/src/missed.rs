// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames that were lost behind the card while its queues ran, since none of them took the frames in
//! time, and of which only the endpoint as a whole knows. They count for the first pair.

use std::time::{Duration, Instant};

use vnet_contract::queue::rx_index;
use vnet_state::records::{Fields, Writer};

/// The queue that they count for.
pub(crate) const MISSED_BY: u16 = rx_index(0);

/// What was told so lately is told again. To look can take an endpoint a millisecond, and a driver may ask as
/// often as it likes. Where a queue starts or stops, the endpoint is looked at in any case: what it
/// counted before the one and after the other is not the driver's.
pub(crate) const FRESH: Duration = Duration::from_millis(10);

/// The part of the endpoint's count that is the driver's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missed {
    /// Before the queue was last started, or the endpoint exchanged.
    before: u64,
    /// What the endpoint had counted then; `None` while the queue does not run.
    since: Option<u64>,
    /// When the endpoint was last looked at for the driver.
    looked: Option<Instant>,
}

impl Missed {
    /// The queue is started, or goes on. Nobody has missed what came before.
    pub(crate) fn start(&mut self, counted: u64) {
        self.since.get_or_insert(counted);
    }

    /// The queue has stopped.
    pub(crate) fn stop(&mut self, counted: u64) {
        self.before = self.count(counted);
        self.since = None;
    }

    /// Another endpoint counts from now on.
    pub(crate) fn exchange(&mut self, old: u64, new: u64) {
        self.before = self.count(old);
        self.since = self.since.map(|_| new);
    }

    /// Frames that the driver has missed, when the endpoint has counted so many.
    pub(crate) fn count(&self, counted: u64) -> u64 {
        // What an interface has counted is not seen where it is in another network namespace.
        let more = self.since.map_or(0, |since| counted.saturating_sub(since));
        self.before.wrapping_add(more)
    }

    /// The same, for the driver, which asks now; true if that is more than was known. The next process may not
    /// see what the endpoint has counted, and is not to tell less.
    pub(crate) fn tell(&mut self, now: Instant, look: impl FnOnce() -> u64) -> (u64, bool) {
        let known = self.before;
        if self.looked.is_none_or(|at| at + FRESH <= now) {
            self.looked = Some(now);
            let counted = look();
            self.before = self.count(counted);
            self.since = self.since.map(|since| since.max(counted));
        }
        (self.before, self.before != known)
    }

    pub(crate) fn save(&self, to: &mut Writer) {
        to.u64(self.before)
            .bool(self.since.is_some())
            .u64(self.since.unwrap_or(0));
    }

    pub(crate) fn load(from: &mut Fields<'_>) -> Self {
        let (before, running, since) = (from.u64(), from.bool(), from.u64());
        Self {
            before,
            since: running.then_some(since),
            looked: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_state::records::Reader;

    #[test]
    fn what_is_lost_while_the_queue_runs_counts() {
        let mut missed = Missed::default();
        assert_eq!(missed.count(7), 0);
        missed.start(10);
        missed.start(12);
        assert_eq!(missed.count(10), 0);
        assert_eq!(missed.count(15), 5);
        missed.stop(16);
        assert_eq!(missed.count(90), 6);
        missed.stop(91);
        missed.start(100);
        assert_eq!(missed.count(103), 9);
        assert_eq!(missed.count(0), 6);
    }

    #[test]
    fn the_endpoint_is_looked_at_now_and_then_and_where_the_queue_starts_and_stops() {
        let mut missed = Missed::default();
        let now = Instant::now();
        missed.start(10);
        assert_eq!(missed.tell(now, || 15), (5, true));
        assert_eq!(missed.tell(now + FRESH / 2, || unreachable!()), (5, false));
        missed.stop(17);
        missed.start(1000);
        assert_eq!(missed.tell(now + FRESH / 2, || unreachable!()), (7, false));
        assert_eq!(missed.tell(now + FRESH, || 1000), (7, false));
        assert_eq!(missed.tell(now + 2 * FRESH, || 1001), (8, true));
        // The next process sees nothing.
        assert_eq!(missed.tell(now + 3 * FRESH, || 0), (8, false));
        assert_eq!(missed.tell(now + 4 * FRESH, || 1003), (10, true));
    }

    #[test]
    fn another_endpoint_goes_on_from_there() {
        let mut missed = Missed::default();
        missed.exchange(5, 50);
        assert_eq!(missed.count(70), 0);
        missed.start(70);
        missed.exchange(72, 1000);
        assert_eq!(missed.count(1000), 2);
        assert_eq!(missed.count(1001), 3);
        missed.exchange(1001, 0);
        assert_eq!(missed.count(4), 7);
    }

    #[test]
    fn another_process_goes_on_from_there() {
        let mut running = Missed::default();
        running.start(3);
        running.exchange(5, 0);
        let mut stopped = running;
        stopped.stop(1);
        for missed in [running, stopped] {
            let mut to = Writer::new();
            missed.save(to.record(1));
            let bytes = to.finish();
            let (_, mut fields) = Reader::new(&bytes).unwrap().next().unwrap();
            assert_eq!(Missed::load(&mut fields), missed);
        }
    }
}
