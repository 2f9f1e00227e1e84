// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames on their way from one pair to another.
//!
//! They travel as parcels, one for all frames that a round of one pair found for another. So two
//! threads meet once a round, not once a frame, and one allocation serves a batch.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;

use vnet_backend::{Frame, Meta};
use vnet_contract::hdr::FlowHash;
use vnet_queue::Handed;

/// Most bytes that wait for a pair before further parcels are dropped, where each frame counts for
/// [`FRAME_COST`] more than it has. Each sender may go over it by one parcel. That is 30 frames of
/// 64 KiB, 800 of the usual size or 1900 of the shortest.
const MAX_LOAD: usize = 2 << 20;
/// What a frame counts for beside its bytes, so that the shortest do not wait by the thousand.
const FRAME_COST: usize = 1024;
/// Most parcels that wait for a pair.
const MAX_PARCELS: usize = 256;

/// Frames for one pair, in order.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    bytes: Vec<u8>,
    frames: Vec<Record>,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    len: usize,
    meta: Meta,
    hash: FlowHash,
}

impl Parcel {
    /// Adds a copy of a frame.
    pub(crate) fn add(&mut self, frame: &Frame<'_>, hash: FlowHash) {
        let at = self.bytes.len();
        self.bytes.resize(at + frame.len, 0);
        let len = frame.read(&mut self.bytes[at..]);
        self.bytes.truncate(at + len);
        self.frames.push(Record {
            len,
            meta: frame.meta,
            hash,
        });
    }

    /// Number of frames.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    fn load(&self) -> usize {
        self.bytes.len() + self.frames.len() * FRAME_COST
    }
}

/// Where other pairs put parcels for a pair. Never waits.
#[derive(Debug)]
pub(crate) struct Slit {
    parcels: SyncSender<Parcel>,
    load: Arc<AtomicUsize>,
}

impl Slit {
    /// Sends a parcel. Gives it back if the pair has too much to do already.
    pub(crate) fn send(&self, parcel: Parcel) -> Result<(), Parcel> {
        let load = parcel.load();
        // Relaxed: a count and no more. What is in the parcel is ordered by the channel.
        if self.load.load(Ordering::Relaxed) >= MAX_LOAD {
            return Err(parcel);
        }
        self.load.fetch_add(load, Ordering::Relaxed);
        self.parcels.try_send(parcel).map_err(|refused| {
            self.load.fetch_sub(load, Ordering::Relaxed);
            use std::sync::mpsc::TrySendError::{Disconnected, Full};
            match refused {
                Full(parcel) | Disconnected(parcel) => parcel,
            }
        })
    }
}

/// The parcels that wait for a pair.
#[derive(Debug)]
pub(crate) struct Inbox {
    parcels: Receiver<Parcel>,
    load: Arc<AtomicUsize>,
    /// The parcel that is being unpacked: frames from `next` on are left, their bytes from `at` on.
    open: Parcel,
    next: usize,
    at: usize,
}

/// An empty inbox, and its slit.
pub(crate) fn inbox() -> (Slit, Inbox) {
    let (sender, receiver) = sync_channel(MAX_PARCELS);
    let load = Arc::new(AtomicUsize::new(0));
    let slit = Slit {
        parcels: sender,
        load: Arc::clone(&load),
    };
    let inbox = Inbox {
        parcels: receiver,
        load,
        open: Parcel::default(),
        next: 0,
        at: 0,
    };
    (slit, inbox)
}

impl Inbox {
    /// True if a frame waits. A parcel that another thread is about to add may not be seen; who
    /// adds one sees to it that the pair is served once more.
    pub(crate) fn has_frames(&mut self) -> bool {
        self.front().is_some()
    }

    /// Throws everything away that is there now, and returns how many frames it was.
    pub(crate) fn discard(&mut self) -> u64 {
        let mut count = 0;
        // Bounded, though others may go on sending.
        for _ in 0..=MAX_PARCELS {
            count += (self.open.len() - self.next) as u64;
            if !self.unpack() {
                break;
            }
        }
        count
    }

    /// Opens the next parcel, in place of the one that is open.
    fn unpack(&mut self) -> bool {
        let done = self.open.load();
        // An empty inbox is looked at every round, and must not cost a shared cache line.
        if done > 0 {
            self.load.fetch_sub(done, Ordering::Relaxed);
        }
        (self.next, self.at) = (0, 0);
        let next = self.parcels.try_recv();
        let found = next.is_ok();
        self.open = next.unwrap_or_default();
        found
    }
}

impl Handed for Inbox {
    fn front(&mut self) -> Option<(&[u8], Meta, FlowHash)> {
        if self.next == self.open.len() {
            // No parcel is empty.
            self.unpack();
        }
        let record = self.open.frames.get(self.next)?;
        let bytes = self.open.bytes.get(self.at..self.at + record.len)?;
        Some((bytes, record.meta, record.hash))
    }

    fn pop(&mut self) {
        if let Some(record) = self.open.frames.get(self.next) {
            self.at += record.len;
            self.next += 1;
        }
    }
}

/// What a round found for other pairs.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// By pair.
    parcels: Vec<Parcel>,
}

impl Outbox {
    /// Puts a copy of a frame into the parcel for a pair.
    pub(crate) fn add(&mut self, pair: u16, frame: &Frame<'_>, hash: FlowHash) {
        let pair = usize::from(pair);
        if self.parcels.len() <= pair {
            self.parcels.resize_with(pair + 1, Parcel::default);
        }
        self.parcels[pair].add(frame, hash);
    }

    /// Takes the parcels out, each with its pair.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (usize, Parcel)> + '_ {
        let parcels = self.parcels.iter_mut().enumerate();
        parcels
            .filter(|(_, parcel)| parcel.len() > 0)
            .map(|(pair, parcel)| (pair, mem::take(parcel)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicBool;
    use vm_memory::VolatileSlice;

    fn add(parcel: &mut Parcel, bytes: &mut [u8], value: u32) {
        let len = bytes.len();
        let hash = FlowHash { value, report: 1 };
        let frame = Frame {
            meta: Meta::default(),
            len,
            parts: &[VolatileSlice::from(bytes)],
        };
        parcel.add(&frame, hash);
    }

    fn parcel(frames: &[(usize, u32)]) -> Parcel {
        let mut parcel = Parcel::default();
        for &(len, value) in frames {
            add(&mut parcel, &mut vec![value as u8; len], value);
        }
        parcel
    }

    fn take(inbox: &mut Inbox) -> Option<(usize, u32)> {
        let (bytes, _, hash) = inbox.front()?;
        assert!(bytes.iter().all(|&b| b == hash.value as u8));
        let taken = (bytes.len(), hash.value);
        inbox.pop();
        Some(taken)
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let (slit, mut inbox) = inbox();
        assert!(!inbox.has_frames());
        slit.send(parcel(&[(60, 1), (1514, 2)])).unwrap();
        slit.send(parcel(&[(65_553, 3)])).unwrap();
        assert_eq!(take(&mut inbox), Some((60, 1)));
        slit.send(parcel(&[(14, 4)])).unwrap();
        for expected in [(1514, 2), (65_553, 3), (14, 4)] {
            assert_eq!(take(&mut inbox), Some(expected));
        }
        assert_eq!(take(&mut inbox), None);
        inbox.pop();
        assert_eq!(take(&mut inbox), None);
        assert_eq!(slit.load.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn is_bounded_in_bytes_frames_and_parcels() {
        // Fills an inbox with parcels of a kind; returns how many frames it took.
        let fill = |frames: &[(usize, u32)]| {
            let (slit, mut inbox) = inbox();
            let mut taken = 0;
            while slit.send(parcel(frames)).is_ok() {
                taken += frames.len();
            }
            assert_eq!(inbox.discard(), taken as u64);
            assert_eq!(slit.load.load(Ordering::Relaxed), 0);
            // As good as new.
            slit.send(parcel(frames)).unwrap();
            assert_eq!(take(&mut inbox), Some(frames[0]));
            taken
        };
        assert_eq!(fill(&[(60, 1)]), MAX_PARCELS);
        assert!((1900..2000).contains(&fill(&[(60, 1); 10])));
        assert!((30..34).contains(&fill(&[(65_553, 1)])));
    }

    #[test]
    fn what_was_begun_is_discarded_too() {
        let (slit, mut inbox) = inbox();
        slit.send(parcel(&[(60, 1), (61, 2), (62, 3)])).unwrap();
        slit.send(parcel(&[(63, 4)])).unwrap();
        assert_eq!(take(&mut inbox), Some((60, 1)));
        assert_eq!(inbox.discard(), 3);
        assert_eq!(take(&mut inbox), None);
        slit.send(parcel(&[(64, 5)])).unwrap();
        assert_eq!(take(&mut inbox), Some((64, 5)));
    }

    #[test]
    fn a_round_makes_one_parcel_for_each_pair() {
        let mut outbox = Outbox::default();
        let mut bytes = [7; 60];
        for pair in [5, 0, 5, 15] {
            let frame = Frame {
                meta: Meta::default(),
                len: 60,
                parts: &[VolatileSlice::from(&mut bytes[..])],
            };
            outbox.add(pair, &frame, FlowHash::default());
        }
        let sizes: Vec<_> = outbox.take().map(|(pair, p)| (pair, p.len())).collect();
        assert_eq!(sizes, [(0, 1), (5, 2), (15, 1)]);
        assert_eq!(outbox.take().count(), 0);
    }

    /// Many senders, each with its own sequence, and one who takes them: nothing is lost that was
    /// not refused, nothing comes twice, and what one sender sent stays in order.
    #[test]
    fn many_senders() {
        const SENDERS: u32 = 4;
        const PARCELS: u32 = 5_000;
        let (slit, mut inbox) = inbox();
        let done = AtomicBool::new(false);
        let (sent, got) = std::thread::scope(|s| {
            let senders: Vec<_> = (0..SENDERS)
                .map(|sender| {
                    let slit = &slit;
                    s.spawn(move || {
                        let mut accepted = VecDeque::new();
                        for n in 0..PARCELS {
                            let value = sender << 24 | n;
                            let len = 14 + (n as usize * 7919) % 3000;
                            if slit.send(parcel(&[(len, value), (15, value)])).is_ok() {
                                accepted.push_back((len, value));
                                accepted.push_back((15, value));
                            } else {
                                std::thread::yield_now();
                            }
                        }
                        accepted
                    })
                })
                .collect();
            let done = &done;
            let taker = s.spawn(move || {
                let mut got = Vec::new();
                loop {
                    let last = done.load(Ordering::Acquire);
                    got.extend(std::iter::from_fn(|| take(&mut inbox)));
                    if last {
                        return got;
                    }
                }
            });
            let sent: Vec<_> = senders.into_iter().map(|s| s.join().unwrap()).collect();
            done.store(true, Ordering::Release);
            (sent, taker.join().unwrap())
        });
        let mut left = sent;
        for frame in got {
            let sender = (frame.1 >> 24) as usize;
            assert_eq!(left[sender].pop_front(), Some(frame));
        }
        assert!(left.iter().all(VecDeque::is_empty));
        assert_eq!(slit.load.load(Ordering::Relaxed), 0);
    }
}
