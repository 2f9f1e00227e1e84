// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The thread that writes the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vnet_contract::hdr::HASH_NONE;
use vnet_contract::queue::{kind, Kind};

use crate::capture::{Config, End, Progress};
use crate::comment::Words;
use crate::event::Event;
use crate::parcel::{Parcel, Record};
use crate::pcapng::{Blocks, Interface, Origin, Packet, Statistics, ETHERNET, USER0};
use crate::queue_name;
use crate::rotate::Rotation;
use crate::spool::{Item, Shared, QUEUES};
use crate::time::{epoch, now};

/// Bytes that are written at a time, when there is more to come.
const CHUNK: usize = 256 * 1024;
/// How often the thread looks up when nothing comes.
const PERIOD: Duration = Duration::from_millis(100);
/// Nanoseconds for which frames wait for others that passed before them: those of a batch come when its
/// interrupt is raised, which is sooner for one queue than for another.
const HOLD: u64 = 5_000_000;
/// How long files one after the other are left alone when one could not be written.
const RETRY: Duration = Duration::from_secs(1);
/// Bit where the queue begins in the id of a frame.
const ID_QUEUE: u32 = 48;

/// Writes blocks, whole ones only as far as that can be.
pub(crate) struct Writer {
    /// Of files one after the other, there is none before there is something to write.
    file: Option<File>,
    /// What comes after the file.
    rotation: Option<Rotation>,
    /// Bytes of the file that are whole blocks.
    whole: u64,
    /// Those of them that were written here.
    written: u64,
    blocks: Blocks,
    config: Config,
    shared: Arc<Shared>,
    progress: Arc<Mutex<Progress>>,
    /// Number of the interface of each queue, and that of the events.
    interfaces: [Option<u32>; QUEUES],
    events: Option<u32>,
    next: u32,
    /// The same as they are in what was written.
    settled: ([Option<u32>; QUEUES], Option<u32>, u32),
    /// Frames of each queue that are in the blocks and not in the file, and those that were lost since
    /// the last one that is.
    pending: [u64; QUEUES],
    skipped: [u32; QUEUES],
    /// Nothing could be written, and it is not tried again before this.
    outage: Option<Instant>,
    epoch: u64,
    start: u64,
    comment: String,
    frames: u64,
    /// What waits for its turn, by time and by number.
    held: BTreeMap<(u64, u64), Held>,
    number: u64,
}

enum Held {
    Frame(Arc<Parcel>, usize),
    Event(Event),
}

/// When a frame passed between card and backend.
fn passed_at(queue: u16, record: &Record) -> u64 {
    match kind(queue) {
        Kind::Tx => record.stages.backend,
        Kind::Rx => record.stages.done,
    }
}

impl Writer {
    pub(crate) fn new(
        file: Option<File>,
        rotation: Option<Rotation>,
        config: Config,
        shared: Arc<Shared>,
        progress: Arc<Mutex<Progress>>,
    ) -> io::Result<Self> {
        // That of a file to which a section is added is not empty.
        let data = file.as_ref().and_then(|file| file.metadata().ok());
        let whole = data.map_or(0, |data| data.len());
        let mut writer = Self {
            file,
            rotation,
            whole,
            written: 0,
            blocks: Blocks::default(),
            config,
            shared,
            progress,
            interfaces: [None; QUEUES],
            events: None,
            next: 0,
            settled: ([None; QUEUES], None, 0),
            pending: [0; QUEUES],
            skipped: [0; QUEUES],
            outage: None,
            epoch: epoch(),
            start: now(),
            comment: String::new(),
            frames: 0,
            held: BTreeMap::new(),
            number: 0,
        };
        if writer.file.is_some() {
            writer.begin();
            // What cannot be written at all is told at once.
            writer.append()?;
        }
        Ok(writer)
    }

    /// Begins a file.
    fn begin(&mut self) {
        self.interfaces = [None; QUEUES];
        (self.events, self.next) = (None, 0);
        self.blocks.section();
        for queue in 0..2 * self.config.pairs {
            if self.config.selection.covers(queue) {
                self.interface(queue);
            }
        }
    }

    /// Sees to it that a block has somewhere to go: begins the next file, if this one is as long as it may
    /// be, or was removed to make room. False: not now.
    fn is_ready(&mut self) -> bool {
        let Some(rotation) = &self.rotation else {
            return true;
        };
        if self.outage.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        let full = self.whole + self.blocks.bytes().len() as u64 >= rotation.size;
        let removed = |file: &File| file.metadata().is_ok_and(|data| data.nlink() == 0);
        let gone = |file| full || self.outage.is_some() && removed(file);
        if self.file.as_ref().is_none_or(gone) {
            match rotation.next() {
                Ok(next) => {
                    // What is the matter with the old one is over with it.
                    let _ = self.close();
                    self.file = Some(next);
                    self.whole = 0;
                    self.begin();
                }
                Err(error) => {
                    // What the old one has room for it gets.
                    let _ = self.flush();
                    self.fail(&error);
                    return false;
                }
            }
        } else if self.whole == 0 && self.blocks.bytes().is_empty() {
            self.begin();
        }
        true
    }

    /// Nothing more can be written for now: of files one after the other, somebody may make room.
    fn fail(&mut self, error: &io::Error) {
        self.give_up();
        self.outage = Some(Instant::now() + RETRY);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.trouble = Some(error.to_string());
    }

    /// Lets go of what could not be written.
    fn give_up(&mut self) {
        self.cut();
        self.blocks.clear();
        (self.interfaces, self.events, self.next) = self.settled;
        for queue in 0..QUEUES {
            let lost = mem::take(&mut self.pending[queue]);
            self.lose(queue, lost);
            self.frames -= lost;
        }
    }

    /// Ends the file with a whole block: one that was begun would make all of it suspect.
    fn cut(&mut self) {
        if let Some(file) = &mut self.file {
            let _ = file.set_len(self.whole);
            let _ = file.seek(SeekFrom::Start(self.whole));
        }
    }

    /// So many frames of a queue do not get into the file.
    fn lose(&mut self, queue: usize, frames: u64) {
        let dropped = &self.shared.tallies[queue].dropped;
        dropped.fetch_add(frames, Ordering::Relaxed);
        let lost = u32::try_from(frames).unwrap_or(u32::MAX);
        self.skipped[queue] = self.skipped[queue].saturating_add(lost);
    }

    /// Writes what comes until nothing more is wanted.
    pub(crate) fn run(mut self, items: Receiver<Item>) {
        let end = self.write(&items).unwrap_or_else(|error| {
            self.give_up();
            End::Failed(error.to_string())
        });
        self.shared.over.store(true, Ordering::Relaxed);
        self.lose_rest(&items);
        // Who hands something over from here on is told, and counts it.
        drop(items);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.end = Some(end);
    }

    fn write(&mut self, items: &Receiver<Item>) -> io::Result<End> {
        let until = self.config.time.map(|time| Instant::now() + time);
        let end = loop {
            // What there is goes out before the thread sleeps, so that whoever reads along is up to date.
            let item = match items.try_recv() {
                Ok(item) => Some(item),
                Err(_) => {
                    self.flush()?;
                    if self.shared.over.load(Ordering::Acquire) {
                        break End::Stopped;
                    }
                    let patience = match self.held.is_empty() {
                        true => PERIOD,
                        false => Duration::from_nanos(HOLD),
                    };
                    match items.recv_timeout(patience) {
                        Ok(item) => Some(item),
                        Err(RecvTimeoutError::Timeout) => None,
                        Err(RecvTimeoutError::Disconnected) => break End::Stopped,
                    }
                }
            };
            if let Some(item) = item {
                self.take(item);
            }
            if self.write_until(now().saturating_sub(HOLD))? {
                break End::Count;
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                break End::Time;
            }
        };
        self.shared.over.store(true, Ordering::Relaxed);
        if end != End::Count {
            items.try_iter().for_each(|item| self.take(item));
            self.write_until(u64::MAX)?;
        }
        self.lose_rest(items);
        self.close()?;
        Ok(end)
    }

    /// Keeps what came until it is its turn.
    fn take(&mut self, item: Item) {
        match item {
            Item::Parcel(parcel) => self.hold_frames(parcel),
            Item::Event(event) => self.hold(event.time, Held::Event(event)),
            Item::Nudge => {}
        }
    }

    /// Counts the frames that were seen, and are not wanted any more.
    fn lose_rest(&mut self, items: &Receiver<Item>) {
        items.try_iter().for_each(|item| self.take(item));
        for held in mem::take(&mut self.held).into_values() {
            if let Held::Frame(parcel, _) = held {
                self.lose(usize::from(parcel.queue) % QUEUES, 1);
            }
        }
    }

    /// Bytes that are written at a time: of a small file, no more than there is room for.
    fn chunk(&self) -> usize {
        let room = self
            .rotation
            .as_ref()
            .map(|rotation| rotation.size.saturating_sub(self.whole));
        room.map_or(CHUNK, |room| {
            usize::try_from(room).map_or(CHUNK, |room| room.clamp(1, CHUNK))
        })
    }

    /// Keeps the frames of a queue until it is their turn.
    fn hold_frames(&mut self, parcel: Parcel) {
        let parcel = Arc::new(parcel);
        for (index, record) in parcel.records.iter().enumerate() {
            let time = passed_at(parcel.queue, record);
            self.hold(time, Held::Frame(Arc::clone(&parcel), index));
        }
    }

    fn hold(&mut self, time: u64, held: Held) {
        self.number += 1;
        self.held.insert((time, self.number), held);
    }

    /// Writes what is of this time or before; true: there were as many frames now as are wanted.
    fn write_until(&mut self, time: u64) -> io::Result<bool> {
        while let Some(first) = self.held.first_entry() {
            if first.key().0 > time {
                return Ok(false);
            }
            let held = first.remove();
            let ready = self.is_ready();
            match held {
                Held::Event(event) if ready => self.event(&event),
                Held::Event(_) => {
                    self.shared.lost_events.fetch_add(1, Ordering::Relaxed);
                }
                Held::Frame(parcel, index) => {
                    match ready {
                        true => self.frame(&parcel, index),
                        false => self.lose(usize::from(parcel.queue) % QUEUES, 1),
                    }
                    if let Some(parcel) = Arc::into_inner(parcel) {
                        self.shared.release(parcel.load());
                    }
                }
            }
            if self.blocks.bytes().len() >= self.chunk() {
                self.flush()?;
            }
            if self.config.count.is_some_and(|count| self.frames >= count) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn frame(&mut self, parcel: &Parcel, index: usize) {
        // Of a queue that the card has.
        if let Some(interface) = self.interface(parcel.queue) {
            let queue = usize::from(parcel.queue);
            let dropped = mem::take(&mut self.skipped[queue]);
            self.record(interface, parcel, &parcel.records[index], dropped);
            self.pending[queue] += 1;
            self.frames += 1;
        }
    }

    fn record(&mut self, interface: u32, parcel: &Parcel, record: &Record, skipped: u32) {
        let outbound = kind(parcel.queue) == Kind::Tx;
        let time = passed_at(parcel.queue, record);
        let words = Words {
            queue: parcel.queue,
            thread: &parcel.thread,
            meta: &record.meta,
            hash: record.hash,
            stages: &record.stages,
            base: time,
            chains: parcel.chains(record).collect::<Vec<_>>().into_iter(),
            chain_count: record.chain_count,
        };
        self.comment.clear();
        // Writing to a string does not fail.
        let _ = write!(self.comment, "{words}");
        self.blocks.packet(&Packet {
            interface,
            time: time.wrapping_add(self.epoch),
            bytes: parcel.bytes(record),
            len: record.len,
            comment: &self.comment,
            origin: Some(Origin {
                outbound,
                pair: parcel.queue / 2,
                id: u64::from(parcel.queue) << ID_QUEUE | record.number,
                dropped: record.dropped.saturating_add(skipped),
                hash: (record.hash.report != HASH_NONE).then_some(record.hash.value),
            }),
        });
    }

    fn event(&mut self, event: &Event) {
        let interface = *self.events.get_or_insert_with(|| {
            self.blocks.interface(&Interface {
                link: USER0,
                snaplen: 0,
                name: &format!("{}:events", self.config.card),
                description: "what went wrong, as text",
                mac: None,
            });
            self.next += 1;
            self.next - 1
        });
        let text = event.to_string();
        self.blocks.packet(&Packet {
            interface,
            time: event.time.wrapping_add(self.epoch),
            bytes: text.as_bytes(),
            len: text.len() as u32,
            comment: &text,
            origin: None,
        });
    }

    /// The interface of a queue.
    fn interface(&mut self, queue: u16) -> Option<u32> {
        let place = self.interfaces.get_mut(usize::from(queue))?;
        if place.is_none() {
            let way = match kind(queue) {
                Kind::Rx => "receive",
                Kind::Tx => "transmit",
            };
            self.blocks.interface(&Interface {
                link: ETHERNET,
                snaplen: self.config.snaplen,
                name: &format!("{}:{}", self.config.card, queue_name(queue)),
                description: &format!("{way} queue of pair {}", queue / 2),
                mac: self.config.mac,
            });
            *place = Some(self.next);
            self.next += 1;
        }
        *place
    }

    /// Says what became of the frames.
    fn close(&mut self) -> io::Result<()> {
        let end = now().wrapping_add(self.epoch);
        for (interface, tally) in self.interfaces.iter().zip(&self.shared.tallies) {
            if let Some(interface) = *interface {
                self.blocks.statistics(&Statistics {
                    interface,
                    start: self.start.wrapping_add(self.epoch),
                    end,
                    seen: tally.seen.load(Ordering::Relaxed),
                    dropped: tally.dropped.load(Ordering::Relaxed),
                });
            }
        }
        self.flush()
    }

    /// Writes the blocks. For files one after the other it is no error if that cannot be.
    fn flush(&mut self) -> io::Result<()> {
        match self.append() {
            Err(error) if self.rotation.is_some() => {
                self.fail(&error);
                Ok(())
            }
            other => other,
        }
    }

    fn append(&mut self) -> io::Result<()> {
        let bytes = self.blocks.bytes();
        let Some(file) = self.file.as_mut().filter(|_| !bytes.is_empty()) else {
            return Ok(());
        };
        file.write_all(bytes)?;
        self.whole += bytes.len() as u64;
        self.written += bytes.len() as u64;
        self.blocks.clear();
        self.settled = (self.interfaces, self.events, self.next);
        self.pending = [0; QUEUES];
        self.outage = None;
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.frames = self.frames;
        progress.bytes = self.written;
        progress.trouble = None;
        Ok(())
    }
}
