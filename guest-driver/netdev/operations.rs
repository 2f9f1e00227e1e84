// SPDX-License-Identifier: GPL-2.0

//! What a driver implements.

use kernel::{
    error::VTABLE_DEFAULT_ERROR,
    prelude::*, //
};

use crate::{
    coalesce::Level as ModerationLevel,
    ethtool,
    features::Features,
    qstats::{
        RxQueueStats,
        TxQueueStats, //
    },
    xdp::{
        Program,
        Refusal,
        XdpFrame, //
    },
    AddressList,
    Arming,
    Interrupt,
    LinkStats,
    Locked,
    Napi,
    NetDevice,
    Polled,
    RxMode,
    SkBuff,
    TxMeta,
    TxQueue, //
};

/// Behaviour of a network device; implemented by the driver's private data.
///
/// Methods take `&self`: many run at the same time. See the crate documentation for the state
/// that a method may change.
///
/// A device opens, stops and sends; all else is optional. What a driver does not implement the core is
/// not told of, so that it does without or refuses.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/phases/phase2_net_device.rs
/// impl Operations for Nic {
///     /// What the lock of the transmit queue guards: nothing yet.
///     type Tx = ();
///     type Rx = ();
///
///     fn open(&self, dev: &Locked<'_, Self>) -> Result {
///         netdev::info!(dev, "open\n");
///         dev.start_channel(0, (), ())?;
///         dev.set_carrier(true);
///         dev.start_tx();
///         Ok(())
///     }
///
///     fn stop(&self, dev: &Locked<'_, Self>) {
///         dev.stop_tx();
///         dev.set_carrier(false);
///         netdev::info!(dev, "stop, {} frames dropped so far\n", self.dropped.get());
///     }
///
///     fn start_xmit(
///         &self,
///         _dev: &NetDevice<Self>,
///         _queue: &TxQueue<'_>,
///         _tx: &mut (),
///         skb: SkBuff,
///         _meta: &TxMeta,
///     ) {
///         // One frame at a time, under the queue's lock: the counter has one writer.
///         self.dropped.add(1);
///         // Without this line the module does not link: see the page.
///         skb.drop_with(DropReason::DeviceNotReady);
///     }
///
///     fn stats(&self, _dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
///         stats.tx_dropped(self.dropped.get());
///     }
/// }
/// ```
#[vtable]
#[allow(unused_variables)] // of methods that are not implemented
pub trait Operations: ethtool::Operations + Sized + Send + Sync {
    /// State of a transmit queue, guarded by the queue's lock.
    type Tx: Send;
    /// State of a receive queue, used by one poll at a time.
    type Rx: Send;

    /// Brings the interface up: starts its channels. Those that run are stopped when it fails.
    ///
    /// Process context, RTNL held.
    fn open(&self, dev: &Locked<'_, Self>) -> Result;

    /// Takes the interface down: has the device leave all memory alone, and stops the channels;
    /// those left over are stopped afterwards. It cannot fail, even if the card is gone.
    ///
    /// Process context, RTNL held.
    fn stop(&self, dev: &Locked<'_, Self>);

    /// Sends a frame, which the callee owns.
    ///
    /// Bottom halves are disabled and the lock of the transmit queue is held.
    fn start_xmit(
        &self,
        dev: &NetDevice<Self>,
        queue: &TxQueue<'_>,
        tx: &mut Self::Tx,
        skb: SkBuff,
        meta: &TxMeta,
    );

    /// Takes at most `budget` received frames, and any number of completed transmissions. A device
    /// without this has no NAPI contexts.
    ///
    /// Softirq context. The poll asks the card not to interrupt: nothing but [`Self::arm`] asks for
    /// interrupts, which need not follow a poll that returns [`Polled::Idle`].
    fn poll(
        &self,
        dev: &NetDevice<Self>,
        napi: &Napi<'_, Self>,
        rx: &mut Self::Rx,
        budget: u32,
    ) -> Polled {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Asks the card for interrupts, and then looks for work once more. False if there is some: the
    /// channel is polled again.
    ///
    /// Softirq context, after a poll that ended with [`Polled::Idle`] and was not followed at once
    /// by another. Without this, a device interrupts whenever it likes.
    fn arm(&self, channel: &Arming<'_, Self>, rx: &mut Self::Rx) -> bool {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Frees frames that are sent, and nothing else: no receiving, and no word to the card of
    /// interrupts, for no poll follows that would ask for them again.
    ///
    /// Called by netpoll, that is to say a console on the network, possibly in hard interrupt
    /// context. The lock of the transmit queue is held.
    fn reclaim(
        &self,
        dev: &NetDevice<Self>,
        napi: &Napi<'_, Self>,
        queue: &TxQueue<'_>,
        tx: &mut Self::Tx,
    ) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called in a thread for every control interrupt, and once when the device is registered.
    fn event(&self, dev: &NetDevice<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Deferred work that [`NetDevice::schedule_work`] asked for; `events` are the bits given to it.
    ///
    /// Process context, RTNL held. Not called while the device is detached.
    fn work(&self, dev: &Locked<'_, Self>, events: usize) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A transmit queue has made no progress for [`Config::watchdog`](crate::Config).
    ///
    /// Softirq context: only note it, and schedule work.
    fn tx_timeout(&self, dev: &NetDevice<Self>, queue: u16) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The timer of [`Locked::start_timer`] has expired; it expires again by itself.
    ///
    /// Hard interrupt context, which the argument is the proof of.
    fn timer(&self, dev: &NetDevice<Self>, interrupt: &Interrupt<'_, Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called every [`Config::tick`](crate::Config) milliseconds while the interface is up and not
    /// in the hands of [`crate::pci::Power`].
    ///
    /// Softirq context: what takes time is for [`NetDevice::schedule_work`].
    fn tick(&self, dev: &NetDevice<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets the receive mode. An error makes the core try again later.
    ///
    /// Process context, RTNL held.
    fn set_rx_mode(
        &self,
        dev: &Locked<'_, Self>,
        mode: RxMode,
        unicast: &AddressList<'_>,
        multicast: &AddressList<'_>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the device's address to one that was checked to be valid for a station.
    ///
    /// Process context, RTNL held. On success the core's copy is updated.
    fn set_mac_address(&self, dev: &Locked<'_, Self>, mac: [u8; 6]) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the MTU to one within the limits of the configuration.
    ///
    /// Process context, RTNL held. On success the core's copy is updated.
    fn change_mtu(&self, dev: &Locked<'_, Self>, mtu: u32) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// True if the moderation of received frames is to adapt to the traffic. Asked only if
    /// [`Self::moderate`] is implemented, and with [`Self::carried`].
    fn adapts(&self) -> bool {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Frames and bytes received and sent so far by the channel of `rx`, to adapt by.
    fn carried(&self, rx: &Self::Rx) -> (u64, u64) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The level that now fits the traffic of a channel.
    ///
    /// Process context; the RTNL lock may be held by who waits for this to end.
    fn moderate(&self, channel: u16, level: ModerationLevel) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Statistics of the receive queue of a channel, whether in use or not. To be implemented with
    /// [`Self::tx_queue_stats`].
    fn rx_queue_stats(&self, channel: u16) -> RxQueueStats {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Statistics of the transmit queue of a channel, whether in use or not.
    fn tx_queue_stats(&self, channel: u16) -> TxQueueStats {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Of the offloads that the user wants, those that can be on as the device is now.
    ///
    /// Process context, RTNL held; asked anew when a program comes or goes.
    fn fix_features(&self, features: Features) -> Features {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Switches offloads on and off, so that these are on. The core's copy is updated on success.
    ///
    /// Process context, RTNL held.
    fn set_features(&self, dev: &Locked<'_, Self>, features: Features) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Prepares for received frames to be shown to a program, or no longer. To be implemented with
    /// [`Self::xdp_xmit`] and [`Self::xdp_flush`]. Called before the first
    /// frame is, with `Some`, and after the last one, with `None`; also, with `Some`, when another
    /// program takes the place of one. An error refuses the program. Where there is none any more,
    /// it is for the log only, and the driver may try again while there is no program
    /// ([`Locked::has_program`]), and then has [`Locked::update_features`] called.
    ///
    /// Process context, RTNL held; the interface may be down.
    fn set_xdp(&self, dev: &Locked<'_, Self>, program: Option<Program>) -> Result<(), Refusal> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Puts a frame of a program into a transmit queue, or gives it back if there is no room. The
    /// card need not be told before [`Self::xdp_flush`].
    ///
    /// Softirq context; the lock of the transmit queue is held.
    fn xdp_xmit(
        &self,
        dev: &NetDevice<Self>,
        queue: &TxQueue<'_>,
        tx: &mut Self::Tx,
        frame: XdpFrame,
    ) -> Result<(), XdpFrame> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Tells the card of frames of programs. Context as for [`Self::xdp_xmit`].
    fn xdp_flush(&self, dev: &NetDevice<Self>, queue: &TxQueue<'_>, tx: &mut Self::Tx) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Adds up the statistics. Any context; may run at any time.
    fn stats(&self, dev: &NetDevice<Self>, stats: &mut LinkStats<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}
