// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How a gateway is set up, and how that is written.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::dns::Name;
use crate::forward::Forward;
use crate::gateway::MAX_MTU;
use crate::net::Lan;

/// Most names.
const MAX_NAMES: usize = 1024;
/// Most ports that lead to the host.
const MAX_FORWARDS: usize = 64;

/// How the gateway is set up. Written, but for the MTU, as options with commas between:
/// `ip=10.1.0.1/16,name=www.example=10.1.0.9`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The gateway's own MTU, brought into [`MIN_MTU`](crate::MIN_MTU)..=[`MAX_MTU`]. A guest with a smaller
    /// one says so in its TCP connections; everything else that the gateway sends is either small or
    /// as long as what the guest sent.
    pub mtu: u16,
    /// Its addresses, and those of the LAN.
    pub lan: Lan,
    /// What its name server knows, beside its own name `gateway`.
    pub names: Vec<(Name, IpAddr)>,
    /// All other names are those of the gateway, and all pages lead to its own.
    pub captive: bool,
    /// Ports that lead to the host, each once. One that has a service of the gateway's leads there instead.
    pub forwards: Vec<Forward>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mtu: MAX_MTU,
            lan: Lan::default(),
            names: Vec::new(),
            captive: false,
            forwards: Vec::new(),
        }
    }
}

/// What does not describe a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadConfig {
    option: String,
    why: &'static str,
}

impl std::error::Error for BadConfig {}

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.why)
    }
}

impl FromStr for Config {
    type Err = BadConfig;

    fn from_str(text: &str) -> Result<Self, BadConfig> {
        let mut config = Self::default();
        let (mut ip, mut ip6) = (false, false);
        for option in text.split(',') {
            let bad = |why| BadConfig {
                option: option.into(),
                why,
            };
            match option.split_once('=') {
                Some(("ip", value)) if !ip => {
                    ip = true;
                    config.lan.set_ipv4(value).ok_or_else(|| {
                        bad("the gateway's address with the length of its prefix is needed, with room for \
                             32 guests behind it, as 10.77.0.1/24")
                    })?;
                }
                Some(("ip6", value)) if !ip6 => {
                    ip6 = true;
                    config.lan.set_ipv6(value).ok_or_else(|| {
                        bad("the gateway's address in a prefix of 64 bits is needed, as fd00::1/64")
                    })?;
                }
                Some(("name", value)) => {
                    let name = value.split_once('=').and_then(|(name, address)| {
                        Some((Name::new(name)?, address.parse().ok()?))
                    });
                    let name = name.ok_or_else(|| {
                        bad("NAME=ADDRESS is needed, as name=www.example=10.77.0.9")
                    })?;
                    if config.names.len() == MAX_NAMES {
                        return Err(bad("more than 1024 names"));
                    }
                    config.names.push(name);
                }
                Some(("forward", value)) => {
                    let forward: Forward = value.parse().map_err(bad)?;
                    if config.forwards.iter().any(|f| f.port == forward.port) {
                        return Err(bad("that port leads somewhere already"));
                    }
                    if config.forwards.len() == MAX_FORWARDS {
                        return Err(bad("more than 64 ports"));
                    }
                    config.forwards.push(forward);
                }
                None if option == "captive" && !config.captive => config.captive = true,
                _ => {
                    return Err(bad(
                        "ip=ADDRESS/LENGTH, ip6=ADDRESS/64, name=NAME=ADDRESS, captive and \
                         forward=PORT=TARGET are the options of a gateway, name and forward as often as \
                         there are names and ports",
                    ));
                }
            }
        }
        Ok(config)
    }
}

/// The options that are not as they are by default; nothing if there are none.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Lan::default();
        let mut options = Vec::new();
        if self.lan.ipv4() != usual.ipv4() {
            options.push(format!("ip={}", self.lan.ipv4()));
        }
        if self.lan.ipv6() != usual.ipv6() {
            options.push(format!("ip6={}", self.lan.ipv6()));
        }
        let names = self.names.iter();
        options.extend(names.map(|(name, address)| format!("name={}={address}", name.as_str())));
        options.extend(self.captive.then(|| "captive".into()));
        let forwards = self.forwards.iter();
        options.extend(forwards.map(|forward| format!("forward={forward}")));
        f.write_str(&options.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_written_as_it_is_read() {
        for (text, written) in [
            ("ip=10.77.0.1/24", ""),
            (
                "name=A.example.=192.0.2.1,forward=22=127.0.0.1:22,captive,ip6=fd00::5/64,name=b=fd00::9,\
                 ip=10.0.0.1/8,forward=80=unix:/run/app=1",
                "ip=10.0.0.1/8,ip6=fd00::5/64,name=a.example=192.0.2.1,name=b=fd00::9,captive,\
                 forward=22=127.0.0.1:22,forward=80=unix:/run/app=1",
            ),
        ] {
            let config: Config = text.parse().unwrap();
            assert_eq!(config.to_string(), written);
            assert!(written.is_empty() || written.parse() == Ok(config));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, due) in [
            ("", ": ip=ADDRESS/LENGTH,"),
            ("ip=10.0.0.1", "ip=10.0.0.1: the gateway's address"),
            ("ip6=fd00::1", "ip6=fd00::1: the gateway's address"),
            ("name=a", "name=a: NAME=ADDRESS"),
            ("name=a b=10.0.0.1", "name=a b=10.0.0.1: NAME=ADDRESS"),
            ("captive,captive", "captive: ip=ADDRESS/LENGTH,"),
            ("mtu=1", "mtu=1: ip=ADDRESS/LENGTH,"),
            ("forward", "forward: ip=ADDRESS/LENGTH,"),
            ("forward=1", "forward=1: PORT=unix:PATH"),
            (
                "forward=1=unix:a,forward=1=unix:b",
                "forward=1=unix:b: that port",
            ),
        ] {
            let error = text.parse::<Config>().unwrap_err().to_string();
            assert!(error.starts_with(due), "{text}: {error}");
        }
        let many = ["name=a=10.0.0.1"; MAX_NAMES + 1].join(",");
        assert!(many
            .parse::<Config>()
            .unwrap_err()
            .to_string()
            .ends_with("1024 names"));
        let many: Vec<_> = (1..66).map(|n| format!("forward={n}=unix:a")).collect();
        let error = many.join(",").parse::<Config>().unwrap_err().to_string();
        assert_eq!(error, "forward=65=unix:a: more than 64 ports");
    }
}
