// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What pcapng has no option for, as the comment of a frame: words with blanks between, which people can
//! read and programs can take apart. docs/capture.md has the list.
//!
//! A custom option would need the number of an enterprise, and no viewer shows one that it does not know,
//! nor gives it to a dissector. Comments are shown by all.

use std::fmt;

use vnet_backend::{Checksum, Gso, GsoKind, Meta};
use vnet_contract::hdr::{
    FlowHash, HASH_IPV4, HASH_IPV6, HASH_NONE, HASH_TCPV4, HASH_TCPV6, HASH_UDPV4, HASH_UDPV6,
};

use crate::parcel::{Chain, Stages};
use crate::queue_name;

/// The first word.
const MARK: &str = "vnet";

const HASHES: [(u16, &str); 6] = [
    (HASH_IPV4, "ipv4"),
    (HASH_TCPV4, "tcpv4"),
    (HASH_UDPV4, "udpv4"),
    (HASH_IPV6, "ipv6"),
    (HASH_TCPV6, "tcpv6"),
    (HASH_UDPV6, "udpv6"),
];

const KINDS: [(GsoKind, &str); 3] = [
    (GsoKind::TcpV4, "tcpv4"),
    (GsoKind::TcpV6, "tcpv6"),
    (GsoKind::Udp, "udp"),
];

/// Writes the comment of a frame; the times are relative to `base`.
pub(crate) struct Words<'a, C> {
    pub(crate) queue: u16,
    pub(crate) thread: &'a str,
    pub(crate) meta: &'a Meta,
    pub(crate) hash: FlowHash,
    pub(crate) stages: &'a Stages,
    pub(crate) base: u64,
    pub(crate) chains: C,
    pub(crate) chain_count: usize,
}

impl Stages {
    fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("doorbell", self.doorbell),
            ("fetch", self.fetch),
            ("backend", self.backend),
            ("done", self.done),
            ("used", self.used),
            ("interrupt", self.interrupt),
        ]
    }
}

impl<C: Iterator<Item = Chain> + Clone> fmt::Display for Words<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK} queue={}", queue_name(self.queue))?;
        let mut told = 0;
        for chain in self.chains.clone() {
            write!(f, " {chain}")?;
            told += 1;
        }
        if told < self.chain_count {
            write!(f, " chains={}", self.chain_count)?;
        }
        match self.meta.checksum {
            Checksum::Unverified => {}
            Checksum::Valid => f.write_str(" csum=valid")?,
            Checksum::Partial { start, offset } => write!(f, " csum={start}+{offset}")?,
        }
        if let Some(gso) = &self.meta.gso {
            let Gso {
                kind,
                ecn,
                size,
                hdr_len,
            } = gso;
            let name = KINDS.iter().find(|(k, _)| k == kind).map_or("", |(_, n)| n);
            let ecn = if *ecn { "+ecn" } else { "" };
            write!(f, " gso={name}{ecn}:{size} headers={hdr_len}")?;
        }
        if self.hash.report != HASH_NONE {
            let name = HASHES.iter().find(|(code, _)| *code == self.hash.report);
            let name = name.map_or("other", |(_, name)| name);
            write!(f, " hash={name}:{:#010x}", self.hash.value)?;
        }
        for (name, time) in self.stages.named() {
            if time != 0 {
                // Two times of one clock, hours apart at most.
                write!(f, " {name}={:+}", time.wrapping_sub(self.base) as i64)?;
            }
        }
        if !self.thread.is_empty() {
            write!(f, " thread={}", self.thread)?;
        }
        Ok(())
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = if self.indirect { "table" } else { "" };
        write!(f, "chain={}{table}:", self.head)?;
        for (n, len) in self.lens.iter().enumerate() {
            let plus = if n == 0 { "" } else { "+" };
            write!(f, "{plus}{len}")?;
        }
        match self.count.checked_sub(self.lens.len()) {
            None | Some(0) => Ok(()),
            Some(more) if self.is_counted() => write!(f, "+{more}more"),
            Some(more) => write!(f, "+{more}ormore"),
        }
    }
}

/// A stage, in nanoseconds from the time of the frame.
pub type Offset = Option<i64>;

/// A comment, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comment<'a> {
    /// Name of the queue.
    pub queue: &'a str,
    /// Of the first descriptor of each chain that is told of.
    pub heads: Vec<u16>,
    /// Doorbell, fetch, backend, done, used and interrupt; `None`: there was none.
    pub stages: [Offset; 6],
    /// Name of the thread.
    pub thread: &'a str,
}

impl<'a> Comment<'a> {
    /// Takes a comment apart; `None`: it is another's. What is not known is passed over.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next() != Some(MARK) {
            return None;
        }
        let names = Stages::default().named().map(|(name, _)| name);
        let mut comment = Self::default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "queue" => comment.queue = value,
                "thread" => comment.thread = value,
                "event" => return None,
                "chain" => {
                    let end = value.find(|c: char| !c.is_ascii_digit())?;
                    comment.heads.push(value[..end].parse().ok()?);
                }
                _ => {
                    if let Some(n) = names.iter().position(|name| *name == key) {
                        comment.stages[n] = Some(value.parse().ok()?);
                    }
                }
            }
        }
        (!comment.queue.is_empty()).then_some(comment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_can_be_read_and_taken_apart() {
        let chains = [
            Chain {
                head: 7,
                indirect: true,
                count: 3,
                lens: vec![66, 4096, 1],
            },
            Chain {
                head: 9,
                indirect: false,
                count: 64,
                lens: vec![1, 2],
            },
            Chain {
                head: 8,
                indirect: false,
                count: 65,
                lens: vec![1],
            },
        ];
        let stages = Stages {
            doorbell: 900,
            fetch: 990,
            backend: 1000,
            done: 1500,
            used: 1600,
            interrupt: 0,
        };
        let meta = Meta {
            checksum: Checksum::Partial {
                start: 34,
                offset: 16,
            },
            gso: Some(Gso {
                kind: GsoKind::TcpV4,
                ecn: true,
                size: 1448,
                hdr_len: 66,
            }),
        };
        let hash = FlowHash {
            value: 0xabc,
            report: HASH_UDPV6,
        };
        let words = Words {
            queue: 3,
            thread: "vnet-q1",
            meta: &meta,
            hash,
            stages: &stages,
            base: 1000,
            chains: chains.iter().cloned(),
            chain_count: 40,
        };
        let text = words.to_string();
        assert_eq!(
            text,
            "vnet queue=tx1 chain=7table:66+4096+1 chain=9:1+2+62more chain=8:1+64ormore chains=40 csum=34+16 \
             gso=tcpv4+ecn:1448 headers=66 hash=udpv6:0x00000abc doorbell=-100 fetch=-10 backend=+0 \
             done=+500 used=+600 thread=vnet-q1"
        );
        let comment = Comment::parse(&text).unwrap();
        let due = Comment {
            queue: "tx1",
            heads: vec![7, 9, 8],
            stages: [Some(-100), Some(-10), Some(0), Some(500), Some(600), None],
            thread: "vnet-q1",
        };
        assert_eq!(comment, due);
        for other in [
            "",
            "seen by eye",
            "vnet",
            "vnet event=fault queue=tx0 x",
            "vnet queue=rx0 done=x",
        ] {
            assert_eq!(Comment::parse(other), None, "{other}");
        }
    }
}
