// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Where the buffers lie that the card owns, on all of its queues.

use std::collections::BTreeMap;

/// A buffer by its last byte, and whose it is.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    last: u64,
    queue: u16,
    head: u16,
}

/// The longest buffer of a frame to transmit that is remembered: the card takes no longer ones.
const LONGEST: u64 = 1 << 17;
/// Buffers of frames to transmit that are looked at for one that shares memory. Which of them are the
/// nearest is known, and not how far they reach, as they may share memory with each other.
const NEAREST: usize = 64;

/// The buffers of a card.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Those to receive into, by address; no two share memory.
    receive: BTreeMap<u64, Buffer>,
    /// Those of frames to transmit, by address, queue and chain: the last byte of each.
    transmit: BTreeMap<(u64, u16, u16), u64>,
}

/// A buffer that shares memory with another: an address that they share, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) address: u64,
    pub(crate) queue: u16,
    pub(crate) head: u16,
}

impl Buffers {
    /// A receive buffer that has a byte of these.
    pub(crate) fn find(&self, first: u64, len: usize) -> Option<Shared> {
        // They do not overlap, so only the last that begins before the end of these bytes can reach
        // into them.
        let last = last(first, len)?;
        let (&at, buffer) = self.receive.range(..=last).next_back()?;
        (buffer.last >= first).then_some(Shared {
            address: at.max(first),
            queue: buffer.queue,
            head: buffer.head,
        })
    }

    /// A buffer of a frame to transmit that has a byte of these.
    fn find_sent(&self, first: u64, len: usize) -> Option<Shared> {
        let last = last(first, len)?;
        let range = (first.saturating_sub(LONGEST), 0, 0)..=(last, u16::MAX, u16::MAX);
        let mut near = self.transmit.range(range).rev().take(NEAREST);
        let (&(at, queue, head), _) = near.find(|(_, last)| **last >= first)?;
        Some(Shared {
            address: at.max(first),
            queue,
            head,
        })
    }

    /// Adds a receive buffer, unless it shares memory with one that is there.
    pub(crate) fn add(&mut self, first: u64, len: usize, queue: u16, head: u16) -> Option<Shared> {
        let shared = self.find(first, len);
        if let (None, Some(last)) = (shared, last(first, len)) {
            self.receive.insert(first, Buffer { last, queue, head });
        }
        shared.or_else(|| self.find_sent(first, len))
    }

    /// Adds a buffer of a frame to transmit.
    pub(crate) fn add_sent(&mut self, first: u64, len: usize, queue: u16, head: u16) {
        if let Some(last) = last(first, len).filter(|last| last - first < LONGEST) {
            // A frame may have the same bytes twice.
            let known = self.transmit.entry((first, queue, head)).or_default();
            *known = last.max(*known);
        }
    }

    /// Removes the buffer of this chain that begins here, if it was added.
    pub(crate) fn remove(&mut self, first: u64, queue: u16, head: u16) {
        self.transmit.remove(&(first, queue, head));
        let owner = self.receive.get(&first).map(|b| (b.queue, b.head));
        if owner == Some((queue, head)) {
            self.receive.remove(&first);
        }
    }

    /// Removes all buffers of a queue.
    pub(crate) fn remove_queue(&mut self, queue: u16) {
        self.receive.retain(|_, buffer| buffer.queue != queue);
        self.transmit.retain(|(_, of, _), _| *of != queue);
    }
}

/// The last of so many bytes; `None` if there are none.
fn last(first: u64, len: usize) -> Option<u64> {
    Some(first.saturating_add(len.checked_sub(1)? as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shares_memory_is_found() {
        let mut buffers = Buffers::default();
        assert_eq!(buffers.add(100, 50, 0, 1), None);
        assert_eq!(buffers.add(150, 50, 2, 1), None);
        assert_eq!(buffers.add(200, 0, 2, 3), None);
        let shared = |address, queue| {
            Some(Shared {
                address,
                queue,
                head: 1,
            })
        };
        assert_eq!(buffers.find(90, 10), None);
        assert_eq!(buffers.find(90, 11), shared(100, 0));
        assert_eq!(buffers.find(149, 1), shared(149, 0));
        assert_eq!(buffers.find(0, 1000), shared(150, 2));
        assert_eq!(buffers.add(199, 10, 4, 1), shared(199, 2));
        assert_eq!(buffers.find(200, 10), None);
        assert_eq!(buffers.find(u64::MAX, 10), None);
        // Not that one.
        buffers.remove(150, 4, 1);
        assert_eq!(buffers.find(150, 1), shared(150, 2));
        buffers.remove_queue(2);
        assert_eq!(buffers.find(150, 1), None);
        buffers.remove(100, 0, 1);
        assert_eq!(buffers.find(0, 1000), None);
    }

    #[test]
    fn frames_that_are_sent_may_share_memory_but_not_with_a_receive_buffer() {
        let mut buffers = Buffers::default();
        for (first, len, head) in [
            (1000, 5000, 1),
            (3000, 100, 2),
            (3000, 10, 2),
            (3000, 50, 4),
        ] {
            buffers.add_sent(first, len, 1, head);
        }
        buffers.add_sent(0, 1 << 30, 1, 5);
        let shared = |address, head| {
            Some(Shared {
                address,
                queue: 1,
                head,
            })
        };
        assert_eq!(buffers.add(5990, 20, 0, 1), shared(5990, 1));
        assert_eq!(buffers.add(3060, 10, 0, 2), shared(3060, 2));
        assert_eq!(buffers.add(2990, 20, 0, 3), shared(3000, 4));
        assert_eq!(buffers.add(990, 10, 0, 4), None);
        assert_eq!(buffers.add(6010, 10, 0, 5), None);
        for (first, head) in [(1000, 1), (3000, 4)] {
            buffers.remove(first, 1, head);
        }
        assert_eq!(buffers.add(3100, 10, 0, 6), None);
        assert_eq!(buffers.add(3099, 1, 0, 7), shared(3099, 2));
        buffers.remove_queue(1);
        assert_eq!(buffers.add(3098, 1, 0, 8), None);
    }
}
