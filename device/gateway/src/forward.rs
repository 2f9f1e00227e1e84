// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Which ports of the gateway's lead to the host, and how that is written.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use rustix::net::SocketAddrUnix;

/// Where connections to a port of the gateway's are carried to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A unix socket of the host, written `unix:PATH`.
    Unix(PathBuf),
    /// A TCP port of the host's loopback, written `127.0.0.1:PORT` or `[::1]:PORT`.
    Loopback(SocketAddr),
}

/// A port of the gateway's that leads to the host, written `PORT=TARGET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The TCP port that guests connect to.
    pub port: u16,
    /// Where that leads.
    pub target: Target,
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            // The kernel's bound.
            return match SocketAddrUnix::new(path) {
                Ok(_) if !path.is_empty() => Ok(Self::Unix(path.into())),
                _ => Err("unix: takes a path of 1 to 108 bytes"),
            };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if !address.ip().is_loopback() => {
                Err("only loopback addresses of the host can be reached, as 127.0.0.1:22")
            }
            Ok(address) if address.port() != 0 => Ok(Self::Loopback(address)),
            _ => Err("PORT=unix:PATH or PORT=127.0.0.1:PORT is needed, as 8022=127.0.0.1:22"),
        }
    }
}

impl FromStr for Forward {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (port, target) = text.split_once('=').unwrap_or((text, ""));
        let target = target.parse()?;
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self { port, target }),
            _ => Err("the port that guests connect to is from 1 to 65535"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Loopback(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.port, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_is_written_as_it_is_read() {
        for text in [
            "8000=unix:/run/app.sock",
            "80=unix:app=1.sock",
            "8022=127.0.0.1:22",
            "65535=[::1]:65535",
        ] {
            assert_eq!(text.parse::<Forward>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long = format!("1=unix:/{}", "a".repeat(108));
        for (text, due) in [
            ("8000", "PORT=unix:PATH"),
            ("8000=", "PORT=unix:PATH"),
            ("8000=/run/app.sock", "PORT=unix:PATH"),
            ("8000=localhost:22", "PORT=unix:PATH"),
            ("8000=127.0.0.1:0", "PORT=unix:PATH"),
            ("8000=192.0.2.1:22", "only loopback"),
            ("8000=0.0.0.0:22", "only loopback"),
            ("8000=unix:", "unix: takes a path"),
            (&long, "unix: takes a path"),
            ("0=127.0.0.1:22", "the port that guests"),
            ("65536=127.0.0.1:22", "the port that guests"),
            ("=127.0.0.1:22", "the port that guests"),
        ] {
            let error = text.parse::<Forward>().unwrap_err();
            assert!(error.starts_with(due), "{text}: {error}");
        }
    }
}
