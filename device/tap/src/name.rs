// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Names of network interfaces.

use vnet_backend::Error;

/// `IFNAMSIZ`: the name and the zero byte behind it.
const SIZE: usize = 16;

/// A name that the kernel takes as it is, padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name([u8; SIZE]);

impl Name {
    /// Checks a name as the kernel does, and more: the kernel would take `%d` for "the next free
    /// number", and control characters as they are.
    pub fn new(name: &str) -> Result<Self, Error> {
        let refuse = |why: &str| {
            Err(Error::Unsupported(format!(
                "{name:?} cannot be the name of an interface: {why}"
            )))
        };
        if name.is_empty() {
            return refuse("it is empty");
        }
        if name.len() >= SIZE {
            return refuse("it is longer than 15 bytes");
        }
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
        if name == "." || name == ".." || name.chars().any(odd) {
            return refuse("it has characters that names of interfaces cannot have");
        }
        let mut bytes = [0; SIZE];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self(bytes))
    }

    /// One that the kernel gave.
    pub(crate) fn given(bytes: [u8; SIZE]) -> Self {
        Self(bytes)
    }

    /// The name, padded.
    pub fn bytes(&self) -> [u8; SIZE] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["tap0", "a", "fifteen-letters", "vm_1.2", "netz-ä"] {
            let bytes = Name::new(good).unwrap().bytes();
            assert!(bytes.starts_with(good.as_bytes()));
            assert!(bytes[good.len()..].iter().all(|b| *b == 0));
        }
        for bad in [
            "",
            ".",
            "..",
            "sixteen-letters-",
            "tap%d",
            "a b",
            "a/b",
            "a:1",
            "a\0",
            "a\nb",
        ] {
            let error = Name::new(bad).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
