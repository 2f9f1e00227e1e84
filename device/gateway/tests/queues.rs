// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The gateway as the card's queues see it.

mod common;

use std::os::fd::AsFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::thread;
use std::time::{Duration, Instant};

use common::frames::{arp_request, icmp, introduce, ipv4, udp};
use common::{ask, open, receive, Guest};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use smoltcp::wire::IpProtocol;
use vnet_backend::{mock, Checksum, Endpoint, Gso, GsoKind, Meta, Offloads, Queue, Room, RxRing};
use vnet_gateway::{net, ports, Config, Gateway};

fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
}

#[test]
fn checksums_are_called_valid_only_to_a_driver_that_asked() {
    let mut gateway = Gateway::new(Config::default());
    let mut queue = gateway.open(1).unwrap().remove(0);
    let ping = ipv4(IpProtocol::Icmp, &icmp(8, b"x", 0));
    let state = |queue: &mut dyn Queue| {
        assert!(mock::transmit(queue, &ping, Meta::default()));
        mock::receive(queue, 1, 2000)[0].1.checksum
    };
    assert_eq!(state(&mut *queue), Checksum::Unverified);
    gateway.set_offloads(gateway.capabilities().receive);
    assert_eq!(state(&mut *queue), Checksum::Valid);
    gateway.set_offloads(Offloads::default());
    assert_eq!(state(&mut *queue), Checksum::Unverified);
}

#[test]
fn the_mtu_is_brought_into_its_bounds() {
    for (asked, got) in [(0, 1280), (1500, 1500), (u16::MAX, 9000)] {
        let gateway = Gateway::new(Config {
            mtu: asked,
            ..Config::default()
        });
        assert_eq!(gateway.capabilities().max_mtu, got);
    }
}

#[test]
fn a_flow_is_answered_on_the_queue_that_it_came_from() {
    let mut queues = open(3);
    for n in [2, 0, 1, 2] {
        introduce(&mut *queues[n]);
        for port in 0..20 {
            let mut datagram = udp(ports::ECHO, b"x");
            datagram[..2].copy_from_slice(&(2000 + port * 3 + n as u16).to_be_bytes());
            datagram[6..8].fill(0);
            let frame = ipv4(IpProtocol::Udp, &datagram);
            assert!(!queues[n].has_frames());
            assert_eq!(ask(&mut *queues[n], &frame).len(), 1);
        }
    }
}

#[test]
fn a_queue_that_another_gave_frames_becomes_readable_until_it_is_served() {
    let mut queues = open(2);
    let readiness = |queues: &[Box<dyn Queue>]| -> Vec<bool> {
        queues
            .iter()
            .map(|queue| is_readable(queue.readiness().unwrap()))
            .collect()
    };
    introduce(&mut *queues[1]);
    assert_eq!(readiness(&queues), [false, false]);

    // What the guest sends on queue 1 is acknowledged after some milliseconds, and it happens to
    // be the worker of queue 0 that sees to it.
    let mut guest = Guest::on(queues.remove(1), 1500);
    let handle = guest.connect(net::IPV4, ports::DISCARD);
    guest.until("connection", |guest| guest.socket(handle).may_send());
    guest.socket(handle).send_slice(b"data").unwrap();
    guest.send();
    assert!(!guest.wire.queue.has_frames());
    let due = queues[0].deadline().unwrap();
    thread::sleep(due.saturating_duration_since(Instant::now()));
    assert!(!is_readable(guest.wire.queue.readiness().unwrap()));
    assert!(receive(&mut *queues[0]).is_empty());
    assert!(is_readable(guest.wire.queue.readiness().unwrap()));
    assert!(guest.wire.queue.has_frames());
    mock::receive(&mut *guest.wire.queue, 0, 2000);
    assert!(!is_readable(guest.wire.queue.readiness().unwrap()));
}

#[test]
fn a_guest_that_does_not_receive_costs_bounded_memory_and_recovers() {
    let mut queue = open(1).remove(0);
    introduce(&mut *queue);
    let ping = ipv4(IpProtocol::Icmp, &icmp(8, &[7; 8000], 0));
    for _ in 0..5000 {
        assert!(mock::transmit(&mut *queue, &ping, Meta::default()));
    }
    let waiting = receive(&mut *queue).len();
    assert!((100..600).contains(&waiting), "{waiting}");
    assert!(queue.losses().missed > 4000);
    assert_eq!(ask(&mut *queue, &ping).len(), 1);

    for _ in 0..10 {
        assert!(mock::transmit(&mut *queue, &ping, Meta::default()));
    }
    queue.reset();
    assert!(!queue.has_frames());
    assert_eq!(ask(&mut *queue, &arp_request()).len(), 1);
}

#[test]
fn a_guest_without_room_is_not_waited_for_in_a_loop() {
    let mut guest = Guest::new(1500);
    let handle = guest.connect(net::IPV4, ports::CHARGEN);
    guest.until("characters", |guest| guest.socket(handle).can_recv());
    // The guest acknowledges and asks for more, but posts no buffers.
    assert!(has_calm_deadlines(&mut *guest.wire.queue));
}

#[test]
fn timers_run_out_while_few_frames_wait_for_room() {
    let mut guest = Guest::new(1500);
    let handle = guest.connect(net::IPV4, ports::DISCARD);
    guest.until("connection", |guest| guest.socket(handle).may_send());
    let ping = ipv4(IpProtocol::Icmp, &icmp(8, b"x", 0));
    for _ in 0..5 {
        mock::transmit(&mut *guest.wire.queue, &ping, Meta::default());
    }
    // To be acknowledged within some milliseconds.
    guest.socket(handle).send_slice(b"data").unwrap();
    guest.send();
    assert!(has_calm_deadlines(&mut *guest.wire.queue));
    assert_eq!(receive(&mut *guest.wire.queue).len(), 6);
}

/// True if a worker without buffers, which calls whenever a deadline has passed, sleeps at least half of the times:
/// one that is called in a loop never does, and one on a busy machine may be late for a few.
fn has_calm_deadlines(queue: &mut dyn Queue) -> bool {
    let mut passed = 0;
    for _ in 0..50 {
        assert!(mock::receive(queue, 0, 2000).is_empty());
        passed += u32::from(queue.deadline().is_some_and(|at| at <= Instant::now()));
        thread::sleep(Duration::from_millis(1));
    }
    passed < 25
}

#[test]
fn a_queue_that_nobody_serves_does_not_stop_the_others() {
    let mut queues = open(2);
    let ping = |ident: u8| ipv4(IpProtocol::Icmp, &icmp(8, &[ident; 64], 0));
    // Fill queue 1 and leave it so.
    introduce(&mut *queues[1]);
    for n in 0..600u16 {
        mock::transmit(&mut *queues[1], &ping(n as u8), Meta::default());
    }
    let mut guest = Guest::on(queues.remove(0), 1500);
    let data = vec![3; 500_000];
    assert!(guest.exchange(net::IPV4, ports::ECHO, &data) == data);
}

#[test]
fn a_large_segment_needs_no_cutting() {
    let mut guest = Guest::new(9000);
    let handle = guest.connect(net::IPV4, ports::SINK);
    guest.until("connection", |guest| guest.socket(handle).may_send());
    guest.socket(handle).send_slice(&[5; 4000]).unwrap();
    guest.socket(handle).close();
    // Let the frame be taken for one that stands for three.
    let tso = Gso {
        kind: GsoKind::TcpV4,
        ecn: false,
        size: 1460,
        hdr_len: 54,
    };
    guest.wire.gso = Some(tso);
    let mut answer = Vec::new();
    guest.until("answer", |guest| {
        guest.wire.gso = None;
        let socket = guest.socket(handle);
        if socket.can_recv() {
            socket
                .recv(|bytes| {
                    answer.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        !socket.may_recv()
    });
    assert!(answer.starts_with(b"4000 "));
}

#[test]
fn a_machine_that_is_gone_is_forgotten_with_all_its_connections() {
    let mut guest = Guest::new(1500);
    let all: Vec<_> = (0..128)
        .map(|n| match n {
            0 => guest.connect(net::IPV4, ports::CHARGEN),
            _ => guest.connect(net::IPV4, ports::ECHO),
        })
        .collect();
    guest.until("all are open", |guest| {
        all.iter().all(|handle| guest.socket(*handle).may_send())
    });
    let lost = guest.wire.queue.losses().missed;

    let mut queue = guest.wire.queue;
    queue.reset();
    queue.disconnect();
    assert!(receive(&mut *queue).is_empty());
    assert!(!queue.has_frames() && !queue.has_work());
    assert_eq!(queue.deadline(), None);
    assert_eq!(queue.losses().missed, lost);
    let mut guest = Guest::on(queue, 1500);
    assert_eq!(guest.exchange(net::IPV4, ports::ECHO, b"next"), b"next");
}

/// A ring whose owner breaks its word.
struct Broken;

impl RxRing for Broken {
    fn room(&mut self, _: usize) -> Option<Room<'_>> {
        panic!("a ring that panics, on purpose")
    }

    fn commit(&mut self, _: usize, _: Meta) {}
}

#[test]
fn what_a_panic_left_is_gone_after_a_reset() {
    let mut guest = Guest::new(1500);
    let handle = guest.connect(net::IPV4, ports::CHARGEN);
    guest.until("characters", |guest| guest.socket(handle).can_recv());
    let queue = &mut guest.wire.queue;
    assert!(mock::transmit(
        &mut **queue,
        &arp_request(),
        Meta::default()
    ));
    let receive = AssertUnwindSafe(|| queue.receive(&mut Broken));
    assert!(catch_unwind(receive).is_err());
    queue.reset();
    assert_eq!(guest.wire.queue.deadline(), None);
    assert_eq!(guest.exchange(net::IPV4, ports::ECHO, b"next"), b"next");
}

#[test]
fn after_a_reset_frames_go_to_queues_that_are_used_again() {
    let mut queues = open(2);
    introduce(&mut *queues[1]);
    let syn = [
        0x9c, 0x40, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
    ];
    let valid = Meta {
        checksum: Checksum::Valid,
        gso: None,
    };
    let frame = ipv4(IpProtocol::Tcp, &syn);
    assert!(mock::transmit(&mut *queues[1], &frame, valid));
    assert!(queues[1].has_frames());
    queues.iter_mut().for_each(|queue| queue.reset());
    for queue in &queues {
        assert!(!queue.has_frames());
        assert!(!is_readable(queue.readiness().unwrap()));
    }
    // The answer is sent again. Who knows whether the driver still uses the queue that it was for?
    let start = Instant::now();
    let mut again = Vec::new();
    while again.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20));
        let due = queues[0].deadline().unwrap();
        thread::sleep(due.saturating_duration_since(Instant::now()));
        again = receive(&mut *queues[0]);
    }
    assert_eq!(again.len(), 1);
    assert_eq!(again[0][34..38], [0, 7, 0x9c, 0x40], "its ports");
    assert!(!queues[1].has_frames());
}

#[test]
fn one_call_does_a_bounded_part_of_what_the_clients_want() {
    const CLIENTS: usize = 32;
    let mut guest = Guest::new(1500);
    let all: Vec<_> = (0..CLIENTS)
        .map(|_| guest.connect(net::IPV4, ports::SOURCE))
        .collect();
    guest.until("all are open", |guest| {
        all.iter().all(|handle| guest.socket(*handle).may_send())
    });
    for handle in &all {
        let line = b"1048576 1 sum\n";
        assert_eq!(guest.socket(*handle).send_slice(line), Ok(line.len()));
    }
    // Each of these frames is a call, too.
    guest.send();
    let mut calls = CLIENTS;
    while guest.wire.queue.has_work() {
        assert!(guest.wire.queue.deadline().unwrap() <= Instant::now());
        mock::receive(&mut *guest.wire.queue, 0, 2000);
        calls += 1;
    }
    // 256 KiB per call.
    assert!((4 * CLIENTS..8 * CLIENTS).contains(&calls), "{calls}");
    guest.until("answers", |guest| {
        all.iter().all(|handle| guest.socket(*handle).can_recv())
    });
}

#[test]
fn only_queues_that_share_the_gateway_wait_for_it() {
    assert!(!open(1)[0].is_shared());
    assert!(open(2).iter().all(|queue| queue.is_shared()));
    // The last one that was served goes on with what needs no frames.
    let mut queues = open(2);
    let mut guest = Guest::on(queues.remove(1), 1500);
    let handle = guest.connect(net::IPV4, ports::SOURCE);
    guest.until("connection", |guest| guest.socket(handle).may_send());
    let line = b"10000000 1 sum\n";
    assert_eq!(guest.socket(handle).send_slice(line), Ok(line.len()));
    guest.send();
    assert!(guest.wire.queue.has_work() && !queues[0].has_work());
    assert!(queues[0].deadline().unwrap() > Instant::now());
    mock::receive(&mut *queues[0], 0, 2000);
    assert!(!guest.wire.queue.has_work() && queues[0].has_work());
}
