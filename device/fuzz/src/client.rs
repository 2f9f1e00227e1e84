// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A client that sends anything, in pieces of any size, and the server that it sends it to.

use std::fs::File;

use arbitrary::{Result, Unstructured};
use vfio_user::ServerBackend;
use vnet_protocol::{Inbox, Layout, Lost, Protocol, CAPACITY, HEADER_SIZE, MAX_FDS};

use crate::input::{bytes, mostly, rarely};

const VERSION: u16 = 1;
const NO_REPLY: u32 = 1 << 4;
/// Most memory for a reply: the longest region, and what growing by doubling makes of that.
const MOST_REPLY: usize = 0x10000;
const COMMANDS: [u16; 12] = [9, 10, 8, 2, 3, 4, 5, 7, 13, 14, VERSION, 15];
const PROPOSALS: [&[u8]; 4] = [
    b"\0\0\0\0{\"capabilities\":{\"write_multiple\":true}}\0",
    b"\0\0\0\0{\"capabilities\":{\"max_data_xfer_size\":4096,\"max_msg_fds\":8}}\0",
    b"\0\0\0\0{}\0",
    b"\0\0\0\0",
];

/// What messages are about, more often than not.
pub(crate) struct Has {
    pub(crate) regions: &'static [u32],
    /// Offsets, addresses, sizes.
    pub(crate) numbers: &'static [u64],
}

fn message(id: u16, command: u16, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = (HEADER_SIZE + payload.len()) as u32;
    let mut message = [id.to_ne_bytes(), command.to_ne_bytes()].concat();
    for word in [size, flags, 0] {
        message.extend(word.to_ne_bytes());
    }
    message.extend(payload);
    message
}

/// A number that means something, or any.
fn number(u: &mut Unstructured<'_>, has: &Has) -> Result<u64> {
    let edge: u64 = mostly(u, has.numbers)?;
    Ok(match rarely(u, 8)? {
        true => edge.wrapping_neg(),
        false => edge,
    })
}

/// A payload that begins as that of its command does, or not.
fn payload(u: &mut Unstructured<'_>, command: u16, has: &Has) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let word = |u: &mut Unstructured<'_>, out: &mut Vec<u8>, usual: &[u32]| {
        let word = match rarely(u, 8)? {
            true => number(u, has)? as u32,
            false => *u.choose(usual)?,
        };
        out.extend(word.to_ne_bytes());
        Ok(())
    };
    match command {
        _ if rarely(u, 8)? => out.extend(bytes(u, 100)?),
        _ if rarely(u, 60)? => out.resize(CAPACITY + usize::from(u.arbitrary::<u8>()?) - 100, 0xa5),
        // Region reads and writes.
        9 | 10 => {
            out.extend(number(u, has)?.to_ne_bytes());
            word(u, &mut out, has.regions)?;
            let data = bytes(u, 40)?;
            word(u, &mut out, &[data.len() as u32, 4, 8])?;
            if command == 10 {
                out.extend(data);
            }
        }
        15 => {
            let count = u.int_in_range(0..=5)?;
            out.extend(u64::to_ne_bytes(count));
            for _ in 0..count {
                out.extend(number(u, has)?.to_ne_bytes());
                word(u, &mut out, has.regions)?;
                word(u, &mut out, &[4, 8, 1, 0])?;
                out.extend(number(u, has)?.to_ne_bytes());
            }
        }
        // Memory.
        2 | 3 => {
            word(u, &mut out, &[32, 24])?;
            word(u, &mut out, &[3, 1, 0, 2])?;
            for _ in 0..u16::from(command == 2) + 2 {
                out.extend(number(u, has)?.to_ne_bytes());
            }
        }
        // Interrupts.
        8 => {
            word(u, &mut out, &[20])?;
            word(u, &mut out, &[0x24, 0x21, 0x22, 0x0c, 0x11])?;
            word(u, &mut out, &[2, 1, 0, 3])?;
            word(u, &mut out, &[0, 1])?;
            word(u, &mut out, &[1, 0, 4, 2])?;
            out.extend(bytes(u, 4)?);
        }
        VERSION => {
            let mut proposal = u.choose(&PROPOSALS)?.to_vec();
            if rarely(u, 2)? {
                let at = u.int_in_range(0..=proposal.len() - 1)?;
                proposal[at] = u.arbitrary()?;
            }
            out.extend(proposal);
        }
        _ => {
            for _ in 0..4 {
                word(u, &mut out, &[32, 0, 1, 2])?;
            }
        }
    }
    Ok(out)
}

/// A server as a connection has it, without the socket.
pub(crate) struct Server<D> {
    protocol: Protocol,
    inbox: Inbox,
    pub(crate) device: D,
    reply: Vec<u8>,
    /// Ids of the replies since the last look.
    answered: Vec<u16>,
    pub(crate) ended: bool,
}

impl<D: ServerBackend> Server<D> {
    /// One that a client has connected to, and as a rule agreed with.
    pub(crate) fn new(u: &mut Unstructured<'_>, layout: Layout, device: D) -> Result<Self> {
        let mut server = Self {
            protocol: Protocol::new(layout, None),
            inbox: Inbox::default(),
            device,
            reply: Vec::new(),
            answered: Vec::new(),
            ended: false,
        };
        if !rarely(u, 8)? {
            let proposal = *u.choose(&PROPOSALS)?;
            server.receive(&message(1, VERSION, 0, proposal), Vec::new());
        }
        Ok(server)
    }

    /// The client sends some messages with descriptors, or something else to the end. Each that says
    /// its size right is answered once and in order, if it wants to be.
    pub(crate) fn step(
        &mut self,
        u: &mut Unstructured<'_>,
        has: &Has,
        fd: impl Fn(&mut Unstructured<'_>) -> Result<File>,
    ) -> Result<()> {
        self.answered.clear();
        if rarely(u, 20)? {
            // A header that lies, or anything else, ends the part in which replies are counted.
            self.receive(bytes(u, 300)?, Vec::new());
            while !u.is_empty() && !self.ended {
                self.receive(bytes(u, 300)?, Vec::new());
            }
            return Ok(());
        }
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..u.int_in_range(1..=4)? {
            let (id, command) = (u.arbitrary()?, mostly(u, &COMMANDS)?);
            let flags: u32 = mostly(u, &[0, 0, NO_REPLY])?;
            stream.extend(message(id, command, flags, &payload(u, command, has)?));
            if flags & NO_REPLY == 0 && flags & 0xf != 1 {
                expected.push(id);
            }
        }
        let mut fds = Vec::new();
        if rarely(u, 4)? {
            for _ in 0..u.int_in_range(1..=MAX_FDS + 2)? {
                fds.push(fd(u)?);
            }
        }
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let most = rest.len();
            let cut = match rarely(u, 2)? {
                true => u.int_in_range(1..=most)?,
                false => most,
            };
            self.receive(&rest[..cut], std::mem::take(&mut fds));
            rest = &rest[cut..];
        }
        assert!(self.ended || self.answered == expected);
        Ok(())
    }

    fn receive(&mut self, mut bytes: &[u8], mut fds: Vec<File>) {
        while !bytes.is_empty() && !self.ended {
            let space = self.inbox.space();
            assert!(!space.is_empty() && space.len() <= CAPACITY);
            let count = bytes.len().min(space.len());
            space[..count].copy_from_slice(&bytes[..count]);
            let lost = (fds.len() > MAX_FDS).then_some(Lost::TooMany);
            fds.truncate(MAX_FDS);
            self.inbox.received(count, std::mem::take(&mut fds), lost);
            bytes = &bytes[count..];
            self.serve();
        }
    }

    fn serve(&mut self) {
        loop {
            let done = match self.inbox.next() {
                Ok(None) => return,
                Ok(Some(message)) => {
                    self.protocol
                        .handle(message, &mut self.device, &mut self.reply)
                }
                Err((header, refusal)) => {
                    Protocol::refuse(header, &refusal, &mut self.reply);
                    Err(refusal)
                }
            };
            self.look_at_reply();
            if done.is_err_and(|refusal| refusal.is_fatal()) {
                self.ended = true;
                return;
            }
        }
    }

    fn look_at_reply(&mut self) {
        let bytes = &self.reply;
        assert!(bytes.capacity() <= MOST_REPLY);
        if bytes.is_empty() {
            return;
        }
        let word = |at: usize| {
            let word = bytes[at..].first_chunk().expect("a header");
            u32::from_ne_bytes(*word)
        };
        let (size, flags, errno) = (word(4) as usize, word(8), word(12));
        assert_eq!(size, bytes.len());
        match flags {
            1 => assert_eq!(errno, 0),
            0x21 => assert!(errno != 0 && size == HEADER_SIZE),
            _ => panic!("neither reply nor error: {flags:#x}"),
        }
        self.answered.push(u16::from_ne_bytes([bytes[0], bytes[1]]));
    }
}
