// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The switches of the process, by name, and how a card's port is described.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use vnet_backend::{Endpoint, Error};
use vnet_sandbox::Process;
use vnet_switch::vlan::{vid, VidSet};
use vnet_switch::{Config, Mirror, Report, Switch, Uplink, Vlans};

use crate::args::Args;
use crate::name::Name;
use crate::net::Net;
use crate::opened::Opened;
use crate::sandbox::served;
use crate::views::Counts;

/// A switch lives for as long as it has ports.
static SWITCHES: Mutex<BTreeMap<Name, Weak<Switch>>> = Mutex::new(BTreeMap::new());

/// The name of an uplink's port.
const UPLINK: &str = "uplink";

/// The switch of this name, which is made if there is none.
fn named(name: &Name) -> Arc<Switch> {
    let mut switches = SWITCHES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(switch) = switches.get(name).and_then(Weak::upgrade) {
        return switch;
    }
    let switch = Switch::new();
    switches.insert(name.clone(), Arc::downgrade(&switch));
    switch
}

/// The counters of a switch.
#[derive(Debug)]
pub(crate) struct SwitchReport {
    pub(crate) name: Name,
    /// Number of addresses that it has learned.
    pub(crate) addresses: usize,
    /// Number of multicast groups with members, if it listens to that.
    pub(crate) groups: Option<usize>,
    /// Those of its ports by their names.
    pub(crate) ports: BTreeMap<String, Report>,
}

/// The counters of all switches.
pub(crate) fn reports() -> Vec<SwitchReport> {
    let switches = SWITCHES.lock().unwrap_or_else(PoisonError::into_inner);
    let switches = switches
        .iter()
        .filter_map(|(name, switch)| Some((name.clone(), switch.upgrade()?)));
    // Whoever drops the last handle does it without the lock.
    let switches: Vec<_> = switches.collect();
    switches
        .into_iter()
        .map(|(name, switch)| {
            let mut ports = BTreeMap::<_, Report>::new();
            for report in switch.report() {
                let port = report.port.clone().unwrap_or_default();
                // For a moment, a card that is given another port of the switch has two.
                ports
                    .entry(port)
                    .and_modify(|sum| sum.add(&report))
                    .or_insert(report);
            }
            SwitchReport {
                name,
                addresses: switch.addresses(),
                groups: switch.groups(),
                ports,
            }
        })
        .collect()
}

/// What the options of a port say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SwitchPort {
    switch: Name,
    config: Config,
    uplink: Option<Net>,
    /// As it was written.
    text: String,
}

impl SwitchPort {
    /// Adds what its uplink takes to what the process may use.
    pub(crate) fn needs(&self, process: &mut Process) {
        if let Some(uplink) = &self.uplink {
            uplink.needs(process);
        }
    }

    /// Joins the switch, with the uplink if there is to be one.
    pub(crate) fn open(
        &self,
        args: &Args,
        counts: &mut Counts,
    ) -> Result<Box<dyn Endpoint>, Error> {
        let switch = named(&self.switch);
        let config = Config {
            label: Some(args.name().to_string()),
            ..self.config.clone()
        };
        let mut port = switch.join(config)?;
        if let Some(net) = &self.uplink {
            let args = Args {
                queues: 1,
                ..args.clone()
            };
            let config = Config {
                port: Some(UPLINK.into()),
                all_multicast: self.config.all_multicast,
                ..Config::default()
            };
            let opened = Opened::new(net.open(&args, counts)?, 1)?;
            let uplink = served(|| Uplink::start(&switch, config, Box::new(opened)));
            let failed = |source| Error::Io {
                what: "uplink".into(),
                source,
            };
            port.keep(uplink.map_err(failed)??);
        }
        Ok(Box::new(port))
    }
}

impl FromStr for SwitchPort {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        const OPTIONS: &str =
            "switch has the options name, port, vlan, trunk, rate, snooping, all-multicast, mirror \
             and uplink";
        let (mut switch, mut uplink, mut untagged, mut trunk) = (None, None, None, None);
        let mut config = Config::default();
        let mut seen = Vec::new();
        for option in s.split(',') {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (option, None),
            };
            if seen.contains(&key) {
                return Err(format!("{key} is given twice"));
            }
            seen.push(key);
            let name = |value: &str| value.parse::<Name>().map_err(|e| format!("{option}: {e}"));
            match (key, value) {
                ("name", Some(value)) => switch = Some(name(value)?),
                ("port", Some(value)) => config.port = Some(name(value)?.to_string()),
                ("vlan", Some(value)) => untagged = Some(vid(value).map_err(|e| e.to_string())?),
                ("trunk", Some(value)) => {
                    trunk = Some(value.parse::<VidSet>().map_err(|e| e.to_string())?);
                }
                ("rate", Some(value)) => {
                    config.rate = Some(value.parse().map_err(|e| format!("{e}"))?);
                }
                ("snooping", None) => config.snooping = true,
                ("all-multicast", None) => config.all_multicast = true,
                ("mirror", None) => config.mirror = Some(Mirror::All),
                ("mirror", Some(value)) => {
                    config.mirror = Some(Mirror::Port(name(value)?.to_string()));
                }
                // Its own options are apart by semicolons, as commas are taken.
                ("uplink", Some(value)) => {
                    let net = value.replace(';', ",");
                    uplink = Some(net.parse::<Net>().map_err(|e| format!("uplink: {e}"))?);
                }
                _ => return Err(OPTIONS.into()),
            }
        }
        if matches!(uplink, Some(Net::Switch(_))) {
            return Err("the uplink of a switch cannot be a switch".into());
        }
        if untagged.is_some() || trunk.is_some() {
            config.vlans = Vlans::new(untagged, &trunk.unwrap_or_default());
        }
        Ok(Self {
            switch: switch.ok_or("switch needs a name: switch:name=NAME")?,
            config,
            uplink,
            text: s.into(),
        })
    }
}

impl fmt::Display for SwitchPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "switch:{}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ports() {
        let port = |text: &str| text.parse::<SwitchPort>().unwrap();
        assert_eq!(port("name=lan").config, Config::default());
        let access = port("name=lan,vlan=10,rate=100M,port=vm1");
        assert_eq!(
            access.config.vlans,
            Vlans::new(Some(10), &VidSet::default())
        );
        assert_eq!(access.config.port.as_deref(), Some("vm1"));
        let trunk = port("name=lan,trunk=10+20-29");
        let set = "10+20-29".parse().unwrap();
        assert_eq!(trunk.config.vlans, Vlans::new(None, &set));
        assert_eq!(port("name=lan,mirror").config.mirror, Some(Mirror::All));
        let listens = port("name=lan,snooping,all-multicast").config;
        assert!(listens.snooping && listens.all_multicast);
        let uplink = port("name=lan,uplink=stream:path=/run/s;listen").uplink;
        assert_eq!(uplink.unwrap().to_string(), "stream:path=/run/s,listen");
        for (bad, due) in [
            ("", "switch has the options"),
            ("lan", "switch has the options"),
            ("vlan=1", "switch needs a name"),
            ("name=a b", "name=a b: 1 to 32 letters"),
            ("name=a,vlan=4095", "\"4095\" is no VLAN"),
            ("name=a,trunk=2-1", "\"2-1\" is no VLAN"),
            ("name=a,rate=1", ""),
            ("name=a,snooping=on", "switch has the options"),
            ("name=a,rate=fast", "\"fast\" is no rate"),
            ("name=a,name=b", "name is given twice"),
            (
                "name=a,uplink=switch:name=b",
                "the uplink of a switch cannot",
            ),
            ("name=a,uplink=pigeon", "uplink: "),
        ] {
            match bad.parse::<SwitchPort>() {
                Ok(_) => assert_eq!(due, "", "{bad}"),
                Err(error) => assert!(!due.is_empty() && error.starts_with(due), "{bad}: {error}"),
            }
        }
    }

    #[test]
    fn a_name_is_one_switch() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let a = named(&name("test-a"));
        assert!(Arc::ptr_eq(&a, &named(&name("test-a"))));
        assert!(!Arc::ptr_eq(&a, &named(&name("test-b"))));
        let gone = Arc::downgrade(&a);
        drop(a);
        assert!(gone.upgrade().is_none());
        let _again = named(&name("test-a"));
    }
}
