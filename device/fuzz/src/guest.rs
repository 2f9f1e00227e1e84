// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Guest memory with an image of what the guest wrote, so that each byte which the device changes
//! is found.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use vm_memory::{Bytes, GuestAddress};
use vnet_contract::ring::{self, Desc, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, DESC_SIZE};
use vnet_dma::{AddressSpace, DmaMap, Mapping};
use vnet_queue::mock::memfd;
use vnet_queue::RingConfig;

use crate::input::{bytes, mostly, rarely};

/// Memory that both sides can write. Rings lie here.
pub(crate) const RAM: u64 = 0x1_0000;
const RAM_SIZE: u64 = 0x8000;
/// Right behind it, memory that the device can only read.
const ROM: u64 = RAM + RAM_SIZE;
/// Right behind that, more to write, which ends at a hole.
const MORE: u64 = ROM + 0x1000;
/// A range that the device knows and cannot reach.
const BLIND: u64 = 0x4_0000;
/// The last page of the address space.
const TOP: u64 = u64::MAX - 0xfff;

/// Address, size, and whether the device may write.
pub(crate) const RANGES: [(u64, u64, bool); 4] = [
    (RAM, RAM_SIZE, true),
    (ROM, 0x1000, false),
    (MORE, 0x1000, true),
    (TOP, 0x1000, true),
];

/// Ways in which the device sees memory: all of it, and with ranges taken away.
const VIEWS: [&[u64]; 4] = [&[], &[MORE], &[RAM], &[RAM, ROM, MORE, TOP]];

/// What is in the ranges.
pub(crate) type Image = Vec<(u64, Vec<u8>)>;

/// Guest memory. Making it is dear, so it is made once and used for many inputs.
pub(crate) struct Guest {
    own: Arc<DmaMap>,
    views: Vec<Arc<DmaMap>>,
    image: Image,
}

impl Guest {
    pub(crate) fn new() -> Self {
        let own = AddressSpace::new();
        let views: Vec<_> = VIEWS.iter().map(|_| AddressSpace::new()).collect();
        for (address, size, write) in RANGES {
            let file = memfd(size);
            let map = |space: &AddressSpace, write| {
                let file = file.try_clone().expect("dup");
                let mapping = Mapping {
                    address,
                    size,
                    file: Some(file),
                    offset: 0,
                    read: true,
                    write,
                };
                space.map(mapping).expect("mappable");
            };
            map(&own, true);
            for (space, without) in views.iter().zip(VIEWS) {
                if !without.contains(&address) {
                    map(space, write);
                }
            }
        }
        for space in &views {
            let blind = Mapping {
                address: BLIND,
                size: 0x1000,
                file: None,
                offset: 0,
                read: true,
                write: true,
            };
            space.map(blind).expect("mappable");
        }
        let memory = |space: &AddressSpace| {
            space.set_bus_master(true);
            space.memory().expect("bus mastering is on")
        };
        let image = |(address, size, _)| (address, vec![0; size as usize]);
        Self {
            own: memory(&own),
            views: views.iter().map(memory).collect(),
            image: RANGES.map(image).to_vec(),
        }
    }

    /// Memory of all zeroes.
    pub(crate) fn clear(&mut self) {
        for (address, image) in &mut self.image {
            image.fill(0);
            put(&self.own, *address, image);
        }
    }

    /// What the device sees; 0 is all of it.
    pub(crate) fn view(&self, index: usize) -> Arc<DmaMap> {
        Arc::clone(&self.views[index % self.views.len()])
    }

    /// Writes as the guest, as far as there is memory.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        for (first, image) in &mut self.image {
            let Some(at) = address.checked_sub(*first) else {
                continue;
            };
            let Some(place) = usize::try_from(at).ok().and_then(|at| image.get_mut(at..)) else {
                continue;
            };
            let n = place.len().min(bytes.len());
            place[..n].copy_from_slice(&bytes[..n]);
            put(&self.own, address, &bytes[..n]);
        }
    }

    /// Takes what the device has written into the image, if it may be in each of these places:
    /// `None` stands for all that it can reach.
    pub(crate) fn accept(&mut self, allowed: Option<(u64, u64)>) {
        let mut now = Vec::new();
        for ((address, image), (_, _, write)) in self.image.iter_mut().zip(RANGES) {
            now.resize(image.len(), 0);
            self.own
                .read_slice(&mut now, GuestAddress(*address))
                .expect("own memory");
            if now == *image {
                continue;
            }
            for (n, (new, old)) in (0..).zip(now.iter().zip(image.iter())) {
                let at = *address + n;
                let may = match allowed {
                    None => write,
                    Some((first, size)) => at.wrapping_sub(first) < size && write,
                };
                assert!(new == old || may, "the device wrote to {at:#x}");
            }
            image.copy_from_slice(&now);
        }
    }

    /// All of it, after what was written was accepted.
    pub(crate) fn image(&self) -> Image {
        self.image.clone()
    }

    /// As it was.
    pub(crate) fn restore(&mut self, image: Image) {
        for (address, image) in &image {
            put(&self.own, *address, image);
        }
        self.image = image;
    }

    /// To read and write all of it.
    pub(crate) fn memory(&self) -> &DmaMap {
        &self.own
    }

    fn get16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.get(address))
    }

    /// Bytes of it; zeroes where there are none, as for a ring that lies outside.
    pub(crate) fn get<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let _ = self.own.read_slice(&mut bytes, GuestAddress(address));
        bytes
    }
}

fn put(memory: &DmaMap, address: u64, bytes: &[u8]) {
    memory
        .write_slice(bytes, GuestAddress(address))
        .expect("own memory");
}

/// An address, more often than not in memory.
pub(crate) fn address(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.int_in_range(0..=15)? {
        0 => u.arbitrary()?,
        1 => ROM.wrapping_add(u.int_in_range(0..=0x1fff)?),
        2 => ROM - u.int_in_range(0..=0x40)?,
        3 => BLIND + u.int_in_range(0..=0xfff)?,
        4 => MORE + 0x1000 - u.int_in_range(0..=0x40)?,
        5 => u64::MAX - u.int_in_range(0..=0x1100)?,
        _ => RAM + u.int_in_range(0..=RAM_SIZE - 1)?,
    })
}

/// What a driver programs: mostly a ring at the start of memory.
pub(crate) fn ring(u: &mut Unstructured<'_>, features: u64) -> Result<RingConfig> {
    let size = mostly(u, &[64, 64, 64, 128, 256])?;
    let mut config = RingConfig {
        size,
        desc: RAM,
        avail: RAM + 0x1000,
        used: RAM + 0x1400,
        index_avail: mostly(u, &[0, 0xfff0])?,
        index_used: 0,
        features,
    };
    config.index_used = match rarely(u, 8)? {
        true => u.arbitrary()?,
        false => config.index_avail,
    };
    if rarely(u, 8)? {
        let at = address(u)?;
        match u.int_in_range(0..=2)? {
            0 => config.desc = at,
            1 => config.avail = at,
            _ => config.used = at,
        }
    }
    Ok(config)
}

/// Bytes of the used ring.
pub(crate) fn used_ring(config: &RingConfig) -> (u64, u64) {
    // The queue did not start if the size was bad.
    let size = config.size as u16;
    (config.used, ring::used_bytes(size) as u64)
}

/// A descriptor, nearly always with the flag of the right direction.
fn desc(u: &mut Unstructured<'_>, size: u16, write: bool) -> Result<Desc> {
    let mut flags = if write { DESC_F_WRITE } else { 0 };
    if rarely(u, 3)? {
        flags |= DESC_F_NEXT;
    }
    if rarely(u, 12)? {
        flags ^= u.arbitrary::<u16>()? & 0xf;
    }
    Ok(Desc {
        addr: address(u)?,
        len: match u.int_in_range(0..=7)? {
            0 => u.arbitrary()?,
            1 => u.int_in_range(0..=0x1_0100)?,
            2 => u.int_in_range(0..=16)?,
            _ => u.int_in_range(1..=0x800)?,
        },
        flags,
        next: mostly(u, &[0, 1, 2, 3, size.wrapping_sub(1), size])?,
    })
}

pub(crate) fn words(table: &[Desc]) -> Vec<u8> {
    let words = table.iter().flat_map(|desc| desc.to_words());
    words.flat_map(u64::to_le_bytes).collect()
}

/// The guest's end of a ring. It follows the rules or breaks them, as the input says.
pub(crate) struct Driver {
    pub(crate) config: RingConfig,
    write: bool,
    avail: u16,
}

impl Driver {
    /// Of a ring whose buffers the device writes, or reads.
    pub(crate) fn new(guest: &mut Guest, config: RingConfig, write: bool) -> Self {
        let avail = config.index_avail;
        guest.write(config.avail.wrapping_add(2), &avail.to_le_bytes());
        Self {
            config,
            write,
            avail,
        }
    }

    pub(crate) fn size(&self) -> u16 {
        (self.config.size as u16).max(1)
    }

    pub(crate) fn desc_at(&self, index: u16) -> u64 {
        let offset = u64::from(index) * DESC_SIZE as u64;
        self.config.desc.wrapping_add(offset)
    }

    /// Puts a chain into the avail ring and shows it.
    pub(crate) fn offer(&mut self, guest: &mut Guest, head: u16) {
        let slot = u64::from(self.avail % self.size());
        let at = self.config.avail.wrapping_add(4 + 2 * slot);
        guest.write(at, &head.to_le_bytes());
        self.avail = self.avail.wrapping_add(1);
        self.show(guest, self.avail);
    }

    fn show(&self, guest: &mut Guest, index: u16) {
        guest.write(self.config.avail.wrapping_add(2), &index.to_le_bytes());
    }

    /// Offers these bytes, cut in pieces, at an address.
    pub(crate) fn offer_bytes(
        &mut self,
        guest: &mut Guest,
        u: &mut Unstructured<'_>,
        contents: &[u8],
    ) -> Result<()> {
        let at = RAM + 0x2000 + u64::from(u.arbitrary::<u8>()?) * 0x40;
        guest.write(at, contents);
        let pieces = u.int_in_range(1..=4)?;
        let mut table = Vec::new();
        let mut done = 0;
        for piece in 1..=pieces {
            let left = contents.len() - done;
            let len = match piece == pieces {
                true => left,
                false => u.int_in_range(0..=left.min(100))?,
            };
            table.push(Desc {
                addr: at + done as u64,
                len: len as u32,
                flags: if self.write { DESC_F_WRITE } else { 0 },
                next: 0,
            });
            done += len;
        }
        // A buffer has a length.
        table.retain(|desc| desc.len > 0);
        self.offer_table(guest, u, table)
    }

    /// Offers a table as a chain of the ring, or by an indirect descriptor.
    fn offer_table(
        &mut self,
        guest: &mut Guest,
        u: &mut Unstructured<'_>,
        mut table: Vec<Desc>,
    ) -> Result<()> {
        let head = u.int_in_range(0..=self.size() - 1)?;
        let indirect = rarely(u, 3)?;
        let first = if indirect { 0 } else { head };
        let last = table.len().saturating_sub(1);
        for (next, desc) in (first.wrapping_add(1)..).zip(&mut table[..last]) {
            desc.flags |= DESC_F_NEXT;
            desc.next = next;
        }
        let bytes = words(&table);
        if indirect {
            let at = RAM + 0x1800 + u64::from(u.int_in_range(0..=7u8)?) * 0x100;
            guest.write(at, &bytes);
            let pointer = Desc {
                addr: at,
                len: bytes.len() as u32,
                flags: DESC_F_INDIRECT,
                next: 0,
            };
            guest.write(self.desc_at(head), &words(&[pointer]));
        } else {
            guest.write(self.desc_at(head), &bytes);
        }
        self.offer(guest, head);
        Ok(())
    }

    /// One thing that a driver does, good or bad.
    pub(crate) fn step(&mut self, guest: &mut Guest, u: &mut Unstructured<'_>) -> Result<()> {
        let size = self.size();
        match u.int_in_range(0..=9)? {
            0 => {
                let index = mostly(u, &[0, 1, 2, 3, size - 1])?;
                let desc = desc(u, size, self.write)?;
                guest.write(self.desc_at(index), &words(&[desc]));
            }
            1 => {
                let index = u.int_in_range(0..=3)?;
                let desc = desc(u, size, self.write)?;
                guest.write(self.desc_at(index), &words(&[desc]));
                self.offer(guest, index);
            }
            2 => {
                let head = mostly(u, &[0, 1, 2, 3, size - 1, size])?;
                self.offer(guest, head);
            }
            3 => {
                let index = match rarely(u, 2)? {
                    true => u.arbitrary()?,
                    false => self.avail.wrapping_add(u.int_in_range(0..=300)?),
                };
                self.show(guest, index);
            }
            4 => {
                // used_event.
                let at = self
                    .config
                    .avail
                    .wrapping_add(ring::used_event_offset(size) as u64);
                let used = guest.get16(self.config.used.wrapping_add(2));
                let event = used.wrapping_add(mostly(u, &[0, 1, 0xffff])?);
                guest.write(at, &event.to_le_bytes());
            }
            5 => {
                let at = address(u)?;
                guest.write(at, bytes(u, 32)?);
            }
            6 => {
                let len = u.int_in_range(1..=80)?;
                let table = (0..len).map(|_| desc(u, len, self.write));
                let table = table.collect::<Result<Vec<_>>>()?;
                let at = RAM + 0x1800;
                guest.write(at, &words(&table));
                let pointer = Desc {
                    addr: mostly(u, &[at])?,
                    len: mostly(u, &[u32::from(len) * 16, 16, 8, 0x1_0000])?,
                    flags: DESC_F_INDIRECT | mostly(u, &[0, DESC_F_WRITE, DESC_F_NEXT])?,
                    next: 0,
                };
                let index = u.int_in_range(0..=3)?;
                guest.write(self.desc_at(index), &words(&[pointer]));
                self.offer(guest, index);
            }
            7 => {
                // Chains of many descriptors, all with the same buffer.
                let desc = desc(u, size, self.write)?;
                let len = u.int_in_range(1..=size.min(300))?;
                self.offer_table(guest, u, vec![desc; len.into()])?;
            }
            _ => {
                let contents = bytes(u, 200)?.to_vec();
                self.offer_bytes(guest, u, &contents)?;
            }
        }
        Ok(())
    }
}
