// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The host's end with a guest's end on the loopback interface.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        Arc,
    },
    thread,
    time::{Duration, Instant},
};

use vnet_bench::{
    control::{hear, Connection, Reply, Request, Seen},
    datagram::{self, Sink},
    pattern,
    server::Server,
    stream,
};

fn server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the test's process.
    thread::spawn(move || Server::new(vec![]).run(&listener));
    address
}

fn begin() -> Request {
    Request::Begin {
        interface: "lo".into(),
    }
}

#[test]
fn bytes_of_a_stream_are_counted_between_begin_and_end() {
    let address = server();
    let control = Connection::open(address).unwrap();
    control.ask(&begin()).unwrap();
    let data = Connection::open(address).unwrap();
    let socket = data.into_stream(&Request::Sink).unwrap();
    let block = pattern::block();
    (&socket).write_all(&block).unwrap();
    (&socket).write_all(&block[..1000]).unwrap();
    // The peer hangs up when it has read, and so counted, everything.
    socket.shutdown(Shutdown::Write).unwrap();
    let _ = (&socket).read(&mut [0; 1]);
    let seen = control.ask_seen(&Request::End).unwrap();
    assert!(seen.usage.own.contains_key("peer"));
    assert_eq!(seen.bytes, block.len() as u64 + 1000);
    assert!(seen.frames > 0);
}

#[test]
fn a_stream_with_a_hole_fails_the_sample() {
    let address = server();
    let control = Connection::open(address).unwrap();
    control.ask(&begin()).unwrap();
    let data = Connection::open(address).unwrap();
    let socket = data.into_stream(&Request::Sink).unwrap();
    (&socket).write_all(&pattern::block()[1448..9000]).unwrap();
    drop(socket);
    let failed = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(20));
        let failed = control.ask_seen(&Request::End).is_err();
        control.ask(&begin()).unwrap();
        failed
    });
    assert!(failed);
}

#[test]
fn a_source_sends_until_the_other_end_has_enough() {
    let data = Connection::open(server()).unwrap();
    let socket = Arc::new(data.into_stream(&Request::Source).unwrap());
    let bytes = Arc::new(AtomicU64::new(0));
    let receiver = thread::spawn({
        let (socket, bytes) = (socket.clone(), bytes.clone());
        move || stream::receive(&socket, &bytes)
    });
    while bytes.load(Relaxed) < 1 << 20 {
        thread::sleep(Duration::from_millis(5));
    }
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    receiver.join().unwrap().unwrap();
}

#[test]
fn checked_transfers_find_one_wrong_byte() {
    let address = server();
    let into = Connection::open(address).unwrap();
    let socket = into.into_stream(&Request::CheckedSource(300_000)).unwrap();
    stream::receive_checked(&socket, 300_000).unwrap();

    let mut data = vec![0; 300_000];
    pattern::fill(&mut data, 0);
    for wrong in [None, Some(0), Some(299_999)] {
        let out = Connection::open(address).unwrap();
        out.ask(&Request::CheckedSink(300_000)).unwrap();
        let mut sent = data.clone();
        if let Some(at) = wrong {
            sent[at] ^= 4;
        }
        out.stream().write_all(&sent).unwrap();
        let reply = hear::<Reply>(out.stream()).unwrap().unwrap();
        assert_eq!(matches!(reply, Reply::Ready), wrong.is_none(), "{reply:?}");
    }
}

/// Has a sink count what this sends, until it comes to what it should: the sink may have to wait for its turn.
fn sample(control: &Connection, send: impl Fn() -> u64, is_right: impl Fn(&Seen, u64) -> bool) {
    let mut last = None;
    for pause in [200, 2_000, 20_000] {
        control.ask(&begin()).unwrap();
        let sent = send();
        thread::sleep(Duration::from_millis(pause));
        let seen = control.ask_seen(&Request::End).unwrap();
        if is_right(&seen, sent) {
            return;
        }
        last = Some((sent, seen));
    }
    panic!("{last:?}");
}

#[test]
fn datagrams_are_counted_and_checked() {
    let address = server();
    let control = Connection::open(address).unwrap();
    let port = control.ask_port(&Request::DatagramSink).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = SocketAddr::new(address.ip(), port);
    let some = || {
        for n in 0..20 {
            let mut data = pattern::datagram(n);
            if n % 4 == 3 {
                data[20] ^= 1;
            }
            socket.send_to(&data, to).unwrap();
        }
        20
    };
    sample(&control, some, |seen, _| {
        (seen.datagrams, seen.corrupt) == (15, 5)
    });

    let many = || {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let sender = scope.spawn(|| datagram::send_flat_out(to, &stop));
            thread::sleep(Duration::from_millis(50));
            stop.store(true, Relaxed);
            sender.join().unwrap().unwrap()
        })
    };
    sample(&control, many, |seen, sent| {
        assert_eq!(seen.corrupt, 0);
        (1..=sent).contains(&seen.datagrams)
    });
}

#[test]
fn a_source_keeps_to_its_rate() {
    let sink = Sink::start().unwrap();
    let control = Connection::open(server()).unwrap();
    let seen = control
        .ask_seen(&Request::DatagramSource {
            port: sink.port(),
            // Few enough for any socket to hold all of them, if the sink has to wait for its turn.
            rate: 500,
            millis: 400,
            interface: "lo".into(),
        })
        .unwrap();
    assert_eq!(seen.sent, 200);
    assert!(seen.usage.elapsed >= 0.4);
    let end = Instant::now() + Duration::from_secs(20);
    while sink.arrived.intact.load(Relaxed) < 200 && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(sink.arrived.intact.load(Relaxed), 200);
    assert_eq!(sink.arrived.corrupt.load(Relaxed), 0);
}

#[test]
fn round_trips() {
    let address = server();
    let control = Connection::open(address).unwrap();
    let port = control.ask_port(&Request::Echo).unwrap();
    let to = SocketAddr::new(address.ip(), port);
    // An echo that has to wait for its turn longer than the one who asks is lost.
    let trips = (0..10)
        .map(|_| datagram::ask(to, Duration::from_millis(100)).unwrap())
        .find(|trips| trips.lost == 0)
        .expect("none of some is lost");
    assert!(trips.times.iter().all(|time| *time > 0.0));
    assert!(!trips.times.is_empty());
}

#[test]
fn nonsense_is_refused_and_the_next_is_served() {
    let address = server();
    let control = Connection::open(address).unwrap();
    assert!(control.ask(&Request::End).is_err());
    let interface = "no such one".into();
    assert!(control.ask(&Request::Begin { interface }).is_err());
    control.ask(&begin()).unwrap();

    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&[b'x'; 5000]).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    // Closed, with or without a reset for the bytes that were not read.
    assert!(!matches!(stream.read(&mut [0; 10]), Ok(1..)));

    let other = Connection::open(address).unwrap();
    other.ask(&begin()).unwrap();
}
