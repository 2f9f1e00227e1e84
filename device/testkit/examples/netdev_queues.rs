// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Prints what the kernel knows of an interface's queues and NAPI contexts, by its generic netlink
//! family `netdev`: `netdev_queues INTERFACE`, run in the guest by scripts/tests/netlink.sh, whose
//! guest has no tool for that. A line each:
//!
//! ```text
//! queue rx 0 napi 8193
//! napi 8193 irq 27
//! ```
//!
//! A link that the driver did not make reads `-`.

use std::{collections::HashMap, env, error::Error, fs, process::ExitCode};

use rustix::{
    fd::OwnedFd,
    net::{
        netlink::{self, SocketAddrNetlink},
        recv, sendto, socket, AddressFamily, RecvFlags, SendFlags, SocketType,
    },
};

// From linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
/// Attribute types have flags in their upper bits.
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLMSG_HEADER: usize = 16;
const GENL_HEADER: usize = 4;

// From linux/genetlink.h.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

// From linux/netdev.h.
const CMD_QUEUE_GET: u8 = 10;
const QUEUE_ID: u16 = 1;
const QUEUE_IFINDEX: u16 = 2;
const QUEUE_TYPE: u16 = 3;
const QUEUE_NAPI_ID: u16 = 4;
const CMD_NAPI_GET: u8 = 11;
const NAPI_IFINDEX: u16 = 1;
const NAPI_ID: u16 = 2;
const NAPI_IRQ: u16 = 3;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Attributes of a message, by type.
type Attributes = HashMap<u16, Vec<u8>>;

/// Netlink pads messages and attributes to four bytes.
fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A request with one attribute.
fn request(family: u16, flags: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    let attribute_len = 4 + value.len();
    let len = NLMSG_HEADER + GENL_HEADER + padded(attribute_len);
    let mut message = Vec::with_capacity(len);
    message.extend((len as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence number and port: one request is under way at a time, on a socket of our own.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend((attribute_len as u16).to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(value);
    message.resize(len, 0);
    message
}

fn attributes(mut bytes: &[u8]) -> Attributes {
    let mut found = Attributes::new();
    while let (Some(len), Some(kind)) = (u16_at(bytes, 0), u16_at(bytes, 2)) {
        let Some(value) = bytes.get(4..usize::from(len)) else {
            break;
        };
        found.insert(kind & NLA_TYPE_MASK, value.to_vec());
        bytes = bytes.get(padded(len.into())..).unwrap_or_default();
    }
    found
}

fn number(attributes: &Attributes, kind: u16) -> Option<u32> {
    u32_at(attributes.get(&kind)?, 0)
}

/// Sends a request and collects the answers. A dump ends with a message that says so; anything
/// else is one answer.
fn ask(socket: &OwnedFd, request: &[u8], dump: bool) -> Result<Vec<Attributes>> {
    sendto(
        socket,
        request,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut answers = Vec::new();
    let mut buffer = [0; 32768];
    loop {
        let (_, received) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..received];
        while let (Some(len), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
            let message = rest.get(..len as usize).ok_or("message cut short")?;
            match kind {
                NLMSG_DONE => return Ok(answers),
                NLMSG_ERROR => {
                    let code = u32_at(message, NLMSG_HEADER).unwrap_or_default() as i32;
                    return Err(std::io::Error::from_raw_os_error(-code).into());
                }
                _ => answers.push(attributes(
                    message
                        .get(NLMSG_HEADER + GENL_HEADER..)
                        .ok_or("message without header")?,
                )),
            }
            rest = rest.get(padded(len as usize)..).unwrap_or_default();
        }
        if !dump {
            return Ok(answers);
        }
    }
}

fn show(link: Option<u32>) -> String {
    link.map_or("-".into(), |n| n.to_string())
}

fn run(interface: &str) -> Result<()> {
    let index: u32 = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?
        .trim()
        .parse()?;
    let socket = socket(
        AddressFamily::NETLINK,
        SocketType::RAW,
        Some(netlink::GENERIC),
    )?;

    let name = request(
        GENL_ID_CTRL,
        0,
        CTRL_CMD_GETFAMILY,
        CTRL_ATTR_FAMILY_NAME,
        b"netdev\0",
    );
    let family = ask(&socket, &name, false)?
        .first()
        .and_then(|answer| u16_at(answer.get(&CTRL_ATTR_FAMILY_ID)?, 0))
        .ok_or("the kernel has no netlink family netdev")?;

    let index = index.to_ne_bytes();
    let queues = request(family, NLM_F_DUMP, CMD_QUEUE_GET, QUEUE_IFINDEX, &index);
    for queue in ask(&socket, &queues, true)? {
        let direction = match number(&queue, QUEUE_TYPE) {
            Some(0) => "rx",
            Some(1) => "tx",
            _ => "unknown",
        };
        let (id, napi) = (number(&queue, QUEUE_ID), number(&queue, QUEUE_NAPI_ID));
        println!("queue {direction} {} napi {}", show(id), show(napi));
    }
    let napis = request(family, NLM_F_DUMP, CMD_NAPI_GET, NAPI_IFINDEX, &index);
    for napi in ask(&socket, &napis, true)? {
        let (id, irq) = (number(&napi, NAPI_ID), number(&napi, NAPI_IRQ));
        println!("napi {} irq {}", show(id), show(irq));
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(interface) = env::args().nth(1) else {
        eprintln!("usage: netdev_queues INTERFACE");
        return ExitCode::from(2);
    };
    match run(&interface) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netdev_queues: {error}");
            ExitCode::FAILURE
        }
    }
}
