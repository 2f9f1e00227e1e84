// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The endpoint.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_backend::{Capabilities, Endpoint, Error, Frame, Meta, Offloads, Queue, Rate, RxRing};

use crate::capture::{BadCapture, Capture};

/// Most queues. Only the first gets frames; the card spreads them.
const MAX_QUEUES: u16 = 64;
/// How much of a delay is made up for. With more, a guest that was stopped for a while would get all that was due
/// meanwhile at once.
const MOST_BEHIND: Duration = Duration::from_millis(50);

/// What is replayed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file.
    pub file: PathBuf,
    /// How fast.
    pub pace: Pace,
    /// Again and again, instead of once.
    pub again: bool,
}

/// How fast frames come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// With the pauses that they had.
    #[default]
    Original,
    /// Bits a second.
    Rate(Rate),
    /// As fast as the driver takes them.
    Full,
}

/// The endpoint.
pub struct Replay {
    capture: Arc<Capture>,
    pace: Pace,
    again: bool,
}

impl Replay {
    /// Reads the file.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let what = format!("cannot replay {}", config.file.display());
        let capture = Capture::load(&config.file).map_err(|error| match error {
            BadCapture::Io(source) => Error::Io { what, source },
            error => Error::Unsupported(format!("{what}: {error}")),
        })?;
        Ok(Self::new(capture, config.pace, config.again))
    }

    /// Replays what was read.
    pub fn new(capture: Capture, pace: Pace, again: bool) -> Self {
        Self {
            capture: Arc::new(capture),
            pace,
            again,
        }
    }
}

impl Endpoint for Replay {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            receive: Offloads::default(),
            max_queues: MAX_QUEUES,
            max_mtu: u16::MAX,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        Ok((0..queues)
            .map(|index| {
                Box::new(Player {
                    capture: (index == 0).then(|| Arc::clone(&self.capture)),
                    pace: self.pace,
                    again: self.again,
                    next: 0,
                    due: None,
                    started: None,
                    starved: false,
                }) as Box<dyn Queue>
            })
            .collect())
    }

    fn set_offloads(&mut self, _receive: Offloads) {}
}

struct Player {
    /// With the first queue.
    capture: Option<Arc<Capture>>,
    pace: Pace,
    again: bool,
    /// The frame that comes next.
    next: usize,
    /// When that is; `None`: nothing was received yet, or there are no more.
    due: Option<Instant>,
    /// When this round began.
    started: Option<Instant>,
    /// The driver had no room for it.
    starved: bool,
}

impl Player {
    /// What cannot be made up for comes later than it should, and all that follows as well.
    fn let_be(&mut self, now: Instant) {
        let behind = self.due.map_or(Duration::ZERO, |due| now - due);
        let delay = behind.saturating_sub(MOST_BEHIND);
        for time in [&mut self.due, &mut self.started].into_iter().flatten() {
            *time += delay;
        }
    }

    /// Goes on to the next frame after one that was due then.
    fn advance(&mut self, capture: &Capture, due: Instant) {
        let sent = capture.frame(self.next).map_or(0, |(bytes, _)| bytes.len());
        self.next += 1;
        let over = self.next >= capture.len();
        if over {
            self.next = 0;
        }
        self.due = match (over && !self.again, self.pace) {
            (true, _) => None,
            (_, Pace::Full) => Some(due),
            (_, Pace::Rate(rate)) => Some(due + rate.time(sent as u64)),
            // A round begins when the one before ends.
            (_, Pace::Original) if over => {
                self.started = Some(due);
                Some(due)
            }
            (_, Pace::Original) => {
                let time = capture.frame(self.next).map_or(Duration::ZERO, |f| f.1);
                Some(self.started.unwrap_or(due) + time)
            }
        };
    }
}

impl Queue for Player {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        batch.len()
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        let Some(capture) = self.capture.clone() else {
            return;
        };
        let now = Instant::now();
        if self.started.is_none() {
            (self.started, self.due) = (Some(now), Some(now));
        }
        self.starved = false;
        self.let_be(now);
        // The ring ends it: it lends no more than a batch.
        while let Some(due) = self.due.filter(|due| *due <= now) {
            let Some((frame, _)) = capture.frame(self.next) else {
                return;
            };
            let Some(room) = ring.room(frame.len()) else {
                self.starved = true;
                return;
            };
            let len = room.write(frame);
            ring.commit(len, Meta::default());
            self.advance(&capture, due);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.due.filter(|_| !self.starved)
    }

    fn has_frames(&self) -> bool {
        self.starved || self.due.is_some_and(|due| due <= Instant::now())
    }

    fn reset(&mut self) {
        (self.next, self.due, self.started) = (0, None, None);
        self.starved = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_backend::mock;

    /// Frames 0, 1 and 2, each 20 ms after the one before.
    fn file() -> Vec<u8> {
        let le = |numbers: [u32; 4]| numbers.map(u32::to_le_bytes).concat();
        let mut file = le([0xa1b2_c3d4, 0x0004_0002, 0, 0]);
        file.extend([65_535u32, 1].map(u32::to_le_bytes).concat());
        for n in 0..3 {
            file.extend(le([7, n * 20_000, 60, 60]));
            file.extend([n as u8; 60]);
        }
        file
    }

    fn player(pace: Pace, again: bool) -> Box<dyn Queue> {
        let capture = Capture::read(&file()[..]).unwrap();
        Replay::new(capture, pace, again).open(2).unwrap().remove(0)
    }

    fn receive(queue: &mut dyn Queue, most: usize) -> Vec<u8> {
        let frames = mock::receive(queue, most, 2000);
        frames.iter().map(|(bytes, _)| bytes[0]).collect()
    }

    #[test]
    fn frames_come_with_their_pauses_and_once() {
        let mut queue = player(Pace::Original, false);
        assert_eq!(queue.deadline(), None);
        let start = Instant::now();
        let mut got = receive(queue.as_mut(), 10);
        assert_eq!(got, [0]);
        while let Some(due) = queue.deadline() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            got.extend(receive(queue.as_mut(), 10));
        }
        assert_eq!(got, [0, 1, 2]);
        assert!(start.elapsed() >= Duration::from_millis(40));
        assert_eq!(receive(queue.as_mut(), 10).len(), 0);
        assert!(!queue.has_frames());
        // And once more after a reset.
        queue.reset();
        assert_eq!(receive(queue.as_mut(), 10), [0]);
    }

    #[test]
    fn at_full_speed_the_driver_sets_the_pace() {
        let mut queue = player(Pace::Full, true);
        assert_eq!(receive(queue.as_mut(), 7), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(queue.deadline(), None);
        assert!(queue.has_frames());
        assert_eq!(receive(queue.as_mut(), 2), [1, 2]);
        let mut once = player(Pace::Full, false);
        assert_eq!(receive(once.as_mut(), 2), [0, 1]);
        assert_eq!(receive(once.as_mut(), 9), [2]);
        assert!(!once.has_frames());
    }

    #[test]
    fn at_a_rate_frames_take_the_time_of_their_bytes() {
        // 60 bytes in 6 ms.
        let mut queue = player(Pace::Rate("80k".parse().unwrap()), true);
        let start = Instant::now();
        let mut got = Vec::new();
        while got.len() < 6 {
            got.extend(receive(queue.as_mut(), 10));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(start.elapsed() >= Duration::from_millis(30));
        assert_eq!(got[..6], [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_long_delay_is_not_made_up_for() {
        // The third frame is due 40 ms after the first.
        let mut original = player(Pace::Original, true);
        // 60 bytes in 6 ms.
        let mut rate = player(Pace::Rate("80k".parse().unwrap()), true);
        assert_eq!(receive(original.as_mut(), 1), [0]);
        assert_eq!(receive(rate.as_mut(), 1), [0]);
        std::thread::sleep(Duration::from_millis(1000));
        // Of 50 frames and of 160.
        assert!((2..7).contains(&receive(original.as_mut(), 1000).len()));
        assert!((8..12).contains(&receive(rate.as_mut(), 1000).len()));
    }

    #[test]
    fn a_file_that_is_none_is_named() {
        let config = Config {
            file: "/nonexistent/x.pcap".into(),
            pace: Pace::Full,
            again: false,
        };
        let error = Replay::open(&config).err().unwrap().to_string();
        assert!(error.starts_with("cannot replay /nonexistent/x.pcap: No such file"));
    }
}
