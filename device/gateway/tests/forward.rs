// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Ports that lead to the host, with a guest on one side and sockets of this machine on the other.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{channel, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use common::frames::{introduce, ipv4};
use common::{receive, still, Guest, IPV4};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::net::sockopt::{set_socket_linger, set_socket_send_buffer_size};
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::State;
use smoltcp::wire::{
    EthernetAddress, IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr,
};
use tempfile::TempDir;
use vnet_backend::{mock, Endpoint, Meta, Queue};
use vnet_gateway::{net, ports, Config, Gateway};

/// A port that leads to the host.
const PORT: u16 = 8000;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

fn open(queues: u16, options: &str) -> Vec<Box<dyn Queue>> {
    let config = options.parse().unwrap();
    Gateway::new(config).open(queues).unwrap()
}

fn guest(options: &str) -> Guest {
    Guest::on(open(1, options).remove(0), 1500)
}

/// A unix socket of its own.
fn unix() -> (TempDir, UnixListener, String) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let options = format!("forward={PORT}=unix:{}", path.display());
    (dir, listener, options)
}

/// A port of its own.
fn tcp(address: impl Into<IpAddr>) -> (TcpListener, String) {
    let listener = TcpListener::bind((address.into(), 0)).unwrap();
    let options = format!("forward={PORT}={}", listener.local_addr().unwrap());
    (listener, options)
}

/// Reads to the end, and then says the same.
fn parrot(mut stream: impl Read + Write) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    stream.write_all(&all).unwrap();
}

/// The next connection that the host takes, while the guest is served.
fn taken<T: Send + 'static>(guest: &mut Guest, host: &Receiver<T>) -> T {
    let mut stream = None;
    guest.until("the host takes it", |_| {
        stream = stream.take().or_else(|| host.try_recv().ok());
        stream.is_some()
    });
    stream.unwrap()
}

fn accepting_tcp(listener: TcpListener) -> Receiver<TcpStream> {
    let (sender, streams) = channel();
    thread::spawn(move || while sender.send(listener.accept().unwrap().0).is_ok() {});
    streams
}

fn accepting_unix(listener: UnixListener) -> Receiver<UnixStream> {
    let (sender, streams) = channel();
    thread::spawn(move || while sender.send(listener.accept().unwrap().0).is_ok() {});
    streams
}

/// The guest sends this and ends; returns all that then is at the other end, from the connection's start.
fn upload<S>(guest: &mut Guest, handle: SocketHandle, mut stream: S, data: &[u8]) -> Vec<u8>
where
    S: Read + Send + 'static,
{
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    let mut sent = 0;
    guest.until("all is there", |guest| {
        let socket = guest.socket(handle);
        if sent < data.len() && socket.can_send() {
            sent += socket.send_slice(&data[sent..]).unwrap();
        } else if sent == data.len() {
            socket.close();
        }
        reader.is_finished()
    });
    reader.join().unwrap()
}

/// Takes what there is for the guest.
fn drain(guest: &mut Guest, handle: SocketHandle) -> Vec<u8> {
    let mut all = Vec::new();
    let socket = guest.socket(handle);
    while socket.can_recv() {
        let took = socket.recv(|data| {
            all.extend_from_slice(data);
            (data.len(), ())
        });
        took.unwrap();
    }
    all
}

fn line(guest: &mut Guest, port: u16) -> String {
    let page = guest.exchange(net::IPV4, ports::HTTP, b"GET / HTTP/1.1\r\n\r\n");
    let page = String::from_utf8(page).unwrap();
    let start = format!("port {port} ");
    let line = page.lines().find(|line| line.starts_with(&start));
    line.expect("the page has the port")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn bytes_go_both_ways_over_all_addresses_to_all_kinds_of_sockets() {
    let data = bytes(3_000_000);
    let sum = format!("{} bytes there, {} back", 2 * data.len(), 2 * data.len());
    let check = |options: &str| {
        let mut guest = guest(options);
        assert!(guest.exchange(net::IPV4, PORT, &data) == data);
        assert!(guest.exchange(net::IPV6_LINK_LOCAL, PORT, &data) == data);
        let line = line(&mut guest, PORT);
        assert!(
            line.starts_with("port 8000 2 connections to the host, 0 refused"),
            "{line}"
        );
        assert!(line.ends_with(&sum), "{line}");
    };
    let (_dir, listener, options) = unix();
    thread::spawn(move || {
        listener
            .incoming()
            .for_each(|stream| parrot(stream.unwrap()))
    });
    check(&options);
    for address in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let (listener, options) = tcp(address);
        thread::spawn(move || {
            listener
                .incoming()
                .for_each(|stream| parrot(stream.unwrap()))
        });
        check(&options);
    }
}

#[test]
fn a_port_of_the_gateways_own_can_lead_to_the_host() {
    let (listener, options) = tcp(Ipv4Addr::LOCALHOST);
    thread::spawn(move || {
        listener
            .incoming()
            .for_each(|stream| parrot(stream.unwrap()))
    });
    let options = options.replace("8000", "80");
    let mut guest = guest(&options);
    assert_eq!(guest.exchange(net::IPV4, ports::HTTP, b"mine"), b"mine");
    assert_eq!(guest.exchange(net::IPV4, ports::ECHO, b"own"), b"own");
}

#[test]
fn what_the_host_refuses_is_refused_and_never_seems_to_be_taken() {
    let (listener, options) = tcp(Ipv4Addr::LOCALHOST);
    drop(listener);
    let (dir, listener, gone) = unix();
    drop(listener);
    let missing = gone.replace("socket", "missing");
    for options in [&options, &gone, &missing] {
        let mut guest = guest(options);
        for _ in 0..3 {
            let handle = guest.connect(net::IPV4, PORT);
            let mut taken = false;
            guest.until("refusal", |guest| {
                taken |= guest.socket(handle).may_send();
                !guest.socket(handle).is_open()
            });
            assert!(!taken);
        }
        let line = line(&mut guest, PORT);
        assert!(
            line.starts_with("port 8000 0 connections to the host, 3 refused"),
            "{line}"
        );
    }
    // A service that comes later is found.
    let mut guest = guest(&missing);
    let handle = guest.connect(net::IPV4, PORT);
    guest.until("refusal", |guest| !guest.socket(handle).is_open());
    let listener = UnixListener::bind(dir.path().join("missing")).unwrap();
    thread::spawn(move || parrot(listener.accept().unwrap().0));
    assert_eq!(guest.exchange(net::IPV4, PORT, b"now"), b"now");
}

/// As with TCP: the request is lost, and comes again.
#[test]
fn a_host_with_too_many_who_wait_gives_no_answer_until_it_takes_one() {
    let (dir, listener, options) = unix();
    rustix::net::listen(&listener, 0).unwrap();
    let before = UnixStream::connect(dir.path().join("socket")).unwrap();
    let mut guest = guest(&options);
    let handle = guest.connect(net::IPV4, PORT);
    let start = Instant::now();
    guest.until("some time", |guest| {
        assert_eq!(guest.socket(handle).state(), State::SynSent);
        start.elapsed() > Duration::from_millis(200)
    });
    drop(before);
    let host = accepting_unix(listener);
    guest.until("connection", |guest| guest.socket(handle).may_send());
    // The first is the one that waited.
    taken(&mut guest, &host);
    taken(&mut guest, &host).write_all(b"you are next").unwrap();
    guest.until("words", |guest| guest.socket(handle).recv_queue() == 12);
}

#[test]
fn a_host_that_does_not_read_closes_the_window() {
    let (_dir, listener, options) = unix();
    let host = accepting_unix(listener);
    let mut guest = guest(&options);
    let handle = guest.connect(net::IPV4, PORT);
    let stream = taken(&mut guest, &host);
    let data = bytes(8 << 20);
    let mut sent = 0;
    let mut since = Instant::now();
    guest.until("the window is closed", |guest| {
        let socket = guest.socket(handle);
        if socket.can_send() {
            sent += socket.send_slice(&data[sent..]).unwrap();
            since = Instant::now();
        }
        since.elapsed() > Duration::from_millis(300)
    });
    // The guest's own buffer, the gateway's, and what the kernel has for the socket.
    assert!(sent < 4 << 20, "{sent}");
    // Others are served meanwhile.
    assert_eq!(guest.exchange(net::IPV4, ports::ECHO, b"x"), b"x");
    assert!(upload(&mut guest, handle, stream, &data[sent..]) == data);
}

#[test]
fn a_guest_that_does_not_read_slows_the_host_down() {
    let (listener, options) = tcp(Ipv4Addr::LOCALHOST);
    let host = accepting_tcp(listener);
    let mut guest = guest(&options);
    let handle = guest.connect(net::IPV4, PORT);
    let mut stream = taken(&mut guest, &host);
    let data = bytes(64 << 20);
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut since = Instant::now();
    guest.until("the host has to wait", |_| {
        match stream.write(&data[sent..]) {
            Ok(count) => {
                sent += count;
                since = Instant::now();
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
        since.elapsed() > Duration::from_millis(300)
    });
    assert!(sent < data.len(), "{sent}");
    stream.set_nonblocking(false).unwrap();
    let (rest, expected) = (data[sent..].to_vec(), data);
    let writer = thread::spawn(move || stream.write_all(&rest).unwrap());
    let mut got = Vec::new();
    guest.until("all has come", |guest| {
        got.extend(drain(guest, handle));
        got.len() == expected.len()
    });
    writer.join().unwrap();
    assert!(got == expected);
    // The writer has closed; the guest has not.
    guest.until("the end", |guest| !guest.socket(handle).may_recv());
    assert_eq!(guest.socket(handle).state(), State::CloseWait);
}

#[test]
fn each_direction_ends_by_itself() {
    let (listener, options) = tcp(Ipv6Addr::LOCALHOST);
    let host = accepting_tcp(listener);
    let mut guest = guest(&options);
    let handle = guest.connect(net::IPV4, PORT);
    let mut stream = taken(&mut guest, &host);
    // The host first.
    stream.write_all(b"last words").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    guest.until("the host's end", |guest| {
        got.extend(drain(guest, handle));
        !guest.socket(handle).may_recv()
    });
    assert_eq!(got, b"last words");
    let data = bytes(2_000_000);
    assert!(upload(&mut guest, handle, stream, &data) == data);
}

#[test]
fn who_breaks_off_is_heard_of_on_the_other_side() {
    let (listener, options) = tcp(Ipv4Addr::LOCALHOST);
    let host = accepting_tcp(listener);
    let mut guest = guest(&options);

    // The host, when the guest has got what it had said.
    let handle = guest.connect(net::IPV4, PORT);
    let mut stream = taken(&mut guest, &host);
    stream.write_all(b"and then").unwrap();
    let mut got = Vec::new();
    guest.until("words", |guest| {
        got.extend(drain(guest, handle));
        got == b"and then"
    });
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    guest.until("reset", |guest| {
        guest.socket(handle).state() == State::Closed
    });

    // The guest.
    let handle = guest.connect(net::IPV4, PORT);
    let mut stream = taken(&mut guest, &host);
    guest.until("connection", |guest| guest.socket(handle).may_send());
    guest.socket(handle).send_slice(b"half a").unwrap();
    guest.until("words", |_| {
        stream.peek(&mut [0; 8]).is_ok_and(|count| count == 6)
    });
    guest.socket(handle).abort();
    guest.send();
    let mut all = Vec::new();
    let mut ended = None;
    stream.set_nonblocking(true).unwrap();
    guest.until("the host hears of it", |_| {
        match stream.read_to_end(&mut all) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            result => ended = Some(result.map_err(|e| e.kind())),
        }
        ended.is_some()
    });
    assert_eq!(ended, Some(Err(ErrorKind::ConnectionReset)));

    // A machine that is gone.
    let handle = guest.connect(net::IPV4, PORT);
    let mut stream = taken(&mut guest, &host);
    guest.until("connection", |guest| guest.socket(handle).may_send());
    guest.wire.queue.reset();
    guest.wire.queue.disconnect();
    let result = stream.read(&mut [0; 8]).map_err(|e| e.kind());
    assert_eq!(result, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_connection_goes_on_over_a_reset_of_the_card_if_the_guest_knows_of_it() {
    let (listener, options) = tcp(Ipv4Addr::LOCALHOST);
    let host = accepting_tcp(listener);
    let mut guest = guest(&options);
    let handle = guest.connect(net::IPV4, PORT);
    let mut stream = taken(&mut guest, &host);
    guest.until("connection", |guest| guest.socket(handle).may_send());
    guest.wire.queue.reset();
    stream.write_all(b"and then").unwrap();
    guest.until("words", |guest| guest.socket(handle).recv_queue() == 8);
    guest.socket(handle).send_slice(b"yes?").unwrap();
    guest.until("an answer", |_| {
        stream.peek(&mut [0; 8]).is_ok_and(|count| count == 4)
    });

    // It has begun anew.
    let mut queue = guest.wire.queue;
    queue.reset();
    let mut guest = Guest::on(queue, 1500);
    stream.read_exact(&mut [0; 4]).unwrap();
    stream.write_all(b"listen").unwrap();
    let end = thread::spawn(move || stream.read(&mut [0; 8]).map_err(|e| e.kind()));
    guest.until("the host hears of it", |_| end.is_finished());
    assert_eq!(end.join().unwrap(), Err(ErrorKind::ConnectionReset));
}

/// True if the guest asks for a connection and gets it; false if it is refused.
fn opens(guest: &mut Guest, port: u16) -> bool {
    let handle = guest.connect(net::IPV4, port);
    guest.until("an answer", |guest| {
        let socket = guest.socket(handle);
        socket.may_send() || !socket.is_open()
    });
    guest.socket(handle).may_send()
}

/// Two guests, as there can be behind a switch.
fn two(mut queues: Vec<Box<dyn Queue>>) -> (Guest, Guest) {
    let mac = EthernetAddress([0x52, 0x54, 0, 1, 2, 4]);
    let address = Ipv4Addr::from_bits(IPV4.to_bits() + 1);
    let other = Guest::station(queues.remove(1), 1500, mac, address);
    (Guest::on(queues.remove(0), 1500), other)
}

#[test]
fn a_guest_leaves_others_their_share_of_the_connections() {
    let (_dir, listener, options) = unix();
    let host = accepting_unix(listener);
    let (mut guest, mut other) = two(open(2, &options));
    let mut streams = Vec::new();
    for _ in 0..128 {
        assert!(opens(&mut guest, PORT));
        streams.push(taken(&mut guest, &host));
    }
    assert!(!opens(&mut guest, PORT));
    for _ in 0..64 {
        assert!(opens(&mut other, PORT));
    }
    assert!(!opens(&mut other, PORT) && !opens(&mut guest, PORT));
    // Those that had been idle longest are over.
    for (n, mut stream) in streams.into_iter().enumerate() {
        stream.set_nonblocking(true).unwrap();
        let goes_on = stream.read(&mut [0]).map_err(|e| e.kind()) == Err(ErrorKind::WouldBlock);
        assert_eq!(goes_on, n >= 64, "{n}");
    }
}

#[test]
fn a_guest_leaves_others_their_share_of_those_that_wait() {
    let (full, options) = tcp(Ipv4Addr::LOCALHOST);
    rustix::net::listen(&full, 0).unwrap();
    let _before = TcpStream::connect(full.local_addr().unwrap()).unwrap();
    let (_dir, listener, more) = unix();
    let host = accepting_unix(listener);
    let config: Config = format!("{options},{}", more.replace("8000", "8001"))
        .parse()
        .unwrap();
    let gateway = Gateway::new(config).with_clock(still).open(2).unwrap();
    let (mut guest, mut other) = two(gateway);
    let all: Vec<_> = (0..40).map(|_| guest.connect(net::IPV4, PORT)).collect();
    let start = Instant::now();
    guest.until("all have asked", |_| {
        start.elapsed() > Duration::from_millis(50)
    });
    for handle in all {
        assert_eq!(guest.socket(handle).state(), State::SynSent);
    }
    assert!(opens(&mut other, 8001));
    taken(&mut other, &host);
}

#[test]
fn connections_that_a_guest_may_not_know_of_make_room_for_others() {
    let (_dir, listener, options) = unix();
    let host = accepting_unix(listener);
    let mut guest = guest(&options);
    for _ in 0..128 {
        assert!(opens(&mut guest, PORT));
    }
    assert!(!opens(&mut guest, PORT) && !opens(&mut guest, ports::ECHO));
    let _streams: Vec<_> = (0..128).map(|_| taken(&mut guest, &host)).collect();

    guest.wire.queue.reset();
    assert!(opens(&mut guest, PORT));
    // This one has been heard of.
    let mut stream = taken(&mut guest, &host);
    for _ in 0..127 {
        assert!(opens(&mut guest, PORT));
    }
    assert!(!opens(&mut guest, PORT) && !opens(&mut guest, ports::ECHO));
    stream.set_nonblocking(true).unwrap();
    let result = stream.read(&mut [0]).map_err(|e| e.kind());
    assert_eq!(result, Err(ErrorKind::WouldBlock));
}

/// What the guest gets until its connection is broken off, while it goes on talking.
fn heard_while_talking(guest: &mut Guest, handle: SocketHandle) -> Vec<u8> {
    let mut got = Vec::new();
    // Before the gateway hears of anything.
    guest.socket(handle).send_slice(&[7; 1000]).unwrap();
    guest.until("reset", |guest| {
        got.extend(drain(guest, handle));
        let socket = guest.socket(handle);
        if socket.can_send() {
            socket.send_slice(&[7; 1000]).unwrap();
        }
        !socket.is_open()
    });
    got.extend(drain(guest, handle));
    got
}

#[test]
fn what_the_host_said_before_it_went_arrives_though_the_guest_talks_on() {
    let (_dir, listener, options) = unix();
    let host = accepting_unix(listener);
    let mut talker = guest(&options);
    let handle = talker.connect(net::IPV4, PORT);
    let mut stream = taken(&mut talker, &host);
    talker.until("connection", |guest| guest.socket(handle).may_send());
    // More than the gateway reads at once.
    let answer = bytes(300_000);
    set_socket_send_buffer_size(&stream, 2 * answer.len()).unwrap();
    stream.write_all(&answer).unwrap();
    drop(stream);
    assert!(heard_while_talking(&mut talker, handle) == answer);

    // It goes with the guest's words unread, which is a reset. What does not fit the window is lost then.
    let (listener, options) = tcp(Ipv4Addr::LOCALHOST);
    let host = accepting_tcp(listener);
    let mut talker = guest(&options);
    let handle = talker.connect(net::IPV4, PORT);
    let mut stream = taken(&mut talker, &host);
    talker.until("connection", |guest| guest.socket(handle).may_send());
    talker.socket(handle).send_slice(b"unread").unwrap();
    talker.until("words", |_| {
        stream.peek(&mut [0; 8]).is_ok_and(|count| count == 6)
    });
    let answer = bytes(20_000);
    stream.write_all(&answer).unwrap();
    drop(stream);
    assert!(heard_while_talking(&mut talker, handle) == answer);
}

fn is_readable(queue: &dyn Queue) -> bool {
    let fd = queue.readiness().expect("a queue that the host can wake");
    let fd = fd.as_fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
}

fn becomes_readable(queue: &dyn Queue) {
    let start = Instant::now();
    while !is_readable(queue) {
        assert!(start.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn the_host_wakes_the_queue_that_the_guest_used_last() {
    let (_dir, listener, options) = unix();
    let host = accepting_unix(listener);
    let mut queues = open(2, &options);
    let other = queues.remove(1);
    let mut guest = Guest::on(queues.remove(0), 1500);
    let handle = guest.connect(net::IPV4, PORT);
    guest.until("connection", |guest| guest.socket(handle).may_send());
    let mut stream = taken(&mut guest, &host);
    let rests = |guest: &mut Guest| {
        let mut calm = 0;
        guest.until("rest", |guest| {
            calm = if is_readable(&*guest.wire.queue) {
                0
            } else {
                calm + 1
            };
            calm == 20
        });
    };
    rests(&mut guest);
    stream.write_all(b"first").unwrap();
    becomes_readable(&*guest.wire.queue);
    assert!(!is_readable(&*other));
    guest.until("words", |guest| guest.socket(handle).recv_queue() == 5);
    rests(&mut guest);

    // The guest's flow moves to the other queue.
    let first = std::mem::replace(&mut guest.wire.queue, other);
    guest.socket(handle).send_slice(b"x").unwrap();
    guest.send();
    rests(&mut guest);
    stream.write_all(b"second").unwrap();
    becomes_readable(&*guest.wire.queue);
    assert!(!is_readable(&*first));
    guest.until("words", |guest| guest.socket(handle).recv_queue() == 11);

    // The driver resets the card, and may use only the first one.
    rests(&mut guest);
    guest.wire.queue.reset();
    let other = std::mem::replace(&mut guest.wire.queue, first);
    stream.write_all(b"third").unwrap();
    becomes_readable(&*guest.wire.queue);
    assert!(!is_readable(&*other));
    guest.until("words", |guest| guest.socket(handle).recv_queue() == 16);
}

/// A request for a connection.
fn syn(port: u16) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: port,
        dst_port: PORT,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(i32::from(port)),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None::<TcpTimestampRepr>,
        payload: &[],
    };
    let mut segment = vec![0; repr.buffer_len()];
    let mut packet = TcpPacket::new_unchecked(&mut segment);
    let (from, to) = (IPV4.into(), net::IPV4.into());
    repr.emit(&mut packet, &from, &to, &ChecksumCapabilities::default());
    ipv4(IpProtocol::Tcp, &segment)
}

#[test]
fn thousands_of_requests_take_a_bounded_number_of_sockets() {
    let (_dir, listener, options) = unix();
    let host = accepting_unix(listener);
    let mut queue = open(1, &options).remove(0);
    introduce(&mut *queue);
    let mut taken = Vec::new();
    let mut most = 0;
    for round in 0..100 {
        for n in 0..50 {
            let frame = syn(10_000 + round * 50 + n);
            assert!(mock::transmit(&mut *queue, &frame, Meta::default()));
        }
        receive(&mut *queue);
        thread::sleep(Duration::from_millis(1));
        receive(&mut *queue);
        taken.extend(host.try_iter());
        taken.retain_mut(|stream| {
            stream.set_nonblocking(true).unwrap();
            let result = stream.read(&mut [0]);
            result.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
        });
        most = most.max(taken.len());
    }
    // Connections, and those that were just asked for.
    assert!((100..=160).contains(&most), "{most}");
    // The guest has only kept itself busy.
    queue.reset();
    let mut guest = Guest::on(queue, 1500);
    assert_eq!(guest.exchange(net::IPV4, ports::ECHO, b"x"), b"x");
    let handle = guest.connect(net::IPV4, PORT);
    guest.until("connection", |guest| guest.socket(handle).may_send());
}

#[test]
fn a_connection_is_not_idle_for_a_gateway_that_carries_it() {
    let (_dir, listener, options) = unix();
    let host = accepting_unix(listener);
    let mut guest = guest(&options);
    let first = guest.connect(net::IPV4, PORT);
    let mut stream = taken(&mut guest, &host);
    let all: Vec<_> = (0..127)
        .map(|_| guest.connect(net::IPV4, ports::ECHO))
        .collect();
    guest.until("all are open", |guest| {
        all.iter().all(|handle| guest.socket(*handle).may_send())
    });
    thread::sleep(Duration::from_millis(2100));
    let new = guest.connect(net::IPV4, ports::ECHO);
    guest.until("connection", |guest| guest.socket(new).may_send());
    stream.write_all(b"still here").unwrap();
    guest.until("words", |guest| guest.socket(first).recv_queue() == 10);
}

#[test]
fn a_gateway_whose_ports_lead_nowhere_has_no_thread_and_wakes_nobody() {
    let gateway = Gateway::new(Config::default()).connect_after(|| panic!("there is a thread"));
    let mut gateway = gateway;
    let queues = gateway.open(1).unwrap();
    assert!(queues[0].readiness().is_none());
    thread::sleep(Duration::from_millis(10));
}
