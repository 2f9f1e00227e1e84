// SPDX-License-Identifier: GPL-2.0

//! The data of one card, and the operations of its network device.

use kernel::{
    device::Bound,
    new_mutex, pci,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            AtomicFlag,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
};
use netdev::{
    coalesce::{
        Coalesce,
        Level, //
    },
    AddressList,
    Arming,
    Features,
    LinkStats,
    Locked,
    Napi,
    NetDevice,
    Operations,
    Polled,
    Program,
    Refusal,
    RxMode,
    RxQueueStats,
    SkBuff,
    TxMeta,
    TxQueue,
    TxQueueStats,
    XdpFrame, //
};
use vnet_contract::regs;

use crate::{
    events::{
        self,
        Control, //
    },
    filter::Filter,
    moderation,
    poll,
    probe::Identity,
    regs::Registers,
    rss::Rss,
    rx::Rx,
    shape::Shape,
    stats::{
        CardCounters,
        RxStats,
        TxStats, //
    },
    tx::Tx, //
};

/// A card. Shared by everything that uses it: fields are immutable, atomic or locked.
pub(crate) struct Nic<'a> {
    pub(crate) dev: &'a pci::Device<Bound>,
    pub(crate) regs: Registers<'a>,
    pub(crate) identity: Identity,
    /// Queue pairs that can run: pair `i` has interrupt vector `i`, and control the one after the
    /// last.
    pub(crate) max_pairs: u16,
    /// What runs of them. Changed under the RTNL lock, and ordered after it.
    pub(crate) shape: Pin<KBox<Mutex<Shape>>>,
    /// Interrupt moderation. Ordered after the RTNL lock.
    pub(crate) coalesce: Pin<KBox<Mutex<Coalesce>>>,
    /// The part of it that polls want to know.
    pub(crate) adaptive: AtomicFlag,
    /// Receive side scaling, if the card has it. Ordered after the RTNL lock.
    pub(crate) rss: Option<Pin<KBox<Mutex<Rss>>>>,
    /// Counters of each pair that can run. Those of a pair that does not are kept.
    pub(crate) queue_stats: KVec<(Arc<TxStats>, Arc<RxStats>)>,
    pub(crate) counters: CardCounters,
    /// `NETIF_MSG_*`: which debug messages are printed.
    pub(crate) message_level: Atomic<u32>,
    /// Speed of the link in Mbit/s as the card last told.
    pub(crate) link_speed: Atomic<u32>,
    /// `LINK` as the card last told.
    pub(crate) link: Atomic<u32>,
    /// Set when the card was found not to answer. Nothing is expected of it from then on.
    pub(crate) gone: AtomicFlag,
    /// What the stack asked for, kept for when the card forgets it. Ordered after the RTNL lock.
    pub(crate) filter: Pin<KBox<Mutex<Filter>>>,
    /// Set when a receive queue could not get memory and has no interrupt to hope for.
    pub(crate) starved: AtomicFlag,
    /// Set while the queues stay stopped after a failure, until the next attempt. Written with the lock of
    /// `control` held.
    pub(crate) given_up: AtomicFlag,
    /// Channels whose next poll is to look for a lost interrupt.
    pub(crate) looks: KVec<AtomicFlag>,
    /// Pairs of which a queue has failed, to be started anew.
    pub(crate) broken: KVec<AtomicFlag>,
    /// Ticks so far.
    ticks: Atomic<u32>,
    /// What handling events needs to know. Ordered after the RTNL lock.
    pub(crate) control: Pin<KBox<Mutex<Control>>>,
}

impl<'a> Nic<'a> {
    pub(crate) fn new(
        dev: &'a pci::Device<Bound>,
        regs: Registers<'a>,
        identity: Identity,
        shape: Shape,
        rss: Option<Rss>,
        queue_stats: KVec<(Arc<TxStats>, Arc<RxStats>)>,
    ) -> Result<Self> {
        let coalesce = moderation::initial(identity.features);
        let (looks, broken) = (flags(queue_stats.len())?, flags(queue_stats.len())?);
        Ok(Self {
            dev,
            regs,
            identity,
            max_pairs: queue_stats.len() as u16,
            shape: KBox::pin_init(new_mutex!(shape), GFP_KERNEL)?,
            coalesce: KBox::pin_init(new_mutex!(coalesce), GFP_KERNEL)?,
            adaptive: AtomicFlag::new(coalesce.adaptive_rx),
            rss: match rss {
                Some(rss) => Some(KBox::pin_init(new_mutex!(rss), GFP_KERNEL)?),
                None => None,
            },
            queue_stats,
            counters: CardCounters::default(),
            message_level: Atomic::new(0),
            link_speed: Atomic::new(regs::LINK_SPEED_UNKNOWN),
            link: Atomic::new(0),
            gone: AtomicFlag::new(false),
            filter: KBox::pin_init(new_mutex!(Filter::default()), GFP_KERNEL)?,
            starved: AtomicFlag::new(false),
            given_up: AtomicFlag::new(false),
            looks,
            broken,
            ticks: Atomic::new(0),
            control: KBox::pin_init(new_mutex!(Control::default()), GFP_KERNEL)?,
        })
    }

    /// True if this kind of debug message is wanted.
    #[inline]
    pub(crate) fn wants(&self, message: u32) -> bool {
        self.message_level.load(Relaxed) & message != 0
    }

    /// True while the card is thought to answer.
    #[inline]
    pub(crate) fn present(&self) -> bool {
        !self.gone.load(Relaxed)
    }
}

/// So many flags, none of them set.
fn flags(count: usize) -> Result<KVec<AtomicFlag>> {
    let mut flags = KVec::with_capacity(count, GFP_KERNEL)?;
    for _ in 0..count {
        flags.push(AtomicFlag::new(false), GFP_KERNEL)?;
    }
    Ok(flags)
}

impl Drop for Nic<'_> {
    fn drop(&mut self) {
        // Whoever gets the card next finds it silent, whatever state this driver left it in.
        self.regs.write(regs::CTRL, regs::CTRL_RESET);
    }
}

#[vtable]
impl<'a> Operations for Nic<'a> {
    type Tx = Tx<'a>;
    type Rx = Rx;

    fn open(&self, dev: &Locked<'_, Self>) -> Result {
        if !self.is_set_up() {
            self.set_up(dev)?;
        }
        self.start_queues(dev)?;
        self.update_link(dev);
        Ok(())
    }

    fn stop(&self, dev: &Locked<'_, Self>) {
        // In the middle of a reset by the PCI core they are stopped, and the card does not answer.
        if dev.is_present() {
            self.stop_queues(dev);
        }
    }

    #[inline]
    fn start_xmit(
        &self,
        dev: &NetDevice<Self>,
        queue: &TxQueue<'_>,
        tx: &mut Tx<'a>,
        skb: SkBuff,
        meta: &TxMeta,
    ) {
        tx.send(self, dev, queue, skb, meta);
    }

    #[inline]
    fn poll(
        &self,
        dev: &NetDevice<Self>,
        napi: &Napi<'_, Self>,
        rx: &mut Rx,
        budget: u32,
    ) -> Polled {
        poll::poll(self, dev, napi, rx, budget)
    }

    #[inline]
    fn arm(&self, channel: &Arming<'_, Self>, rx: &mut Rx) -> bool {
        poll::arm(channel, rx)
    }

    fn reclaim(
        &self,
        dev: &NetDevice<Self>,
        napi: &Napi<'_, Self>,
        queue: &TxQueue<'_>,
        tx: &mut Tx<'a>,
    ) {
        // The ring remembers a violation, and the next poll acts on it.
        let _ = tx.reclaim(dev, queue, Some(napi));
    }

    fn event(&self, dev: &NetDevice<Self>) {
        self.handle_events(dev);
    }

    fn work(&self, dev: &Locked<'_, Self>, events: usize) {
        self.handle_work(dev, events);
    }

    fn tx_timeout(&self, dev: &NetDevice<Self>, queue: u16) {
        if self.runs() {
            self.tx_stuck(dev, queue);
        }
    }

    fn tick(&self, dev: &NetDevice<Self>) {
        // One tick runs at a time.
        let ticks = self.ticks.load(Relaxed);
        self.ticks.store(ticks.wrapping_add(1), Relaxed);
        if ticks % events::TICKS_PER_CHECK == 0 {
            dev.schedule_work(events::WORK_CHECK);
        }
        if self.runs() {
            self.look_for_lost(dev);
        }
    }

    fn set_rx_mode(
        &self,
        _dev: &Locked<'_, Self>,
        mode: RxMode,
        unicast: &AddressList<'_>,
        multicast: &AddressList<'_>,
    ) -> Result {
        self.change_filter(mode, unicast, multicast);
        Ok(())
    }

    fn set_mac_address(&self, _dev: &Locked<'_, Self>, mac: [u8; 6]) -> Result {
        self.write_mac(mac);
        Ok(())
    }

    fn change_mtu(&self, _dev: &Locked<'_, Self>, mtu: u32) -> Result {
        // Receive buffers do not depend on the MTU: a frame takes as many as it needs. But an XDP
        // program may be made for one.
        if !self.shape().carries(mtu) {
            return Err(EINVAL);
        }
        if self.present() {
            self.regs.write(regs::MTU, mtu);
        }
        Ok(())
    }

    #[inline]
    fn adapts(&self) -> bool {
        self.adaptive.load(Relaxed)
    }

    fn carried(&self, rx: &Rx) -> (u64, u64) {
        let received = &rx.stats().queue;
        let (packets, bytes) = (received.packets.get(), received.bytes.get());
        match self.queue_stats.get(usize::from(rx.index / 2)) {
            Some((tx, _)) => (
                packets.wrapping_add(tx.queue.packets.get()),
                bytes.wrapping_add(tx.queue.bytes.get()),
            ),
            None => (packets, bytes),
        }
    }

    fn moderate(&self, channel: u16, level: Level) {
        self.adapt_moderation(channel, level);
    }

    fn rx_queue_stats(&self, channel: u16) -> RxQueueStats {
        self.note_rx_drops(channel);
        self.queue_stats
            .get(usize::from(channel))
            .map_or_else(RxQueueStats::default, |(_, rx)| rx.told())
    }

    fn tx_queue_stats(&self, channel: u16) -> TxQueueStats {
        self.note_tx_drops(channel);
        self.queue_stats
            .get(usize::from(channel))
            .map_or_else(TxQueueStats::default, |(tx, _)| tx.told())
    }

    fn fix_features(&self, features: Features) -> Features {
        match self.shape().program {
            None => features,
            // It is shown frames as they were on the wire.
            Some(_) => features.without(Features::RX_CHECKSUM.with(Features::RX_GRO)),
        }
    }

    fn set_features(&self, dev: &Locked<'_, Self>, features: Features) -> Result {
        // A card that is being reset or gone gets to know when its queues are started again.
        if dev.is_running() && dev.is_present() && self.runs() {
            self.write_rx_offloads(dev, features);
        }
        Ok(())
    }

    fn set_xdp(&self, dev: &Locked<'_, Self>, program: Option<Program>) -> Result<(), Refusal> {
        self.change_program(dev, program)
    }

    #[inline]
    fn xdp_xmit(
        &self,
        _dev: &NetDevice<Self>,
        queue: &TxQueue<'_>,
        tx: &mut Tx<'a>,
        frame: XdpFrame,
    ) -> Result<(), XdpFrame> {
        tx.send_frame(self, queue, frame)
    }

    fn xdp_flush(&self, dev: &NetDevice<Self>, _queue: &TxQueue<'_>, tx: &mut Tx<'a>) {
        tx.tell(self, dev);
    }

    fn stats(&self, _dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
        for (tx, rx) in &self.queue_stats {
            stats.rx_missed_errors(rx.missed.get());
            let (tx, rx) = (&tx.queue, &rx.queue);
            stats.tx_packets(tx.packets.get());
            stats.tx_bytes(tx.bytes.get());
            stats.tx_dropped(tx.dropped.get());
            stats.tx_errors(tx.errors.get());
            stats.rx_packets(rx.packets.get());
            stats.rx_bytes(rx.bytes.get());
            stats.rx_dropped(rx.dropped.get());
            stats.rx_errors(rx.bad_frames.get());
            stats.multicast(rx.multicast.get());
        }
    }
}
