// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The text form of a plan: a fault a line, as a name and settings `key=value`.

use std::str::FromStr;
use std::time::Duration;

use vnet_contract::pci::MAX_QUEUE_PAIRS;
use vnet_contract::queue::{kind as direction_of, rx_index, tx_index, Kind as Direction};

use crate::kind::Place;
use crate::plan::{Fault, Plan, Register, Scope, Trigger};
use crate::Kind;

/// Most faults of a plan: each is asked at every event of its kind.
const MOST: usize = 64;

/// Why a text is no plan. The message is one line for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, {field}: {why}")]
pub struct ParseError {
    /// The line, from 1 on.
    pub line: usize,
    /// The setting or name.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl FromStr for Plan {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut plan = Self::default();
        for (line, words) in (1..).zip(text.lines()) {
            let words = words.split('#').next().unwrap_or_default();
            let mut words = words.split_whitespace();
            let Some(name) = words.next() else {
                continue;
            };
            let at = |field: &str, why: &str| ParseError {
                line,
                field: field.into(),
                why: why.into(),
            };
            if let Some(seed) = name.strip_prefix("seed=") {
                plan.seed = seed.parse().map_err(|_| at("seed", "not a number"))?;
                if let Some(more) = words.next() {
                    return Err(at(more, "nothing may follow the seed"));
                }
                continue;
            }
            if plan.faults.len() == MOST {
                return Err(at(name, "a plan has at most 64 faults"));
            }
            plan.faults.push(fault(line, name, words, at)?);
        }
        Ok(plan)
    }
}

fn fault<'t>(
    line: usize,
    name: &str,
    settings: impl Iterator<Item = &'t str>,
    at: impl Fn(&str, &str) -> ParseError,
) -> Result<Fault, ParseError> {
    let kind = Kind::by_name(name).ok_or_else(|| at(name, "no such fault"))?;
    let mut fault = Fault {
        line,
        kind,
        scope: match kind.place() {
            Place::Queue | Place::Card => Scope::All,
            Place::Rx => Scope::Rx,
        },
        register: None,
        trigger: Trigger::Always,
        count: None,
        from: Duration::ZERO,
        lasts: None,
        delay: kind.delay().map_or(Duration::ZERO, |d| d.default),
    };
    let mut seen: Vec<&str> = Vec::new();
    for setting in settings {
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| at(setting, "settings have the form key=value"))?;
        if seen.contains(&key) {
            return Err(at(key, "given twice"));
        }
        seen.push(key);
        match key {
            "queue" => scope(kind, value).map(|scope| fault.scope = scope),
            "register" => register(kind, value).map(|register| fault.register = Some(register)),
            "every" | "at" | "rate" if fault.trigger != Trigger::Always => {
                Err("there can be one of every, at and rate")
            }
            "every" => positive(value).map(|n| fault.trigger = Trigger::Every(n)),
            "at" => positive(value).map(|n| fault.trigger = Trigger::At(n)),
            "rate" => rate(value).map(|rate| fault.trigger = rate),
            "count" => positive(value).map(|n| fault.count = Some(n)),
            "from" => time(value).map(|t| fault.from = t),
            "for" => time(value).map(|t| fault.lasts = Some(t)),
            "delay" => match kind.delay() {
                None => Err("this fault has none"),
                Some(delay) => match time(value) {
                    Ok(t) if t > delay.most => Err("too long"),
                    t => t.map(|t| fault.delay = t),
                },
            },
            _ => Err("no such setting"),
        }
        .map_err(|why| at(key, why))?;
    }
    Ok(fault)
}

fn scope(kind: Kind, value: &str) -> Result<Scope, &'static str> {
    let scope = match value {
        "rx" => Scope::Rx,
        "tx" => Scope::Tx,
        _ => {
            let (index, pair): (fn(u16) -> u16, _) = match value.split_at_checked(2) {
                Some(("rx", pair)) => (rx_index, pair),
                Some(("tx", pair)) => (tx_index, pair),
                _ => return Err("rx, tx, or one of them with the number of a pair is needed"),
            };
            match pair.parse() {
                Ok(pair) if pair < MAX_QUEUE_PAIRS => Scope::One(index(pair)),
                _ => return Err("no such pair"),
            }
        }
    };
    let transmits = match scope {
        Scope::Tx => true,
        Scope::One(queue) => direction_of(queue) == Direction::Tx,
        Scope::Rx | Scope::All => false,
    };
    match kind.place() {
        Place::Card => Err("this fault is one of the whole card"),
        Place::Rx if transmits => Err("this fault is one of receive queues"),
        _ => Ok(scope),
    }
}

fn register(kind: Kind, value: &str) -> Result<Register, &'static str> {
    match kind {
        Kind::RegisterOnes | Kind::RegisterFlip => {
            Register::named(value).ok_or("the data sheet has no such register")
        }
        _ => Err("this fault is none of reads of registers"),
    }
}

fn positive(value: &str) -> Result<u64, &'static str> {
    match value.parse() {
        Ok(0) | Err(_) => Err("a number above 0 is needed"),
        Ok(n) => Ok(n),
    }
}

fn rate(value: &str) -> Result<Trigger, &'static str> {
    const FORM: &str = "a share like 1/100 is needed";
    let (part, of) = value.split_once('/').ok_or(FORM)?;
    let (part, of) = (positive(part)?, positive(of)?);
    match part <= of {
        true => Ok(Trigger::Rate { part, of }),
        false => Err(FORM),
    }
}

fn time(value: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "a time like 10us, 5ms or 2s is needed";
    let digits = value.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let number: u32 = digits.parse().map_err(|_| FORM)?;
    let unit = match &value[digits.len()..] {
        "us" => Duration::from_micros(1),
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        _ => return Err(FORM),
    };
    Ok(unit.saturating_mul(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_with_everything() {
        let text = "\
# what a bad day looks like
seed=42

lost-interrupt queue=rx0 rate=1/10 count=5 from=1s for=500ms  # for a moment
used-len-zero
stall queue=tx every=1000 delay=3s
link-down at=3
register-flip register=Q_STATUS
";
        let plan: Plan = text.parse().unwrap();
        assert_eq!(plan.seed, 42);
        let plain = Fault {
            line: 5,
            kind: Kind::UsedLenZero,
            scope: Scope::Rx,
            register: None,
            trigger: Trigger::Always,
            count: None,
            from: Duration::ZERO,
            lasts: None,
            delay: Duration::ZERO,
        };
        assert_eq!(
            plan.faults,
            [
                Fault {
                    line: 4,
                    kind: Kind::LostInterrupt,
                    scope: Scope::One(rx_index(0)),
                    trigger: Trigger::Rate { part: 1, of: 10 },
                    count: Some(5),
                    from: Duration::from_secs(1),
                    lasts: Some(Duration::from_millis(500)),
                    ..plain
                },
                plain,
                Fault {
                    line: 6,
                    kind: Kind::Stall,
                    scope: Scope::Tx,
                    trigger: Trigger::Every(1000),
                    delay: Duration::from_secs(3),
                    ..plain
                },
                Fault {
                    line: 7,
                    kind: Kind::LinkDown,
                    scope: Scope::All,
                    trigger: Trigger::At(3),
                    ..plain
                },
                Fault {
                    line: 8,
                    kind: Kind::RegisterFlip,
                    scope: Scope::All,
                    register: Register::named("Q_STATUS"),
                    ..plain
                },
            ]
        );
        assert_eq!("# nothing\n\n".parse(), Ok(Plan::default()));
    }

    #[test]
    fn every_kind_is_known_by_its_name() {
        for &kind in Kind::ALL {
            let plan: Plan = kind.name().parse().unwrap();
            assert_eq!(plan.faults[0].kind, kind);
            let with_delay: Result<Plan, _> = format!("{} delay=10us", kind.name()).parse();
            assert_eq!(with_delay.is_ok(), kind.delay().is_some(), "{kind:?}");
        }
    }

    #[test]
    fn mistakes_are_named_with_line_and_field() {
        for (text, line, field) in [
            ("seed=x", 1, "seed"),
            ("seed=1 stall", 1, "stall"),
            ("\nbroken", 2, "broken"),
            ("stall fast", 1, "fast"),
            ("stall speed=1", 1, "speed"),
            ("stall every=0", 1, "every"),
            ("stall every=2 every=3", 1, "every"),
            ("stall every=2 rate=1/2", 1, "rate"),
            ("stall rate=2/1", 1, "rate"),
            ("stall rate=1", 1, "rate"),
            ("stall at=-1", 1, "at"),
            ("stall count=many", 1, "count"),
            ("stall delay=61s", 1, "delay"),
            ("stall for=3", 1, "for"),
            ("stall from=3min", 1, "from"),
            ("slow-mmio delay=101ms", 1, "delay"),
            ("reset delay=1s", 1, "delay"),
            ("reset queue=rx", 1, "queue"),
            ("reset register=STATUS", 1, "register"),
            ("register-ones register=STATE", 1, "register"),
            ("bad-checksum queue=tx", 1, "queue"),
            ("bad-checksum queue=tx0", 1, "queue"),
            ("stall queue=rx16", 1, "queue"),
            ("stall queue=0", 1, "queue"),
            ("stall queue=\u{e4}0", 1, "queue"),
        ] {
            let error = text.parse::<Plan>().unwrap_err();
            assert_eq!(
                (error.line, &error.field[..]),
                (line, field),
                "{text}: {error}"
            );
        }
        let long = "stall\n".repeat(MOST + 1);
        assert_eq!(long.parse::<Plan>().unwrap_err().line, MOST + 1);
    }
}
