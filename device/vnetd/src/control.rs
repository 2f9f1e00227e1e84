// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The control socket: one thread that reads requests, has them done, and writes answers.
//!
//! Whatever a client does costs the cards nothing. It can have a line of [`MAX_REQUEST`] bytes read,
//! and answers of [`MAX_WAITING`] wait for it; one that sends no end of a line, reads no answers or
//! sends nonsense is hung up on.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    accept_with, recvmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags,
};
use rustix::process::geteuid;
use serde_json::Value;
use tracing::{info, warn};
use vnet_control::{Answer, Class, Error as Refusal, Greeting, Request, MAX_ANSWER, MAX_REQUEST};
use vnet_session::Socket;

use crate::error::Error;
use crate::server::SharedCards;
use crate::steer::{self, Step};
use crate::systemd;

/// Clients at a time. For one more, the one goes that has been quiet for longest.
const MAX_CLIENTS: usize = 16;
/// Bytes of answers that wait for a client, at most, before nothing more is done for it.
const MAX_WAITING: usize = MAX_ANSWER;
/// How long a line may take, and how long a client may leave answers where they are.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines in a row that are no requests, after which a client is hung up on.
const MAX_NONSENSE: u32 = 8;
/// Bytes that are read at a time, so that clients take turns.
const CHUNK: usize = 16 * 1024;
/// Descriptors of a client whose lines were not answered yet; more are closed.
const MAX_FILES: usize = 4;
/// Pause when the system is out of descriptors.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// Listens at this path, and steers the cards as clients ask. The path goes with what is returned.
pub(crate) fn start(path: &Path, cards: SharedCards) -> Result<Socket, Error> {
    let socket = systemd::socket(path, Socket::bind_private).map_err(Error::Control)?;
    let listener = socket.listener().map_err(Error::Holder)?;
    let wake = Wake::new().map_err(Error::Holder)?;
    thread::Builder::new()
        .name("vnet-control".into())
        .spawn(move || {
            let mut clients: Vec<Client> = Vec::new();
            loop {
                wait(&listener, &wake, &clients);
                match accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                    Ok(fd) => admit(UnixStream::from(fd), &mut clients),
                    Err(e) if is_quiet(e) => {}
                    Err(e) => {
                        warn!("control: accepting a client: {e}");
                        thread::sleep(OUT_OF_RESOURCES);
                    }
                }
                clients.retain_mut(|client| match client.serve(&cards, &wake) {
                    Ok(()) => true,
                    Err(end) => {
                        end.log();
                        false
                    }
                });
            }
        })
        .map_err(Error::Thread)?;
    info!("control socket {}", path.display());
    Ok(socket)
}

fn is_quiet(e: rustix::io::Errno) -> bool {
    matches!(
        io::Error::from(e).kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted
    )
}

/// Rouses the thread when something is done that was begun elsewhere.
#[derive(Clone)]
struct Wake(Arc<OwnedFd>);

impl Wake {
    fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(fd)))
    }

    fn call(&self) {
        // Fails when it has been called often enough.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    fn clear(&self) {
        // Fails when it was not called.
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

/// Waits for something to do, or for somebody's time to be over.
fn wait(listener: &OwnedFd, wake: &Wake, clients: &[Client]) {
    let mut fds = vec![
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(&*wake.0, PollFlags::IN),
    ];
    // What one whose request is under way may send has time.
    let clients_fds = clients
        .iter()
        .filter(|client| client.under_way.is_none())
        .map(|client| PollFd::new(&client.stream, client.waits_for()));
    fds.extend(clients_fds);
    let now = Instant::now();
    let due = match clients.iter().any(Client::has_request) {
        true => Some(now),
        false => clients.iter().filter_map(Client::deadline).min(),
    };
    let timeout = due.map(|due| {
        let left = due.saturating_duration_since(now);
        Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        }
    });
    // Interrupted or short of memory: have a look at everybody.
    let _ = poll(&mut fds, timeout.as_ref());
    wake.clear();
}

/// Lets a client in, if it may come in.
fn admit(stream: UnixStream, clients: &mut Vec<Client>) {
    let me = geteuid();
    let peer = socket_peercred(&stream).map(|peer| peer.uid);
    match peer {
        Ok(uid) if uid == me || uid.is_root() => {}
        Ok(uid) => return warn!("control: user {} was turned away", uid.as_raw()),
        Err(e) => return warn!("control: a client of whom nothing is known: {e}"),
    }
    if clients.len() >= MAX_CLIENTS {
        let quiet = clients.iter().enumerate().min_by_key(|(_, c)| c.last);
        if let Some((n, _)) = quiet {
            let mut client = clients.swap_remove(n);
            let desc = "there are too many clients, and this one was quiet for longest";
            client.refuse(Class::TooManyClients, desc);
            let _ = client.flush();
        }
    }
    clients.push(Client::new(stream));
}

/// Why a client is no longer one.
enum End {
    /// It left.
    Left,
    /// It did what it should not.
    Cut(&'static str),
}

impl End {
    fn log(&self) {
        if let End::Cut(why) = self {
            info!("control: hung up on a client that {why}");
        }
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Left
    }
}

struct Client {
    stream: UnixStream,
    /// Of a line that has not ended.
    input: Vec<u8>,
    /// What came with the lines that are there.
    files: VecDeque<OwnedFd>,
    /// Answers that wait.
    output: Vec<u8>,
    /// Since when the line, or the answer, has been waiting.
    since: Instant,
    /// When it last asked for something.
    last: Instant,
    nonsense: u32,
    /// It is told why, and then hung up on.
    over: Option<&'static str>,
    /// A request that was begun.
    under_way: Option<UnderWay>,
}

/// A request that goes on elsewhere.
struct UnderWay {
    end: Receiver<Result<Value, Refusal>>,
    id: Option<u64>,
    /// When the client is told that it takes too long.
    due: Instant,
}

impl UnderWay {
    /// What came of it, if that is known by now.
    fn result(&self) -> Option<Result<Value, Refusal>> {
        match self.end.try_recv() {
            Ok(result) => Some(result),
            // Whoever was at it is gone.
            Err(TryRecvError::Disconnected) => Some(Err(went_wrong())),
            Err(TryRecvError::Empty) => {
                (Instant::now() >= self.due).then(|| Err(steer::too_long()))
            }
        }
    }
}

fn went_wrong() -> Refusal {
    Refusal::new(Class::Internal, "internal error, see the log")
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        let now = Instant::now();
        Self {
            stream,
            input: Vec::new(),
            files: VecDeque::new(),
            output: Greeting::new(env!("CARGO_PKG_VERSION")).line(),
            since: now,
            last: now,
            nonsense: 0,
            over: None,
            under_way: None,
        }
    }

    fn waits_for(&self) -> PollFlags {
        match self.output.is_empty() {
            true => PollFlags::IN,
            false => PollFlags::OUT,
        }
    }

    /// When its time is over, if somebody waits for it.
    fn deadline(&self) -> Option<Instant> {
        if let Some(under_way) = &self.under_way {
            return Some(under_way.due);
        }
        let waits = !self.input.is_empty() || !self.output.is_empty();
        waits.then(|| self.since + PATIENCE)
    }

    fn end_of_line(&self) -> Option<usize> {
        self.input.iter().position(|&byte| byte == b'\n')
    }

    /// True if there is something to do for it at once.
    fn has_request(&self) -> bool {
        let free = self.output.is_empty() && self.under_way.is_none();
        free && self.end_of_line().is_some()
    }

    /// Does what can be done for it now.
    fn serve(&mut self, cards: &SharedCards, wake: &Wake) -> Result<(), End> {
        if let Some(under_way) = self.under_way.take() {
            match under_way.result() {
                Some(result) => self.tell(result, under_way.id),
                None => {
                    self.under_way = Some(under_way);
                    return Ok(());
                }
            }
        }
        self.flush()?;
        if self.output.is_empty() && self.over.is_none() {
            self.read()?;
            // One at a time: the next waits until the answer is read, and others have had a turn.
            if let Some(end) = self.end_of_line() {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                self.answer(&line, cards, wake);
                // What came with a line that has no use for it is not for a later one.
                if self.input.is_empty() {
                    self.files.clear();
                }
                self.flush()?;
            }
            if self.input.len() > MAX_REQUEST && self.end_of_line().is_none() {
                let desc = format!("a line is longer than {MAX_REQUEST} bytes");
                self.refuse(Class::BadRequest, desc);
                self.over = Some("sent a line that is too long");
                self.flush()?;
            }
        }
        match (self.deadline(), self.over) {
            // It has been told why.
            (_, Some(why)) if self.output.is_empty() => Err(End::Cut(why)),
            _ if self.under_way.is_some() => Ok(()),
            (Some(due), _) if Instant::now() >= due => Err(End::Cut("is too slow")),
            _ => Ok(()),
        }
    }

    fn read(&mut self) -> Result<(), End> {
        // What is there already is answered first.
        if self.end_of_line().is_some() {
            return Ok(());
        }
        let mut chunk = [0; CHUNK];
        match receive(&self.stream, &mut chunk, &mut self.files) {
            Ok(0) => Err(End::Left),
            Ok(n) => {
                if self.input.is_empty() {
                    self.since = Instant::now();
                }
                self.input.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Has the request of a line done.
    fn answer(&mut self, line: &[u8], cards: &SharedCards, wake: &Wake) {
        self.last = Instant::now();
        self.since = self.last;
        let (result, id) = match Request::parse(line) {
            Ok(request) => {
                self.nonsense = 0;
                let id = request.id;
                // Whether its arguments are good or not.
                let takes_file = request.takes_file();
                let file = takes_file.then(|| self.files.pop_front()).flatten();
                let step = match request.command() {
                    Err(refusal) => Step::Over(Err(refusal)),
                    Ok(command) => {
                        let wake = wake.clone();
                        let done = AssertUnwindSafe(|| {
                            steer::execute(command, cards, file, move || wake.call())
                        });
                        catch_unwind(done).unwrap_or_else(|_| Step::Over(Err(went_wrong())))
                    }
                };
                match step {
                    Step::Over(done) => (done, id),
                    Step::Later(end) => {
                        let due = self.last + steer::PATIENCE;
                        self.under_way = Some(UnderWay { end, id, due });
                        return;
                    }
                }
            }
            Err(refusal) => {
                self.nonsense += 1;
                if self.nonsense >= MAX_NONSENSE {
                    self.over = Some("sent nonsense");
                }
                (Err(refusal), None)
            }
        };
        self.tell(result, id);
    }

    /// Says what came of a request.
    fn tell(&mut self, result: Result<Value, Refusal>, id: Option<u64>) {
        let answer = Answer::new(result, id).line();
        if answer.len() > MAX_WAITING {
            return self.refuse(Class::Internal, "the answer is too long");
        }
        // It may have taken long.
        self.since = Instant::now();
        self.output.extend_from_slice(&answer);
    }

    fn refuse(&mut self, class: Class, desc: impl Into<String>) {
        let answer = Answer::new(Err(Refusal::new(class, desc)), None);
        self.since = Instant::now();
        self.output.extend_from_slice(&answer.line());
    }

    /// Sends what the client takes.
    fn flush(&mut self) -> Result<(), End> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(End::Left),
                Ok(n) => {
                    self.output.drain(..n);
                    self.since = Instant::now();
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// Reads bytes, and the descriptors that come with them.
fn receive(
    stream: &UnixStream,
    bytes: &mut [u8],
    files: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(bytes)];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(stream, &mut bytes, &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            files.extend(fds);
        }
    }
    files.truncate(MAX_FILES);
    Ok(message.bytes)
}
