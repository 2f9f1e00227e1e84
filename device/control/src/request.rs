// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a client asks for.

use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

use crate::{Class, Error};

/// One line of a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Name of the command.
    pub execute: String,
    /// What it is to be done with. Without any: `{}`, or nothing.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
    /// Comes back with the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
}

/// Names of all commands.
pub const COMMANDS: &[&str] = &[
    "card-list",
    "card-show",
    "card-counters",
    "switch-list",
    "card-add",
    "card-remove",
    "link-set",
    "mac-set",
    "backend-set",
    "faults-set",
    "faults-show",
    "rules-show",
    "capture-start",
    "capture-show",
    "capture-stop",
    "card-pause",
    "card-step",
    "card-resume",
];

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "execute", content = "arguments")]
pub enum Command {
    /// All cards: an array of [`Card`](crate::Card).
    CardList(OfNothing),
    /// One [`Card`](crate::Card).
    CardShow(OfCard),
    /// [`Counters`](crate::Counters) of one card or all: an array.
    CardCounters(CountersOf),
    /// All switches: an array of [`Switch`](crate::Switch).
    SwitchList(OfNothing),
    /// One more card, which is answered.
    CardAdd(Add),
    /// A card goes: `{}`.
    CardRemove(OfCard),
    /// Pulls or plugs the cable: the [`LinkState`](crate::LinkState) that follows.
    LinkSet(Link),
    /// Changes the permanent MAC address: `{}`.
    MacSet(Mac),
    /// Connects a card with something else: [`BackendChanged`](crate::BackendChanged).
    BackendSet(Backend),
    /// Has a card misbehave, or behave: [`FaultPlan`](crate::FaultPlan).
    FaultsSet(Faults),
    /// How a card misbehaves: [`FaultPlan`](crate::FaultPlan).
    FaultsShow(OfCard),
    /// The rules that the driver broke: [`Findings`](crate::Findings).
    RulesShow(OfCard),
    /// Begins to write the frames of a card to the file whose descriptor comes with the request:
    /// [`CaptureState`](crate::CaptureState).
    CaptureStart(Capture),
    /// How far that is: [`CaptureState`](crate::CaptureState).
    CaptureShow(OfCapture),
    /// Ends it: [`CaptureState`](crate::CaptureState).
    CaptureStop(OfCapture),
    /// Has queues wait: the [`Paused`](crate::Paused) ones.
    CardPause(OfQueue),
    /// Has a paused queue do one step: [`Stepped`](crate::Stepped).
    CardStep(OfQueue),
    /// Lets queues run again: those that still are [`Paused`](crate::Paused).
    CardResume(OfQueue),
}

/// No arguments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfNothing {}

/// The card that a command is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfCard {
    /// Name of the card.
    pub card: String,
}

/// The capture that a command is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfCapture {
    /// Name of the card.
    pub card: String,
    /// Which one: it is refused if there has been another since; the last one if there is no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
}

/// Arguments of `card-counters`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountersOf {
    /// Name of the card; all if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<String>,
    /// Have batches timed from now on, for as long as vnetd runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub measure: bool,
}

/// The card that a command is about, and which of its queues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfQueue {
    /// Name of the card.
    pub card: String,
    /// The queue: `rx` or `tx`, and the number of its pair. Without one: all, and for a step the one
    /// that has most to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
}

/// Settings of a card by name, as a `[[card]]` of the configuration has them.
pub type Settings = Map<String, Value>;

/// Arguments of `card-add`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {
    /// Strings, numbers or truth values.
    pub settings: Settings,
}

/// Arguments of `link-set`. What is not named stays as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Name of the card.
    pub card: String,
    /// False: the cable is pulled. True: the link is what the backend's is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// Mbit/s; 0: what the backend says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<u32>,
}

/// Arguments of `mac-set`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mac {
    /// Name of the card.
    pub card: String,
    /// Six hexadecimal bytes with colons.
    pub mac: String,
}

/// Arguments of `backend-set`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Name of the card.
    pub card: String,
    /// As for `--net`.
    pub net: String,
}

/// Arguments of `faults-set`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Name of the card.
    pub card: String,
    /// Lines as docs/faults.md has them; none: the card behaves.
    pub plan: String,
}

/// Arguments of `capture-start`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Name of the card.
    pub card: String,
    /// Its queues: `rx`, `tx`, the number of a pair, or both as in `tx0`; all if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Bytes of each frame that are kept; all if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
    /// Frames after which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Seconds after which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

impl Request {
    /// Reads a line.
    pub fn parse(line: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(line).map_err(|e| Error::new(Class::BadRequest, e.to_string()))
    }

    /// True if it is for a command that needs a file, however good its arguments are.
    pub fn takes_file(&self) -> bool {
        self.execute == "capture-start"
    }

    /// What is asked for.
    pub fn command(&self) -> Result<Command, Error> {
        let name = &self.execute;
        if !COMMANDS.contains(&name.as_str()) {
            let desc = format!(
                "there is no command {}; there are {}",
                name.escape_debug(),
                COMMANDS.join(", ")
            );
            return Err(Error::new(Class::UnknownCommand, desc));
        }
        let both = json!({ "execute": name, "arguments": self.arguments });
        serde_json::from_value(both)
            .map_err(|e| Error::new(Class::BadArgument, format!("{name}: {e}")))
    }
}

impl From<&Command> for Request {
    fn from(command: &Command) -> Self {
        // Of strings, numbers and maps with names.
        let value = serde_json::to_value(command).unwrap_or_default();
        let arguments = value.get("arguments").and_then(Value::as_object);
        Self {
            execute: value["execute"].as_str().unwrap_or_default().into(),
            arguments: arguments.cloned().unwrap_or_default(),
            id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command(line: &str) -> Result<Command, Error> {
        Request::parse(line.as_bytes())?.command()
    }

    #[test]
    fn requests_are_what_they_were() {
        let card = || "vm1".to_owned();
        let all = [
            Command::CardList(OfNothing {}),
            Command::CardShow(OfCard { card: card() }),
            Command::CardCounters(CountersOf {
                card: None,
                measure: true,
            }),
            Command::SwitchList(OfNothing {}),
            Command::CardAdd(Add {
                settings: json!({"socket": "/s", "queues": 2})
                    .as_object()
                    .unwrap()
                    .clone(),
            }),
            Command::CardRemove(OfCard { card: card() }),
            Command::LinkSet(Link {
                card: card(),
                up: Some(false),
                speed: None,
            }),
            Command::MacSet(Mac {
                card: card(),
                mac: "52:54:00:12:34:56".into(),
            }),
            Command::BackendSet(Backend {
                card: card(),
                net: "null".into(),
            }),
            Command::FaultsSet(Faults {
                card: card(),
                plan: "stall".into(),
            }),
            Command::FaultsShow(OfCard { card: card() }),
            Command::RulesShow(OfCard { card: card() }),
            Command::CaptureStart(Capture {
                card: card(),
                queue: Some("tx0".into()),
                snaplen: Some(96),
                count: None,
                seconds: Some(9),
            }),
            Command::CaptureShow(OfCapture {
                card: card(),
                number: None,
            }),
            Command::CaptureStop(OfCapture {
                card: card(),
                number: Some(7),
            }),
            Command::CardPause(OfQueue {
                card: card(),
                queue: None,
            }),
            Command::CardStep(OfQueue {
                card: card(),
                queue: Some("tx0".into()),
            }),
            Command::CardResume(OfQueue {
                card: card(),
                queue: None,
            }),
        ];
        assert_eq!(all.len(), COMMANDS.len());
        for (command, name) in all.iter().zip(COMMANDS) {
            let request = Request::from(command);
            assert_eq!(request.execute, *name);
            let line = serde_json::to_string(&request).unwrap();
            assert_eq!(
                Request::parse(line.as_bytes()).unwrap().command().as_ref(),
                Ok(command)
            );
        }
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        for (line, class, part) in [
            ("", Class::BadRequest, "EOF"),
            ("hello", Class::BadRequest, "line 1 column 1"),
            ("[]", Class::BadRequest, "expected"),
            ("{}", Class::BadRequest, "execute"),
            (r#"{"execute":"card-list","x":1}"#, Class::BadRequest, "x"),
            (
                r#"{"execute":"card-list","id":"a"}"#,
                Class::BadRequest,
                "u64",
            ),
            (r#"{"execute":"quit"}"#, Class::UnknownCommand, "quit"),
            (r#"{"execute":"card-show"}"#, Class::BadArgument, "card"),
            (
                r#"{"execute":"card-list","arguments":{"x":1}}"#,
                Class::BadArgument,
                "x",
            ),
            (
                r#"{"execute":"link-set","arguments":{"card":"a","up":1}}"#,
                Class::BadArgument,
                "boolean",
            ),
        ] {
            let error = command(line).unwrap_err();
            assert_eq!(error.class, class, "{line}: {error}");
            assert!(error.desc.contains(part), "{line}: {error}");
        }
        // As deep as the parser goes.
        let deep = "[".repeat(100_000);
        assert_eq!(command(&deep).unwrap_err().class, Class::BadRequest);
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let _ = Request::parse(&bytes).and_then(|request| request.command());
            // One that is nearly good.
            let mut line = br#"{"execute":"link-set","arguments":{"card":"a","up":true},"id":1}"#.to_vec();
            let at = at.index(line.len());
            line[at] = byte;
            let _ = Request::parse(&line).and_then(|request| request.command());
        }
    }

    #[test]
    fn arguments_may_be_left_out_where_there_need_be_none() {
        let short = command(r#"{"execute":"card-list"}"#);
        let long = command(r#"{"execute":"card-list","arguments":{}}"#);
        assert_eq!(short, long);
        assert!(short.is_ok());
    }
}
