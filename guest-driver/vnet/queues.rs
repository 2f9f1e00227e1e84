// SPDX-License-Identifier: GPL-2.0

//! Bringing queues up and down.

use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};
use netdev::Locked;
use vnet_contract::{
    queue,
    regs, //
};
use vnet_ring::Memory;

use crate::{
    memory::RingMemory,
    nic::Nic,
    rx::Rx,
    shape::Shape,
    tx::Tx, //
};

impl<'a> Nic<'a> {
    /// Starts all queues; none when it fails.
    pub(crate) fn start_queues(&self, dev: &Locked<'_, Self>) -> Result {
        let queues = self.build_queues(self.shape())?;
        self.start_built(dev, queues)
    }

    /// Makes the queues of a shape, without telling the card of them.
    pub(crate) fn build_queues(&self, shape: Shape) -> Result<KVec<(Tx<'a>, Rx)>> {
        let mut queues = KVec::with_capacity(usize::from(shape.pairs), GFP_KERNEL)?;
        for pair in 0..shape.pairs {
            let tx = Tx::new(self, pair, shape.tx_ring)?;
            let rx = Rx::new(self, pair, shape)?;
            queues.push((tx, rx), GFP_KERNEL)?;
        }
        Ok(queues)
    }

    /// Starts queues of the shape in use; none when it fails.
    pub(crate) fn start_built(&self, dev: &Locked<'_, Self>, queues: KVec<(Tx<'a>, Rx)>) -> Result {
        self.write_mac(dev.mac());
        self.regs.write(regs::MTU, dev.mtu());
        self.restore_filter();
        self.restore_rss();
        self.write_rx_offloads(dev, dev.features());
        for pair in 0..self.max_pairs {
            self.forget_failure(pair);
        }
        for (pair, (tx, rx)) in (0..self.max_pairs).zip(queues) {
            if let Err(e) = self.start_pair(dev, pair, tx, rx) {
                netdev::err!(dev, "cannot start queue pair {pair}: {e:?}\n");
                self.stop_queues(dev);
                return Err(e);
            }
        }
        dev.start_tx();
        // An interrupt that came before its handler was there is made up for.
        dev.schedule_all();
        Ok(())
    }

    fn start_pair(&self, dev: &Locked<'_, Self>, pair: u16, tx: Tx<'a>, mut rx: Rx) -> Result {
        let (tx_index, rx_index) = (queue::tx_index(pair), queue::rx_index(pair));
        rx.fill(dev, pair)?;

        self.program(tx_index, pair, tx.memory());
        self.program(rx_index, pair, rx.memory());
        self.program_split(rx_index);
        self.restore_moderation(dev, pair);
        let posted = rx.publish();
        dev.start_channel(pair, tx, rx)?;

        // Whoever handles events waits, and then finds what has failed since.
        let mut control = self.control.lock();
        // First the one that an XDP program answers by, as soon as the other runs.
        for index in [tx_index, rx_index] {
            self.regs
                .write_queue(index, regs::Q_CTRL, regs::Q_CTRL_ENABLE);
            let status = self.regs.read_queue(index, regs::Q_STATUS);
            if status & regs::Q_STATUS_RUNNING == 0 || status == u32::MAX {
                self.report_queue(dev, index, status);
                return Err(EIO);
            }
            control.forget_error(index);
        }
        drop(control);
        // The ring was filled before the card looked at it.
        self.regs.ring_doorbell(rx_index, posted);
        Ok(())
    }

    /// Starts a pair anew of which a queue has failed; the others go on. What was in its rings is lost.
    pub(crate) fn restart_pair(&self, dev: &Locked<'_, Self>, pair: u16) -> Result {
        let shape = self.shape();
        if pair >= shape.pairs {
            return Err(EINVAL);
        }
        let tx = Tx::new(self, pair, shape.tx_ring)?;
        let rx = Rx::new(self, pair, shape)?;
        let queues = [queue::rx_index(pair), queue::tx_index(pair)];
        for index in queues {
            self.regs.write_queue(index, regs::Q_CTRL, 0);
        }
        if !queues.iter().all(|index| self.regs.queue_rests(*index)) {
            return Err(EIO);
        }
        dev.stop_channel(pair);
        self.forget_failure(pair);
        self.start_pair(dev, pair, tx, rx)?;
        dev.start_tx_queue(pair);
        dev.schedule_all();
        Ok(())
    }

    /// All that has failed of a pair, whose channel is stopped, is mended when it starts anew: what came
    /// to light since that was decided, too. It would be taken for a failure that came right after. Of a pair
    /// that does not start, nobody wants to know.
    fn forget_failure(&self, pair: u16) {
        let mut control = self.control.lock();
        for index in [queue::rx_index(pair), queue::tx_index(pair)] {
            control.ignore_error(index);
        }
        if let Some(broken) = self.broken.get(usize::from(pair)) {
            broken.store(false, Relaxed);
        }
    }

    /// Tells the card where the ring of a queue is.
    fn program(&self, index: u16, vector: u16, memory: &RingMemory) {
        let [desc, avail, used] = memory.addresses();
        let r = &self.regs;
        r.write_queue(index, regs::Q_SIZE, u32::from(memory.size()));
        r.write_queue(index, regs::Q_VECTOR, u32::from(vector));
        r.write_queue_addr(index, regs::Q_DESC_LO, regs::Q_DESC_HI, desc);
        r.write_queue_addr(index, regs::Q_AVAIL_LO, regs::Q_AVAIL_HI, avail);
        r.write_queue_addr(index, regs::Q_USED_LO, regs::Q_USED_HI, used);
        r.write_queue(index, regs::Q_INDEX, 0);
    }

    /// Stops all queues that run and frees what they hold.
    pub(crate) fn stop_queues(&self, dev: &Locked<'_, Self>) {
        if self.present() {
            for pair in 0..self.shape().pairs {
                self.regs
                    .write_queue(queue::rx_index(pair), regs::Q_CTRL, 0);
                self.regs
                    .write_queue(queue::tx_index(pair), regs::Q_CTRL, 0);
            }
            // Whoever resets it next need not ask.
            self.note_all_drops(self.shape().pairs);
            // When this is over, the card no longer touches rings or buffers.
            let rest = (0..self.shape().pairs)
                .flat_map(|pair| [queue::rx_index(pair), queue::tx_index(pair)])
                .all(|index| self.regs.queue_rests(index));
            if !rest && !self.regs.reset() {
                self.card_gone(dev);
            }
        }
        if !self.present() {
            self.cut_off();
        }
        for pair in 0..dev.channels() {
            dev.stop_channel(pair);
        }
    }

    /// Keeps a card that does not answer from memory that is about to be freed: it may be slow
    /// rather than dead, and still have frames to write.
    fn cut_off(&self) {
        self.regs.write(regs::CTRL, regs::CTRL_RESET);
        // The write arrives before the read, whatever that gives.
        let _ = self.regs.read(regs::STATUS);
        netdev::pci::clear_master(self.dev);
    }
}
