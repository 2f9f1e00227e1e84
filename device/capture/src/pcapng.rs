// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The blocks of a file: draft-ietf-opsawg-pcapng. All numbers are in the byte order of this machine,
//! which the section header tells.

/// Block types (section 4).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// Byte-order magic (4.1), and a section whose length nobody knows.
const MAGIC: u32 = 0x1a2b_3c4d;
const UNKNOWN_LENGTH: u64 = u64::MAX;

/// Option codes: of every block (3.5), of a section (4.1), of an interface (4.2), of a packet (4.3) and of
/// statistics (4.6).
const END: u16 = 0;
const COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_MACADDR: u16 = 6;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const EPB_HASH: u16 = 3;
const EPB_DROPCOUNT: u16 = 4;
const EPB_PACKETID: u16 = 5;
const EPB_QUEUE: u16 = 6;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// Link types (registry of the same working group).
pub(crate) const ETHERNET: u16 = 1;
/// For what nobody else knows: events, as text.
pub(crate) const USER0: u16 = 147;

/// `epb_hash`: the algorithm of receive side scaling.
const TOEPLITZ: u8 = 5;

/// Blocks that are to be written.
#[derive(Debug, Default)]
pub(crate) struct Blocks(Vec<u8>);

/// An interface.
pub(crate) struct Interface<'a> {
    pub(crate) link: u16,
    pub(crate) snaplen: u32,
    pub(crate) name: &'a str,
    pub(crate) description: &'a str,
    pub(crate) mac: Option<[u8; 6]>,
}

/// A packet.
pub(crate) struct Packet<'a> {
    pub(crate) interface: u32,
    /// Nanoseconds since 1970.
    pub(crate) time: u64,
    pub(crate) bytes: &'a [u8],
    pub(crate) len: u32,
    pub(crate) comment: &'a str,
    pub(crate) origin: Option<Origin>,
}

/// The place of a frame in the card.
pub(crate) struct Origin {
    /// From the guest; else to it.
    pub(crate) outbound: bool,
    /// Number of the pair.
    pub(crate) pair: u16,
    pub(crate) id: u64,
    pub(crate) dropped: u32,
    pub(crate) hash: Option<u32>,
}

/// What became of the packets of an interface.
pub(crate) struct Statistics {
    pub(crate) interface: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) seen: u64,
    pub(crate) dropped: u64,
}

impl Blocks {
    /// What is to be written.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn section(&mut self) {
        self.block(SECTION_HEADER, |b| {
            b.u32(MAGIC);
            // Version 1.0.
            b.u16(1);
            b.u16(0);
            b.u64(UNKNOWN_LENGTH);
            let program = concat!("vnetd ", env!("CARGO_PKG_VERSION"));
            b.option(SHB_USERAPPL, &[program.as_bytes()]);
        });
    }

    pub(crate) fn interface(&mut self, interface: &Interface<'_>) {
        self.block(INTERFACE, |b| {
            b.u16(interface.link);
            b.u16(0);
            b.u32(interface.snaplen);
            b.option(IF_NAME, &[interface.name.as_bytes()]);
            b.option(IF_DESCRIPTION, &[interface.description.as_bytes()]);
            if let Some(mac) = &interface.mac {
                b.option(IF_MACADDR, &[mac]);
            }
            // Units of 10^-9 seconds.
            b.option(IF_TSRESOL, &[&[9]]);
        });
    }

    pub(crate) fn packet(&mut self, packet: &Packet<'_>) {
        self.block(PACKET, |b| {
            b.u32(packet.interface);
            b.time(packet.time);
            // No frame is that long.
            b.u32(packet.bytes.len() as u32);
            b.u32(packet.len);
            b.0.extend_from_slice(packet.bytes);
            b.pad();
            if let Some(origin) = &packet.origin {
                let direction: u32 = if origin.outbound { 2 } else { 1 };
                b.option(EPB_FLAGS, &[&direction.to_ne_bytes()]);
                if let Some(hash) = origin.hash {
                    b.option(EPB_HASH, &[&[TOEPLITZ], &hash.to_ne_bytes()]);
                }
                if origin.dropped != 0 {
                    let dropped = u64::from(origin.dropped);
                    b.option(EPB_DROPCOUNT, &[&dropped.to_ne_bytes()]);
                }
                b.option(EPB_PACKETID, &[&origin.id.to_ne_bytes()]);
                b.option(EPB_QUEUE, &[&u32::from(origin.pair).to_ne_bytes()]);
            }
            b.option(COMMENT, &[packet.comment.as_bytes()]);
        });
    }

    pub(crate) fn statistics(&mut self, statistics: &Statistics) {
        self.block(STATISTICS, |b| {
            b.u32(statistics.interface);
            b.time(statistics.end);
            for (code, time) in [
                (ISB_STARTTIME, statistics.start),
                (ISB_ENDTIME, statistics.end),
            ] {
                let [high, low] = halves(time);
                b.option(code, &[&high.to_ne_bytes(), &low.to_ne_bytes()]);
            }
            b.option(ISB_IFRECV, &[&statistics.seen.to_ne_bytes()]);
            b.option(ISB_IFDROP, &[&statistics.dropped.to_ne_bytes()]);
        });
    }

    /// A block with this body, of which options are the last part.
    fn block(&mut self, kind: u32, body: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.u32(kind);
        self.u32(0);
        body(self);
        self.u16(END);
        self.u16(0);
        // Longer than a packet by its options, which are short.
        let len = (self.0.len() - start + 4) as u32;
        self.u32(len);
        self.0[start + 4..start + 8].copy_from_slice(&len.to_ne_bytes());
    }

    fn option(&mut self, code: u16, value: &[&[u8]]) {
        let mut left = usize::from(u16::MAX);
        let len: usize = value.iter().map(|part| part.len()).sum();
        self.u16(code);
        self.u16(len.min(left) as u16);
        for part in value {
            let part = &part[..part.len().min(left)];
            self.0.extend_from_slice(part);
            left -= part.len();
        }
        self.pad();
    }

    fn time(&mut self, time: u64) {
        let [high, low] = halves(time);
        self.u32(high);
        self.u32(low);
    }

    fn pad(&mut self) {
        // Blocks begin at multiples of four.
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }

    fn u16(&mut self, n: u16) {
        self.0.extend_from_slice(&n.to_ne_bytes());
    }

    fn u32(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_ne_bytes());
    }

    fn u64(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_ne_bytes());
    }
}

fn halves(time: u64) -> [u32; 2] {
    [(time >> 32) as u32, time as u32]
}
