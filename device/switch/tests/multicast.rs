// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A switch that listens to who is a member of which multicast group.

mod cards;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vnet_backend::{checksum, mock, Checksum, Meta};
use vnet_loopback::Loopback;
use vnet_switch::{vlan, Config, Switch, Uplink, Vlans, MAX_MEMBERSHIPS_PER_PORT};

use cards::{join, Card};

/// A frame that a host or a bridge sent.
fn real(name: &str) -> Vec<u8> {
    let lines = include_str!("multicast.frames").lines();
    let mut lines = lines.filter(|line| !line.starts_with('#'));
    let line = lines.find(|line| line.split_once(' ').unwrap().1 == name);
    let hex = line.unwrap().split_once(' ').unwrap().0;
    let bytes = (0..hex.len()).step_by(2);
    bytes
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// An IPv4 packet in a frame.
fn ipv4(protocol: u8, to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![
        1,
        0,
        0x5e,
        to[1] & 0x7f,
        to[2],
        to[3],
        2,
        0,
        0,
        0,
        0,
        9,
        8,
        0,
    ];
    let len = (24 + payload.len() as u16).to_be_bytes();
    frame.extend([0x46, 0, len[0], len[1], 0, 0, 0x40, 0, 1, protocol, 0, 0]);
    frame.extend([10, 0, 0, 9]);
    frame.extend(to);
    frame.extend([148, 4, 0, 0]);
    let sum = !checksum::sum(&frame[14..]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend(payload);
    frame
}

fn igmp(to: [u8; 4], message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = !checksum::sum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(2, to, &message)
}

/// A query of IGMPv3 that is to be answered at once.
fn query() -> Vec<u8> {
    igmp([224, 0, 0, 1], &[0x11, 0, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0])
}

fn join_v2(group: [u8; 4]) -> Vec<u8> {
    igmp(group, &[&[0x16, 0, 0, 0][..], &group].concat())
}

fn join_v3(groups: &[[u8; 4]]) -> Vec<u8> {
    let [a, b] = (groups.len() as u16).to_be_bytes();
    let mut message = vec![0x22, 0, 0, 0, 0, 0, a, b];
    for group in groups {
        message.extend([4, 0, 0, 0]);
        message.extend(group);
    }
    igmp([224, 0, 0, 22], &message)
}

fn data(group: [u8; 4]) -> Vec<u8> {
    ipv4(17, group, &[0; 40])
}

fn tagged(frame: &[u8], vid: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vid.to_be_bytes(), &frame[12..]].concat()
}

const GROUP: [u8; 4] = [239, 1, 2, 3];
const OTHER: [u8; 4] = [239, 1, 2, 4];

fn snooping() -> Config {
    Config {
        snooping: true,
        ..Config::default()
    }
}

/// A switch that listens, and cards at it.
fn cards<const N: usize>() -> (Arc<Switch>, [Card; N]) {
    let switch = Switch::new();
    let cards = std::array::from_fn(|n| match n {
        0 => join(&switch, snooping()),
        _ => join(&switch, Config::default()),
    });
    (switch, cards)
}

/// How many frames each got.
fn got<const N: usize>(cards: &mut [Card; N]) -> [usize; N] {
    std::array::from_fn(|n| cards[n].got().len())
}

#[test]
fn a_group_is_for_its_members_and_for_routers() {
    let (switch, mut cards) = cards::<4>();
    // Nobody asks: everything is for all, reports too.
    cards[1].send(&join_v2(GROUP));
    cards[3].send(&data(GROUP));
    assert_eq!(got(&mut cards), [2, 1, 2, 1]);

    cards[0].send(&query());
    assert_eq!(got(&mut cards), [0, 1, 1, 1]);
    cards[1].send(&join_v2(GROUP));
    cards[2].send(&join_v3(&[OTHER]));
    assert_eq!(got(&mut cards), [2, 0, 0, 0]);
    cards[3].send(&data(GROUP));
    assert_eq!(got(&mut cards), [1, 1, 0, 0]);
    cards[3].send(&data(OTHER));
    assert_eq!(got(&mut cards), [1, 0, 1, 0]);
    cards[3].send(&data([239, 1, 2, 5]));
    assert_eq!(got(&mut cards), [1, 0, 0, 0]);
    // From a member, not back to it.
    cards[1].send(&data(GROUP));
    assert_eq!(got(&mut cards), [1, 0, 0, 0]);
    assert_eq!(switch.groups(), Some(2));

    // Leaving is for the querier to hear, who asks if there are others.
    cards[1].send(&real("IGMPv3 leave"));
    assert_eq!(got(&mut cards), [1, 0, 0, 0]);
    cards[3].send(&data(GROUP));
    assert_eq!(got(&mut cards), [1, 1, 0, 0]);
    cards[0].send(&real("IGMPv2 query of the group"));
    assert_eq!(got(&mut cards), [0, 1, 1, 1]);
    std::thread::sleep(Duration::from_millis(2100));
    cards[3].send(&data(GROUP));
    assert_eq!(got(&mut cards), [1, 0, 0, 0]);
    assert_eq!(switch.groups(), Some(1));
}

#[test]
fn what_hosts_send_is_understood() {
    for (report, v6) in [
        ("IGMPv1 report", false),
        ("IGMPv2 report", false),
        ("IGMPv3 join", false),
        ("MLDv1 report", true),
        ("MLDv2 join", true),
    ] {
        let (switch, mut cards) = cards::<4>();
        let asked = match v6 {
            false => query(),
            // The time to answer becomes none, and the sum is right for that.
            true => {
                let mut query = real("MLDv1 query");
                let sum = checksum::add(u16::from_be_bytes([query[64], query[65]]), 1000);
                query[64..66].copy_from_slice(&sum.to_be_bytes());
                query[66..68].fill(0);
                query
            }
        };
        cards[0].send(&asked);
        cards[1].send(&real(report));
        assert_eq!(got(&mut cards), [1, 1, 1, 1], "{report}");
        let mut packet = data(GROUP);
        if v6 {
            packet = real("MLDv1 report");
            // UDP, without the header that has routers look.
            packet[20] = 17;
        }
        cards[3].send(&packet);
        assert_eq!(got(&mut cards), [1, 1, 0, 0], "{report}");
        assert_eq!(switch.groups(), Some(1));
    }
}

#[test]
fn what_a_link_runs_on_is_for_all() {
    let (switch, mut cards) = cards::<3>();
    cards[0].send(&query());
    cards[0].send(&real("MLDv1 query"));
    cards[1].send(&real("IGMPv2 report"));
    std::thread::sleep(Duration::from_millis(1100));
    got(&mut cards);
    let mut arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6]].concat();
    arp.resize(42, 0);
    let mut unknown = arp.clone();
    unknown[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    for (name, frame) in [
        ("ARP", arp),
        ("no IP", unknown),
        ("ND", real("neighbour solicitation")),
        ("mDNS", real("mDNS")),
        ("PIM", real("PIM hello")),
        ("all hosts", data([224, 0, 0, 1])),
        ("another message", igmp(GROUP, &[0x13, 0, 0, 0, 0, 0, 0, 0])),
        ("a piece of a packet", {
            let mut piece = igmp(GROUP, &[0x16, 0, 0, 0, 0, 0, 0, 0]);
            piece[20..22].copy_from_slice(&[0x20, 0]);
            piece
        }),
    ] {
        cards[2].send(&frame);
        assert_eq!(got(&mut cards), [1, 1, 0], "{name}");
    }
    // The greeting has made it a router.
    cards[0].send(&data(GROUP));
    assert_eq!(got(&mut cards), [0, 1, 1]);
    // Nor does a report about such a group change anything.
    cards[1].send(&join_v2([224, 0, 0, 251]));
    got(&mut cards);
    cards[0].send(&data([224, 0, 0, 251]));
    assert_eq!(got(&mut cards), [0, 1, 1]);
    assert_eq!(switch.groups(), Some(1));
}

#[test]
fn damaged_messages_are_not_let_in() {
    let (switch, mut cards) = cards::<2>();
    cards[0].send(&query());
    got(&mut cards);
    for name in ["IGMPv2 report", "MLDv2 join", "IGMPv3 query of the group"] {
        let mut frame = real(name);
        *frame.last_mut().unwrap() ^= 1;
        cards[1].send(&frame);
        cards[1].send(&frame[..frame.len() - 1]);
    }
    assert_eq!(got(&mut cards), [0, 0]);
    assert_eq!(switch.report()[1].refused, 6);
    assert_eq!(switch.groups(), Some(0));
    // What has yet to be summed cannot be checked, so nothing is learned of it.
    let meta = Meta {
        checksum: Checksum::Partial {
            start: 38,
            offset: 2,
        },
        gso: None,
    };
    assert!(mock::transmit(
        cards[1].queues[0].as_mut(),
        &join_v2(GROUP),
        meta
    ));
    assert_eq!(got(&mut cards), [1, 0]);
    assert_eq!(switch.groups(), Some(0));
}

#[test]
fn a_port_may_get_all_of_it_and_the_switch_may_listen_no_more() {
    let (switch, [mut a, mut b, mut c]) = cards::<3>();
    let mut all = join(
        &switch,
        Config {
            all_multicast: true,
            ..Config::default()
        },
    );
    a.send(&query());
    c.send(&data(GROUP));
    let mut numbers = |a: &mut Card| {
        let cards = [a, &mut b, &mut c, &mut all];
        cards.map(|card| card.got().len())
    };
    assert_eq!(numbers(&mut a), [1, 1, 1, 2]);
    // Only the first one has it listen.
    drop(a);
    let mut a = join(&switch, Config::default());
    assert_eq!(switch.groups(), None);
    a.send(&data(GROUP));
    assert_eq!(numbers(&mut a), [0, 1, 1, 1]);
}

#[test]
fn groups_are_those_of_a_vlan() {
    let switch = Switch::new();
    let on = |untagged, tagged: &str, snooping| Config {
        vlans: Vlans::new(untagged, &tagged.parse().unwrap_or_default()),
        snooping,
        ..Config::default()
    };
    let mut cards = [
        join(&switch, on(None, "10+20", true)),
        join(&switch, on(Some(10), "", false)),
        join(&switch, on(Some(20), "", false)),
        join(&switch, on(None, "10+20", false)),
    ];
    assert_eq!(vlan::vid("10"), Ok(10));
    cards[0].send(&tagged(&query(), 10));
    cards[0].send(&tagged(&query(), 20));
    got(&mut cards);
    cards[1].send(&join_v3(&[GROUP]));
    cards[2].send(&join_v3(&[OTHER]));
    assert_eq!(got(&mut cards), [2, 0, 0, 0]);
    assert_eq!(switch.groups(), Some(2));
    cards[3].send(&tagged(&data(GROUP), 10));
    assert_eq!(got(&mut cards), [1, 1, 0, 0]);
    cards[3].send(&tagged(&data(GROUP), 20));
    assert_eq!(got(&mut cards), [1, 0, 0, 0]);
}

#[test]
fn behind_an_uplink_may_be_members_and_routers() {
    let switch = Switch::new();
    let mut a = join(&switch, snooping());
    let mut b = join(&switch, Config::default());
    // All that goes out there comes in again: what asks, too.
    let uplink = Uplink::start(&switch, Config::default(), Box::new(Loopback::new())).unwrap();
    let wait = |what: &mut dyn FnMut() -> bool| {
        let end = Instant::now() + Duration::from_secs(10);
        while !what() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let sent = |index: usize| switch.report()[index].frames_in;
    a.send(&query());
    wait(&mut || sent(2) == 1);
    b.send(&join_v2(GROUP));
    wait(&mut || sent(2) == 2);
    a.got();
    b.got();
    // To the member, to the router, and from there to the member once more.
    a.send(&data(GROUP));
    wait(&mut || sent(2) == 3);
    wait(&mut || switch.report()[1].frames_out >= 4);
    assert_eq!(b.got().len(), 2);
    drop(uplink);
    a.send(&data(GROUP));
    assert_eq!(b.got().len(), 1);
}

#[test]
fn a_port_that_joins_too_much_gets_everything_and_takes_nothing_from_others() {
    let (switch, mut cards) = cards::<4>();
    cards[0].send(&query());
    for n in 0..4 * MAX_MEMBERSHIPS_PER_PORT as u32 {
        let [_, _, a, b] = n.to_be_bytes();
        cards[1].send(&join_v3(&[[239, 2, a, b]]));
    }
    cards[2].send(&join_v3(&[GROUP]));
    assert_eq!(switch.groups(), Some(MAX_MEMBERSHIPS_PER_PORT + 1));
    got(&mut cards);
    cards[3].send(&data(GROUP));
    assert_eq!(got(&mut cards), [1, 1, 1, 0]);
    cards[3].send(&data([239, 2, 3, 0]));
    assert_eq!(got(&mut cards), [1, 1, 0, 0]);
}

proptest! {
    /// Who asked for a group in a VLAN gets it, and besides routers nobody else.
    #[test]
    fn groups_go_to_who_asked(
        ports in prop::collection::vec((prop::option::of(1u16..4), 0usize..3), 3..6),
        steps in prop::collection::vec(
            (any::<prop::sample::Index>(), 0u8..4, 0u8..4, prop::option::of(1u16..4)), 1..60),
    ) {
        let sets = [&[][..], &[1, 2, 3], &[2, 3]];
        let switch = Switch::new();
        let mut cards: Vec<_> = ports
            .iter()
            .map(|(untagged, set)| {
                let set: Vec<_> = sets[*set].iter().map(u16::to_string).collect();
                join(&switch, Config {
                    vlans: Vlans::new(*untagged, &set.join("+").parse().unwrap_or_default()),
                    ..snooping()
                })
            })
            .collect();
        let is_in = |at: usize, vid: u16| {
            let (untagged, set) = ports[at];
            untagged == Some(vid) || sets[set].contains(&vid)
        };
        let (mut asked, mut wants) = (HashSet::new(), HashSet::new());
        for (at, what, group, tag) in steps {
            let at = at.index(cards.len());
            let vid = match tag {
                None => ports[at].0,
                Some(vid) => sets[ports[at].1].contains(&vid).then_some(vid),
            };
            let ip = [239, 0, 0, group];
            let frame = match what {
                0 => query(),
                1 => join_v2(ip),
                2 => join_v3(&[[239, 0, 1, group], ip]),
                _ => data(ip),
            };
            cards[at].send(&tag.map_or(frame.clone(), |vid| tagged(&frame, vid)));
            let Some(vid) = vid else { continue };
            let mut joined = Vec::new();
            match what {
                0 => {
                    asked.insert(vid);
                    wants.insert((at, vid, None));
                }
                1 => joined.push(ip),
                2 => joined.extend([ip, [239, 0, 1, group]]),
                _ => {}
            }
            wants.extend(joined.into_iter().map(|ip| (at, vid, Some(ip))));
            for (n, card) in cards.iter_mut().enumerate() {
                let for_it = match what {
                    0 => true,
                    _ if !asked.contains(&vid) => true,
                    3 => wants.contains(&(n, vid, None)) || wants.contains(&(n, vid, Some(ip))),
                    _ => wants.contains(&(n, vid, None)),
                };
                let due = usize::from(n != at && is_in(n, vid) && for_it);
                prop_assert_eq!(card.got().len(), due, "port {} of {:?}", n, ports);
            }
        }
    }
}
