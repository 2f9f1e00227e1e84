// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a generator writes into its frames, to know them again.
//!
//! 16 bytes at the start of the payload, big-endian, so that they fit into the shortest datagram:
//!
//! | bytes | |
//! |---|---|
//! | 0..2 | "vg" |
//! | 2..4 | which generator: a hash of its seed and addresses |
//! | 4..8 | number of the frame, modulo 2^32 |
//! | 8..16 | nanoseconds of the machine's monotonic clock when it was sent |

use std::net::IpAddr;

use rustix::time::{clock_gettime, ClockId};
use vnet_backend::mix;

use crate::config::Config;

pub(crate) const LEN: usize = 16;
const MAGIC: [u8; 2] = *b"vg";

/// A stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) stream: u16,
    pub(crate) number: u32,
    pub(crate) time: u64,
}

impl Stamp {
    /// At the start of a payload; `None`: there is none.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (magic, rest) = payload.split_first_chunk()?;
        let (stream, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (time, _) = rest.split_first_chunk()?;
        (*magic == MAGIC).then_some(Self {
            stream: u16::from_be_bytes(*stream),
            number: u32::from_be_bytes(*number),
            time: u64::from_be_bytes(*time),
        })
    }

    pub(crate) fn bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2..4].copy_from_slice(&self.stream.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..].copy_from_slice(&self.time.to_be_bytes());
        bytes
    }
}

/// The stream of a generator. Two that send to each other have different ones.
pub(crate) fn stream(config: &Config) -> u16 {
    let bits = |address| match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            mix((bits >> 64) as u64) ^ bits as u64
        }
    };
    let addresses = mix(bits(config.from)) ^ bits(config.to);
    (mix(mix(config.seed) ^ addresses) >> 48) as u16
}

/// Nanoseconds of the clock that all programs of the machine have in common.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // Neither is negative.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp {
            stream: 0x0102,
            number: u32::MAX,
            time: 7,
        };
        assert_eq!(Stamp::read(&stamp.bytes()), Some(stamp));
        assert_eq!(Stamp::read(&stamp.bytes()[1..]), None);
    }

    #[test]
    fn generators_are_told_apart() {
        let of = |text: &str| stream(&text.parse().unwrap());
        let one = of("to=10.0.0.2,from=10.0.0.1");
        assert_ne!(one, of("to=10.0.0.1,from=10.0.0.2"));
        assert_ne!(one, of("to=10.0.0.2,from=10.0.0.1,seed=1"));
        assert_eq!(one, of("to=10.0.0.2,from=10.0.0.1,full"));
        assert_ne!(
            of("to=fd00::1:2,from=fd00::1"),
            of("to=fd00::2:2,from=fd00::1")
        );
    }
}
