// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames that the kernel dropped since no queue of the interface had room: its own count, which
//! `ip -s link` shows on the host as dropped on sending.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Opened once: the file stays that of the network namespace that the thread was in then.
const FILE: &str = "/proc/thread-self/net/dev";
/// Longest text that is looked at: some hundred interfaces.
const LONGEST: usize = 64 << 10;
/// The count of dropped frames among the numbers of an interface: eight are of what it received.
const DROPPED: usize = 8 + 3;

/// The count of one interface.
#[derive(Debug)]
pub(crate) struct Drops {
    /// `None` where the kernel does not tell.
    file: Option<File>,
    /// What it was last. An interface that is gone, or in another namespace, drops no more as far as
    /// this process can see.
    last: AtomicU64,
}

impl Drops {
    pub(crate) fn new() -> Self {
        Self {
            file: File::open(FILE).ok(),
            last: AtomicU64::new(0),
        }
    }

    /// Frames dropped since the interface was made, which has this name now if it is there.
    pub(crate) fn count(&self, name: Option<&str>) -> u64 {
        let text = self.file.as_ref().map(text).unwrap_or_default();
        match name.and_then(|name| dropped(&text, name)) {
            Some(count) => {
                self.last.store(count, Ordering::Relaxed);
                count
            }
            None => self.last.load(Ordering::Relaxed),
        }
    }
}

/// The whole text, as it is now.
fn text(file: &File) -> String {
    let mut bytes = vec![0; LONGEST];
    let mut len = 0;
    while let Ok(n @ 1..) = file.read_at(&mut bytes[len..], len as u64) {
        len += n;
    }
    bytes.truncate(len);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn dropped(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (left, numbers) = line.rsplit_once(':')?;
        let mut numbers = numbers.split_whitespace();
        match left.trim_start() == name {
            true => numbers.nth(DROPPED)?.parse().ok(),
            false => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_the_interface_is_found() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     300       1    2    3    4     5          6         7      8        9   10   11   12    13      14         15
  tap0:       0       0    0    0    0     0          0         0      0        0    0   42    0     0       0          0
 tap0:1: 1 2 3 4 5 6 7 8 9 10 11 99 13 14 15 16
";
        assert_eq!(dropped(text, "tap0"), Some(42));
        assert_eq!(dropped(text, "tap0:1"), Some(99));
        assert_eq!(dropped(text, "lo"), Some(11));
        assert_eq!(dropped(text, "tap"), None);
        assert_eq!(dropped("tap0: 1 2 3", "tap0"), None);
        assert_eq!(dropped("", "tap0"), None);
    }
}
