// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The cards for those who only look on. They never wait for who changes cards, and nobody for them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use vnet_card::Operator;
use vnet_session::Control;
use vnet_shape::Counters;

use crate::name::Name;
use crate::net::Net;

/// All cards, as they were when one last came, went or failed.
pub(crate) type Views = Arc<ArcSwap<Vec<Arc<View>>>>;

/// One card. Nobody keeps it for long: the operator's handle holds on to the backend.
pub(crate) struct View {
    pub(crate) name: Name,
    pub(crate) socket: PathBuf,
    pub(crate) net: Arc<Mutex<Net>>,
    pub(crate) shape: Shape,
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

/// The counters of the line between a card and its backend, if there is one. Changes with the backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape(Arc<Mutex<Option<Counters>>>);

impl Shape {
    pub(crate) fn get(&self) -> Option<Counters> {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.clone()
    }

    pub(crate) fn set(&self, counters: Option<Counters>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }
}
