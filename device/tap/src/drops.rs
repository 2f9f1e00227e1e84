// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames that the kernel dropped since no queue of the interface had room: its own count, which
//! `ip -s link` shows on the host as dropped on sending.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};

/// Opened once: the file stays that of the network namespace that the thread was in then.
const FILE: &str = "/proc/thread-self/net/dev";
/// The count of dropped frames among the numbers of an interface: eight are of what it received.
const DROPPED: usize = 8 + 3;

/// The count of one interface.
#[derive(Debug)]
pub(crate) struct Drops {
    /// `None` where the kernel does not tell.
    file: Option<File>,
    /// What it was last. An interface that is gone, or in another namespace, drops no more as far as
    /// this process can see.
    last: Cell<u64>,
}

impl Drops {
    pub(crate) fn new() -> Self {
        Self::of(File::open(FILE).ok())
    }

    fn of(file: Option<File>) -> Self {
        Self {
            file,
            last: Cell::new(0),
        }
    }

    /// Frames dropped since the interface was made, which has this name now if it is there. The kernel puts
    /// down the numbers of all interfaces, which takes it a millisecond where there are some hundred.
    pub(crate) fn count(&self, name: Option<&str>) -> u64 {
        if let Some(count) = name.and_then(|name| self.look(name)) {
            self.last.set(count);
        }
        self.last.get()
    }

    fn look(&self, name: &str) -> Option<u64> {
        let mut file = self.file.as_ref()?;
        file.rewind().ok()?;
        dropped(BufReader::new(file), name)
    }
}

fn dropped(text: impl BufRead, name: &str) -> Option<u64> {
    text.split(b'\n').map_while(Result::ok).find_map(|line| {
        let line = String::from_utf8_lossy(&line);
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
    use std::os::unix::fs::FileExt;

    use rustix::fs::{memfd_create, MemfdFlags};

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
        let dropped = |name| dropped(text.as_bytes(), name);
        assert_eq!(dropped("tap0"), Some(42));
        assert_eq!(dropped("tap0:1"), Some(99));
        assert_eq!(dropped("lo"), Some(11));
        assert_eq!(dropped("tap"), None);
        assert_eq!(super::dropped(&b"tap0: 1 2 3"[..], "tap0"), None);
        assert_eq!(super::dropped(&b""[..], "tap0"), None);
    }

    #[test]
    fn it_is_found_behind_thousands_of_others_and_kept_when_it_is_gone() {
        let file = File::from(memfd_create("dev", MemfdFlags::CLOEXEC).unwrap());
        let write = |count: u64| {
            let mut text = String::new();
            for n in 0..2000 {
                text += &format!("veth{n}:{}\n", " 1234567".repeat(16));
            }
            text += &format!("tap0:{} {count} 0 0 0 0\n", " 0".repeat(DROPPED));
            file.write_all_at(text.as_bytes(), 0).unwrap();
        };
        let drops = Drops::of(Some(file.try_clone().unwrap()));
        for count in [5, 7] {
            write(count);
            assert_eq!(drops.count(Some("tap0")), count);
        }
        assert_eq!(drops.count(Some("tap1")), 7);
        assert_eq!(drops.count(None), 7);
    }
}
