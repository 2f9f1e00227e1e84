// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The process that serves a card, under a holder that outlives it.

use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::io::Errno;
use signal_hook::consts::SIGUSR2;
use signal_hook::flag;
use tracing::error;
use vnet_card::Survival;
use vnet_record::Record;
use vnet_session::{Lifeline, Session};
use vnet_state::{Board, Held, Keeper, Memory, Token};

use crate::args::Args;
use crate::card::{card, shaped, unusable};
use crate::end::{self, report, Another, Cause, Event};
use crate::error::Error;
use crate::faults::FaultFile;
use crate::holder::EARLY;
use crate::limits;
use crate::line::{Line, Message};
use crate::out;
use crate::sandbox::{serve_here, Sandbox};
use crate::sanitize;
use crate::server::{watch_signals, Ports};
use crate::views::Counts;

/// Serves until a signal, an error or the holder ends it.
pub(crate) fn run(args: &Args, sandbox: Sandbox) -> Result<(), Error> {
    // Ctrl-C is the holder's, which passes it on when there is somebody to hear it; and from a session of its
    // own this may write to a terminal that stops background processes that do. Fails for one that has it.
    let _ = rustix::process::setsid();
    // What asks the holder for a new program, sent to all that are called vnetd.
    flag::register(SIGUSR2, Arc::default()).map_err(Error::Signals)?;
    let entered = sandbox.enter(std::slice::from_ref(args), &Ports::default());
    out::start()?;
    limits::raise_descriptors();
    // The program that runs has no name if its file was replaced.
    let _ = rustix::thread::set_name(c"vnetd-standby");
    let line = stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(Error::Holder)?;
    let line = Arc::new(Line::new(line));
    // Until it is needed, the process is here. It may be ended by any signal then.
    let Some(mut held) = briefing(&line).map_err(|e| Error::Holder(e.into()))? else {
        return Ok(());
    };
    let _ = rustix::thread::set_name(c"vnetd-worker");

    let (sender, events) = channel();
    let taken_over = held.contains_key(&Token::State);
    let faults = match (&args.faults, taken_over) {
        (None, _) => None,
        (Some(path), false) => Some(FaultFile::open(path.clone())?),
        (Some(path), true) => Some(FaultFile::inherit(path.clone())),
    };
    watch_signals(sender.clone(), faults.clone())?;
    let memory = match held.remove(&Token::State) {
        Some(fd) => Memory::open(fd)?,
        None => {
            let memory = Memory::create()?;
            line.keep(Token::State, memory.as_fd());
            memory
        }
    };
    let client = held.remove(&Token::Client);

    let endpoint = args
        .net
        .open_surviving(args, line.as_ref(), &memory, &mut held);
    let endpoint = endpoint.map_err(|e| unusable(args, e))?;
    let mut beside = Counts::default();
    let endpoint = shaped(args, endpoint, &mut beside, taken_over);
    let mut card = card(args, endpoint, faults.as_ref(), taken_over)?;
    let sanitizer = card.sanitizer().cloned();
    if let Some(sanitizer) = &sanitizer {
        sanitizer.outlive(board(&line, &mut held)?);
    }
    let keeper = Arc::clone(&line) as Arc<dyn Keeper>;
    let survival = Survival {
        memory: Arc::clone(&memory),
        keeper: Arc::clone(&keeper),
    };
    card.survive(survival, &mut held).map_err(Error::Unmade)?;
    let card = Arc::new(Mutex::new(card));

    let lifeline = Lifeline::new(&memory, keeper, &mut held).map_err(Error::Holder)?;
    let fatal = sender.clone();
    let session = Session::without_listener(Arc::clone(&card), move |_, e| {
        report(&fatal, Event::Failed(e.into()));
    })?;
    let control = session.control();
    let (clients, queue) = channel();
    if let Some(client) = client {
        // The other end is below.
        let _ = clients.send(client);
    }
    let server = serve(session, lifeline, queue, sender.clone())?;
    listen(Arc::clone(&line), clients, sender.clone())?;
    line.ready().map_err(|e| Error::Holder(e.into()))?;
    entered.tell();

    let result = end::wait(&events);
    control.stop();
    if matches!(result, Ok(Cause::HandOver)) {
        out::hurry();
        // Between two messages; then, when the card is dropped, between two batches.
        return server.join().map_err(|_| Error::Panicked);
    }
    let rested = end::rest(vec![card], sender, &events, Another::Echo);
    Record::finish(beside.record.as_slice());
    if let Some(file) = &faults {
        file.report();
    }
    let judged = sanitizer.map_or(Ok(()), |s| sanitize::verdict(args.sanitize, &s));
    result.and(rested).and(judged)
}

/// Waits to be told what the holder has kept. `None`: this process is not needed.
fn briefing(line: &Line) -> Result<Option<Held>, Errno> {
    match line.present() {
        Err(Errno::PIPE) => return Ok(None),
        result => result?,
    }
    let mut held = Held::new();
    loop {
        match line.receive()? {
            Some(Message::Descriptor(token, fd)) => {
                // What is not known stays with the holder, for a program that knows it.
                if let Some(token) = Token::from_bits(token) {
                    held.insert(token, fd);
                }
            }
            Some(Message::Ready) => return Ok(Some(held)),
            Some(_) => return Err(Errno::BADMSG),
            None => return Ok(None),
        }
    }
}

/// Where findings are kept.
fn board(line: &Line, held: &mut Held) -> Result<Board, Error> {
    if let Some(Ok(board)) = held.remove(&Token::Findings).map(Board::open) {
        return Ok(board);
    }
    let board = Board::create()?;
    line.keep(Token::Findings, board.as_fd());
    Ok(board)
}

/// Starts the message thread.
fn serve(
    mut session: Session,
    lifeline: Lifeline,
    clients: Receiver<OwnedFd>,
    events: Sender<Event>,
) -> Result<JoinHandle<()>, Error> {
    thread::Builder::new()
        .name("vnet-session".into())
        .spawn(move || {
            serve_here();
            let control = session.control();
            let served = catch_unwind(AssertUnwindSafe(|| {
                while let Ok(client) = clients.recv() {
                    session.serve_kept(client, &lifeline);
                    if control.is_stopped() {
                        return;
                    }
                }
            }));
            if served.is_err() {
                // Whatever it was, the next process begins with the same message, but without what
                // this one has in memory.
                error!("the message thread panicked");
                // Soon enough to be told from one that has served.
                out::flush(EARLY / 4);
                std::process::abort();
            }
            drop(events);
        })
        .map_err(Error::Thread)
}

/// Hears what the holder has to say.
fn listen(line: Arc<Line>, clients: Sender<OwnedFd>, events: Sender<Event>) -> Result<(), Error> {
    thread::Builder::new()
        .name("vnet-holder".into())
        .spawn(move || loop {
            match line.receive() {
                Ok(Some(Message::Descriptor(token, client)))
                    if token == Token::Client.to_bits() =>
                {
                    // Fails only when the worker is on its way out.
                    let _ = clients.send(client);
                }
                // With this thread the last sender of clients goes, for which the other one may wait.
                Ok(Some(Message::HandOver)) => return report(&events, Event::HandOver),
                Ok(Some(_)) => {}
                // Without a holder there is no client, either.
                Ok(None) => return report(&events, Event::Signal),
                Err(e) => return report(&events, Event::Failed(Error::Holder(e.into()))),
            }
        })
        .map_err(Error::Thread)?;
    Ok(())
}
