// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What can be done to the cards while they are in use.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{json, to_value, Value};
use tracing::info;
use vnet_card::{Driver, Forced, LinkReport};
use vnet_contract::queue::{kind, Error as QueueError, Kind};
use vnet_control::{
    Add, Backend, BackendChanged, Bucket, Card, Class, Command, Counters, Direction, Error,
    FaultPlan, Faults, Findings, Generator, Lane, Link, LinkState, Mac, OfQueue, Peer, Port, Queue,
    Ring, RuleBroken, Settings, Shape, Status, Switch, Times,
};
use vnet_faults::Plan;
use vnet_session::SharedCard;

use crate::capture;
use crate::card::{shaped, unusable, Id, Served};
use crate::cards::Cards;
use crate::net::Net;
use crate::opened::Opened;
use crate::server::{lock, SharedCards};
use crate::settings::{self, Setting};
use crate::step::Subject;
use crate::switches::{self, SwitchReport};
use crate::views::Counts;
use crate::{error, mac, sandbox, step};

/// How long a change may take before nobody waits for it any more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for a card whose message thread is at it, for what can be left out.
const GLANCE: Duration = Duration::from_millis(100);
/// How long the threads of a card may take to let go of a backend.
const SETTLE: Duration = Duration::from_secs(1);

/// Most problems with the settings of a card that are told at a time.
const MAX_PROBLEMS: usize = 8;

pub(crate) type Done<T> = Result<T, Error>;

/// What became of a command.
pub(crate) enum Step {
    /// It is done, or refused.
    Over(Done<Value>),
    /// It goes on elsewhere; this is where its end is told.
    Later(Receiver<Done<Value>>),
}

/// Does what is asked for, with the file that came with it. What has others wait is begun; at its end, `wake` is called.
pub(crate) fn execute(
    command: Command,
    cards: &SharedCards,
    file: Option<OwnedFd>,
    wake: impl FnOnce() + Send + 'static,
) -> Step {
    match command {
        Command::CardAdd(add) => match card_add(cards, &add, wake) {
            Ok(end) => Step::Later(end),
            Err(e) => Step::Over(Err(e)),
        },
        command => Step::Over(at_once(command, &mut lock(cards), file)),
    }
}

/// What takes no longer than [`PATIENCE`].
fn at_once(command: Command, cards: &mut Cards, file: Option<OwnedFd>) -> Done<Value> {
    match command {
        Command::CardList(_) => answer(cards.iter().map(describe).collect::<Vec<_>>()),
        Command::CardShow(of) => answer(describe(find(cards, &of.card)?)),
        Command::CardCounters(of) => {
            if of.measure {
                cards.measure();
            }
            match of.card {
                Some(name) => answer([counters(find(cards, &name)?)]),
                None => answer(cards.iter().map(counters).collect::<Vec<_>>()),
            }
        }
        Command::SwitchList(_) => {
            answer(switches::reports().iter().map(switch).collect::<Vec<_>>())
        }
        Command::CardAdd(_) => Err(Error::new(Class::Internal, "not at once")),
        Command::CardRemove(of) => {
            find(cards, &of.card)?;
            cards.remove(&of.card).map_err(failed)?;
            info!("card {} removed", of.card);
            Ok(json!({}))
        }
        Command::LinkSet(link) => answer(link_set(find(cards, &link.card)?, &link)),
        Command::MacSet(mac) => mac_set(find(cards, &mac.card)?, &mac),
        Command::BackendSet(backend) => answer(backend_set(find(cards, &backend.card)?, &backend)?),
        Command::FaultsSet(faults) => answer(faults_set(find(cards, &faults.card)?, &faults)?),
        Command::FaultsShow(of) => answer(fault_plan(find(cards, &of.card)?)),
        Command::RulesShow(of) => answer(findings(find(cards, &of.card)?)),
        Command::CaptureStart(start) => {
            answer(capture::start(find(cards, &start.card)?, &start, file)?)
        }
        Command::CaptureShow(of) => answer(capture::show(find(cards, &of.card)?, of.number)?),
        Command::CaptureStop(of) => answer(capture::stop(find(cards, &of.card)?, of.number)?),
        Command::CardPause(of) => answer(queues(find(cards, &of.card)?, of, step::pause)?),
        Command::CardStep(of) => answer(queues(find(cards, &of.card)?, of, step::step)?),
        Command::CardResume(of) => answer(queues(find(cards, &of.card)?, of, step::resume)?),
    }
}

fn answer(value: impl serde::Serialize) -> Done<Value> {
    to_value(value).map_err(|e| Error::new(Class::Internal, e.to_string()))
}

fn failed(e: error::Error) -> Error {
    let class = match e {
        error::Error::Exists(_) | error::Error::Recorded(_) | error::Error::TooMany => {
            Class::Exists
        }
        _ => Class::Failed,
    };
    Error::new(class, format!("{e}{}", sandbox::hint(&e)))
}

pub(crate) fn bad(what: impl Into<String>) -> Error {
    Error::new(Class::BadArgument, what)
}

fn find<'a>(cards: &'a mut Cards, name: &str) -> Done<&'a mut Served> {
    let names: Vec<_> = cards.iter().map(|card| card.name.to_string()).collect();
    let found = cards.iter_mut().find(|card| card.name.as_str() == name);
    found.ok_or_else(|| {
        let name = name.escape_debug();
        let desc = match names.is_empty() {
            true => format!("there is no card {name}, nor any other"),
            false => format!("there is no card {name}; there are {}", names.join(", ")),
        };
        Error::new(Class::NoSuchCard, desc)
    })
}

/// Does something with a card that may take its time, as a backend or a message thread may hang. One
/// thing at a time, so that no more than one thread hangs with it.
pub(crate) fn patiently<T: Send + 'static>(
    card: &Served,
    what: impl FnOnce() -> Result<T, error::Error> + Send + 'static,
) -> Done<T> {
    if Arc::strong_count(&card.change) > 1 {
        let desc = "an earlier change of this card is still under way";
        return Err(Error::new(Class::Timeout, desc));
    }
    let change = Arc::clone(&card.change);
    let (sender, result) = channel();
    thread::Builder::new()
        .name("vnet-change".into())
        .spawn(move || {
            let result = what();
            // Before the answer, after which there may be another.
            drop(change);
            // Fails when nobody waits any more.
            let _ = sender.send(result);
        })
        .map_err(|e| failed(error::Error::Thread(e)))?;
    match result.recv_timeout(PATIENCE) {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(too_long()),
    }
}

fn describe(card: &Served) -> Card {
    let driver = glance(&card.card);
    let plan = card.faults_in_force();
    let findings = card.sanitizer.as_ref().map(|s| s.findings().total());
    Card {
        name: card.name.to_string(),
        status: match card.failed {
            None => Status::Serving,
            Some(_) => Status::Failed,
        },
        error: card.failed.clone(),
        socket: card.args.socket.display().to_string(),
        net: card.net().to_string(),
        mac: driver.map(|(_, mac)| mac::Mac(mac).to_string()),
        queues: card.args.queues,
        mtu_max: card.args.mtu_max,
        link: link_state(card.operator.link()),
        client: card.control.peer().map(|peer| Peer {
            pid: peer.pid,
            uid: peer.uid,
        }),
        features: driver.and_then(|(driver, _)| driver.features),
        sanitize: card.args.sanitize.to_string(),
        rules_broken: findings,
        faults: plan.map_or(0, |faults| faults.report().len()),
        paused: (0..card.operator.queue_count())
            .filter(|&queue| card.operator.is_paused(queue))
            .map(step::name)
            .collect(),
    }
}

/// What only the card itself knows, if its message thread lets it go.
pub(crate) fn glance(card: &SharedCard) -> Option<(Driver, [u8; 6])> {
    let end = Instant::now() + GLANCE;
    loop {
        match card.try_lock() {
            Ok(card) => return Some((card.driver(), card.mac())),
            Err(TryLockError::Poisoned(card)) => {
                let card = card.into_inner();
                return Some((card.driver(), card.mac()));
            }
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(TryLockError::WouldBlock) => return None,
        }
    }
}

fn link_state(report: LinkReport) -> LinkState {
    LinkState {
        up: report.link.up,
        speed: report.link.speed,
        forced_down: report.forced.down,
        backend_up: report.backend.up,
    }
}

fn counters(card: &Served) -> Counters {
    let queues = (0u16..).zip(card.operator.queues()).map(|(index, queue)| {
        let c = queue.counters;
        Queue {
            pair: index / 2,
            direction: match kind(index) {
                Kind::Rx => Direction::Receive,
                Kind::Tx => Direction::Transmit,
            },
            error: QueueError::from_code(queue.error).map(|e| e.name().into()),
            frames: c.frames,
            bytes: c.bytes,
            drops: c.drops,
            errors: c.errors,
            doorbells: c.doorbells,
            interrupts: c.interrupts,
            drops_by_reason: queue
                .drops
                .iter()
                .filter(|(_, frames)| *frames > 0)
                .map(|(why, frames)| (why.name().into(), frames))
                .collect(),
            ring: queue.fill.map(|fill| Ring {
                waiting: fill.waiting,
                size: fill.size,
            }),
            times: queue.times.as_ref().map(times),
        }
    });
    let beside = card.beside.get();
    Counters {
        card: card.name.to_string(),
        queues: queues.collect(),
        shape: beside.shape.map(|counters| {
            let [transmit, receive] = counters.totals().map(lane);
            Shape { transmit, receive }
        }),
        generator: beside
            .generator
            .map(|counters| generator(&counters.report())),
    }
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

fn times(times: &vnet_card::Times) -> Times {
    let bucket = |(most, count): (Option<Duration>, u64)| Bucket {
        most: most.map(nanoseconds),
        count,
    };
    Times {
        sum: nanoseconds(times.sum),
        buckets: times.buckets().map(bucket).collect(),
    }
}

fn lane(report: vnet_shape::Report) -> Lane {
    Lane {
        frames: report.frames,
        bytes: report.bytes,
        lost: report.lost,
        duplicated: report.duplicated,
        reordered: report.reordered,
    }
}

fn generator(report: &vnet_generator::Report) -> Generator {
    let bucket = |(most, count): (Option<Duration>, u64)| Bucket {
        most: most.map(nanoseconds),
        count,
    };
    Generator {
        sent: report.sent,
        sent_bytes: report.sent_bytes,
        received: report.received,
        received_bytes: report.received_bytes,
        lost: report.lost,
        unanswered: report.unanswered,
        reordered: report.reordered,
        duplicated: report.duplicated,
        damaged: report.damaged,
        other: report.other,
        latency: Times {
            sum: nanoseconds(report.latency.sum()),
            buckets: report.latency.buckets().map(bucket).collect(),
        },
        longest: nanoseconds(report.latency.longest()),
    }
}

fn switch(report: &SwitchReport) -> Switch {
    let ports = report.ports.iter().map(|(port, c)| Port {
        port: port.clone(),
        frames_in: c.frames_in,
        bytes_in: c.bytes_in,
        frames_out: c.frames_out,
        bytes_out: c.bytes_out,
        full: c.full,
        refused: c.refused,
    });
    Switch {
        name: report.name.to_string(),
        addresses: report.addresses,
        groups: report.groups,
        ports: ports.collect(),
    }
}

/// Begins to make a card, which may take as long as its backend and the system do.
fn card_add(
    cards: &SharedCards,
    add: &Add,
    wake: impl FnOnce() + Send + 'static,
) -> Done<Receiver<Done<Value>>> {
    let list = list(&add.settings)?;
    let args = settings::card(&list, 0).map_err(|problems| {
        let first = problems.into_iter().take(MAX_PROBLEMS);
        let all: Vec<_> = first.map(|problem| problem.what).collect();
        bad(all.join("; "))
    })?;
    let plan = lock(cards).plan(args).map_err(failed)?;
    let name = plan.name();
    let (sender, end) = channel();
    let shared = Arc::clone(cards);
    let begun = thread::Builder::new()
        .name("vnet-change".into())
        .spawn(move || {
            let made = plan.make();
            let cards = &mut *lock(&shared);
            let settled = cards.settle(made).map_err(failed);
            let told = settled.and_then(|id| answer(describe(by_id(cards, id)?)));
            // Fails when nobody waits any more.
            let _ = sender.send(told);
            wake();
        });
    match begun {
        Ok(_) => Ok(end),
        Err(e) => {
            lock(cards).forget(&name);
            Err(failed(error::Error::Thread(e)))
        }
    }
}

fn by_id(cards: &mut Cards, id: Id) -> Done<&mut Served> {
    let found = cards.iter_mut().find(|card| card.id == id);
    found.ok_or_else(|| Error::new(Class::NoSuchCard, "the card is gone again"))
}

/// What a client is told who has waited for long enough.
pub(crate) fn too_long() -> Error {
    Error::new(
        Class::Timeout,
        "this takes too long; it may come to pass yet",
    )
}

/// Settings as they come in JSON.
fn list(settings: &Settings) -> Done<Vec<Setting>> {
    let settings = settings.iter().map(|(key, value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(n) => n.to_string(),
            Value::Bool(on) => on.to_string(),
            _ => return Err(bad(format!("{key}: a string or a number is needed"))),
        };
        let key = key.clone();
        Ok(Setting {
            key,
            value,
            line: 0,
        })
    });
    settings.collect()
}

fn link_set(card: &mut Served, link: &Link) -> LinkState {
    let before = card.operator.link().forced;
    let forced = Forced {
        down: link.up.map_or(before.down, |up| !up),
        speed: match link.speed {
            None => before.speed,
            Some(0) => None,
            Some(speed) => Some(speed),
        },
    };
    let _span = card.span().entered();
    card.operator.force_link(forced);
    link_state(card.operator.link())
}

fn mac_set(card: &mut Served, mac: &Mac) -> Done<Value> {
    let mac::Mac(new) = mac.mac.parse().map_err(|e| bad(format!("mac: {e}")))?;
    let shared = Arc::clone(&card.card);
    patiently(card, move || {
        let mut card = shared.lock().unwrap_or_else(PoisonError::into_inner);
        card.set_mac(new).map_err(error::Error::Unmade)
    })?;
    Ok(json!({}))
}

fn backend_set(card: &mut Served, backend: &Backend) -> Done<BackendChanged> {
    let net: Net = backend.net.parse().map_err(|e| bad(format!("net: {e}")))?;
    let before = card.net().to_string();
    let mut args = card.args.clone();
    args.net = net.clone();
    let (shared, place, span) = (Arc::clone(&card.card), Arc::clone(&card.net), card.span());
    let beside = card.beside.clone();
    let changed = patiently(card, move || {
        let _span = span.entered();
        let unusable = |source| unusable(&args, source);
        // Not with the card in hand: this may wait for the system.
        let mut counts = Counts::default();
        let endpoint = args.net.open(&args, &mut counts).map_err(unusable)?;
        let endpoint = shaped(&args, endpoint, &mut counts, false);
        let opened = Opened::new(endpoint, args.queues).map_err(unusable)?;
        let changed = shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .set_backend(Box::new(opened))
            .map_err(|e| match e {
                vnet_card::Error::Backend(source) => unusable(source),
                e => error::Error::Refused {
                    net: args.net.to_string(),
                    source: e,
                },
            })?;
        info!("backend {} in place of {before}", args.net);
        let mut net = place.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *net, args.net.clone()).to_string();
        drop(net);
        beside.set(counts);
        Ok((before, changed.settle(SETTLE)))
    });
    let (before, dropped) = changed?;
    Ok(BackendChanged {
        net: net.to_string(),
        before,
        dropped,
    })
}

fn faults_set(card: &mut Served, faults: &Faults) -> Done<FaultPlan> {
    let plan: Plan = faults.plan.parse().map_err(|e| bad(format!("plan: {e}")))?;
    if let Some(faults) = card.faults_in_force() {
        for line in faults.report() {
            info!("card {}: {line}", card.name);
        }
        faults.load(&plan);
    } else {
        let late: Arc<vnet_faults::Faults> = Arc::default();
        late.load(&plan);
        let (shared, place) = (Arc::clone(&card.card), Arc::clone(&card.late_faults));
        let capture = card.capture.clone();
        patiently(card, move || {
            let mut card = shared.lock().unwrap_or_else(PoisonError::into_inner);
            card.add_faults(&late);
            capture::overhear(capture.get().as_ref(), None, Some(&late));
            // Here, as it is so now, whoever still waits for it. There is one change at a time.
            let _ = place.set(late);
            Ok(())
        })?;
    }
    Ok(fault_plan(card))
}

fn fault_plan(card: &mut Served) -> FaultPlan {
    let faults = card.faults_in_force();
    FaultPlan {
        report: faults.map(|faults| faults.report()).unwrap_or_default(),
    }
}

/// Does something with queues of a card: it waits for the round that runs, in which a backend may hang.
fn queues<T: Send + 'static>(
    card: &Served,
    of: OfQueue,
    what: fn(&Subject, &OfQueue) -> Done<T>,
) -> Done<T> {
    let subject = Subject::from(card);
    patiently(card, move || Ok(what(&subject, &of)))?
}

fn findings(card: &mut Served) -> Findings {
    let found = card.sanitizer.as_ref().map(|s| s.findings());
    let found = found.unwrap_or_default();
    let rules = found.by_rule().map(|(rule, count)| RuleBroken {
        rule: rule.id().into(),
        total: count.total,
        first: count.first.iter().map(ToString::to_string).collect(),
    });
    Findings {
        total: found.total(),
        rules: rules.collect(),
    }
}
