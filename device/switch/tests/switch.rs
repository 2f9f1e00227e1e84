// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A switch and its ports, as cards use them.

mod cards;

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use vnet_backend::{mock, Checksum, Endpoint, Gso, GsoKind, Losses, Meta, Offloads, Rate};
use vnet_loopback::Loopback;
use vnet_switch::{vlan, Config, Mirror, Switch, Uplink, Vlans, MAX_PER_PORT};

use cards::{join, Card};

const ALL: [u8; 6] = [0xff; 6];

fn is_ready(card: &Card) -> bool {
    let fd = card.queues[0].readiness().unwrap();
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
}

/// Has cards take what came so far.
fn forget<const N: usize>(cards: [&mut Card; N]) {
    cards.into_iter().for_each(|card| drop(card.got()));
}

fn cards<const N: usize>(switch: &Arc<Switch>) -> [Card; N] {
    std::array::from_fn(|_| join(switch, Config::default()))
}

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn frame(to: [u8; 6], from: [u8; 6], tag: Option<u16>, number: u8) -> Vec<u8> {
    let mut frame = [to, from].concat();
    if let Some(vid) = tag {
        frame.extend([0x81, 0]);
        frame.extend(vid.to_be_bytes());
    }
    frame.extend([0x88, 0xb5]);
    frame.resize(64, number);
    frame
}

fn vlans(untagged: Option<u16>, tagged: &str) -> Vlans {
    let tagged = match tagged {
        "" => vlan::VidSet::default(),
        set => set.parse().unwrap(),
    };
    Vlans::new(untagged, &tagged)
}

fn on(untagged: Option<u16>, tagged: &str) -> Config {
    Config {
        vlans: vlans(untagged, tagged),
        ..Config::default()
    }
}

#[test]
fn what_is_not_known_goes_to_all_and_what_is_to_one() {
    let switch = Switch::new();
    let [mut a, mut b, mut c] = cards(&switch);
    let first = frame(mac(2), mac(1), None, 1);
    a.send(&first);
    assert!(is_ready(&b) && is_ready(&c) && !is_ready(&a));
    assert_eq!((b.got(), c.got()), (vec![first.clone()], vec![first]));
    assert!(!is_ready(&b) && !b.queues[0].has_frames());
    assert_eq!(a.got().len(), 0);

    let answer = frame(mac(1), mac(2), None, 2);
    b.send(&answer);
    assert_eq!((a.got(), c.got().len()), (vec![answer], 0));
    // Known to be behind the port that it came from.
    a.send(&frame(mac(1), mac(9), None, 3));
    let everybody = frame(ALL, mac(1), None, 4);
    a.send(&everybody);
    assert_eq!(b.got(), [everybody]);
    assert_eq!(switch.addresses(), 3);

    // A station that moves, and one whose port is gone.
    c.send(&frame(ALL, mac(1), None, 5));
    forget([&mut b, &mut c]);
    b.send(&frame(mac(1), mac(2), None, 6));
    assert_eq!(c.got().len(), 1);
    drop(c);
    a.got();
    b.send(&frame(mac(1), mac(2), None, 7));
    assert_eq!(a.got().len(), 1);
}

#[test]
fn frames_with_bad_addresses_are_not_let_in() {
    let switch = Switch::new();
    let [mut a, mut b] = cards(&switch);
    for (to, from) in [
        (mac(2), ALL),
        (mac(2), [0; 6]),
        (mac(2), [1, 0, 0x5e, 0, 0, 1]),
        ([1, 0x80, 0xc2, 0, 0, 0x0e], mac(1)),
    ] {
        a.send(&frame(to, from, None, 0));
    }
    assert_eq!(b.got().len(), 0);
    assert_eq!(switch.report()[0].refused, 3);
    let losses = a.queues[0].losses();
    assert_eq!((losses.sent, losses.missed), (3, 0));
}

#[test]
fn a_checksum_in_the_head_of_a_frame_is_not_let_in() {
    let switch = Switch::new();
    let mut a = join(&switch, on(Some(10), ""));
    let mut trunk = join(&switch, on(None, "10+20"));
    trunk.takes(Offloads::default());
    // Finished at the trunk, it would be a new source, or a new tag.
    for (start, let_in) in [(0, false), (6, false), (12, false), (13, false), (14, true)] {
        let checksum = Checksum::Partial { start, offset: 2 };
        let meta = Meta {
            checksum,
            gso: None,
        };
        let sent = frame(ALL, mac(1), None, 3);
        assert!(mock::transmit(a.queues[0].as_mut(), &sent, meta));
        let got = trunk.got();
        assert_eq!(got.len(), usize::from(let_in), "{start}");
        assert!(got
            .iter()
            .all(|f| f[..16] == frame(ALL, mac(1), Some(10), 3)[..16]));
    }
    assert_eq!(switch.report()[0].refused, 4);
}

#[test]
fn large_frames_cross_whole_or_are_cut_for_who_does_not_take_them() {
    let switch = Switch::new();
    let [mut a, mut whole, mut plain] = cards(&switch);
    plain.takes(Offloads::default());
    // IPv4, TCP, 3000 bytes of payload in segments of 1000.
    let mut large = frame(ALL, mac(1), None, 0)[..12].to_vec();
    large.extend([8, 0]);
    large.extend([0x45, 0]);
    large.extend(3040u16.to_be_bytes());
    large.extend([0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let tcp = large.len();
    large.resize(tcp + 20, 0);
    large[tcp + 12] = 0x50;
    large.extend((0..3000).map(|n| n as u8));
    let meta = Meta {
        checksum: Checksum::Partial {
            start: tcp as u16,
            offset: 16,
        },
        gso: Some(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: 1000,
            hdr_len: tcp as u16 + 20,
        }),
    };
    assert_eq!(a.queues[0].offloads(), Offloads::ALL);
    assert!(mock::transmit(a.queues[0].as_mut(), &large, meta));
    let got = mock::receive(whole.queues[0].as_mut(), 10, 70_000);
    assert_eq!(got, [(large.clone(), meta)]);
    let cut = mock::receive(plain.queues[0].as_mut(), 10, 70_000);
    assert_eq!(cut.len(), 3);
    for (n, (segment, meta)) in cut.iter().enumerate() {
        assert_eq!(*meta, Meta::default());
        assert_eq!(segment.len(), tcp + 20 + 1000);
        assert_eq!(segment[tcp + 20..], large[tcp + 20..][n * 1000..][..1000]);
    }

    // The same out of a trunk: the places move with the tag.
    let mut trunk = join(&switch, on(None, "1"));
    assert!(mock::transmit(a.queues[0].as_mut(), &large, meta));
    let (tagged, moved) = mock::receive(trunk.queues[0].as_mut(), 10, 70_000).remove(0);
    assert_eq!(tagged.len(), large.len() + 4);
    assert_eq!(tagged[12..16], [0x81, 0, 0, 1]);
    assert_eq!(tagged[16..], large[12..]);
    assert_eq!(moved.gso.unwrap().hdr_len, tcp as u16 + 24);
    let Checksum::Partial { start, .. } = moved.checksum else {
        panic!("{moved:?}");
    };
    assert_eq!(start, tcp as u16 + 4);
}

#[test]
fn a_receiver_that_stalls_loses_frames_and_holds_up_nobody() {
    let switch = Switch::new();
    let [mut a, mut stalled, mut c] = cards(&switch);
    stalled.send(&frame(ALL, mac(2), None, 0));
    c.send(&frame(ALL, mac(3), None, 0));
    forget([&mut a, &mut stalled, &mut c]);
    for n in 0..5000u32 {
        a.send(&frame(mac(2), mac(1), None, n as u8));
        a.send(&frame(mac(3), mac(1), None, n as u8));
        assert_eq!(c.got().len(), 1, "{n}");
    }
    let lost = stalled.queues[0].losses().missed;
    assert!(lost > 4000 && c.queues[0].losses() == Losses::default());
    // All of them came for the card, which had no room.
    assert_eq!(stalled.queues[0].losses().sent, 0);
    assert_eq!(stalled.got().len() as u64 + lost, 5000);
    a.send(&frame(mac(2), mac(1), None, 0));
    assert_eq!(stalled.got().len(), 1);
}

#[test]
fn a_storm_leaves_room_for_what_is_meant_for_a_port() {
    let switch = Switch::new();
    let [mut storm, mut b, mut c] = cards(&switch);
    c.send(&frame(ALL, mac(3), None, 0));
    forget([&mut storm, &mut b]);
    for _ in 0..10_000 {
        storm.send(&frame(ALL, mac(1), None, 0));
    }
    for n in 0..100 {
        b.send(&frame(mac(3), mac(2), None, n));
    }
    let got = c.got();
    let meant: Vec<_> = got.iter().filter(|f| f[..6] == mac(3)).collect();
    assert_eq!(meant.len(), 100);
    assert!(got.len() > 200);
}

#[test]
fn a_card_that_does_not_receive_gets_nothing() {
    let switch = Switch::new();
    let [mut a, mut b] = cards(&switch);
    let mut attachment = b.queues[0].attachment().unwrap();
    a.send(&frame(ALL, mac(1), None, 0));
    attachment.set_attached(false);
    assert!(!is_ready(&b) && !b.queues[0].has_frames());
    a.send(&frame(ALL, mac(1), None, 0));
    assert_eq!((b.got().len(), b.queues[0].losses().missed), (0, 0));
    attachment.set_attached(true);
    a.send(&frame(ALL, mac(1), None, 0));
    assert_eq!(b.got().len(), 1);
    a.send(&frame(ALL, mac(1), None, 0));
    b.queues[0].reset();
    assert!(!b.queues[0].has_frames() && !is_ready(&b));
}

#[test]
fn queues_of_a_port_share_what_comes() {
    let switch = Switch::new();
    let mut sender = switch.join(Config::default()).unwrap();
    let mut sending = sender.open(4).unwrap();
    let mut port = switch.join(Config::default()).unwrap();
    let mut queues = port.open(3).unwrap();
    queues[1].attachment().unwrap().set_attached(false);
    for (n, queue) in (0u8..).zip(&mut sending) {
        assert!(mock::transmit(
            queue.as_mut(),
            &frame(ALL, mac(1), None, n),
            Meta::default()
        ));
    }
    let got: Vec<Vec<_>> = queues
        .iter_mut()
        .map(|q| mock::receive(q.as_mut(), 10, 2000))
        .map(|frames| frames.iter().map(|(bytes, _)| bytes[20]).collect())
        .collect();
    assert_eq!(got, [vec![0, 2], vec![], vec![1, 3]]);
}

#[test]
fn access_ports_and_trunks() {
    let switch = Switch::new();
    let mut ten = join(&switch, on(Some(10), ""));
    let mut twenty = join(&switch, on(Some(20), ""));
    let mut trunk = join(&switch, on(None, "10+20"));
    let mut native = join(&switch, on(Some(20), "10"));
    ten.send(&frame(ALL, mac(1), None, 1));
    assert_eq!(twenty.got().len(), 0);
    let tagged = frame(ALL, mac(1), Some(10), 1);
    assert_eq!(trunk.got()[0][..18], tagged[..18]);
    assert_eq!(native.got()[0][..18], tagged[..18]);

    trunk.send(&frame(ALL, mac(2), Some(20), 2));
    assert_eq!(ten.got().len(), 0);
    assert_eq!(twenty.got()[0][12..14], [0x88, 0xb5]);
    assert_eq!(native.got()[0][12..14], [0x88, 0xb5]);
    // Tags where there must be none, none where there must be one, and one of somebody else's VLAN.
    ten.send(&frame(ALL, mac(3), Some(20), 0));
    ten.send(&frame(ALL, mac(3), Some(10), 0));
    trunk.send(&frame(ALL, mac(4), None, 0));
    trunk.send(&frame(ALL, mac(4), Some(30), 0));
    for card in [&mut ten, &mut twenty, &mut trunk, &mut native] {
        assert_eq!(card.got().len(), 0);
    }
    // The same address in two VLANs is two stations.
    twenty.send(&frame(ALL, mac(1), None, 0));
    forget([&mut trunk, &mut native]);
    trunk.send(&frame(mac(1), mac(2), Some(10), 0));
    assert_eq!((ten.got().len(), twenty.got().len()), (1, 0));
}

#[test]
fn mirrors_see_everything_or_one_port() {
    let switch = Switch::new();
    let named = |name: &str| Config {
        port: Some(name.into()),
        ..Config::default()
    };
    let mirror = |mirror| Config {
        mirror: Some(mirror),
        ..Config::default()
    };
    let mut a = join(&switch, named("a"));
    let mut b = join(&switch, named("b"));
    let mut c = join(&switch, named("c"));
    let mut all = join(&switch, mirror(Mirror::All));
    let mut of_b = join(&switch, mirror(Mirror::Port("b".into())));
    a.send(&frame(ALL, mac(1), None, 1));
    b.send(&frame(mac(1), mac(2), None, 2));
    c.send(&frame(mac(1), mac(3), None, 3));
    a.send(&frame(mac(2), mac(1), None, 4));
    let numbers = |card: &mut Card| card.got().iter().map(|f| f[20]).collect::<Vec<_>>();
    assert_eq!(numbers(&mut all), [1, 2, 3, 4]);
    assert_eq!(numbers(&mut of_b), [1, 2, 4]);
    assert_eq!(numbers(&mut c), [1]);
    // It only looks.
    all.send(&frame(ALL, mac(9), None, 5));
    assert_eq!((numbers(&mut b), numbers(&mut c)), (vec![1, 4], vec![]));
    let error = switch.join(named("a")).unwrap_err().to_string();
    assert_eq!(error, "the switch has a port a already");
}

#[test]
fn a_port_with_a_rate_makes_its_card_wait() {
    let switch = Switch::new();
    // A megabyte a second.
    let mut a = join(
        &switch,
        Config {
            rate: Rate::new(8_000_000),
            ..Config::default()
        },
    );
    let mut b = join(&switch, Config::default());
    let large = {
        let mut large = frame(ALL, mac(1), None, 0);
        large.resize(60_000, 0);
        large
    };
    let (start, mut sent) = (Instant::now(), 0);
    while mock::transmit(a.queues[0].as_mut(), &large, Meta::default()) {
        sent += 1;
        b.got();
    }
    // A burst of 256 KiB, and what has come since.
    let most = (256 * 1024 + start.elapsed().as_micros()).div_ceil(60_000);
    assert!((5..=most).contains(&sent), "{sent}");
    let due = a.queues[0].deadline().unwrap();
    std::thread::sleep(due.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
    assert!(mock::transmit(
        a.queues[0].as_mut(),
        &large,
        Meta::default()
    ));
    assert_eq!(a.queues[0].deadline(), None);
}

#[test]
fn an_uplink_joins_another_backend() {
    let switch = Switch::new();
    let mut a = join(&switch, Config::default());
    // What is sent to it comes back: with the same source, so a frame goes round once.
    let uplink = Uplink::start(&switch, Config::default(), Box::new(Loopback::new())).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    let mut got = Vec::new();
    a.send(&frame(ALL, mac(1), None, 7));
    while got.is_empty() && Instant::now() < end {
        got = a.got();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(got, [frame(ALL, mac(1), None, 7)]);
    assert_eq!(switch.report().len(), 2);
    drop(uplink);
    assert_eq!(switch.report().len(), 1);
}

#[test]
fn addresses_that_are_made_up_are_limited() {
    let switch = Switch::new();
    let [mut a, mut b] = cards(&switch);
    b.send(&frame(ALL, mac(200), None, 0));
    for n in 0..3 * MAX_PER_PORT as u32 {
        let [.., c, d, e] = n.to_be_bytes();
        a.send(&frame(mac(200), [2, 1, 1, c, d, e], None, 0));
        b.got();
    }
    assert_eq!(switch.addresses(), MAX_PER_PORT + 1);
}

/// Ports that send to each other at the same time: what one sends to another stays in order, and
/// nothing is lost that was not counted.
#[test]
fn many_senders() {
    const EACH: u32 = 20_000;
    let switch = Switch::new();
    let mut cards: [Card; 3] = cards(&switch);
    for (n, card) in (1u8..).zip(&mut cards) {
        card.send(&frame(ALL, mac(n), None, 0));
    }
    cards.iter_mut().for_each(|card| drop(card.got()));
    let before = switch.report();
    std::thread::scope(|scope| {
        for (n, card) in (1u8..).zip(&mut cards) {
            scope.spawn(move || {
                let mut next = [0u32; 4];
                let mut check = |card: &mut Card| {
                    for frame in card.got() {
                        let number = u32::from_be_bytes(frame[20..24].try_into().unwrap());
                        let from = usize::from(frame[11]);
                        assert!(number >= next[from] && frame[5] == n);
                        next[from] = number + 1;
                    }
                };
                for number in 0..EACH {
                    let to = (n + (number % 2) as u8) % 3 + 1;
                    let mut frame = frame(mac(to), mac(n), None, 0);
                    frame[20..24].copy_from_slice(&number.to_be_bytes());
                    card.send(&frame);
                    check(card);
                }
            });
        }
    });
    let mut total = 0;
    for (card, (before, after)) in cards.iter_mut().zip(before.iter().zip(switch.report())) {
        assert_eq!(after.frames_in - before.frames_in, u64::from(EACH));
        total += after.frames_out - before.frames_out + after.full - before.full;
        let _ = card.got();
    }
    assert_eq!(total, 3 * u64::from(EACH));
}

proptest! {
    /// Against rules, whatever is sent by whom: a frame only gets to members of its VLAN, never back,
    /// with the tag that is due there, unchanged behind it, and to all of them if it is for all.
    #[test]
    fn frames_go_where_they_may(
        ports in prop::collection::vec((prop::option::of(1u16..4), 0usize..4), 2..6),
        sends in prop::collection::vec(
            (any::<prop::sample::Index>(), 0u8..6, 0u8..6, prop::option::of(0u16..4)), 1..60),
    ) {
        let sets = ["", "1-3", "1", "2+3"];
        let switch = Switch::new();
        let mut cards: Vec<_> = ports
            .iter()
            .map(|(u, t)| join(&switch, on(*u, sets[*t])))
            .collect();
        let set = |t: usize, vid: u16| [&[][..], &[1, 2, 3], &[1], &[2, 3]][t].contains(&vid);
        for (number, (at, to, from, tag)) in (0u8..).zip(sends) {
            let at = at.index(cards.len());
            let to = if to == 5 { ALL } else { mac(to) };
            let sent = frame(to, mac(from), tag, number);
            cards[at].send(&sent);
            let (untagged, tagged) = ports[at];
            let vid = match tag {
                None | Some(0) => untagged,
                Some(vid) => set(tagged, vid).then_some(vid),
            };
            for (n, card) in cards.iter_mut().enumerate() {
                let got = card.got();
                let (untagged, tagged) = ports[n];
                let form = vid.and_then(|vid| match untagged == Some(vid) {
                    true => Some(None),
                    false => set(tagged, vid).then_some(Some(vid)),
                });
                match form {
                    Some(form) if n != at => {
                        let mut due = frame(to, mac(from), form, number);
                        // As long as what was sent, but for the tag.
                        due.resize(64 - 4 * usize::from(tag.is_some()) + 4 * usize::from(form.is_some()), number);
                        prop_assert!(got.len() <= 1);
                        prop_assert!(to != ALL || got.len() == 1);
                        prop_assert!(got.is_empty() || got[0] == due, "{:?} {:?}", got, due);
                    }
                    _ => prop_assert_eq!(got.len(), 0),
                }
            }
        }
    }
}
