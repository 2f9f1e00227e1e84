// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The end of the server: what causes it, and how the card is left.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use vnet_session::{ClientId, SharedCard};

use crate::card::Id;
use crate::error::Error;

/// How long the card may take to come to rest. It takes far less unless a thread hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Something that matters to the end.
#[derive(Debug)]
pub(crate) enum Event {
    /// A signal asks for it.
    Signal,
    /// Another process is to go on.
    HandOver,
    /// The server cannot go on.
    Failed(Error),
    /// Nobody serves this card any more.
    Ended { id: Id, error: Error },
    /// This client of this card cannot work.
    Useless {
        id: Id,
        client: ClientId,
        error: Error,
    },
    /// A card is at rest.
    AtRest,
}

pub(crate) fn report(events: &Sender<Event>, event: Event) {
    // Fails only when the main thread is on its way out already.
    let _ = events.send(event);
}

/// What a server ends for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It is not wanted any more.
    Done,
    /// Another process is to go on.
    HandOver,
}

/// Waits for whatever ends a process under a holder.
pub(crate) fn wait(events: &Receiver<Event>) -> Result<Cause, Error> {
    loop {
        match events.recv() {
            Ok(Event::Signal) => return Ok(Cause::Done),
            Ok(Event::HandOver) => return Ok(Cause::HandOver),
            Ok(Event::Failed(error)) => return Err(error),
            // A process under a holder is not told these.
            Ok(Event::AtRest | Event::Ended { .. } | Event::Useless { .. }) => {}
            // A sender lives as long as its thread, and the thread of the signals lives on.
            Err(_) => return Err(Error::Panicked),
        }
    }
}

/// What another signal means, which comes while cards are brought to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Another {
    /// Somebody does not want to wait.
    Hurry,
    /// The same once more: the holder passes on what whoever signals all processes sends here as well.
    Echo,
}

/// Brings cards to rest and out of their clients' memory, and keeps the message threads from them
/// after that. Gives up after a while, or at once when another signal says so: the thread that holds
/// a card, or a worker, may hang.
pub(crate) fn rest(
    cards: Vec<SharedCard>,
    sender: Sender<Event>,
    events: &Receiver<Event>,
    another: Another,
) -> Result<(), Error> {
    let end = Instant::now() + PATIENCE;
    let mut left = cards.len();
    for card in cards {
        let sender = sender.clone();
        thread::Builder::new()
            .name("vnet-end".into())
            .spawn(move || {
                let mut locked = card.lock().unwrap_or_else(PoisonError::into_inner);
                locked.disconnect();
                report(&sender, Event::AtRest);
                // The message thread must not touch the card again before the process is gone.
                loop {
                    thread::park();
                }
            })
            .map_err(Error::Thread)?;
    }
    while left > 0 {
        match events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Event::AtRest) => left -= 1,
            Ok(Event::Signal) if another == Another::Echo => {}
            Ok(Event::Signal) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(Error::Stuck);
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};
    use vnet_card::{Card, Config};
    use vnet_loopback::Null;

    fn card() -> SharedCard {
        let config = Config::new([2, 0, 0, 0, 0, 1]);
        Arc::new(Mutex::new(
            Card::new(config, Box::new(Null::new())).unwrap(),
        ))
    }

    #[test]
    fn a_card_comes_to_rest_and_stays_there() {
        let card = card();
        let (sender, events) = channel();
        // What is reported on the way does not matter any more.
        sender.send(Event::Failed(Error::Panicked)).unwrap();
        rest(vec![Arc::clone(&card)], sender, &events, Another::Hurry).unwrap();
        assert!(card.try_lock().is_err());
    }

    #[test]
    fn under_a_holder_a_signal_may_come_twice() {
        let (sender, events) = channel();
        sender.send(Event::Signal).unwrap();
        rest(vec![card()], sender, &events, Another::Echo).unwrap();
    }

    #[test]
    fn a_card_that_is_stuck_is_given_up() {
        let card = card();
        let _held = card.lock().unwrap();
        let (sender, events) = channel();
        let start = Instant::now();
        let end = rest(
            vec![Arc::clone(&card)],
            sender.clone(),
            &events,
            Another::Hurry,
        );
        assert!(matches!(end, Err(Error::Stuck)));
        assert!(start.elapsed() >= PATIENCE);

        sender.send(Event::Signal).unwrap();
        let start = Instant::now();
        let end = rest(vec![Arc::clone(&card)], sender, &events, Another::Hurry);
        assert!(matches!(end, Err(Error::Stuck)));
        assert!(start.elapsed() < PATIENCE);
    }
}
