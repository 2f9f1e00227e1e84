// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Clients that send nonsense. What can be told from good requests is refused; whatever it is, the
//! server goes on: after each of them the next client is served as if nothing had been. So does one
//! that survives, which leaves messages in the socket while it handles them.
#![allow(missing_docs)]

mod common;

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use common::{options, round_trip};
use rustix::net::sockopt::{
    set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size,
};
use vnet_testkit::{command, irq, region, Card, GuestRam, Server, Wire, NO_REPLY};

/// A message of a hostile client.
struct Message {
    bytes: Vec<u8>,
    fds: usize,
    answer: Answer,
}

/// The first thing that must come back.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// Whatever the server makes of it.
    Any,
    /// A reply without error: odd, but allowed.
    Good,
    /// An error.
    Refused,
}

impl Answer {
    fn all(self, mut messages: Vec<Message>) -> Vec<Message> {
        messages.iter_mut().for_each(|m| m.answer = self);
        messages
    }

    fn check(self, n: usize, wire: &mut Wire) {
        let got = match self {
            Answer::Any => return,
            _ => wire.receive(),
        };
        let good = match (&got, self) {
            (Ok(reply), Answer::Good) => reply.id == ID && reply.error.is_none(),
            (Ok(reply), Answer::Refused) => reply.id == ID && reply.error.is_some(),
            _ => false,
        };
        assert!(good, "message {n}: {got:?} instead of {self:?}");
    }
}

/// Id of the messages.
const ID: u16 = 7;

fn raw(bytes: impl Into<Vec<u8>>) -> Message {
    Message {
        bytes: bytes.into(),
        fds: 0,
        answer: Answer::Any,
    }
}

fn message(command: u16, payload: &[u8]) -> Message {
    let size = 16 + payload.len() as u32;
    sized(command, size, payload)
}

/// A message whose header tells another size than it has.
fn sized(command: u16, size: u32, payload: &[u8]) -> Message {
    raw([&Wire::header(ID, command, size, 0)[..], payload].concat())
}

fn with_fds(message: Message, fds: usize) -> Message {
    Message { fds, ..message }
}

fn words(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn version(json: &[u8]) -> Message {
    message(command::VERSION, &[&[0, 0, 0, 0], json].concat())
}

fn access(command: u16, offset: u64, region: u32, count: u32, data: &[u8]) -> Message {
    let fixed = [
        &offset.to_le_bytes()[..],
        &region.to_le_bytes(),
        &count.to_le_bytes(),
        data,
    ];
    message(command, &fixed.concat())
}

fn set_irqs(flags: u32, index: u32, start: u32, count: u32) -> Message {
    message(command::SET_IRQS, &words(&[20, flags, index, start, count]))
}

fn map(flags: u32, offset: u64, addr: u64, size: u64) -> Message {
    let payload = Card::map_message(flags, offset, addr, size);
    with_fds(message(command::DMA_MAP, &payload), 1)
}

/// A server of each kind.
fn servers() -> [Server; 2] {
    [&["--log", "off"][..], &["--log", "off", "--survive"]]
        .map(|args| Server::start_with("loopback", args).unwrap())
}

/// Sends each message on a connection of its own, with and without a version exchange before,
/// then lets a well-behaved client have a go.
fn check(messages: Vec<Message>) {
    servers()
        .iter()
        .for_each(|server| check_on(server, &messages));
}

fn check_on(server: &Server, messages: &[Message]) {
    let ram = GuestRam::new(0, 0x4000).unwrap();
    for (n, message) in messages.iter().enumerate() {
        for negotiate in [false, true] {
            let mut wire = Wire::connect(server.socket()).unwrap();
            if negotiate {
                wire.version().unwrap();
            }
            let fds: Vec<BorrowedFd<'_>> = (0..message.fds).map(|_| ram.fd()).collect();
            // The server may have hung up on the first bytes.
            let _ = wire.send_raw(&message.bytes, &fds);
            let _ = wire.finish();
            // Nothing but VERSION is good before VERSION.
            match message.answer {
                Answer::Good if !negotiate => Answer::Refused.check(n, &mut wire),
                answer => answer.check(n, &mut wire),
            }
            // It reads what there is, answers or not, and sees the end.
            assert!(wire.is_closed(), "message {n}: the server holds on");
        }
        let mut nic = server.nic_with(options()).unwrap();
        round_trip(&mut nic, 0, n as u64);
    }
}

#[test]
fn torn_and_nonsensical_headers() {
    check(Answer::Refused.all(vec![
        sized(command::VERSION, 0, &[]),
        sized(command::VERSION, 15, &[]),
        sized(command::GET_INFO, 0, &[]),
        sized(command::GET_INFO, 17, &[0]),
        sized(command::GET_INFO, u32::MAX, &[0; 64]),
        sized(command::REGION_WRITE, u32::MAX, &[0; 64]),
        sized(command::REGION_READ, 16, &[]),
        message(0, &[]),
        message(0, &[0; 64]),
        message(99, &[0; 64]),
        message(99, &[0; 900_000]),
        message(0xffff, &[]),
    ]));
    check(vec![
        raw([]),
        raw([1]),
        raw([0; 15]),
        raw([0; 16]),
        raw([0xff; 16]),
        raw([0xff; 4096]),
        sized(command::GET_INFO, 900_000, &[0; 64]),
        // Replies to what nobody asked.
        raw(Wire::header(1, command::GET_INFO, 16, 1)),
        raw(Wire::header(1, command::DMA_READ, 16, 1 | 1 << 5)),
        raw(Wire::header(1, command::GET_INFO, 16, 0xffff_fffe)),
    ]);
}

#[test]
fn versions_that_are_none() {
    let nested = [vec![b'['; 100_000], vec![0]].concat();
    let long = [
        b"{\"x\":\"".to_vec(),
        vec![b'y'; 500_000],
        b"\"}\0".to_vec(),
    ]
    .concat();
    // The second one on a connection is refused, whatever it says.
    check(vec![
        message(command::VERSION, &[0, 0, 0, 0]),
        version(b"{}\0"),
        version(b"{\"capabilities\":{}}\0"),
        with_fds(version(b"{}\0"), 16),
    ]);
    check(Answer::Refused.all(vec![
        sized(command::VERSION, 16, &[]),
        message(command::VERSION, &[0]),
        message(command::VERSION, &[0, 0, 0]),
        message(command::VERSION, &[9, 0, 9, 0, b'{', b'}', 0]),
        version(b"\0"),
        version(b"{}"),
        version(b"null\0"),
        version(b"{\0"),
        version(b"\xff\xfe\0"),
        version(b"{\"capabilities\":7}\0"),
        version(b"{\"capabilities\":{\"max_msg_fds\":-1}}\0"),
        version(b"{\"capabilities\":{\"max_data_xfer_size\":1e99}}\0"),
        version(&nested),
        version(&long),
    ]));
}

#[test]
fn regions_and_interrupts_that_do_not_exist() {
    check(Answer::Refused.all(vec![
        access(command::REGION_READ, 0, 99, 4, &[]),
        access(command::REGION_READ, u64::MAX, region::BAR0, 4, &[]),
        access(command::REGION_READ, 0, region::BAR0, u32::MAX, &[]),
        access(command::REGION_READ, 0, region::CONFIG, 1 << 31, &[]),
        access(command::REGION_WRITE, 0, 99, 4, &[0; 4]),
        access(command::REGION_WRITE, u64::MAX, region::BAR0, 4, &[0; 4]),
        access(command::REGION_WRITE, 0, region::BAR0, u32::MAX, &[0; 4]),
        message(command::GET_REGION_INFO, &words(&[32, 0, 9, 0, 0, 0, 0, 0])),
        message(
            command::GET_REGION_INFO,
            &words(&[0, 0, u32::MAX, 0, 0, 0, 0, 0]),
        ),
        message(command::GET_REGION_INFO, &[]),
        message(command::GET_IRQ_INFO, &words(&[16, 0, 5, 0])),
        message(command::GET_IRQ_INFO, &words(&[16, 0, u32::MAX, 0])),
        message(command::GET_REGION_IO_FDS, &words(&[16, 0, 0, 0])),
        message(command::DMA_READ, &[0; 16]),
        message(command::DMA_WRITE, &[0; 64]),
        message(14, &[0; 64]),
        message(command::WRITE_MULTI, &[0; 64]),
        access(command::REGION_WRITE, 0, region::BAR0, 4, &[0; 64]),
        access(command::REGION_WRITE, 0, region::BAR0, 4, &[0; 3]),
    ]));
    check(Answer::Good.all(vec![
        access(command::REGION_WRITE, 0, region::BAR0, 0, &[]),
        message(command::WRITE_MULTI, &[0; 8]),
    ]));
}

#[test]
fn interrupts_set_in_every_wrong_way() {
    let eventfd = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
    check(Answer::Refused.all(vec![
        set_irqs(eventfd, irq::MSIX, 0, u32::MAX),
        set_irqs(eventfd, irq::MSIX, u32::MAX, 1),
        set_irqs(eventfd, irq::MSIX, u32::MAX, u32::MAX),
        set_irqs(eventfd, irq::MSIX, 2, 1),
        set_irqs(eventfd, 5, 0, 1),
        set_irqs(eventfd, u32::MAX, 0, 1),
        set_irqs(0, irq::MSIX, 0, 1),
        set_irqs(u32::MAX, irq::MSIX, 0, 1),
        set_irqs(irq::DATA_BOOL | irq::ACTION_TRIGGER, irq::MSIX, 0, 2),
        set_irqs(irq::DATA_NONE | irq::ACTION_TRIGGER, irq::MSIX, 0, 1 << 30),
        set_irqs(irq::DATA_NONE | irq::ACTION_MASK, irq::MSIX, 0, 1),
        set_irqs(irq::DATA_NONE | irq::ACTION_UNMASK, irq::MSIX, 0, 1),
        with_fds(set_irqs(eventfd, 0, 0, 1), 1),
        message(command::SET_IRQS, &[]),
    ]));
    // Memory where an eventfd belongs, and more and fewer descriptors than vectors.
    check(Answer::Refused.all(vec![
        with_fds(set_irqs(eventfd, irq::MSIX, 0, 1), 1),
        with_fds(set_irqs(eventfd, irq::MSIX, 0, 2), 1),
        with_fds(set_irqs(eventfd, irq::MSIX, 0, 1), 16),
        with_fds(set_irqs(eventfd, irq::MSIX, 0, 0), 16),
    ]));
    // The client may raise a vector; the error interrupt is never raised.
    check(Answer::Good.all(vec![
        set_irqs(irq::DATA_NONE | irq::ACTION_TRIGGER, irq::MSIX, 0, 1),
        with_fds(set_irqs(eventfd, irq::ERR, 0, 1), 1),
    ]));
}

#[test]
fn mappings_that_cannot_be() {
    check(Answer::Refused.all(vec![
        map(3, 0, 0, 0),
        map(3, 0, 1, 0x1000),
        map(3, 0, 0, 0x1001),
        map(3, 1, 0, 0x1000),
        map(3, 0, u64::MAX, 0x1000),
        map(3, 0, u64::MAX - 0xfff, 0x2000),
        map(3, 0, 0, u64::MAX),
        map(3, 0, 0, u64::MAX - 0xfff),
        map(3, u64::MAX - 0xfff, 0, 0x1000),
        // Longer than its file: touching the end would be fatal.
        map(3, 0, 0, 0x5000),
        map(3, 0x4000, 0, 0x1000),
    ]));
    check(Answer::Refused.all(vec![
        with_fds(map(3, 0, 0, 0x1000), 16),
        map(u32::MAX, 0, 0, 0x1000),
        message(command::DMA_MAP, &[]),
        message(command::DMA_UNMAP, &[]),
        message(command::DMA_UNMAP, &[0xff; 24]),
        // Which pages were written, nobody knows.
        message(command::DMA_UNMAP, &words(&[40, 1, 0, 0, 0x1000, 0])),
    ]));
    // No access at all, and taking away what is not there.
    check(Answer::Good.all(vec![
        map(0, 0, 0, 0x1000),
        message(
            command::DMA_UNMAP,
            &words(&[24, 0, 0, 0, u32::MAX, u32::MAX]),
        ),
        message(command::DMA_UNMAP, &words(&[24, 2, 0, 0, 0, 0, 7, 7])),
    ]));
}

#[test]
fn files_that_are_no_memory() {
    let not_memory = [
        File::open("/dev/null").unwrap(),
        File::open("/proc/self/status").unwrap(),
        File::open("/").unwrap(),
    ];
    for server in servers() {
        for file in &not_memory {
            let mut card = server.card().unwrap();
            let payload = Card::map_message(3, 0, 0, 0x1000);
            let fds = [file.as_fd()];
            let answer = card.wire.request(command::DMA_MAP, &payload, &fds);
            assert_eq!(answer.unwrap().error, Some(22), "{file:?}");
            card.reg(vnet_contract::regs::ID).unwrap();
        }
        let mut nic = server.nic_with(options()).unwrap();
        round_trip(&mut nic, 0, 1);
    }
}

/// A connection of which one end is full and lingers, and the other end, which does not read: who
/// closes the first one last waits for that.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set_socket_recv_buffer_size(&listener, 4096).unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    set_socket_send_buffer_size(&sender, 4096).unwrap();
    let (other, _) = listener.accept().unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.write(&[0; 1 << 16]).is_ok() {}
    set_socket_linger(&sender, Some(Duration::from_secs(3600))).unwrap();
    (sender, other)
}

/// Sends a message with so many of them, of which none is here any more. Returns what lets them close.
fn send_lingering(wire: &mut Wire, message: &Message) -> Vec<TcpStream> {
    let (fds, others): (Vec<_>, Vec<_>) = (0..message.fds).map(|_| lingering()).unzip();
    let fds: Vec<_> = fds.iter().map(TcpStream::as_fd).collect();
    wire.send_raw(&message.bytes, &fds).unwrap();
    others
}

/// Has a client send such messages and leave.
fn leave(server: &Server, messages: &[&Message]) -> Vec<TcpStream> {
    // Served meanwhile, so that nothing is read yet, and no descriptor here is the last.
    let first = server.card().unwrap();
    let mut wire = Wire::connect(server.socket()).unwrap();
    wire.send_raw(&version(b"{}\0").bytes, &[]).unwrap();
    let messages = messages.iter();
    let others = messages.flat_map(|message| send_lingering(&mut wire, message));
    let others = others.collect();
    drop((wire, first));
    others
}

#[test]
fn descriptors_that_do_not_close_hold_up_nobody() {
    let eventfd = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
    let hung_up_before = [sized(0, 0, &[]).bytes, message(0, &[]).bytes].concat();
    let messages = [
        map(3, 0, 0, 0x1000),
        with_fds(version(b"{}\0"), 1),
        with_fds(set_irqs(eventfd, irq::MSIX, 0, 1), 1),
        with_fds(message(command::GET_INFO, &words(&[16, 0, 0, 0])), 17),
        with_fds(raw(hung_up_before), 1),
    ];
    for mut server in servers() {
        let mut others = Vec::new();
        for (n, message) in (0..).zip(&messages) {
            others.extend(leave(&server, &[message]));
            round_trip(&mut server.nic_with(options()).unwrap(), 0, n);
        }
        drop(others);
        // More than a card goes on with.
        let many = with_fds(message(command::GET_INFO, &words(&[16, 0, 0, 0])), 32);
        drop(leave(&server, &[&many, &many, &many]));
        round_trip(&mut server.nic_with(options()).unwrap(), 0, 9);
        let mut others = leave(&server, &[&messages[0]]);
        // And one in the middle of a message, and one that is never served.
        let mut served = Wire::connect(server.socket()).unwrap();
        served.version().unwrap();
        let start = with_fds(raw([0; 8]), 1);
        others.extend(send_lingering(&mut served, &start));
        let mut waiting = Wire::connect(server.socket()).unwrap();
        others.extend(send_lingering(&mut waiting, &messages[0]));
        assert_eq!(server.finish().unwrap().0, Some(0));
        drop(others);
    }
}

/// What clients send must not fill the log, nor tell what a panic of a library looks like.
#[test]
fn malformed_messages_leave_a_few_short_lines() {
    let mut server = Server::start("loopback").unwrap();
    for _ in 0..20 {
        let mut wire = Wire::connect(server.socket()).unwrap();
        let text = version(&[b'x'; 5000]);
        wire.send_raw(&text.bytes, &[]).unwrap();
        Answer::Refused.check(0, &mut wire);
        let endless = sized(command::VERSION, u32::MAX, &[b'x'; 5000]);
        wire.send_raw(&endless.bytes, &[]).unwrap();
        assert!(wire.is_closed());
    }
    round_trip(&mut server.nic_with(options()).unwrap(), 0, 1);
    let log = server.end().unwrap();
    assert!(log.contains("malformed version"), "{log}");
    assert!(log.lines().count() <= 10, "{log}");
    assert!(log.lines().all(|line| line.len() < 400), "{log}");
}

/// A client is done for when it runs into these, and QEMU's memory comes in a thousand pieces.
#[test]
fn a_thousand_mappings_take_no_thousand_descriptors() {
    let server = Server::start("loopback").unwrap();
    let pid = server.process.id().to_string();
    let few = ["--pid", &pid, "--nofile=100"];
    let status = std::process::Command::new("prlimit").args(few).status();
    assert!(status.unwrap().success());
    let ram = GuestRam::new(0, 0x4000).unwrap();
    let mut card = server.card().unwrap();
    for n in 0..2000 {
        card.map_range(&ram, 0, 0x1_0000_0000 + n * 0x1000, 0x1000, true)
            .unwrap();
    }
    drop(card);
    round_trip(&mut server.nic_with(options()).unwrap(), 0, 1);
}

#[test]
fn random_bytes() {
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut byte = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    let mut list: Vec<Message> = (0..40)
        .map(|n| raw((0..n * n * 20).map(|_| byte()).collect::<Vec<_>>()))
        .collect();
    // And random payloads behind good headers.
    for command in 0..16 {
        for len in [4, 16, 20, 24, 32, 100] {
            let payload: Vec<u8> = (0..len).map(|_| byte()).collect();
            list.push(message(command, &payload));
        }
    }
    check(list);
}

/// A client that floods the server with requests and never reads an answer.
#[test]
fn a_client_that_does_not_read() {
    for server in servers() {
        for _ in 0..3 {
            let mut card = server.card().unwrap();
            let request = access(command::REGION_READ, 0, region::CONFIG, 4096, &[]);
            // Fits into the socket's buffers in this direction, but not the answers.
            for _ in 0..200 {
                card.wire.send_raw(&request.bytes, &[]).unwrap();
            }
            drop(card);
            let mut nic = server.nic_with(options()).unwrap();
            round_trip(&mut nic, 0, 1);
        }
    }
}

#[test]
fn posted_writes_without_end() {
    for server in servers() {
        let mut nic = server.nic_with(options()).unwrap();
        let doorbell = vnet_contract::regs::doorbell_reg(1);
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < Duration::from_millis(300) || sent < 1000 {
            nic.card
                .post(region::BAR0, doorbell.into(), &[0; 4])
                .unwrap();
            sent += 1;
        }
        round_trip(&mut nic, 0, 1);
        // Requests that must not be answered are not.
        let get_info = words(&[16, 0, 0, 0]);
        let wire = &mut nic.card.wire;
        wire.send(command::DEVICE_RESET, NO_REPLY, &[], &[])
            .unwrap();
        let reply = wire.request(command::GET_INFO, &get_info, &[]).unwrap();
        assert_eq!(reply.command, command::GET_INFO);
    }
}

#[test]
fn clients_that_come_and_go() {
    for server in servers() {
        for n in 0..300 {
            let mut wire = Wire::connect(server.socket()).unwrap();
            if n % 3 == 0 {
                wire.version().unwrap();
            }
            if n % 5 == 0 {
                wire.send_raw(&[3; 7], &[]).unwrap();
            }
        }
        let mut nic = server.nic_with(options()).unwrap();
        round_trip(&mut nic, 0, 1);
    }
}

/// A stream has no borders: a message is what its header says, however it was written.
#[test]
fn messages_in_pieces() {
    let ram = GuestRam::new(0, 0x10000).unwrap();
    let info = message(command::GET_INFO, &words(&[16, 0, 0, 0]));
    let long = [words(&[16, 0, 0, 0]), vec![0; 65_000]].concat();
    for server in servers() {
        let mut wire = Wire::connect(server.socket()).unwrap();
        wire.version().unwrap();
        // The descriptor with the header, or with a part of it.
        for (n, cut) in (0..).zip([16, 7, 40]) {
            let map = map(3, 0, n * 0x1000, 0x1000);
            wire.send_raw(&map.bytes[..cut], &[ram.fd()]).unwrap();
            wire.send_raw(&map.bytes[cut..], &[]).unwrap();
            Answer::Good.check(0, &mut wire);
        }
        for byte in &info.bytes {
            wire.send_raw(&[*byte], &[]).unwrap();
            std::thread::sleep(Duration::from_micros(100));
        }
        Answer::Good.check(1, &mut wire);
        // One that the client's kernel divides, behind the descriptor.
        let long = message(command::GET_INFO, &long);
        wire.send_raw(&long.bytes, &[ram.fd()]).unwrap();
        Answer::Good.check(2, &mut wire);
        drop(wire);
        round_trip(&mut server.nic_with(options()).unwrap(), 0, 1);
    }
}
