// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A snapshot that workers of different versions can read.
//!
//! It is a sequence of records: a tag, a length, and numbers of fixed width in a fixed order. The
//! rules that let an older and a newer worker hand over to each other:
//!
//! - what a record means never changes. New numbers are appended to it, or get a record of their own;
//! - a reader skips records that it does not know, and numbers behind those that it knows;
//! - a number that a record does not have reads as zero, so that zero has to stand for the behaviour
//!   before there was such a number.
//!
//! A change that does not fit these rules raises the version that a reader has to know, and a reader
//! that does not know it refuses ([`Reader::new`]): the one change that cannot be handed over.

/// The version that [`Writer`] asks a reader to know.
const NEEDS: u16 = 1;
/// The latest version that [`Reader`] knows.
const KNOWS: u16 = 1;

/// Writes records.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Where the length of the last record stands.
    length_at: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// Starts with no record.
    pub fn new() -> Self {
        Self {
            bytes: NEEDS.to_le_bytes().into(),
            length_at: 0,
        }
    }

    /// Begins a record.
    pub fn record(&mut self, tag: u16) -> &mut Self {
        self.close();
        self.bytes.extend(tag.to_le_bytes());
        self.length_at = self.bytes.len();
        self.bytes.extend([0; 4]);
        self
    }

    /// Appends a number to the record.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends a number to the record.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends a number to the record.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends a truth value to the record.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.put(&[value.into()])
    }

    /// Appends bytes, as many as the reader expects.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        debug_assert_ne!(self.length_at, 0, "no record was begun");
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// All records.
    pub fn finish(mut self) -> Vec<u8> {
        self.close();
        self.bytes
    }

    fn close(&mut self) {
        if self.length_at != 0 {
            let start = self.length_at + 4;
            let len = (self.bytes.len() - start) as u32;
            self.bytes[self.length_at..start].copy_from_slice(&len.to_le_bytes());
        }
    }
}

/// Reads records, in the order in which they were written.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// `None` if the writer made use of something that this reader would get wrong.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (needs, bytes) = bytes.split_first_chunk()?;
        (u16::from_le_bytes(*needs) <= KNOWS).then_some(Self { bytes })
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = (u16, Fields<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (tag, rest) = self.bytes.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (bytes, rest) = rest.split_at_checked(len)?;
        self.bytes = rest;
        Some((u16::from_le_bytes(*tag), Fields { bytes }))
    }
}

/// The numbers of a record.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    /// The next number.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// The next number.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// The next number.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// The next truth value.
    pub fn bool(&mut self) -> bool {
        self.array() != [0]
    }

    /// The next bytes; zeros where the record ends.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (head, rest) = self.bytes.split_at(self.bytes.len().min(N));
        array[..head.len()].copy_from_slice(head);
        self.bytes = rest;
        array
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new();
        writer.record(7).u64(1 << 40).u32(3).u16(5).bool(true);
        writer.record(9);
        writer.record(7).put(&[1, 2, 3]).bool(false);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes).unwrap();
        let (tag, mut first) = reader.next().unwrap();
        assert_eq!(tag, 7);
        let numbers = (first.u64(), first.u32(), first.u16(), first.bool());
        assert_eq!(numbers, (1 << 40, 3, 5, true));
        assert_eq!(reader.next().map(|(tag, _)| tag), Some(9));
        let (_, mut last) = reader.next().unwrap();
        assert_eq!((last.array(), last.bool()), ([1, 2, 3], false));
        assert!(reader.next().is_none());
    }

    #[test]
    fn an_older_record_reads_as_zero_behind_its_end() {
        let mut writer = Writer::new();
        writer.record(1).u16(0x1234);
        writer.record(2).u64(u64::MAX);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes).unwrap();
        let (_, mut fields) = reader.next().unwrap();
        assert_eq!(
            (fields.u16(), fields.u64(), fields.bool()),
            (0x1234, 0, false)
        );
        // Of a newer one, the numbers that are known are read.
        let (_, mut fields) = reader.next().unwrap();
        assert_eq!(fields.u32(), u32::MAX);
        assert!(reader.next().is_none());
    }

    #[test]
    fn a_writer_can_ask_for_a_reader_that_understands_it() {
        let mut bytes = Writer::new().finish();
        assert!(Reader::new(&bytes).is_some());
        bytes[0] += 1;
        assert!(Reader::new(&bytes).is_none());
        assert!(Reader::new(&[]).is_none());
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_do_no_harm(bytes: Vec<u8>) {
            for (_, mut fields) in Reader::new(&bytes).into_iter().flatten() {
                let _ = (fields.u16(), fields.u64(), fields.array::<100>());
            }
        }
    }
}
