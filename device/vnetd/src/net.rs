// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a card can be connected to.

use std::fmt;
use std::str::FromStr;

use vnet_backend::Endpoint;
use vnet_gateway::Gateway;
use vnet_loopback::{Loopback, Null};
use vnet_tap::Tap;

use crate::args::Args;

/// A backend, as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Net {
    Gateway,
    Tap { name: String },
    Loopback,
    Null,
}

impl Net {
    pub(crate) const HELP: &str = "\
What the card is connected to:
  gateway        a small network inside of vnetd, with DHCP and services; needs no privileges
  tap:name=NAME  a TAP interface of the host, which is made if it does not exist
  loopback       itself: every frame that it sends comes back
  null           nothing: frames that it sends are lost";

    /// Sets the backend up.
    pub(crate) fn open(&self, args: &Args) -> Result<Box<dyn Endpoint>, vnet_backend::Error> {
        Ok(match self {
            Net::Gateway => Box::new(Gateway::new(vnet_gateway::Config { mtu: args.mtu_max })),
            Net::Tap { name } => {
                let config = vnet_tap::Config {
                    name: name.clone(),
                    queues: args.queues,
                };
                Box::new(Tap::open(config)?)
            }
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
            _ => match s.strip_prefix("tap:name=") {
                Some(name) if !name.is_empty() => Ok(Net::Tap { name: name.into() }),
                _ => Err("one of gateway, tap:name=NAME, loopback and null is needed"),
            },
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Net::Gateway => f.write_str("gateway"),
            Net::Tap { name } => write!(f, "tap:name={name}"),
            Net::Loopback => f.write_str("loopback"),
            Net::Null => f.write_str("null"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["gateway", "tap:name=tap0", "loopback", "null"] {
            assert_eq!(name.parse::<Net>().unwrap().to_string(), name);
        }
        for bad in ["", "Gateway", "tap", "tap:tap0", "tap:name=", "null "] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
    }
}
