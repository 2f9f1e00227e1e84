// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Prints what the kernel knows of an interface's queues and NAPI contexts, by its generic netlink
//! family `netdev`: `netdev_queues INTERFACE`, run in the guest by scripts/tests/netlink.sh, whose
//! guest has no tool for that. A line each:
//!
//! ```text
//! xdp features 0x67
//! queue rx 0 napi 8193
//! napi 8193 irq 27 defer 0
//! qstats rx 0 packets 12 bytes 1180 alloc-fail 0 csum-unnecessary 12 csum-none 0
//! qstats rx all packets 12 ...
//! ```
//!
//! A link that the driver did not make reads `-`. Statistics that it does not count are left out;
//! the last lines are those of the device as a whole. `netdev_queues defer NAPI COUNT` sets how many
//! hard interrupts a NAPI context defers.

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
const NLM_F_ACK: u16 = 0x4;
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
const CMD_DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;
const CMD_QUEUE_GET: u8 = 10;
const QUEUE_ID: u16 = 1;
const QUEUE_IFINDEX: u16 = 2;
const QUEUE_TYPE: u16 = 3;
const QUEUE_NAPI_ID: u16 = 4;
const CMD_NAPI_GET: u8 = 11;
const NAPI_IFINDEX: u16 = 1;
const NAPI_ID: u16 = 2;
const NAPI_IRQ: u16 = 3;
const NAPI_DEFER_HARD_IRQS: u16 = 5;
const CMD_NAPI_SET: u8 = 14;
const CMD_QSTATS_GET: u8 = 12;
const QSTATS_IFINDEX: u16 = 1;
const QSTATS_QUEUE_TYPE: u16 = 2;
const QSTATS_QUEUE_ID: u16 = 3;
const QSTATS_SCOPE: u16 = 4;
const SCOPE_QUEUE: u64 = 1;

/// Statistics of queues, with their directions: 0 receives.
const STATISTICS: [(u32, u16, &str); 27] = [
    (0, 8, "packets"),
    (0, 9, "bytes"),
    (1, 10, "packets"),
    (1, 11, "bytes"),
    (0, 12, "alloc-fail"),
    (0, 13, "hw-drops"),
    (0, 14, "hw-drop-overruns"),
    (0, 15, "csum-complete"),
    (0, 16, "csum-unnecessary"),
    (0, 17, "csum-none"),
    (0, 18, "csum-bad"),
    (0, 19, "hw-gro-packets"),
    (0, 20, "hw-gro-bytes"),
    (0, 21, "hw-gro-wire-packets"),
    (0, 22, "hw-gro-wire-bytes"),
    (0, 23, "hw-drop-ratelimits"),
    (1, 24, "hw-drops"),
    (1, 25, "hw-drop-errors"),
    (1, 26, "csum-none"),
    (1, 27, "needs-csum"),
    (1, 28, "hw-gso-packets"),
    (1, 29, "hw-gso-bytes"),
    (1, 30, "hw-gso-wire-packets"),
    (1, 31, "hw-gso-wire-bytes"),
    (1, 32, "hw-drop-ratelimits"),
    (1, 33, "stop"),
    (1, 34, "wake"),
];

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

/// A request with attributes.
fn request(family: u16, flags: u16, command: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(family.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence number and port: one request is under way at a time, on a socket of our own.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    for (kind, value) in attributes {
        message.extend((4 + value.len() as u16).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(*value);
        message.resize(padded(message.len()), 0);
    }
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
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

/// A number of 32 or 64 bits, as its sender liked.
fn count(attributes: &Attributes, kind: u16) -> Option<u64> {
    let bytes = attributes.get(&kind)?;
    match *bytes.first_chunk()? {
        short if bytes.len() == 4 => Some(u32::from_ne_bytes(short).into()),
        _ => Some(u64::from_ne_bytes(*bytes.first_chunk()?)),
    }
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
                    if code == 0 {
                        return Ok(answers);
                    }
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

/// A socket, and the number of the family.
fn connect() -> Result<(OwnedFd, u16)> {
    let socket = socket(
        AddressFamily::NETLINK,
        SocketType::RAW,
        Some(netlink::GENERIC),
    )?;
    let name: (u16, &[u8]) = (CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let request = request(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, &[name]);
    let family = ask(&socket, &request, false)?
        .first()
        .and_then(|answer| u16_at(answer.get(&CTRL_ATTR_FAMILY_ID)?, 0))
        .ok_or("the kernel has no netlink family netdev")?;
    Ok((socket, family))
}

fn show_statistics(statistics: &Attributes) {
    let queue = number(statistics, QSTATS_QUEUE_ID);
    for (direction, name) in [(0, "rx"), (1, "tx")] {
        // A queue has one direction, the device has both.
        if queue.is_some() && number(statistics, QSTATS_QUEUE_TYPE) != Some(direction) {
            continue;
        }
        print!(
            "qstats {name} {}",
            queue.map_or("all".into(), |n| n.to_string())
        );
        for (of, kind, name) in STATISTICS {
            if let (true, Some(n)) = (of == direction, count(statistics, kind)) {
                print!(" {name} {n}");
            }
        }
        println!();
    }
}

fn run(interface: &str) -> Result<()> {
    let index: u32 = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?
        .trim()
        .parse()?;
    let (socket, family) = connect()?;

    let index = index.to_ne_bytes();
    let dump = |command, attributes: &[(u16, &[u8])]| {
        ask(
            &socket,
            &request(family, NLM_F_DUMP, command, attributes),
            true,
        )
    };
    let device = request(family, 0, CMD_DEV_GET, &[(DEV_IFINDEX, &index)]);
    // 64 bits, of which the lower half has all that there are.
    let features = ask(&socket, &device, false)?
        .first()
        .and_then(|device| number(device, DEV_XDP_FEATURES))
        .ok_or("the kernel does not know the interface")?;
    println!("xdp features {features:#x}");
    for queue in dump(CMD_QUEUE_GET, &[(QUEUE_IFINDEX, &index)])? {
        let direction = match number(&queue, QUEUE_TYPE) {
            Some(0) => "rx",
            Some(1) => "tx",
            _ => "unknown",
        };
        let (id, napi) = (number(&queue, QUEUE_ID), number(&queue, QUEUE_NAPI_ID));
        println!("queue {direction} {} napi {}", show(id), show(napi));
    }
    for napi in dump(CMD_NAPI_GET, &[(NAPI_IFINDEX, &index)])? {
        let (id, irq) = (number(&napi, NAPI_ID), number(&napi, NAPI_IRQ));
        let defer = number(&napi, NAPI_DEFER_HARD_IRQS);
        println!("napi {} irq {} defer {}", show(id), show(irq), show(defer));
    }
    let queues = SCOPE_QUEUE.to_ne_bytes();
    for statistics in dump(
        CMD_QSTATS_GET,
        &[(QSTATS_IFINDEX, &index), (QSTATS_SCOPE, &queues)],
    )? {
        show_statistics(&statistics);
    }
    for statistics in dump(CMD_QSTATS_GET, &[(QSTATS_IFINDEX, &index)])? {
        show_statistics(&statistics);
    }
    Ok(())
}

/// Sets how many hard interrupts a NAPI context defers.
fn defer(napi: &str, interrupts: &str) -> Result<()> {
    let (napi, interrupts): (u32, u32) = (napi.parse()?, interrupts.parse()?);
    let (socket, family) = connect()?;
    let set = request(
        family,
        NLM_F_ACK,
        CMD_NAPI_SET,
        &[
            (NAPI_ID, &napi.to_ne_bytes()),
            (NAPI_DEFER_HARD_IRQS, &interrupts.to_ne_bytes()),
        ],
    );
    ask(&socket, &set, false)?;
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [interface] => run(interface),
        ["defer", napi, interrupts] => defer(napi, interrupts),
        _ => {
            eprintln!("usage: netdev_queues INTERFACE | defer NAPI COUNT");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netdev_queues: {error}");
            ExitCode::FAILURE
        }
    }
}
