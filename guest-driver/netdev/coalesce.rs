// SPDX-License-Identifier: GPL-2.0

//! Interrupt moderation: what `ethtool -c` shows and sets, and the kernel's library that adapts it
//! to the traffic, DIM.
//!
//! C header: [`include/linux/dim.h`](srctree/include/linux/dim.h)

use kernel::{
    bindings,
    container_of,
    error::from_result,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    },
    types::Opaque, //
};

use crate::{
    bindings as b,
    channel::Channel,
    error::EOPNOTSUPP,
    ethtool::Answer,
    vtable::Callbacks,
    NetDevice,
    Operations, //
};

/// How long an interrupt may wait.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/moderation.rs
/// const NONE: Moderation = Moderation {
///     usecs: 0,
///     frames: 0,
/// };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moderation {
    /// Microseconds; zero: not at all.
    pub usecs: u32,
    /// Frames that end the wait; zero: no number does.
    pub frames: u32,
}

/// Interrupt moderation of a device.
///
/// Told by [`crate::ethtool::Operations::coalesce`], in process context with the RTNL lock held.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/moderation.rs
/// const DEFAULT: Coalesce = Coalesce {
///     rx: NONE,
///     // The time is also the longest that a frame which was sent stays with the driver.
///     tx: Moderation {
///         usecs: 250,
///         frames: 64,
///     },
///     adaptive_rx: true,
/// };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coalesce {
    /// For received frames.
    pub rx: Moderation,
    /// For frames that are sent.
    pub tx: Moderation,
    /// Received frames choose a [`Level`] by themselves, in place of `rx`.
    pub adaptive_rx: bool,
}

/// Which of [`Self::COUNT`] steps of moderation fits the traffic: the first is the shortest.
///
/// # Invariants
///
/// The number is less than [`Self::COUNT`], so that it is an index into an array of that length.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/moderation.rs
/// pub(crate) fn adapt_moderation(&self, pair: u16, level: Level) {
///     let coalesce = self.coalesce.lock();
///     // It may have been switched off since the decision was made.
///     if coalesce.adaptive_rx && self.present() {
///         self.write_queue_moderation(queue::rx_index(pair), LEVELS[level.index()]);
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(u8);

impl Level {
    /// Number of levels.
    pub const COUNT: usize = b::NET_DIM_PARAMS_NUM_PROFILES as usize;

    /// The level as an index.
    pub fn index(self) -> usize {
        usize::from(self.0).min(Self::COUNT - 1)
    }
}

/// Has the library look at the traffic every so many interrupts, which is as many as it wants to
/// see before it decides: the polls in between cost one comparison.
const EVENTS: u64 = b::DIM_NEVENTS as u64;

/// What a channel had carried at one time.
pub(crate) struct Seen {
    events: u64,
    packets: u64,
    bytes: u64,
    time: Instant<Monotonic>,
}

impl Seen {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            events: 0,
            packets: 0,
            bytes: 0,
            time: Instant::now(),
        }
    }

    /// True if there were so few and small frames that somebody waits for each: requests and
    /// responses. The library goes by rates alone. It would try to have fewer interrupts here, too,
    /// and to wait for company that does not come only makes the next frame come later.
    fn is_sparse_since(&self, before: &Self) -> bool {
        let events = self.events.wrapping_sub(before.events);
        let packets = self.packets.wrapping_sub(before.packets);
        let bytes = self.bytes.wrapping_sub(before.bytes);
        let micros = (self.time - before.time).as_micros_ceil().unsigned_abs();
        packets < events.saturating_mul(SPARSE_PACKETS)
            && bytes < events.saturating_mul(SPARSE_BYTES)
            && micros > events.saturating_mul(SPARSE_MICROS)
    }
}

/// Per interrupt, both directions: fewer frames and bytes than this, and more microseconds.
const SPARSE_PACKETS: u64 = 4;
const SPARSE_BYTES: u64 = 2048;
const SPARSE_MICROS: u64 = 40;

impl<T: Operations> Channel<T> {
    /// Prepares the adaptation. Called once, before the channel is started.
    pub(crate) fn init_adaptation(self: Pin<&Self>) {
        // SAFETY: the channel is pinned, and nobody uses the structure yet.
        unsafe { b::nd_work_init(&raw mut (*self.dim.get()).work, Some(Self::adapt_work)) }
    }

    /// Looks at the traffic, at the end of a poll.
    ///
    /// # Safety
    ///
    /// The caller is the poll of the channel, and has the exclusive use of its state.
    #[inline]
    pub(crate) unsafe fn adapt(&self, dev: &NetDevice<T>, rx: &T::Rx) {
        if !T::HAS_MODERATE {
            return;
        }
        let events = self.interrupts.get();
        // SAFETY: by the caller; only polls use this field.
        let seen = unsafe { &mut *self.dim_seen.get() };
        if events.wrapping_sub(seen.events) < EVENTS {
            return;
        }
        if !dev.ops().adapts() {
            seen.events = events;
            return;
        }
        let (packets, bytes) = dev.ops().carried(rx);
        let now = Seen {
            events,
            packets,
            bytes,
            time: Instant::now(),
        };
        let waits = now.is_sparse_since(seen);
        *seen = now;
        // SAFETY: the structure is set up, and one poll at a time calls these.
        unsafe {
            if waits {
                b::nd_dim_restart(self.dim.get());
            } else {
                b::nd_dim(self.dim.get(), events as u16, packets, bytes);
            }
        }
    }

    /// The level that was decided last.
    fn level(&self) -> Level {
        // SAFETY: the structure is valid; a byte, which the library may be changing.
        Level(unsafe { (&raw const (*self.dim.get()).profile_ix).read_volatile() })
    }

    /// Waits for the library's work. Process context, NAPI disabled.
    pub(crate) fn end_adaptation(&self) {
        // SAFETY: the work was set up, and nobody schedules it: only polls do.
        unsafe { b::nd_dim_stop(self.dim.get()) };
    }

    /// Tells the driver what the library decided.
    ///
    /// # Safety
    ///
    /// `work` is in the `dim` of a channel that was added to a device registered for `T`.
    unsafe extern "C" fn adapt_work(work: *mut bindings::work_struct) {
        // SAFETY: by the caller; the channel waits for its work before it goes.
        let (channel, dim, dev) = unsafe {
            let dim = container_of!(work, b::dim, work);
            let channel = &*container_of!(Opaque::cast_from(dim), Self, dim);
            (channel, dim, channel.device())
        };
        if T::HAS_MODERATE {
            dev.ops().moderate(channel.index(), channel.level());
        }
        // SAFETY: the library leaves the field, a byte, alone until it says that it may go on.
        unsafe {
            (&raw mut (*dim).state).write_volatile(b::dim_state_DIM_START_MEASURE as u8);
        }
    }
}

impl<T: Operations> NetDevice<T> {
    /// The level of moderation that last fitted the traffic of a channel.
    pub fn moderation_level(&self, channel: u16) -> Level {
        self.channel(channel).map_or(Level(0), Channel::level)
    }
}

impl<T: Operations> Callbacks<T> {
    /// Which of the many settings devices have.
    pub(crate) const COALESCE: u32 = b::ND_COALESCE;

    /// Interrupt moderation.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, and `settings` is zeroed and not shared.
    pub(crate) unsafe extern "C" fn get_coalesce(
        dev: *mut b::net_device,
        settings: *mut b::ethtool_coalesce,
        _kernel: *mut b::kernel_ethtool_coalesce,
        _extack: *mut b::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: the core gives a device that was registered for `T` and a structure to fill.
        let (dev, settings) = unsafe { (NetDevice::<T>::from_raw(dev), &mut *settings) };
        from_result(|| {
            let coalesce = dev.ops().coalesce().ok_or(EOPNOTSUPP)?;
            settings.rx_coalesce_usecs = coalesce.rx.usecs;
            settings.rx_max_coalesced_frames = coalesce.rx.frames;
            settings.tx_coalesce_usecs = coalesce.tx.usecs;
            settings.tx_max_coalesced_frames = coalesce.tx.frames;
            settings.use_adaptive_rx_coalesce = u32::from(coalesce.adaptive_rx);
            Ok(0)
        })
    }

    /// Changes the interrupt moderation.
    ///
    /// # Safety
    ///
    /// `dev` was registered for `T`, the RTNL lock is held, `settings` is valid, and `extack` is
    /// null or valid and not shared.
    pub(crate) unsafe extern "C" fn set_coalesce(
        dev: *mut b::net_device,
        settings: *mut b::ethtool_coalesce,
        _kernel: *mut b::kernel_ethtool_coalesce,
        extack: *mut b::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: the core gives a device that was registered for `T`, with the RTNL lock held, and
        // valid structures.
        let (dev, settings, mut answer) =
            unsafe { (Self::locked(dev), &*settings, Answer::from_raw(extack)) };
        let coalesce = Coalesce {
            rx: Moderation {
                usecs: settings.rx_coalesce_usecs,
                frames: settings.rx_max_coalesced_frames,
            },
            tx: Moderation {
                usecs: settings.tx_coalesce_usecs,
                frames: settings.tx_max_coalesced_frames,
            },
            adaptive_rx: settings.use_adaptive_rx_coalesce != 0,
        };
        from_result(|| {
            dev.ops().set_coalesce(&dev, coalesce, &mut answer)?;
            Ok(0)
        })
    }
}
