// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What this process needs of its system, by what it is told to serve; see `vnet_sandbox`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;
use std::{panic, thread};

use clap::ValueEnum;
use rustix::io::Errno;
use tracing::{info, warn, Span};
use vnet_sandbox::{connect, serve, Process};

use crate::args::Args;
use crate::error::Error;
use crate::scrape::Place;
use crate::server::Ports;
use crate::taps::NAMESPACES;

/// The process is in its sandbox.
static ENTERED: AtomicBool = AtomicBool::new(false);
/// So much is missing from it that nobody is told again.
static LACKING: AtomicBool = AtomicBool::new(false);

/// TCP ports that the process can connect to, if there is a limit to that.
static CONNECTS: OnceLock<Vec<u16>> = OnceLock::new();

/// Where there are namespaces by the processes in them.
pub(crate) const PROCESSES: &str = "/proc";

/// Whether there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// As far as the kernel does
    On,
    /// None
    Off,
}

/// The sandbox of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sandbox {
    pub(crate) mode: Option<Mode>,
    /// What it may use beside what it is told to serve.
    pub(crate) allow: Vec<PathBuf>,
}

impl Sandbox {
    /// What this does not say, the other does. What either allows is allowed.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            mode: self.mode.or(other.mode),
            allow: [self.allow, other.allow].concat(),
        }
    }

    /// Gives up what these cards and ports do not take. Before there are other threads. What cannot be
    /// given up here is no reason not to serve.
    pub(crate) fn enter(self, cards: &[Args], ports: &Ports) -> Entered {
        if self.mode == Some(Mode::Off) {
            return Entered::warning("off".into());
        }
        if cfg!(asan) {
            // No warning: who builds it like that knows, and tests look for warnings.
            return Entered {
                warnings: Vec::new(),
                state: Some("off, as AddressSanitizer looks for leaks with ptrace(2)"),
            };
        }
        let process = self.process(cards, ports);
        let all = process.writable.iter().chain(&process.readable);
        let is_root = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path == Path::new("/"));
        let root = all.into_iter().any(is_root);
        let report = process.enter();
        let of_files = |e: &vnet_sandbox::Error| {
            use vnet_sandbox::Error::{Files, NoLandlock, OtherProcesses};
            matches!(e, Files(_) | NoLandlock | OtherProcesses)
        };
        if !report.missing.iter().any(of_files) {
            CONNECTS.get_or_init(|| process.connects);
        }
        ENTERED.store(true, Ordering::Relaxed);
        LACKING.store(!report.missing.is_empty(), Ordering::Relaxed);
        let mut warnings: Vec<_> = report.missing.iter().map(ToString::to_string).collect();
        if root {
            let why = "files are not limited, since / is a directory of what is served";
            warnings.push(why.into());
        }
        let state = match (warnings.is_empty(), report.partly) {
            (true, false) => "on",
            (true, true) => "on, as far as the Landlock of this kernel does",
            (false, _) => "on, but for that",
        };
        Entered {
            warnings,
            state: Some(state),
        }
    }

    /// What there is to be left.
    fn process(self, cards: &[Args], ports: &Ports) -> Process {
        let named = |path: &PathBuf| Path::new(NAMESPACES).starts_with(path);
        let others = |path: &PathBuf| path.starts_with(PROCESSES);
        let processes = self.allow.iter().any(others);
        let mut process = Process {
            namespaces: processes || self.allow.iter().any(named),
            processes,
            writable: self.allow,
            devices: vec!["/dev/net/tun".into()],
            readable: vec!["/sys/devices/system/cpu".into()],
            ..Process::default()
        };
        // All of them: one that is left out here cannot be listened on.
        let Ports {
            control,
            metrics,
            web,
        } = ports;
        process.writable.extend(control.as_deref().map(directory));
        process.ports.extend(web.web.map(|address| address.port()));
        let token = web.web_token.as_deref();
        process.writable.extend(token.map(directory));
        match metrics {
            Some(Place::Path(path)) => process.writable.push(directory(path)),
            Some(Place::Port(address)) => process.ports.push(address.port()),
            None => {}
        }
        for card in cards {
            process.writable.push(directory(&card.socket));
            let record = card.record.as_ref();
            process
                .writable
                .extend(record.map(|record| directory(&record.file)));
            // Read again when it has changed, or is another one.
            let faults = card.faults.as_deref();
            process.readable.extend(faults.map(directory));
            card.net.needs(&mut process);
        }
        process
    }
}

/// What there is to be said of it, once there is a server.
#[derive(Debug)]
#[must_use]
pub(crate) struct Entered {
    warnings: Vec<String>,
    state: Option<&'static str>,
}

impl Entered {
    fn warning(text: String) -> Self {
        Self {
            warnings: vec![text],
            state: None,
        }
    }

    /// Says it. Not at once: why there is no server is said in one line.
    pub(crate) fn tell(&self) {
        for warning in &self.warnings {
            warn!("sandbox: {warning}");
        }
        if let Some(state) = self.state {
            info!("sandbox: {state}");
        }
    }
}

/// Limits this thread to what it takes to serve clients.
pub(crate) fn serve_here() {
    limit_here(serve);
}

/// Limits this thread to what it takes to connect to these TCP ports.
pub(crate) fn connect_here(ports: &[u16]) {
    limit_here(|| connect(ports));
}

fn limit_here(limit: impl FnOnce() -> Vec<vnet_sandbox::Error>) {
    if ENTERED.load(Ordering::Relaxed) {
        for missing in limit() {
            // The limits of the process hold all the same.
            if !LACKING.load(Ordering::Relaxed) {
                warn!("sandbox: in a thread, {missing}");
            }
        }
    }
}

/// True if the process can connect to this TCP port.
pub(crate) fn may_connect(port: u16) -> bool {
    CONNECTS.get().is_none_or(|ports| ports.contains(&port))
}

/// Makes something whose threads are to serve clients, and are limited to what that takes. An error: there
/// is no thread to do it.
pub(crate) fn served<T: Send>(make: impl FnOnce() -> T + Send) -> io::Result<T> {
    if !ENTERED.load(Ordering::Relaxed) {
        return Ok(make());
    }
    let span = Span::current();
    thread::scope(|scope| {
        // Threads have the limits of those that start them.
        let limited = || {
            let _span = span.entered();
            serve_here();
            make()
        };
        let thread = thread::Builder::new().name("vnet-start".into());
        let thread = thread.spawn_scoped(scope, limited)?;
        Ok(thread.join().unwrap_or_else(|e| panic::resume_unwind(e)))
    })
}

/// What is to be added to an error that may be of the sandbox.
pub(crate) fn hint(error: &Error) -> &'static str {
    const HINT: &str = "; the sandbox leaves vnetd what it was started for: --allow adds to that";
    let mut cause = Some(error as &dyn std::error::Error);
    while let Some(e) = cause {
        let io = e.downcast_ref::<io::Error>().map(io::Error::kind);
        let errno = e.downcast_ref::<Errno>().map(|e| e.kind());
        if io.or(errno) == Some(io::ErrorKind::PermissionDenied) {
            return match ENTERED.load(Ordering::Relaxed) {
                true => HINT,
                false => "",
            };
        }
        cause = e.source();
    }
    ""
}

/// The directory that a path is in.
pub(crate) fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => ".".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn what_is_named_is_left() {
        let config = parse(
            r#"
            control = "/run/control/socket"
            metrics = "127.0.0.1:9468"
            allow = ["/srv"]

            [[card]]
            socket = "/run/cards/a"
            net = "switch:name=lan,uplink=stream:path=/run/stream/s;listen"
            record = "file=/var/record/a.pcapng"

            [[card]]
            socket = "b"
            net = "replay:file=/var/replay/a.pcap"
            faults = "/etc/faults/b"

            [[card]]
            socket = "/run/cards/c"
            net = { type = "gateway", forward = ["80=unix:/run/web/s", "22=[::1]:2222"] }

            [[card]]
            socket = "/run/cards/d"
            net = "switch:name=lan,uplink=gateway:forward=25=127.0.0.1:2525"
            "#,
        );
        let config = config.unwrap();
        let process = config.sandbox.process(&config.cards, &config.ports);
        let all = |paths: &[PathBuf]| {
            let paths = paths.iter().map(|path| path.to_str().unwrap().to_owned());
            paths.collect::<Vec<_>>().join(" ")
        };
        let writable =
            "/srv /run/control /run/cards /var/record /run/stream . /run/cards /run/cards";
        assert_eq!(all(&process.writable), writable);
        let readable = "/sys/devices/system/cpu /etc/faults /var/replay";
        assert_eq!(all(&process.readable), readable);
        assert_eq!(process.ports, [9468]);
        assert_eq!(process.connects, [2222, 2525]);
        assert!(!process.namespaces && !process.processes);
    }

    #[test]
    fn namespaces_take_more() {
        let process = |net: &str, allow: &[&str]| {
            let text = format!("[[card]]\nsocket = \"/run/a\"\nnet = \"{net}\"");
            let sandbox = Sandbox {
                allow: allow.iter().map(PathBuf::from).collect(),
                ..Sandbox::default()
            };
            let config = parse(&text).unwrap();
            let process = sandbox.process(&config.cards, &config.ports);
            (process.namespaces, process.processes)
        };
        assert_eq!(process("tap:name=a", &[]), (false, false));
        assert_eq!(process("tap:name=a,netns=blue", &[]), (true, false));
        assert_eq!(
            process("tap:name=a,netns=/proc/1/ns/net", &[]),
            (true, true)
        );
        assert_eq!(
            process("tap:name=a,netns=/proc/self/ns/net", &[]),
            (true, false)
        );
        assert_eq!(process("gateway", &["/run/netns"]), (true, false));
        assert_eq!(process("gateway", &["/proc"]), (true, true));
        assert_eq!(process("gateway", &["/run/vnetd"]), (false, false));
    }
}
