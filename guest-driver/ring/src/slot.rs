// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Private state of one descriptor.

/// Memory that is lent to the card for one descriptor.
///
/// The ring keeps the value until the card has given the descriptor back, so a type that unmaps
/// or frees when dropped does it at the right time.
pub trait Buffer {
    /// Bus address.
    fn addr(&self) -> u64;
    /// Length in bytes; the card refuses zero.
    fn length(&self) -> u32;
}

/// Bus address and length of memory that somebody else keeps alive.
impl Buffer for (u64, u32) {
    fn addr(&self) -> u64 {
        self.0
    }

    fn length(&self) -> u32 {
        self.1
    }
}

/// Private state of one descriptor: as many as the ring and its tables have descriptors, in memory that
/// the card cannot reach. `B` is a [`Buffer`], `T` what the driver wants back with a whole chain.
#[derive(Clone, Debug)]
pub struct Slot<B, T> {
    /// The buffer, while the descriptor is part of a chain.
    pub(crate) buffer: Option<B>,
    /// The driver's value, in the head of a chain that the card holds.
    pub(crate) cookie: Option<T>,
    /// Next descriptor of the chain or of the free list; [`IN_TABLE`] and the number of the table in
    /// the head of a chain that lies in one.
    pub(crate) next: u16,
    /// Descriptors in the chain, in the head of a chain that the card holds; else 0.
    pub(crate) count: u16,
    /// Bytes of the chain that the card may write, in the head.
    pub(crate) writable: u32,
    /// Where the chain was entered in the avail ring last, in the head of a chain with a `count`.
    pub(crate) entered: u32,
}

/// Mark in [`Slot::next`], above all descriptors of a ring.
pub(crate) const IN_TABLE: u16 = 0x8000;
const _: () = assert!(vnet_contract::queue::MAX_SIZE <= IN_TABLE);

impl<B, T> Slot<B, T> {
    /// An empty slot.
    pub const fn new() -> Self {
        Self {
            buffer: None,
            cookie: None,
            next: 0,
            count: 0,
            writable: 0,
            entered: 0,
        }
    }
}

impl<B, T> Default for Slot<B, T> {
    fn default() -> Self {
        Self::new()
    }
}
