// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Interrupts that wait for company.

use std::time::{Duration, Instant};

use vnet_queue::Due;

/// How long the interrupts of a queue wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moderation {
    /// Microseconds that an interrupt waits; 0: it does not.
    pub usecs: u16,
    /// Used entries that end the wait, the one that the driver asked about included; 0: no such
    /// limit.
    pub frames: u16,
}

/// What to do about the interrupt of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// None is due.
    Idle,
    /// It is to be judged again, at this time if nothing happens before.
    Wait(Instant),
    /// It is to be raised.
    Fire,
}

/// The wait of one queue's interrupt.
#[derive(Debug, Default)]
pub(crate) struct Moderator {
    waiting: Option<Waiting>,
}

/// An interrupt that waits, under the settings that held when it came due.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The driver's event index. A driver that has moved it has looked at the ring meanwhile, and
    /// asks for another interrupt.
    event: u16,
    until: Instant,
    frames: u16,
}

impl Moderator {
    /// Judges what is due. `now` is asked only if it matters: most queues wait for nothing.
    pub(crate) fn judge(
        &mut self,
        due: Option<Due>,
        settings: Moderation,
        now: impl FnOnce() -> Instant,
    ) -> Verdict {
        let Some(due) = due else {
            self.waiting = None;
            return Verdict::Idle;
        };
        let known = self.waiting.filter(|w| w.event == due.event);
        if known.is_none() && settings.usecs == 0 {
            self.waiting = None;
            return Verdict::Fire;
        }
        let now = now();
        let waiting = known.unwrap_or(Waiting {
            event: due.event,
            until: now + Duration::from_micros(settings.usecs.into()),
            frames: settings.frames,
        });
        if waiting.until <= now || (1..=due.entries).contains(&waiting.frames) {
            self.waiting = None;
            return Verdict::Fire;
        }
        self.waiting = Some(waiting);
        Verdict::Wait(waiting.until)
    }

    /// Another interrupt was raised that serves for this one.
    pub(crate) fn served(&mut self) {
        self.waiting = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn without_a_time_nothing_waits() {
        let mut m = Moderator::default();
        let due = Some(Due {
            event: 7,
            entries: 1,
        });
        for frames in [0, 1, 100] {
            let settings = Moderation { usecs: 0, frames };
            let verdict = m.judge(due, settings, || unreachable!("the clock does not matter"));
            assert_eq!(verdict, Verdict::Fire);
        }
        let verdict = m.judge(None, Moderation::default(), Instant::now);
        assert_eq!(verdict, Verdict::Idle);
    }

    #[test]
    fn settings_hold_for_what_comes_due_after_them() {
        let mut m = Moderator::default();
        let start = Instant::now();
        let due = |event, entries| Some(Due { event, entries });
        let slow = Moderation {
            usecs: 100,
            frames: 0,
        };
        let at_once = Moderation::default();
        let until = Verdict::Wait(start + us(100));
        assert_eq!(m.judge(due(7, 1), slow, || start), until);
        assert_eq!(m.judge(due(7, 9), at_once, || start + us(99)), until);
        // The driver polled, and asks for the next.
        assert_eq!(m.judge(due(16, 1), at_once, || start), Verdict::Fire);
    }

    proptest! {
        /// Against a model that remembers when each interrupt came due: it is raised at the
        /// first look that finds its time passed or its frames there, and not before.
        #[test]
        fn an_interrupt_waits_for_its_time_or_its_frames(
            usecs in 1..200u16,
            frames in 0..12u16,
            steps in prop::collection::vec((0..60u64, 0..6u16, any::<bool>()), 1..60),
        ) {
            let settings = Moderation { usecs, frames };
            let mut m = Moderator::default();
            let (mut now, mut used) = (Instant::now(), 0u16);
            // The driver's event index, and when its entry was seen.
            let (mut event, mut came) = (0u16, None);
            for (pause, count, polls) in steps {
                now += us(pause);
                used += count;
                if polls && event < used {
                    (event, came) = (used, None);
                }
                let due = (event < used).then(|| Due { event, entries: used - event });
                let verdict = m.judge(due, settings, || now);
                let Some(due) = due else {
                    prop_assert_eq!(verdict, Verdict::Idle);
                    continue;
                };
                let until = *came.get_or_insert(now) + us(usecs.into());
                let enough = frames != 0 && due.entries >= frames;
                if enough || until <= now {
                    prop_assert_eq!(verdict, Verdict::Fire);
                    // The driver polls.
                    (event, came) = (used, None);
                } else {
                    prop_assert_eq!(verdict, Verdict::Wait(until));
                }
            }
        }
    }
}
