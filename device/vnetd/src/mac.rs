// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! MAC addresses on the command line.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

/// The address of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl FromStr for Mac {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "six hexadecimal bytes with colons are needed, like 52:54:00:12:34:56";
        let mut mac = [0; 6];
        let mut bytes = s.split(':');
        for byte in &mut mac {
            let digits = bytes.next().ok_or(FORM)?;
            if digits.len() != 2 || !digits.bytes().all(|d| d.is_ascii_hexdigit()) {
                return Err(FORM);
            }
            *byte = u8::from_str_radix(digits, 16).map_err(|_| FORM)?;
        }
        if bytes.next().is_some() {
            return Err(FORM);
        }
        if mac[0] & 1 != 0 {
            return Err("this is a group address");
        }
        if mac == [0; 6] {
            return Err("this is no address");
        }
        Ok(Self(mac))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Mac {
    /// A locally administered address for the card on this socket: the same at every start, and
    /// most likely another for every other socket. The hash is FNV-1a.
    pub(crate) fn for_socket(socket: &Path) -> Self {
        let path = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
        let hash = path
            .as_os_str()
            .as_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        let [.., a, b, c, d, e] = hash.to_be_bytes();
        Self([0x02, a, b, c, d, e])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_station_are_taken() {
        assert_eq!(
            "52:54:00:aB:0c:ff".parse(),
            Ok(Mac([0x52, 0x54, 0, 0xab, 0x0c, 0xff]))
        );
        let mac = Mac([0x52, 0x54, 0, 0xab, 0x0c, 0xff]);
        assert_eq!(mac.to_string(), "52:54:00:ab:0c:ff");
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52-54-00-12-34-56",
            "+2:54:00:12:34:56",
            "5:254:00:12:34:56",
            "53:54:00:12:34:56",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_socket_always_gets_the_same_address() {
        let mac = Mac::for_socket(Path::new("/run/a"));
        assert_eq!(mac, Mac::for_socket(Path::new("/run/a")));
        assert_ne!(mac, Mac::for_socket(Path::new("/run/b")));
        assert_eq!(mac.0[0], 0x02);
    }
}
