// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A driver in user space, on the same ring code as the kernel module.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_contract::hdr::{self, FlowHash, NetHdr};
use vnet_contract::{features, queue, regs};
use vnet_ring::{rx, tx, Memory, Slot};

use crate::{Card, DmaRing, Error, GuestRam, Result, Vector, LIMIT};

/// Where the driver's memory lies on the card's bus.
const RAM_BASE: u64 = 0x4000_0000;

/// How to bring the card up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Queue pairs to use.
    pub pairs: u16,
    /// Descriptors per ring.
    pub ring_size: u16,
    /// Features to accept, as far as the card offers them.
    pub features: u64,
    /// Bytes of a receive buffer.
    pub rx_buffer: u32,
    /// Longest frame to send.
    pub max_frame: u32,
    /// MTU to program.
    pub mtu: u16,
    /// Receive mode to program.
    pub rx_mode: u32,
    /// The card can map memory, and need not ask for it.
    pub shared: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pairs: 1,
            ring_size: 256,
            features: features::RX_CSUM | features::TX_CSUM | features::MRG_RXBUF,
            rx_buffer: 2048,
            max_frame: 1518,
            mtu: 1500,
            rx_mode: regs::RX_MODE_BROADCAST,
            shared: true,
        }
    }
}

/// A frame that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its header.
    pub header: NetHdr,
    /// Its hash; none unless the driver accepted `HASH_REPORT`.
    pub hash: FlowHash,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// A card that is up, and its driver.
#[derive(Debug)]
pub struct Nic {
    /// The card.
    pub card: Card,
    /// Memory that the card can reach.
    pub ram: Arc<GuestRam>,
    /// What both sides accepted.
    pub features: u64,
    /// The card's MAC address.
    pub mac: [u8; 6],
    /// One vector for each queue pair.
    pub vectors: Vec<Vector>,
    /// The vector for events.
    pub events: Vector,
    options: Options,
    pairs: Vec<Pair>,
}

/// A transmit buffer: its address comes back when the frame is sent.
type TxRing = tx::Ring<DmaRing, Vec<Slot<(u64, u32), u64>>>;
type RxRing = rx::Ring<DmaRing, Vec<Slot<(u64, u32), ()>>>;

#[derive(Debug)]
struct Pair {
    rx: RxRing,
    tx: TxRing,
    /// Buffers for frames to send, each with room for header and frame.
    free: Vec<u64>,
    /// Receive buffers that are not posted.
    spare: Vec<(u64, u32)>,
    received: VecDeque<Received>,
    /// The buffers of a frame whose rest is still to come.
    partial: Vec<Vec<u8>>,
}

impl Nic {
    /// Connects to the server and brings the card up with the default options.
    pub fn connect(path: &Path) -> Result<Self> {
        Self::bring_up(Card::connect(path)?, Options::default())
    }

    /// Goes through the bring-up sequence of the data sheet.
    pub fn bring_up(mut card: Card, options: Options) -> Result<Self> {
        let id = card.reg(regs::ID)?;
        let version = card.reg(regs::VERSION)?;
        if id != regs::ID_VALUE || version >> 16 != regs::VERSION_VALUE >> 16 {
            return Err(Error::Card(format!(
                "id {id:#x}, version {version:#x} is not ours"
            )));
        }
        card.reset()?;
        let features = card.reg64(regs::DEVICE_FEATURES_LO)? & options.features;
        card.negotiate(features)?;
        let pairs = card.reg(regs::QUEUE_PAIRS)?;
        if pairs < options.pairs.into() {
            return Err(Error::Card(format!("only {pairs} queue pairs")));
        }
        let mac = regs::mac_from_regs(card.reg(regs::MAC_LO)?, card.reg(regs::MAC_HI)?);

        let per_pair = 3 * 64 * u64::from(options.ring_size)
            + u64::from(options.ring_size)
                * u64::from(options.rx_buffer + Self::tx_buffer(&options) + 128);
        let size = (u64::from(options.pairs) * per_pair + (1 << 20)).next_multiple_of(4096);
        let ram = Arc::new(GuestRam::new(RAM_BASE, size)?);
        match options.shared {
            true => card.map(&ram)?,
            false => card.keep(&ram)?,
        }

        card.set_reg(regs::MTU, options.mtu.into())?;
        card.set_reg(regs::RX_MODE, options.rx_mode)?;
        let mut vectors = card.vectors(u32::from(options.pairs) + 1)?;
        let events = vectors.pop().expect("asked for at least one");
        card.set_reg(regs::EVENT_VECTOR, options.pairs.into())?;
        card.set_reg(regs::EVENT_ENABLE, regs::EVENT_MASK)?;

        let mut nic = Self {
            card,
            ram,
            features,
            mac,
            vectors,
            events,
            options,
            pairs: Vec::new(),
        };
        for n in 0..options.pairs {
            let pair = Pair::new(&nic.ram, &options);
            nic.pairs.push(pair);
            nic.start(n)?;
        }
        Ok(nic)
    }

    fn tx_buffer(options: &Options) -> u32 {
        options.max_frame + hdr::size(options.features) as u32
    }

    /// Enables both queues of a pair and posts all receive buffers.
    fn start(&mut self, n: u16) -> Result<()> {
        self.enable(queue::rx_index(n))?;
        self.enable(queue::tx_index(n))?;
        self.post(n)
    }

    /// Enables a queue on an empty ring.
    fn enable(&mut self, queue: u16) -> Result<()> {
        let pair = &self.pairs[usize::from(queue / 2)];
        let rings = match queue::kind(queue) {
            queue::Kind::Rx => pair.rx.memory().addresses(),
            queue::Kind::Tx => pair.tx.memory().addresses(),
        };
        let size = self.options.ring_size.into();
        let vector = (queue / 2).into();
        self.card.enable(queue, size, rings, vector)?;
        match self.card.queue_error(queue)? {
            Some(error) => Err(Error::Card(format!("queue {queue}: {}", error.name()))),
            None => Ok(()),
        }
    }

    /// Posts the receive buffers that are not.
    fn post(&mut self, n: u16) -> Result<()> {
        let pair = &mut self.pairs[usize::from(n)];
        pair.fill();
        match pair.rx.publish() {
            Some(value) => self.card.doorbell(queue::rx_index(n), value),
            None => Ok(()),
        }
    }

    /// Resets the card, takes everything back and brings the card up once more. Frames in flight
    /// are lost; memory, DMA mapping and interrupts stay.
    pub fn restart(&mut self) -> Result<()> {
        self.card.reset()?;
        self.card.negotiate(self.features)?;
        self.card.set_reg(regs::MTU, self.options.mtu.into())?;
        self.card.set_reg(regs::RX_MODE, self.options.rx_mode)?;
        let control = self.options.pairs.into();
        self.card.set_reg(regs::EVENT_VECTOR, control)?;
        self.card.set_reg(regs::EVENT_ENABLE, regs::EVENT_MASK)?;
        for n in 0..self.options.pairs {
            self.pairs[usize::from(n)].take_back();
            self.start(n)?;
        }
        Ok(())
    }

    /// Enables a queue again after [`Self::stop`].
    pub fn resume(&mut self, queue: u16) -> Result<()> {
        self.enable(queue)?;
        self.post(queue / 2)
    }

    /// Attaches fresh eventfds to all vectors.
    pub fn renew_vectors(&mut self) -> Result<()> {
        let mut vectors = self.card.vectors(u32::from(self.options.pairs) + 1)?;
        self.events = vectors.pop().expect("asked for at least one");
        self.vectors = vectors;
        Ok(())
    }

    /// The used index of a queue, as it is in memory.
    pub fn used_index(&self, queue: u16) -> u16 {
        let pair = &self.pairs[usize::from(queue / 2)];
        match queue::kind(queue) {
            queue::Kind::Rx => pair.rx.memory().used_index(),
            queue::Kind::Tx => pair.tx.memory().used_index(),
        }
    }

    /// Disables one queue of the card and takes its buffers back.
    pub fn stop(&mut self, queue: u16) -> Result<()> {
        self.card.disable(queue)?;
        let pair = &mut self.pairs[usize::from(queue / 2)];
        match queue::kind(queue) {
            queue::Kind::Rx => {
                let spare = &mut pair.spare;
                pair.rx.reset(|buffer| spare.push(buffer));
                pair.partial.clear();
            }
            queue::Kind::Tx => {
                let free = &mut pair.free;
                pair.tx.reset(|buffer| free.push(buffer));
            }
        }
        Ok(())
    }

    /// Sends a frame on a queue pair; the checksum in it is complete.
    pub fn send(&mut self, pair: u16, frame: &[u8]) -> Result<()> {
        self.send_with(pair, NetHdr::default(), frame)
    }

    /// Sends a frame with a header of the caller's, waiting for room if there is none.
    pub fn send_with(&mut self, n: u16, header: NetHdr, frame: &[u8]) -> Result<()> {
        self.queue(n, header, frame)?;
        self.flush(n)
    }

    /// Like [`Self::send_with`], but does not show the frame to the card yet.
    pub fn queue(&mut self, n: u16, header: NetHdr, frame: &[u8]) -> Result<()> {
        assert!(
            frame.len() <= self.options.max_frame as usize,
            "longer than Options::max_frame"
        );
        let end = Instant::now() + LIMIT;
        while !self.pairs[usize::from(n)].can_send() {
            self.flush(n)?;
            let pair = &mut self.pairs[usize::from(n)];
            pair.reclaim()?;
            if !pair.can_send() && pair.tx.enable_interrupts() {
                let left = end.saturating_duration_since(Instant::now());
                if !self.vectors[usize::from(n)].wait(left)? && left.is_zero() {
                    return Err(crate::error::timeout("transmit ring stays full"));
                }
            }
        }
        let pair = &mut self.pairs[usize::from(n)];
        let buffer = pair.free.pop().expect("can_send said so");
        let size = hdr::size(self.features);
        let mut bytes = header.to_bytes().to_vec();
        bytes.resize(size, 0);
        self.ram.write(buffer, &bytes);
        self.ram.write(buffer + size as u64, frame);
        let mut chain = pair.tx.begin(2).expect("can_send said so");
        let parts = [
            (buffer, size as u32),
            (buffer + size as u64, frame.len() as u32),
        ];
        for part in parts.into_iter().filter(|part| part.1 != 0) {
            chain.push(part).expect("two were free");
        }
        chain.commit(buffer).expect("holds the header");
        Ok(())
    }

    /// Shows the card what was queued, and rings the doorbell if it is due.
    pub fn flush(&mut self, n: u16) -> Result<()> {
        match self.pairs[usize::from(n)].tx.publish() {
            Some(value) => self.card.doorbell(queue::tx_index(n), value),
            None => Ok(()),
        }
    }

    /// Waits until the card has sent everything.
    pub fn drain(&mut self, n: u16) -> Result<()> {
        let end = Instant::now() + LIMIT;
        loop {
            let pair = &mut self.pairs[usize::from(n)];
            pair.reclaim()?;
            if pair.tx.in_flight() == 0 {
                return Ok(());
            }
            if pair.tx.enable_interrupts_delayed() {
                let left = end.saturating_duration_since(Instant::now());
                if !self.vectors[usize::from(n)].wait(left)? && left.is_zero() {
                    return Err(crate::error::timeout("frames are not sent"));
                }
            }
        }
    }

    /// Chains that the card holds on a transmit queue.
    pub fn in_flight(&self, n: u16) -> u16 {
        self.pairs[usize::from(n)].tx.in_flight()
    }

    /// Receives a frame from a queue pair. `None`: none came within `limit`.
    pub fn receive(&mut self, n: u16, limit: Duration) -> Result<Option<Received>> {
        let end = Instant::now() + limit;
        loop {
            self.poll(n)?;
            let pair = &mut self.pairs[usize::from(n)];
            if let Some(frame) = pair.received.pop_front() {
                return Ok(Some(frame));
            }
            if pair.rx.enable_interrupts() {
                let left = end.saturating_duration_since(Instant::now());
                let came = self.vectors[usize::from(n)].wait(left)?;
                if !came && left.is_zero() {
                    return Ok(None);
                }
            }
            self.pairs[usize::from(n)].rx.disable_interrupts();
        }
    }

    /// Receives a frame that must come.
    pub fn expect(&mut self, n: u16) -> Result<Received> {
        self.receive(n, LIMIT)?
            .ok_or_else(|| crate::error::timeout("no frame came"))
    }

    /// Takes what the card has done, then asks for an interrupt for more on both queues. False:
    /// there is more already.
    pub fn arm(&mut self, n: u16) -> Result<bool> {
        self.poll(n)?;
        let pair = &mut self.pairs[usize::from(n)];
        Ok(pair.rx.enable_interrupts() && pair.tx.enable_interrupts())
    }

    /// Waits until the card has done something or `limit` is over.
    pub fn wait(&mut self, n: u16, limit: Duration) -> Result<()> {
        if self.arm(n)? && self.pairs[usize::from(n)].received.is_empty() {
            self.vectors[usize::from(n)].wait(limit)?;
        }
        Ok(())
    }

    /// A frame that has come, without waiting.
    pub fn try_receive(&mut self, n: u16) -> Result<Option<Received>> {
        self.poll(n)?;
        Ok(self.pairs[usize::from(n)].received.pop_front())
    }

    /// Takes what the card has done on both queues, and posts new buffers.
    pub fn poll(&mut self, n: u16) -> Result<()> {
        let pair = &mut self.pairs[usize::from(n)];
        pair.reclaim()?;
        pair.take(&self.ram, self.features)?;
        if let Some(value) = pair.rx.publish() {
            self.card.doorbell(queue::rx_index(n), value)?;
        }
        Ok(())
    }
}

impl Pair {
    fn new(ram: &Arc<GuestRam>, options: &Options) -> Self {
        let size = options.ring_size;
        let ring = || DmaRing::new(ram, size);
        let count = usize::from(size);
        let buffer = u64::from(Nic::tx_buffer(options));
        Self {
            rx: RxRing::new(ring(), (0..count).map(|_| Slot::new()).collect())
                .expect("sizes agree"),
            tx: TxRing::new(ring(), (0..count).map(|_| Slot::new()).collect())
                .expect("sizes agree"),
            free: (0..size).map(|_| ram.alloc(buffer, 64)).collect(),
            spare: (0..size)
                .map(|_| (ram.alloc(options.rx_buffer.into(), 64), options.rx_buffer))
                .collect(),
            received: VecDeque::new(),
            partial: Vec::new(),
        }
    }

    /// Posts all receive buffers.
    fn fill(&mut self) {
        for buffer in self.spare.drain(..) {
            self.rx.post(buffer).expect("there is one per descriptor");
        }
    }

    fn can_send(&self) -> bool {
        self.tx.free() >= 2 && !self.free.is_empty()
    }

    fn reclaim(&mut self) -> Result<()> {
        while let Some(buffer) = self.tx.reclaim().map_err(broken)? {
            self.free.push(buffer);
        }
        Ok(())
    }

    fn take(&mut self, ram: &GuestRam, features: u64) -> Result<()> {
        let merge = features & features::MRG_RXBUF != 0;
        let size = hdr::size(features);
        while let Some((buffer, len)) = self.rx.take().map_err(broken)? {
            self.partial.push(ram.read_vec(buffer.0, len as usize));
            // The bytes are copied, so the buffer can go back at once.
            self.rx.post(buffer).expect("one has just come back");
            let first = &self.partial[0];
            let (Some(bytes), true) = (first.first_chunk(), first.len() >= size) else {
                return Err(Error::Card(format!("{len} bytes hold no header")));
            };
            let header = NetHdr::from_bytes(bytes);
            let hash = match first[hdr::SIZE..].first_chunk() {
                Some(bytes) if features & features::HASH_REPORT != 0 => FlowHash::from_bytes(bytes),
                _ => FlowHash::default(),
            };
            let expected = usize::from(header.num_buffers);
            if expected == 0 || (!merge && expected != 1) {
                return Err(Error::Card(format!("frame in {expected} buffers")));
            }
            if self.partial.len() == expected {
                let mut frame = self.partial.concat();
                frame.drain(..size);
                self.received.push_back(Received {
                    header,
                    hash,
                    frame,
                });
                self.partial.clear();
            }
        }
        Ok(())
    }

    /// Takes everything back from a card that was reset.
    fn take_back(&mut self) {
        let (free, spare) = (&mut self.free, &mut self.spare);
        self.tx.reset(|buffer| free.push(buffer));
        self.rx.reset(|buffer| spare.push(buffer));
        self.received.clear();
        self.partial.clear();
    }
}

fn broken(violation: vnet_ring::Violation) -> Error {
    Error::Card(violation.to_string())
}
