// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a card can be connected to.

use std::fmt;
use std::str::FromStr;

use vnet_backend::Endpoint;
use vnet_gateway::Gateway;
use vnet_loopback::{Loopback, Null};

use crate::args::Args;
use crate::error::Error;

/// A backend, as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Net {
    Gateway,
    Loopback,
    Null,
}

impl Net {
    pub(crate) const HELP: &str = "\
What the card is connected to:
  gateway        a small network inside of vnetd, with DHCP and services; needs no privileges
  loopback       itself: every frame that it sends comes back
  null           nothing: frames that it sends are lost";

    /// Sets the backend up.
    pub(crate) fn open(&self, args: &Args) -> Result<Box<dyn Endpoint>, Error> {
        Ok(match self {
            Net::Gateway => Box::new(Gateway::new(vnet_gateway::Config { mtu: args.mtu_max })),
            Net::Loopback => Box::new(Loopback::new()),
            Net::Null => Box::new(Null::new()),
        })
    }
}

impl FromStr for Net {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "gateway" => Ok(Net::Gateway),
            "loopback" => Ok(Net::Loopback),
            "null" => Ok(Net::Null),
            _ => Err("one of gateway, loopback and null is needed"),
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Net::Gateway => "gateway",
            Net::Loopback => "loopback",
            Net::Null => "null",
        })
    }
}
