// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Layout of the split ring (virtio 1.2, section 2.7), always with event index.

constants! {
    /// Flags, alignments, sizes and offsets of the ring.
    CONSTANTS;
    /// Descriptor flag: the chain goes on at `next`.
    DESC_F_NEXT: u16 = 1;
    /// Descriptor flag: the card writes this buffer (else it only reads it).
    DESC_F_WRITE: u16 = 2;
    /// Descriptor flag: the buffer is a table of descriptors (`INDIRECT_DESC`).
    DESC_F_INDIRECT: u16 = 4;
    /// Alignment of the descriptor table in bytes.
    DESC_ALIGN: u64 = 16;
    /// Alignment of the avail ring in bytes.
    AVAIL_ALIGN: u64 = 2;
    /// Alignment of the used ring in bytes.
    USED_ALIGN: u64 = 4;
    /// Size of a descriptor in bytes.
    DESC_SIZE: usize = 16;
    /// Size of an avail ring entry in bytes.
    AVAIL_ENTRY_SIZE: usize = 2;
    /// Size of a used ring entry in bytes.
    USED_ENTRY_SIZE: usize = 8;
    /// Offset of the index in both the avail and the used ring.
    RING_IDX: usize = 2;
    /// Offset of the first entry in both the avail and the used ring.
    RING_ENTRIES: usize = 4;
}

members! {
    /// A descriptor: see [`Desc`].
    DESC_MEMBERS;
    addr @ 0, 64;
    len @ 8, 32;
    flags @ 12, 16;
    next @ 14, 16;
}

members! {
    /// An entry of the used ring: `id` is the index of the first descriptor of the chain, `len`
    /// the number of bytes that the card wrote into it.
    USED_ENTRY_MEMBERS;
    id @ 0, 32;
    len @ 4, 32;
}

/// A descriptor, in CPU byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Desc {
    /// Bus address of the buffer.
    pub addr: u64,
    /// Length of the buffer in bytes.
    pub len: u32,
    /// `DESC_F_*`.
    pub flags: u16,
    /// Index of the next descriptor, if `DESC_F_NEXT` is set.
    pub next: u16,
}

impl Desc {
    /// The 16 bytes as they stand in the descriptor table, as two 64-bit words in CPU byte order:
    /// the second holds length, flags and next.
    #[inline]
    pub const fn to_words(self) -> [u64; 2] {
        [
            self.addr,
            self.len as u64 | (self.flags as u64) << 32 | (self.next as u64) << 48,
        ]
    }

    /// Reads back what [`Self::to_words`] gives.
    #[inline]
    pub const fn from_words(w: [u64; 2]) -> Self {
        Self {
            addr: w[0],
            len: w[1] as u32,
            flags: (w[1] >> 32) as u16,
            next: (w[1] >> 48) as u16,
        }
    }
}

/// Bytes of a descriptor table.
#[inline]
pub const fn desc_bytes(size: u16) -> usize {
    size as usize * DESC_SIZE
}

/// Bytes of an avail ring with its `used_event`.
#[inline]
pub const fn avail_bytes(size: u16) -> usize {
    used_event_offset(size) + 2
}

/// Bytes of a used ring with its `avail_event`.
#[inline]
pub const fn used_bytes(size: u16) -> usize {
    avail_event_offset(size) + 2
}

/// Offset of `used_event` in the avail ring: the driver writes the used index at which it wants
/// an interrupt (virtio 1.2, 2.7.7).
#[inline]
pub const fn used_event_offset(size: u16) -> usize {
    RING_ENTRIES + size as usize * AVAIL_ENTRY_SIZE
}

/// Offset of `avail_event` in the used ring: the card writes the avail index at which it wants a
/// doorbell (virtio 1.2, 2.7.10).
#[inline]
pub const fn avail_event_offset(size: u16) -> usize {
    RING_ENTRIES + size as usize * USED_ENTRY_SIZE
}

/// True if moving an index from `old` to `new` passes the point that the other side asked to be
/// told of: `event` lies in `old..new` modulo 2^16 (virtio 1.2, 2.7.7.1).
#[inline]
pub const fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        let d = Desc {
            addr: 0x1122_3344_5566_7788,
            len: 0x99aa_bbcc,
            flags: 3,
            next: 0xfffe,
        };
        assert_eq!(Desc::from_words(d.to_words()), d);
    }

    #[test]
    fn words_have_the_listed_layout() {
        let d = Desc {
            addr: 0x1122_3344_5566_7788,
            len: 0x99aa_bbcc,
            flags: 0xddee,
            next: 0xf00f,
        };
        let values = [d.addr, d.len.into(), d.flags.into(), d.next.into()];
        let [low, high] = d.to_words();
        let all = u128::from(low) | u128::from(high) << 64;
        for (m, value) in DESC_MEMBERS.iter().zip(values) {
            let mask = (1u128 << m.width) - 1;
            assert_eq!(
                all >> (8 * m.offset) & mask,
                u128::from(value),
                "{}",
                m.name
            );
        }
        let bits: u32 = DESC_MEMBERS.iter().map(|m| m.width).sum();
        assert_eq!(bits as usize, 8 * DESC_SIZE);
    }

    #[test]
    fn layout_of_a_ring_of_256() {
        assert_eq!(desc_bytes(256), 4096);
        assert_eq!(avail_bytes(256), 6 + 2 * 256);
        assert_eq!(used_bytes(256), 6 + 8 * 256);
    }

    /// From every start with steps of typical lengths, and with a step of every length from some.
    #[test]
    fn need_event_is_membership_of_the_half_open_range() {
        let check = |old: u16, moved: u16| {
            let edges = [moved.wrapping_sub(1), moved, moved.wrapping_add(1)];
            for at in [0, 1, 0x7fff, 0x8000, 0xffff].into_iter().chain(edges) {
                let (event, new) = (old.wrapping_add(at), old.wrapping_add(moved));
                assert_eq!(
                    need_event(event, new, old),
                    at < moved,
                    "{event} in {old}..{new}"
                );
            }
        };
        for any in 0..=u16::MAX {
            for moved in [0, 1, 2, 64, 4096, 0x7fff, 0x8000, 0xffff] {
                check(any, moved);
            }
            for old in [0, 1, 0x7fff, 0xffff] {
                check(old, any);
            }
        }
    }
}
