// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Names of cards.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Longest name.
const MAX: usize = 32;

/// What a card is called: letters, digits, `.`, `_` and `-`, so that a name needs no quotes anywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a card that was given none: its socket's, without directory and extension.
    pub(crate) fn for_socket(socket: &Path) -> Self {
        let stem = socket.file_stem().unwrap_or_default().to_string_lossy();
        let good = |c: char| if is_good(c) { c } else { '_' };
        let name: String = stem.chars().take(MAX).map(good).collect();
        match name.as_str() {
            "" => Self("card".into()),
            _ => Self(name),
        }
    }
}

fn is_good(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
}

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.len() {
            1..=MAX if s.chars().all(is_good) => Ok(Self(s.into())),
            _ => Err("1 to 32 letters, digits or characters of ._- are needed"),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "vm1-eth0", "A_b.c"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        let long = "x".repeat(33);
        for bad in ["", "a b", "a/b", "ä", &long] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_socket_names_its_card() {
        for (socket, name) in [
            ("/run/vm1.sock", "vm1"),
            ("a b.sock", "a_b"),
            ("/", "card"),
            ("", "card"),
        ] {
            assert_eq!(Name::for_socket(Path::new(socket)).as_str(), name);
        }
        let long = "ä".repeat(100);
        assert_eq!(Name::for_socket(Path::new(&long)).as_str(), "_".repeat(32));
    }
}
