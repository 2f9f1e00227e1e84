// SPDX-License-Identifier: GPL-2.0

//! ARP for IPv4 over Ethernet (RFC 826), field by field: what phase 7 is about.

use crate::rx_ring::{
    Frame,
    FRAME, //
};

/// Bytes of a frame up to the end of the ARP packet; the rest of the shortest frame is padding.
pub(crate) const LEN: usize = 42;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// Who asks or is asked: hardware address, then IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Station {
    pub(crate) mac: [u8; 6],
    pub(crate) ip: [u8; 4],
}

impl Station {
    /// Asks everybody who has an address.
    pub(crate) fn asks_for(self, ip: [u8; 4]) -> Frame {
        // Nobody knows the address that is asked for, so its place is zero, and all are asked.
        let unknown = Station { mac: [0; 6], ip };
        frame([0xff; 6], REQUEST, self, unknown)
    }

    /// The answer to a frame, if that is a request for this station's address.
    pub(crate) fn answers(self, bytes: &[u8; LEN]) -> Option<Frame> {
        let (operation, sender, target) = parse(bytes)?;
        (operation == REQUEST && target.ip == self.ip)
            .then(|| frame(sender.mac, REPLY, self, sender))
    }

    /// True if a frame answers this station.
    pub(crate) fn is_answered_by(self, bytes: &[u8; LEN]) -> bool {
        matches!(parse(bytes), Some((REPLY, _, target)) if target == self)
    }
}

/// A frame with an ARP packet.
fn frame(to: [u8; 6], operation: u16, sender: Station, target: Station) -> Frame {
    let mut frame = [0; FRAME];
    // Ethernet: destination, source, EtherType.
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&sender.mac);
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    // ARP: Ethernet, IPv4, lengths of their addresses.
    frame[14..20].copy_from_slice(&[0x00, 0x01, 0x08, 0x00, 6, 4]);
    frame[20..22].copy_from_slice(&operation.to_be_bytes());
    frame[22..28].copy_from_slice(&sender.mac);
    frame[28..32].copy_from_slice(&sender.ip);
    frame[32..38].copy_from_slice(&target.mac);
    frame[38..LEN].copy_from_slice(&target.ip);
    frame
}

/// Operation, sender and target, if a frame has an ARP packet.
fn parse(bytes: &[u8; LEN]) -> Option<(u16, Station, Station)> {
    let [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, o0, o1, rest @ ..] =
        *bytes
    else {
        return None;
    };
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] = rest;
    let sender = Station {
        mac: [a, b, c, d, e, f],
        ip: [g, h, i, j],
    };
    let target = Station {
        mac: [k, l, m, n, o, p],
        ip: [q, r, s, t],
    };
    Some((u16::from_be_bytes([o0, o1]), sender, target))
}
