// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Receive buffers of a driver that follows the rules: each chain has descriptors and memory of its own,
//! and they are used again when they came back.

use arbitrary::{Result, Unstructured};
use vnet_contract::features::{HDR_SPLIT, INDIRECT_DESC};
use vnet_contract::hdr::{self, NetHdr, F_SPLIT};
use vnet_contract::ring::{self, Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use vnet_queue::RingConfig;

use crate::guest::{words, Driver, Guest, Image, RAM};
use crate::input::rarely;

/// As many as a ring of the smallest size has room for.
const COUNT: u16 = 16;
/// Descriptors of each.
const DESCS: u16 = 4;
/// Where buffers are, and how much room each chain has.
const BUFFERS: u64 = RAM + 0x4000;
const ROOM: u64 = 0x400;
/// Where tables are.
const TABLES: u64 = RAM + 0x1800;

/// The chains.
pub(crate) struct Slots {
    config: RingConfig,
    offered: u16,
    compared: u16,
    /// The buffers of each.
    buffers: [Vec<(u64, usize)>; COUNT as usize],
}

impl Slots {
    pub(crate) fn new(config: &RingConfig) -> Self {
        Self {
            config: *config,
            offered: 0,
            compared: 0,
            buffers: Default::default(),
        }
    }

    /// Posts a chain, if one is free. So far the device has used the entries before the index `used`.
    pub(crate) fn offer(
        &mut self,
        guest: &mut Guest,
        u: &mut Unstructured<'_>,
        driver: &mut Driver,
        used: u16,
    ) -> Result<()> {
        if self.offered.wrapping_sub(self.count(used)) >= COUNT {
            return Ok(());
        }
        let slot = self.offered % COUNT;
        let indirect = self.config.features & INDIRECT_DESC != 0 && rarely(u, 3)?;
        let head = slot * DESCS;
        let first = if indirect { 0 } else { head };
        let count = u.int_in_range(1..=DESCS)?;
        let mut left = ROOM;
        let mut at = BUFFERS + ROOM * u64::from(slot);
        let mut table = Vec::new();
        for n in 1..=count {
            let len = u.int_in_range(1..=left / u64::from(count - n + 1))?;
            table.push(Desc {
                addr: at,
                len: len as u32,
                flags: DESC_F_WRITE | if n < count { DESC_F_NEXT } else { 0 },
                next: first + n,
            });
            at += len;
            left -= len;
        }
        let buffers = table.iter().map(|desc| (desc.addr, desc.len as usize));
        self.buffers[usize::from(slot)] = buffers.collect();
        let bytes = words(&table);
        if indirect {
            let addr = TABLES + u64::from(slot) * 0x40;
            guest.write(addr, &bytes);
            let pointer = Desc {
                addr,
                len: bytes.len() as u32,
                flags: DESC_F_INDIRECT,
                next: 0,
            };
            guest.write(driver.desc_at(head), &words(&[pointer]));
        } else {
            guest.write(driver.desc_at(head), &bytes);
        }
        self.offered = self.offered.wrapping_add(1);
        driver.offer(guest, head);
        Ok(())
    }

    /// Memory is as it is there, in the rings, and in the buffers as far as the used entries say that they
    /// were written. What else is in a buffer is nobody's business.
    pub(crate) fn assert_same(&mut self, guest: &Guest, other: &Image, used: u16) {
        let own = guest.image();
        let rings = RAM..BUFFERS;
        let beyond = BUFFERS + ROOM * u64::from(COUNT)..u64::MAX;
        for ((address, own), (_, other)) in own.iter().zip(other) {
            for (n, (own, other)) in (0..).zip(own.iter().zip(other)) {
                let at = address + n;
                let buffer = !rings.contains(&at) && !beyond.contains(&at) && *address == RAM;
                assert!(own == other || buffer, "{at:#x} differs");
            }
        }
        // Chains of a frame that are still to come.
        let mut rest = 0;
        while self.compared != self.count(used) {
            let index = self.config.index_used.wrapping_add(self.compared);
            let slot = u64::from(index & (self.config.size as u16 - 1));
            let entry = self.config.used + ring::RING_ENTRIES as u64;
            let entry = entry + slot * ring::USED_ENTRY_SIZE as u64;
            let [head, len] = [entry, entry + 4].map(|at| u32::from_le_bytes(guest.get(at)));
            let buffers = &self.buffers[usize::from(head as u16 / DESCS)];
            let len = len as usize;
            let same = |at, len| {
                let same = part(&own, at, len) == part(other, at, len);
                assert!(same, "what is in the buffer at {at:#x} differs");
                len
            };
            let mut left = len;
            let mut payload = &buffers[..];
            if self.config.features & HDR_SPLIT != 0 {
                payload = &buffers[1..];
                if rest == 0 {
                    left -= same(buffers[0].0, self.headers(guest, buffers[0], len));
                }
            }
            rest = match rest {
                0 => self.chains(guest, buffers),
                more => more,
            } - 1;
            for &(at, len) in payload {
                left -= same(at, len.min(left));
            }
            self.compared = self.compared.wrapping_add(1);
        }
    }

    /// The number of chains that a frame says it has, which begins in these buffers.
    fn chains(&self, guest: &Guest, buffers: &[(u64, usize)]) -> u16 {
        let mut bytes = Vec::new();
        for &(at, len) in buffers {
            bytes.extend_from_slice(part(&guest.image(), at, len));
        }
        let header = bytes.first_chunk().expect("there is room for a header");
        NetHdr::from_bytes(header).num_buffers
    }

    /// Bytes in a header buffer, if it and those behind it have `len` in all.
    fn headers(&self, guest: &Guest, (at, room): (u64, usize), len: usize) -> usize {
        let header = NetHdr::from_bytes(&guest.get(at));
        match header.flags & F_SPLIT {
            0 => room.min(len),
            _ => hdr::size(self.config.features) + usize::from(header.hdr_len),
        }
    }

    /// Chains that came back.
    fn count(&self, used: u16) -> u16 {
        used.wrapping_sub(self.config.index_used)
    }
}

fn part(image: &Image, at: u64, len: usize) -> &[u8] {
    let at = (at - RAM) as usize;
    let (_, ram) = &image[0];
    &ram[at..at + len]
}
