// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How a TAP interface is described.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where `ip netns` has namespaces by their names.
pub(crate) const NAMESPACES: &str = "/run/netns";

/// What the options of a TAP say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TapNet {
    name: String,
    netns: Option<String>,
    bridge: Option<String>,
}

impl TapNet {
    /// The interface, with so many queues.
    pub(crate) fn config(&self, queues: u16) -> vnet_tap::Config {
        vnet_tap::Config {
            name: self.name.clone(),
            queues,
            netns: self.netns.as_deref().map(namespace),
            bridge: self.bridge.clone(),
        }
    }
}

/// The file of a namespace: a path, or a name that `ip netns` knows.
fn namespace(netns: &str) -> PathBuf {
    match netns.contains('/') {
        true => netns.into(),
        false => Path::new(NAMESPACES).join(netns),
    }
}

impl FromStr for TapNet {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        const OPTIONS: &str =
            "tap has the options name=NAME, netns=NAMESPACE and bridge=NAME, each once";
        let (mut name, mut netns, mut bridge) = (None, None, None);
        for option in s.split(',') {
            let (key, value) = option.split_once('=').ok_or(OPTIONS)?;
            let place = match key {
                "name" => &mut name,
                "netns" => &mut netns,
                "bridge" => &mut bridge,
                _ => return Err(OPTIONS.into()),
            };
            if value.is_empty() || place.replace(value.to_owned()).is_some() {
                return Err(OPTIONS.into());
            }
        }
        Ok(Self {
            name: name.ok_or("tap needs a name: tap:name=NAME")?,
            netns,
            bridge,
        })
    }
}

impl fmt::Display for TapNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tap:name={}", self.name)?;
        for (key, value) in [("netns", &self.netns), ("bridge", &self.bridge)] {
            if let Some(value) = value {
                write!(f, ",{key}={value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_names_or_paths() {
        let path = |text: &str| {
            let tap: TapNet = text.parse().unwrap();
            tap.config(1).netns
        };
        assert_eq!(path("name=a"), None);
        assert_eq!(path("name=a,netns=b"), Some("/run/netns/b".into()));
        assert_eq!(path("name=a,netns=./b"), Some("./b".into()));
    }
}
