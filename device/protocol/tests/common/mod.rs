// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A client and a device, without a socket between them.
#![allow(dead_code)]

use std::fs::File;
use std::io;

use vfio_bindings::bindings::vfio::vfio_region_info;
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend};
use vnet_protocol::{Inbox, Layout, Negotiated, Protocol, HEADER_SIZE};

pub(crate) const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// What the device was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read(u32, u64, usize),
    Write(u32, u64, Vec<u8>),
    Map(u32, u64, u64, u64, bool),
    Unmap(u32, u64, u64),
    Irqs(u32, u32, u32, u32, usize),
    Reset,
}

/// A device that keeps a list of what it was asked for.
#[derive(Default)]
pub(crate) struct Device {
    pub(crate) calls: Vec<Call>,
    fail: Option<io::Error>,
}

impl Device {
    fn call(&mut self, call: Call) -> io::Result<()> {
        self.calls.push(call);
        self.fail.take().map_or(Ok(()), Err)
    }
}

impl ServerBackend for Device {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        data.fill(0x5a);
        self.call(Call::Read(region, offset, data.len()))
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.call(Call::Write(region, offset, data.to_vec()))
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        self.call(Call::Map(flags.bits(), offset, address, size, fd.is_some()))
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        self.call(Call::Unmap(flags.bits(), address, size))
    }

    fn reset(&mut self) -> io::Result<()> {
        self.call(Call::Reset)
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> io::Result<()> {
        self.call(Call::Irqs(index, flags, start, count, fds.len()))
    }
}

/// A device that does as it is told, and forgets it.
struct Forgetful;

impl ServerBackend for Forgetful {
    fn region_read(&mut self, _: u32, _: u64, data: &mut [u8]) -> io::Result<()> {
        data.fill(0x5a);
        Ok(())
    }

    fn region_write(&mut self, _: u32, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn dma_map(
        &mut self,
        _: DmaMapFlags,
        _: u64,
        _: u64,
        _: u64,
        _: Option<File>,
    ) -> io::Result<()> {
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> io::Result<()> {
        Ok(())
    }
}

/// Three regions, the one in the middle absent; three kinds of interrupts: none, one that can be
/// masked but has no eventfd, and four with eventfds.
pub(crate) fn layout() -> Layout {
    let region = |index, size| vfio_region_info {
        argsz: 32,
        flags: if size == 0 { 0 } else { 3 },
        index,
        size,
        ..Default::default()
    };
    let irq = |index, flags, count| IrqInfo {
        index,
        flags,
        count,
    };
    Layout {
        regions: vec![region(0, 0x4000), region(1, 0), region(2, 0x1000)],
        irqs: vec![irq(0, 0, 0), irq(1, 2, 1), irq(2, 1, 4)],
        resettable: true,
        max_maps: 100,
    }
}

/// Both ends of a session.
pub(crate) struct Peer {
    pub(crate) protocol: Protocol,
    pub(crate) inbox: Inbox,
    pub(crate) device: Device,
    /// What was answered and not looked at.
    pub(crate) replies: Vec<u8>,
    /// Where they are made.
    pub(crate) reply: Vec<u8>,
    /// The server would hang up.
    pub(crate) ended: bool,
    next_id: u16,
}

impl Peer {
    pub(crate) fn new() -> Self {
        Self::with(None)
    }

    pub(crate) fn with(negotiated: Option<Negotiated>) -> Self {
        Self {
            protocol: Protocol::new(layout(), negotiated),
            inbox: Inbox::default(),
            device: Device::default(),
            replies: Vec::new(),
            reply: Vec::new(),
            ended: false,
            next_id: 0x1234,
        }
    }

    /// One that has agreed on everything.
    pub(crate) fn negotiated() -> Self {
        let mut peer = Self::new();
        let data = b"\0\0\0\0{\"capabilities\":{\"write_multiple\":true}}\0";
        peer.call(1, data).unwrap();
        peer
    }

    /// What the device was asked for since the last time.
    pub(crate) fn calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.device.calls)
    }

    pub(crate) fn fail_next(&mut self, error: io::Error) {
        self.device.fail = Some(error);
    }

    /// Sends a request and returns the payload of the answer, or its error number.
    pub(crate) fn call(&mut self, command: u16, payload: &[u8]) -> Result<Vec<u8>, u32> {
        self.call_with(command, payload, 0)
    }

    pub(crate) fn call_with(
        &mut self,
        command: u16,
        payload: &[u8],
        fds: usize,
    ) -> Result<Vec<u8>, u32> {
        self.send(command, 0, payload, fds);
        self.answer().expect("an answer")
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, command: u16, flags: u32, payload: &[u8], fds: usize) {
        self.next_id = self.next_id.wrapping_add(1);
        let size = (HEADER_SIZE + payload.len()) as u32;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.next_id.to_ne_bytes());
        bytes.extend_from_slice(&command.to_ne_bytes());
        bytes.extend_from_slice(&words(&[size, flags, 0]));
        bytes.extend_from_slice(payload);
        let fds = (0..fds).map(|_| File::open("/dev/zero").unwrap()).collect();
        self.receive(&bytes, fds);
    }

    /// Lets the server receive bytes, the descriptors with the first of them.
    pub(crate) fn receive(&mut self, mut bytes: &[u8], mut fds: Vec<File>) {
        while !bytes.is_empty() && !self.ended {
            let space = self.inbox.space();
            assert!(!space.is_empty());
            let count = bytes.len().min(space.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.inbox.received(count, std::mem::take(&mut fds), None);
            bytes = &bytes[count..];
            self.serve();
        }
    }

    /// Lets the server receive a message and send its answer, of which nothing is kept, by a device
    /// that remembers nothing.
    pub(crate) fn receive_quietly(&mut self, bytes: &[u8]) {
        self.inbox.space()[..bytes.len()].copy_from_slice(bytes);
        self.inbox.received(bytes.len(), [], None);
        let message = self.inbox.next().unwrap().unwrap();
        self.protocol
            .handle(message, &mut Forgetful, &mut self.reply)
            .unwrap();
    }

    fn serve(&mut self) {
        let reply = &mut self.reply;
        loop {
            let done = match self.inbox.next() {
                Ok(None) => return,
                Ok(Some(message)) => self.protocol.handle(message, &mut self.device, reply),
                Err((header, refusal)) => {
                    Protocol::refuse(header, &refusal, reply);
                    Err(refusal)
                }
            };
            self.replies.extend_from_slice(reply);
            if done.is_err_and(|refusal| refusal.is_fatal()) {
                self.ended = true;
                return;
            }
        }
    }

    /// The answer to the last message, which must be the only one; `None`: there is none.
    pub(crate) fn answer(&mut self) -> Option<Result<Vec<u8>, u32>> {
        let bytes = std::mem::take(&mut self.replies);
        if bytes.is_empty() {
            return None;
        }
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(bytes[0..2], self.next_id.to_ne_bytes());
        assert_eq!(
            word(4) as usize,
            bytes.len(),
            "one reply, of the size it says"
        );
        match word(8) {
            1 => {
                assert_eq!(word(12), 0);
                Some(Ok(bytes[HEADER_SIZE..].to_vec()))
            }
            flags => {
                assert_eq!(flags, 1 | ERROR);
                assert_eq!(bytes.len(), HEADER_SIZE);
                assert_ne!(word(12), 0, "clients take it for success");
                Some(Err(word(12)))
            }
        }
    }
}

pub(crate) fn words(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

fn longs(list: &[u64]) -> Vec<u8> {
    list.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

/// The payload of a region access.
pub(crate) fn access(offset: u64, region: u32, count: u32, data: &[u8]) -> Vec<u8> {
    [longs(&[offset]), words(&[region, count]), data.to_vec()].concat()
}

/// The payload of a `DMA_MAP`.
pub(crate) fn map(argsz: u32, flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    [words(&[argsz, flags]), longs(&[offset, address, size])].concat()
}

/// The payload of a `DMA_UNMAP`.
pub(crate) fn unmap(argsz: u32, flags: u32, address: u64, size: u64) -> Vec<u8> {
    [words(&[argsz, flags]), longs(&[address, size])].concat()
}

/// What a `SET_IRQS` begins with.
pub(crate) fn irqs(argsz: u32, flags: u32, index: u32, start: u32, count: u32) -> Vec<u8> {
    words(&[argsz, flags, index, start, count])
}
