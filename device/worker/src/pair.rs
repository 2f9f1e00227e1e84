// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One queue pair, as the message thread sees it.

use std::io;
use std::sync::Arc;

use vnet_backend::Queue;
use vnet_contract::queue::Kind;
use vnet_dma::AddressSpace;
use vnet_irq::Vector;
use vnet_queue::{Fault, RingConfig, RxFilter};

use crate::{Counters, Report};

/// How a pair works.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Serve a doorbell where it arrives, for one bounded batch.
    pub inline_doorbells: bool,
}

/// A queue pair with its worker thread. Dropping it stops and joins the thread.
pub struct Pair {}

#[allow(unused_variables, missing_docs, clippy::unimplemented)]
impl Pair {
    pub fn spawn(
        index: u16,
        backend: Box<dyn Queue>,
        dma: AddressSpace,
        report: Arc<dyn Report>,
        options: Options,
    ) -> io::Result<Self> {
        unimplemented!()
    }
    pub fn start(
        &self,
        kind: Kind,
        ring: RingConfig,
        vector: Option<Arc<Vector>>,
    ) -> Result<(), Fault> {
        unimplemented!()
    }
    /// Returns next avail and used index if the queue was started (running or failed).
    pub fn stop(&self, kind: Kind) -> Option<(u16, u16)> {
        unimplemented!()
    }
    /// As `stop`, but leaves the queue running.
    pub fn indices(&self, kind: Kind) -> Option<(u16, u16)> {
        unimplemented!()
    }
    pub fn doorbell(&self, kind: Kind) {
        unimplemented!()
    }
    /// Makes the worker look again, e.g. after bus mastering was turned on.
    pub fn wake(&self) {
        unimplemented!()
    }
    pub fn quiesce(&self) {
        unimplemented!()
    }
    pub fn set_rx_filter(&self, filter: RxFilter) {
        unimplemented!()
    }
    pub fn counters(&self, kind: Kind) -> Counters {
        unimplemented!()
    }
    pub fn reset_counters(&self) {
        unimplemented!()
    }
    /// Stops both queues, tells the backend to forget waiting frames, clears filter and counters.
    pub fn reset(&self) {
        unimplemented!()
    }
}
