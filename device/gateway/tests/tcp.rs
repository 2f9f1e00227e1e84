// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The TCP services, seen from a guest with a stack of its own.

mod common;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::frames::{fragment_v4, ipv4};
use common::{receive, still, Guest, IPV4};
use sha2::{Digest, Sha256};
use smoltcp::iface::SocketHandle;
use smoltcp::wire::{IpProtocol, Ipv4Packet};
use vnet_backend::{mock, Checksum, Endpoint, Meta};
use vnet_gateway::{net, ports, Config, Gateway};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

#[test]
fn echo_returns_what_it_gets_over_both_protocols() {
    let mut guest = Guest::new(1500);
    let data = bytes(300_000);
    assert!(guest.exchange(net::IPV4, ports::ECHO, &data) == data);
    assert!(guest.exchange(net::IPV6_LINK_LOCAL, ports::ECHO, &data) == data);
    assert_eq!(guest.exchange(net::IPV4, ports::ECHO, b""), b"");
}

#[test]
fn discard_takes_everything_and_says_nothing() {
    let mut guest = Guest::new(1500);
    assert_eq!(
        guest.exchange(net::IPV4, ports::DISCARD, &bytes(2_000_000)),
        b""
    );
}

#[test]
fn sink_digests_what_it_gets() {
    let mut guest = Guest::new(1500);
    for data in [bytes(32 << 20), Vec::new()] {
        let answer = guest.exchange(net::IPV4, ports::SINK, &data);
        let expected = format!("{} {}\n", data.len(), hex(&Sha256::digest(&data)));
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
    }
}

#[test]
fn source_sends_what_it_says_it_sends() {
    let mut guest = Guest::new(1500);
    for size in [0, 1, 4095, 32 << 20] {
        let line = format!("{size} 42\n");
        let data = guest.exchange(net::IPV4, ports::SOURCE, line.as_bytes());
        assert_eq!(data.len(), size);
        let line = format!("{size} 42 sum\n");
        let sum = guest.exchange(net::IPV4, ports::SOURCE, line.as_bytes());
        let expected = format!("{size} {}\n", hex(&Sha256::digest(&data)));
        assert_eq!(String::from_utf8(sum).unwrap(), expected);
    }
    for line in ["x\n", "1\n", "1 2 3\n", "1 2 sum more\n", "-1 2\n", ""] {
        let answer = guest.exchange(net::IPV4, ports::SOURCE, line.as_bytes());
        assert!(answer.starts_with(b"usage"), "{line:?}");
    }
}

#[test]
fn chargen_sends_until_the_client_leaves() {
    let mut guest = Guest::new(1500);
    let handle = guest.connect(net::IPV4, ports::CHARGEN);
    let mut text = Vec::new();
    guest.until("characters", |guest| {
        let socket = guest.socket(handle);
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    text.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        text.len() > 1_000_000
    });
    assert!(text.starts_with(b" !\"#$%"));
    assert_eq!(&text[72..74], b"\r\n");
    guest.socket(handle).abort();
    guest.poll();
    guest.sockets.remove(handle);
    // The gateway is done with it, and open for others.
    assert_eq!(guest.exchange(net::IPV4, ports::ECHO, b"x"), b"x");
}

#[test]
fn http_shows_the_page_and_counts_the_traffic() {
    let mut guest = Guest::new(1500);
    let request = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n";
    let page = guest.exchange(net::IPV4, ports::HTTP, request);
    let page = String::from_utf8(page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(page.contains("<h1>vnet</h1>"));
    assert!(page.trim_end().ends_with("</html>"));
    let connections = page.lines().find(|l| l.starts_with("connections")).unwrap();
    assert_eq!(connections.split_whitespace().last(), Some("1"));
    let long = vec![b'x'; 10_000];
    let answer = guest.exchange(net::IPV4, ports::HTTP, &long);
    assert!(answer.starts_with(b"HTTP/1.1 400"));
}

#[test]
fn segments_are_as_long_as_the_guest_takes_and_no_longer() {
    for (mtu, expected) in [(1500, 1514), (576, 590), (9000, 9014)] {
        let mut guest = Guest::new(mtu);
        guest.exchange(net::IPV4, ports::SOURCE, b"1000000 1\n");
        assert_eq!(guest.wire.longest_received, expected);
    }
}

#[test]
fn closed_ports_refuse() {
    let mut guest = Guest::new(1500);
    let handle = guest.connect(net::IPV4, 81);
    guest.until("refusal", |guest| !guest.socket(handle).is_open());
}

#[test]
fn a_hundred_connections_at_a_time_and_a_bound() {
    // None becomes idle.
    let mut gateway = Gateway::new(Config::default()).with_clock(still);
    let mut guest = Guest::on(gateway.open(1).unwrap().remove(0), 1500);
    let all: Vec<_> = (0..200)
        .map(|_| guest.connect(net::IPV4, ports::ECHO))
        .collect();
    let is_open = |guest: &mut Guest, handle| guest.socket(handle).may_send();
    guest.until("handshakes", |guest| {
        let open = all.iter().filter(|h| is_open(guest, **h)).count();
        let closed = all.iter().filter(|h| !guest.socket(**h).is_open()).count();
        open + closed == all.len()
    });
    let open: Vec<_> = all
        .iter()
        .copied()
        .filter(|h| is_open(&mut guest, *h))
        .collect();
    assert_eq!(open.len(), 128);
    for (n, handle) in open.iter().enumerate() {
        let line = format!("connection {n}");
        guest.socket(*handle).send_slice(line.as_bytes()).unwrap();
    }
    for (n, handle) in open.iter().enumerate() {
        let line = format!("connection {n}");
        guest.until("echo", |guest| {
            guest.socket(*handle).recv_queue() == line.len()
        });
        let mut answer = [0; 32];
        let len = guest.socket(*handle).recv_slice(&mut answer).unwrap();
        assert_eq!(&answer[..len], line.as_bytes());
        guest.socket(*handle).close();
    }
    // The gateway closes second, so nothing of them is left.
    guest.until("end", |guest| {
        open.iter().all(|h| !guest.socket(*h).may_recv())
    });
    assert_eq!(guest.exchange(net::IPV4, ports::ECHO, b"again"), b"again");
}

/// The gateway closes first, so each of these connections leaves one that has to wait.
#[test]
fn many_short_connections_in_a_row() {
    let mut guest = Guest::new(1500);
    for _ in 0..300 {
        let page = guest.exchange(net::IPV4, ports::HTTP, b"GET / HTTP/1.1\r\n\r\n");
        assert!(page.starts_with(b"HTTP/1.1 200"));
    }
}

#[test]
fn the_connection_that_is_idle_longest_makes_room() {
    let mut guest = Guest::new(1500);
    let all: Vec<_> = (0..128)
        .map(|_| guest.connect(net::IPV4, ports::ECHO))
        .collect();
    guest.until("all are open", |guest| {
        all.iter().all(|handle| guest.socket(*handle).may_send())
    });
    std::thread::sleep(Duration::from_millis(2100));
    let says = |guest: &mut Guest, handle| {
        let before = guest.socket(handle).recv_queue();
        guest.socket(handle).send_slice(b"x").unwrap();
        guest.until("echo or end", |guest| {
            let socket = guest.socket(handle);
            socket.recv_queue() > before || !socket.is_open()
        });
        guest.socket(handle).is_open()
    };
    // The oldest is not idle.
    assert!(says(&mut guest, all[0]));
    let new = guest.connect(net::IPV4, ports::ECHO);
    guest.until("connection", |guest| guest.socket(new).may_send());
    assert!(says(&mut guest, new));
    let alive = all.iter().filter(|handle| says(&mut guest, **handle));
    assert_eq!(alive.count(), 127);
    assert!(says(&mut guest, all[0]));
}

#[test]
fn requests_that_the_stack_refuses_leave_nothing_behind() {
    let mut guest = Guest::new(1500);
    let segment = |port: u16, flags: u8| {
        let mut segment = vec![0; 20];
        segment[..2].copy_from_slice(&5000u16.to_be_bytes());
        segment[2..4].copy_from_slice(&port.to_be_bytes());
        segment[12..14].copy_from_slice(&[0x50, flags]);
        segment
    };
    let syn = |port| ipv4(IpProtocol::Tcp, &segment(port, 2));
    let readdressed = |port, src: Ipv4Addr, dst: Ipv4Addr| {
        let mut frame = syn(port);
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
        packet.set_src_addr(src);
        packet.set_dst_addr(dst);
        packet.fill_checksum();
        frame
    };
    for frame in [
        readdressed(ports::ECHO, IPV4, Ipv4Addr::new(10, 77, 0, 9)),
        readdressed(ports::DISCARD, IPV4, Ipv4Addr::BROADCAST),
        readdressed(ports::CHARGEN, Ipv4Addr::new(224, 0, 0, 1), net::IPV4),
        readdressed(ports::SINK, net::IPV4, net::IPV4),
        fragment_v4(
            IpProtocol::Tcp,
            &segment(ports::SOURCE, 2),
            1,
            Some((0, true)),
        ),
        // SYN and FIN at once.
        ipv4(IpProtocol::Tcp, &segment(ports::SOURCE, 3)),
    ] {
        let meta = Meta {
            checksum: Checksum::Valid,
            gso: None,
        };
        assert!(mock::transmit(&mut *guest.wire.queue, &frame, meta));
    }
    let page = guest.exchange(net::IPV4, ports::HTTP, b"GET / HTTP/1.1\r\n\r\n");
    let page = String::from_utf8(page).unwrap();
    let connections = page.lines().find(|l| l.starts_with("connections")).unwrap();
    assert_eq!(connections.split_whitespace().last(), Some("1"));
}

#[test]
fn transfers_go_on_over_a_reset_of_the_card() {
    const LEN: usize = 3_000_000;
    let mut guest = Guest::new(1500);
    let digest = guest.exchange(
        net::IPV4,
        ports::SOURCE,
        format!("{LEN} 5 sum\n").as_bytes(),
    );
    let download = guest.connect(net::IPV4, ports::SOURCE);
    let upload = guest.connect(net::IPV4, ports::SINK);
    guest.until("connections", |guest| {
        [download, upload].map(|handle| guest.socket(handle).may_send()) == [true; 2]
    });
    let request = format!("{LEN} 5\n");
    let data = bytes(LEN);
    guest
        .socket(download)
        .send_slice(request.as_bytes())
        .unwrap();
    let (mut sent, mut received, mut answer) = (0, Vec::new(), Vec::new());
    let mut resets = 0;
    guest.until("transfers", |guest| {
        drain(guest, download, &mut received);
        drain(guest, upload, &mut answer);
        let socket = guest.socket(upload);
        if sent < LEN {
            sent += socket.send_slice(&data[sent..]).unwrap();
        } else {
            socket.close();
        }
        // In the middle of one of them, and then of the other.
        let due = [sent, received.len()].map(|done| done > LEN / 2);
        if resets < due.into_iter().filter(|due| *due).count() {
            resets += 1;
            guest.wire.queue.reset();
            guest.wire.waiting.clear();
        }
        received.len() == LEN && !guest.socket(upload).may_recv()
    });
    assert_eq!(resets, 2);
    for (whole, answer) in [(&received, &digest), (&data, &answer)] {
        let expected = format!("{LEN} {}\n", hex(&Sha256::digest(whole)));
        assert_eq!(String::from_utf8_lossy(answer), expected);
    }
}

/// Takes what was received.
fn drain(guest: &mut Guest, handle: SocketHandle, into: &mut Vec<u8>) {
    let socket = guest.socket(handle);
    while socket.can_recv() {
        socket
            .recv(|data| {
                into.extend_from_slice(data);
                (data.len(), ())
            })
            .unwrap();
    }
}

/// Seconds that the clock of [`ahead`] has in advance.
static ADVANCE: AtomicU64 = AtomicU64::new(0);

fn ahead() -> Instant {
    Instant::now() + Duration::from_secs(ADVANCE.load(Ordering::Relaxed))
}

#[test]
fn an_idle_connection_is_given_up_when_nobody_answers_but_not_while_nobody_can_be_asked() {
    let mut gateway = Gateway::new(Config::default()).with_clock(ahead);
    let mut guest = Guest::on(gateway.open(1).unwrap().remove(0), 1500);
    let handle = guest.connect(net::IPV4, ports::ECHO);
    guest.until("connection", |guest| guest.socket(handle).may_send());
    let answers = |guest: &mut Guest| {
        guest.socket(handle).send_slice(b"?").unwrap();
        guest.until("an answer", |guest| {
            let socket = guest.socket(handle);
            assert!(socket.is_open());
            socket.can_recv()
        });
        let said = guest
            .socket(handle)
            .recv(|data| (data.len(), data.to_vec()));
        assert_eq!(said.unwrap(), b"?");
    };
    answers(&mut guest);
    // The driver does not receive.
    ADVANCE.fetch_add(1000, Ordering::Relaxed);
    guest.poll();
    answers(&mut guest);

    // It does, and throws away all that comes.
    for _ in 0..400 {
        ADVANCE.fetch_add(1, Ordering::Relaxed);
        receive(&mut *guest.wire.queue);
    }
    guest.socket(handle).send_slice(b"?").unwrap();
    guest.until("refusal", |guest| !guest.socket(handle).is_open());
}
