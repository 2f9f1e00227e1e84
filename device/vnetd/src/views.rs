// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The cards for those who only look on. They never wait for who changes cards, and nobody for them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use vnet_card::Operator;
use vnet_record::Record;
use vnet_session::Control;

use crate::name::Name;
use crate::net::Net;

/// All cards, as they were when one last came, went or failed.
pub(crate) type Views = Arc<ArcSwap<Vec<Arc<View>>>>;

/// One card. Nobody keeps it for long: the operator's handle holds on to the backend.
pub(crate) struct View {
    pub(crate) name: Name,
    pub(crate) socket: PathBuf,
    pub(crate) net: Arc<Mutex<Net>>,
    pub(crate) beside: Beside,
    pub(crate) operator: Operator,
    pub(crate) control: Control,
    pub(crate) failed: bool,
}

impl View {
    /// What the card is connected to now.
    pub(crate) fn net(&self) -> Net {
        let net = self.net.lock().unwrap_or_else(PoisonError::into_inner);
        net.clone()
    }
}

/// What there is beside the queues. Changes with the backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beside(Arc<Mutex<Counts>>);

/// Of those between a card and the world: counters, as far as they have some, and what is written down.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Of the line before the backend.
    pub(crate) shape: Option<vnet_shape::Counters>,
    /// Of the backend, if it is a generator, or a switch with one as uplink.
    pub(crate) generator: Option<vnet_generator::Counters>,
    /// What is written down, if that is wanted.
    pub(crate) record: Option<Record>,
}

impl Beside {
    pub(crate) fn new(counts: Counts) -> Self {
        Self(Arc::new(Mutex::new(counts)))
    }

    pub(crate) fn get(&self) -> Counts {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }

    pub(crate) fn set(&self, counts: Counts) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}
