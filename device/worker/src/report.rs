// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a worker tells the card.

use crate::Fault;

/// Where workers report what the driver must learn of.
///
/// Called with the pair locked, from its worker thread or, for a doorbell that is served where it
/// arrives, from the message thread: once a queue was stopped or its pair reset, nothing that went
/// wrong before is reported any more. An implementation must not block and must not call the pair:
/// it sets flags and raises vectors, and leaves the rest to the message thread.
pub trait Report: Send + Sync {
    /// The queue with this index stopped with an error. The other queue of the pair goes on.
    fn queue_failed(&self, queue: u16, fault: Fault);

    /// The backend of this pair panicked. Both queues are stopped until [`crate::Pair::reset`].
    fn pair_failed(&self, pair: u16);
}
