// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! How a line is described.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use vnet_backend::Rate;

/// Longest delay.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// Parts of a share: a ten-thousandth of a per cent is the least.
pub(crate) const WHOLE: u32 = 1_000_000;

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// Bits a second.
    pub rate: Option<Rate>,
    /// From the end of a frame's transmission to its arrival.
    pub delay: Duration,
    /// By how much the delay may be shorter or longer.
    pub jitter: Duration,
    /// Frames in a million that are lost,
    pub loss: u32,
    /// that come twice,
    pub duplicate: u32,
    /// or after the next one.
    pub reorder: u32,
}

/// Both directions. Written as options with commas between: `rate=100M,delay=10ms,loss=0.1%`. An
/// option with `send.` or `receive.` before it is about one direction, as seen by the card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What the card sends.
    pub send: Lane,
    /// What the card receives.
    pub receive: Lane,
    /// Chooses which frames suffer.
    pub seed: u64,
}

/// What does not describe a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadShape {
    /// No such option.
    #[error("{0:?}: rate, delay, jitter, loss, duplicate, reorder and seed are the options of a shape, each with a value behind =")]
    Option(String),
    /// The value is not what the option takes.
    #[error("{0}: {1}")]
    Value(String, String),
    /// The same twice.
    #[error("{0} is given twice")]
    Twice(String),
}

const OPTIONS: [&str; 6] = ["rate", "delay", "jitter", "loss", "duplicate", "reorder"];

impl FromStr for Config {
    type Err = BadShape;

    fn from_str(s: &str) -> Result<Self, BadShape> {
        let mut config = Self::default();
        let mut seen = Vec::new();
        let mut options: Vec<_> = s.split(',').collect();
        // Those for one direction come after those for both.
        options.sort_by_key(|option| option.contains('.'));
        for option in options {
            let unknown = || BadShape::Option(option.to_owned());
            let (name, value) = option.split_once('=').ok_or_else(unknown)?;
            if seen.contains(&name) {
                return Err(BadShape::Twice(name.to_owned()));
            }
            seen.push(name);
            let bad = |why: String| BadShape::Value(option.to_owned(), why);
            if name == "seed" {
                config.seed = value
                    .parse()
                    .map_err(|_| bad("a number is needed".into()))?;
                continue;
            }
            let (lanes, name): (Vec<&mut Lane>, _) = match name.split_once('.') {
                None => (vec![&mut config.send, &mut config.receive], name),
                Some(("send", name)) => (vec![&mut config.send], name),
                Some(("receive", name)) => (vec![&mut config.receive], name),
                Some(_) => return Err(unknown()),
            };
            if !OPTIONS.contains(&name) {
                return Err(unknown());
            }
            for lane in lanes {
                lane.set(name, value).map_err(bad)?;
            }
        }
        for lane in [&config.send, &config.receive] {
            if lane.jitter > lane.delay {
                let why = "more than the delay";
                return Err(BadShape::Value("jitter".into(), why.into()));
            }
        }
        Ok(config)
    }
}

impl Lane {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "rate" => self.rate = Some(value.parse().map_err(|e| format!("{e}"))?),
            "delay" => self.delay = time(value)?,
            "jitter" => self.jitter = time(value)?,
            "loss" => self.loss = share(value)?,
            "duplicate" => self.duplicate = share(value)?,
            _ => self.reorder = share(value)?,
        }
        Ok(())
    }

    /// The options that differ from those of `other`.
    fn differing(&self, other: &Self, prefix: &str, out: &mut Vec<String>) {
        let mut tell = |differs: bool, name: &str, value: String| {
            if differs {
                out.push(format!("{prefix}{name}={value}"));
            }
        };
        if let Some(rate) = self.rate {
            tell(self.rate != other.rate, "rate", rate.to_string());
        }
        let times = [
            (self.delay, other.delay, "delay"),
            (self.jitter, other.jitter, "jitter"),
        ];
        for (mine, others, name) in times {
            tell(mine != others, name, format!("{}us", mine.as_micros()));
        }
        for (mine, others, name) in [
            (self.loss, other.loss, "loss"),
            (self.duplicate, other.duplicate, "duplicate"),
            (self.reorder, other.reorder, "reorder"),
        ] {
            let (whole, rest) = (mine / 10_000, mine % 10_000);
            let text = format!("{whole}.{rest:04}");
            let text = text.trim_end_matches('0').trim_end_matches('.');
            tell(mine != others, name, format!("{text}%"));
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut options = Vec::new();
        let none = Lane::default();
        if self.send == self.receive {
            self.send.differing(&none, "", &mut options);
        } else {
            self.send.differing(&none, "send.", &mut options);
            self.receive.differing(&none, "receive.", &mut options);
        }
        options.push(format!("seed={}", self.seed));
        f.write_str(&options.join(","))
    }
}

/// A unit of time.
type Unit = (&'static str, fn(u64) -> Duration);

const UNITS: [Unit; 3] = [
    ("us", Duration::from_micros),
    ("ms", Duration::from_millis),
    ("s", Duration::from_secs),
];

/// A time with its unit.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || {
        let most = MAX_DELAY.as_secs();
        format!("a time of at most {most} s is needed, such as 10ms")
    };
    let found = UNITS
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)));
    let (number, unit) = found.ok_or_else(wrong)?;
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let time = unit(number.into());
    (time <= MAX_DELAY).then_some(time).ok_or_else(wrong)
}

/// Per cent, with up to four digits behind the point.
fn share(text: &str) -> Result<u32, String> {
    let wrong = || "a share from 0% to 100% is needed".to_owned();
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, rest) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(rest) || rest.len() > 4 {
        return Err(wrong());
    }
    let whole: u32 = whole.parse().map_err(|_| wrong())?;
    let rest: u32 = format!("{rest:0<4}").parse().map_err(|_| wrong())?;
    let parts = whole.checked_mul(10_000).and_then(|w| w.checked_add(rest));
    parts.filter(|parts| *parts <= WHOLE).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_written_as_they_are_read() {
        for (text, written) in [
            ("seed=7", "seed=7"),
            (
                "rate=100M,delay=10ms,jitter=2ms,loss=0.1%,seed=7",
                "rate=100M,delay=10000us,jitter=2000us,loss=0.1%,seed=7",
            ),
            (
                "receive.rate=1G,rate=10M,send.loss=100%",
                "send.rate=10M,send.loss=100%,receive.rate=1G,seed=0",
            ),
            (
                "duplicate=0.0001%,reorder=12.5%",
                "duplicate=0.0001%,reorder=12.5%,seed=0",
            ),
        ] {
            let config: Config = text.parse().unwrap();
            assert_eq!(config.to_string(), written);
            assert_eq!(written.parse(), Ok(config));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, due) in [
            ("", "\"\": rate, delay"),
            ("rate", "\"rate\": rate, delay"),
            ("speed=1", "\"speed=1\": rate, delay"),
            ("up.rate=1", "\"up.rate=1\": rate, delay"),
            ("rate=fast", "rate=fast: \"fast\" is no rate"),
            ("delay=10", "delay=10: a time of at most 60 s"),
            ("delay=61s", "delay=61s: a time of at most 60 s"),
            ("loss=101%", "loss=101%: a share from 0% to 100%"),
            ("loss=0.00001%", "loss=0.00001%: a share"),
            ("loss=1", "loss=1: a share"),
            ("loss=.5%", "loss=.5%: a share"),
            ("loss=99999999999%", "loss=99999999999%: a share"),
            ("seed=x", "seed=x: a number is needed"),
            ("jitter=1ms", "jitter: more than the delay"),
            ("rate=1M,rate=2M", "rate is given twice"),
        ] {
            let error = text.parse::<Config>().unwrap_err().to_string();
            assert!(error.starts_with(due), "{text}: {error}");
        }
    }
}
