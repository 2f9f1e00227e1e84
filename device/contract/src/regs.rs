// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Registers in BAR 0.
//!
//! Every register is 32 bits wide and little-endian; the counters of [`STATS`] are pairs of two.
//! Other values wider than 32 bits are `_LO`/`_HI` pairs.
//!
//! An access is legal if it is 4 bytes wide and 4-byte aligned, or 8 bytes wide and 8-byte aligned
//! (then it acts as two, low half first), and meets a register that allows it. Any other access
//! is illegal: a read gives 0, a write has no effect, and `ILLEGAL_ACCESSES` counts it. Registers
//! of a feature that the card does not offer do not exist.

/// How a register may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only: a write is ignored and counted as illegal.
    Ro,
    /// Read and write.
    Rw,
    /// Read and write, but writable only while the queue is disabled: a write to a running queue
    /// stops it with `CONFIG_WHILE_RUNNING`.
    RwStopped,
    /// Read; writing a one clears the bit.
    W1c,
    /// Write only: reads as zero.
    Wo,
}

impl Access {
    /// Abbreviation in the data sheet.
    pub const fn name(self) -> &'static str {
        match self {
            Access::Ro => "RO",
            Access::Rw => "RW",
            Access::RwStopped => "RWS",
            Access::W1c => "W1C",
            Access::Wo => "WO",
        }
    }
}

/// Value after reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// This value.
    Value(u32),
    /// Depends on how the card was configured.
    Config,
}

/// One register, or an array of like registers.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// Name in the data sheet.
    pub name: &'static str,
    /// Offset of the (first) register in its block.
    pub offset: u32,
    /// How it may be used.
    pub access: Access,
    /// Value after reset.
    pub reset: Reset,
    /// Number of registers; 1 for a single one.
    pub count: u32,
    /// Distance between the registers of an array in bytes.
    pub stride: u32,
    /// Width in bits: 32, or 64 for two slots of which the low half comes first.
    pub width: u32,
    /// The feature that the card must offer for the register to exist (a mask); 0: always there.
    pub feature: u64,
}

/// One bit with a meaning of its own, in one register or in several of the same layout.
#[derive(Clone, Copy, Debug)]
pub struct Bit {
    /// Name in the data sheet.
    pub name: &'static str,
    /// Names of the registers.
    pub registers: &'static [&'static str],
    /// Bit number.
    pub bit: u32,
}

/// Several adjacent bits of a register that hold a number.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in the data sheet.
    pub name: &'static str,
    /// Name of the register.
    pub register: &'static str,
    /// Highest bit.
    pub high: u32,
    /// Lowest bit.
    pub low: u32,
}

impl Field {
    /// The number that the field holds in this register value.
    pub const fn get(self, register: u32) -> u32 {
        (register >> self.low) & self.mask()
    }

    /// A register value with this number in the field and zero elsewhere. Bits of the number that
    /// do not fit are lost.
    pub const fn put(self, number: u32) -> u32 {
        (number & self.mask()) << self.low
    }

    const fn mask(self) -> u32 {
        u32::MAX >> (31 - (self.high - self.low))
    }
}

macro_rules! reset {
    (cfg) => {
        Reset::Config
    };
    ($value:expr) => {
        Reset::Value($value)
    };
}

macro_rules! registers {
    ($(#[$list_doc:meta])* $list:ident, $width:literal; $($(#[$doc:meta])* $name:ident $([$count:literal; $stride:literal])? @ $offset:literal, $access:ident, $reset:tt $(, $feature:ident)?;)*) => {
        $($(#[$doc])* pub const $name: u32 = $offset;)*

        $(#[$list_doc])*
        pub const $list: &[Register] = &[
            $(Register {
                name: stringify!($name),
                offset: $offset,
                access: Access::$access,
                reset: reset!($reset),
                count: 1 $(- 1 + $count)?,
                stride: $width / 8 $(- $width / 8 + $stride)?,
                width: $width,
                feature: 0 $(| super::features::$feature)?,
            },)*
        ];
    };
}

macro_rules! bits {
    ($(#[$list_doc:meta])* $list:ident; $($(#[$doc:meta])* $name:ident = $($register:ident)|+, $bit:literal;)*) => {
        $($(#[$doc])* pub const $name: u32 = 1 << $bit;)*

        $(#[$list_doc])*
        pub const $list: &[Bit] = &[
            $(Bit {
                name: stringify!($name),
                registers: &[$(stringify!($register)),+],
                bit: $bit,
            },)*
        ];
    };
}

macro_rules! fields {
    ($(#[$list_doc:meta])* $list:ident; $($(#[$doc:meta])* $name:ident = $register:ident, [$high:literal, $low:literal];)*) => {
        $($(#[$doc])* pub const $name: Field = Field {
            name: stringify!($name),
            register: stringify!($register),
            high: $high,
            low: $low,
        };)*

        $(#[$list_doc])*
        pub const $list: &[Field] = &[$($name,)*];
    };
}

constants! {
    /// Values and offsets that registers build on.
    CONSTANTS;
    /// Value of [`ID`]: "vnet" in ASCII.
    ID_VALUE: u32 = u32::from_le_bytes(*b"vnet");
    /// Value of [`VERSION`]: major number in the upper half, minor in the lower. A driver works
    /// with every card of the same major number.
    VERSION_VALUE: u32 = 0x0001_0000;
    /// Offset of the first queue block.
    QUEUE_BASE: u32 = 0x1000;
    /// Distance between queue blocks.
    QUEUE_STRIDE: u32 = 0x40;
    /// Offset of the first block of queue counters.
    STATS_BASE: u32 = 0x3000;
    /// Distance between blocks of queue counters.
    STATS_STRIDE: u32 = 0x40;
    /// All defined bits of `RX_MODE`.
    RX_MODE_MASK: u32 = RX_MODE_PROMISC | RX_MODE_ALLMULTI | RX_MODE_BROADCAST;
    /// All bits of `RX_OFFLOADS`: the features that let received frames carry offload metadata.
    RX_OFFLOADS_MASK: u32 = (super::features::RX_CSUM
        | super::features::RX_TSO4
        | super::features::RX_TSO6
        | super::features::RX_ECN
        | super::features::RX_USO) as u32;
    /// `LINK_SPEED`: not known.
    LINK_SPEED_UNKNOWN: u32 = u32::MAX;
    /// All defined bits of `EVENT_CAUSE` and `EVENT_ENABLE`.
    EVENT_MASK: u32 = EVENT_LINK | EVENT_QUEUE_ERROR | EVENT_FAILED;
    /// All defined bits of `RSS_HASH_TYPES` and `RSS_HASH_SUPPORTED`.
    RSS_HASH_MASK: u32 = RSS_HASH_IPV4
        | RSS_HASH_TCPV4
        | RSS_HASH_UDPV4
        | RSS_HASH_IPV6
        | RSS_HASH_TCPV6
        | RSS_HASH_UDPV6;
    /// `Q_STATUS`: lowest bit of the error code ([`super::queue::Error`]), which is 8 bits wide.
    Q_STATUS_CODE_SHIFT: u32 = Q_STATUS_CODE.low;
}

registers! {
    /// Registers of the card as a whole, offsets from the start of BAR 0.
    GLOBAL, 32;
    /// Identity: [`ID_VALUE`].
    ID @ 0x000, Ro, 0x7465_6e76;
    /// Version of this contract: [`VERSION_VALUE`].
    VERSION @ 0x004, Ro, 0x0001_0000;
    /// Control: `CTRL_*`. Each bit is a command: other bits are ignored, and it reads as zero.
    CTRL @ 0x008, Rw, 0;
    /// Status: `STATUS_*`.
    STATUS @ 0x00c, Ro, cfg;
    /// Features that the card offers, bits 31:0.
    DEVICE_FEATURES_LO @ 0x010, Ro, cfg;
    /// Features that the card offers, bits 63:32.
    DEVICE_FEATURES_HI @ 0x014, Ro, cfg;
    /// Features that the driver accepts, bits 31:0. Once the card has accepted a set
    /// (`STATUS_FEATURES_OK`), a write is illegal until reset.
    DRIVER_FEATURES_LO @ 0x018, Rw, 0;
    /// Features that the driver accepts, bits 63:32; locked like the lower half.
    DRIVER_FEATURES_HI @ 0x01c, Rw, 0;
    /// Number of queue pairs.
    QUEUE_PAIRS @ 0x020, Ro, cfg;
    /// Smallest ring size in bits 15:0, largest in bits 31:16.
    QUEUE_SIZE_LIMITS @ 0x024, Ro, 0x1000_0040;
    /// Number of MSI-X vectors.
    VECTORS @ 0x028, Ro, cfg;
    /// Smallest MTU in bits 15:0, largest in bits 31:16.
    MTU_LIMITS @ 0x02c, Ro, cfg;
    /// Permanent MAC address, bytes 0…3, byte 0 in bits 7:0.
    PERM_MAC_LO @ 0x030, Ro, cfg;
    /// Permanent MAC address, bytes 4 and 5.
    PERM_MAC_HI @ 0x034, Ro, cfg;
    /// MAC address in use, bytes 0…3; takes effect with the write to `MAC_HI`.
    MAC_LO @ 0x038, Rw, cfg;
    /// MAC address in use, bytes 4 and 5. A write that would make it a group address or zero is
    /// illegal.
    MAC_HI @ 0x03c, Rw, cfg;
    /// MTU in use: payload bytes of an untagged frame; a longer received frame is dropped unless
    /// it carries a segment size. A write outside `MTU_LIMITS` is illegal.
    MTU @ 0x040, Rw, 1500;
    /// Receive mode: `RX_MODE_*`.
    RX_MODE @ 0x044, Rw, 0;
    /// Link: `LINK_*`.
    LINK @ 0x048, Ro, cfg;
    /// Link speed in Mbit/s; all ones: unknown.
    LINK_SPEED @ 0x04c, Ro, cfg;
    /// What happened: `EVENT_*`.
    EVENT_CAUSE @ 0x050, W1c, 0;
    /// Which causes raise the control interrupt.
    EVENT_ENABLE @ 0x054, Rw, 0;
    /// MSI-X vector of the control interrupt; 0xffff: none, and what a vector that the card does
    /// not have is stored as.
    EVENT_VECTOR @ 0x058, Rw, 0xffff;
    /// Queues that stopped with an error (`Q_STATUS_ERROR`), one bit per queue index.
    QUEUE_ERRORS @ 0x05c, Ro, 0;
    /// Number of illegal register accesses since reset; stops at all ones.
    ILLEGAL_ACCESSES @ 0x060, Ro, 0;
    /// Receive offloads in use: accepted features of [`RX_OFFLOADS_MASK`], at their bits. Set to
    /// all of them when the card accepts a set of features; writable from then on.
    RX_OFFLOADS @ 0x064, Rw, 0;
    /// Card clock in nanoseconds, bits 31:0; reading it latches the upper half (`TIMESTAMP`).
    CLOCK_LO @ 0x080, Rw, 0, TIMESTAMP;
    /// Card clock in nanoseconds, bits 63:32; writing it sets the clock (`TIMESTAMP`).
    CLOCK_HI @ 0x084, Rw, 0, TIMESTAMP;
    /// Frequency correction in parts per 2^32, signed (`TIMESTAMP`).
    CLOCK_ADJ @ 0x088, Rw, 0, TIMESTAMP;
    /// Nanoseconds to add to the clock, signed, bits 31:0 (`TIMESTAMP`).
    CLOCK_STEP_LO @ 0x090, Wo, 0, TIMESTAMP;
    /// Nanoseconds to add to the clock, bits 63:32; writing it moves the clock (`TIMESTAMP`).
    CLOCK_STEP_HI @ 0x094, Wo, 0, TIMESTAMP;
    /// RSS control: `RSS_CTRL_*` (`RSS`).
    RSS_CTRL @ 0x400, Rw, 0, RSS;
    /// Hash types in use, `RSS_HASH_*` (`RSS`).
    RSS_HASH_TYPES @ 0x404, Rw, 0, RSS;
    /// Hash types that the card can compute (`RSS`).
    RSS_HASH_SUPPORTED @ 0x408, Ro, cfg, RSS;
    /// Number of indirection table entries (`RSS`).
    RSS_TABLE_SIZE @ 0x40c, Ro, cfg, RSS;
    /// Toeplitz key, 40 bytes, first byte in bits 7:0 of the first register (`RSS`).
    RSS_KEY [10; 4] @ 0x420, Rw, 0, RSS;
    /// Indirection table: four 8-bit queue pair numbers a register (`RSS`).
    RSS_TABLE [32; 4] @ 0x480, Rw, 0, RSS;
    /// Number of entries in the MAC filter table (`MAC_FILTER`).
    MAC_FILTER_SIZE @ 0x800, Ro, cfg, MAC_FILTER;
    /// MAC filter entry, bytes 0…3 (`MAC_FILTER`).
    MAC_FILTER_LO [64; 8] @ 0x900, Rw, 0, MAC_FILTER;
    /// MAC filter entry, bytes 4 and 5, and `MAC_FILTER_VALID`; takes effect with this write.
    MAC_FILTER_HI [64; 8] @ 0x904, Rw, 0, MAC_FILTER;
    /// VLAN ids to receive, one bit each (`VLAN_FILTER`).
    VLAN_FILTER [128; 4] @ 0xc00, Rw, 0, VLAN_FILTER;
    /// Doorbell of a queue, by queue index: bits 15:0 hold the new avail index.
    DOORBELL [32; 4] @ 0x2000, Wo, 0;
}

registers! {
    /// Registers of one queue, offsets from the start of its block.
    QUEUE, 32;
    /// Number of descriptors, a power of two.
    Q_SIZE @ 0x00, RwStopped, 256;
    /// Control: `Q_CTRL_*`.
    Q_CTRL @ 0x04, Rw, 0;
    /// Status: `Q_STATUS_*`.
    Q_STATUS @ 0x08, Ro, 0;
    /// MSI-X vector; 0xffff: none.
    Q_VECTOR @ 0x0c, RwStopped, 0xffff;
    /// Bus address of the descriptor table, bits 31:0.
    Q_DESC_LO @ 0x10, RwStopped, 0;
    /// Bus address of the descriptor table, bits 63:32.
    Q_DESC_HI @ 0x14, RwStopped, 0;
    /// Bus address of the avail ring, bits 31:0.
    Q_AVAIL_LO @ 0x18, RwStopped, 0;
    /// Bus address of the avail ring, bits 63:32.
    Q_AVAIL_HI @ 0x1c, RwStopped, 0;
    /// Bus address of the used ring, bits 31:0.
    Q_USED_LO @ 0x20, RwStopped, 0;
    /// Bus address of the used ring, bits 63:32.
    Q_USED_HI @ 0x24, RwStopped, 0;
    /// Both ring indices: next avail entry to fetch in bits 15:0, next used entry in bits 31:16.
    Q_INDEX @ 0x28, RwStopped, 0;
    /// What the error is about: the descriptor index or value that broke the rule.
    Q_ERROR_INFO @ 0x2c, Ro, 0;
    /// Moderation: microseconds in bits 15:0, frames in bits 31:16 (`MODERATION`).
    Q_MODERATION @ 0x30, Rw, 0, MODERATION;
    /// Transmit rate limit in Mbit/s; 0: none (`SHAPER`).
    Q_RATE @ 0x34, Rw, 0, SHAPER;
    /// Header split: `Q_SPLIT_*` (`HDR_SPLIT`).
    Q_SPLIT @ 0x38, RwStopped, 0, HDR_SPLIT;
}

registers! {
    /// Counters of one queue (`QUEUE_STATS`), offsets from the start of its block. Each is a
    /// 64-bit pair; reading the low half latches the high half. Reset clears them.
    STATS, 64;
    /// Frames carried.
    S_FRAMES @ 0x00, Ro, 0, QUEUE_STATS;
    /// Bytes carried, without per-packet headers.
    S_BYTES @ 0x08, Ro, 0, QUEUE_STATS;
    /// Frames dropped: no buffer, filter, backend full, too long.
    S_DROPS @ 0x10, Ro, 0, QUEUE_STATS;
    /// Times the queue stopped with an error.
    S_ERRORS @ 0x18, Ro, 0, QUEUE_STATS;
    /// Doorbells received.
    S_DOORBELLS @ 0x20, Ro, 0, QUEUE_STATS;
    /// Interrupts raised.
    S_INTERRUPTS @ 0x28, Ro, 0, QUEUE_STATS;
    /// Receive: frames that were lost since the driver had posted too few buffers, as far as the card
    /// knows; also in `S_DROPS`. Transmit: zero.
    S_MISSED @ 0x30, Ro, 0, QUEUE_STATS;
}

bits! {
    /// Bits with a meaning of their own.
    BITS;
    /// `CTRL`: reset the card; reads as zero once the reset is done, which is at the next read.
    CTRL_RESET = CTRL, 0;
    /// `CTRL`: check and lock `DRIVER_FEATURES`; answered by `STATUS_FEATURES_OK`.
    CTRL_COMMIT_FEATURES = CTRL, 1;
    /// `STATUS`: the card is ready for its driver.
    STATUS_READY = STATUS, 0;
    /// `STATUS`: the committed features were accepted.
    STATUS_FEATURES_OK = STATUS, 1;
    /// `STATUS`: the card has failed and needs a reset.
    STATUS_FAILED = STATUS, 2;
    /// `RX_MODE`: receive every frame.
    RX_MODE_PROMISC = RX_MODE, 0;
    /// `RX_MODE`: receive every multicast frame.
    RX_MODE_ALLMULTI = RX_MODE, 1;
    /// `RX_MODE`: receive broadcast frames.
    RX_MODE_BROADCAST = RX_MODE, 2;
    /// `LINK`: the link is up.
    LINK_UP = LINK, 0;
    /// `LINK`: the link is full duplex.
    LINK_FULL_DUPLEX = LINK, 1;
    /// `LINK` or `LINK_SPEED` changed.
    EVENT_LINK = EVENT_CAUSE | EVENT_ENABLE, 0;
    /// A queue stopped with an error; see `QUEUE_ERRORS`.
    EVENT_QUEUE_ERROR = EVENT_CAUSE | EVENT_ENABLE, 1;
    /// The card failed; see `STATUS_FAILED`.
    EVENT_FAILED = EVENT_CAUSE | EVENT_ENABLE, 2;
    /// `RSS_CTRL`: spread received frames by hash.
    RSS_CTRL_ENABLE = RSS_CTRL, 0;
    /// `RSS_CTRL`: symmetric hash (both directions of a flow give the same value): both addresses
    /// are replaced by their exclusive or before hashing, and both ports by theirs.
    RSS_CTRL_SYMMETRIC = RSS_CTRL, 1;
    /// IPv4 addresses.
    RSS_HASH_IPV4 = RSS_HASH_TYPES | RSS_HASH_SUPPORTED, 0;
    /// IPv4 addresses and TCP ports.
    RSS_HASH_TCPV4 = RSS_HASH_TYPES | RSS_HASH_SUPPORTED, 1;
    /// IPv4 addresses and UDP ports.
    RSS_HASH_UDPV4 = RSS_HASH_TYPES | RSS_HASH_SUPPORTED, 2;
    /// IPv6 addresses.
    RSS_HASH_IPV6 = RSS_HASH_TYPES | RSS_HASH_SUPPORTED, 3;
    /// IPv6 addresses and TCP ports.
    RSS_HASH_TCPV6 = RSS_HASH_TYPES | RSS_HASH_SUPPORTED, 4;
    /// IPv6 addresses and UDP ports.
    RSS_HASH_UDPV6 = RSS_HASH_TYPES | RSS_HASH_SUPPORTED, 5;
    /// `MAC_FILTER_HI`: the entry is in use.
    MAC_FILTER_VALID = MAC_FILTER_HI, 31;
    /// `Q_CTRL`: the queue runs. Clearing it stops the queue: when the next read of any register
    /// is answered, the card no longer touches the rings or buffers of the queue.
    Q_CTRL_ENABLE = Q_CTRL, 0;
    /// `Q_STATUS`: the queue runs.
    Q_STATUS_RUNNING = Q_STATUS, 0;
    /// `Q_STATUS`: the queue stopped with an error.
    Q_STATUS_ERROR = Q_STATUS, 1;
    /// `Q_SPLIT`: the first descriptor of each receive chain is a header buffer.
    Q_SPLIT_ENABLE = Q_SPLIT, 0;
}

fields! {
    /// Numbers that share a register with something else.
    FIELDS;
    /// Major number of the contract.
    VERSION_MAJOR = VERSION, [31, 16];
    /// Minor number of the contract.
    VERSION_MINOR = VERSION, [15, 0];
    /// Largest ring, in descriptors.
    QUEUE_SIZE_MAX = QUEUE_SIZE_LIMITS, [31, 16];
    /// Smallest ring, in descriptors.
    QUEUE_SIZE_MIN = QUEUE_SIZE_LIMITS, [15, 0];
    /// Largest MTU.
    MTU_MAX = MTU_LIMITS, [31, 16];
    /// Smallest MTU.
    MTU_MIN = MTU_LIMITS, [15, 0];
    /// The new avail index.
    DOORBELL_INDEX = DOORBELL, [15, 0];
    /// Error code ([`super::queue::Error`]); 0: none.
    Q_STATUS_CODE = Q_STATUS, [15, 8];
    /// Next used entry that the card writes.
    Q_INDEX_USED = Q_INDEX, [31, 16];
    /// Next avail entry that the card fetches.
    Q_INDEX_AVAIL = Q_INDEX, [15, 0];
    /// Used entries that end the wait for an interrupt; 0: no such limit (`MODERATION`).
    Q_MODERATION_FRAMES = Q_MODERATION, [31, 16];
    /// Microseconds that an interrupt may wait; 0: no wait (`MODERATION`).
    Q_MODERATION_USECS = Q_MODERATION, [15, 0];
}

/// Offset in BAR 0 of a register of a queue.
#[inline]
pub const fn queue_reg(queue: u16, reg: u32) -> u32 {
    QUEUE_BASE + queue as u32 * QUEUE_STRIDE + reg
}

/// Offset in BAR 0 of the low half of a counter of a queue.
#[inline]
pub const fn stats_reg(queue: u16, reg: u32) -> u32 {
    STATS_BASE + queue as u32 * STATS_STRIDE + reg
}

/// Offset in BAR 0 of the doorbell of a queue.
#[inline]
pub const fn doorbell_reg(queue: u16) -> u32 {
    DOORBELL + queue as u32 * 4
}

/// Splits a MAC address into the values of a `_LO`/`_HI` pair.
pub const fn mac_to_regs(mac: [u8; 6]) -> (u32, u32) {
    (
        u32::from_le_bytes([mac[0], mac[1], mac[2], mac[3]]),
        u32::from_le_bytes([mac[4], mac[5], 0, 0]),
    )
}

/// Reads back what [`mac_to_regs`] gives; the upper half of `hi` is ignored.
pub const fn mac_from_regs(lo: u32, hi: u32) -> [u8; 6] {
    let l = lo.to_le_bytes();
    let h = hi.to_le_bytes();
    [l[0], l[1], l[2], l[3], h[0], h[1]]
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::pci;
    use std::vec::Vec;

    /// Every 4-byte slot that a register takes, in BAR 0.
    fn slots() -> Vec<(u32, &'static str)> {
        let mut v = Vec::new();
        let mut put = |base: u32, list: &'static [Register]| {
            for r in list {
                for i in 0..r.count {
                    for half in 0..r.width / 32 {
                        v.push((base + r.offset + i * r.stride + half * 4, r.name));
                    }
                }
            }
        };
        put(0, GLOBAL);
        for q in 0..u32::from(pci::MAX_QUEUES) {
            put(QUEUE_BASE + q * QUEUE_STRIDE, QUEUE);
            put(STATS_BASE + q * STATS_STRIDE, STATS);
        }
        v.sort_unstable();
        v
    }

    #[test]
    fn registers_are_aligned_apart_and_inside_the_bar() {
        let s = slots();
        for w in s.windows(2) {
            assert!(
                w[0].0 != w[1].0,
                "{} and {} share {:#x}",
                w[0].1,
                w[1].1,
                w[0].0
            );
        }
        for (offset, name) in s {
            assert!(
                offset % 4 == 0 && u64::from(offset) < pci::BAR_REGS_SIZE,
                "{name} at {offset:#x}"
            );
        }
    }

    #[test]
    fn constants_match_the_table() {
        let reset = |name| GLOBAL.iter().find(|r| r.name == name).unwrap().reset;
        assert_eq!(reset("ID"), Reset::Value(ID_VALUE));
        assert_eq!(reset("VERSION"), Reset::Value(VERSION_VALUE));
        let limits = u32::from(crate::queue::MIN_SIZE) | u32::from(crate::queue::MAX_SIZE) << 16;
        assert_eq!(reset("QUEUE_SIZE_LIMITS"), Reset::Value(limits));
        assert_eq!(doorbell_reg(31), 0x207c);
        assert_eq!(queue_reg(1, Q_CTRL), 0x1044);
    }

    #[test]
    fn bits_and_fields_lie_apart_in_registers_that_exist() {
        let all = || GLOBAL.iter().chain(QUEUE);
        for r in all() {
            let bits = BITS
                .iter()
                .filter(|b| b.registers.contains(&r.name))
                .map(|b| 1 << b.bit);
            let fields = FIELDS
                .iter()
                .filter(|f| f.register == r.name)
                .map(|f| f.put(u32::MAX));
            let mut taken = 0;
            for mask in bits.chain(fields) {
                assert_eq!(taken & mask, 0, "{}", r.name);
                taken |= mask;
            }
        }
        let named = BITS.iter().flat_map(|b| b.registers.iter().copied());
        for name in named.chain(FIELDS.iter().map(|f| f.register)) {
            assert!(all().any(|r| r.name == name), "{name}");
        }
    }

    #[test]
    fn fields_round_trip() {
        assert_eq!(Q_INDEX_USED.get(0x1234_5678), 0x1234);
        assert_eq!(Q_INDEX_AVAIL.get(0x1234_5678), 0x5678);
        assert_eq!(Q_STATUS_CODE.put(0x1ff), 0xff00);
        let whole = Field {
            high: 31,
            low: 0,
            ..DOORBELL_INDEX
        };
        assert_eq!(whole.get(whole.put(u32::MAX)), u32::MAX);
    }

    #[test]
    fn mac_round_trips() {
        let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        assert_eq!(mac_to_regs(mac), (0x1200_5452, 0x5634));
        assert_eq!(mac_from_regs(0x1200_5452, 0xffff_5634), mac);
    }
}
