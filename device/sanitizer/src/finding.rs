// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What was found.

use std::fmt;

use vnet_contract::queue::{kind, Kind};

use crate::Rule;

/// One case in which a driver broke a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// The queue, unless it is about the card as a whole.
    pub queue: Option<u16>,
    /// The descriptor that the chain in question begins with.
    pub descriptor: Option<u16>,
    /// What was seen.
    pub seen: String,
    /// What was due instead.
    pub due: String,
}

impl Finding {
    /// A finding about the card as a whole.
    pub fn new(rule: Rule, seen: impl Into<String>, due: impl Into<String>) -> Self {
        Self {
            rule,
            queue: None,
            descriptor: None,
            seen: seen.into(),
            due: due.into(),
        }
    }

    /// Says which queue it is about.
    pub fn queue(self, queue: u16) -> Self {
        Self {
            queue: Some(queue),
            ..self
        }
    }

    /// Says which chain it is about.
    pub fn descriptor(self, head: u16) -> Self {
        Self {
            descriptor: Some(head),
            ..self
        }
    }
}

/// A finding as a line of fields.
impl Finding {
    pub(crate) fn to_line(&self) -> String {
        let number = |n: Option<u16>| n.map(|n| n.to_string()).unwrap_or_default();
        [
            self.rule.id(),
            &number(self.queue),
            &number(self.descriptor),
            &self.seen,
            &self.due,
        ]
        .join("\t")
    }

    /// `None` if it is about a rule that is not known.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let mut field = || fields.next().unwrap_or_default();
        let rule = Rule::by_id(field())?;
        let [queue, descriptor] = [field(), field()].map(|n| n.parse().ok());
        Some(Self {
            rule,
            queue,
            descriptor,
            seen: field().to_owned(),
            due: field().to_owned(),
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.rule;
        write!(f, "{}: {}", rule.id(), rule.sentence())?;
        if let Some(queue) = self.queue {
            let name = match kind(queue) {
                Kind::Rx => "receive",
                Kind::Tx => "transmit",
            };
            write!(f, " Queue {queue} ({name} queue of pair {})", queue / 2)?;
            if let Some(descriptor) = self.descriptor {
                write!(f, ", descriptor {descriptor}")?;
            }
            f.write_str(".")?;
        }
        write!(f, " Seen: {}; due: {}.", self.seen, self.due)?;
        write!(f, " See docs/rules.md#{}", rule.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_it_all() {
        let finding = Finding::new(Rule::ChainReused, "descriptor 7 again", "another one");
        let line = finding.clone().queue(3).descriptor(7).to_string();
        for part in [
            "chain-reused: ",
            "Queue 3 (transmit queue of pair 1), descriptor 7.",
            "Seen: descriptor 7 again; due: another one.",
            "docs/rules.md#chain-reused",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert!(!finding.to_string().contains("Queue"));
    }

    #[test]
    fn a_line_of_fields_is_the_same_finding() {
        let finding = Finding::new(Rule::ChainLoop, "a, b", "");
        for finding in [
            finding.clone(),
            finding.clone().queue(0),
            finding.queue(31).descriptor(65535),
        ] {
            assert_eq!(Finding::from_line(&finding.to_line()), Some(finding));
        }
        assert_eq!(Finding::from_line("no-such-rule\t1\t2\tx\ty"), None);
        assert_eq!(Finding::from_line(""), None);
    }
}
