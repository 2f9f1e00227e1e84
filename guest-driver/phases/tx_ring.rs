// SPDX-License-Identifier: GPL-2.0

//! A ring of frames to send, in software: what phase 3 is about.

use netdev::{
    DropReason,
    InFlightSkb,
    Napi,
    Operations,
    SkBuff,
    TxQueue, //
};

/// Places; a power of two, so that a place is found by the low bits of a count.
pub(crate) const SIZE: u32 = 16;

/// Frames that wait for the wire, oldest first.
///
/// `head` and `tail` count frames ever put in and ever taken out, and wrap: so a full ring and an empty
/// one look different, and the difference is how many are in it.
pub(crate) struct TxRing {
    slots: [Option<(InFlightSkb, u32)>; SIZE as usize],
    /// Where the next frame goes.
    head: u32,
    /// Where the oldest one is.
    tail: u32,
}

impl TxRing {
    pub(crate) const fn new() -> Self {
        Self {
            slots: [const { None }; SIZE as usize],
            head: 0,
            tail: 0,
        }
    }

    /// Frames in the ring.
    pub(crate) fn used(&self) -> u32 {
        self.head.wrapping_sub(self.tail)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used() == SIZE
    }

    /// Puts a frame of so many bytes in. False if there is no room: it is dropped, for that reason.
    pub(crate) fn push(&mut self, skb: SkBuff, bytes: u32) -> bool {
        if self.is_full() {
            skb.drop_with(DropReason::RingFull);
            return false;
        }
        self.slots[(self.head % SIZE) as usize] = Some((skb.into_flight(), bytes));
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Takes the oldest frame out, with its length.
    pub(crate) fn pop(&mut self) -> Option<(InFlightSkb, u32)> {
        let sent = self.slots[(self.tail % SIZE) as usize].take()?;
        self.tail = self.tail.wrapping_add(1);
        Some(sent)
    }

    /// As phase 3 sends: puts a frame in, and stops the queue with the last place.
    #[allow(dead_code)] // from phase 4 on
    pub(crate) fn send(&mut self, queue: &TxQueue<'_>, skb: SkBuff, bytes: u32) -> bool {
        let sent = self.push(skb, bytes);
        if self.is_full() {
            queue.stop();
        }
        sent
    }

    /// As phase 3 completes, on a wire that takes all at once: each frame and its length are shown before
    /// it is freed, in a batch if that is within a poll.
    #[allow(dead_code)] // from phase 4 on
    pub(crate) fn complete<N: Operations>(
        &mut self,
        queue: &TxQueue<'_>,
        napi: Option<&Napi<'_, N>>,
        mut arrives: impl FnMut(&SkBuff, u32),
    ) {
        while let Some((skb, bytes)) = self.pop() {
            let skb = skb.complete();
            arrives(&skb, bytes);
            skb.consume(napi);
        }
        if queue.is_stopped() {
            queue.wake();
        }
    }
}
