// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! TAP interfaces, between a guest made by hand and the kernel's own network.

mod host;
mod namespace;

use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use host::*;
use namespace::{ip, run, say};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use vm_memory::VolatileSlice;
use vnet_backend::{checksum, mock, Checksum, Endpoint, Frame, Gso, GsoKind, Meta, Offloads};
use vnet_tap::{Config, Tap};

/// The privileges of a user of a new user namespace, on the network of the machine: none.
const POWERLESS: &str = "-Ur";

#[test]
fn frames_of_the_guest_reach_the_host() {
    run("frames_of_the_guest_reach_the_host", EMPTY, || {
        let (_tap, mut ports) = network(1);
        let (socket, port) = socket();
        let mut buffer = [0; 2000];

        assert!(mock::transmit(
            &mut *ports[0],
            &datagram(port, b"partial"),
            PARTIAL
        ));
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"partial");

        let mut complete = datagram(port, b"complete");
        assert!(checksum::complete(&mut complete, 34, 6));
        assert!(mock::transmit(&mut *ports[0], &complete, Meta::default()));
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"complete");

        // More buffers than one system call takes.
        let mut bytes = datagram(port, &[9; 1000]);
        let len = bytes.len();
        let parts: Vec<_> = bytes.chunks_mut(1).map(VolatileSlice::from).collect();
        let frame = Frame {
            meta: PARTIAL,
            len,
            parts: &parts,
        };
        assert_eq!(ports[0].transmit(&[frame, frame]), 2);
        for _ in 0..2 {
            let len = socket.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], [9; 1000]);
        }
        assert_eq!(ports[0].losses().sent, 0);
    });
}

#[test]
fn frames_of_the_host_reach_the_guest_with_the_metadata_that_it_takes() {
    let name = "frames_of_the_host_reach_the_guest_with_the_metadata_that_it_takes";
    run(name, EMPTY, || {
        let (mut tap, mut ports) = network(1);
        let (socket, port) = socket();
        let checksum_only = Offloads {
            checksum: true,
            ..Offloads::default()
        };
        for (offloads, expected) in [
            (Offloads::default(), Meta::default()),
            (checksum_only, PARTIAL),
            (Offloads::default(), Meta::default()),
        ] {
            tap.set_offloads(offloads);
            let end = Instant::now() + Duration::from_secs(10);
            let (mut frame, meta) = loop {
                socket.send_to(b"hello guest", "192.0.2.2:77").unwrap();
                let (frame, meta) = receive(&mut *ports[0], 1, 2000).remove(0);
                // The kernel hears of it soon.
                if meta == expected || Instant::now() > end {
                    break (frame, meta);
                }
            };
            assert_eq!(meta, expected);
            assert_eq!(frame[..6], GUEST_MAC);
            assert_eq!(frame[34..36], port.to_be_bytes());
            if let Checksum::Partial { start, offset } = meta.checksum {
                assert!(checksum::complete(&mut frame, start, offset));
            }
            let sum = checksum::sum(&frame[34..]);
            assert_eq!(checksum::add(sum, pseudo(8 + 11)), 0xffff);
            assert_eq!(&frame[42..], b"hello guest");
        }
        assert!(mock::receive(&mut *ports[0], 1, 2000).is_empty());
        // Nothing left: not readable.
        let fd = ports[0].readiness().unwrap();
        let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&Timespec::default())).unwrap(), 0);
    });
}

#[test]
fn a_frame_that_is_longer_than_usual_waits_for_room_and_arrives_whole() {
    let name = "a_frame_that_is_longer_than_usual_waits_for_room_and_arrives_whole";
    run(name, EMPTY, || {
        let (_tap, mut ports) = network(1);
        let (socket, port) = socket();
        ip("link set tap0 mtu 9000");
        let data: Vec<u8> = (0..8000u32).map(|n| (n * 7) as u8).collect();
        socket.send_to(&data, "192.0.2.2:77").unwrap();
        socket.send_to(b"next", "192.0.2.2:77").unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while !ports[0].has_frames() {
            assert!(Instant::now() < end);
            wait(&*ports[0]);
            assert!(mock::receive(&mut *ports[0], 1, 2000).is_empty());
        }
        assert!(mock::receive(&mut *ports[0], 1, 2000).is_empty());
        // The guest can send meanwhile, in more buffers than one system call takes.
        let mut bytes = datagram(port, &[9; 100]);
        let frame = Frame {
            meta: PARTIAL,
            len: bytes.len(),
            parts: &bytes
                .chunks_mut(1)
                .map(VolatileSlice::from)
                .collect::<Vec<_>>(),
        };
        assert_eq!(ports[0].transmit(&[frame]), 1);
        assert_eq!(socket.recv(&mut [0; 200]).unwrap(), 100);
        let frames = receive(&mut *ports[0], 2, 10_000);
        assert!(frames[0].0[42..] == data[..]);
        assert_eq!(&frames[1].0[42..], b"next");
        assert!(!ports[0].has_frames());

        // And in one go, if there is room.
        socket.send_to(&data, "192.0.2.2:77").unwrap();
        let frames = receive(&mut *ports[0], 1, 10_000);
        assert!(frames[0].0[42..] == data[..]);
    });
}

#[test]
fn the_length_that_is_asked_for_follows_the_interface_and_the_guest() {
    let name = "the_length_that_is_asked_for_follows_the_interface_and_the_guest";
    run(name, EMPTY, || {
        let (mut tap, mut ports) = network(1);
        let (socket, _) = socket();
        let data = [7; 8000];
        let mut arrives = |tap: &Tap, buffer| {
            assert!(tap.link().up);
            socket.send_to(&data, "192.0.2.2:77").unwrap();
            wait(&*ports[0]);
            // Too little for what is asked for first: nothing is read.
            assert!(mock::receive(&mut *ports[0], 1, 2000).is_empty());
            assert!(!ports[0].has_frames());
            let frames = receive(&mut *ports[0], 1, buffer);
            assert_eq!(frames[0].0[42..], data);
            assert_eq!(frames[0].1.gso, None);
        };
        ip("link set tap0 mtu 9000");
        arrives(&tap, 9018);
        // Room for a large frame is asked for, but it may be less.
        tap.set_offloads(Offloads::ALL);
        arrives(&tap, 9018);
        arrives(&tap, vnet_backend::MAX_FRAME);
    });
}

#[test]
fn a_large_frame_is_segmented_by_the_host() {
    run("a_large_frame_is_segmented_by_the_host", EMPTY, || {
        let (_tap, mut ports) = network(1);
        let (socket, port) = socket();
        if !ports[0].offloads().uso {
            say("SKIPPED a_large_frame_is_segmented_by_the_host: the kernel is too old");
            return;
        }
        let meta = Meta {
            gso: Some(Gso {
                kind: GsoKind::Udp,
                ecn: false,
                size: 1000,
                hdr_len: 42,
            }),
            ..PARTIAL
        };
        let data: Vec<u8> = (0..2500u32).map(|n| (n / 1000) as u8).collect();
        assert!(mock::transmit(&mut *ports[0], &datagram(port, &data), meta));
        let mut buffer = [0; 4000];
        for (n, len) in [1000, 1000, 500].into_iter().enumerate() {
            assert_eq!(socket.recv(&mut buffer).unwrap(), len);
            assert!(buffer[..len].iter().all(|byte| *byte == n as u8));
        }
    });
}

#[test]
fn all_queues_carry_frames() {
    run("all_queues_carry_frames", EMPTY, || {
        let (_tap, mut ports) = network(3);
        assert_eq!(ports.len(), 3);
        let (socket, port) = socket();
        let mut buffer = [0; 100];
        for (n, queue) in ports.iter_mut().enumerate() {
            let data = [n as u8; 10];
            assert!(mock::transmit(
                &mut **queue,
                &datagram(port, &data),
                PARTIAL
            ));
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..len], data);
            // The host answers a flow on the queue that it came from.
            socket.send_to(b"answer", from).unwrap();
            let frames = receive(&mut **queue, 1, 2000);
            assert_eq!(&frames[0].0[42..], b"answer");
        }
    });
}

#[test]
fn frames_go_to_the_queues_that_are_attached() {
    run("frames_go_to_the_queues_that_are_attached", EMPTY, || {
        let (_tap, mut ports) = network(3);
        let mut attachments: Vec<_> = ports.iter().map(|p| p.attachment().unwrap()).collect();
        let counts = spread(&mut ports);
        assert_eq!(counts.iter().sum::<usize>(), 64);
        assert!(counts.iter().all(|&n| n > 0), "{counts:?}");

        // The queue in the middle: the kernel moves the last one to its place.
        attachments[1].set_attached(false);
        let counts = spread(&mut ports);
        assert_eq!((counts[1], counts[0] + counts[2]), (0, 64), "{counts:?}");
        assert!(counts[0] > 0 && counts[2] > 0, "{counts:?}");

        attachments[2].set_attached(false);
        assert_eq!(spread(&mut ports), [64, 0, 0]);
        // Frames that nobody takes are gone, and the link stays.
        attachments[0].set_attached(false);
        assert_eq!(spread(&mut ports), [0, 0, 0]);

        for attachment in &mut attachments {
            attachment.set_attached(true);
            attachment.set_attached(true);
        }
        let counts = spread(&mut ports);
        assert_eq!(counts.iter().sum::<usize>(), 64);
        assert!(counts.iter().all(|&n| n > 0), "{counts:?}");
    });
}

#[test]
fn the_queue_of_a_plain_interface_stays_attached() {
    run(
        "the_queue_of_a_plain_interface_stays_attached",
        EMPTY,
        || {
            let (_tap, ports) = network(1);
            assert!(ports[0].attachment().is_none());
        },
    );
}

#[test]
fn the_link_follows_the_interface_and_an_interface_that_is_down_loses_frames() {
    let name = "the_link_follows_the_interface_and_an_interface_that_is_down_loses_frames";
    run(name, EMPTY, || {
        let (tap, mut ports) = network(1);
        assert!(tap.link().up);
        ip("link set tap0 down");
        assert!(!tap.link().up);
        assert!(mock::transmit(&mut *ports[0], &datagram(1, b"x"), PARTIAL));
        assert_eq!(ports[0].losses().sent, 1);
        ip("link set tap0 up");
        assert!(tap.link().up);
        assert!(mock::transmit(&mut *ports[0], &datagram(1, b"x"), PARTIAL));
        assert_eq!(ports[0].losses().sent, 1);

        // It stays the same by another name.
        ip("link set tap0 down");
        ip("link set tap0 name lan0");
        assert!(!tap.link().up);
        ip("link set lan0 up");
        assert!(tap.link().up);

        // Deleted by somebody else: no more frames, and no more. Another one by its name is another one.
        ip("link delete lan0");
        assert!(!tap.link().up);
        for name in ["tap0", "lan0"] {
            ip(&format!("link add veth-{name} type veth peer name {name}"));
            ip(&format!("link set veth-{name} up"));
            ip(&format!("link set {name} up"));
            assert!(!tap.link().up);
        }
        assert!(mock::transmit(&mut *ports[0], &datagram(1, b"x"), PARTIAL));
        assert!(mock::receive(&mut *ports[0], 1, 2000).is_empty());
        assert_eq!(ports[0].losses().sent, 2);
    });
}

#[test]
fn frames_that_no_queue_has_room_for_are_counted() {
    run(
        "frames_that_no_queue_has_room_for_are_counted",
        EMPTY,
        || {
            let (tap, _ports) = network(1);
            let (socket, _) = socket();
            let mut before = tap.missed();
            for _ in 0..2 {
                let end = Instant::now() + Duration::from_secs(20);
                while tap.missed() == before {
                    assert!(Instant::now() < end, "{before}");
                    for _ in 0..1000 {
                        socket.send_to(b"x", "192.0.2.2:9").unwrap();
                    }
                }
                before = tap.missed();
            }
        },
    );
}

#[test]
fn a_reset_forgets_what_the_host_sent_before() {
    run("a_reset_forgets_what_the_host_sent_before", EMPTY, || {
        let (_tap, mut ports) = network(1);
        let (socket, _) = socket();
        for _ in 0..20 {
            socket.send_to(b"old", "192.0.2.2:77").unwrap();
        }
        wait(&*ports[0]);
        ports[0].reset();
        socket.send_to(b"new", "192.0.2.2:77").unwrap();
        let frames = receive(&mut *ports[0], 1, 2000);
        assert_eq!(&frames[0].0[42..], b"new");
    });
}

#[test]
fn an_interface_that_was_made_before_is_adopted_and_stays() {
    let name = "an_interface_that_was_made_before_is_adopted_and_stays";
    run(name, EMPTY, || {
        ip("tuntap add mode tap name one");
        drop(open("one", 1));
        ip("link show one");
        ip("tuntap add mode tap multi_queue name many");
        drop(open("many", 1));
        drop(open("many", 4));
        ip("link show many");
        let mut tap = open("many", 2);
        assert_eq!(tap.capabilities().max_queues, 2);
        assert!(tap.open(3).is_err());
        assert_eq!(tap.open(1).unwrap().len(), 1);
    });
}

/// What `ip` tells of the interface.
fn shown(name: &str) -> String {
    let output = Command::new("ip")
        .args(["-details", "link", "show", name])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_port_of_a_bridge_stays_as_it_was_set_and_one_of_another_bridge_is_not_touched() {
    let name = "a_port_of_a_bridge_stays_as_it_was_set_and_one_of_another_bridge_is_not_touched";
    run(name, EMPTY, || {
        let into = |name: &str, bridge: &str| {
            let config = Config {
                bridge: Some(bridge.into()),
                ..config(name, 1)
            };
            Tap::open(config).map_err(|error| error.to_string())
        };
        ip("link add br0 type bridge");
        ip("link add br1 type bridge");
        ip("link set br1 mtu 2000");
        ip("tuntap add mode tap name one");
        drop(into("one", "br0").unwrap());
        ip("link set br0 mtu 1400");
        ip("link set one type bridge_slave isolated on cost 77");
        let tap = into("one", "br0").unwrap();
        let now = shown("one");
        assert!(
            now.contains("master br0") && now.contains("mtu 1400"),
            "{now}"
        );
        assert!(
            now.contains("isolated on") && now.contains("cost 77"),
            "{now}"
        );
        assert!(now.contains(",UP"), "{now}");
        drop(tap);

        let error = into("one", "br1").unwrap_err();
        assert!(
            error.starts_with("cannot join bridge br1 (it is in another bridge): "),
            "{error}"
        );
        let now = shown("one");
        assert!(
            now.contains("master br0") && now.contains("mtu 1400"),
            "{now}"
        );
        let error = into("two", "one").unwrap_err();
        assert!(
            error.starts_with("cannot join bridge one (it is no bridge): "),
            "{error}"
        );
        let tap = into("two", "br1").unwrap();
        let now = shown("two");
        assert!(
            now.contains("master br1") && now.contains("mtu 2000"),
            "{now}"
        );
        drop(tap);
    });
}

/// The message for the user: one line, with the name.
fn refusal(name: &str, queues: u16) -> String {
    let error = Tap::open(config(name, queues)).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn what_cannot_be_attached_is_refused_in_one_line() {
    run(
        "what_cannot_be_attached_is_refused_in_one_line",
        EMPTY,
        || {
            let error = refusal("sixteen-letters-", 1);
            assert!(error.contains("longer than 15 bytes"), "{error}");
            let error = refusal("tap0", 0);
            assert!(error.contains("0 queues"), "{error}");
            let error = refusal("lo", 1);
            assert!(error.contains("lo (it exists and is no TAP)"), "{error}");
            let _used = open("tap0", 1);
            let error = refusal("tap0", 1);
            assert!(error.contains("tap0 (another program uses it)"), "{error}");
            ip("tuntap add mode tap name one");
            let error = refusal("one", 2);
            assert!(error.contains("no TAP with multi_queue"), "{error}");
        },
    );
}

#[test]
fn without_privileges_no_interface_is_made() {
    run("without_privileges_no_interface_is_made", POWERLESS, || {
        let error = refusal("vnet-test", 1);
        assert!(error.contains("CAP_NET_ADMIN"), "{error}");
    });
}
