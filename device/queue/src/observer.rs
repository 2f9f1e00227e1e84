// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Somebody who watches a ring while the device works it.

use std::fmt;

use vnet_dma::DmaMap;

use crate::Fault;

/// Where the device stands in a ring.
///
/// It owns the chains of all avail entries from the first one that it has not returned up to the
/// driver's avail index. It returns them in order of the avail ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Next avail entry to fetch.
    pub next_avail: u16,
    /// Next used entry to write.
    pub next_used: u16,
}

/// Watches one running ring, such as to judge its driver.
///
/// Called with the lock of the queue pair held, and at those moments only that an observer cannot
/// do without. What it reads from guest memory itself is stable at these moments as far as the
/// driver keeps to the rules: it owns nothing that the device owns.
pub trait Observer: fmt::Debug + Send {
    /// A batch begins: the device is about to look at the avail ring.
    fn begin(&mut self, mem: &DmaMap, at: Position);

    /// The next `count` used entries are written, but the driver does not see them yet. Until
    /// this returns, their chains are the device's.
    fn publish(&mut self, mem: &DmaMap, at: Position, count: u16);

    /// The batch is over. It may have written to the buffers of the `lent` avail entries from
    /// `at.next_avail` on without returning them.
    fn end(&mut self, mem: &DmaMap, at: Position, lent: u16);

    /// The device asked for a doorbell when the avail index goes beyond `event`, where it is.
    fn armed(&mut self, event: u16);

    /// An interrupt has come due, for the used entry that the driver's event index names.
    fn due(&mut self, event: u16);

    /// The driver broke a rule that the engine cannot do without. The ring is not used any more. `bad`
    /// is the avail entry of the chain that broke it, if it was one.
    fn fault(&mut self, mem: &DmaMap, at: Position, bad: u16, fault: Fault);

    /// The driver wrote this to the doorbell; the ring was not looked at yet.
    fn doorbell(&mut self, mem: &DmaMap, at: Position, value: u32);

    /// Nothing happened, but time goes by.
    fn tick(&mut self, mem: &DmaMap, at: Position);
}
