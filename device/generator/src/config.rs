// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a generator sends, and how that is written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use smoltcp::wire::EthernetAddress;
use vnet_backend::{Rate, MAX_FRAME};

/// Most flows.
pub const MAX_FLOWS: u16 = 4096;
/// Most frames a second that can be asked for: more than any guest takes.
const MAX_FRAMES_PER_SECOND: u32 = 100_000_000;
/// Shortest frame: what Ethernet allows, without the checksum that the card never sees.
pub(crate) const MIN_FRAME: u16 = 60;
/// Longest frame: Ethernet's header, and the longest packet of IPv4.
const LONGEST_FRAME: u16 = u16::MAX;
/// The default addresses of IPv6, of the generator and of whom it sends to.
const FROM_V6: Ipv6Addr = Ipv6Addr::new(0xfd76, 0x6e65, 0x7400, 0, 0, 0, 0, 1);
const TO_V6: Ipv6Addr = Ipv6Addr::new(0xfd76, 0x6e65, 0x7400, 0, 0, 0, 0, 2);
/// Most entries of a mix.
const MAX_ENTRIES: usize = 16;
/// Frames of "Internet mix": packets of 40, 576 and 1500 bytes, seven to four to one.
const IMIX: [(Sizes, u16); 3] = [
    (Sizes { min: 60, max: 60 }, 7),
    (Sizes { min: 590, max: 590 }, 4),
    (
        Sizes {
            min: 1514,
            max: 1514,
        },
        1,
    ),
];
const _: () = assert!(LONGEST_FRAME as usize <= MAX_FRAME);

/// Traffic. Written as options with commas between: `to=10.77.0.2,traffic=udp,size=imix,rate=10M`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The generator's own address.
    pub from: IpAddr,
    /// Whom it sends to, by the same version of IP.
    pub to: IpAddr,
    /// MAC address of that; `None`: it asks by ARP or neighbour discovery.
    pub mac: Option<EthernetAddress>,
    /// What it sends.
    pub traffic: Mix<Protocol>,
    /// Lengths of frames, but for those that ask for an address.
    pub size: Mix<Sizes>,
    /// Number of flows: UDP and TCP source ports, ICMP identifiers.
    pub flows: u16,
    /// Destination port of UDP and TCP.
    pub port: u16,
    /// How fast.
    pub pace: Pace,
    /// How many frames; `None`: no end.
    pub count: Option<u64>,
    /// Chooses protocol, length and flow of each frame.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            from: Ipv4Addr::new(10, 77, 0, 1).into(),
            to: Ipv4Addr::new(10, 77, 0, 2).into(),
            mac: None,
            traffic: Mix::one(Protocol::Arp),
            size: Mix::one(Sizes {
                min: MIN_FRAME,
                max: MIN_FRAME,
            }),
            flows: 1,
            port: 7,
            pace: Pace::Frames(1),
            count: None,
            seed: 0,
        }
    }
}

/// How fast frames come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many a second, not zero.
    Frames(u32),
    /// Bits a second.
    Rate(Rate),
    /// As fast as the driver takes them.
    Full,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Requests, to all; with IPv6, neighbour solicitations.
    Arp,
    /// Echo requests.
    Icmp,
    /// Datagrams.
    Udp,
    /// Segments of connections that nobody has opened, which begin with SYN.
    Tcp,
}

const PROTOCOLS: [(&str, Protocol); 4] = [
    ("arp", Protocol::Arp),
    ("icmp", Protocol::Icmp),
    ("udp", Protocol::Udp),
    ("tcp", Protocol::Tcp),
];

/// Lengths of frames, all equally often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// From this,
    pub min: u16,
    /// up to this one.
    pub max: u16,
}

/// Several things and how often each of them comes, written as `60x7+590x4+1514`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix<T>(Vec<(T, u16)>);

impl<T: Copy> Mix<T> {
    /// Nothing else.
    pub fn one(what: T) -> Self {
        Self(vec![(what, 1)])
    }

    /// What comes for this random number.
    pub(crate) fn pick(&self, random: u64) -> T {
        let all: u64 = self.iter().map(|(_, weight)| u64::from(weight)).sum();
        let mut left = random % all.max(1);
        for (what, weight) in self.iter() {
            match left.checked_sub(weight.into()) {
                Some(rest) => left = rest,
                None => return what,
            }
        }
        // There is always one.
        self.0[0].0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (T, u16)> + '_ {
        self.0.iter().copied()
    }

    fn parse(text: &str, what: impl Fn(&str) -> Option<T>) -> Option<Self> {
        let entries = text.split('+').map(|entry| {
            let (name, weight) = match entry.split_once('x') {
                Some((name, weight)) => (name, weight.parse().ok().filter(|w| *w > 0)?),
                None => (entry, 1),
            };
            Some((what(name)?, weight))
        });
        let entries: Vec<_> = entries.take(MAX_ENTRIES + 1).collect::<Option<_>>()?;
        (entries.len() <= MAX_ENTRIES).then_some(Self(entries))
    }
}

impl<T: fmt::Display> fmt::Display for Mix<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (what, weight)) in self.0.iter().enumerate() {
            f.write_str(if n > 0 { "+" } else { "" })?;
            match weight {
                1 => write!(f, "{what}")?,
                _ => write!(f, "{what}x{weight}")?,
            }
        }
        Ok(())
    }
}

impl Sizes {
    fn parse(text: &str) -> Option<Self> {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        let (min, max) = (min.parse().ok()?, max.parse().ok()?);
        (MIN_FRAME <= min && min <= max).then_some(Self { min, max })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "{}", self.min),
            false => write!(f, "{}-{}", self.min, self.max),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = PROTOCOLS.iter().find(|(_, protocol)| protocol == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

/// What does not describe traffic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// No such option.
    #[error("{0:?}: to, from, mac, traffic, size, flows, port, pps, rate, full, count and seed are the options of a generator, all but full with a value behind =")]
    Option(String),
    /// The value is not what the option takes.
    #[error("{option}: {needed}")]
    Value {
        /// The option as it was written.
        option: String,
        /// What it takes.
        needed: String,
    },
    /// The same twice, or several that say how fast.
    #[error("{0} is one too many: each option once, and one of pps, rate and full")]
    Twice(String),
    /// Nobody can be sent to by this name.
    #[error("from and to are the addresses of two stations on one network")]
    Addresses,
}

impl FromStr for Config {
    type Err = BadConfig;

    fn from_str(text: &str) -> Result<Self, BadConfig> {
        let mut config = Self::default();
        let mut seen = Vec::new();
        for option in text.split(',') {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let known = if matches!(key, "pps" | "rate" | "full") {
                "pace"
            } else {
                key
            };
            if seen.contains(&known) {
                return Err(BadConfig::Twice(key.into()));
            }
            seen.push(known);
            if option != "full" && !option.contains('=') {
                return Err(BadConfig::Option(option.into()));
            }
            let bad = |needed: &str| BadConfig::Value {
                option: option.into(),
                needed: needed.into(),
            };
            let address = || value.parse().map_err(|_| bad("an IP address is needed"));
            match key {
                "from" => config.from = address()?,
                "to" => config.to = address()?,
                "mac" => {
                    let mac = value.parse().ok();
                    config.mac = Some(mac.ok_or_else(|| bad("a MAC address is needed"))?);
                }
                "traffic" => {
                    let name = |text: &str| PROTOCOLS.iter().find(|p| p.0 == text).map(|p| p.1);
                    let mix = Mix::parse(value, name);
                    config.traffic = mix.ok_or_else(|| {
                        bad("arp, icmp, udp or tcp are needed, or several as in icmp+udpx3")
                    })?;
                }
                "size" if value == "imix" => config.size = Mix(IMIX.to_vec()),
                "size" => {
                    let mix = Mix::parse(value, Sizes::parse);
                    config.size = mix.ok_or_else(|| {
                        bad("imix or lengths of 60 to 65535 bytes are needed, as in 60x7+590-800x4+1514")
                    })?;
                }
                "flows" => {
                    let flows = value.parse().ok().filter(|n| (1..=MAX_FLOWS).contains(n));
                    config.flows = flows.ok_or_else(|| bad("a number from 1 to 4096 is needed"))?;
                }
                "port" => {
                    let port = value.parse().ok().filter(|n| *n > 0);
                    config.port = port.ok_or_else(|| bad("a port is needed"))?;
                }
                "pps" => {
                    let frames = value.parse().ok();
                    let frames = frames.filter(|n| (1..=MAX_FRAMES_PER_SECOND).contains(n));
                    config.pace = Pace::Frames(
                        frames.ok_or_else(|| bad("frames a second are needed, 1 to 100000000"))?,
                    );
                }
                "rate" => {
                    let rate = value.parse::<Rate>();
                    config.pace = Pace::Rate(rate.map_err(|e| bad(&e.to_string()))?);
                }
                "full" if value.is_empty() && option == "full" => config.pace = Pace::Full,
                "count" => {
                    let count = value.parse().ok();
                    config.count = Some(count.ok_or_else(|| bad("a number is needed"))?);
                }
                "seed" => {
                    config.seed = value.parse().map_err(|_| bad("a number is needed"))?;
                }
                _ => return Err(BadConfig::Option(option.into())),
            }
        }
        if !seen.contains(&"from") && config.to.is_ipv6() {
            config.from = FROM_V6.into();
        }
        if !seen.contains(&"to") && config.from.is_ipv6() {
            config.to = TO_V6.into();
        }
        let Config { from, to, .. } = config;
        let broadcast = IpAddr::from(Ipv4Addr::BROADCAST);
        let station = |address: IpAddr| {
            !address.is_unspecified() && address != broadcast && !address.is_multicast()
        };
        if from == to || from.is_ipv6() != to.is_ipv6() || !station(from) || !station(to) {
            return Err(BadConfig::Addresses);
        }
        Ok(config)
    }
}

/// The options that are not as they are by default; at least one.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        let mut options = Vec::new();
        let mut tell = |differs: bool, name: &str, value: String| {
            if differs {
                options.push(format!("{name}{value}"));
            }
        };
        tell(self.to != usual.to, "to=", self.to.to_string());
        tell(self.from != usual.from, "from=", self.from.to_string());
        if let Some(mac) = self.mac {
            // As users write it, not as smoltcp does.
            let bytes = mac.0.map(|byte| format!("{byte:02x}"));
            tell(true, "mac=", bytes.join(":"));
        }
        let (traffic, size) = (&self.traffic, &self.size);
        tell(*traffic != usual.traffic, "traffic=", traffic.to_string());
        tell(*size != usual.size, "size=", size.to_string());
        tell(self.flows != usual.flows, "flows=", self.flows.to_string());
        tell(self.port != usual.port, "port=", self.port.to_string());
        let (name, value) = match self.pace {
            Pace::Frames(frames) => ("pps=", frames.to_string()),
            Pace::Rate(rate) => ("rate=", rate.to_string()),
            Pace::Full => ("full", String::new()),
        };
        tell(self.pace != usual.pace, name, value);
        if let Some(count) = self.count {
            tell(true, "count=", count.to_string());
        }
        tell(self.seed != usual.seed, "seed=", self.seed.to_string());
        if options.is_empty() {
            return write!(f, "seed={}", self.seed);
        }
        f.write_str(&options.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_written_as_it_is_read() {
        for (text, written) in [
            ("seed=0", "seed=0"),
            ("to=10.77.0.2,seed=7,traffic=arp", "seed=7"),
            (
                "traffic=icmp+udpx3,size=imix,rate=10M,to=192.0.2.1,count=5,flows=9,port=9",
                "to=192.0.2.1,traffic=icmp+udpx3,size=60x7+590x4+1514,flows=9,port=9,rate=10M,\
                 count=5",
            ),
            (
                "from=fe80::1,traffic=icmp",
                "to=fd76:6e65:7400::2,from=fe80::1,traffic=icmp",
            ),
            ("to=fd00::2", "to=fd00::2,from=fd76:6e65:7400::1"),
            (
                "full,traffic=tcp,size=60-65535,mac=52:54:00:76:6e:00",
                "mac=52:54:00:76:6e:00,traffic=tcp,size=60-65535,full",
            ),
        ] {
            let config: Config = text.parse().unwrap();
            assert_eq!(config.to_string(), written);
            assert_eq!(written.parse(), Ok(config));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let many = format!("size={}60", "60+".repeat(MAX_ENTRIES));
        for (text, due) in [
            ("", "\"\": to, from"),
            ("speed=1", "\"speed=1\": to, from"),
            ("seed", "\"seed\": to, from"),
            ("full=1", "\"full=1\": to, from"),
            ("to=host", "to=host: an IP address is needed"),
            ("mac=1", "mac=1: a MAC address is needed"),
            ("traffic=", "traffic=: arp, icmp"),
            ("traffic=udpx0", "traffic=udpx0: arp, icmp"),
            ("traffic=udp+", "traffic=udp+: arp, icmp"),
            ("size=59", "size=59: imix or lengths"),
            ("size=100-60", "size=100-60: imix or lengths"),
            ("size=65536", "size=65536: imix or lengths"),
            (&many, &many),
            ("flows=0", "flows=0: a number from 1"),
            ("flows=4097", "flows=4097: a number from 1"),
            ("port=0", "port=0: a port"),
            ("pps=0", "pps=0: frames a second"),
            ("rate=fast", "rate=fast: \"fast\" is no rate"),
            ("count=-1", "count=-1: a number"),
            ("seed=x", "seed=x: a number"),
            ("pps=1,full", "full is one too many"),
            ("seed=1,seed=2", "seed is one too many"),
            ("to=10.77.0.1", "from and to are"),
            ("to=255.255.255.255", "from and to are"),
            ("to=ff02::1", "from and to are"),
            ("to=fd00::2,from=10.77.0.1", "from and to are"),
        ] {
            let error = text.parse::<Config>().unwrap_err().to_string();
            assert!(error.starts_with(due), "{text}: {error}");
        }
    }

    #[test]
    fn a_mix_has_its_shares() {
        let mix = Mix::parse("60x7+590x4+1514", Sizes::parse).unwrap();
        let mut found = [0; 3];
        for random in 0..1200 {
            let size = mix.pick(random).min;
            found[[60, 590, 1514].iter().position(|s| *s == size).unwrap()] += 1;
        }
        assert_eq!(found, [700, 400, 100]);
    }
}
