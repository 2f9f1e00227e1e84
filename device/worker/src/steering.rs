// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Receive side scaling between the pairs of a card.
//!
//! A backend's queue belongs to one pair, but the hash of a frame may choose another. Such frames
//! are copied into a parcel during the round that finds them, and sent when it ends. As waking a
//! thread takes much longer than moving a frame, the sender delivers the parcel itself if the
//! other pair is idle, just as a doorbell is served where it arrives; else the worker of that pair
//! has another round.
//!
//! A frame that stays with its pair is not copied. The rules are an immutable snapshot, loaded once
//! a round, so the path has neither a lock nor a count that threads share.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwapOption, Guard};
use vnet_backend::Frame;
use vnet_contract::hdr::FlowHash;
use vnet_queue::Steer;
use vnet_rss::Rss;

use crate::pair::Pair;
use crate::parcel::{inbox, Outbox};
use crate::shared::Shared;

/// Steers received frames to the pairs of one card.
pub struct Steering {
    hub: Arc<Hub>,
}

/// What the pairs know of each other.
pub(crate) struct Hub {
    /// Weak, as each of them knows the hub.
    pairs: Vec<Weak<Shared>>,
    rules: ArcSwapOption<Rss>,
}

impl Steering {
    /// Makes all pairs of a card, in order of their indices, known to each other. To be called
    /// once, before any of them is started.
    pub fn connect<'a>(pairs: impl Iterator<Item = &'a Pair> + Clone) -> Self {
        let hub = Arc::new(Hub {
            pairs: pairs.clone().map(|p| Arc::downgrade(p.shared())).collect(),
            rules: ArcSwapOption::empty(),
        });
        for pair in pairs {
            let (slit, inbox) = inbox();
            pair.shared().join(Arc::clone(&hub), slit, inbox);
        }
        Self { hub }
    }

    /// Sets the rules, from the next round of each pair on. With `None` frames stay on the pair
    /// that they came from and have no hash.
    pub fn set_rules(&self, rules: Option<Arc<Rss>>) {
        self.hub.rules.store(rules);
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering")
            .field("rules", &self.hub.rules.load())
            .finish_non_exhaustive()
    }
}

/// The rules that hold now.
pub(crate) type Rules = Guard<Option<Arc<Rss>>>;

impl Hub {
    pub(crate) fn rules(&self) -> Rules {
        self.rules.load()
    }

    /// Sends what a round found. Called with the sender's lock held, and so takes no other lock
    /// that it would have to wait for.
    pub(crate) fn dispatch(&self, outbox: &mut Outbox) {
        for (pair, parcel) in outbox.take() {
            // A pair is gone only while the card is taken down.
            if let Some(pair) = self.pairs.get(pair).and_then(Weak::upgrade) {
                pair.deliver(parcel);
            }
        }
    }
}

/// Applies the rules to the frames of one pair.
pub(crate) struct Sorter<'a> {
    pub(crate) rules: &'a Rss,
    pub(crate) own: u16,
    pub(crate) outbox: &'a mut Outbox,
}

impl Steer for Sorter<'_> {
    fn steer(&mut self, start: &[u8], frame: &Frame<'_>) -> Option<FlowHash> {
        let choice = self.rules.choose(start);
        match choice.pair {
            Some(pair) if pair != self.own => {
                self.outbox.add(pair, frame, choice.hash);
                None
            }
            _ => Some(choice.hash),
        }
    }
}
