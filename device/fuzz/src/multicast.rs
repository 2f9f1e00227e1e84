// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames about multicast groups as hosts send them, changed in a few places.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use vnet_backend::checksum;

use crate::input::{bytes, index, rarely};

static FRAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let lines = include_str!("../../switch/tests/multicast.frames").lines();
    let hex = lines
        .filter_map(|line| line.split_once(' '))
        .map(|(hex, _)| hex);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    hex.filter_map(|hex| hex.as_bytes().chunks(2).map(byte).collect())
        .collect()
});

/// One of them, mostly with sums that are right for what it has become.
pub(crate) fn frame(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut frame = u.choose(&FRAMES)?.clone();
    if rarely(u, 3)? {
        frame.extend(bytes(u, 64)?);
    }
    for _ in 0..u.int_in_range(0..=4)? {
        let at = 14 + index(u, frame.len() - 14)?;
        frame[at] = u.arbitrary()?;
    }
    if rarely(u, 8)? {
        frame.truncate(14 + index(u, frame.len() - 14)?);
    } else {
        finish(&mut frame[14..]);
    }
    if rarely(u, 4)? {
        let tag = [0x81, 0, 0, u.int_in_range(0..=3)?];
        frame.splice(12..12, tag);
    }
    Ok(frame)
}

/// Writes lengths and sums, where there is place for them.
fn finish(ip: &mut [u8]) {
    let len = ip.len();
    let put = |ip: &mut [u8], at: usize, value: u16| {
        ip[at..at + 2].copy_from_slice(&value.to_be_bytes());
    };
    if ip[0] >> 4 == 4 {
        let header = usize::from(ip[0] & 15) * 4;
        put(ip, 2, len as u16);
        for (range, at) in [(0..header, 10), (header..len, header + 2)] {
            if range.start <= at && at + 2 <= range.end && range.end <= len {
                put(ip, at, 0);
                let sum = !checksum::sum(&ip[range]);
                put(ip, at, sum);
            }
        }
    } else if len >= 52 {
        put(ip, 4, (len - 40) as u16);
        // Behind a hop-by-hop header of the least length.
        let pseudo = [
            &ip[8..40],
            &((len - 48) as u32).to_be_bytes(),
            &[0, 0, 0, 58],
        ]
        .concat();
        put(ip, 50, 0);
        let sum = !checksum::add(checksum::sum(&pseudo), checksum::sum(&ip[48..]));
        put(ip, 50, sum);
    }
}
