// SPDX-License-Identifier: GPL-2.0

//! How many queue pairs run, of what size; and changing that while frames flow.

use kernel::prelude::*;
use netdev::{
    ethtool::Answer,
    Locked,
    Program, //
};
use vnet_contract::queue;

use crate::nic::Nic;

/// What the queues are to be, when they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Pairs that run, the first of all: the other pairs have neither memory nor an interrupt.
    pub(crate) pairs: u16,
    /// Descriptors of a receive ring.
    pub(crate) rx_ring: u16,
    /// Descriptors of a transmit ring.
    pub(crate) tx_ring: u16,
    /// Headers of received frames have buffers of their own: see split.rs.
    pub(crate) split: bool,
    /// The XDP program that received frames are shown to.
    pub(crate) program: Option<Program>,
}

impl<'a> Nic<'a> {
    /// The shape in use.
    pub(crate) fn shape(&self) -> Shape {
        *self.shape.lock()
    }

    /// The ring of this many descriptors, if the card can have one.
    pub(crate) fn ring_size(&self, descriptors: u32, answer: &mut Answer<'_>) -> Result<u16> {
        let identity = &self.identity;
        if !queue::size_is_valid(descriptors) {
            answer.say(c"a ring has 64 to 4096 descriptors, and a power of two of them");
            return Err(EINVAL);
        }
        if !(u32::from(identity.min_ring)..=u32::from(identity.max_ring)).contains(&descriptors) {
            answer.say(c"the card has no rings of this size");
            return Err(EINVAL);
        }
        Ok(descriptors as u16)
    }

    /// Changes the shape. On an error the queues are as they were before.
    ///
    /// While the interface is up, this stops all queues and starts them anew. Frames that wait in
    /// the stack go on waiting; those in a ring are lost, in either direction.
    pub(crate) fn reshape(&self, dev: &Locked<'_, Self>, shape: Shape) -> Result {
        let old = self.shape();
        if shape == old {
            return Ok(());
        }
        // Whether stopped by the user, by a failure or for a reset from outside: the next start looks at
        // the shape. Of the last the core does not know when it brings a program.
        if !dev.is_running() || !dev.is_present() || !self.runs() {
            return self.take_shape(dev, shape);
        }
        // What may fail for want of memory comes before anything is stopped.
        let queues = self.build_queues(shape)?;
        dev.detach();
        self.stop_queues(dev);
        let outcome = self
            .take_shape(dev, shape)
            .and_then(|()| self.start_built(dev, queues));
        if let Err(e) = outcome {
            netdev::err!(dev, "cannot run with {shape:?}, going back to {old:?}\n");
            let back = self
                .take_shape(dev, old)
                .and_then(|()| self.start_queues(dev));
            if back.is_err() {
                self.give_up(dev, "the queues cannot be started again");
            }
            self.reattach(dev);
            return Err(e);
        }
        self.reattach(dev);
        Ok(())
    }

    /// Has the stack and the next start of the queues go by this shape.
    fn take_shape(&self, dev: &Locked<'_, Self>, shape: Shape) -> Result {
        dev.set_active_channels(shape.pairs)?;
        *self.shape.lock() = shape;
        self.spread_rss(dev, shape.pairs);
        Ok(())
    }
}
