// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A pair with guest memory, rings and interrupts around it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use vnet_backend::Queue;
use vnet_contract::hdr::NetHdr;
use vnet_contract::queue::Kind;
use vnet_irq::{EventFd, Vector};
use vnet_queue::mock::{packet, Driver, Memory};
use vnet_worker::{Fault, Options, Pair, Report, RxFilter};

pub(crate) const SIZE: u16 = 64;
const RX_RING: u64 = 0x1_0000;
const TX_RING: u64 = 0x2_0000;
/// Buffers of the receive ring, one page per descriptor, then those of the transmit ring.
const BUFFERS: u64 = 0x10_0000;
const PAGE: u64 = 0x1000;

/// What must happen happens within this time, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that another thread does.
pub(crate) fn eventually(what: &str, mut f: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !f() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[derive(Debug, Default)]
pub(crate) struct Reports {
    pub(crate) queues: Mutex<Vec<(u16, Fault)>>,
    pub(crate) pairs: Mutex<Vec<u16>>,
}

impl Report for Reports {
    fn queue_failed(&self, queue: u16, fault: Fault) {
        self.queues.lock().unwrap().push((queue, fault));
    }

    fn pair_failed(&self, pair: u16) {
        self.pairs.lock().unwrap().push(pair);
    }
}

pub(crate) struct Rig {
    pub(crate) pair: Pair,
    pub(crate) mem: Memory,
    pub(crate) rx: Driver,
    pub(crate) tx: Driver,
    pub(crate) reports: Arc<Reports>,
    pub(crate) vector: Arc<Vector>,
    interrupt: OwnedFd,
}

impl Rig {
    /// A pair with nothing started.
    pub(crate) fn new(backend: impl Queue + 'static, inline_doorbells: bool) -> Self {
        Self::with(
            backend,
            Options {
                inline_doorbells,
                ..Options::default()
            },
        )
    }

    /// A pair that works like this, with nothing started.
    pub(crate) fn with(backend: impl Queue + 'static, options: Options) -> Self {
        Self::with_index(3, backend, options)
    }

    /// The same for one of several pairs.
    pub(crate) fn with_index(index: u16, backend: impl Queue + 'static, options: Options) -> Self {
        let mem = Memory::new(&[
            (RX_RING, 0x1_0000),
            (TX_RING, 0x1_0000),
            (BUFFERS, 2 * u64::from(SIZE) * PAGE),
        ]);
        let reports = Arc::new(Reports::default());
        let report: Arc<dyn Report> = reports.clone();
        let pair = Pair::spawn(index, Box::new(backend), mem.space.clone(), report, options);
        let pair = pair.unwrap();
        let interrupt = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let vector = Arc::new(Vector::default());
        vector.attach(EventFd::new(interrupt.try_clone().unwrap()).unwrap());
        let rig = Self {
            rx: Driver::new(&mem, RX_RING, SIZE, 0),
            tx: Driver::new(&mem, TX_RING, SIZE, 0),
            pair,
            mem,
            reports,
            vector,
            interrupt,
        };
        rig.pair.set_rx_filter(RxFilter {
            promisc: true,
            mtu: 1500,
            ..RxFilter::default()
        });
        rig
    }

    /// A pair with both queues running and no buffers posted.
    pub(crate) fn running(backend: impl Queue + 'static, inline_doorbells: bool) -> Self {
        Self::new(backend, inline_doorbells).start_both()
    }

    pub(crate) fn start_both(self) -> Self {
        self.start(Kind::Rx);
        self.start(Kind::Tx);
        self
    }

    pub(crate) fn start(&self, kind: Kind) {
        let config = match kind {
            Kind::Rx => self.rx.config,
            Kind::Tx => self.tx.config,
        };
        self.pair
            .start(kind, config, Some(Arc::clone(&self.vector)))
            .unwrap();
    }

    pub(crate) fn rx_buffer(head: u16) -> u64 {
        BUFFERS + u64::from(head) * PAGE
    }

    pub(crate) fn tx_buffer(head: u16) -> u64 {
        Self::rx_buffer(SIZE + head)
    }

    /// Posts a receive buffer; rings if the device asked for it.
    pub(crate) fn post(&mut self, head: u16) {
        let at = Self::rx_buffer(head);
        self.rx.chain(head, &[(at, 2048)], true);
        if self.rx.offer(head) {
            self.pair.doorbell(Kind::Rx);
        }
    }

    /// Sends a frame; rings if the device asked for it.
    pub(crate) fn send(&mut self, head: u16, frame: &[u8]) {
        let at = Self::tx_buffer(head);
        self.mem.write(at, &packet(NetHdr::default(), frame));
        let len = (12 + frame.len()) as u32;
        self.tx.chain(head, &[(at, len)], false);
        if self.tx.offer(head) {
            self.pair.doorbell(Kind::Tx);
        }
    }

    /// Takes a received frame: head and bytes.
    pub(crate) fn take(&mut self) -> Option<(u16, Vec<u8>)> {
        let (head, len) = self.rx.take_used()?;
        let bytes = self.mem.read(Self::rx_buffer(head as u16), len as usize);
        Some((head as u16, bytes[12..].to_vec()))
    }

    /// Sleeps until an interrupt comes. False if none does.
    pub(crate) fn interrupted(&self) -> bool {
        let timeout = Timespec {
            tv_sec: PATIENCE.as_secs() as i64,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.interrupt, PollFlags::IN)];
        let n = poll(&mut fds, Some(&timeout)).unwrap();
        let _ = rustix::io::read(&self.interrupt, &mut [0; 8]);
        n > 0
    }
}
