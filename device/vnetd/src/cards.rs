// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The cards of the process.

use std::sync::mpsc::Sender;

use tracing::{error, info_span};

use crate::args::Args;
use crate::card::{Id, Served};
use crate::config::MAX_CARDS;
use crate::end::Event;
use crate::error::Error;

/// All cards, in the order in which they came.
pub(crate) struct Cards {
    cards: Vec<Served>,
    events: Sender<Event>,
    next: u64,
    /// Rules that the drivers of cards broke that were removed, where that matters.
    broken: u64,
}

impl Cards {
    pub(crate) fn new(events: Sender<Event>) -> Self {
        Self {
            cards: Vec::new(),
            events,
            next: 0,
            broken: 0,
        }
    }

    /// Sets up one more card, whose lines in the log have its name.
    pub(crate) fn add_named(&mut self, args: Args) -> Result<(), Error> {
        let name = args.name();
        if self.cards.len() >= MAX_CARDS {
            return Err(Error::TooMany);
        }
        if self.cards.iter().any(|card| card.name == name) {
            return Err(Error::Exists(name));
        }
        let _span = info_span!("card", name = name.as_str()).entered();
        self.add(args).map(drop)
    }

    /// Sets up the only card that there is to be at first.
    pub(crate) fn add(&mut self, args: Args) -> Result<Id, Error> {
        let id = Id(self.next);
        self.next += 1;
        self.cards
            .push(Served::start(id, args, self.events.clone())?);
        Ok(id)
    }

    /// Ends a card.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), Error> {
        let Some(at) = self.cards.iter().position(|c| c.name.as_str() == name) else {
            return Ok(());
        };
        let card = self.cards.remove(at);
        let _span = card.span().entered();
        match card.remove() {
            Err(Error::Rules(times)) => {
                self.broken += times;
                Ok(())
            }
            result => result,
        }
    }

    /// Says what the cards came to.
    pub(crate) fn verdict(&self) -> Result<(), Error> {
        let verdicts: Vec<_> = self.cards.iter().map(Served::verdict).collect();
        verdicts.into_iter().collect::<Result<(), _>>()?;
        match self.broken {
            0 => Ok(()),
            times => Err(Error::Rules(times)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Served> {
        self.cards.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Served> {
        self.cards.iter_mut()
    }

    /// Nobody serves this card any more.
    pub(crate) fn ended(&mut self, id: Id, why: &Error) {
        if let Some(card) = self.cards.iter_mut().find(|card| card.id == id) {
            error!("card {}: {why}", card.name);
            card.fail(why);
        }
    }

    /// The client of this card cannot work: hangs up on it.
    pub(crate) fn useless(&mut self, id: Id, why: &Error) {
        if let Some(card) = self.cards.iter().find(|card| card.id == id) {
            error!("card {}: {why}", card.name);
            card.hang_up();
        }
    }

    /// Has the files of faults read again; false if no card has one.
    pub(crate) fn reload_faults(&self) -> bool {
        let files: Vec<_> = self
            .cards
            .iter()
            .filter_map(|c| c.faults.as_ref())
            .collect();
        files.iter().for_each(|file| file.reload());
        !files.is_empty()
    }
}
