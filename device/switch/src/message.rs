// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a switch reads of multicast packets: who wants which group, by IGMP (RFC 1112, 2236, 3376) and
//! MLD (RFC 2710, 3810), and where routers are, also by the greetings of PIM (RFC 7761).
//!
//! A message is believed only if hosts would believe it, too: else one that they pass over could take
//! from them what they get.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use vnet_backend::checksum;

use crate::head::Mac;

/// Bytes of a packet that say whether more of it has to be read.
pub(crate) const START: usize = 40;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

// IP protocols.
const HOP_BY_HOP: u8 = 0;
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
const PIM: u8 = 103;

// IGMP types.
const QUERY: u8 = 0x11;
const REPORT_V1: u8 = 0x12;
const REPORT_V2: u8 = 0x16;
const LEAVE: u8 = 0x17;
const REPORT_V3: u8 = 0x22;

// ICMPv6 types.
const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const MLD_REPORT_V2: u8 = 143;

/// Version 2, type Hello.
const PIM_HELLO: u8 = 0x20;

const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_PIM_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 13);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_PIM_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 13);

// Defaults of all versions; only the last ones tell others.
const ROBUSTNESS: u32 = 2;
const INTERVAL: Duration = Duration::from_secs(125);
/// How long hosts may take to answer an IGMPv1 query.
const RESPOND_V1: Duration = Duration::from_secs(10);

/// A packet to a multicast address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'p> {
    /// Nothing that is looked at: for all.
    Other,
    /// For the members of a group.
    Data(IpAddr),
    /// A querier asks who is a member.
    Query(Query),
    /// Somebody is a member, or is not any more: for who asks.
    Report(Report<'p>),
    /// A multicast router introduces itself, over IPv6 or IPv4.
    Router { v6: bool },
    /// A message that no host would read.
    Damaged,
}

/// A question for members.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) v6: bool,
    /// Which group it is about, if not all.
    pub(crate) group: Option<IpAddr>,
    /// It comes from an address. A switch that asks in the place of a router has none.
    pub(crate) routed: bool,
    /// Members answer within this time.
    pub(crate) respond: Duration,
    /// How often it is asked, and how many answers may get lost.
    pub(crate) interval: Duration,
    pub(crate) robustness: u32,
    /// Who does not answer is a member no more. Else it is a repetition, or about some sources, or there
    /// may be hosts that do not read it.
    pub(crate) decides: bool,
}

/// Says which groups somebody joins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report<'p> {
    pub(crate) v6: bool,
    /// At most one, as the older versions have it.
    one: Option<IpAddr>,
    /// The records of the last versions, which were found to be whole.
    records: &'p [u8],
}

/// Whether all of a packet has to be read, from its [`START`].
pub(crate) fn is_message(kind: [u8; 2], start: &[u8]) -> bool {
    match kind {
        IPV4 => start.get(9).is_some_and(|p| [IGMP, PIM].contains(p)),
        IPV6 => start.get(6).is_some_and(|p| [HOP_BY_HOP, PIM].contains(p)),
        _ => false,
    }
}

/// True for the addresses that IP multicast has in Ethernet frames.
pub(crate) fn is_mapped(mac: Mac) -> bool {
    matches!(mac, [0x01, 0x00, 0x5e, 0..=0x7f, ..] | [0x33, 0x33, ..])
}

/// Reads the payload of a frame with this destination and type: all of it, or if it is no message,
/// its start.
pub(crate) fn parse(to: Mac, kind: [u8; 2], packet: &[u8]) -> Packet<'_> {
    let read = match kind {
        IPV4 => ipv4(to, packet),
        IPV6 => ipv6(to, packet),
        _ => None,
    };
    read.unwrap_or(Packet::Other)
}

/// `None`: nothing to be looked at.
fn ipv4(to: Mac, packet: &[u8]) -> Option<Packet<'_>> {
    let header = packet.first_chunk::<20>()?;
    let [first, _, l0, l1, _, _, f0, f1, ttl, protocol, _, _, from @ .., d0, d1, d2, d3] = *header;
    let from = Ipv4Addr::from(from);
    let group = Ipv4Addr::new(d0, d1, d2, d3);
    // More fragments follow, or others came before.
    let fragment = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
    if first >> 4 != 4 || !group.is_multicast() {
        return None;
    }
    match (protocol, group) {
        (IGMP, _) | (PIM, ALL_PIM_ROUTERS) if fragment => return None,
        (IGMP, _) | (PIM, ALL_PIM_ROUTERS) => {}
        _ => return data(group.into()),
    }
    let header_len = usize::from(first & 15) * 4;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let parts = packet
        .get(..len)
        .and_then(|p| p.split_at_checked(header_len));
    let good = parts.filter(|(header, message)| {
        let sums = [checksum::sum(header), checksum::sum(message)];
        header.len() >= 20 && sums == [0xffff; 2]
    });
    let Some((header, message)) = good else {
        return (protocol == IGMP).then_some(Packet::Damaged);
    };
    if protocol == PIM {
        let hello = message.first() == Some(&PIM_HELLO);
        return hello.then_some(Packet::Router { v6: false });
    }
    let heard = ttl == 1 && has_router_alert(&header[20..], false) && to == mac_of(group.into());
    Some(igmp(message, from, group, heard)?.unwrap_or(Packet::Damaged))
}

/// `None`: a type that is not known. `Some(None)`: no host would read it.
fn igmp(message: &[u8], from: Ipv4Addr, to: Ipv4Addr, heard: bool) -> Option<Option<Packet<'_>>> {
    let Some((&[kind, code, _, _, g0, g1, g2, g3], rest)) = message.split_first_chunk::<8>() else {
        return Some(None);
    };
    let group = Ipv4Addr::new(g0, g1, g2, g3);
    let one = |group: Ipv4Addr| {
        let member = group.is_multicast().then(|| limited(group.into()));
        member.map(|one| Report::older(false, one))
    };
    Some(match kind {
        QUERY => {
            let asked = (!group.is_unspecified()).then_some(group);
            let to_all = to == ALL_HOSTS;
            if !to_all && asked.is_none() {
                // Hosts do not answer.
                return None;
            }
            let heard = heard && (to_all || asked == Some(to));
            let tenths = |tenths: u32| Duration::from_millis(100 * u64::from(tenths));
            let respond = match (code, rest) {
                (0, []) => RESPOND_V1,
                (_, []) => tenths(code.into()),
                _ => tenths(float(code.into(), 8)),
            };
            query(rest, 4, respond, heard).map(|query| {
                Packet::Query(Query {
                    v6: false,
                    group: asked.map(Into::into),
                    routed: !from.is_unspecified(),
                    ..query
                })
            })
        }
        REPORT_V1 | REPORT_V2 => one(group),
        LEAVE => Some(Report::older(false, None)),
        REPORT_V3 => records(message, false),
        _ => return None,
    })
}

/// `None`: nothing to be looked at.
fn ipv6(to: Mac, packet: &[u8]) -> Option<Packet<'_>> {
    let (header, rest) = packet.split_first_chunk::<40>()?;
    let [first, _, _, _, l0, l1, next, hops, addresses @ ..] = header;
    let (from, group) = addresses.split_first_chunk::<16>()?;
    let from = Ipv6Addr::from(*from);
    let group = Ipv6Addr::from(<[u8; 16]>::try_from(group).ok()?);
    if first >> 4 != 6 || !group.is_multicast() {
        return None;
    }
    let len = usize::from(u16::from_be_bytes([*l0, *l1]));
    let sum = |message: &[u8], protocol: u8| {
        let length = (message.len() as u32).to_be_bytes();
        let pseudo = [&addresses[..], &length, &[0, 0, 0, protocol]].concat();
        checksum::add(checksum::sum(&pseudo), checksum::sum(message)) == 0xffff
    };
    match *next {
        PIM if group == ALL_PIM_ROUTERS_V6 => {
            let message = rest.get(..len)?;
            let hello = message.first() == Some(&PIM_HELLO);
            (hello && sum(message, PIM)).then_some(Packet::Router { v6: true })
        }
        HOP_BY_HOP => {
            let &[next, units, ..] = rest else {
                return data(group.into());
            };
            let options = 8 * (1 + usize::from(units));
            let kind = rest.get(options).filter(|_| next == ICMPV6);
            if !matches!(
                kind,
                Some(&(MLD_QUERY | MLD_REPORT | MLD_DONE | MLD_REPORT_V2))
            ) {
                return data(group.into());
            }
            let whole = rest.get(..len).and_then(|r| r.split_at_checked(options));
            let good = whole.filter(|(options, message)| {
                let query = kind == Some(&MLD_QUERY);
                // A report may come before its sender has an address (RFC 3590).
                let near = from.is_unicast_link_local() || !query && from.is_unspecified();
                let alert = options.get(2..).is_some_and(|o| has_router_alert(o, true));
                *hops == 1 && near && alert && sum(message, ICMPV6)
            });
            let read = good.and_then(|(_, message)| mld(message, to, group));
            Some(read.unwrap_or(Packet::Damaged))
        }
        _ => data(group.into()),
    }
}

/// `None`: no host would read it.
fn mld(message: &[u8], mac: Mac, to: Ipv6Addr) -> Option<Packet<'_>> {
    let kind = *message.first()?;
    if kind == MLD_REPORT_V2 {
        return records(message, true);
    }
    let (&[_, _, _, _, c0, c1, _, _, group @ ..], rest) = message.split_first_chunk::<24>()?;
    let group = Ipv6Addr::from(group);
    let report = match kind {
        MLD_QUERY => {
            let asked = (!group.is_unspecified()).then_some(group);
            let to_all = to == ALL_NODES;
            if !to_all && asked.is_none() {
                return Some(Packet::Other);
            }
            let heard = mac == mac_of(to.into()) && (to_all || asked == Some(to));
            let code = u32::from(u16::from_be_bytes([c0, c1]));
            let millis = match rest {
                [] => code,
                _ => float(code, 16),
            };
            let respond = Duration::from_millis(millis.into());
            let query = query(rest, 16, respond, heard)?;
            return Some(Packet::Query(Query {
                v6: true,
                group: asked.map(Into::into),
                routed: true,
                ..query
            }));
        }
        MLD_REPORT if group.is_multicast() => limited(group.into()),
        MLD_REPORT => return None,
        _ => None,
    };
    Some(Report::older(true, report))
}

/// What the last versions add to a query: nothing if it is an older one. `None`: no host would read it.
fn query(rest: &[u8], address: usize, respond: Duration, heard: bool) -> Option<Query> {
    let older = Query {
        v6: false,
        group: None,
        routed: false,
        respond,
        interval: INTERVAL,
        robustness: ROBUSTNESS,
        decides: heard,
    };
    if rest.is_empty() {
        return Some(older);
    }
    let (&[flags, interval, n0, n1], sources) = rest.split_first_chunk::<4>()?;
    let count = usize::from(u16::from_be_bytes([n0, n1]));
    sources.get(..count * address)?;
    let suppressed = flags & 8 != 0;
    let robustness = u32::from(flags & 7);
    Some(Query {
        interval: Duration::from_secs(float(interval.into(), 8).into()),
        // 0: not told.
        robustness: if robustness == 0 {
            ROBUSTNESS
        } else {
            robustness
        },
        decides: heard && !suppressed && count == 0,
        ..older
    })
}

/// A number as queries have it (RFC 3376, 4.1.1; RFC 3810, 5.1.3): half of the range as it is, and the
/// rest with an exponent of three bits.
fn float(code: u32, bits: u32) -> u32 {
    if code >> (bits - 1) == 0 {
        return code;
    }
    let mantissa = bits - 4;
    let exponent = code >> mantissa & 7;
    (code & ((1 << mantissa) - 1) | 1 << mantissa) << (exponent + 3)
}

/// The report of the last versions. `None`: it is not whole.
fn records(message: &[u8], v6: bool) -> Option<Packet<'_>> {
    let (&[.., n0, n1], records) = message.split_first_chunk::<8>()?;
    let mut rest = records;
    for _ in 0..u16::from_be_bytes([n0, n1]) {
        (_, rest) = record(rest, v6)?;
    }
    let records = &records[..records.len() - rest.len()];
    Some(Packet::Report(Report {
        v6,
        one: None,
        records,
    }))
}

/// The group that the first record has a member for, if it has, and the records after it.
fn record(records: &[u8], v6: bool) -> Option<(Option<IpAddr>, &[u8])> {
    let (&[kind, auxiliary, n0, n1], rest) = records.split_first_chunk::<4>()?;
    let sources = usize::from(u16::from_be_bytes([n0, n1]));
    let (group, address, rest): (IpAddr, _, _) = if v6 {
        let (group, rest) = rest.split_first_chunk::<16>()?;
        (Ipv6Addr::from(*group).into(), 16, rest)
    } else {
        let (group, rest) = rest.split_first_chunk::<4>()?;
        (Ipv4Addr::from(*group).into(), 4, rest)
    };
    let rest = rest.get(sources * address + usize::from(auxiliary) * 4..)?;
    let joins = match kind {
        // All sources but these.
        2 | 4 => true,
        // These sources, or these as well.
        1 | 3 | 5 => sources > 0,
        _ => false,
    };
    let group = Some(group).filter(|group| joins && group.is_multicast());
    Some((group.and_then(limited), rest))
}

impl<'p> Report<'p> {
    fn older(v6: bool, one: Option<IpAddr>) -> Packet<'p> {
        let records = &[];
        Packet::Report(Report { v6, one, records })
    }

    /// One that joins this many IPv4 groups by records in `bytes`, of which `group` tells the n-th.
    #[cfg(test)]
    pub(crate) fn of(
        bytes: &'p mut Vec<u8>,
        count: usize,
        group: impl Fn(usize) -> [u8; 4],
    ) -> Self {
        bytes.extend((0..count).flat_map(|n| [[4, 0, 0, 0], group(n)]).flatten());
        let records = bytes;
        Self {
            v6: false,
            one: None,
            records,
        }
    }

    /// The groups that it has a member for.
    pub(crate) fn groups(&self) -> impl Iterator<Item = IpAddr> + 'p {
        let (v6, mut records) = (self.v6, self.records);
        let next = move || {
            let (group, rest) = record(records, v6)?;
            records = rest;
            Some(group)
        };
        let records = std::iter::from_fn(next).flatten();
        self.one.into_iter().chain(records)
    }
}

fn data(group: IpAddr) -> Option<Packet<'static>> {
    limited(group).map(Packet::Data)
}

/// The group if it goes to its members only. What the link itself runs on goes to all, whoever is a
/// member: `224.0.0.0/24` as RFC 4541 has it, and its like with IPv6, neighbour discovery with that.
fn limited(group: IpAddr) -> Option<IpAddr> {
    let link = match group {
        IpAddr::V4(group) => group.octets()[..3] == [224, 0, 0],
        // Flags 0: permanent; scope 2 at most.
        IpAddr::V6(group) => group.octets()[1] <= 2,
    };
    (!link).then_some(group)
}

/// The address that the frames of a group have (RFC 1112, 6.4; RFC 2464, 7).
fn mac_of(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(group) => {
            let [_, a, b, c] = group.octets();
            [0x01, 0x00, 0x5e, a & 0x7f, b, c]
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// Whether options of IPv4 or of a hop-by-hop header have that which has routers look at the packet
/// (RFC 2113, RFC 2711), with MLD as the reason.
fn has_router_alert(mut options: &[u8], v6: bool) -> bool {
    loop {
        options = match (options, v6) {
            ([148, 4, 0, 0, ..], false) | ([5, 2, 0, 0, ..], true) => return true,
            ([] | [0, ..], false) | ([], true) => return false,
            // One byte of padding.
            ([1, rest @ ..], false) | ([0, rest @ ..], true) => rest,
            ([_, len, ..], false) if *len >= 2 => match options.get(usize::from(*len)..) {
                Some(rest) => rest,
                None => return false,
            },
            ([_, len, rest @ ..], true) => match rest.get(usize::from(*len)..) {
                Some(rest) => rest,
                None => return false,
            },
            _ => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> Vec<(&'static str, Vec<u8>)> {
        let lines = include_str!("../tests/multicast.frames").lines();
        let lines = lines.filter(|line| !line.starts_with('#'));
        let byte = |at: usize, hex: &str| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        lines
            .map(|line| {
                let (hex, name) = line.split_once(' ').unwrap();
                let bytes = (0..hex.len()).step_by(2).map(|at| byte(at, hex));
                (name, bytes.collect())
            })
            .collect()
    }

    fn read(frame: &[u8]) -> Packet<'_> {
        let to = *frame.first_chunk().unwrap();
        parse(to, [frame[12], frame[13]], &frame[14..])
    }

    fn named(name: &str) -> Vec<u8> {
        let found = frames().into_iter().find(|(n, _)| *n == name);
        found.unwrap().1
    }

    /// The same with another byte, and the checksum of the message right for that.
    fn with(name: &str, at: usize, byte: u8) -> Vec<u8> {
        let mut frame = named(name);
        let field = match frame[12] {
            8 => 14 + usize::from(frame[14] & 15) * 4 + 2,
            _ => 14 + 40 + 8 + 2,
        };
        assert!(at > field + 1);
        let words = |frame: &[u8]| checksum::sum(&frame[at & !1..][..2]);
        let before = words(&frame);
        frame[at] = byte;
        // RFC 1624.
        let sum = [field, at & !1].map(|at| checksum::sum(&frame[at..][..2]));
        let sum = !checksum::add(checksum::add(!sum[0], !before), sum[1]);
        frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    #[test]
    fn what_hosts_and_routers_send_is_read() {
        let v4: IpAddr = "239.1.2.3".parse().unwrap();
        let v6: IpAddr = "ff15::1234".parse().unwrap();
        for (name, groups) in [
            ("IGMPv1 report", vec![v4]),
            ("IGMPv2 report", vec![v4]),
            ("IGMPv2 leave", vec![]),
            ("IGMPv3 join", vec![v4]),
            ("IGMPv3 leave", vec![]),
            ("MLDv1 report", vec![v6]),
            ("MLDv1 done", vec![]),
            // Solicited nodes, too: they are for all anyway.
            ("MLDv2 join", vec![v6]),
            ("MLDv2 leave", vec![]),
            ("MLDv2 join without address", vec![]),
        ] {
            let frame = named(name);
            let Packet::Report(report) = read(&frame) else {
                panic!("{name}: {:?}", read(&frame));
            };
            assert_eq!(report.groups().collect::<Vec<_>>(), groups, "{name}");
            assert_eq!(report.v6, name.starts_with("MLD"), "{name}");
        }
        for (name, group, respond) in [
            ("IGMPv2 query", None, 1000),
            ("IGMPv3 query", None, 1000),
            ("MLDv1 query", None, 1000),
            ("IGMPv2 query of the group", Some(v4), 500),
            ("IGMPv3 query of the group", Some(v4), 500),
            ("MLDv1 query of the group", Some(v6), 500),
            ("MLDv2 query of the group", Some(v6), 500),
        ] {
            let v6 = name.starts_with("MLD");
            let due = Packet::Query(Query {
                v6,
                group,
                // A bridge without an address of IPv4 asked.
                routed: v6,
                respond: Duration::from_millis(respond),
                interval: INTERVAL,
                robustness: 2,
                decides: true,
            });
            assert_eq!(read(&named(name)), due, "{name}");
        }
        for name in ["IGMPv3 repetition", "MLDv2 repetition"] {
            let frame = named(name);
            assert!(matches!(read(&frame), Packet::Query(q) if !q.decides));
        }
    }

    #[test]
    fn what_goes_to_all() {
        for (name, due) in [
            ("PIM hello", Packet::Router { v6: false }),
            ("PIM hello, IPv6", Packet::Router { v6: true }),
            ("neighbour solicitation", Packet::Other),
            ("mDNS", Packet::Other),
            (
                "UDP to the group",
                Packet::Data("239.1.2.3".parse().unwrap()),
            ),
        ] {
            assert_eq!(read(&named(name)), due, "{name}");
        }
        // What is no group; a piece of a packet.
        assert_eq!(
            read(&with("IGMPv2 report", 14 + 24 + 4, 0)),
            Packet::Damaged
        );
        let mut piece = named("IGMPv3 join");
        piece[14 + 6] = 0x20;
        assert_eq!(read(&piece), Packet::Other);
    }

    /// Whoever may be told something else by hosts than by the switch could be cut off.
    #[test]
    fn a_query_that_hosts_may_not_read_decides_nothing() {
        for name in ["IGMPv2 query of the group", "MLDv1 query of the group"] {
            let mut frame = named(name);
            frame[5] ^= 2;
            let decides = matches!(read(&frame), Packet::Query(q) if q.decides);
            assert!(!decides, "{name}: to the address of other groups");
        }
        let mut frame = named("MLDv1 query of the group");
        frame[14 + 7] = 2;
        assert_eq!(read(&frame), Packet::Damaged, "from afar");
        let mut frame = named("MLDv1 query of the group");
        frame[14 + 42..14 + 48].copy_from_slice(&[1, 4, 0, 0, 0, 0]);
        assert_eq!(read(&frame), Packet::Damaged, "without router alert");
    }

    #[test]
    fn times_have_exponents() {
        for (code, bits, value) in [
            (0x7f, 8, 127),
            (0x80, 8, 128),
            (0xff, 8, 31 << 10),
            (0x7fff, 16, 32767),
            (0x8000, 16, 32768),
            (0xffff, 16, 8191 << 10),
        ] {
            assert_eq!(float(code, bits), value);
        }
    }

    #[test]
    fn what_is_cut_or_changed_is_not_believed() {
        let messages = |name: &str| name.starts_with("IGMP") || name.starts_with("MLD");
        for (name, frame) in frames().into_iter().filter(|(n, _)| messages(n)) {
            for len in 14..frame.len() {
                let cut = read(&frame[..len]);
                let harmless = matches!(cut, Packet::Damaged | Packet::Other | Packet::Data(_));
                assert!(harmless, "{name}, {len} bytes: {cut:?}");
            }
            let ip = match frame[12] {
                8 => 14..frame.len(),
                // The checksum does not cover the header, but for the addresses.
                _ => 14 + 8..frame.len(),
            };
            for bit in ip.start * 8..ip.end * 8 {
                let mut changed = frame.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let options = frame[12] != 8 && (54..62).contains(&(bit / 8));
                let seen = read(&changed);
                let believed = matches!(seen, Packet::Report(_) | Packet::Query(_));
                assert!(!believed || options, "{name}, bit {bit}: {seen:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(
            to in any::<[u8; 6]>(),
            v6 in any::<bool>(),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            parse(to, if v6 { IPV6 } else { IPV4 }, &bytes);
        }

        /// Real ones with other bytes, whose sum is right: all is read, within bounds.
        #[test]
        fn any_message_is_read(
            which in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            more in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let frames = frames();
            let (_, mut frame) = frames[which.index(frames.len())].clone();
            frame.extend(&more);
            for (at, byte) in changes {
                let at = 14 + at.index(frame.len() - 14);
                frame[at] = byte;
            }
            let ip = &mut frame[14..];
            let v4 = ip[0] >> 4 == 4;
            let at = if v4 { usize::from(ip[0] & 15) * 4 } else { 48 };
            if v4 && at >= 20 && ip.len() > at + 8 {
                let len = (ip.len() as u16).to_be_bytes();
                ip[2..4].copy_from_slice(&len);
                for (range, field) in [(0..at, 10), (at..ip.len(), at + 2)] {
                    ip[field..field + 2].fill(0);
                    let sum = (!checksum::sum(&ip[range])).to_be_bytes();
                    ip[field..field + 2].copy_from_slice(&sum);
                }
            }
            let bytes = frame.len();
            if let Packet::Report(report) = read(&frame) {
                prop_assert!(report.groups().count() <= bytes / 8);
            }
        }
    }
}
