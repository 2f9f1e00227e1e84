// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The settings of a card by name, however they come: from a file or over the control socket. What
//! settings there are and what their values may be, the definition of the arguments says.

use clap::builder::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

use crate::args::{Args, Cli};

/// How alike two names must be to be taken for each other; 1 is the same.
const ALIKE: f64 = 0.7;

/// A setting as the user wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) value: String,
    /// Line of the file, from 1 on; 0 if there is none.
    pub(crate) line: usize,
}

/// Something wrong with what the user wrote, and on which line, from 1 on; 0 if it is about none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Problem {
    pub(crate) fn new(line: usize, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { line, what }
    }
}

/// The card with these settings. `line` is where its description begins.
pub(crate) fn card(settings: &[Setting], line: usize) -> Result<Args, Vec<Problem>> {
    let definition = Cli::command();
    let known = keys(&definition);
    let mut problems = Vec::new();
    for setting in settings {
        if !known.contains(&setting.key.as_str()) {
            let what = unknown(&setting.key, known.iter().copied());
            problems.push(Problem::new(setting.line, what));
        } else if let Err(e) = parse([argument(setting)]) {
            let what = format!("{} = {:?}: {}", setting.key, setting.value, why(&e));
            problems.push(Problem::new(setting.line, what));
        }
    }
    if !settings.iter().any(|setting| setting.key == "socket") {
        problems.push(Problem::new(line, "the card has no socket"));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let card = parse(settings.iter().map(argument)).map(|cli| cli.card);
    match card {
        Ok(Some(card)) => Ok(card),
        Ok(None) => Err(vec![Problem::new(line, "the card has no settings")]),
        Err(e) => Err(vec![Problem::new(line, why(&e))]),
    }
}

/// Says that there is no such key, and which one may have been meant.
pub(crate) fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let written = key.replace('_', "-");
    let likeness = |name: &str| strsim::jaro_winkler(&written, name);
    let best = known
        .clone()
        .map(|name| (likeness(name), name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let key = key.escape_debug();
    match best {
        Some((_, name)) => format!("unknown key {key}; did you mean {name}?"),
        None => {
            let known: Vec<_> = known.collect();
            format!("unknown key {key}; there are {}", known.join(", "))
        }
    }
}

/// The names of all settings of a card.
fn keys(definition: &Command) -> Vec<&str> {
    let card = definition
        .get_groups()
        .find(|group| group.get_id() == "Args");
    let ids: Vec<_> = card.iter().flat_map(|group| group.get_args()).collect();
    let arguments = definition.get_arguments();
    arguments
        .filter(|argument| ids.contains(&argument.get_id()))
        .filter_map(|argument| argument.get_long())
        .collect()
}

fn argument(setting: &Setting) -> String {
    format!("--{}={}", setting.key, setting.value)
}

fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Cli, clap::Error> {
    let mut all = vec!["vnetd".to_owned()];
    all.extend(arguments);
    if !all.iter().any(|argument| argument.starts_with("--socket=")) {
        all.push("--socket=x".into());
    }
    Cli::try_parse_from(all)
}

/// What is wrong with a value, in words that do not speak of arguments.
fn why(error: &clap::Error) -> String {
    let values = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => values.join(", "),
        _ => String::new(),
    };
    let source = std::error::Error::source(error).map(ToString::to_string);
    match (error.kind(), source) {
        (ErrorKind::InvalidValue, _) if values.is_empty() => "a value is needed".into(),
        (ErrorKind::InvalidValue, _) => format!("one of {values} is needed"),
        (_, Some(source)) => source,
        (kind, None) => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Net;
    use crate::sanitize::Mode;

    fn settings(pairs: &[(&str, &str)]) -> Vec<Setting> {
        (1..)
            .zip(pairs)
            .map(|(line, (key, value))| Setting {
                key: (*key).into(),
                value: (*value).into(),
                line,
            })
            .collect()
    }

    fn problems(pairs: &[(&str, &str)]) -> Vec<String> {
        let problems = card(&settings(pairs), 7).unwrap_err();
        let line = |p: &Problem| format!("{}: {}", p.line, p.what);
        problems.iter().map(line).collect()
    }

    #[test]
    fn settings_are_arguments_of_the_same_names() {
        let args = card(
            &settings(&[
                ("socket", "/run/a.sock"),
                ("net", "loopback"),
                ("queues", "2"),
                ("sanitize", "report"),
            ]),
            1,
        )
        .unwrap();
        assert_eq!((args.net, args.queues), (Net::Loopback, 2));
        assert_eq!((args.sanitize, args.mtu_max), (Mode::Report, 9000));
        assert_eq!(args.name.map(|n| n.to_string()), None);
    }

    #[test]
    fn keys_that_do_not_exist_are_refused_with_a_guess() {
        let socket = ("socket", "s");
        for (key, meant) in [
            ("mtu_max", "mtu-max"),
            ("queue", "queues"),
            ("sanitise", "sanitize"),
            ("sockett", "socket"),
        ] {
            let told = problems(&[socket, (key, "1")]);
            let due = format!("2: unknown key {key}; did you mean {meant}?");
            assert_eq!(told, [due]);
        }
        // Arguments that are not about a card.
        for key in ["config", "help", "worker", "survive", "xyzzy", ""] {
            let told = problems(&[socket, (key, "1")]).concat();
            assert!(told.starts_with("2: unknown key"), "{told}");
        }
    }

    #[test]
    fn values_are_refused_with_a_reason() {
        for (key, value, reason) in [
            ("queues", "17", "17 is not in 1..=16"),
            ("queues", "x", "invalid digit found in string"),
            ("mac", "1", "six hexadecimal bytes"),
            ("net", "pigeon", "gateway"),
            ("sanitize", "loud", "one of off, report, strict is needed"),
            ("socket", "", "a value is needed"),
        ] {
            let told = problems(&[("socket", "s"), (key, value)]).concat();
            let start = format!("2: {key} = {value:?}: ");
            assert!(told.starts_with(&start) && told.contains(reason), "{told}");
        }
    }

    #[test]
    fn all_problems_are_told() {
        assert_eq!(
            problems(&[("colour", "red"), ("queues", "0")]).len(),
            3,
            "and there is no socket"
        );
    }
}
