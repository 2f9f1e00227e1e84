// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames under way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vnet_backend::{Fifo, Frame, Meta, MAX_FRAME};

use crate::chance::{Chance, Fate};
use crate::config::Lane;
use crate::shaped::Tally;

/// Most frames that are under way.
const MAX_FRAMES: usize = 8192;
/// The same in bytes: 130 ms of a gigabit a second.
const MAX_BYTES: usize = 16 << 20;

/// When the line is free for the next frame: shared by the queues of a card.
pub(crate) type Clock = Arc<Mutex<Option<Instant>>>;

/// One direction of a queue.
#[derive(Debug)]
pub(crate) struct Line {
    lane: Lane,
    chance: Chance,
    free: Clock,
    frames: Fifo,
    /// When each of the frames arrives; never before the one that went ahead of it.
    due: VecDeque<Instant>,
    /// One that the next is to overtake.
    held: Option<(Vec<u8>, Meta)>,
    tally: Arc<Tally>,
}

impl Line {
    pub(crate) fn new(lane: Lane, chance: Chance, free: Clock, tally: Arc<Tally>) -> Self {
        Self {
            lane,
            chance,
            free,
            frames: Fifo::new(MAX_FRAMES, MAX_BYTES),
            due: VecDeque::with_capacity(MAX_FRAMES),
            held: None,
            tally,
        }
    }

    /// True if the next frame will be taken, whatever becomes of it.
    pub(crate) fn has_room(&self) -> bool {
        // It may come twice, and with one that was held.
        self.frames.len() + 3 <= MAX_FRAMES && self.frames.has_room(3 * MAX_FRAME)
    }

    /// Takes a frame. Only if there is room.
    pub(crate) fn put(&mut self, frame: &Frame<'_>, now: Instant) {
        let fate = self.chance.next(&self.lane);
        self.tally.seen(frame.len);
        if fate.lost {
            self.tally.lost();
            return;
        }
        if fate.late && self.held.is_none() {
            let mut bytes = vec![0; frame.len];
            frame.read(&mut bytes);
            self.held = Some((bytes, frame.meta));
            self.tally.late();
            return;
        }
        self.add(frame.len, frame.meta, &fate, now, |bytes| {
            frame.read(bytes);
        });
        if fate.twice {
            self.tally.twice();
            self.add(frame.len, frame.meta, &fate, now, |bytes| {
                frame.read(bytes);
            });
        }
        if let Some((held, meta)) = self.held.take() {
            self.add(held.len(), meta, &fate, now, |bytes| {
                bytes.copy_from_slice(&held);
            });
        }
    }

    fn add(
        &mut self,
        len: usize,
        meta: Meta,
        fate: &Fate,
        now: Instant,
        fill: impl FnOnce(&mut [u8]),
    ) {
        if !self.frames.push(len, meta, fill) {
            return;
        }
        let sent = match self.lane.rate {
            None => now,
            Some(rate) => {
                let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
                let start = free.map_or(now, |free| free.max(now));
                *free.insert(start + rate.time(len as u64))
            }
        };
        let jitter = self.lane.jitter.as_nanos() as u64;
        // From none of it to twice of it.
        let part = (u128::from(fate.jitter) * u128::from(2 * jitter)) >> 32;
        let earliest = self.lane.delay.saturating_sub(self.lane.jitter);
        let arrives = sent + earliest + Duration::from_nanos(part as u64);
        let last = self.due.back().copied();
        self.due
            .push_back(last.map_or(arrives, |last| last.max(arrives)));
    }

    /// When the next frame arrives.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.front().copied()
    }

    /// The frame that has arrived.
    pub(crate) fn front(&mut self, now: Instant) -> Option<(&mut [u8], Meta)> {
        match self.due() {
            Some(due) if due <= now => self.frames.front(),
            _ => None,
        }
    }

    /// Removes it.
    pub(crate) fn pop(&mut self) {
        self.frames.pop();
        self.due.pop_front();
    }

    /// Forgets all frames, and counts from the first one again.
    pub(crate) fn reset(&mut self) {
        self.frames.clear();
        self.due.clear();
        self.held = None;
        self.chance.restart();
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::VolatileSlice;

    const LANE: Lane = Lane {
        rate: None,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: 0,
        duplicate: 0,
        reorder: 0,
    };

    fn line(lane: Lane) -> Line {
        Line::new(lane, Chance::new(1, 2), Clock::default(), Arc::default())
    }

    fn put(line: &mut Line, len: usize, number: u8, now: Instant) {
        let mut bytes = vec![number; len];
        let parts = [VolatileSlice::from(&mut bytes[..])];
        let frame = Frame {
            meta: Meta::default(),
            len,
            parts: &parts,
        };
        assert!(line.has_room());
        line.put(&frame, now);
    }

    /// The frames that have arrived, by number.
    fn take(line: &mut Line, now: Instant) -> Vec<u8> {
        let mut got = Vec::new();
        while let Some((frame, _)) = line.front(now) {
            got.push(frame[0]);
            line.pop();
        }
        got
    }

    #[test]
    fn frames_take_the_time_of_their_bytes_and_then_the_delay() {
        let delay = Duration::from_millis(10);
        let mut line = line(Lane {
            rate: "8M".parse().ok(),
            delay,
            ..LANE
        });
        let now = Instant::now();
        let ms = Duration::from_millis(1);
        put(&mut line, 1000, 1, now);
        put(&mut line, 2000, 2, now);
        assert_eq!(line.due(), Some(now + ms + delay));
        assert_eq!(take(&mut line, now + delay).len(), 0);
        assert_eq!(take(&mut line, now + delay + ms), [1]);
        assert_eq!(line.due(), Some(now + 3 * ms + delay));
        assert_eq!(take(&mut line, now + delay + 3 * ms), [2]);
        // A line that was idle saves nothing up.
        put(&mut line, 1000, 3, now + 100 * ms);
        assert_eq!(line.due(), Some(now + 101 * ms + delay));
    }

    #[test]
    fn jitter_is_within_its_bounds_and_keeps_the_order() {
        let (delay, jitter) = (Duration::from_millis(10), Duration::from_millis(4));
        let mut line = line(Lane {
            delay,
            jitter,
            ..LANE
        });
        let start = Instant::now();
        let mut before = start;
        let (mut shortest, mut longest) = (delay, delay);
        for n in 0..200u64 {
            // Far enough from each other not to be held up by the one before.
            let now = start + Duration::from_secs(n);
            put(&mut line, 60, n as u8, now);
            let due = line.due().unwrap();
            assert!(due >= before);
            before = due;
            shortest = shortest.min(due - now);
            longest = longest.max(due - now);
            assert_eq!(take(&mut line, due), [n as u8]);
        }
        assert!(shortest >= delay - jitter && shortest < delay - jitter / 2);
        assert!(longest <= delay + jitter && longest > delay + jitter / 2);
        // All at once: in order, whatever the jitter.
        for n in 0..200 {
            put(&mut line, 60, n, before);
        }
        let got = take(&mut line, before + delay + jitter);
        assert_eq!(got, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn frames_are_doubled_lost_and_overtaken() {
        let now = Instant::now();
        let run = |lane| {
            let mut line = line(lane);
            (0..200).for_each(|n| put(&mut line, 60, n, now));
            take(&mut line, now)
        };
        let all = WHOLE_SHARE;
        assert_eq!(run(Lane { loss: all, ..LANE }).len(), 0);
        let twice = run(Lane {
            duplicate: all,
            ..LANE
        });
        assert_eq!(twice, (0..200).flat_map(|n| [n, n]).collect::<Vec<_>>());
        let swapped = run(Lane {
            reorder: all,
            ..LANE
        });
        let pairs = (0..100).flat_map(|n| [2 * n + 1, 2 * n]);
        assert_eq!(swapped, pairs.collect::<Vec<_>>());
        let some = run(Lane {
            loss: all / 4,
            ..LANE
        });
        assert!((120..180).contains(&some.len()));
        assert_eq!(
            some,
            run(Lane {
                loss: all / 4,
                ..LANE
            })
        );
    }
    const WHOLE_SHARE: u32 = crate::config::WHOLE;

    #[test]
    fn a_full_line_takes_no_more_and_a_reset_empties_it() {
        let now = Instant::now();
        let mut line = line(Lane {
            delay: Duration::from_secs(1),
            ..LANE
        });
        for len in [60, MAX_FRAME] {
            let mut count = 0;
            while line.has_room() {
                put(&mut line, len, 0, now);
                count += 1;
            }
            let bound = (MAX_FRAMES - 2).min(MAX_BYTES / len);
            assert!(count <= bound && count >= bound - 4, "{count} {bound}");
            line.reset();
            assert!(line.due().is_none());
        }
    }
}
