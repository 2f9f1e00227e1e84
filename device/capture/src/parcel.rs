// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames on their way from a queue to the file.

use std::ops::Range;

use vnet_backend::Meta;
use vnet_contract::hdr::FlowHash;

/// When something was done for a frame, in nanoseconds of the monotonic clock; 0: it was not. A later
/// stage has no earlier time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// The doorbell rang that the batch began for.
    pub doorbell: u64,
    /// The card began to fetch the chains of the batch.
    pub fetch: u64,
    /// The backend was given the frame to send, or began with the frame to receive.
    pub backend: u64,
    /// The backend was done with it.
    pub done: u64,
    /// The driver was shown the used entries.
    pub used: u64,
    /// The interrupt was raised.
    pub interrupt: u64,
}

/// The descriptors of a frame, or of a part of one, as they stood when the card was done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Index of the first descriptor.
    pub head: u16,
    /// It points to a table.
    pub indirect: bool,
    /// Number of descriptors, if it [is known](Self::is_counted); else there are more.
    pub count: usize,
    /// Bytes of the first descriptors.
    pub lens: Vec<u32>,
}

/// Lengths of a chain that are kept; more descriptors are counted only.
const MAX_LENS: usize = 24;
/// Descriptors of a chain that are counted: more than one of a frame has in earnest. What is told has no
/// part in the budget of a round, and a driver may by now have made any chain as long as its ring.
const MAX_COUNT: usize = 64;
/// Chains of a frame that are kept; more are counted only.
const MAX_CHAINS: usize = 24;
/// What a frame counts for beside its bytes.
const FRAME_COST: usize = 512;

/// What was kept of one frame; its bytes and chains lie in the parcel.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) stages: Stages,
    pub(crate) meta: Meta,
    pub(crate) hash: FlowHash,
    /// Length of the frame.
    pub(crate) len: u32,
    /// Frames of the queue up to this one, since the capture began.
    pub(crate) number: u64,
    /// Those since the last one of the file, for which there was no room.
    pub(crate) dropped: u32,
    bytes: Range<usize>,
    chains: Range<usize>,
    /// Chains in all.
    pub(crate) chain_count: usize,
}

#[derive(Clone, Debug)]
struct Link {
    head: u16,
    indirect: bool,
    count: usize,
    lens: Range<usize>,
}

impl Chain {
    /// True if all of its descriptors were counted.
    pub fn is_counted(&self) -> bool {
        self.count <= MAX_COUNT
    }
}

/// Frames of one queue, in order.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) queue: u16,
    /// Name of the thread that served the queue.
    pub(crate) thread: Box<str>,
    pub(crate) records: Vec<Record>,
    bytes: Vec<u8>,
    chains: Vec<Link>,
    lens: Vec<u32>,
    load: usize,
}

/// What a frame with so many bytes to keep counts for.
pub(crate) fn cost(bytes: usize) -> usize {
    bytes + FRAME_COST
}

impl Parcel {
    pub(crate) fn new(queue: u16) -> Self {
        Self {
            queue,
            thread: Box::default(),
            records: Vec::new(),
            bytes: Vec::new(),
            chains: Vec::new(),
            lens: Vec::new(),
            load: 0,
        }
    }

    /// What it counts for.
    pub(crate) fn load(&self) -> usize {
        self.load
    }

    /// Adds a frame, of which `read` fills in the first `keep` bytes.
    pub(crate) fn add(&mut self, mut record: Record, keep: usize, read: impl FnOnce(&mut [u8])) {
        let at = self.bytes.len();
        self.bytes.resize(at + keep, 0);
        read(&mut self.bytes[at..]);
        record.bytes = at..at + keep;
        record.chains = self.chains.len()..self.chains.len();
        record.chain_count = 0;
        self.records.push(record);
        self.load += cost(keep);
    }

    /// Says that the last frame has one chain more. True: its descriptors are wanted, too.
    pub(crate) fn chain(&mut self, head: u16, indirect: bool) -> bool {
        let Some(record) = self.records.last_mut() else {
            return false;
        };
        record.chain_count += 1;
        if record.chain_count > MAX_CHAINS {
            return false;
        }
        self.chains.push(Link {
            head,
            indirect,
            count: 0,
            lens: self.lens.len()..self.lens.len(),
        });
        record.chains.end = self.chains.len();
        true
    }

    /// Says that the last chain, of which they are wanted, has one descriptor more. True: so is the next.
    pub(crate) fn descriptor(&mut self, len: u32) -> bool {
        let Some(link) = self.chains.last_mut() else {
            return false;
        };
        link.count += 1;
        if link.count <= MAX_LENS {
            self.lens.push(len);
            link.lens.end = self.lens.len();
        }
        link.count <= MAX_COUNT
    }

    /// The bytes of a frame.
    pub(crate) fn bytes(&self, record: &Record) -> &[u8] {
        &self.bytes[record.bytes.clone()]
    }

    /// The first chains of a frame.
    pub(crate) fn chains(&self, record: &Record) -> impl Iterator<Item = Chain> + '_ {
        self.chains[record.chains.clone()].iter().map(|link| Chain {
            head: link.head,
            indirect: link.indirect,
            count: link.count,
            lens: self.lens[link.lens.clone()].to_vec(),
        })
    }
}

impl Record {
    pub(crate) fn new(stages: Stages, meta: Meta, hash: FlowHash, len: usize) -> Self {
        Self {
            stages,
            meta,
            hash,
            // A frame is shorter than 2^32 bytes.
            len: len as u32,
            number: 0,
            dropped: 0,
            bytes: 0..0,
            chains: 0..0,
            chain_count: 0,
        }
    }
}
