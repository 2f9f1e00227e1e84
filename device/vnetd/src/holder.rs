// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The process that outlives the others.
//!
//! It keeps descriptors and starts a worker, which serves the card, and has another one stand by for
//! when that dies. It accepts clients, since a connection would be lost with a worker that dies while
//! it accepts, and never reads or writes what they send, but throws away what is left of that at its
//! end. Until then it has one thread. It parses nothing that a client or a guest has a part in, and
//! does nothing at all while the worker is well.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{retry_on_intr, Errno};
use rustix::net::{accept_with, SocketFlags};
use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR2};
use signal_hook::low_level::pipe;
use tracing::{info, warn};
use vnet_session::{hang_up, Socket};
use vnet_state::Token;

use crate::args::Args;
use crate::employee::{Employee, Standby, Start, LONGEST_START};
use crate::error::Error;
use crate::limits;
use crate::line::{Line, Message};
use crate::out;
use crate::program::Program;
use crate::systemd::{self, Watchdog};

/// A worker that crashes this soon after it began to serve did not get far.
pub(crate) const EARLY: Duration = Duration::from_millis(20);
/// A new program has proved itself when one of its workers has served for so long: by then it has seen
/// most of what there is to see.
const PROVED: Duration = Duration::from_secs(10);
/// So many early crashes in a row, and there will be no other worker.
const MOST_EARLY: u32 = 20;
/// Pause before the next after the first of them; doubled with each.
const PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// How long a worker may take to hand over. Clients wait meanwhile, QEMU for five seconds.
const LONGEST_HAND_OVER: Duration = Duration::from_secs(1);
/// How long one may take to end. It gives up by itself on what hangs, but after a shorter time.
const LONGEST_END: Duration = Duration::from_secs(4);

/// Starts workers until one ends of its own accord, and returns as it did.
pub(crate) fn run(args: &Args) -> Result<u8, Error> {
    out::start()?;
    limits::leave_no_core();
    // It holds what its worker has, and all of that may be on its way to the next one.
    limits::raise_descriptors();
    let mut holder = Holder::new(args, Program::own().map_err(Error::Holder)?)?;
    loop {
        match holder.employ()? {
            // One that was killed on its way out has no status.
            End::Done(status) => return Ok(status.code().map_or(1, |code| code as u8)),
            End::Died(why) => {
                warn!("worker died ({why})");
                if holder.early >= MOST_EARLY {
                    return Err(Error::Hopeless);
                }
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
    /// It did not, or could not be started.
    Died(String),
    /// It was told to, for another one.
    HandedOver,
}

struct Holder<'a> {
    args: &'a Args,
    program: Program,
    /// The program before, to go back to until the new one has proved itself.
    former: Option<Program>,
    signals: Signals,
    /// Descriptors by the numbers of their tokens.
    held: BTreeMap<u64, OwnedFd>,
    /// Once a worker has been ready.
    door: Option<Door>,
    /// The next worker.
    standby: Option<Standby>,
    /// A program that is to take over, and its first process.
    coming: Option<(Program, Standby)>,
    /// The signal that asked for the end. What comes after it changes nothing about that.
    ending: Option<Signal>,
    /// Workers in a row that crashed early.
    early: u32,
    /// Since when nobody serves the card.
    since: Option<Instant>,
    watchdog: Watchdog,
}

/// Where clients come in.
struct Door {
    /// Removes its path at the end.
    socket: Socket,
    listener: OwnedFd,
}

/// After the last worker the client's socket, too, is the holder's to close.
impl Drop for Holder<'_> {
    fn drop(&mut self) {
        // A client that comes back is to find nobody.
        self.door = None;
        if let Some(client) = self.held.remove(&Token::Client.to_bits()) {
            hang_up(client);
        }
    }
}

impl Door {
    fn open(path: &Path) -> Result<Self, Error> {
        let socket = systemd::socket(path, Socket::bind)?;
        let listener = socket.listener().map_err(Error::Holder)?;
        info!("listening on {}", path.display());
        Ok(Self { socket, listener })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.socket.close();
    }
}

/// A process at work, and what is known of it.
struct Worker {
    employee: Employee,
    /// When it began to serve.
    ready: Option<Instant>,
    handing_over: bool,
    /// Its program is no longer that of the holder.
    replaced: bool,
    /// Signals for it, once it is ready.
    due: Vec<Signal>,
    /// When it has to be ready, if clients may wait for that.
    ready_by: Option<Instant>,
    /// When it has to be gone, if it was told to go.
    until: Option<Instant>,
}

impl Worker {
    fn new(employee: Employee) -> Self {
        Self {
            employee,
            ready: None,
            handing_over: false,
            replaced: false,
            due: Vec::new(),
            ready_by: None,
            until: None,
        }
    }

    /// Sends it a signal, of which one that is not ready yet would die without a word: of what was
    /// found, for example.
    fn tell(&mut self, signal: Signal) {
        if self.ready.is_some() {
            self.employee.signal(signal);
        } else if !self.due.contains(&signal) {
            self.due.push(signal);
        }
    }

    fn is_ready(&mut self) {
        self.ready = Some(Instant::now());
        self.ready_by = None;
        for signal in std::mem::take(&mut self.due) {
            self.employee.signal(signal);
        }
    }

    /// From now on it has this time to go.
    fn limit(&mut self, time: Duration) {
        self.until.get_or_insert_with(|| Instant::now() + time);
    }

    /// Time that is left to it for what it is to do, if there is a limit to that.
    fn left(&self) -> Option<Duration> {
        let end = self.ready_by.into_iter().chain(self.until).min();
        end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Kills it if its time is over, which the next one survives as it does any death.
    fn press(&mut self) {
        if self.left().is_some_and(|left| left.is_zero()) {
            (self.ready_by, self.until) = (None, None);
            warn!("worker hangs, and is killed");
            self.employee.signal(Signal::KILL);
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy)]
enum Source {
    /// The end of the worker.
    Worker,
    /// What it says.
    Line,
    /// The end of the process that stands by.
    Standby,
    /// The end of the first process of a new program.
    Coming,
    /// What is looked at after every wait.
    Other,
}

/// What a wait has brought.
#[derive(Clone, Copy, Default)]
struct Woken {
    /// The worker has ended.
    ended: bool,
    /// So has the one that stands by.
    standby_ended: bool,
    /// So has the one that is coming.
    coming_ended: bool,
}

impl<'a> Holder<'a> {
    fn new(args: &'a Args, program: Program) -> Result<Self, Error> {
        Ok(Self {
            args,
            program,
            former: None,
            signals: Signals::new()?,
            held: BTreeMap::new(),
            door: None,
            standby: None,
            coming: None,
            ending: None,
            early: 0,
            since: None,
            watchdog: Watchdog::new(),
        })
    }

    /// Puts somebody to work and stays with them until their end.
    fn employ(&mut self) -> Result<End, Error> {
        let employee = match self.standby.take().and_then(Standby::employ) {
            Some(employee) => employee,
            None => match Employee::start(&self.program) {
                Ok(employee) => employee,
                Err(e) if self.door.is_none() => return Err(Error::Holder(e)),
                Err(e) => {
                    self.early += 1;
                    return Ok(End::Died(e.to_string()));
                }
            },
        };
        let mut worker = self.begin(employee);
        loop {
            let proof = self.prove(&worker);
            let woken = self.wait(&worker, proof)?;
            if self.door.is_some() {
                self.watchdog.alive();
            }
            self.obey_signals(&mut worker);
            // All that it has said, also before it died.
            while let Ok(Some(message)) = worker.employee.line.receive_now() {
                self.heed(&mut worker, message)?;
            }
            if woken.ended {
                // It may have died before it served.
                self.since.get_or_insert_with(Instant::now);
                let status = worker.employee.end().map_err(Error::Holder)?;
                return Ok(self.judge(&worker, status));
            }
            if woken.standby_ended {
                // The next one will be started when it is needed.
                warn!("the process that stands by died");
                self.standby = None;
            }
            self.welcome(&mut worker, woken.coming_ended);
            worker.press();
            self.accept(&worker);
        }
    }

    /// Has one begin, who is ready some time later.
    fn begin(&mut self, employee: Employee) -> Worker {
        let mut worker = Worker::new(employee);
        if let Some(signal) = self.ending {
            // The one before had begun to hand over when it came.
            self.end(&mut worker, signal);
        }
        if let Err(e) = self.brief(&worker.employee.line) {
            // One that has not died meanwhile would wait for the rest.
            warn!("worker cannot be told what there is: {e}");
            worker.employee.signal(Signal::KILL);
        }
        // Nobody waits for the first.
        worker.ready_by = self.door.as_ref().map(|_| Instant::now() + LONGEST_START);
        worker
    }

    /// Tells a worker what there is.
    fn brief(&self, line: &Line) -> Result<(), Errno> {
        line.limit(LONGEST_START)?;
        for (token, fd) in &self.held {
            line.pass(*token, fd.as_fd())?;
        }
        line.ready()
    }

    /// Lets go of the program before when the new one has proved itself, and says how long that takes yet.
    fn prove(&mut self, worker: &Worker) -> Option<Duration> {
        // A worker of the program before says nothing about the new one.
        if self.former.is_none() || worker.replaced {
            return None;
        }
        let left = PROVED.checked_sub(worker.ready?.elapsed());
        if left.is_none() {
            self.former = None;
        }
        left
    }

    /// Waits until there is something to do, or for so long.
    fn wait(&self, worker: &Worker, most: Option<Duration>) -> Result<Woken, Error> {
        let own = &worker.employee;
        let standby = self.standby.as_ref().and_then(Standby::employee);
        let coming = self.coming.as_ref().map(|(_, standby)| standby);
        let newcomer = coming.and_then(Standby::employee);
        let mut sources = vec![
            (own.gone.as_fd(), Source::Worker),
            (own.line.as_fd(), Source::Line),
        ];
        sources.extend(standby.map(|s| (s.gone.as_fd(), Source::Standby)));
        sources.extend(newcomer.map(|n| (n.gone.as_fd(), Source::Coming)));
        sources.extend(newcomer.map(|n| (n.line.as_fd(), Source::Other)));
        let signals = self.signals.pipes.iter();
        sources.extend(signals.map(|(_, pipe)| (pipe.as_fd(), Source::Other)));
        let door = self.open_door(worker);
        sources.extend(door.map(|door| (door.listener.as_fd(), Source::Other)));

        let fds = sources.iter();
        let mut fds: Vec<_> = fds
            .map(|(fd, _)| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
            .collect();
        let left = coming.map(Standby::left).into_iter();
        let signs = self.door.as_ref().and_then(|_| self.watchdog.left());
        let left = left.chain(signs).chain(worker.left()).chain(most).min();
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        retry_on_intr(|| poll(&mut fds, left.as_ref())).map_err(|e| Error::Holder(e.into()))?;

        let mut woken = Woken::default();
        let mut hung_up = false;
        for (fd, (_, source)) in fds.iter().zip(&sources) {
            let ready = !fd.revents().is_empty();
            match source {
                Source::Worker => woken.ended = ready,
                Source::Line => hung_up = fd.revents().contains(PollFlags::HUP),
                Source::Standby => woken.standby_ended = ready,
                Source::Coming => woken.coming_ended = ready,
                Source::Other => {}
            }
        }
        if hung_up && !woken.ended {
            // It is about to end; its line would be ready all the time.
            own.hurry().map_err(Error::Holder)?;
            woken.ended = true;
        }
        Ok(woken)
    }

    /// Where a client may come in now.
    fn open_door(&self, worker: &Worker) -> Option<&Door> {
        let client = Token::Client.to_bits();
        let busy = worker.ready.is_none() || self.held.contains_key(&client);
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
                let token = Token::Client.to_bits();
                // A worker that is gone is told by the next briefing.
                let _ = worker.employee.line.pass(token, client.as_fd());
                self.held.insert(token, client);
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
                worker.is_ready();
                if let Some(since) = self.since.take() {
                    info!(
                        "worker goes on after {:.1} ms",
                        since.elapsed().as_secs_f64() * 1e3
                    );
                }
                if self.door.is_none() {
                    self.door = Some(Door::open(&self.args.socket)?);
                    systemd::ready("1 card");
                }
                if self.standby.is_none() {
                    self.standby = Standby::start(&self.program)
                        .inspect_err(|e| warn!("nobody stands by: {e}"))
                        .ok();
                }
            }
            Message::HandOver | Message::Present => {}
        }
        Ok(())
    }

    fn obey_signals(&mut self, worker: &mut Worker) {
        for signal in self.signals.take() {
            match signal {
                SIGUSR2 => self.renew(),
                SIGHUP => worker.tell(Signal::HUP),
                SIGINT => self.end(worker, Signal::INT),
                _ => self.end(worker, Signal::TERM),
            }
        }
    }

    /// Has the worker end, and nobody come after it, unless it is handing over.
    fn end(&mut self, worker: &mut Worker, signal: Signal) {
        self.ending = Some(signal);
        // The worker may have taken the client's memory from the card, and nobody could go on.
        self.coming = None;
        worker.limit(LONGEST_END);
        worker.tell(signal);
        systemd::stopping();
    }

    /// Starts what is at the path of the program now.
    fn renew(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let started = self.program.newest().and_then(|program| {
            let standby = Standby::start(&program)?;
            Ok((program, standby))
        });
        match started {
            Ok(coming) => self.coming = Some(coming),
            Err(e) => self.decline(e),
        }
    }

    /// Says that there will be no new program.
    fn decline(&self, why: impl std::fmt::Display) {
        let path = self.program.path().display();
        warn!("{path} does not run ({why}); the program before goes on");
    }

    /// Has the worker hand over to a new program if that has come. `ended`: its process has.
    fn welcome(&mut self, worker: &mut Worker, ended: bool) {
        let Some((_, standby)) = &mut self.coming else {
            return;
        };
        let start = standby.look(ended);
        let present = match start {
            Start::Pending => return,
            Start::Present => self.coming.take(),
            Start::Failed(why) => {
                self.coming = None;
                return self.decline(why);
            }
        };
        if let Some((program, standby)) = present {
            self.change(program);
            worker.replaced = true;
            self.hand_over(worker);
            // The end of the one that stood by is waited for.
            self.standby = Some(standby);
        }
    }

    /// Tells the worker to hand over. One that was told before may have ended since, just for that.
    fn hand_over(&mut self, worker: &mut Worker) {
        if worker.employee.line.hand_over().is_ok() {
            worker.handing_over = true;
            self.since.get_or_insert_with(Instant::now);
            worker.limit(LONGEST_HAND_OVER);
        }
    }

    /// Has workers run another program from now on.
    fn change(&mut self, program: Program) {
        let last = std::mem::replace(&mut self.program, program);
        // One that has not proved itself either is nothing to go back to.
        self.former.get_or_insert(last);
    }

    /// What the end of a worker means.
    fn judge(&mut self, worker: &Worker, status: ExitStatus) -> End {
        let meant = status.code().is_some_and(|code| code != PANICKED);
        if meant && worker.handing_over && status.success() {
            return End::HandedOver;
        }
        // Somebody else's doing says nothing about the next one; unless it lets none begin.
        let killed = status.signal() == Some(SIGKILL);
        let early = worker
            .ready
            .is_none_or(|ready| !meant && !killed && ready.elapsed() < EARLY);
        self.prove(worker);
        let ending = self.ending.is_some();
        let failed = early && !ending && !worker.replaced;
        if let Some(former) = self.former.take_if(|_| failed) {
            warn!("the new program cannot go on; the one before does");
            self.program = former;
            self.standby = None;
            return End::Died(status.to_string());
        }
        // Others have served with these arguments. Whatever it is may pass.
        let successor = worker.ready.is_none() && self.door.is_some();
        if ending || meant && !successor {
            return End::Done(status);
        }
        self.early = if early { self.early + 1 } else { 0 };
        End::Died(status.to_string())
    }
}

/// Exit status of a program whose main thread panicked.
const PANICKED: i32 = 101;

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

#[cfg(test)]
mod tests;
