// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The frames of a file.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use pcap_parser::{create_reader, Block, Linktype, PcapBlockOwned, PcapError};
use vnet_backend::MAX_FRAME;

/// Most bytes of frames.
pub const MAX_BYTES: usize = 1 << 30;
/// Longest block of a file: more than any frame's.
const MAX_BLOCK: usize = 1 << 20;
/// Shortest frame: an Ethernet header.
const MIN_FRAME: usize = 14;
/// Most interfaces of a section.
const MAX_INTERFACES: usize = 1024;
/// Nanoseconds of a second.
const NANOS: u128 = 1_000_000_000;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum BadCapture {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is something else, or broken.
    #[error("not a capture in pcap or pcapng format, or damaged after {frames} frames: {why}")]
    Format {
        /// How many frames were good.
        frames: usize,
        /// What the parser says.
        why: String,
    },
    /// Its frames are not Ethernet's.
    #[error("captured on link type {0}, not on Ethernet (1)")]
    Link(i32),
    /// There is nothing in it that a card could receive.
    #[error("no frame in it is whole and of 14 to {MAX_FRAME} bytes")]
    Empty,
    /// It is too large to be kept in memory.
    #[error("more than {MAX_BYTES} bytes of frames")]
    TooLarge,
}

/// Frames with the time since the first one.
#[derive(Debug, Default)]
pub struct Capture {
    bytes: Vec<u8>,
    /// Where each ends, and when it comes.
    frames: Vec<(usize, Duration)>,
    skipped: usize,
}

impl Capture {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, BadCapture> {
        Self::read(File::open(path)?)
    }

    /// Reads a stream to its end.
    pub fn read(stream: impl io::Read + Send) -> Result<Self, BadCapture> {
        let mut reader = create_reader(MAX_BLOCK, Whole(stream)).map_err(|error| match error {
            PcapError::ReadError => io::Error::other("cannot be read").into(),
            error => damaged(0, &error),
        })?;
        let mut state = State::default();
        loop {
            let refill = match reader.next() {
                Ok((len, block)) => {
                    state.block(block)?;
                    reader.consume(len);
                    continue;
                }
                Err(PcapError::Eof) => break,
                Err(PcapError::Incomplete(_)) => true,
                Err(error) => return Err(damaged(state.count(), &error)),
            };
            let exhausted = reader.reader_exhausted();
            if refill && exhausted {
                return Err(damaged(state.count(), &PcapError::<&[u8]>::UnexpectedEof));
            }
            if let Err(error) = reader.refill() {
                return Err(damaged(state.count(), &error));
            }
        }
        match state.capture.frames.is_empty() {
            true => Err(BadCapture::Empty),
            false => Ok(state.capture),
        }
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// True if there is no frame.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames of the file that no card could receive: not whole, too short or too long.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// A frame, and when it comes after the first.
    pub fn frame(&self, index: usize) -> Option<(&[u8], Duration)> {
        let (end, time) = *self.frames.get(index)?;
        let before = index.checked_sub(1).and_then(|n| self.frames.get(n));
        let start = before.map_or(0, |(end, _)| *end);
        Some((self.bytes.get(start..end)?, time))
    }
}

/// Reads as much as is wanted, if there is as much. What comes first of a pipe may be less than the first
/// block, and the parser would not know it.
struct Whole<R>(R);

impl<R: io::Read> io::Read for Whole<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < to.len() {
            match self.0.read(&mut to[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

/// Without the bytes at which the parser stopped.
fn damaged<I>(frames: usize, error: &PcapError<I>) -> BadCapture {
    let why = match error {
        PcapError::Eof | PcapError::UnexpectedEof | PcapError::Incomplete(_) => "it ends too early",
        PcapError::BufferTooSmall => "a block is longer than 1 MiB",
        PcapError::HeaderNotRecognized => "the header is neither's",
        PcapError::ReadError => "it cannot be read",
        PcapError::NomError(..) | PcapError::OwnedNomError(..) => "a block is not what it says",
    };
    BadCapture::Format {
        frames,
        why: why.into(),
    }
}

#[derive(Default)]
struct State {
    capture: Capture,
    /// Units of a second of a pcap file.
    legacy: u128,
    /// The same for each interface of the section, with its offset in seconds.
    interfaces: Vec<(u128, i64)>,
    /// When the first frame came, and the last.
    first: Option<i128>,
    last: Duration,
}

impl State {
    fn count(&self) -> usize {
        self.capture.frames.len() + self.capture.skipped
    }

    fn block(&mut self, block: PcapBlockOwned<'_>) -> Result<(), BadCapture> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                ethernet(header.network)?;
                self.legacy = match header.is_nanosecond_precision() {
                    true => NANOS,
                    false => 1_000_000,
                };
                Ok(())
            }
            PcapBlockOwned::Legacy(block) => {
                let nanos = u128::from(block.ts_sec) * NANOS
                    + u128::from(block.ts_usec) * NANOS / self.legacy.max(1);
                self.frame(
                    block.data.get(..block.caplen as usize),
                    block.origlen,
                    Some(nanos as i128),
                )
            }
            PcapBlockOwned::NG(block) => self.ng(&block),
        }
    }

    fn ng(&mut self, block: &Block<'_>) -> Result<(), BadCapture> {
        match block {
            Block::SectionHeader(_) => self.interfaces.clear(),
            Block::InterfaceDescription(interface) => {
                ethernet(interface.linktype)?;
                let units = interface.ts_resolution().map(u128::from);
                match (units, self.interfaces.len() < MAX_INTERFACES) {
                    (Some(units), true) => {
                        self.interfaces.push((units, interface.ts_offset()));
                    }
                    _ => {
                        let why = "its times or its interfaces are more than odd".into();
                        let frames = self.count();
                        return Err(BadCapture::Format { frames, why });
                    }
                }
            }
            Block::EnhancedPacket(packet) => {
                let interface = self.interfaces.get(packet.if_id as usize);
                let time = interface.map(|(units, offset)| {
                    let time = u128::from(packet.ts_high) << 32 | u128::from(packet.ts_low);
                    (time * NANOS / units) as i128 + i128::from(*offset) * NANOS as i128
                });
                return self.frame(
                    packet.data.get(..packet.caplen as usize),
                    packet.origlen,
                    time,
                );
            }
            Block::SimplePacket(packet) => {
                let len = packet.origlen as usize;
                return self.frame(packet.data.get(..len), packet.origlen, None);
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds a frame. Without a time it comes with the one before.
    fn frame(
        &mut self,
        bytes: Option<&[u8]>,
        len: u32,
        nanos: Option<i128>,
    ) -> Result<(), BadCapture> {
        let whole = bytes.filter(|bytes| {
            bytes.len() == len as usize && (MIN_FRAME..=MAX_FRAME).contains(&bytes.len())
        });
        let Some(bytes) = whole else {
            self.capture.skipped += 1;
            return Ok(());
        };
        if self.capture.bytes.len() + bytes.len() > MAX_BYTES {
            return Err(BadCapture::TooLarge);
        }
        if let Some(nanos) = nanos {
            let first = *self.first.get_or_insert(nanos);
            // Frames of several interfaces may be a bit out of order: never back.
            let since = u64::try_from(nanos.saturating_sub(first)).unwrap_or(0);
            self.last = self.last.max(Duration::from_nanos(since));
        }
        self.capture.bytes.extend_from_slice(bytes);
        let end = self.capture.bytes.len();
        self.capture.frames.push((end, self.last));
        Ok(())
    }
}

fn ethernet(link: Linktype) -> Result<(), BadCapture> {
    match link {
        Linktype::ETHERNET => Ok(()),
        Linktype(other) => Err(BadCapture::Link(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn le(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    /// A pcap file with frames of these lengths, each 1.5 s after the one before.
    fn pcap(nanos: bool, lens: &[usize]) -> Vec<u8> {
        let magic = if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let unit = if nanos { 1_000_000_000 } else { 1_000_000 };
        let mut file = le(&[magic, 0x0004_0002, 0, 0, 65_535, 1]);
        for (n, len) in (0u32..).zip(lens) {
            let half = 3 * n;
            let len32 = *len as u32;
            file.extend(le(&[1000 + half / 2, half % 2 * (unit / 2), len32, len32]));
            file.extend(vec![n as u8; *len]);
        }
        file
    }

    /// A block of a pcapng file.
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let len = 12 + body.len() as u32;
        [le(&[kind, len]), body, le(&[len])].concat()
    }

    /// The same frames in a pcapng file, with times in nanoseconds.
    fn pcapng(lens: &[usize]) -> Vec<u8> {
        let header = [le(&[0x1a2b_3c4d, 1]), vec![0xff; 8]].concat();
        // Option if_tsresol: 10^-9.
        let interface = [le(&[1, 65_535]), le(&[0x0001_0009, 9, 0])].concat();
        let mut file = [block(0x0a0d_0d0a, &header), block(1, &interface)].concat();
        for (n, len) in (0u64..).zip(lens) {
            let time = 1_000_000_000_000 + n * 1_500_000_000;
            let len32 = *len as u32;
            let fixed = le(&[0, (time >> 32) as u32, time as u32, len32, len32]);
            file.extend(block(6, &[fixed, vec![n as u8; *len]].concat()));
        }
        file
    }

    #[test]
    fn both_formats_say_the_same() {
        let lens = [60, 1514, 13, 65_553, 65_554, 14];
        for file in [pcap(false, &lens), pcap(true, &lens), pcapng(&lens)] {
            let capture = Capture::read(&file[..]).unwrap();
            assert_eq!((capture.len(), capture.skipped()), (4, 2));
            for (index, n) in [0usize, 1, 3, 5].into_iter().enumerate() {
                let (bytes, time) = capture.frame(index).unwrap();
                assert_eq!(bytes, vec![n as u8; lens[n]]);
                assert_eq!(time, Duration::from_millis(1500 * n as u64));
            }
            assert!(capture.frame(4).is_none());
        }
    }

    #[test]
    fn what_is_damaged_is_refused_wherever_it_is() {
        let lens = [60, 100];
        for file in [pcap(false, &lens), pcapng(&lens)] {
            for len in 0..file.len() {
                // At the border of a record, a pcap file is just shorter.
                match Capture::read(&file[..len]) {
                    Ok(capture) => assert_eq!(capture.len(), 1, "{len}"),
                    Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
                }
            }
            for at in 0..file.len() {
                for bit in 0..8 {
                    let mut file = file.clone();
                    file[at] ^= 1 << bit;
                    let _ = Capture::read(&file[..]);
                }
            }
        }
        let mut wlan = pcap(false, &lens);
        wlan[20] = 105;
        let error = Capture::read(&wlan[..]).unwrap_err().to_string();
        assert_eq!(error, "captured on link type 105, not on Ethernet (1)");
        let none = Capture::read(&pcap(false, &[3])[..]).unwrap_err();
        assert!(matches!(none, BadCapture::Empty));
        let text = Capture::read(&b"this is no capture at all, but text"[..]).unwrap_err();
        assert!(
            text.to_string().contains("the header is neither's"),
            "{text}"
        );
    }
}
