// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! vnetd as a service: readiness, signs of life, sockets that it is given, and its log in the journal.
//! A fake of systemd, by what sd_notify(3), sd_listen_fds(3) and sd-daemon(3) say.
#![allow(missing_docs)]

mod common;

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{options, round_trip};
use rustix::process::{kill_process, Pid, Signal};
use serde_json::{json, Value};
use tempfile::TempDir;
use vnet_control::{Client, Command as Call, OfNothing, Request};
use vnet_testkit::{Card, Nic, Server, LIMIT};

/// Ends with its test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Service {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn ended(&mut self) -> bool {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < end, "does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Where a service says how it is.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self { socket, dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// The next thing that it says.
    fn hears(&self) -> String {
        let mut message = [0; 1024];
        let n = self.socket.recv(&mut message).expect("says something");
        String::from_utf8_lossy(&message[..n]).into_owned()
    }

    fn command(&self) -> Command {
        let mut command = Server::command();
        command.env("NOTIFY_SOCKET", self.path("notify"));
        command.stdin(Stdio::null());
        command
    }
}

fn connects(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

#[test]
fn readiness_signs_of_life_and_the_end() {
    for survive in [false, true] {
        let manager = Manager::new();
        let socket = manager.path("card");
        let mut command = manager.command();
        command.arg("--socket").arg(&socket).args(["--net", "null"]);
        command.env("WATCHDOG_USEC", "100000");
        if survive {
            command.arg("--survive");
        }
        let mut service = Service(command.spawn().unwrap());
        assert_eq!(manager.hears(), "READY=1\nSTATUS=1 card\n");
        assert!(connects(&socket), "is ready when it says so");
        for _ in 0..5 {
            assert_eq!(manager.hears(), "WATCHDOG=1\n");
        }
        service.signal(Signal::TERM);
        while manager.hears() != "STOPPING=1\n" {}
        assert!(service.ended());
    }
}

#[test]
fn without_a_watchdog_there_are_no_signs_of_life() {
    let manager = Manager::new();
    let mut command = manager.command();
    command.arg("--socket").arg(manager.path("card"));
    let mut service = Service(command.args(["--net", "null"]).spawn().unwrap());
    assert!(manager.hears().starts_with("READY=1\n"));
    service.signal(Signal::TERM);
    assert_eq!(manager.hears(), "STOPPING=1\n");
    assert!(service.ended());
}

/// Has the command run with these as descriptors 3 and 4, as if a service manager had made them.
fn with_sockets(command: &Command, first: OwnedFd, second: OwnedFd) -> Command {
    let script = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=2; exec \"$0\" \"$@\"";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).arg(command.get_program());
    shell.args(command.get_args());
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(key, value);
        }
    }
    shell.stdin(first).stdout(second);
    shell
}

#[test]
fn sockets_are_recognized_by_their_paths() {
    let manager = Manager::new();
    let control = UnixListener::bind(manager.path("control")).unwrap();
    let card = UnixListener::bind(manager.path("a.sock")).unwrap();
    // Which may have to be built first, for longer than a client waits.
    let mut command = manager.command();
    // Who connects before the service runs is served when it does.
    let early = std::thread::spawn({
        let path = manager.path("control");
        move || {
            let mut client = Client::connect(&path).unwrap();
            client.call(&Call::CardList(OfNothing {})).unwrap()
        }
    });
    let config = manager.path("vnetd.toml");
    let text = r#"
        control = "@/control"
        [[card]]
        socket = "@/a.sock"
        net = "loopback"
        [[card]]
        socket = "@/b.sock"
        net = "loopback"
    "#;
    let place = manager.dir.path().to_str().unwrap();
    std::fs::write(&config, text.replace('@', place)).unwrap();
    command.arg("--config").arg(&config);
    let mut command = with_sockets(&command, control.into(), card.into());
    let mut service = Service(command.spawn().unwrap());
    assert_eq!(manager.hears(), "READY=1\nSTATUS=2 cards\n");
    assert_eq!(early.join().unwrap()[1]["name"], "b");
    let card = Card::connect(&manager.path("a.sock")).unwrap();
    let mut nic = Nic::bring_up(card, options()).unwrap();
    round_trip(&mut nic, 0, 1);
    // A card that goes, and one that comes in its place.
    drop(nic);
    let mut client = Client::connect(&manager.path("control")).unwrap();
    let mut call = |execute: &str, arguments: Value| {
        let arguments = arguments.as_object().unwrap().clone();
        let request = Request {
            execute: execute.into(),
            arguments,
            id: None,
        };
        client.call(&request.command().unwrap())
    };
    let again = |name| {
        let socket = manager.path("a.sock");
        json!({"settings": {"name": name, "socket": socket, "net": "loopback"}})
    };
    let taken = call("card-add", again("c")).unwrap_err().to_string();
    assert!(taken.contains("a.sock"), "{taken}");
    call("card-remove", json!({"card": "a"})).unwrap();
    call("card-add", again("a")).unwrap();
    let card = Card::connect(&manager.path("a.sock")).unwrap();
    round_trip(&mut Nic::bring_up(card, options()).unwrap(), 0, 2);
    service.signal(Signal::TERM);
    assert!(service.ended());
    // Its own path goes with it, those of others stay.
    assert!(!manager.path("b.sock").exists());
    assert!(manager.path("a.sock").exists() && manager.path("control").exists());
}

#[test]
fn a_port_for_metrics_and_what_nobody_wants() {
    let manager = Manager::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    let other = UnixListener::bind(manager.path("other")).unwrap();
    let log = File::create(manager.path("log")).unwrap();
    let mut command = manager.command();
    command.arg("--socket").arg(manager.path("card"));
    command.args(["--net", "null", "--metrics", &address.to_string()]);
    let mut command = with_sockets(&command, port.into(), other.into());
    let mut service = Service(command.stderr(log).spawn().unwrap());
    // With it goes what this process has of the sockets.
    drop(command);
    assert!(manager.hears().starts_with("READY=1\n"));
    assert!(std::net::TcpStream::connect(address).is_ok());
    assert!(!connects(&manager.path("other")));
    service.signal(Signal::TERM);
    assert!(service.ended());
    let log = std::fs::read_to_string(manager.path("log")).unwrap();
    assert!(log.contains("nothing is to listen on"), "{log}");
}

#[test]
fn lines_for_the_journal_say_how_grave_they_are() {
    let manager = Manager::new();
    let path = manager.path("log");
    let log = File::create(&path).unwrap();
    let meta = log.metadata().unwrap();
    let journal = format!("{}:{}", meta.dev(), meta.ino());
    let run = |journal: &str, socket: &str, net: &str| {
        let log = File::options().append(true).open(&path).unwrap();
        let mut command = manager.command();
        command.arg("--socket").arg(manager.path(socket));
        command.args(["--net", net, "--log", "info"]);
        let child = command.env("JOURNAL_STREAM", journal).stderr(log);
        Service(child.spawn().unwrap())
    };
    let mut service = run(&journal, "card", "null");
    assert!(manager.hears().starts_with("READY=1\n"));
    service.signal(Signal::TERM);
    assert!(service.ended());
    let mut failing = run(&journal, "card", "stream:path=/nonexistent/listen,listen");
    assert!(!failing.ended());
    let text = std::fs::read_to_string(&path).unwrap();
    let at = |part: &str| text.lines().find(|line| line.contains(part)).expect(&text);
    assert!(at("listening on").starts_with("<6>listening on "), "{text}");
    assert!(at("/nonexistent/").starts_with("<3>vnetd: "), "{text}");
    // Somebody else's journal is none of ours.
    let mut failing = run("1:1", "card", "stream:path=/nonexistent/other,listen");
    assert!(!failing.ended());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.lines()
            .any(|l| l.starts_with("vnetd: ") && l.contains("other")),
        "{text}"
    );
}

/// What the unit has vnetd do must be what vnetd can do.
#[test]
fn the_units_fit_the_program() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../qemu-config/systemd");
    let service = std::fs::read_to_string(units.join("vnetd.service")).unwrap();
    let value = |key: &str| {
        let line = service.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("{key}")).to_owned()
    };
    assert_eq!(value("Type="), "notify");
    assert_eq!(value("User="), "vnetd");
    // By default, a worker that the kernel kills takes the holder with it.
    assert_eq!(value("OOMPolicy="), "continue");
    assert_eq!(
        value("ExecStart="),
        "/usr/bin/vnetd --config /etc/vnetd.toml"
    );
    assert!(value("WatchdogSec=").parse::<u32>().is_ok());
    let config = units.join("../vnetd.toml");
    let checked = Server::command()
        .arg("check")
        .arg(&config)
        .status()
        .unwrap();
    assert!(checked.success());
    let control = std::fs::read_to_string(&config).unwrap();
    let socket = std::fs::read_to_string(units.join("vnetd.socket")).unwrap();
    let path = socket.lines().find_map(|l| l.strip_prefix("ListenStream="));
    assert!(control.contains(&format!("control = \"{}\"", path.unwrap())));
    // With the program in its place, systemd itself says whether it likes them.
    let dir = tempfile::tempdir().unwrap();
    let program = Server::command().get_program().to_owned();
    let text = service.replace("/usr/bin/vnetd", program.to_str().unwrap());
    std::fs::write(dir.path().join("vnetd.service"), text).unwrap();
    std::fs::write(dir.path().join("vnetd.socket"), socket).unwrap();
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .args(["vnetd.service", "vnetd.socket"].map(|name| dir.path().join(name)))
        .output();
    match verify {
        Ok(told) => {
            let text = String::from_utf8_lossy(&told.stderr);
            let about = |line: &&str| line.contains("vnetd.") && !line.contains("man ");
            let complaints: Vec<_> = text.lines().filter(about).collect();
            assert!(complaints.is_empty(), "{text}");
        }
        // Past the harness, which keeps what the macros write.
        Err(e) => {
            let line = "SKIPPED the_units_fit_the_program: no systemd-analyze";
            let _ = writeln!(std::io::stderr(), "{line}: {e}");
        }
    }
}
