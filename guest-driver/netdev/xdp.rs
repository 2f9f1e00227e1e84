// SPDX-License-Identifier: GPL-2.0

//! XDP: programs that decide about received frames before the stack sees them, and frames that such
//! programs send.
//!
//! # Life of a program
//!
//! The core hands a program over with `ndo_bpf`, under the RTNL lock. A poll takes the program once,
//! when it begins ([`Napi::xdp`]), and uses it to its end: it runs with bottom halves disabled,
//! which is an RCU read-side critical section, and a program that is put is freed after a grace
//! period. So programs are exchanged while queues run. What must change when the first one comes or
//! the last one goes, such as the layout of buffers, is up to [`Operations::set_xdp`].
//!
//! # Life of a frame
//!
//! Whole pages of the channel's pool become an [`XdpBuff`]. [`Xdp::run`] consumes it: it comes back to go
//! up the stack, or as an [`XdpFrame`] to be sent, or it was redirected or dropped. An [`XdpFrame`]
//! may come from another device as well, by `ndo_xdp_xmit`.
//!
//! C header: [`include/net/xdp.h`](srctree/include/net/xdp.h)

use core::{
    cell::Cell,
    marker::PhantomData,
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ptr::NonNull,
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    error::to_result,
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full, //
    },
    types::Opaque,
};

use crate::{
    bindings as b,
    dma::{
        SegmentSpace,
        Segments, //
    },
    error::ENETDOWN,
    skb::RxSkb,
    Locked,
    Napi,
    NetDevice,
    Operations,
    PoolBuffer,
    PoolParams,
    PAGE_SIZE, //
};

/// Bytes that programs may rely on before a frame.
pub const XDP_HEADROOM: u32 = b::ND_XDP_HEADROOM;
/// Bytes to leave free at the end of a page that becomes the linear part of a frame: its fragments
/// are listed there.
pub const XDP_TAILROOM: u32 = b::ND_XDP_TAILROOM;

/// What a device can do, for `xdp_features`. Frames of other devices are sent in as many parts as
/// they have, whether a program of this one may see such frames or not.
pub(crate) const fn features(frags: bool) -> u32 {
    b::netdev_xdp_act_NETDEV_XDP_ACT_BASIC
        | b::netdev_xdp_act_NETDEV_XDP_ACT_REDIRECT
        | b::netdev_xdp_act_NETDEV_XDP_ACT_NDO_XMIT
        | b::netdev_xdp_act_NETDEV_XDP_ACT_NDO_XMIT_SG
        | if frags {
            b::netdev_xdp_act_NETDEV_XDP_ACT_RX_SG
        } else {
            0
        }
}

/// What a driver has to know of a program.
///
/// The argument of [`Operations::set_xdp`].
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/xdp.rs
/// Some(Program { frags: false }) => FIRST,
/// Some(Program { frags: true }) => FIRST * u32::from(MAX_BUFFERS),
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// It takes frames of more than one buffer.
    pub frags: bool,
}

/// Why a driver refuses a program.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/xdp.rs
/// return Err(Refusal {
///     error: EBUSY,
///     message: c"tcp-data-split is on, and a program has no use for it",
/// });
/// ```
#[derive(Debug)]
pub struct Refusal {
    /// The error that the caller gets.
    pub error: Error,
    /// What the user is told beside it.
    pub message: &'static CStr,
}

/// Where the program of a device is. Written under the RTNL lock; owns a reference.
pub(crate) struct Slot(Atomic<*mut b::bpf_prog>);

impl Slot {
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(core::ptr::null_mut()))
    }

    pub(crate) fn get(&self) -> Option<NonNull<b::bpf_prog>> {
        NonNull::new(self.0.load(Acquire))
    }

    /// Puts a program in, or none, and releases the one before.
    ///
    /// # Safety
    ///
    /// `program` is null, or a reference to it is passed on.
    unsafe fn set(&self, program: *mut b::bpf_prog) {
        let before = self.0.xchg(program, Full);
        if !before.is_null() {
            // SAFETY: the slot owned this reference. Polls that still use the program end before
            // the grace period does after which it is freed.
            unsafe { b::bpf_prog_put(before) }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: null. (The core takes the program away when it unregisters the device.)
        unsafe { self.set(core::ptr::null_mut()) }
    }
}

/// Exchanges the program of a device.
///
/// # Safety
///
/// `program` is null, or valid, and a reference to it is passed on unless this fails.
pub(crate) unsafe fn set_program<T: Operations>(
    dev: &Locked<'_, T>,
    program: *mut b::bpf_prog,
) -> Result<(), Refusal> {
    let slot = dev.program();
    match NonNull::new(program) {
        Some(new) => {
            // SAFETY: valid by the caller.
            let frags = unsafe { b::nd_xdp_prog_has_frags(new.as_ptr()) };
            dev.ops().set_xdp(dev, Some(Program { frags }))?;
            // SAFETY: passed on by the caller.
            unsafe { slot.set(program) };
        }
        None => {
            // Frames that come from here on go past it.
            // SAFETY: null.
            unsafe { slot.set(core::ptr::null_mut()) };
            dev.ops().set_xdp(dev, None)?;
        }
    }
    // A program may exclude offloads, which are on again when it is gone.
    dev.update_features();
    Ok(())
}

/// What programs are told of a receive queue: `struct xdp_rxq_info`, registered with its page pool.
pub(crate) struct RxqInfo(Pin<KBox<Opaque<b::xdp_rxq_info>>>);

// SAFETY: read by polls; registered and unregistered by whoever owns it, from any task.
unsafe impl Send for RxqInfo {}

impl RxqInfo {
    /// # Safety
    ///
    /// `napi` is on the list of a device, whose receive queue `queue` it serves, and `pool` is valid.
    /// Neither goes before this.
    pub(crate) unsafe fn new(
        napi: *mut b::napi_struct,
        queue: u16,
        pool: *mut b::page_pool,
    ) -> Result<Self> {
        let info = KBox::pin(Opaque::zeroed(), GFP_KERNEL)?;
        // SAFETY: the structure is zeroed; the rest by the caller.
        to_result(unsafe { b::nd_xdp_rxq_register(info.get(), napi, u32::from(queue), pool) })?;
        Ok(Self(info))
    }

    pub(crate) fn as_raw(&self) -> *mut b::xdp_rxq_info {
        self.0.get()
    }
}

impl Drop for RxqInfo {
    fn drop(&mut self) {
        // SAFETY: registered in `new`. Lets go of the pool too, which may still have pages out.
        unsafe { b::xdp_rxq_info_unreg(self.as_raw()) }
    }
}

/// The program of a device for the time of one poll.
///
/// # Invariants
///
/// The program is that of the device, kept by the RCU read-side section of a poll, in which this lives.
///
/// Softirq context.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/xdp.rs
/// let verdict = xdp.run(frame);
/// ```
pub struct Xdp<'a, T: Operations> {
    napi: &'a Napi<'a, T>,
    program: NonNull<b::bpf_prog>,
    rxq: NonNull<b::xdp_rxq_info>,
    /// What the channel's buffers are; one is a page.
    buffers: PoolParams,
    redirected: Cell<bool>,
}

/// What a program decided.
///
/// What [`Xdp::run`] returns. Whatever is left of the frame is in it; the rest is gone when it returns.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/xdp.rs
/// Verdict::Redirected => stats.xdp_redirect.add(1),
/// Verdict::Dropped => stats.xdp_drop.add(1),
/// Verdict::Failed => stats.xdp_errors.add(1),
/// ```
pub enum Verdict<'a> {
    /// The stack is to have the frame.
    Pass(XdpBuff<'a>),
    /// To be sent where it came from.
    Transmit(XdpFrame),
    /// Another device, CPU or socket has it.
    Redirected,
    /// Not wanted.
    Dropped,
    /// The program failed, or what it asked for did: the frame is dropped, and a trace point told.
    Failed,
}

impl<T: Operations> Napi<'_, T> {
    /// The program that frames are to be shown to. `None` if there is none, and in a channel whose
    /// buffers are not a page each.
    #[inline]
    pub fn xdp(&self) -> Option<Xdp<'_, T>> {
        let program = self.device().program().get()?;
        let (rxq, buffers) = self.rxq_info()?;
        (buffers.order == 0).then(|| Xdp {
            napi: self,
            program,
            rxq,
            buffers,
            redirected: Cell::new(false),
        })
    }
}

impl<T: Operations> Xdp<'_, T> {
    /// True if a buffer is a page that nobody else has a part of.
    #[inline]
    fn is_page(&self, buffer: &PoolBuffer) -> bool {
        buffer.length() == self.buffers.length()
    }

    /// Makes `len` bytes of a buffer at `offset` the beginning of a frame. Gives it back unless there
    /// are [`XDP_HEADROOM`] before them, [`XDP_TAILROOM`] behind, and an Ethernet header in them.
    #[inline]
    pub fn buff(
        &self,
        buffer: PoolBuffer,
        offset: u32,
        len: u32,
    ) -> Result<XdpBuff<'_>, PoolBuffer> {
        const ETH_HLEN: u32 = 14;
        let at = buffer.start() + offset;
        if !self.is_page(&buffer)
            || buffer.at(offset, len).is_none()
            || len < ETH_HLEN
            || at < XDP_HEADROOM
            || at + len > PAGE_SIZE - XDP_TAILROOM
        {
            return Err(buffer);
        }
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the page is owned, all of it, and the bytes are inside; the queue is registered,
        // and with the page's pool. This sets all members but one that is for transmit only.
        unsafe {
            b::nd_xdp_prepare(
                raw.as_mut_ptr(),
                self.rxq.as_ptr(),
                buffer.into_page(),
                at,
                len,
            );
            (*raw.as_mut_ptr()).txq = core::ptr::null_mut();
            Ok(XdpBuff(raw.assume_init(), PhantomData))
        }
    }

    /// Adds `len` bytes of a buffer at `offset` to a frame. Gives it back if the program takes no frames
    /// of more than one buffer, the frame has no room for another fragment, or the bytes are not inside.
    #[inline]
    pub fn add(
        &self,
        frame: &mut XdpBuff<'_>,
        buffer: PoolBuffer,
        offset: u32,
        len: u32,
    ) -> Result<(), PoolBuffer> {
        // SAFETY: the program is valid for this poll.
        let takes_frags = unsafe { b::nd_xdp_prog_has_frags(self.program.as_ptr()) };
        if !takes_frags || !self.is_page(&buffer) || buffer.at(offset, len).is_none() {
            return Err(buffer);
        }
        let at = buffer.start() + offset;
        // SAFETY: the frame is valid, and takes the page over if this succeeds. Whole pages are not
        // merged with each other.
        if unsafe { b::nd_xdp_add_page(&mut frame.0, buffer.page(), at, len) } {
            let _ = buffer.into_page();
            Ok(())
        } else {
            Err(buffer)
        }
    }

    /// Lets the program decide about a frame.
    #[inline]
    pub fn run<'f>(&self, mut frame: XdpBuff<'f>) -> Verdict<'f> {
        let (program, raw) = (self.program.as_ptr(), &raw mut frame.0);
        let dev = self.napi.device().as_raw();
        // SAFETY: the program is valid for this poll, as is the frame.
        let action = unsafe { b::nd_xdp_run(program, raw) };
        match action {
            b::xdp_action_XDP_PASS => return Verdict::Pass(frame),
            b::xdp_action_XDP_DROP => return Verdict::Dropped,
            b::xdp_action_XDP_TX => {
                // SAFETY: the frame is valid.
                if let Some(sent) = NonNull::new(unsafe { b::nd_xdp_to_frame(raw) }) {
                    core::mem::forget(frame);
                    return Verdict::Transmit(XdpFrame(sent));
                }
            }
            b::xdp_action_XDP_REDIRECT => {
                // Also if it fails: it may have come to some of several devices by then.
                self.redirected.set(true);
                // SAFETY: within the poll that ran the program, which ends with a flush.
                if unsafe { b::xdp_do_redirect(dev, raw, program) } == 0 {
                    core::mem::forget(frame);
                    return Verdict::Redirected;
                }
            }
            b::xdp_action_XDP_ABORTED => {}
            // SAFETY: device and program are valid.
            _ => unsafe { b::bpf_warn_invalid_xdp_action(dev, program, action) },
        }
        // SAFETY: device and program are valid.
        unsafe { b::nd_xdp_exception(dev, program, action) };
        Verdict::Failed
    }
}

impl<T: Operations> Drop for Xdp<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.redirected.get() {
            // SAFETY: within the poll.
            unsafe { b::xdp_do_flush() }
        }
    }
}

/// A received frame in pages of the channel's pool, during a poll. Dropped, they go back to it.
///
/// # Invariants
///
/// The buffer describes pages of the pool of the channel that is polled, each of them owned.
///
/// Softirq context, within a poll.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/xdp.rs
/// if let Verdict::Pass(frame) = verdict {
///     stats.xdp_pass.add(1);
///     let total = frame.len();
///     match frame.into_skb() {
///         Some(skb) => self.deliver(napi, skb, &header, total, total, batch),
///         None => stats.dropped.add(1),
///     }
///     return Ok(true);
/// }
/// ```
pub struct XdpBuff<'a>(b::xdp_buff, PhantomData<&'a ()>);

impl XdpBuff<'_> {
    /// True if the frame has fragments.
    pub fn has_frags(&self) -> bool {
        // SAFETY: the frame is valid.
        unsafe { b::nd_xdp_has_frags(&self.0) }
    }

    /// Bytes of the frame.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        // SAFETY: the frame is valid.
        unsafe { b::nd_xdp_len(&self.0) }
    }

    /// The frame as the stack takes it. `None`, with the frame dropped, if there is no memory.
    #[inline]
    pub fn into_skb(self) -> Option<RxSkb> {
        // SAFETY: the frame is valid, and within a page with room for the skb's own data.
        let skb = NonNull::new(unsafe { b::nd_xdp_build_skb(&self.0) })?;
        core::mem::forget(self);
        // SAFETY: the skb is owned, and has the pages.
        Some(unsafe { RxSkb::from_raw(skb) })
    }
}

impl Drop for XdpBuff<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the frame is owned, and this is the poll of its pool's NAPI context.
        unsafe { b::xdp_return_buff(&mut self.0) }
    }
}

/// A frame that a program sends. Dropped, its memory returns to whom it came from. Not for hard
/// interrupt context.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/tx.rs
/// let Ok(mut segments) = frame.map(nic.dev.as_ref(), header, &mut space) else {
///     return Err(frame);
/// };
/// ```
pub struct XdpFrame(NonNull<b::xdp_frame>);

// SAFETY: an owned frame may be handed to another context.
unsafe impl Send for XdpFrame {}

impl XdpFrame {
    /// # Safety
    ///
    /// `frame` is valid, and the caller passes it on.
    pub(crate) unsafe fn from_raw(frame: NonNull<b::xdp_frame>) -> Self {
        Self(frame)
    }

    pub(crate) fn into_raw(self) -> *mut b::xdp_frame {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// Bytes of the frame.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        // SAFETY: the frame is valid.
        unsafe { b::nd_xdp_frame_len(self.0.as_ptr()) }
    }

    /// Maps the frame for the device to read, with `header`, which the device wants before it, in its
    /// headroom. Fails also if there is no room for that.
    ///
    /// The frame must stay alive until the segments are dropped.
    #[inline]
    pub fn map<'s, 'a>(
        &self,
        dev: &'a Device<Bound>,
        header: &[u8],
        space: &'s mut SegmentSpace,
    ) -> Result<Segments<'s, 'a>> {
        Segments::map_xdp(dev, self.0, header, space)
    }
}

impl Drop for XdpFrame {
    fn drop(&mut self) {
        // SAFETY: the frame is owned.
        unsafe { b::xdp_return_frame(self.0.as_ptr()) }
    }
}

/// Returns frames that are sent, many at a time.
///
/// Softirq context, within a poll: the last are returned when it is dropped.
///
/// # Examples
///
/// ```ignore
/// // guest-driver/vnet/tx.rs
/// InFlight::Program(frame) => {
///     program_frames += 1;
///     program_bytes += u64::from(sent.bytes);
///     if let Some(napi) = napi {
///         returned.add(napi, frame);
///     }
/// }
/// ```
pub struct ReturnedFrames(Option<b::xdp_frame_bulk>);

impl ReturnedFrames {
    /// None yet.
    #[inline]
    pub const fn new() -> Self {
        Self(None)
    }

    /// Returns a frame, at the latest when this is dropped, which is during the same poll.
    #[inline]
    pub fn add<T: Operations>(&mut self, _napi: &Napi<'_, T>, frame: XdpFrame) {
        let bulk = self.0.get_or_insert_with(b::xdp_frame_bulk::default);
        // SAFETY: all zeroes is an empty bulk; the frame is passed on, in softirq context.
        unsafe { b::nd_xdp_bulk_add(bulk, frame.into_raw()) }
    }
}

impl Default for ReturnedFrames {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ReturnedFrames {
    #[inline]
    fn drop(&mut self) {
        if let Some(bulk) = &mut self.0 {
            // SAFETY: as in `add`.
            unsafe { b::nd_xdp_bulk_flush(bulk) }
        }
    }
}

/// Sends frames of another device, as many as there is room for; gives their number.
///
/// # Safety
///
/// Bottom halves are disabled, and `frames` has `count` frames. Those that are sent are passed on.
pub(crate) unsafe fn transmit<T: Operations>(
    dev: &NetDevice<T>,
    frames: *mut *mut b::xdp_frame,
    count: usize,
    flush: bool,
) -> Result<usize> {
    let index = dev.xdp_tx_queue();
    // SAFETY: by the caller.
    let mut tx = unsafe { dev.lock_tx(index) }.ok_or(ENETDOWN)?;
    // The core asks only whether it is up. The state is there before the card is told of the queue.
    if !dev.is_present() {
        return Err(ENETDOWN);
    }
    let (queue, state) = tx.split();
    // The stack's watchdog is not to take a queue for stuck that is busy with other frames.
    queue.touch();
    let mut sent = 0;
    while sent < count {
        // SAFETY: by the caller.
        let Some(frame) = NonNull::new(unsafe { *frames.add(sent) }) else {
            break;
        };
        // SAFETY: passed on by the caller, as it counts as sent.
        let frame = unsafe { XdpFrame::from_raw(frame) };
        if let Err(frame) = dev.ops().xdp_xmit(dev, queue, state, frame) {
            // The caller frees it, and those behind it.
            let _ = frame.into_raw();
            break;
        }
        sent += 1;
    }
    if flush {
        dev.ops().xdp_flush(dev, queue, state);
    }
    Ok(sent)
}
