// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A queue pair that is watched, and its memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_backend::{Frame, Meta, Offloads, Queue, RxRing};
use vnet_contract::hdr::NetHdr;
use vnet_dma::Mapping;
use vnet_irq::Vector;
use vnet_queue::mock::{memfd, packet, Driver, Memory};
use vnet_queue::{Budget, Observer, Position, RingConfig, Rx, RxFilter, Tx, Waits};
use vnet_sanitizer::{Ring, Sanitizer, Shadow};

pub(crate) const SIZE: u16 = 64;
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);
/// The rings are looked at so often.
pub(crate) const TICK: Duration = Duration::from_millis(200);
/// The queues: not the first of their kind.
pub(crate) const RX: u16 = 4;
pub(crate) const TX: u16 = 5;
const RX_RING: u64 = 0x1_0000;
const TX_RING: u64 = 0x2_0000;
const BUFFERS: u64 = 0x10_0000;
const BUFFER_BYTES: u64 = 0x20_0000;

/// Takes as many frames as it is told to, and has as many to deliver.
#[derive(Debug, Default)]
pub(crate) struct Backend {
    pub(crate) takes: usize,
    pub(crate) has: usize,
}

impl Queue for Backend {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        let n = self.takes.min(batch.len());
        self.takes -= n;
        n
    }

    fn offloads(&self) -> Offloads {
        Offloads::ALL
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        while self.has > 0 {
            let Some(room) = ring.room(60) else { return };
            room.write(&[0x77; 60]);
            ring.commit(60, Meta::default());
            self.has -= 1;
        }
    }

    fn has_frames(&self) -> bool {
        self.has > 0
    }
}

pub(crate) struct Rig {
    pub(crate) mem: Memory,
    pub(crate) rx: Driver,
    pub(crate) tx: Driver,
    pub(crate) backend: Backend,
    pub(crate) sanitizer: Arc<Sanitizer>,
    rx_queue: Rx,
    tx_queue: Tx,
    rx_vector: Arc<Vector>,
    tx_vector: Arc<Vector>,
    /// The driver has masked both.
    pub(crate) masked: bool,
    /// Interrupts that come due are not raised yet.
    pub(crate) moderated: bool,
    now: Instant,
}

impl Rig {
    /// Both queues of a pair run, from `index` on, with an interrupt asked for the first entry.
    pub(crate) fn new(index: u16) -> Self {
        Self::with(index, 0)
    }

    /// The same, with these features.
    pub(crate) fn with(index: u16, features: u64) -> Self {
        let mem = Memory::new(&[
            (RX_RING, 0x1_0000),
            (TX_RING, 0x1_0000),
            (BUFFERS, BUFFER_BYTES),
            (BUFFERS + BUFFER_BYTES, 0x1000),
        ]);
        let now = Instant::now();
        let sanitizer = Arc::new(Sanitizer::new(PATIENCE, now));
        let rx = Driver::new(&mem, RX_RING, SIZE, features).start_at(index);
        let tx = Driver::new(&mem, TX_RING, SIZE, features).start_at(index);
        let (rx_vector, tx_vector): (Arc<Vector>, Arc<Vector>) = Default::default();
        let shadow = |queue, mut config: RingConfig, vector: &Arc<Vector>| {
            // Where the ring stands is for the engine to tell: it may be resumed.
            (config.index_avail, config.index_used) = (0, 0);
            let vector = Some(Arc::clone(vector));
            let ring = Ring {
                queue,
                config,
                vector,
            };
            Box::new(Shadow::new(Arc::clone(&sanitizer), ring))
        };
        let mut rx_queue = Rx::start(&rx.config, &mem.device()).unwrap();
        rx_queue.observe(shadow(RX, rx.config, &rx_vector));
        let mut tx_queue = Tx::start(&tx.config, &mem.device()).unwrap();
        tx_queue.observe(shadow(TX, tx.config, &tx_vector));
        Self {
            mem,
            rx,
            tx,
            backend: Backend::default(),
            sanitizer,
            rx_queue,
            tx_queue,
            rx_vector,
            tx_vector,
            masked: false,
            moderated: false,
            now,
        }
    }

    pub(crate) fn rx_buffer(head: u16) -> u64 {
        BUFFERS + u64::from(head) * 0x1000
    }

    /// Where two ranges of memory meet.
    pub(crate) fn two_ranges() -> u64 {
        BUFFERS + BUFFER_BYTES
    }

    pub(crate) fn tx_buffer(head: u16) -> u64 {
        Self::rx_buffer(SIZE + head)
    }

    /// The card cannot reach the buffers any more.
    pub(crate) fn take_buffers_away(&self) {
        assert_eq!(self.mem.space.unmap(BUFFERS, BUFFER_BYTES), 1);
    }

    /// It can again, as long as nobody has written to them.
    pub(crate) fn give_buffers_back(&self) {
        let mapping = Mapping {
            address: BUFFERS,
            size: BUFFER_BYTES,
            file: Some(memfd(BUFFER_BYTES)),
            offset: 0,
            read: true,
            write: true,
        };
        self.mem.space.map(mapping).unwrap();
    }

    /// Posts a receive buffer; true if the card wants a doorbell.
    pub(crate) fn post(&mut self, head: u16) -> bool {
        self.rx.chain(head, &[(Self::rx_buffer(head), 2048)], true);
        self.rx.offer(head)
    }

    /// Makes a frame available; true if the card wants a doorbell.
    pub(crate) fn offer(&mut self, head: u16) -> bool {
        let at = Self::tx_buffer(head);
        self.mem
            .write(at, &packet(NetHdr::default(), &[head as u8; 60]));
        self.tx.chain(head, &[(at, 72)], false);
        self.tx.offer(head)
    }

    /// The card serves the transmit queue, and may ask for a doorbell before it sleeps.
    pub(crate) fn serve_tx(&mut self, arm: bool) {
        let mem = self.mem.device();
        let (queue, budget) = (&mut self.tx_queue, Budget::default());
        loop {
            let outcome = queue.run(&mem, &mut self.backend, budget);
            assert_eq!(outcome.fault, None);
            if queue.interrupt_due(&mem).unwrap().is_some() && !self.moderated {
                queue.signalled();
                raise(&self.tx_vector, self.masked);
            }
            let arms = arm && outcome.waits == Waits::Driver;
            if !arms || !queue.rearm(&mem).unwrap() {
                break;
            }
        }
    }

    /// The card serves the receive queue.
    pub(crate) fn serve_rx(&mut self, arm: bool) {
        let (filter, mem) = (filter(), self.mem.device());
        let (queue, budget) = (&mut self.rx_queue, Budget::default());
        loop {
            let outcome = queue.run(&mem, &mut self.backend, &filter, budget);
            assert_eq!(outcome.fault, None);
            if queue.interrupt_due(&mem).unwrap().is_some() && !self.moderated {
                queue.signalled();
                raise(&self.rx_vector, self.masked);
            }
            let arms = arm && outcome.waits == Waits::Driver;
            if !arms || !queue.rearm(&mem).unwrap() {
                break;
            }
        }
    }

    /// A queue finds that the driver broke a rule, and stops.
    pub(crate) fn fail(&mut self, kind: u16) {
        let (mem, budget) = (self.mem.device(), Budget::default());
        self.backend.takes = usize::MAX;
        if kind == RX {
            let queue = &mut self.rx_queue;
            let outcome = queue.run(&mem, &mut self.backend, &filter(), budget);
            queue.accuse(&mem, outcome.fault.unwrap());
        } else {
            let queue = &mut self.tx_queue;
            let outcome = queue.run(&mem, &mut self.backend, budget);
            queue.accuse(&mem, outcome.fault.unwrap());
        }
    }

    pub(crate) fn doorbell(&mut self, kind: u16, value: u16) {
        let mem = self.mem.device();
        let tell = |observer: &mut dyn Observer, at: Position| {
            observer.doorbell(&mem, at, value.into());
        };
        match kind {
            RX => self.rx_queue.tell(tell),
            _ => self.tx_queue.tell(tell),
        }
    }

    /// Time goes by, in a guest that is alive or not.
    pub(crate) fn pass(&mut self, time: Duration, alive: bool) {
        let mem = self.mem.device();
        let tick = |observer: &mut dyn Observer, at: Position| observer.tick(&mem, at);
        for _ in 0..time.as_millis() / TICK.as_millis() {
            if alive {
                self.sanitizer.sign_of_life();
            }
            self.now += TICK;
            self.sanitizer.tick(self.now);
            self.rx_queue.tell(tick);
            self.tx_queue.tell(tick);
        }
    }

    /// The rules that were broken.
    pub(crate) fn rules(&self) -> Vec<&'static str> {
        let findings = self.sanitizer.findings();
        findings.by_rule().map(|(rule, _)| rule.id()).collect()
    }

    /// Insists that one rule was broken and no other, that it was on this queue, first with this
    /// descriptor, and that this was seen.
    #[track_caller]
    pub(crate) fn expect(&self, rule: &str, queue: u16, descriptor: Option<u16>, seen: &str) {
        assert_eq!(self.rules(), [rule]);
        let findings = self.sanitizer.findings();
        let (_, count) = findings.by_rule().next().unwrap();
        let first = &count.first[0];
        assert_eq!((first.queue, first.descriptor), (Some(queue), descriptor));
        assert_eq!(first.seen, seen);
    }
}

/// Raises an interrupt. A vector that takes it has somewhere to send it.
fn raise(vector: &Vector, masked: bool) {
    vector.raise();
    if !masked {
        vector.clear_pending();
    }
}

fn filter() -> RxFilter {
    RxFilter {
        promisc: true,
        mtu: 1500,
        ..RxFilter::default()
    }
}
