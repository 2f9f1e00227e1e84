// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A card with one hostile queue, what it must show when that has failed, and that it can be repaired.

use std::thread;
use std::time::Instant;

use vnet_contract::hdr;
use vnet_contract::queue::{rx_index, tx_index, Error, Kind};
use vnet_contract::regs;
use vnet_contract::ring::{DESC_F_NEXT, DESC_F_WRITE};
use vnet_testkit::{GuestRam, Nic, Options, RawQueue, Server, LIMIT};

use crate::common::{counter, options, own, round_trip};

pub(crate) const SIZE: u16 = 64;
pub(crate) const HDR: u32 = hdr::SIZE as u32;
/// Memory that the card may only read.
pub(crate) const READ_ONLY: u64 = 0x8000_0000;
/// Bus addresses that nobody ever maps.
pub(crate) const NOWHERE: u64 = 0xdead_0000_0000;

/// A card with two pairs: a hostile driver has one queue of the first.
pub(crate) struct Rig {
    pub(crate) nic: Nic,
    pub(crate) raw: RawQueue,
    pub(crate) kind: Kind,
    /// A page of ordinary memory.
    pub(crate) page: u64,
    // Keeps the memory that is mapped read-only alive.
    _read_only: GuestRam,
}

impl Rig {
    pub(crate) fn new(server: &Server, kind: Kind) -> Self {
        Self::with(server, kind, 0)
    }

    /// A rig that accepts more features than the usual ones.
    pub(crate) fn with(server: &Server, kind: Kind, features: u64) -> Self {
        let usual = options();
        let two = Options {
            pairs: 2,
            features: usual.features | features,
            ..usual
        };
        let mut nic = server.nic_with(two).unwrap();
        let read_only = GuestRam::new(READ_ONLY, 0x4000).unwrap();
        nic.card
            .map_range(&read_only, 0, READ_ONLY, 0x4000, false)
            .unwrap();
        let raw = RawQueue::new(&nic.ram, SIZE);
        let page = nic.ram.alloc(4096, 4096);
        let mut rig = Self {
            nic,
            raw,
            kind,
            page,
            _read_only: read_only,
        };
        rig.take_over();
        rig
    }

    pub(crate) fn queue(&self) -> u16 {
        match self.kind {
            Kind::Rx => rx_index(0),
            Kind::Tx => tx_index(0),
        }
    }

    pub(crate) fn reg(&mut self, reg: u32) -> u32 {
        let reg = regs::queue_reg(self.queue(), reg);
        self.nic.card.reg(reg).unwrap()
    }

    /// Replaces the honest driver of the queue. The ring is empty and good.
    pub(crate) fn take_over(&mut self) {
        let queue = self.queue();
        self.nic.stop(queue).unwrap();
        self.raw.restart();
        self.enable();
        assert_eq!(self.nic.card.queue_error(queue).unwrap(), None);
        self.nic.events.take();
    }

    pub(crate) fn enable(&mut self) {
        let rings = self.raw.ring.addresses();
        let queue = self.queue();
        self.nic.card.enable(queue, SIZE.into(), rings, 0).unwrap();
    }

    /// Lets the card look at the ring.
    pub(crate) fn kick(&mut self) {
        let (queue, index) = (self.queue(), self.raw.avail_index());
        self.nic.card.doorbell(queue, index).unwrap();
        if self.kind == Kind::Rx {
            // Buffers are looked at when a frame needs them.
            let frame = own(&self.nic, 60, 1);
            self.nic.send(0, &frame).unwrap();
        }
    }

    /// What the card must show after the queue has failed, and what must still work.
    pub(crate) fn assert_failed(&mut self, what: &str, error: Error, info: Option<u32>) {
        let queue = self.queue();
        let seen = self.nic.card.wait_queue_error(queue).unwrap();
        assert_eq!(seen, error, "{what}");
        if let Some(info) = info {
            assert_eq!(self.reg(regs::Q_ERROR_INFO), info, "{what}");
        }
        assert_eq!(self.reg(regs::Q_CTRL), 0, "{what}: still enabled");
        let running = self.reg(regs::Q_STATUS) & regs::Q_STATUS_RUNNING;
        assert_eq!(running, 0, "{what}: still running");
        let card = &mut self.nic.card;
        assert_eq!(card.reg(regs::QUEUE_ERRORS).unwrap(), 1 << queue, "{what}");
        assert!(self.nic.events.wait(LIMIT).unwrap(), "{what}: no event");
        let cause = card.reg(regs::EVENT_CAUSE).unwrap();
        assert_eq!(cause, regs::EVENT_QUEUE_ERROR, "{what}");
        card.set_reg(regs::EVENT_CAUSE, cause).unwrap();
        assert_eq!(card.reg(regs::EVENT_CAUSE).unwrap(), 0, "{what}");
        assert_eq!(counter(&mut self.nic, queue, regs::S_ERRORS), 1, "{what}");
        assert_eq!(self.raw.used_index(), 0, "{what}: a bad chain came back");
        // Neither the doorbell nor a new index wakes it.
        self.raw.move_index(1);
        let index = self.raw.avail_index();
        self.nic.card.doorbell(queue, index).unwrap();
        assert_eq!(self.nic.card.queue_error(queue).unwrap(), Some(error));
        // The other pair goes on.
        round_trip(&mut self.nic, 1, 7);
    }

    /// Starts the queue alone with an honest ring, then the whole card anew.
    pub(crate) fn assert_repairable(&mut self, what: &str) {
        self.take_over();
        let card = &mut self.nic.card;
        assert_eq!(card.reg(regs::QUEUE_ERRORS).unwrap(), 0, "{what}");
        self.offer_good();
        self.kick();
        self.wait_used();
        self.nic.restart().unwrap();
        assert_eq!(self.nic.card.reg(regs::QUEUE_ERRORS).unwrap(), 0, "{what}");
        for seed in 0..5 {
            round_trip(&mut self.nic, 0, seed);
            round_trip(&mut self.nic, 1, seed);
        }
        self.take_over();
    }

    /// Waits for the first chain of the ring to come back.
    pub(crate) fn wait_used(&self) {
        let end = Instant::now() + LIMIT;
        while self.raw.used_index() != 1 {
            assert!(Instant::now() < end, "nothing came back");
            thread::yield_now();
        }
    }

    /// A chain that breaks no rule, in a ring that is empty.
    pub(crate) fn offer_good(&mut self) {
        match self.kind {
            Kind::Tx => {
                self.nic.ram.write(self.page, &[0; 72]);
                self.raw.desc(0, self.page, HDR, DESC_F_NEXT, 1);
                self.raw.desc(1, self.page + 12, 60, 0, 0);
            }
            Kind::Rx => self.raw.desc(0, self.page, 2048, DESC_F_WRITE, 0),
        }
        self.raw.offer(0);
    }
}

/// A way to break a rule: its name, the error and detail that the card must give, and the deed.
pub(crate) type Case = (&'static str, Error, Option<u32>, fn(&mut Rig));

pub(crate) fn check(kind: Kind, cases: &[Case]) {
    check_with(kind, 0, cases);
}

pub(crate) fn check_with(kind: Kind, features: u64, cases: &[Case]) {
    let server = Server::start_with("loopback", &["--queues", "2"]).unwrap();
    let mut rig = Rig::with(&server, kind, features);
    for &(what, error, info, deed) in cases {
        deed(&mut rig);
        rig.kick();
        rig.assert_failed(what, error, info);
        rig.assert_repairable(what);
    }
}
