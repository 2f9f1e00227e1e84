// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The token that whoever wants to see the page has to know.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Random bytes of a token that is made here.
const BYTES: usize = 16;
/// Characters of a token that others made.
const LENGTH: RangeInclusive<u64> = 16..=128;

/// What has to be part of each path.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// One that nobody can guess.
    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        let mut done = 0;
        while done < BYTES {
            let flags = rustix::rand::GetRandomFlags::empty();
            done += rustix::rand::getrandom(&mut bytes[done..], flags)?;
        }
        Ok(Self(bytes.iter().map(|b| format!("{b:02x}")).collect()))
    }

    /// The one that is in a file, which is made with a random one if it is not there.
    pub(crate) fn from_file(path: &Path) -> io::Result<Self> {
        let mut text = String::new();
        match File::open(path) {
            // One more than there can be, with the end of the line.
            Ok(file) => file.take(LENGTH.end() + 2).read_to_string(&mut text)?,
            Err(e) if e.kind() == ErrorKind::NotFound => return Self::make(path),
            Err(e) => return Err(e),
        };
        Self::parse(text.trim_end()).map_err(|what| io::Error::new(ErrorKind::InvalidData, what))
    }

    /// Writes a random one for this user only.
    fn make(path: &Path) -> io::Result<Self> {
        let token = Self::random()?;
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let written = writeln!(file, "{}", token.0);
        if written.is_err() {
            // Half a token is worse than none.
            let _ = fs::remove_file(path);
        }
        written.map(|()| token)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        match LENGTH.contains(&(text.len() as u64)) && text.bytes().all(good) {
            true => Ok(Self(text.into())),
            false => Err("a token has 16 to 128 letters, digits, - or _"),
        }
    }

    /// Compares in a time that says nothing of how much is right.
    pub(crate) fn is(&self, other: &str) -> bool {
        let (mine, other) = (self.0.as_bytes(), other.as_bytes());
        let different = mine.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
        mine.len() == other.len() && different == 0
    }

    /// For the log.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens_are_long_and_plain() {
        let random = Token::random().unwrap();
        assert!(random.0.len() == 2 * BYTES && random != Token::random().unwrap());
        let token = Token::parse("abcdefghijklmnop").unwrap();
        assert!(token.is("abcdefghijklmnop"));
        for other in [
            "",
            "abcdefghijklmno",
            "abcdefghijklmnoP",
            "abcdefghijklmnopq",
        ] {
            assert!(!token.is(other), "{other}");
        }
        for bad in [
            "short",
            "0123456789abcde/",
            "0123456789abcd e",
            &"x".repeat(129),
        ] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn a_file_keeps_one_for_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let made = Token::from_file(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(Token::from_file(&path).unwrap(), made);
        fs::write(&path, format!("{}\n", "y".repeat(128))).unwrap();
        assert!(Token::from_file(&path).unwrap().is(&"y".repeat(128)));
        for bad in ["", "short\n", &"x".repeat(1 << 20)] {
            fs::write(&path, bad).unwrap();
            let error = Token::from_file(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
        assert!(Token::from_file(dir.path()).is_err());
    }
}
