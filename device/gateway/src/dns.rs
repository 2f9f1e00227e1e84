// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A name server (RFC 1035) for a few names, over UDP.
//!
//! It has authority over all names there are: one that it does not know does not exist.

use std::net::IpAddr;

use smoltcp::wire::{DnsFlags, DnsOpcode, DnsPacket, DnsRcode};

use crate::status::Status;

/// Longest answer that is not truncated, without extensions. What we answer fits.
pub(crate) const MAX_MESSAGE: usize = 512;
/// Most addresses in one answer: with the longest name, 28 bytes each, they fit.
const MAX_ADDRESSES: usize = 8;
/// The gateway itself.
const OWN_NAME: &str = "gateway";
/// Longest name, as it is written here.
const MAX_NAME: usize = 253;
/// Longest part of a name.
const MAX_LABEL: usize = 63;
/// Seconds for which an answer is right.
const TTL: u32 = 60;
const HEADER: usize = 12;
const CLASS_IN: [u8; 2] = [0, 1];
/// The name that stands in the question.
const POINTER: [u8; 2] = [0xc0, HEADER as u8];
/// Type A, AAAA and "all".
const A: u16 = 1;
const AAAA: u16 = 28;
const ANY: u16 = 255;

/// A name, in lower case and without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// A name that a program may ask for: letters, digits, `-` and `_` between dots.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let part = |part: &str| {
            let right = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            (1..=MAX_LABEL).contains(&part.len()) && part.bytes().all(right)
        };
        let right = text.len() <= MAX_NAME && text.split('.').all(part);
        right.then(|| Self(text.to_ascii_lowercase()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a message asks for, if anything.
enum Query {
    /// An address of this name, or something else about it.
    Of { name: String, kind: u16 },
    /// Nothing that is answered here.
    Wrong(DnsRcode),
}

/// Writes the answer to a message into `out`, and returns its length; `None`: there is none.
pub(crate) fn answer(
    message: &[u8],
    names: &[(Name, IpAddr)],
    status: &Status,
    out: &mut [u8; MAX_MESSAGE],
) -> Option<usize> {
    let packet = DnsPacket::new_checked(message).ok()?;
    if packet.flags().contains(DnsFlags::RESPONSE) {
        // An answer to an answer would have no end.
        return None;
    }
    let (query, question) = ask(&packet);
    let mut addresses = Vec::new();
    let rcode = match query {
        Query::Wrong(rcode) => rcode,
        Query::Of { name, kind } => {
            let given = names
                .iter()
                .map(|(name, address)| (name.as_str(), *address));
            let known = given.clone().any(|(n, _)| n == name);
            // Where every name leads to the gateway, it has all those that nobody else has.
            let own_name = if status.captive && !known {
                &name
            } else {
                OWN_NAME
            };
            let own = [status.lan.ipv4.into(), status.lan.ipv6.into()];
            let own = own.map(|address| (own_name, address));
            let mut rcode = DnsRcode::NXDomain;
            for (_, address) in own.into_iter().chain(given).filter(|(n, _)| *n == name) {
                // A name that exists, though it may have no such address.
                rcode = DnsRcode::NoError;
                let wanted = match address {
                    IpAddr::V4(_) => kind == A || kind == ANY,
                    IpAddr::V6(_) => kind == AAAA || kind == ANY,
                };
                if wanted && addresses.len() < MAX_ADDRESSES {
                    addresses.push(address);
                }
            }
            rcode
        }
    };
    let mut len = HEADER;
    let mut put = |bytes: &[u8]| {
        out[len..len + bytes.len()].copy_from_slice(bytes);
        len += bytes.len();
    };
    put(question);
    for address in &addresses {
        put(&POINTER);
        let (kind, data): (u16, &[u8]) = match address {
            IpAddr::V4(a) => (A, &a.octets()),
            IpAddr::V6(a) => (AAAA, &a.octets()),
        };
        put(&kind.to_be_bytes());
        put(&CLASS_IN);
        put(&TTL.to_be_bytes());
        put(&(data.len() as u16).to_be_bytes());
        put(data);
    }
    out[..HEADER].fill(0);
    let mut reply = DnsPacket::new_unchecked(&mut out[..HEADER]);
    reply.set_transaction_id(packet.transaction_id());
    let repeated = packet.flags() & DnsFlags::RECURSION_DESIRED;
    reply.set_flags(DnsFlags::RESPONSE | DnsFlags::AUTHORITATIVE | repeated);
    reply.set_opcode(packet.opcode());
    reply.set_question_count(u16::from(!question.is_empty()));
    reply.set_answer_record_count(addresses.len() as u16);
    // The response code has no setter; it is the low half of the fourth byte.
    out[3] |= u8::from(rcode) & 0xf;
    Some(len)
}

/// What is asked, and the question as it stands in the message.
fn ask<'a>(packet: &'a DnsPacket<&[u8]>) -> (Query, &'a [u8]) {
    let wrong = |rcode| (Query::Wrong(rcode), &[][..]);
    if packet.opcode() != DnsOpcode::Query {
        return wrong(DnsRcode::NotImp);
    }
    if packet.question_count() != 1 {
        return wrong(DnsRcode::FormErr);
    }
    let payload = packet.payload();
    let Some(name_len) = name_len(payload) else {
        return wrong(DnsRcode::FormErr);
    };
    let Some(question) = payload.get(..name_len + 4) else {
        return wrong(DnsRcode::FormErr);
    };
    let (name, rest) = question.split_at(name_len);
    let kind = u16::from_be_bytes([rest[0], rest[1]]);
    if rest[2..] != CLASS_IN {
        return (Query::Wrong(DnsRcode::Refused), question);
    }
    let name = text(name);
    (Query::Of { name, kind }, question)
}

/// Length of a name without compression at the start of these bytes; a question has none.
fn name_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at <= MAX_NAME {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            len if usize::from(len) <= MAX_LABEL => at += 1 + usize::from(len),
            _ => return None,
        }
    }
    None
}

/// A name in lower case, with dots. What is not a letter of ours is in none of our names.
fn text(name: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = name;
    while let Some((&len, behind)) = rest.split_first().filter(|(len, _)| **len > 0) {
        let (label, behind) = behind.split_at(usize::from(len).min(behind.len()));
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
        rest = behind;
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smoltcp::wire::{DnsRecord, DnsRecordData};

    use super::*;

    fn names() -> Vec<(Name, IpAddr)> {
        [
            ("www.Example.", "192.0.2.1"),
            ("www.example", "192.0.2.2"),
            ("www.example", "2001:db8::1"),
        ]
        .map(|(name, address)| (Name::new(name).unwrap(), address.parse().unwrap()))
        .to_vec()
    }

    fn message(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.extend([0, 0, kind as u8, 0, 1]);
        message
    }

    /// The code, and the addresses as smoltcp's own reader finds them.
    fn resolve(message: &[u8]) -> Option<(u8, Vec<IpAddr>)> {
        let mut out = [0xee; MAX_MESSAGE];
        let len = answer(message, &names(), &Status::default(), &mut out)?;
        let packet = DnsPacket::new_checked(&out[..len]).unwrap();
        assert_eq!(packet.transaction_id(), 0xabcd);
        assert!(packet
            .flags()
            .contains(DnsFlags::RESPONSE | DnsFlags::AUTHORITATIVE));
        let question = match packet.question_count() {
            0 => 0,
            _ => name_len(packet.payload()).unwrap() + 4,
        };
        let mut rest = &packet.payload()[question..];
        let mut found = Vec::new();
        for _ in 0..packet.answer_record_count() {
            let (behind, record) = DnsRecord::parse(rest).unwrap();
            rest = behind;
            match record.data {
                DnsRecordData::A(a) => found.push(a.into()),
                DnsRecordData::Aaaa(a) => found.push(a.into()),
                other => panic!("{other:?}"),
            }
        }
        assert!(rest.is_empty());
        Some((packet.rcode().into(), found))
    }

    #[test]
    fn names_have_their_addresses_and_others_do_not_exist() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let four = vec![ip("192.0.2.1"), ip("192.0.2.2")];
        let six = vec![ip("2001:db8::1")];
        assert_eq!(resolve(&message("www.example", A)), Some((0, four.clone())));
        assert_eq!(
            resolve(&message("WWW.eXample", AAAA)),
            Some((0, six.clone()))
        );
        let all = [four, six].concat();
        assert_eq!(resolve(&message("www.example", ANY)), Some((0, all)));
        // It exists, but has no such record.
        assert_eq!(resolve(&message("www.example", 15)), Some((0, vec![])));
        assert_eq!(resolve(&message("example", A)), Some((3, vec![])));
        let own = vec![Status::default().lan.ipv4.into()];
        assert_eq!(resolve(&message("gateway", A)), Some((0, own)));
    }

    #[test]
    fn every_name_can_lead_to_the_gateway() {
        let status = Status {
            captive: true,
            ..Status::default()
        };
        let mut out = [0; MAX_MESSAGE];
        let mut last = |name: &str| {
            let len = answer(&message(name, A), &names(), &status, &mut out).unwrap();
            (
                out[3] & 0xf,
                out[7],
                [out[len - 4], out[len - 3], out[len - 2], out[len - 1]],
            )
        };
        assert_eq!(last("no.such.name"), (0, 1, [10, 77, 0, 1]));
        assert_eq!(last("www.example"), (0, 2, [192, 0, 2, 2]));
    }

    #[test]
    fn what_is_no_question_is_told_so_or_not_answered() {
        let right = message("gateway", A);
        let with = |at: usize, byte: u8| {
            let mut message = right.clone();
            message[at] = byte;
            resolve(&message).map(|(code, _)| code)
        };
        assert_eq!(with(2, 0x81), None, "an answer");
        assert_eq!(with(2, 0x11), Some(4), "another operation");
        assert_eq!(with(5, 2), Some(1), "two questions");
        assert_eq!(with(12, 0xc0), Some(1), "a compressed name");
        assert_eq!(with(12, 63), Some(1), "a name that goes on behind the end");
        assert_eq!(with(right.len() - 1, 3), Some(5), "another class");
        assert_eq!(resolve(&right[..11]), None);
    }

    #[test]
    fn names_are_what_programs_ask_for() {
        assert_eq!(Name::new("A-1._x.").unwrap().as_str(), "a-1._x");
        assert!(Name::new(&"a.".repeat(127)).is_some());
        let part = "a".repeat(64);
        let whole = "a.".repeat(128);
        for bad in ["", ".", "a..b", "a b", "a,b", "\u{e4}", &part, &whole] {
            assert!(Name::new(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_message_is_survived(mut message in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut out = [0; MAX_MESSAGE];
            answer(&message, &names(), &Status::default(), &mut out);
            if message.len() > 12 {
                // A question, of whatever name.
                message[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
                answer(&message, &names(), &Status::default(), &mut out);
            }
        }
    }
}
