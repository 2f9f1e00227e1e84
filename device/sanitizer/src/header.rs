// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Whether the per-packet header fits the frame that it stands before.

use vnet_contract::features::{TX_CSUM, TX_ECN, TX_TSO4, TX_TSO6, TX_USO};
use vnet_contract::hdr::{
    NetHdr, F_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4,
};
use vnet_contract::queue::MIN_FRAME;

use crate::Rule;

/// Bytes of a frame that are looked at: the headers of all but the strangest frames.
pub(crate) const START: usize = 256;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What is wrong: the rule, what was seen, what was due.
pub(crate) type Verdict = Result<(), (Rule, String, String)>;

fn broken<T>(
    rule: Rule,
    seen: String,
    due: impl Into<String>,
) -> Result<T, (Rule, String, String)> {
    Err((rule, seen, due.into()))
}

/// Judges the header of a frame of `len` bytes, of which `start` are the first.
pub(crate) fn judge(hdr: &NetHdr, start: &[u8], len: usize, features: u64) -> Verdict {
    let flags = hdr.flags & !F_NEEDS_CSUM;
    if flags != 0 {
        let due = "none that is not defined for transmit";
        return broken(Rule::HeaderFlags, format!("flags {flags:#x}"), due);
    }
    let kind = hdr.gso_type & !GSO_ECN;
    let (needed, transport, protocol) = match kind {
        GSO_NONE => (0, 0, None),
        GSO_TCPV4 => (TX_TSO4, 20, Some((4, TCP))),
        GSO_TCPV6 => (TX_TSO6, 20, Some((6, TCP))),
        GSO_UDP_L4 => (TX_USO, 8, None),
        _ => {
            let seen = format!("gso_type {:#x}", hdr.gso_type);
            return broken(Rule::HeaderFlags, seen, "a type that is defined");
        }
    };
    let partial = hdr.flags & F_NEEDS_CSUM != 0;
    let ecn = hdr.gso_type & GSO_ECN != 0;
    let needed = needed | if partial { TX_CSUM } else { 0 } | if ecn { TX_ECN } else { 0 };
    let missing = needed & !features;
    if missing != 0 || ecn && (kind == GSO_NONE || kind == GSO_UDP_L4) {
        let seen = format!("flags {:#x}, gso_type {:#x}", hdr.flags, hdr.gso_type);
        let due = format!("what the accepted features {features:#x} allow");
        return broken(Rule::HeaderFlags, seen, due);
    }

    let at = usize::from(hdr.csum_start);
    let field = at + usize::from(hdr.csum_offset);
    let headers = Headers::parse(start);
    if partial {
        if at < MIN_FRAME || field + 2 > len {
            let seen = format!("csum_start {at}, csum_offset {}", hdr.csum_offset);
            return broken(
                Rule::HeaderChecksum,
                seen,
                format!("within a frame of {len} bytes"),
            );
        }
        if let Some(headers) = &headers {
            checksum(headers, hdr, start, len)?;
        }
    }
    if kind == GSO_NONE {
        return Ok(());
    }
    let size = usize::from(hdr.gso_size);
    if !partial || size == 0 {
        let seen = format!("flags {:#x}, gso_size {size}", hdr.flags);
        let due = "F_NEEDS_CSUM and a size that is not zero";
        return broken(Rule::HeaderSegmentation, seen, due);
    }
    // Beyond the shortest transport header it is a hint.
    let (covered, least) = (usize::from(hdr.hdr_len), at + transport);
    if let Some(headers) = &headers {
        let fits = match protocol {
            Some(wanted) => (headers.version, headers.protocol) == wanted,
            None => headers.protocol == UDP,
        };
        if !fits || headers.fragment || at != headers.transport {
            let seen = format!("gso_type {kind}, csum_start {at}, on {headers}");
            return broken(Rule::HeaderSegmentation, seen, "what the frame is");
        }
    }
    if covered < least || covered > len {
        let seen = format!("hdr_len {covered}");
        let due = format!("{least} to {len}");
        return broken(Rule::HeaderSegmentation, seen, due);
    }
    Ok(())
}

/// Judges where the checksum of TCP and UDP is, and what stands there. That of a frame within
/// another one may be meant, which is not looked for.
fn checksum(headers: &Headers, hdr: &NetHdr, start: &[u8], len: usize) -> Verdict {
    let at = usize::from(hdr.csum_start);
    let offset = match headers.protocol {
        TCP => 16,
        UDP => 6,
        _ => return Ok(()),
    };
    if headers.fragment || at > headers.transport {
        return Ok(());
    }
    if at != headers.transport || hdr.csum_offset != offset {
        let seen = format!(
            "csum_start {at}, csum_offset {}, on {headers}",
            hdr.csum_offset
        );
        let due = format!("csum_start {}, csum_offset {offset}", headers.transport);
        return broken(Rule::HeaderChecksum, seen, due);
    }
    let field = at + usize::from(offset);
    let (Some(found), Some(due)) = (word(start, field), headers.pseudo(start, len)) else {
        return Ok(());
    };
    // Zero has two forms.
    if found % 0xffff != due % 0xffff {
        let seen = format!("{found:#06x} where the checksum goes, on {headers}");
        return broken(
            Rule::HeaderChecksum,
            seen,
            format!("{due:#06x}, the sum of the pseudo header"),
        );
    }
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

/// The headers of a frame of IP.
#[derive(Debug)]
struct Headers {
    version: u8,
    protocol: u8,
    fragment: bool,
    /// Where the header of IP is.
    network: usize,
    /// Where that of the transport is.
    transport: usize,
    /// A header between the two has a say in the addresses.
    routed: bool,
}

impl std::fmt::Display for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = if self.fragment { "a fragment of " } else { "" };
        match self.protocol {
            TCP => write!(f, "{part}TCP")?,
            UDP => write!(f, "{part}UDP")?,
            other => write!(f, "{part}protocol {other}")?,
        }
        write!(f, " over IPv{} at {}", self.version, self.transport)
    }
}

impl Headers {
    /// `None` if the frame is none of IP, or its headers are longer than what there is of it.
    fn parse(start: &[u8]) -> Option<Self> {
        let mut at = 12;
        let mut kind = word(start, at)?;
        for _ in 0..2 {
            if matches!(kind, 0x8100 | 0x88a8) {
                at += 4;
                kind = word(start, at)?;
            }
        }
        let network = at + 2;
        let ip = start.get(network..)?;
        match kind {
            0x0800 => {
                let first = *ip.first()?;
                let len = usize::from(first & 15) * 4;
                (first >> 4 == 4 && len >= 20).then_some(())?;
                Some(Self {
                    version: 4,
                    protocol: *ip.get(9)?,
                    fragment: word(ip, 6)? & 0x3fff != 0,
                    network,
                    transport: network + len,
                    // Loose and strict source routes change the destination.
                    routed: len > 20,
                })
            }
            0x86dd => Self::parse_v6(network, ip),
            _ => None,
        }
    }

    fn parse_v6(network: usize, ip: &[u8]) -> Option<Self> {
        let (mut protocol, mut at) = (*ip.get(6)?, 40);
        let (mut fragment, mut routed) = (false, false);
        // Hop by hop, routing, fragment, destination.
        for _ in 0..8 {
            let len = match protocol {
                0 | 60 => usize::from(*ip.get(at + 1)?) * 8 + 8,
                43 => {
                    routed = true;
                    usize::from(*ip.get(at + 1)?) * 8 + 8
                }
                44 => {
                    fragment |= word(ip, at + 2)? & 0xfff9 != 0;
                    8
                }
                _ => {
                    return Some(Self {
                        version: 6,
                        protocol,
                        fragment,
                        network,
                        transport: network + at,
                        routed,
                    })
                }
            };
            protocol = *ip.get(at)?;
            at += len;
        }
        None
    }

    /// The sum of the pseudo header, folded; `None` if it is not known.
    fn pseudo(&self, start: &[u8], len: usize) -> Option<u16> {
        if self.routed {
            return None;
        }
        let ip = start.get(self.network..)?;
        let (addresses, length) = match self.version {
            4 => (ip.get(12..20)?, usize::from(word(ip, 2)?)),
            _ => (ip.get(8..40)?, usize::from(word(ip, 4)?) + 40),
        };
        // A length of zero, less what was added, is that of a frame too long to say so.
        let total = match (self.version, length) {
            (4, 0) | (6, 40) => len - self.network,
            _ => length,
        };
        let transport = total.checked_sub(self.transport - self.network)?;
        let mut sum: u64 = addresses
            .chunks_exact(2)
            .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        sum += u64::from(self.protocol) + transport as u64;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        Some(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options make the header of TCP longer than `hdr_len` has to cover, and a frame may have less
    /// payload than goes into a segment.
    #[test]
    fn what_is_a_hint_is_not_judged() {
        let mut frame = vec![0u8; 14 + 20 + 32 + 100];
        frame[12..15].copy_from_slice(&[0x08, 0, 0x45]);
        frame[16..18].copy_from_slice(&(20u16 + 32 + 100).to_be_bytes());
        frame[23] = TCP;
        frame[46] = 8 << 4;
        frame[50..52].copy_from_slice(&(u16::from(TCP) + 32 + 100).to_be_bytes());
        let header = NetHdr {
            flags: F_NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 54,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
            ..NetHdr::default()
        };
        let judge = |header: &NetHdr| judge(header, &frame, frame.len(), TX_CSUM | TX_TSO4);
        assert_eq!(judge(&header), Ok(()));
        for hdr_len in [53, 167] {
            let (rule, seen, due) = judge(&NetHdr { hdr_len, ..header }).unwrap_err();
            assert_eq!(rule, Rule::HeaderSegmentation);
            assert_eq!(
                (seen, due),
                (format!("hdr_len {hdr_len}"), "54 to 166".into())
            );
        }
    }

    /// A frame behind these tags, with a hop-by-hop header or without, whose checksum is to be completed.
    fn ready(tags: &[u16], version: u8, hop_by_hop: bool, protocol: u8) -> (NetHdr, Vec<u8>) {
        const LEN: u16 = 100;
        let mut frame = vec![2; 12];
        for tag in tags {
            frame.extend([tag.to_be_bytes(), [0, 5]].concat());
        }
        let addresses = match version {
            4 => {
                frame.extend([0x08, 0, 0x45, 0]);
                frame.extend((20 + LEN).to_be_bytes());
                frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
                8
            }
            _ => {
                let (next, more) = if hop_by_hop { (0, 8) } else { (protocol, 0) };
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((LEN + more).to_be_bytes());
                frame.extend([next, 64]);
                32
            }
        };
        frame.extend((1..=addresses).map(|n| n * 7));
        let words = frame[frame.len() - usize::from(addresses)..].chunks(2);
        let sum: u32 = words
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let sum = sum + u32::from(protocol) + u32::from(LEN);
        if hop_by_hop {
            frame.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
        }
        let (at, offset, gso_type) = match (protocol, version) {
            (TCP, 4) => (frame.len(), 16, GSO_TCPV4),
            (TCP, _) => (frame.len(), 16, GSO_TCPV6),
            _ => (frame.len(), 6, GSO_UDP_L4),
        };
        frame.resize(at + usize::from(LEN), 0);
        let folded = (sum >> 16) + (sum & 0xffff);
        frame[at + offset..][..2].copy_from_slice(&(folded as u16).to_be_bytes());
        let header = NetHdr {
            flags: F_NEEDS_CSUM,
            gso_type,
            hdr_len: at as u16 + 20,
            gso_size: 10,
            csum_start: at as u16,
            csum_offset: offset as u16,
            ..NetHdr::default()
        };
        (header, frame)
    }

    #[test]
    fn frames_of_all_kinds_are_judged() {
        const FEATURES: u64 = TX_CSUM | TX_TSO4 | TX_TSO6 | TX_USO;
        let headers: [(&[u16], u8, bool); 5] = [
            (&[], 4, false),
            (&[], 6, false),
            (&[], 6, true),
            (&[0x8100], 4, false),
            (&[0x88a8, 0x8100], 6, false),
        ];
        for ((tags, version, hop_by_hop), protocol) in
            headers.into_iter().flat_map(|h| [(h, TCP), (h, UDP)])
        {
            let (good, frame) = ready(tags, version, hop_by_hop, protocol);
            let rule = |header: NetHdr, frame: &[u8]| {
                let verdict = judge(&header, frame, frame.len(), FEATURES);
                verdict.err().map(|(rule, ..)| rule)
            };
            let context = format!("{tags:x?} {version} {hop_by_hop} {protocol}");
            for gso_type in [GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4] {
                let fits = gso_type == GSO_NONE || gso_type == good.gso_type;
                let broken = (!fits).then_some(Rule::HeaderSegmentation);
                let header = NetHdr { gso_type, ..good };
                assert_eq!(rule(header, &frame), broken, "{context} {gso_type}");
            }
            for (csum_start, csum_offset) in [
                (good.csum_start, 22 - good.csum_offset),
                (good.csum_start - 4, good.csum_offset + 4),
            ] {
                let header = NetHdr {
                    csum_start,
                    csum_offset,
                    ..good
                };
                assert_eq!(
                    rule(header, &frame),
                    Some(Rule::HeaderChecksum),
                    "{context}"
                );
            }
            let mut other = frame.clone();
            other[usize::from(good.csum_start + good.csum_offset)] ^= 1;
            assert_eq!(rule(good, &other), Some(Rule::HeaderChecksum), "{context}");
        }
    }
}
