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
}

impl Cards {
    pub(crate) fn new(events: Sender<Event>) -> Self {
        Self {
            cards: Vec::new(),
            events,
            next: 0,
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
        self.add(args)
    }

    /// Sets up the only card.
    pub(crate) fn add(&mut self, args: Args) -> Result<(), Error> {
        let id = Id(self.next);
        self.next += 1;
        self.cards
            .push(Served::start(id, args, self.events.clone())?);
        Ok(())
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
