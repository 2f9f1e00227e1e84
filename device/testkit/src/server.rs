// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! vnetd with a socket of its own.

use std::ffi::OsStr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::killer::{child_of, kill, kill_worker, worker_of};
use crate::{Card, Error, Killer, Nic, Options, Process, Result, LIMIT};

/// A running vnetd.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Process,
    socket: PathBuf,
    // Dropped last: takes the socket's directory away.
    _dir: TempDir,
}

impl Server {
    /// Starts vnetd with a backend and waits until it listens.
    pub fn start(net: &str) -> Result<Self> {
        Self::start_with(net, &[] as &[&str])
    }

    /// Starts vnetd with a backend and more arguments, and waits until it listens.
    pub fn start_with<S: AsRef<OsStr>>(net: &str, args: &[S]) -> Result<Self> {
        Self::run(Self::command(), net, args)
    }

    /// The same with this command in the place of vnetd.
    pub fn run<S: AsRef<OsStr>>(mut command: Command, net: &str, args: &[S]) -> Result<Self> {
        let dir = TempDir::new()?;
        let socket = dir.path().join("vnet.sock");
        command.arg("--socket").arg(&socket).args(["--net", net]);
        let mut process = Process::start(command.args(args))?;
        wait_for(&socket, &mut process)?;
        Ok(Self {
            process,
            socket,
            _dir: dir,
        })
    }

    /// Ends vnetd as a user does, whatever it has to say about that: its exit status, and all that
    /// it wrote to standard error.
    pub fn finish(&mut self) -> Result<(Option<i32>, String)> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait()?;
        Ok((status.code(), self.process.stderr()))
    }

    /// The path of the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Connects to the card.
    pub fn card(&self) -> Result<Card> {
        Card::connect(&self.socket)
    }

    /// Connects to the card and brings it up.
    pub fn nic(&self) -> Result<Nic> {
        Nic::connect(&self.socket)
    }

    /// Connects to the card and brings it up with these options.
    pub fn nic_with(&self, options: Options) -> Result<Nic> {
        Nic::bring_up(self.card()?, options)
    }

    /// Process id of the worker of a server with `--survive`, if there is one now.
    pub fn worker(&self) -> Result<Option<u32>> {
        worker_of(self.process.id())
    }

    /// Kills the worker, and waits until there is another one, which may not be ready yet.
    pub fn kill_worker(&self) -> Result<()> {
        kill_worker(self.process.id(), Signal::KILL)
    }

    /// The same, with the signal of one that crashes.
    pub fn crash_worker(&self) -> Result<()> {
        kill_worker(self.process.id(), Signal::ABORT)
    }

    /// Process id of the one that stands by, if there is one now.
    pub fn standby(&self) -> Result<Option<u32>> {
        child_of(self.process.id(), "vnetd-standby")
    }

    /// Kills the process that stands by.
    pub fn kill_standby(&self) -> Result<()> {
        let standby = self.standby()?;
        standby.map_or(Ok(()), |pid| kill(pid, Signal::KILL))
    }

    /// Goes on killing workers, with pauses of this length at most.
    pub fn kill_workers(&self, seed: u64, longest: Duration) -> Killer {
        Killer::start(self.process.id(), seed, longest)
    }

    /// Ends vnetd as a user does, and returns all that it wrote to standard error.
    pub fn end(&mut self) -> Result<String> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait()?;
        match status.success() {
            true => Ok(self.process.stderr()),
            false => Err(Error::Answer(format!("ended: {status}"))),
        }
    }

    /// A command that runs vnetd: the one that `VNET_VNETD` names, or that of this build.
    pub fn command() -> Command {
        static PATH: OnceLock<PathBuf> = OnceLock::new();
        Command::new(PATH.get_or_init(|| match std::env::var_os("VNET_VNETD") {
            Some(path) => path.into(),
            None => build(),
        }))
    }
}

/// A running vnetd with the cards of a configuration.
#[derive(Debug)]
pub struct Cards {
    /// The process.
    pub process: Process,
    // Dropped last: takes the sockets' directory away.
    dir: TempDir,
}

impl Cards {
    /// Starts vnetd with this configuration, in which `@DIR@` stands for a directory of its own, and
    /// waits until it listens on these sockets in it.
    pub fn start(config: &str, sockets: &[&str]) -> Result<Self> {
        let dir = TempDir::new()?;
        let file = dir.path().join("vnetd.toml");
        let place = dir.path().display().to_string();
        std::fs::write(&file, config.replace("@DIR@", &place))?;
        let mut command = Server::command();
        command.arg("--config").arg(&file);
        let mut process = Process::start(&mut command)?;
        for socket in sockets {
            wait_for(&dir.path().join(socket), &mut process)?;
        }
        Ok(Self { process, dir })
    }

    /// The path of a file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Connects to the card on this socket and brings it up with these options.
    pub fn nic(&self, socket: &str, options: Options) -> Result<Nic> {
        Nic::bring_up(Card::connect(&self.path(socket))?, options)
    }
}

/// Builds vnetd where the running test was built, and returns its path. Cargo builds a program by
/// itself only for the tests of its own package.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.parent().and_then(Path::parent);
    let profile = profile.expect("tests lie in TARGET/PROFILE/deps");
    let target = profile.parent().expect("tests lie in TARGET/PROFILE/deps");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--package", "vnetd", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "vnetd does not build");
    profile.join("vnetd")
}

/// Waits until something listens at `socket`: a path is there a moment before that.
pub(crate) fn wait_for(socket: &Path, process: &mut Process) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while UnixStream::connect(socket).is_err() {
        if !process.is_running() {
            process.wait()?;
            return Err(Error::Answer(format!("ended: {}", process.stderr())));
        }
        if Instant::now() > end {
            return Err(crate::error::timeout("nothing listens"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
