// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! QEMU without a guest.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use tempfile::TempDir;

use crate::{Error, Process, Qtest, Result, LIMIT};

/// Where the root port sits.
const PORT: Function = Function {
    bus: 0,
    device: 4,
    function: 0,
};
/// Where the card sits, once the port is programmed.
const CARD: Function = Function {
    bus: 1,
    device: 0,
    function: 0,
};
/// The machine's memory, handed to the card by descriptor.
const SHARED_MEMORY: &str = "memory-backend-memfd,id=mem,size=64M,share=on";
/// Memory window of the root port: 1 MiB.
const WINDOW: u32 = 0xe000_0000;

/// A QEMU machine with a root port, no guest, and a stopped CPU whose part the test plays.
#[derive(Debug)]
pub struct Qemu {
    /// The process.
    pub process: Process,
    /// Memory and ports as the CPU sees them.
    pub cpu: Qtest,
    monitor: BufReader<UnixStream>,
    _dir: TempDir,
}

impl Qemu {
    /// The QEMU that `VNET_QEMU` names. Without one a test has nothing to run: it says so and ends.
    pub fn program() -> Option<OsString> {
        static SAID: Once = Once::new();
        let program = std::env::var_os("VNET_QEMU");
        if program.is_none() {
            // Past the harness, which shows what a test prints only if it fails.
            SAID.call_once(|| {
                let _ = writeln!(
                    std::io::stderr(),
                    "skip qtest: VNET_QEMU does not name a QEMU with vfio-user-pci"
                );
            });
        }
        program
    }

    /// Starts QEMU with the card behind `socket` in the root port, or with an empty port.
    pub fn start(program: &OsString, socket: Option<&Path>, more: &[&str]) -> Result<Self> {
        let memory = ["-object", SHARED_MEMORY, "-machine", "memory-backend=mem"];
        Self::start_raw(program, socket, &[&memory, more].concat())
    }

    /// Like [`Self::start`], with memory that QEMU keeps to itself.
    pub fn start_unshared(program: &OsString, socket: &Path) -> Result<Self> {
        Self::start_raw(program, Some(socket), &[])
    }

    fn start_raw(program: &OsString, socket: Option<&Path>, more: &[&str]) -> Result<Self> {
        let dir = TempDir::new()?;
        let qtest = UnixListener::bind(dir.path().join("qtest"))?;
        let monitor = UnixListener::bind(dir.path().join("qmp"))?;
        let path = |name: &str| format!("unix:{}", dir.path().join(name).display());
        let mut command = Command::new(program);
        command
            .args(["-S", "-accel", "tcg", "-nodefaults", "-display", "none"])
            .args(["-machine", "q35", "-m", "64M"])
            .args(["-qtest", &path("qtest"), "-qtest-log", "/dev/null"])
            .args(["-qmp", &path("qmp")])
            .args(more)
            .args([
                "-device",
                "pcie-root-port,id=rp0,slot=1,chassis=1,bus=pcie.0,addr=4.0",
            ]);
        if let Some(socket) = socket {
            command.args(["-device", &device(socket).to_string()]);
        }
        let mut process = Process::start(&mut command)?;
        let cpu = Qtest::new(accept(&qtest, &mut process)?)?;
        let monitor = accept(&monitor, &mut process)?;
        monitor.set_read_timeout(Some(LIMIT))?;
        let mut qemu = Self {
            process,
            cpu,
            monitor: BufReader::new(monitor),
            _dir: dir,
        };
        qemu.execute("qmp_capabilities", json!({}))?;
        Ok(qemu)
    }

    /// Runs a command of QEMU's monitor and returns its result.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        self.monitor.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut answer = String::new();
            if self.monitor.read_line(&mut answer)? == 0 {
                return Err(Error::Answer(format!("QEMU ended at: {line}")));
            }
            let mut answer: Value = serde_json::from_str(&answer)
                .map_err(|e| Error::Answer(format!("{answer}: {e}")))?;
            if let Some(error) = answer.get("error") {
                return Err(Error::Answer(format!("{line}: {error}")));
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            // The greeting, or an event.
        }
    }

    /// Plugs the card behind `socket` into the empty root port and switches the slot on.
    pub fn plug(&mut self, socket: &Path) -> Result<()> {
        self.execute("device_add", device(socket))?;
        let cap = PORT.capability(&mut self.cpu, 0x10)?;
        let cap = cap.ok_or_else(|| Error::Answer("root port is not PCI Express".into()))?;
        // Slot control: power indicator on, power on.
        PORT.write16(&mut self.cpu, cap + 0x18, 0x0100)
    }

    /// Programs the root port and the BARs of the card behind it, and lets the card respond and
    /// master the bus.
    pub fn enumerate(&mut self) -> Result<Function> {
        PORT.write32(&mut self.cpu, 0x18, 0x0001_0100)?;
        let window = WINDOW >> 16;
        PORT.write32(&mut self.cpu, 0x20, window | window << 16)?;
        PORT.write16(&mut self.cpu, 0x04, 0x6)?;
        CARD.write32(&mut self.cpu, 0x10, Self::BAR0 as u32)?;
        CARD.write32(&mut self.cpu, 0x14, 0)?;
        CARD.write32(&mut self.cpu, 0x18, Self::BAR2 as u32)?;
        CARD.write32(&mut self.cpu, 0x1c, 0)?;
        CARD.write16(&mut self.cpu, 0x04, 0x6)?;
        Ok(CARD)
    }

    /// Where [`Self::enumerate`] puts BAR 0.
    pub const BAR0: u64 = WINDOW as u64;
    /// Where [`Self::enumerate`] puts BAR 2.
    pub const BAR2: u64 = WINDOW as u64 + 0x8000;

    /// Reads a register of the card.
    pub fn reg(&mut self, offset: u32) -> Result<u32> {
        self.cpu.read32(Self::BAR0 + u64::from(offset))
    }

    /// Writes a register of the card.
    pub fn set_reg(&mut self, offset: u32, value: u32) -> Result<()> {
        self.cpu.write32(Self::BAR0 + u64::from(offset), value)
    }

    /// Waits until memory holds a value.
    pub fn wait32(&mut self, addr: u64, value: u32) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while self.cpu.read32(addr)? != value {
            if Instant::now() > end {
                return Err(crate::error::timeout("memory keeps another value"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends QEMU in an orderly way.
    pub fn quit(mut self) -> Result<()> {
        self.execute("quit", json!({}))?;
        let status = self.process.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(Error::Answer(format!("QEMU: {status}"))),
        }
    }
}

/// The card as an argument of `-device` or `device_add`.
fn device(socket: &Path) -> Value {
    json!({
        "driver": "vfio-user-pci",
        "id": "nic0",
        "bus": "rp0",
        "socket": { "type": "unix", "path": socket },
    })
}

/// Waits for QEMU's connection.
fn accept(listener: &UnixListener, process: &mut Process) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + LIMIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.into()),
        }
        if !process.is_running() {
            process.wait()?;
            return Err(Error::Answer(format!("QEMU ended: {}", process.stderr())));
        }
        if Instant::now() > end {
            return Err(crate::error::timeout("QEMU does not connect"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A function in configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    bus: u8,
    device: u8,
    function: u8,
}

impl Function {
    fn address(self, offset: u8) -> u32 {
        1 << 31
            | u32::from(self.bus) << 16
            | u32::from(self.device) << 11
            | u32::from(self.function) << 8
            | u32::from(offset & !3)
    }

    /// Reads 4 bytes at a multiple of 4.
    pub fn read32(self, cpu: &mut Qtest, offset: u8) -> Result<u32> {
        cpu.config_read(self.address(offset))
    }

    /// Reads 2 bytes at a multiple of 2.
    pub fn read16(self, cpu: &mut Qtest, offset: u8) -> Result<u16> {
        Ok((self.read32(cpu, offset)? >> (8 * (offset & 2))) as u16)
    }

    /// Reads a byte.
    pub fn read8(self, cpu: &mut Qtest, offset: u8) -> Result<u8> {
        Ok((self.read32(cpu, offset)? >> (8 * (offset & 3))) as u8)
    }

    /// Writes 4 bytes at a multiple of 4.
    pub fn write32(self, cpu: &mut Qtest, offset: u8, value: u32) -> Result<()> {
        cpu.config_write(self.address(offset), 'l', 0, value)
    }

    /// Writes 2 bytes at a multiple of 2.
    pub fn write16(self, cpu: &mut Qtest, offset: u8, value: u16) -> Result<()> {
        cpu.config_write(
            self.address(offset),
            'w',
            u16::from(offset & 2),
            value.into(),
        )
    }

    /// Writes a byte.
    pub fn write8(self, cpu: &mut Qtest, offset: u8, value: u8) -> Result<()> {
        cpu.config_write(
            self.address(offset),
            'b',
            u16::from(offset & 3),
            value.into(),
        )
    }

    /// Finds a capability by its id.
    pub fn capability(self, cpu: &mut Qtest, id: u8) -> Result<Option<u8>> {
        let mut at = self.read8(cpu, 0x34)? & !3;
        // The list has room for at most this many.
        for _ in 0..48 {
            if at == 0 {
                return Ok(None);
            }
            if self.read8(cpu, at)? == id {
                return Ok(Some(at));
            }
            at = self.read8(cpu, at + 1)? & !3;
        }
        Err(Error::Answer("capability list loops".into()))
    }
}
