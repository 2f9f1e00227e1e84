// SPDX-License-Identifier: GPL-2.0

//! XDP programs: what a card has to be like for them, the frames that they are shown, and those
//! that they send.
//!
//! A program wants frames as they were on the wire, in pages with room around them. So while there
//! is one the card is asked for no receive offloads (`RX_OFFLOADS`), and each receive buffer is a
//! page. The queues are started anew when the first program comes and when the last one goes.
//!
//! What programs send goes by the transmit queues of the stack, under their locks: a queue for each
//! CPU beside those would be more than the card has. A frame that goes back where it came from waits
//! until some have gathered, or the poll ends, so that the lock is taken once for all of them.

use kernel::prelude::*;
use netdev::{
    Locked,
    Napi,
    Program,
    Refusal,
    Verdict,
    Xdp,
    XdpFrame,
    PAGE_SIZE,
    XDP_HEADROOM,
    XDP_TAILROOM, //
};
use vnet_contract::{
    features,
    hdr, //
};

use crate::{
    nic::Nic,
    rx::{
        Batch,
        Failure,
        Header,
        Rx,
        RxBuffer,
        LINK_HEADER,
        MAX_BUFFERS, //
    },
    shape::Shape, //
};

/// Frames that wait for the lock of the transmit queue at most.
pub(crate) const MAX_PENDING: usize = 16;

/// Bytes of a frame that fit into a first buffer, before which there is the per-packet header.
const FIRST: u32 = PAGE_SIZE - XDP_HEADROOM - XDP_TAILROOM;

impl<'a> Nic<'a> {
    /// Gets ready to show received frames to a program, or no longer.
    pub(crate) fn change_program(
        &self,
        dev: &Locked<'_, Self>,
        program: Option<Program>,
    ) -> Result<(), Refusal> {
        let old = self.shape();
        let shape = Shape {
            program: program.map(|p| Program {
                frags: p.frags && self.identity.features & features::MRG_RXBUF != 0,
            }),
            ..old
        };
        if shape.program.is_some() && shape.split {
            return Err(Refusal {
                error: EBUSY,
                message: c"tcp-data-split is on, and a program has no use for it",
            });
        }
        if !shape.carries(dev.mtu()) {
            return Err(Refusal {
                error: EINVAL,
                message: c"the MTU is too large for the program",
            });
        }
        if shape.program.is_some() == old.program.is_some() {
            // Buffers are the same for all programs.
            *self.shape.lock() = shape;
            return Ok(());
        }
        self.reshape(dev, shape).map_err(|error| Refusal {
            error,
            message: c"the queues cannot be started as the program needs them",
        })
    }

    /// Tries once more to be as without a program, if there was no memory for that when it went.
    pub(crate) fn leave_program(&self, dev: &Locked<'_, Self>) {
        let old = self.shape();
        if old.program.is_none() || dev.has_program() || !self.control.lock().leaving.attempt() {
            return;
        }
        let shape = Shape {
            program: None,
            ..old
        };
        match self.reshape(dev, shape) {
            Ok(()) => dev.update_features(),
            Err(_) => self.control.lock().leaving.failed(),
        }
    }
}

impl Shape {
    /// True if received frames of this MTU fit into the buffers that they may take.
    pub(crate) fn carries(&self, mtu: u32) -> bool {
        let most = match self.program {
            None => return true,
            Some(Program { frags: false }) => FIRST,
            Some(Program { frags: true }) => FIRST * u32::from(MAX_BUFFERS),
        };
        mtu + LINK_HEADER <= most
    }
}

impl Rx {
    /// Takes one frame from the ring and does what the program says. False if there is none.
    #[inline]
    pub(crate) fn frame_for_program<'a>(
        &mut self,
        napi: &Napi<'_, Nic<'a>>,
        xdp: &Xdp<'_, Nic<'a>>,
        batch: &mut Batch,
    ) -> Result<bool, Failure> {
        let Some((RxBuffer(buffer), len)) = self.ring.take()? else {
            return Ok(false);
        };
        buffer.sync_for_cpu(len);
        let Some(header) = Header::read(&buffer, len, self.features) else {
            self.stats.queue.bad_frames.add(1);
            return Ok(true);
        };
        let buffers = header.buffers(self.features)?;
        let mut total = len - self.header;
        // On its way to nowhere a frame is taken from the ring all the same.
        let mut frame = xdp.buff(buffer, self.header, total).ok();
        for _ in 1..buffers {
            // The card makes the buffers of a frame visible at once.
            let Some((RxBuffer(buffer), len)) = self.ring.take()? else {
                return Err(Failure::Incomplete);
            };
            if len == 0 {
                return Err(Failure::Empty);
            }
            buffer.sync_for_cpu(len);
            total += len;
            frame = frame.and_then(|mut frame| {
                xdp.add(&mut frame, buffer, 0, len).ok()?;
                Some(frame)
            });
        }
        let plain =
            header.base.flags & hdr::F_NEEDS_CSUM == 0 && header.base.gso_type == hdr::GSO_NONE;
        let Some(frame) = frame.filter(|_| plain) else {
            self.stats.queue.bad_frames.add(1);
            return Ok(true);
        };
        let stats = &self.stats.queue;
        let verdict = xdp.run(frame);
        if let Verdict::Pass(frame) = verdict {
            stats.xdp_pass.add(1);
            let total = frame.len();
            match frame.into_skb() {
                Some(skb) => self.deliver(napi, skb, &header, total, total, batch),
                None => stats.dropped.add(1),
            }
            return Ok(true);
        }
        batch.packets += 1;
        batch.bytes += u64::from(total);
        match verdict {
            Verdict::Pass(_) => {}
            Verdict::Transmit(frame) => {
                stats.xdp_tx.add(1);
                if let Err(e) = self.pending.push_within_capacity(frame) {
                    drop(e);
                    stats.xdp_errors.add(1);
                }
                if self.pending.len() >= MAX_PENDING {
                    self.send_pending(napi);
                }
            }
            Verdict::Redirected => stats.xdp_redirect.add(1),
            Verdict::Dropped => stats.xdp_drop.add(1),
            Verdict::Failed => stats.xdp_errors.add(1),
        }
        Ok(true)
    }

    /// Sends the frames that the program wants to go back where they came from.
    pub(crate) fn send_pending<'a>(&mut self, napi: &Napi<'_, Nic<'a>>) {
        if self.pending.is_empty() {
            return;
        }
        let dev = napi.device();
        let Some(mut guard) = napi.lock_tx() else {
            self.pending.clear();
            return;
        };
        let (queue, tx) = guard.split();
        queue.touch();
        for frame in self.pending.drain_all() {
            if tx.send_frame(dev.ops(), queue, frame).is_err() {
                self.stats.queue.xdp_errors.add(1);
            }
        }
        tx.tell(dev.ops(), dev);
    }
}

/// Room for frames that wait to be sent.
pub(crate) fn pending(program: Option<Program>) -> Result<KVec<XdpFrame>> {
    let frames = if program.is_some() { MAX_PENDING } else { 0 };
    Ok(KVec::with_capacity(frames, GFP_KERNEL)?)
}
