// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The process that outlives the others.
//!
//! It keeps descriptors and starts a worker, which serves the card, and another one when that dies.
//! It accepts clients, since a connection would be lost with a worker that dies while it accepts,
//! and never reads or writes what they send. It has one thread, parses nothing that a client or a
//! guest has a part in, and does nothing at all while the worker is well.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use std::{env, io};

use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::{retry_on_intr, Errno};
use rustix::net::{accept_with, SocketFlags};
use rustix::process::{kill_process, pidfd_open, Pid, PidfdFlags, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR2};
use signal_hook::low_level::pipe;
use tracing::{info, warn};
use vnet_session::Socket;
use vnet_state::{Held, Token};

use crate::args::Args;
use crate::error::Error;
use crate::line::{Line, Message};

/// A worker that crashes this soon after it began to serve did not get far.
const EARLY: Duration = Duration::from_millis(20);
/// So many of them in a row, and there will be no other.
const MOST_EARLY: u32 = 20;
/// Pause before the next after the first of them; doubled with each.
const PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// Starts workers until one ends of its own accord, and returns as it did.
pub(crate) fn run(args: &Args) -> Result<u8, Error> {
    let mut holder = Holder {
        args,
        program: Program::find()?,
        signals: Signals::new()?,
        held: Held::new(),
        door: None,
        early: 0,
        since: None,
    };
    loop {
        let end = holder.employ()?;
        match end {
            // One that was killed on its way out has no status.
            End::Done(status) => return Ok(status.code().map_or(1, |code| code as u8)),
            End::Died(_) if holder.early >= MOST_EARLY => return Err(Error::Hopeless),
            End::Died(status) => {
                warn!("worker died ({status})");
                let doublings = holder.early.saturating_sub(1).min(16);
                if holder.early > 0 {
                    std::thread::sleep((PAUSE * (1 << doublings)).min(MAX_PAUSE));
                }
            }
            End::HandedOver => info!("worker has handed over"),
        }
    }
}

/// How a worker ended.
enum End {
    /// It meant to.
    Done(ExitStatus),
    /// It did not.
    Died(ExitStatus),
    /// It was told to, for another one.
    HandedOver,
}

struct Holder<'a> {
    args: &'a Args,
    program: Program,
    signals: Signals,
    held: Held,
    /// Once a worker has been ready.
    door: Option<Door>,
    /// Workers in a row that crashed early.
    early: u32,
    /// Since when nobody serves the card.
    since: Option<Instant>,
}

/// Where clients come in.
struct Door {
    /// Removes its path at the end.
    _socket: Socket,
    listener: OwnedFd,
}

impl Door {
    fn open(path: &Path) -> Result<Self, Error> {
        let socket = Socket::bind(path)?;
        let listener = socket.listener().map_err(Error::Holder)?;
        info!("listening on {}", path.display());
        Ok(Self {
            _socket: socket,
            listener,
        })
    }
}

/// A worker and what is known of it.
struct Worker {
    child: Child,
    line: Line,
    /// When it began to serve.
    ready: Option<Instant>,
    handing_over: bool,
    /// A signal asked it to end.
    ending: bool,
}

impl Holder<'_> {
    /// Starts a worker and stays with it until its end.
    fn employ(&mut self) -> Result<End, Error> {
        let (line, theirs) = Line::pair().map_err(|e| Error::Holder(e.into()))?;
        let child = self.program.start(theirs).map_err(Error::Holder)?;
        let mut worker = Worker {
            child,
            line,
            ready: None,
            handing_over: false,
            ending: false,
        };
        let pid = Pid::from_child(&worker.child);
        let gone = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| Error::Holder(e.into()))?;
        // A worker that dies meanwhile is noticed below.
        let _ = self.brief(&worker.line);
        loop {
            let ended = self.wait(&worker, &gone)?;
            self.obey_signals(&mut worker);
            // All that it has said, also before it died.
            while let Ok(Some(message)) = worker.line.receive_now() {
                self.heed(&mut worker, message)?;
            }
            if ended {
                self.since = Some(Instant::now());
                let status = worker.child.wait().map_err(Error::Holder)?;
                return Ok(self.judge(&worker, status));
            }
            self.accept(&worker);
        }
    }

    /// Tells a worker what there is.
    fn brief(&self, line: &Line) -> Result<(), Errno> {
        for (token, fd) in &self.held {
            line.pass(*token, fd.as_fd())?;
        }
        line.ready()
    }

    /// Waits until there is something to do. True: the worker has ended.
    fn wait(&self, worker: &Worker, gone: &OwnedFd) -> Result<bool, Error> {
        let mut fds = vec![
            PollFd::new(gone, PollFlags::IN),
            PollFd::new(&worker.line, PollFlags::IN),
        ];
        let signals = self.signals.pipes.iter();
        fds.extend(signals.map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN)));
        if let Some(door) = self.open_door(worker) {
            fds.push(PollFd::new(&door.listener, PollFlags::IN));
        }
        retry_on_intr(|| poll(&mut fds, None)).map_err(|e| Error::Holder(e.into()))?;
        let hung_up = fds[1].revents().contains(PollFlags::HUP);
        let ended = !fds[0].revents().is_empty();
        if hung_up && !ended {
            // It is about to end; its line would be ready all the time.
            let mut gone = [PollFd::new(gone, PollFlags::IN)];
            retry_on_intr(|| poll(&mut gone, None)).map_err(|e| Error::Holder(e.into()))?;
            return Ok(true);
        }
        Ok(ended)
    }

    /// Where a client may come in now.
    fn open_door(&self, worker: &Worker) -> Option<&Door> {
        let busy = worker.ready.is_none() || self.held.contains_key(&Token::Client);
        self.door.as_ref().filter(|_| !busy)
    }

    /// Takes a client if there is one.
    fn accept(&mut self, worker: &Worker) {
        let Some(door) = self.open_door(worker) else {
            return;
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match accept_with(&door.listener, flags) {
            Ok(client) => {
                // A worker that is gone is told by the next briefing.
                let _ = worker.line.pass(Token::Client, client.as_fd());
                self.held.insert(Token::Client, client);
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(e) => {
                warn!("accepting a client: {e}");
                std::thread::sleep(MAX_PAUSE);
            }
        }
    }

    fn heed(&mut self, worker: &mut Worker, message: Message) -> Result<(), Error> {
        match message {
            Message::Descriptor(token, fd) => {
                self.held.insert(token, fd);
            }
            Message::Forget(token) => {
                self.held.remove(&token);
            }
            Message::Ready => {
                worker.ready = Some(Instant::now());
                self.program.former = None;
                if let Some(since) = self.since.take() {
                    info!(
                        "worker goes on after {:.1} ms",
                        since.elapsed().as_secs_f64() * 1e3
                    );
                }
                if self.door.is_none() {
                    self.door = Some(Door::open(&self.args.socket)?);
                }
            }
            Message::HandOver => {}
        }
        Ok(())
    }

    fn obey_signals(&mut self, worker: &mut Worker) {
        for signal in self.signals.take() {
            match signal {
                SIGUSR2 => {
                    self.program.renew();
                    worker.handing_over = worker.line.hand_over().is_ok();
                }
                signal => {
                    worker.ending = signal != SIGHUP;
                    let signal = match signal {
                        SIGHUP => Signal::HUP,
                        SIGINT => Signal::INT,
                        _ => Signal::TERM,
                    };
                    // It is a child that was not waited for, so this is still it.
                    let _ = kill_process(Pid::from_child(&worker.child), signal);
                }
            }
        }
    }

    /// What the end of a worker means.
    fn judge(&mut self, worker: &Worker, status: ExitStatus) -> End {
        let meant = status.code().is_some_and(|code| code != PANICKED);
        if meant && worker.handing_over && status.success() {
            self.early = 0;
            return End::HandedOver;
        }
        if worker.ready.is_none() && !worker.ending && self.program.restore() {
            // The new one cannot go on with what the old one left.
            return End::Died(status);
        }
        if meant || worker.ending {
            return End::Done(status);
        }
        let early = worker.ready.is_none_or(|ready| ready.elapsed() < EARLY);
        // Somebody else's doing says nothing about the next one.
        let killed = status.signal() == Some(SIGKILL);
        self.early = if early && !killed { self.early + 1 } else { 0 };
        End::Died(status)
    }
}

/// Exit status of a program whose main thread panicked.
const PANICKED: i32 = 101;

/// How a worker is started.
struct Program {
    /// What the kernel was told to run.
    path: PathBuf,
    /// What this process runs, even if there is something else at the path by now. `None`: it is
    /// run by another program, such as a dynamic linker that was named.
    file: Option<File>,
    /// The former file, until the new one has proved itself.
    former: Option<File>,
    /// Arguments, from the first on.
    arguments: Vec<OsString>,
}

impl Program {
    fn find() -> Result<Self, Error> {
        let own: Vec<_> = env::args_os().collect();
        let line = fs::read("/proc/self/cmdline").map_err(Error::Holder)?;
        let words = line.split(|byte| *byte == 0).map(OsStr::from_bytes);
        let mut words: Vec<OsString> = words.map(OsString::from).collect();
        // Each ends in a zero.
        words.pop();
        let prefix = words.len().saturating_sub(own.len());
        let program = match prefix {
            0 => env::current_exe().map_err(Error::Holder)?,
            _ => words[0].clone().into(),
        };
        let file = match prefix {
            0 => Some(File::open("/proc/self/exe").map_err(Error::Holder)?),
            _ => None,
        };
        let mut arguments = words.split_off(1);
        arguments.push("--worker".into());
        Ok(Self {
            path: program,
            file,
            former: None,
            arguments,
        })
    }

    /// Starts a worker with its end of the line as its standard input.
    fn start(&self, line: OwnedFd) -> io::Result<Child> {
        let path = match &self.file {
            Some(file) => format!("/proc/self/fd/{}", file.as_raw_fd()).into(),
            None => self.path.clone(),
        };
        Command::new(path).args(&self.arguments).stdin(line).spawn()
    }

    /// Goes over to what is at the path now.
    fn renew(&mut self) {
        match File::open(&self.path) {
            Ok(file) if self.file.is_some() => self.former = self.file.replace(file),
            Ok(_) => {}
            Err(e) => warn!(
                "{}: {e}; a new worker of the old program goes on",
                self.path.display()
            ),
        }
    }

    /// Goes back to the former program, if there is one.
    fn restore(&mut self) -> bool {
        let Some(former) = self.former.take() else {
            return false;
        };
        warn!("the new program cannot go on; the old one does");
        self.file = Some(former);
        true
    }
}

/// The signals that came.
struct Signals {
    /// Each with the read end of a pipe that its handler writes.
    pipes: Vec<(i32, UnixStream)>,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let register = |signal| {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            pipe::register(signal, writer)?;
            Ok((signal, reader))
        };
        let signals = [SIGINT, SIGTERM, SIGHUP, SIGUSR2].map(register);
        let pipes = signals.into_iter().collect::<io::Result<_>>();
        Ok(Self {
            pipes: pipes.map_err(Error::Signals)?,
        })
    }

    fn take(&mut self) -> Vec<i32> {
        let came = self.pipes.iter_mut().filter_map(|(signal, pipe)| {
            let n = rustix::io::read(&*pipe, &mut [0; 64]).unwrap_or(0);
            (n > 0).then_some(*signal)
        });
        came.collect()
    }
}
