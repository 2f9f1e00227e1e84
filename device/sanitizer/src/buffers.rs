// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Where the receive buffers lie that the card owns, on all of its queues.

use std::collections::BTreeMap;

/// A buffer by its last byte, and whose it is.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    last: u64,
    queue: u16,
    head: u16,
}

/// The receive buffers of a card, by address; no two share memory.
#[derive(Debug, Default)]
pub(crate) struct Buffers(BTreeMap<u64, Buffer>);

/// A receive buffer that shares memory with another: an address that they share, and whose it is.
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
        let (&at, buffer) = self.0.range(..=last).next_back()?;
        (buffer.last >= first).then_some(Shared {
            address: at.max(first),
            queue: buffer.queue,
            head: buffer.head,
        })
    }

    /// Adds a buffer, unless it shares memory with one that is there.
    pub(crate) fn add(&mut self, first: u64, len: usize, queue: u16, head: u16) -> Option<Shared> {
        let shared = self.find(first, len);
        if let (None, Some(last)) = (shared, last(first, len)) {
            self.0.insert(first, Buffer { last, queue, head });
        }
        shared
    }

    /// Removes the buffer of this chain that begins here, if it was added.
    pub(crate) fn remove(&mut self, first: u64, queue: u16, head: u16) {
        let owner = self.0.get(&first).map(|b| (b.queue, b.head));
        if owner == Some((queue, head)) {
            self.0.remove(&first);
        }
    }

    /// Removes all buffers of a queue.
    pub(crate) fn remove_queue(&mut self, queue: u16) {
        self.0.retain(|_, buffer| buffer.queue != queue);
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
}
