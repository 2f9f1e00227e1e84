// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! From the command line to the answer.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use serde_json::{Map, Value};
use vnet_control::{
    Add, Backend, BackendChanged, Card, Client, ClientError, Command as Call, Counters, CountersOf,
    FaultPlan, Faults, Findings, Link, LinkState as State, Mac, OfCard, OfNothing, OfQueue, Paused,
    Stepped, Switch,
};
use vnet_timeline::Trace;

use crate::args::{Args, Command, LinkState};
use crate::{capture, show, top, watch};

/// Why there is nothing to show. One line for the user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("output: {0}")]
    Output(#[from] io::Error),
    #[error("{}: {source}", path.display())]
    Timeline {
        path: PathBuf,
        source: vnet_timeline::Error,
    },
    #[error("capture: {0}")]
    Capture(String),
    #[error("{0} is given twice")]
    Twice(String),
}

/// Does what the arguments ask for.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let card = |card: &String| OfCard { card: card.clone() };
    match &args.command {
        Command::Completion { shell } => completion(*shell)?,
        Command::Man { directory } => man(directory)?,
        Command::Counters {
            card,
            watch: Some(seconds),
            count,
        } => {
            let call = counters_of(card, false);
            watch::watch(&mut connect(args)?, &call, *seconds, *count, args.json)?;
        }
        Command::Capture(what) => capture::capture(&mut connect(args)?, what, args.json)?,
        Command::Timeline { capture, trace } => timeline(capture, trace)?,
        Command::List => {
            let call = Call::CardList(OfNothing {});
            print(args, &call, |cards: Vec<Card>| show::cards(&cards))?;
        }
        Command::Show { card: name } => {
            let call = Call::CardShow(card(name));
            print(args, &call, |card: Card| show::card(&card))?;
        }
        Command::Counters { card, .. } => {
            let call = counters_of(card, false);
            print(args, &call, |all: Vec<Counters>| show::counters(&all))?;
        }
        Command::Top {
            card,
            every,
            count,
            once,
        } => {
            let call = counters_of(card, true);
            let count = if *once { Some(1) } else { *count };
            top::top(&mut connect(args)?, &call, *every, count, args.json)?;
        }
        Command::Switches => {
            let call = Call::SwitchList(OfNothing {});
            print(args, &call, |all: Vec<Switch>| show::switches(&all))?;
        }
        Command::Link { card, state, speed } => {
            let call = Call::LinkSet(Link {
                card: card.clone(),
                up: state.map(|state| state == LinkState::Up),
                speed: *speed,
            });
            print(args, &call, |link: State| {
                format!("link {}\n", show::link(&link))
            })?;
        }
        Command::Mac { card, address } => {
            let call = Call::MacSet(Mac {
                card: card.clone(),
                mac: address.clone(),
            });
            print(args, &call, |_: Value| String::new())?;
        }
        Command::Backend { card, backend } => {
            let call = Call::BackendSet(Backend {
                card: card.clone(),
                net: backend.clone(),
            });
            print(args, &call, |changed: BackendChanged| {
                show::changed(&changed)
            })?;
        }
        Command::Add { card, settings } => {
            let mut map: Map<String, Value> = Map::new();
            map.insert("name".into(), card.clone().into());
            for (key, value) in settings {
                if map.insert(key.clone(), value.clone().into()).is_some() {
                    return Err(Error::Twice(key.clone()));
                }
            }
            let call = Call::CardAdd(Add { settings: map });
            print(args, &call, |card: Card| show::card(&card))?;
        }
        Command::Remove { card: name } => {
            print(args, &Call::CardRemove(card(name)), |_: Value| {
                String::new()
            })?;
        }
        Command::Faults {
            card: name,
            plan,
            file,
            off,
        } => {
            let plan = match file {
                Some(path) => fs::read_to_string(path).map_err(|source| Error::File {
                    path: path.clone(),
                    source,
                })?,
                None => plan.join("\n"),
            };
            let call = match plan.is_empty() && file.is_none() && !off {
                true => Call::FaultsShow(card(name)),
                false => Call::FaultsSet(Faults {
                    card: name.clone(),
                    plan,
                }),
            };
            print(args, &call, |plan: FaultPlan| show::faults(&plan))?;
        }
        Command::Pause(of) => {
            print(
                args,
                &Call::CardPause(queue(&of.place)),
                |paused: Paused| show::paused(&paused),
            )?;
        }
        Command::Step { of, count } => {
            for _ in 0..*count {
                print(args, &Call::CardStep(queue(&of.place)), |step: Stepped| {
                    show::step(&step)
                })?;
            }
        }
        Command::Resume(of) => {
            print(
                args,
                &Call::CardResume(queue(&of.place)),
                |paused: Paused| show::paused(&paused),
            )?;
        }
        Command::Rules { card: name } => {
            let call = Call::RulesShow(card(name));
            print(args, &call, |found: Findings| show::findings(&found))?;
        }
    }
    Ok(())
}

/// The queue at a place: that of a card, and behind a colon its own name. No card has a colon in its name.
fn queue(place: &str) -> OfQueue {
    match place.split_once(':') {
        Some((card, queue)) => OfQueue {
            card: card.into(),
            queue: Some(queue.into()),
        },
        None => OfQueue {
            card: place.into(),
            queue: None,
        },
    }
}

fn counters_of(card: &Option<String>, measure: bool) -> Call {
    Call::CardCounters(CountersOf {
        card: card.clone(),
        measure,
    })
}

fn connect(args: &Args) -> Result<Client, Error> {
    Ok(Client::connect(&args.socket)?)
}

/// Has something done, and prints the answer for people or as it came.
fn print<T: serde::de::DeserializeOwned>(
    args: &Args,
    call: &Call,
    text: impl FnOnce(T) -> String,
) -> Result<(), Error> {
    let answer = connect(args)?.call(call)?;
    let text = match args.json {
        true => format!("{answer}\n"),
        false => text(serde_json::from_value(answer).map_err(ClientError::Nonsense)?),
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn timeline(capture: &Path, trace: &Path) -> Result<(), Error> {
    let failed = |path: &Path, source| Error::File {
        path: path.to_owned(),
        source,
    };
    let broken = |source| {
        let path = match source {
            vnet_timeline::Error::Output(_) => trace,
            _ => capture,
        };
        let path = path.to_owned();
        Error::Timeline { path, source }
    };
    let from = File::open(capture).map_err(|e| failed(capture, e))?;
    let identity = |data: &Metadata| (data.dev(), data.ino());
    let same = match (from.metadata(), fs::metadata(trace)) {
        (Ok(from), Ok(to)) => identity(&from) == identity(&to),
        _ => false,
    };
    if same {
        return Err(Error::Twice(capture.display().to_string()));
    }
    let all = Trace::read(from).map_err(broken)?;
    // Not before there is something to write: that empties the file.
    let to = File::create(trace).map_err(|e| failed(trace, e))?;
    let vnet_timeline::Summary { frames, batches } = all.write(to).map_err(broken)?;
    let text = format!("{frames} frames in {batches} batches\n");
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn completion(shell: clap_complete::Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "vnetctl", &mut script);
    Ok(io::stdout().write_all(&script)?)
}

fn man(directory: &Path) -> Result<(), Error> {
    clap_mangen::generate_to(Args::command(), directory).map_err(|source| Error::File {
        path: directory.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_emptied_only_for_what_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let [good, old] = ["good", "old"].map(|name| dir.path().join(name));
        fs::write(&good, "no capture").unwrap();
        fs::write(&old, "an old trace").unwrap();
        let damaged = timeline(&good, &old).unwrap_err();
        assert!(matches!(damaged, Error::Timeline { .. }), "{damaged}");
        let link = dir.path().join("link");
        fs::hard_link(&good, &link).unwrap();
        let same = timeline(&good, &link).unwrap_err();
        assert!(matches!(same, Error::Twice(_)), "{same}");
        assert_eq!(fs::read(&good).unwrap(), b"no capture");
        assert_eq!(fs::read(&old).unwrap(), b"an old trace");
    }
}
