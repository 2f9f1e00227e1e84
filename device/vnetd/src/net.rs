// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a card can be connected to.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use vnet_backend::Endpoint;
use vnet_contract::queue::rx_index;
use vnet_gateway::{Gateway, Target};
use vnet_generator::Generator;
use vnet_loopback::{Loopback, Null};
use vnet_packet::Packet;
use vnet_replay::{Pace, Replay};
use vnet_sandbox::Process;
use vnet_session::Socket;
use vnet_state::{Held, Intake, Keeper, Memory, Token};
use vnet_stream::Stream;
use vnet_tap::Tap;

use crate::args::Args;
use crate::sandbox::{connect_here, directory, may_connect, PROCESSES};
use crate::switches::SwitchPort;
use crate::taps::TapNet;
use crate::views::Counts;

/// A backend, as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Net {
    Gateway(Box<vnet_gateway::Config>),
    Tap(Box<TapNet>),
    Packet { name: String },
    Stream { path: PathBuf, listen: bool },
    Switch(Box<SwitchPort>),
    Replay(vnet_replay::Config),
    Generator(Box<vnet_generator::Config>),
    Loopback,
    Null(Null),
}

impl Net {
    pub(crate) const HELP: &str = "\
What the card is connected to:
  gateway[:OPTION,...]
                 a small network inside of vnetd, with DHCP, DNS and services; needs no privileges:
                 ip=ADDRESS/LENGTH and ip6=ADDRESS/64 of the gateway, name=NAME=ADDRESS as often as
                 there are names, captive (all other names are the gateway, and all pages its own),
                 forward=PORT=unix:PATH and forward=PORT=127.0.0.1:PORT as often as there are TCP
                 ports of the gateway that lead to a socket of the host
  tap:name=NAME[,netns=NAMESPACE][,bridge=NAME]
                 a TAP interface of the host, which is made if it does not exist: in a network
                 namespace (one of ip netns by name, or a path as /proc/PID/ns/net), as a port of a
                 bridge
  packet:name=NAME
                 the wire that an interface of the host is on; needs CAP_NET_RAW
  stream:path=PATH[,listen]
                 a program behind a unix socket in the framing of QEMU's -netdev stream, such as
                 passt; with listen, the program connects to vnetd
  switch:name=NAME[,OPTION]...
                 a switch that joins the cards of this process which name it: port=NAME, vlan=N
                 (frames without a tag belong to it), trunk=all or numbers and ranges with + between
                 (frames with a tag), rate=BITS a second that the card sends, snooping (multicast
                 is for who asks for it), all-multicast (and for this port), mirror[=PORT] (the card
                 gets copies), uplink=BACKEND
  replay:file=PATH[,rate=BITS|full][,loop]
                 the frames of a capture (pcap or pcapng), with the pauses that they had, at so many
                 bits a second, or as fast as the card takes them
  generator[:OPTION,...]
                 made-up traffic, of which it counts what comes back: to=IP, from=IP, mac=MAC,
                 traffic=arp+icmp+udp+tcp, size=imix or lengths as in 60x7+590-800x4+1514, flows=N,
                 port=N, pps=N frames a second, rate=BITS a second or full, count=N, seed=N
  loopback       itself: every frame that it sends comes back
  null           nothing: frames that it sends are lost. For measurements, options follow a
                 colon, with commas between: copy (frames are copied before they are lost),
                 rx=LEN (it receives frames of this length as fast as it can)";

    /// Sets the backend up. `counts` has its counters then, if it has some.
    pub(crate) fn open(
        &self,
        args: &Args,
        counts: &mut Counts,
    ) -> Result<Box<dyn Endpoint>, vnet_backend::Error> {
        Ok(match self {
            Net::Gateway(config) => {
                let ports: Vec<_> = loopback_ports(config).collect();
                if let Some(port) = ports.iter().find(|port| !may_connect(**port)) {
                    return Err(vnet_backend::Error::Unsupported(format!(
                        "port {port} of the host cannot be connected to; the sandbox leaves vnetd the \
                         ports that it was started for"
                    )));
                }
                let gateway = Gateway::new(vnet_gateway::Config {
                    mtu: args.mtu_max,
                    ..(**config).clone()
                });
                Box::new(gateway.connect_after(move || connect_here(&ports)))
            }
            Net::Tap(tap) => Box::new(Tap::open(tap.config(args.queues))?),
            Net::Packet { name } => {
                let config = vnet_packet::Config { name: name.clone() };
                Box::new(Packet::open(&config)?)
            }
            Net::Stream {
                path,
                listen: false,
            } => Box::new(Stream::connect(path)?),
            Net::Stream { path, listen: true } => {
                let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
                    let what = "cannot listen".into();
                    let source = io::Error::other(error);
                    vnet_backend::Error::Io { what, source }
                };
                let socket = Socket::bind(path).map_err(|e| failed(e.into()))?;
                let listener = socket.listener().map_err(|e| failed(e.into()))?;
                Box::new(Stream::accept(listener.into(), path, socket)?)
            }
            Net::Switch(port) => port.open(args, counts)?,
            Net::Replay(config) => Box::new(Replay::open(config)?),
            Net::Generator(config) => {
                let generator = Generator::new((**config).clone());
                counts.generator = Some(generator.counters());
                Box::new(generator)
            }
            Net::Loopback => Box::new(Loopback::new()),
            Net::Null(null) => Box::new(*null),
        })
    }
}

impl Net {
    /// Adds what it takes to what the process may use.
    pub(crate) fn needs(&self, process: &mut Process) {
        match self {
            Net::Tap(tap) => {
                let netns = tap.config(1).netns;
                let others = |path: &PathBuf| path.starts_with(PROCESSES);
                let own = |path: &PathBuf| path.starts_with("/proc/self");
                process.processes |= netns
                    .as_ref()
                    .is_some_and(|path| others(path) && !own(path));
                process.namespaces |= netns.is_some();
                process.readable.extend(netns);
            }
            Net::Stream { path, listen: true } => process.writable.push(directory(path)),
            Net::Replay(config) => process.readable.push(directory(&config.file)),
            Net::Switch(port) => port.needs(process),
            Net::Gateway(config) => process.connects.extend(loopback_ports(config)),
            // All of them: what is left out here cannot be used.
            Net::Packet { .. } | Net::Stream { listen: false, .. } => {}
            Net::Generator(_) | Net::Loopback | Net::Null(_) => {}
        }
    }

    /// The same for a card that outlives the process: goes on with descriptors that were kept, and
    /// has those kept that are opened now.
    pub(crate) fn open_surviving(
        &self,
        args: &Args,
        keeper: &dyn Keeper,
        memory: &Arc<Memory>,
        held: &mut Held,
    ) -> Result<Box<dyn Endpoint>, vnet_backend::Error> {
        let Net::Tap(tap) = self else {
            // The others are nothing but memory of this process.
            return self.open(args, &mut Counts::default());
        };
        let config = tap.config(args.queues);
        let tokens = (0..args.queues).map(Token::Backend);
        let kept: Vec<_> = tokens.clone().filter_map(|t| held.remove(&t)).collect();
        // The memory has a place for every queue that a card can have.
        let counted = match args.shape {
            Some(line) if !delivers_all(&line) => 0,
            _ => args.queues,
        };
        let intakes = (0..counted).filter_map(|pair| {
            let queue = usize::from(rx_index(pair));
            Intake::new(memory, queue)
        });
        if kept.len() == usize::from(args.queues) {
            let mut tap = Tap::adopt(config, kept)?;
            tap.count(intakes.collect());
            return Ok(Box::new(tap));
        }
        // A process that died while it opened them had not served anybody yet.
        drop(kept);
        tokens.clone().for_each(|token| keeper.forget(token));
        let mut tap = Tap::open(config)?;
        tap.count(intakes.collect());
        for (token, fd) in tokens.zip(tap.descriptors()) {
            keeper.keep(token, fd);
        }
        Ok(Box::new(tap))
    }
}

/// True if what a card receives over a line is what the backend's queues gave it. What the line loses on purpose,
/// or has under way, would be missing.
fn delivers_all(line: &vnet_shape::Config) -> bool {
    line.receive == vnet_shape::Lane::default()
}

impl FromStr for Net {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "gateway" => Ok(Net::Gateway(Box::default())),
            "generator" => Ok(Net::Generator(Box::default())),
            "loopback" => Ok(Net::Loopback),
            "null" => Ok(Net::Null(Null::new())),
            _ => {
                if let Some(options) = s.strip_prefix("null:") {
                    return Ok(null(options).map(Net::Null)?);
                }
                if let Some(options) = s.strip_prefix("stream:") {
                    return Ok(stream(options)?);
                }
                if let Some(options) = s.strip_prefix("replay:") {
                    return replay(options).map(Net::Replay);
                }
                if let Some(options) = s.strip_prefix("gateway:") {
                    let config = options.parse().map_err(|e| format!("{e}"))?;
                    return Ok(Net::Gateway(Box::new(config)));
                }
                if let Some(options) = s.strip_prefix("generator:") {
                    let config = options.parse().map_err(|e| format!("{e}"))?;
                    return Ok(Net::Generator(Box::new(config)));
                }
                if let Some(options) = s.strip_prefix("switch:") {
                    return Ok(Net::Switch(Box::new(options.parse()?)));
                }
                if let Some(name) = s.strip_prefix("packet:name=").filter(|n| !n.is_empty()) {
                    return Ok(Net::Packet { name: name.into() });
                }
                if let Some(options) = s.strip_prefix("tap:") {
                    return Ok(Net::Tap(Box::new(options.parse()?)));
                }
                Err(
                    "one of gateway, tap:name=NAME, packet:name=NAME, stream:path=PATH, \
                     switch:name=NAME, replay:file=PATH, generator, loopback and null is needed"
                        .into(),
                )
            }
        }
    }
}

/// Ports of the host's loopback that ports of a gateway lead to.
fn loopback_ports(config: &vnet_gateway::Config) -> impl Iterator<Item = u16> + '_ {
    let targets = config.forwards.iter().map(|forward| &forward.target);
    targets.filter_map(|target| match target {
        Target::Loopback(address) => Some(address.port()),
        Target::Unix(_) => None,
    })
}

/// Options of the null backend.
fn null(options: &str) -> Result<Null, &'static str> {
    let mut null = Null::new();
    for option in options.split(',') {
        match option.strip_prefix("rx=").map(str::parse) {
            Some(Ok(len)) => null.source = Some(len),
            None if option == "copy" => null.copy = true,
            _ => return Err("null has the options copy and rx=LENGTH, of at most 65535 bytes"),
        }
    }
    Ok(null)
}

/// Options of the stream backend.
fn stream(options: &str) -> Result<Net, &'static str> {
    const WRONG: &str = "stream has the options path=PATH, without commas in it, and listen";
    let (mut path, mut listen) = (None, false);
    for option in options.split(',') {
        match option.strip_prefix("path=") {
            Some(value) if !value.is_empty() && path.is_none() => path = Some(value.into()),
            None if option == "listen" => listen = true,
            _ => return Err(WRONG),
        }
    }
    let path = path.ok_or(WRONG)?;
    Ok(Net::Stream { path, listen })
}

/// Options of the replay backend.
fn replay(options: &str) -> Result<vnet_replay::Config, String> {
    const WRONG: &str =
        "replay has the options file=PATH, without commas in it, rate=BITS or full, \
                         and loop, each once";
    let (mut file, mut pace, mut again) = (None, None, false);
    for option in options.split(',') {
        match option.split_once('=') {
            Some(("file", path)) if !path.is_empty() && file.is_none() => file = Some(path.into()),
            Some(("rate", rate)) if pace.is_none() => {
                pace = Some(Pace::Rate(rate.parse().map_err(|e| format!("{e}"))?));
            }
            None if option == "full" && pace.is_none() => pace = Some(Pace::Full),
            None if option == "loop" && !again => again = true,
            _ => return Err(WRONG.into()),
        }
    }
    Ok(vnet_replay::Config {
        file: file.ok_or(WRONG)?,
        pace: pace.unwrap_or_default(),
        again,
    })
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Net::Gateway(config) => match config.to_string().as_str() {
                "" => f.write_str("gateway"),
                options => write!(f, "gateway:{options}"),
            },
            Net::Tap(tap) => tap.fmt(f),
            Net::Packet { name } => write!(f, "packet:name={name}"),
            Net::Stream { path, listen } => {
                write!(f, "stream:path={}", path.display())?;
                f.write_str(if *listen { ",listen" } else { "" })
            }
            Net::Switch(port) => port.fmt(f),
            Net::Replay(config) => {
                write!(f, "replay:file={}", config.file.display())?;
                match config.pace {
                    Pace::Original => {}
                    Pace::Rate(rate) => write!(f, ",rate={rate}")?,
                    Pace::Full => f.write_str(",full")?,
                }
                f.write_str(if config.again { ",loop" } else { "" })
            }
            Net::Generator(config) => write!(f, "generator:{config}"),
            Net::Loopback => f.write_str("loopback"),
            Net::Null(Null { copy, source }) => {
                f.write_str("null")?;
                let copy = copy.then(|| "copy".to_owned());
                let source = source.map(|len| format!("rx={len}"));
                let options: Vec<_> = copy.into_iter().chain(source).collect();
                if options.is_empty() {
                    return Ok(());
                }
                write!(f, ":{}", options.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_what_is_sent_delivers_all() {
        for (line, all) in [
            ("loss=1%", false),
            ("receive.delay=1ms", false),
            ("send.rate=1M,send.loss=1%", true),
            ("seed=7", true),
        ] {
            assert_eq!(delivers_all(&line.parse().unwrap()), all, "{line}");
        }
    }

    #[test]
    fn names_round_trip() {
        for name in [
            "gateway",
            "gateway:ip=10.0.0.1/8,ip6=fd00::5/64,name=a.example=192.0.2.1,name=b=fd00::9,captive",
            "gateway:forward=80=unix:/run/app.sock,forward=8022=127.0.0.1:22,forward=8023=[::1]:22",
            "switch:name=lan,uplink=gateway:forward=80=unix:app;forward=22=127.0.0.1:22",
            "tap:name=tap0",
            "tap:name=tap0,netns=blue,bridge=br0",
            "tap:name=tap0,netns=/proc/1/ns/net",
            "packet:name=eth0",
            "stream:path=/run/passt.socket",
            "stream:path=s,listen",
            "replay:file=/tmp/a.pcap",
            "replay:file=a,rate=10M,loop",
            "replay:file=a,full",
            "switch:name=lan",
            "switch:name=lan,vlan=10,trunk=20+30-39,rate=1G,uplink=tap:name=tap0",
            "generator:to=10.0.0.2,traffic=icmp,full,seed=1",
            "switch:name=lan,uplink=generator:traffic=udp;full",
            "loopback",
            "null",
            "null:copy",
            "null:rx=64",
            "null:copy,rx=65535",
        ] {
            assert_eq!(name.parse::<Net>().unwrap().to_string(), name);
        }
        for bad in [
            "",
            "Gateway",
            "gateway:",
            "gateway:ip=1",
            "gateway:forward=22=192.0.2.1:22",
            "tap",
            "tap:tap0",
            "tap:name=",
            "tap:bridge=br0",
            "tap:name=a,bridge=",
            "tap:name=a,name=b",
            "tap:name=a,mtu=1",
            "packet:name=",
            "stream",
            "stream:path=",
            "stream:listen",
            "stream:path=a,path=b",
            "stream:path=a,talk",
            "replay",
            "replay:",
            "replay:file=",
            "replay:file=a,rate=1M,full",
            "replay:file=a,file=b",
            "replay:full",
            "switch",
            "switch:lan",
            "generator:",
            "generator:to=me",
            "null ",
            "null:",
            "null:rx=65536",
            "null:copy,",
        ] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
    }
}
