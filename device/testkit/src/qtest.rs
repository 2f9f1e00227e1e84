// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! QEMU's test protocol: a line for each access of a CPU, and a line in answer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use crate::{Error, Result, LIMIT};

/// Port of the address of a configuration access.
const CONFIG_ADDRESS: u16 = 0xcf8;
/// Port of its data.
const CONFIG_DATA: u16 = 0xcfc;

/// The CPU that is not there.
#[derive(Debug)]
pub struct Qtest {
    reader: BufReader<UnixStream>,
}

impl Qtest {
    /// Takes over QEMU's connection.
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self {
            reader: BufReader::new(stream),
        })
    }

    /// Sends a command and returns what follows `OK`.
    fn command(&mut self, line: &str) -> Result<String> {
        let stream = self.reader.get_mut();
        stream.write_all(format!("{line}\n").as_bytes())?;
        loop {
            let mut answer = String::new();
            if self.reader.read_line(&mut answer)? == 0 {
                return Err(Error::Answer(format!("qtest ended at: {line}")));
            }
            let answer = answer.trim_end();
            if answer.starts_with("IRQ ") {
                continue;
            }
            return match answer.strip_prefix("OK") {
                Some(rest) => Ok(rest.trim_start().to_owned()),
                None => Err(Error::Answer(format!("qtest: {line}: {answer}"))),
            };
        }
    }

    fn number(&mut self, line: &str) -> Result<u64> {
        let answer = self.command(line)?;
        let digits = answer.trim_start_matches("0x");
        u64::from_str_radix(digits, 16)
            .map_err(|_| Error::Answer(format!("qtest: {line}: {answer}")))
    }

    /// Reads 4 bytes of memory.
    pub fn read32(&mut self, addr: u64) -> Result<u32> {
        Ok(self.number(&format!("readl {addr:#x}"))? as u32)
    }

    /// Reads 8 bytes of memory.
    pub fn read64(&mut self, addr: u64) -> Result<u64> {
        self.number(&format!("readq {addr:#x}"))
    }

    /// Writes 4 bytes of memory.
    pub fn write32(&mut self, addr: u64, value: u32) -> Result<()> {
        self.command(&format!("writel {addr:#x} {value:#x}"))
            .map(drop)
    }

    /// Writes 8 bytes of memory.
    pub fn write64(&mut self, addr: u64, value: u64) -> Result<()> {
        self.command(&format!("writeq {addr:#x} {value:#x}"))
            .map(drop)
    }

    /// Reads memory.
    pub fn read(&mut self, addr: u64, len: usize) -> Result<Vec<u8>> {
        let line = format!("read {addr:#x} {len:#x}");
        let answer = self.command(&line)?;
        let digits = answer.trim_start_matches("0x").as_bytes();
        digits
            .chunks(2)
            .map(|pair| {
                std::str::from_utf8(pair)
                    .ok()
                    .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                    .ok_or_else(|| Error::Answer(format!("qtest: {line}: {answer}")))
            })
            .collect()
    }

    /// Writes memory.
    pub fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<()> {
        let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        self.command(&format!("write {addr:#x} {:#x} 0x{digits}", bytes.len()))
            .map(drop)
    }

    /// Reads 4 bytes of configuration space.
    pub(crate) fn config_read(&mut self, address: u32) -> Result<u32> {
        self.command(&format!("outl {CONFIG_ADDRESS:#x} {address:#x}"))?;
        Ok(self.number(&format!("inl {CONFIG_DATA:#x}"))? as u32)
    }

    /// Writes configuration space: `width` is `b`, `w` or `l`, `lane` the byte in the register.
    pub(crate) fn config_write(
        &mut self,
        address: u32,
        width: char,
        lane: u16,
        value: u32,
    ) -> Result<()> {
        self.command(&format!("outl {CONFIG_ADDRESS:#x} {address:#x}"))?;
        let port = CONFIG_DATA + lane;
        self.command(&format!("out{width} {port:#x} {value:#x}"))
            .map(drop)
    }
}
