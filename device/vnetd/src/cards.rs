// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The cards of the process.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::Arc;

use tracing::{error, info_span};

use crate::args::Args;
use crate::card::{Id, Served};
use crate::config::MAX_CARDS;
use crate::end::Event;
use crate::error::Error;
use crate::faults::FaultFile;
use crate::name::Name;
use crate::views::Views;

/// All cards, in the order in which they came.
pub(crate) struct Cards {
    cards: Vec<Served>,
    events: Sender<Event>,
    next: u64,
    /// Rules that the drivers of cards broke that were removed, where that matters.
    broken: u64,
    /// Those that are being made.
    planned: Vec<Planned>,
    views: Views,
    /// Batches are timed.
    measured: bool,
}

/// One that is being made: what no other may have, and what has become of it already. It has clients before
/// it is one of the cards.
pub(crate) struct Planned {
    id: Id,
    name: Name,
    record: Option<PathBuf>,
    early: Vec<Event>,
}

/// A card that is to be made.
pub(crate) struct Plan {
    id: Id,
    args: Args,
    events: Sender<Event>,
}

/// A card that was made, or why it was not.
pub(crate) struct Made {
    name: Name,
    card: Result<Served, Error>,
}

impl Plan {
    pub(crate) fn name(&self) -> Name {
        self.args.name()
    }

    /// Makes the card.
    pub(crate) fn make(self) -> Made {
        let Self { id, args, events } = self;
        let name = args.name();
        let _span = info_span!("card", name = name.as_str()).entered();
        let start = AssertUnwindSafe(|| Served::start(id, args, events));
        let card = catch_unwind(start).unwrap_or(Err(Error::Panicked));
        Made { name, card }
    }
}

impl Cards {
    pub(crate) fn new(events: Sender<Event>) -> Self {
        Self {
            cards: Vec::new(),
            events,
            next: 0,
            broken: 0,
            planned: Vec::new(),
            views: Views::default(),
            measured: false,
        }
    }

    /// How many there are, in words.
    pub(crate) fn summary(&self) -> String {
        match self.cards.len() {
            1 => "1 card".into(),
            count => format!("{count} cards"),
        }
    }

    /// The cards for those who look on.
    pub(crate) fn views(&self) -> Views {
        Arc::clone(&self.views)
    }

    /// Has batches timed from now on, also those of cards that come later.
    pub(crate) fn measure(&mut self) {
        self.measured = true;
        self.cards.iter().for_each(|card| card.operator.measure());
    }

    /// Shows the cards to those who look on. After each change.
    fn show(&self) {
        let views = self.cards.iter().map(|card| Arc::new(card.view()));
        self.views.store(Arc::new(views.collect()));
    }

    /// Sets up one more card, whose lines in the log have its name.
    pub(crate) fn add_named(&mut self, args: Args) -> Result<(), Error> {
        let plan = self.plan(args)?;
        let made = plan.make();
        self.settle(made).map(drop)
    }

    /// Sets up the only card that there is to be at first.
    pub(crate) fn add(&mut self, args: Args) -> Result<Id, Error> {
        let id = self.number();
        let card = Served::start(id, args, self.events.clone())?;
        self.show_one_more(card);
        Ok(id)
    }

    /// Keeps the name for a card that can be. To make it may take its time, and needs nothing of this.
    pub(crate) fn plan(&mut self, args: Args) -> Result<Plan, Error> {
        let name = args.name();
        if self.cards.len() + self.planned.len() >= MAX_CARDS {
            return Err(Error::TooMany);
        }
        let made = self.cards.iter();
        let made = made.map(|card| (&card.name, card.args.files()));
        let planned = self.planned.iter();
        let planned = planned.map(|card| (&card.name, card.record.clone()));
        let record = args.files();
        for (taken, files) in made.chain(planned) {
            if *taken == name {
                return Err(Error::Exists(name));
            }
            if record.is_some() && files == record {
                return Err(Error::Recorded(taken.clone()));
            }
        }
        let id = self.number();
        self.planned.push(Planned {
            id,
            name,
            record,
            early: Vec::new(),
        });
        Ok(Plan {
            id,
            args,
            events: self.events.clone(),
        })
    }

    /// Takes in a card that was planned and is made, or gives its name free.
    pub(crate) fn settle(&mut self, made: Made) -> Result<Id, Error> {
        let planned = self.forget(&made.name);
        let card = made.card?;
        let id = card.id;
        self.show_one_more(card);
        for event in planned.into_iter().flat_map(|planned| planned.early) {
            self.hear(event);
        }
        Ok(id)
    }

    /// A card that was planned is not to be made, or is made.
    pub(crate) fn forget(&mut self, name: &Name) -> Option<Planned> {
        let at = self.planned.iter().position(|p| p.name == *name)?;
        Some(self.planned.swap_remove(at))
    }

    fn number(&mut self) -> Id {
        let id = Id(self.next);
        self.next += 1;
        id
    }

    fn show_one_more(&mut self, card: Served) {
        if self.measured {
            card.operator.measure();
        }
        self.cards.push(card);
        self.show();
    }

    /// Ends a card.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), Error> {
        let Some(at) = self.cards.iter().position(|c| c.name.as_str() == name) else {
            return Ok(());
        };
        let mut card = self.cards.remove(at);
        self.show();
        let _span = card.span().entered();
        card.stop();
        // Of one that does not come to rest as well.
        if let Err(Error::Rules(times)) = card.verdict() {
            self.broken += times;
        }
        card.remove()
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

    /// Deals with what has become of a card, once it is there.
    pub(crate) fn hear(&mut self, event: Event) {
        let (Event::Ended { id, .. } | Event::Useless { id, .. }) = event else {
            return;
        };
        if let Some(planned) = self.planned.iter_mut().find(|p| p.id == id) {
            return planned.early.push(event);
        }
        let Some(card) = self.cards.iter_mut().find(|card| card.id == id) else {
            return;
        };
        match event {
            // Nobody serves it any more.
            Event::Ended { error, .. } => {
                error!("card {}: {error}", card.name);
                card.fail(&error);
                self.show();
            }
            // It cannot work with this client.
            Event::Useless { client, error, .. } => {
                error!("card {}: {error}", card.name);
                card.hang_up(client);
            }
            _ => {}
        }
    }

    /// The files of faults that there are.
    pub(crate) fn fault_files(&self) -> Vec<FaultFile> {
        let files = self.cards.iter().filter_map(|card| card.faults.clone());
        files.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::PoisonError;

    use clap::Parser;
    use vnet_sanitizer::{Finding, Rule};

    use super::*;

    use crate::args::Cli;

    fn args(all: &[&str]) -> Args {
        let all = ["vnetd", "--net=null"].iter().chain(all);
        Cli::try_parse_from(all).unwrap().card.unwrap()
    }

    #[test]
    fn a_record_is_of_one_card() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let card = |name: &str, record: &str| {
            let [socket, record] = [("socket", path(name)), ("record=file", path(record))]
                .map(|(key, value)| format!("--{key}={value}"));
            args(&[&socket, &record])
        };
        let mut cards = Cards::new(channel().0);
        let first = cards.plan(card("a", "x.pcapng")).unwrap();
        let same = |cards: &mut Cards| cards.plan(card("b", "./x.pcapng")).map(drop);
        assert!(matches!(same(&mut cards), Err(Error::Recorded(_))));
        cards.settle(first.make()).unwrap();
        assert!(matches!(same(&mut cards), Err(Error::Recorded(_))));
        cards.plan(card("c", "y.pcapng")).unwrap();
        cards.remove("a").unwrap();
        same(&mut cards).unwrap();
    }

    #[test]
    fn a_card_that_ends_before_it_is_one_of_the_cards_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("nic0.sock");
        let mut cards = Cards::new(channel().0);
        let plan = cards.plan(args(&["--socket", socket.to_str().unwrap()]));
        let made = plan.unwrap().make();
        let id = made.card.as_ref().unwrap().id;
        let error = Error::Panicked;
        cards.hear(Event::Ended { id, error });
        cards.settle(made).unwrap();
        assert!(cards.cards[0].failed.is_some());
    }

    #[test]
    fn what_a_driver_did_counts_although_its_card_does_not_come_to_rest() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("nic0.sock");
        let socket = socket.to_str().unwrap();
        let args = args(&["--socket", socket, "--sanitize=strict"]);
        let mut cards = Cards::new(channel().0);
        cards.add(args).unwrap();
        let served = &cards.cards[0];
        let finding = Finding::new(Rule::ALL[0], "this", "that");
        served.sanitizer.as_ref().unwrap().report(finding);
        let (name, card) = (served.name.clone(), Arc::clone(&served.card));
        let busy = card.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(matches!(cards.remove(name.as_str()), Err(Error::Stuck)));
        drop(busy);
        assert!(matches!(cards.verdict(), Err(Error::Rules(1))));
    }
}
