// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The configuration file; docs/vnetd.md describes it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use toml::de::{DeTable, DeValue};
use toml::Spanned;
use tracing_subscriber::filter::LevelFilter;

use crate::args::Args;
use crate::sandbox::{Mode, Sandbox};
use crate::server::Ports;
use crate::settings::{self, Problem, Setting};

/// Largest file that is read.
const MAX_SIZE: u64 = 1024 * 1024;
/// Most cards.
pub(crate) const MAX_CARDS: usize = 256;
/// Keys beside the cards.
const KEYS: [&str; 9] = [
    "allow",
    "card",
    "control",
    "log",
    "metrics",
    "sandbox",
    "web",
    "web-public",
    "web-token",
];

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(crate) cards: Vec<Args>,
    pub(crate) ports: Ports,
    pub(crate) sandbox: Sandbox,
    pub(crate) log: Option<LevelFilter>,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Content(Problems),
}

/// What is wrong with a file: one line each, in their order.
#[derive(Debug)]
pub(crate) struct Problems {
    path: PathBuf,
    problems: Vec<Problem>,
}

impl Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let before = if n == 0 { "" } else { "\nvnetd: " };
            write!(f, "{before}{}:", self.path.display())?;
            match problem.line {
                0 => write!(f, " {}", problem.what)?,
                line => write!(f, "{line}: {}", problem.what)?,
            }
        }
        Ok(())
    }
}

/// Reads a file and checks all that can be checked without touching anything.
pub(crate) fn load(path: &Path) -> Result<Config, Error> {
    let failed = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(failed)?.len() > MAX_SIZE {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    parse(&text).map_err(|problems| {
        Error::Content(Problems {
            path: path.to_owned(),
            problems,
        })
    })
}

/// What a text says, or all that is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    let lines = Lines(text);
    let table = DeTable::parse(text).map_err(|e| {
        let line = e.span().map_or(0, |span| lines.of(&span));
        vec![Problem::new(line, e.message())]
    })?;
    let mut config = Config::default();
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for (key, value) in table.get_ref() {
        let line = lines.of(&key.span());
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("card", DeValue::Array(cards)) => found.extend(cards),
            ("card", _) => problems.push(Problem::new(line, "each card begins with [[card]]")),
            ("control", DeValue::String(path)) if !path.is_empty() => {
                config.ports.control = Some(PathBuf::from(path.as_ref()));
            }
            ("sandbox", DeValue::String(mode)) => match Mode::from_str(mode, false) {
                Ok(mode) => config.sandbox.mode = Some(mode),
                Err(_) => problems.push(Problem::new(line, "sandbox: one of on and off is needed")),
            },
            ("allow", DeValue::Array(directories)) => {
                for directory in directories {
                    match directory.get_ref() {
                        DeValue::String(path) => {
                            config.sandbox.allow.push(PathBuf::from(path.as_ref()));
                        }
                        _ => problems.push(Problem::new(line, "allow: strings are needed")),
                    }
                }
            }
            ("metrics", DeValue::String(place)) => match place.parse() {
                Ok(place) => config.ports.metrics = Some(place),
                Err(e) => problems.push(Problem::new(line, format!("metrics: {e}"))),
            },
            ("web", DeValue::String(address)) => match address.parse() {
                Ok(address) => config.ports.web.web = Some(address),
                Err(_) => {
                    let what = "web: ADDRESS:PORT is needed, such as 127.0.0.1:8000";
                    problems.push(Problem::new(line, what));
                }
            },
            ("web-token", DeValue::String(path)) if !path.is_empty() => {
                config.ports.web.web_token = Some(PathBuf::from(path.as_ref()));
            }
            ("web-public", DeValue::Boolean(public)) => config.ports.web.web_public = *public,
            ("web-public", _) => {
                problems.push(Problem::new(line, "web-public: true or false is needed"));
            }
            ("log", DeValue::String(level)) => match level.parse() {
                Ok(level) => config.log = Some(level),
                Err(_) => {
                    let what = "log: off, error, warn, info, debug or trace is needed";
                    problems.push(Problem::new(line, what));
                }
            },
            (key, _) if KEYS.contains(&key) => {
                problems.push(Problem::new(line, format!("{key}: a string is needed")));
            }
            (key, _) => {
                let what = settings::unknown(key, KEYS.into_iter());
                problems.push(Problem::new(line, what));
            }
        }
    }
    let mut starts = Vec::new();
    for card in found {
        let start = lines.of(&card.span());
        match one(card, &lines) {
            Ok(args) => {
                config.cards.push(args);
                starts.push(start);
            }
            Err(wrong) => problems.extend(wrong),
        }
    }
    if starts.is_empty() && problems.is_empty() && config.ports.control.is_none() {
        let what = "there is no [[card]], and no control socket to add one";
        problems.push(Problem::new(0, what));
    }
    if starts.len() > MAX_CARDS {
        let what = format!("more than {MAX_CARDS} cards");
        problems.push(Problem::new(starts[MAX_CARDS], what));
    }
    problems.extend(duplicates(&config.cards, &starts));
    problems.sort_by_key(|problem| problem.line);
    match problems.is_empty() {
        true => Ok(config),
        false => Err(problems),
    }
}

/// A card of the file.
fn one(card: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Result<Args, Vec<Problem>> {
    let start = lines.of(&card.span());
    let DeValue::Table(table) = card.get_ref() else {
        return Err(vec![Problem::new(start, "each card begins with [[card]]")]);
    };
    let mut list = Vec::new();
    let mut problems = Vec::new();
    for (key, value) in table {
        let (key, line) = (key.get_ref().to_string(), lines.of(&key.span()));
        match plain(&key, value.get_ref()) {
            Ok(value) => list.push(Setting { key, value, line }),
            Err(what) => problems.push(Problem::new(line, format!("{key}: {what}"))),
        }
    }
    let card = settings::card(&list, start);
    match (card, problems.is_empty()) {
        (Ok(card), true) => Ok(card),
        (Ok(_), false) => Err(problems),
        (Err(more), _) => Err([problems, more].concat()),
    }
}

/// A value as it is given to an argument.
fn plain(key: &str, value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Ok(n.to_string()),
            Err(_) => Err("the number is too large"),
        },
        DeValue::Boolean(on) => Ok(on.to_string()),
        DeValue::Table(table) if key == "net" => backend(table),
        _ => Err("a string or a number is needed"),
    }
}

/// A backend that is described by a table: `type` comes first, the rest are its options.
fn backend(table: &DeTable<'_>) -> Result<String, &'static str> {
    let mut kind = None;
    // In the order in which they were written.
    let mut options = BTreeMap::new();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let place = |n| (key.span().start, n);
        // What can be there more than once is a list.
        let values = match value.get_ref() {
            DeValue::Array(list) if name != "type" => list.iter().map(|v| v.get_ref()).collect(),
            value => vec![value],
        };
        for (n, value) in values.into_iter().enumerate() {
            let value = match value {
                DeValue::Table(_) => Err("the options of a backend are strings or numbers"),
                value => plain(name, value),
            }?;
            if name.contains([',', '=']) || value.contains(',') {
                return Err("no option of a backend can have a comma in it");
            }
            match (name, value.as_str()) {
                ("type", _) => kind = Some(value),
                (_, "false") => {}
                (_, "true") => {
                    options.insert(place(n), name.to_owned());
                }
                _ => {
                    options.insert(place(n), format!("{name}={value}"));
                }
            }
        }
    }
    let kind = kind.ok_or("a backend has a type")?;
    let options: Vec<_> = options.into_values().collect();
    match options.is_empty() {
        true => Ok(kind),
        false => Ok(format!("{kind}:{}", options.join(","))),
    }
}

/// Cards that cannot be told apart, or want the same socket or files. `lines`: where each begins.
fn duplicates(cards: &[Args], lines: &[usize]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (n, (card, &line)) in cards.iter().zip(lines).enumerate() {
        for (other, at) in cards.iter().zip(lines).take(n) {
            if other.name() == card.name() {
                let what = format!("the card on line {at} is called {} too", card.name());
                problems.push(Problem::new(line, what));
            }
            let path = |card: &Args| std::path::absolute(&card.socket).ok();
            if path(other) == path(card) {
                let socket = card.socket.display();
                let what = format!("the card on line {at} has the socket {socket} too");
                problems.push(Problem::new(line, what));
            }
            if card.files().is_some() && other.files() == card.files() {
                let what = format!("the card on line {at} has the same record");
                problems.push(Problem::new(line, what));
            }
        }
    }
    problems
}

/// Finds lines.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn of(&self, span: &Range<usize>) -> usize {
        let before = self.0.as_bytes().iter().take(span.start);
        1 + before.filter(|&&byte| byte == b'\n').count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Net;
    use proptest::prelude::*;

    const GOOD: &str = r#"
log = "info"
control = "/run/control.sock"
[[card]]
name = "vm1"
socket = "/run/vm1.sock"
net = { type = "null", copy = true, rx = 64 }
mac = "52:54:00:12:34:56"
queues = 0x2
"#;

    fn problems(text: &str) -> Vec<String> {
        let problems = parse(text).unwrap_err();
        let line = |p: &Problem| format!("{}: {}", p.line, p.what);
        problems.iter().map(line).collect()
    }

    #[test]
    fn cards_and_what_they_have() {
        let config = parse(
            r#"
            log = "info"
            control = "/run/control.sock"
            metrics = "127.0.0.1:9468"
            web = "127.0.0.1:8000"
            web-token = "/run/token"

            [[card]]
            name = "vm1"
            socket = "/run/vm1.sock"
            net = "tap:name=tap0"
            mac = "52:54:00:12:34:56"
            queues = 0x2
            mtu-max = 1_500

            [[card]]
            socket = "/run/vm2.sock"
            net = { type = "null", copy = true, rx = 64 }

            [[card]]
            socket = "/run/vm3.sock"
            net = { type = "gateway", name = ["a=10.0.0.1", "b=10.0.0.2"], captive = true, forward = "80=unix:/run/s" }
            "#,
        )
        .unwrap();
        assert_eq!(config.log, Some(LevelFilter::INFO));
        assert_eq!(config.ports.control, Some("/run/control.sock".into()));
        let metrics = config.ports.metrics.as_ref().map(ToString::to_string);
        assert_eq!(metrics.as_deref(), Some("127.0.0.1:9468"));
        let web = &config.ports.web;
        let at = web.web.map(|at| at.to_string());
        assert_eq!(at.as_deref(), Some("127.0.0.1:8000"));
        let token = web.web_token.as_deref();
        assert_eq!(
            (token, web.web_public),
            (Some(Path::new("/run/token")), false)
        );
        assert!(parse("control = 'c'").unwrap().cards.is_empty());
        let [a, b, c] = &config.cards[..] else {
            panic!("{config:?}");
        };
        assert_eq!((a.name().as_str(), b.name().as_str()), ("vm1", "vm2"));
        assert_eq!((a.queues, a.mtu_max), (2, 1500));
        let tap0: Net = "tap:name=tap0".parse().unwrap();
        assert_eq!(a.net, tap0);
        assert_eq!(b.net.to_string(), "null:copy,rx=64");
        let gateway = "gateway:name=a=10.0.0.1,name=b=10.0.0.2,captive,forward=80=unix:/run/s";
        assert_eq!(c.net.to_string(), gateway);
        assert!(a.mac.is_some() && b.mac.is_none());
    }

    #[test]
    fn problems_come_with_their_lines() {
        for (text, due) in [
            (
                "",
                &["0: there is no [[card]], and no control socket to add one"][..],
            ),
            ("card = 1", &["1: each card begins with [[card]]"]),
            ("card = [1]", &["1: each card begins with [[card]]"]),
            ("[card]\nsocket='a'", &["1: each card begins with [[card]]"]),
            ("[[cards]]", &["1: unknown key cards; did you mean card?"]),
            (
                "log = 'loud'",
                &["1: log: off, error, warn, info, debug or trace is needed"],
            ),
            ("control = ''", &["1: control: a string is needed"]),
            (
                "metrics = '9468'",
                &["1: metrics: ADDRESS:PORT or unix:PATH is needed"],
            ),
            ("log = 1", &["1: log: a string is needed"]),
            (
                "web = '8000'",
                &["1: web: ADDRESS:PORT is needed, such as 127.0.0.1:8000"],
            ),
            (
                "web-public = 'yes'\nweb-token = ''",
                &[
                    "1: web-public: true or false is needed",
                    "2: web-token: a string is needed",
                ],
            ),
            (
                "web-tokens = 'a'",
                &["1: unknown key web-tokens; did you mean web-token?"],
            ),
            ("[[card]]\nnet = 'null'", &["1: the card has no socket"]),
            (
                "\n[[card]]\nsocket = 'a'\nmtu_max = 9000\nqueues = 17",
                &[
                    "4: unknown key mtu_max; did you mean mtu-max?",
                    "5: queues = \"17\": 17 is not in 1..=16",
                ],
            ),
            (
                "[[card]]\nsocket = 'a'\nqueues = 99999999999999999999",
                &["3: queues: the number is too large"],
            ),
            (
                "[[card]]\nsocket = 'a'\nqueues = [1]\nnet.x = 1",
                &[
                    "3: queues: a string or a number is needed",
                    "4: net: a backend has a type",
                ],
            ),
            (
                "[[card]]\nsocket = 'a'\nnet = {type='tap', name='a,b'}",
                &["3: net: no option of a backend can have a comma in it"],
            ),
            (
                "[[card]]\nsocket = 'a'\nnet = {type='gateway', name=['a=10.0.0.1', ['b']]}",
                &["3: net: a string or a number is needed"],
            ),
            (
                "[[card]]\nsocket = 'a'\n[[card]]\nname = 'a'\nsocket = './a'",
                &[
                    "3: the card on line 1 is called a too",
                    "3: the card on line 1 has the socket ./a too",
                ],
            ),
            (
                "[[card]]\nsocket = 'a'\nrecord = 'file=/x'\n\
                 [[card]]\nsocket = 'b'\nrecord = 'file=/x,files=2'",
                &["4: the card on line 1 has the same record"],
            ),
        ] {
            assert_eq!(problems(text), due, "{text}");
        }
        // Mistakes of form, in the words of the parser.
        for (text, line) in [("a", "1: "), ("\n[[card]\n", "2: "), ("a=1\na=2", "2: ")] {
            assert!(problems(text).concat().starts_with(line), "{text}");
        }
    }

    #[test]
    fn cards_have_a_limit() {
        let card = |n| format!("[[card]]\nsocket = '{n}'\n");
        let many: String = (0..MAX_CARDS).map(card).collect();
        assert_eq!(parse(&many).unwrap().cards.len(), MAX_CARDS);
        let more = many + &card(MAX_CARDS);
        assert_eq!(problems(&more), ["513: more than 256 cards"]);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text: String, at: prop::sample::Index, piece in "\\PC{0,3}") {
            let _ = parse(&text);
            // One that is nearly good.
            let mut good: Vec<_> = GOOD.chars().collect();
            let at = at.index(good.len());
            good.splice(at..=at, piece.chars());
            let good = String::from_iter(good);
            if let Err(problems) = parse(&good) {
                let lines = 0..=good.lines().count();
                prop_assert!(problems.iter().all(|p| lines.contains(&p.line)), "{problems:?}");
            }
        }
    }

    #[test]
    fn a_file_is_named_on_each_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vnetd.toml");
        let missing = load(&path).unwrap_err().to_string();
        let name = path.display();
        assert!(missing.starts_with(&format!("{name}: ")), "{missing}");
        fs::write(&path, "x = 1\ny = 1").unwrap();
        let told = load(&path).unwrap_err().to_string();
        let lines: Vec<_> = told.lines().collect();
        assert!(lines[0].starts_with(&format!("{name}:1: unknown key x")));
        assert!(lines[1].starts_with(&format!("vnetd: {name}:2: unknown key y")));
    }
}
