// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A client that keeps its memory to itself, and serves what the card asks for.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::wire::{command, header_of, Head};
use crate::{GuestRam, Reply};

/// What a client does with a request of the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// Serves it.
    Good,
    /// Refuses it with this error number.
    Refuses(u32),
    /// Says nothing.
    Silent,
    /// Refuses small writes, and says nothing to those that are as large as a frame.
    Sulky,
    /// Answers with too few bytes.
    Short,
    /// Answers with too many.
    Long,
    /// Answers, but not what was asked.
    Stranger,
    /// Answers twice.
    Twice,
}

/// Memory of a client that does not share it, with the thread that serves it.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    pub(crate) replies: Receiver<Reply>,
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    ram: Arc<GuestRam>,
    manners: Mutex<Manners>,
    reads: AtomicU64,
    writes: AtomicU64,
    outside: AtomicBool,
}

impl Keeper {
    pub(crate) fn start(
        mut stream: UnixStream,
        writer: Arc<Mutex<UnixStream>>,
        ram: Arc<GuestRam>,
    ) -> std::io::Result<Self> {
        let closes = stream.try_clone()?;
        let shared = Arc::new(Shared {
            ram,
            manners: Mutex::new(Manners::Good),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            outside: AtomicBool::new(false),
        });
        let (sender, replies) = channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            // Until the connection ends, or nobody listens any more.
            while let Some((head, payload)) = message(&mut stream) {
                if let Some(reply) = head.reply(&payload) {
                    if sender.send(reply).is_err() {
                        return;
                    }
                } else {
                    for answer in for_thread.answers(&head, &payload) {
                        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                        if writer.write_all(&answer).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Self {
            shared,
            replies,
            stream: closes,
            thread: Some(thread),
        })
    }

    /// From now on, behaves like this.
    pub fn set(&self, manners: Manners) {
        *self.shared.manners() = manners;
    }

    /// Reads and writes that were asked for.
    pub fn asked(&self) -> (u64, u64) {
        let [reads, writes] = [&self.shared.reads, &self.shared.writes];
        (
            reads.load(Ordering::Relaxed),
            writes.load(Ordering::Relaxed),
        )
    }

    /// True if something beyond the memory was asked for.
    pub fn was_outside(&self) -> bool {
        self.shared.outside.load(Ordering::Relaxed)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The thread has descriptors of its own.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn manners(&self) -> std::sync::MutexGuard<'_, Manners> {
        self.manners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self, head: &Head, payload: &[u8]) -> Vec<Vec<u8>> {
        let long = |at: usize| payload[at..].first_chunk().map(|b| u64::from_le_bytes(*b));
        let (Some(address), Some(count)) = (long(0), long(8)) else {
            return Vec::new();
        };
        let write = head.command == command::DMA_WRITE;
        let asked = if write { &self.writes } else { &self.reads };
        asked.fetch_add(1, Ordering::Relaxed);
        let fits = address
            .checked_add(count)
            .is_some_and(|end| self.ram.base() <= address && end <= self.ram.end());
        let manners = *self.manners();
        if !fits {
            self.outside.store(true, Ordering::Relaxed);
            return vec![head.answer(Err(14), &[])];
        }
        let mut data = payload[..16].to_vec();
        match manners {
            Manners::Silent => return Vec::new(),
            Manners::Sulky if write && count < 60 => return vec![head.answer(Err(14), &[])],
            Manners::Sulky if write => return Vec::new(),
            Manners::Refuses(errno) => return vec![head.answer(Err(errno), &[])],
            _ if write => self.ram.write(address, &payload[16..]),
            _ => data.extend(self.ram.read_vec(address, count as usize)),
        }
        match manners {
            Manners::Short => data.truncate(data.len() - 1),
            Manners::Long => data.push(0),
            Manners::Stranger => data[0] ^= 1,
            _ => {}
        }
        let answer = head.answer(Ok(()), &data);
        match manners {
            Manners::Twice => vec![answer.clone(), answer],
            _ => vec![answer],
        }
    }
}

fn message(stream: &mut UnixStream) -> Option<(Head, Vec<u8>)> {
    let mut bytes = [0; 16];
    stream.read_exact(&mut bytes).ok()?;
    let (head, length) = header_of(&bytes)?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).ok()?;
    Some((head, payload))
}
