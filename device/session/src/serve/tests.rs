// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Clients that come and go.

use super::*;
use rustix::net::{send, SendFlags};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use vfio_user::Client;
use vnet_card::Config;
use vnet_contract::regs::{self, ID_VALUE};
use vnet_loopback::Null;

use crate::closer::tests::{lingering, send as send_with};
use crate::lifeline::tests::{message, Kept};

fn card() -> SharedCard {
    let config = Config::new([2, 0, 0, 0, 0, 1]);
    let card = Card::new(config, Box::new(Null::new())).unwrap();
    Arc::new(Mutex::new(card))
}

/// Runs a session while `test` talks to it, and stops it.
fn with_session(test: impl FnOnce(&Path, &Control)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let socket = Socket::bind(&path).unwrap();
    let on_fatal = |_, e| panic!("{e}");
    let mut session = Session::new(&socket, card(), on_fatal).unwrap();
    let control = session.control();
    let thread = thread::spawn(move || session.run());
    test(&path, &control);
    control.stop();
    thread.join().unwrap().unwrap();
}

fn use_card(path: &Path) {
    let mut client = Client::new(path).unwrap();
    let mut id = [0; 4];
    client.region_read(layout::REGISTERS, 0, &mut id).unwrap();
    assert_eq!(id, [0xff; 4], "the former client left memory space enabled");
    client.region_write(layout::CONFIG, 4, &[2, 0]).unwrap();
    client.region_read(layout::REGISTERS, 0, &mut id).unwrap();
    assert_eq!(u32::from_le_bytes(id), ID_VALUE);
    client.shutdown().unwrap();
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

/// Insists that the server hangs up, and returns what it said before.
fn hung_up(mut stream: UnixStream) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(e) if e.kind() != io::ErrorKind::ConnectionReset => panic!("{e}"),
        _ => said,
    }
}

#[test]
fn one_client_after_another_finds_a_fresh_card() {
    with_session(|path, _| (0..3).for_each(|_| use_card(path)));
}

#[test]
fn a_client_that_cannot_be_followed_is_told_and_harms_nobody_else() {
    with_session(|path, _| {
        // VERSION, too short for a header.
        let header = [7u8, 0, 1, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut stream = connect(path);
        stream.write_all(&header).unwrap();
        let error = [7, 0, 1, 0, 16, 0, 0, 0, 0x21, 0, 0, 0, 22, 0, 0, 0];
        assert_eq!(hung_up(stream), error);
        use_card(path);
    });
}

#[test]
fn a_client_is_hung_up_on_and_the_next_one_served() {
    with_session(|path, control| {
        let idle = served(path);
        control.hang_up(control.client());
        hung_up(idle);
        use_card(path);
        // With nobody there, it does not wait for the next one.
        control.hang_up(control.client());
        thread::sleep(Duration::from_millis(20));
        use_card(path);
    });
}

#[test]
fn whoever_comes_after_a_client_that_is_to_be_hung_up_on_stays() {
    with_session(|path, control| {
        drop(served(path));
        let gone = control.client();
        let mut next = served(path);
        assert_ne!(control.client(), gone);
        control.hang_up(gone);
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(1));
            ask(&mut next);
        }
        control.hang_up(control.client());
        control.hang_up(gone);
        hung_up(next);
        use_card(path);
    });
}

/// A client that has been answered, so that it is the one that is served.
fn served(path: &Path) -> UnixStream {
    let mut client = connect(path);
    ask(&mut client);
    client
}

/// Sends a message that has an answer, if only that it is refused.
fn ask(client: &mut UnixStream) {
    client
        .write_all(&[0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        .unwrap();
    client.read_exact(&mut [0; 16]).unwrap();
}

#[test]
fn stopping_ends_a_client_that_is_silent_that_floods_and_that_does_not_read() {
    with_session(|_, _| {});
    let mut idle = None;
    with_session(|path, _| idle = Some(connect(path)));
    hung_up(idle.unwrap());

    let flood = |reply: bool| {
        let mut stream = None;
        with_session(|path, _| {
            let client = connect(path);
            let mut sender = client.try_clone().unwrap();
            sender
                .set_write_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            // Of a command that does not exist.
            let flags = if reply { 0 } else { 0x10 };
            let message = [0, 0, 99, 0, 16, 0, 0, 0, flags, 0, 0, 0, 0, 0, 0, 0];
            let many = message.repeat(1000);
            let end = Instant::now() + Duration::from_millis(200);
            while Instant::now() < end && sender.write_all(&many).is_ok() {}
            stream = Some(client);
        });
        hung_up(stream.unwrap());
    };
    flood(false);
    flood(true);
}

/// Has a process serve a client that outlives it until `test` is over, or the client gone. Returns
/// the CPU time that this took.
fn serving(kept: &mut Kept, test: impl FnOnce(&mut Kept)) -> Duration {
    serving_or(|e| panic!("{e}"), kept, test)
}

/// The same with somebody who hears of what is fatal.
fn serving_or(
    mut fatal: impl FnMut(Error) + Send + 'static,
    kept: &mut Kept,
    test: impl FnOnce(&mut Kept),
) -> Duration {
    let card = card();
    kept.survive(&mut card.lock().unwrap());
    let mut session = Session::without_listener(card, move |_, e| fatal(e)).unwrap();
    let (lifeline, socket) = (kept.lifeline(), kept.socket());
    let control = session.control();
    let thread = thread::spawn(move || {
        session.serve_kept(socket, &lifeline);
        rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)
    });
    test(kept);
    control.stop();
    Duration::try_from(thread.join().unwrap()).unwrap()
}

/// Waits for the refusal of a message of [`message`].
fn refused(kept: &mut Kept, id: u16) {
    let mut answer = [0; 16];
    kept.client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    kept.client.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0..2], id.to_ne_bytes());
    assert_ne!(answer[12..16], [0; 4]);
}

/// Waits until the session has ended of its own accord.
fn gone(kept: &Kept, within: Duration) {
    let end = Instant::now() + within;
    while kept.holds_client() {
        assert!(Instant::now() < end, "the client is held on to");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_message_is_let_go() {
    for part in [1, 7, 15, 16, 30] {
        for ends in [0, 1] {
            let mut kept = Kept::new();
            serving(&mut kept, |kept| {
                kept.client.write_all(&message(1, 16)).unwrap();
                kept.send(&message(2, 64)[..part], ends);
                kept.client.shutdown(std::net::Shutdown::Write).unwrap();
                // Less than the session waits for the rest of a message.
                gone(kept, Duration::from_secs(4));
            });
        }
    }
}

#[test]
fn who_is_never_served_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let socket = Socket::bind(&path).unwrap();
    let session = Session::new(&socket, card(), |_, e| panic!("{e}")).unwrap();
    let client = connect(&path);
    let (fd, _other) = lingering();
    send_with(&client, &[fd]);
    let (ended, end) = channel();
    thread::spawn(move || {
        socket.close();
        drop((socket, session));
        ended.send(()).unwrap();
    });
    end.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(UnixStream::connect(&path).is_err());
    hung_up(client);
}

#[test]
fn messages_that_come_in_parts_are_serving() {
    let mut kept = Kept::new();
    serving(&mut kept, |kept| {
        // Descriptors with a part that is not the last.
        kept.send(&message(1, 64)[..16], 1);
        kept.client.write_all(&message(1, 64)[16..]).unwrap();
        refused(kept, 1);
        // So long that the kernel divides it behind the descriptors.
        kept.send(&message(2, 65_000), 1);
        refused(kept, 2);
        for byte in message(3, 64) {
            kept.client.write_all(&[byte]).unwrap();
            thread::sleep(Duration::from_micros(300));
        }
        refused(kept, 3);
    });
}

/// A read that ends where the buffer does may end within a message with descriptors, which must
/// not come twice.
#[test]
fn descriptors_come_once_wherever_a_read_ends() {
    let kept = Kept::new();
    let lifeline = kept.lifeline();
    lifeline.recover(&kept.socket()).unwrap();
    let client = Connection::kept(kept.socket(), &lifeline);
    let many = message(1, vnet_protocol::CAPACITY - 40);
    kept.send(&many, 0);
    kept.send(&message(2, 64), 1);
    let mut inbox = Inbox::default();
    let mut fds = Vec::new();
    while let Received::Data { .. } = client.receive(&mut inbox).unwrap() {
        loop {
            let before = inbox.position();
            let Some(message) = inbox.next().unwrap() else {
                break;
            };
            fds.push(message.fds.len());
            let header = message.header;
            let size = (inbox.position() - before) as usize;
            let control = Control::new().unwrap();
            let place = (size, inbox.unread());
            assert!(client.answer(&header, place, &[], &control).unwrap());
        }
        client.handled(&mut inbox).unwrap();
    }
    assert_eq!(fds, [0, 1]);
}

#[test]
fn one_who_waits_for_the_rest_of_a_message_sleeps_and_not_for_ever() {
    let mut kept = Kept::new();
    let spent = serving(&mut kept, |kept| {
        kept.client.write_all(&message(1, 64)[..20]).unwrap();
        thread::sleep(Duration::from_secs(2));
        // Something has come meanwhile.
        kept.client.write_all(&message(1, 64)[20..40]).unwrap();
        gone(kept, Duration::from_secs(8));
    });
    assert!(spent < Duration::from_millis(100), "{spent:?}");
}

/// It is neither passed over, again and again, nor lost.
#[test]
fn an_urgent_byte_is_one_like_others() {
    let mut kept = Kept::new();
    let spent = serving(&mut kept, |kept| {
        let message = message(1, 64);
        // A kernel may have been built without.
        if send(&kept.client, &message[..1], SendFlags::OOB) == Err(Errno::OPNOTSUPP) {
            kept.client.write_all(&message[..1]).unwrap();
        }
        thread::sleep(Duration::from_millis(500));
        kept.client.write_all(&message[1..]).unwrap();
        refused(kept, 1);
        // The last one, which comes with those before.
        kept.client.write_all(&message[..20]).unwrap();
        thread::sleep(Duration::from_millis(500));
        if send(&kept.client, &message[20..], SendFlags::OOB) == Err(Errno::OPNOTSUPP) {
            kept.client.write_all(&message[20..]).unwrap();
        }
        refused(kept, 1);
    });
    assert!(spent < Duration::from_millis(100), "{spent:?}");

    with_session(|path, _| {
        let mut client = connect(path);
        if send(&client, &message(2, 64)[..1], SendFlags::OOB) == Err(Errno::OPNOTSUPP) {
            return;
        }
        client.write_all(&message(2, 64)[1..]).unwrap();
        let mut answer = [0; 16];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..2], 2u16.to_ne_bytes());
    });
}

/// Stopped in an orderly way, in the middle of a message, as often as it likes.
#[test]
fn the_next_process_goes_on_in_the_middle_of_a_message() {
    let mut kept = Kept::new();
    let long = message(1, 900_000);
    for part in long.chunks(100_000) {
        serving(&mut kept, |kept| kept.client.write_all(part).unwrap());
    }
    serving(&mut kept, |kept| refused(kept, 1));
    let short = message(2, 40);
    serving(&mut kept, |kept| kept.send(&short[..16], 1));
    serving(&mut kept, |kept| kept.send(&short[16..30], 0));
    serving(&mut kept, |kept| {
        kept.send(&short[30..], 0);
        refused(kept, 2);
    });
}

/// Has the client's request done, and returns what the answer brings.
fn request(kept: &mut Kept, command: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = message(1, 16 + payload.len());
    bytes[2..4].copy_from_slice(&command.to_ne_bytes());
    bytes[16..].copy_from_slice(payload);
    kept.client.write_all(&bytes).unwrap();
    let mut head = [0; 16];
    kept.client.read_exact(&mut head).unwrap();
    assert_eq!((head[2], head[12]), (bytes[2], 0));
    let mut rest = vec![0; usize::from(head[4]) - head.len()];
    kept.client.read_exact(&mut rest).unwrap();
    rest
}

/// The place of four bytes or less, as REGION_READ and REGION_WRITE have it.
fn place(region: u32, offset: u32, count: u8) -> Vec<u8> {
    let mut place = u64::from(offset).to_ne_bytes().to_vec();
    place.extend(region.to_ne_bytes());
    place.extend([count, 0, 0, 0]);
    place
}

/// Whatever the process before has died of.
#[test]
fn only_a_message_that_was_begun_may_have_been_handled() {
    const VERSION: u16 = 1;
    const REGION_READ: u16 = 9;
    const REGION_WRITE: u16 = 10;
    let enable = [place(layout::CONFIG, 4, 2), vec![2, 0]].concat();
    let too_small = place(layout::REGISTERS, regs::MTU, 4);
    let too_small = [too_small, vec![1, 0, 0, 0]].concat();
    let illegal = |kept: &mut Kept| {
        let place = place(layout::REGISTERS, regs::ILLEGAL_ACCESSES, 4);
        request(kept, REGION_READ, &place)[16]
    };
    let mut kept = Kept::new();
    serving(&mut kept, |kept| {
        request(kept, VERSION, &[0; 4]);
        request(kept, REGION_WRITE, &enable);
        request(kept, REGION_WRITE, &too_small);
        assert_eq!(illegal(kept), 1);
    });
    serving(&mut kept, |kept| {
        request(kept, REGION_WRITE, &too_small);
        assert_eq!(illegal(kept), 2);
    });
    // A process that has done no more than that with what comes next.
    kept.lifeline().begin();
    serving(&mut kept, |kept| {
        request(kept, REGION_WRITE, &too_small);
        assert_eq!(illegal(kept), 2);
        request(kept, REGION_WRITE, &too_small);
        assert_eq!(illegal(kept), 3);
    });
}

/// One process hears of the memory, the next one that it is needed.
#[test]
fn a_client_that_shares_no_memory_is_found_out_by_the_next_process() {
    const VERSION: u16 = 1;
    const DMA_MAP: u16 = 2;
    const REGION_WRITE: u16 = 10;
    // To read and to write, and of no file.
    let (size, flags) = (32u32, 3u32);
    let head = [size, flags].map(u32::to_ne_bytes);
    let (offset, first, length) = (0u64, 0x1000, 0x1000);
    let range = [offset, first, length].map(u64::to_ne_bytes);
    let range = [head.as_flattened(), range.as_flattened()].concat();
    let mut kept = Kept::new();
    serving(&mut kept, |kept| {
        request(kept, VERSION, &[0; 4]);
        request(kept, DMA_MAP, &range);
    });
    let (sender, found) = channel();
    let fatal = move |e| sender.send(e).unwrap();
    serving_or(fatal, &mut kept, |kept| {
        let master = [place(layout::CONFIG, 4, 2), vec![6, 0]].concat();
        request(kept, REGION_WRITE, &master);
    });
    assert!(matches!(found.try_recv(), Ok(Error::NoSharedMemory)));

    // With bus mastering on that was found out before: what is shared may be away for a moment.
    let mut kept = Kept::new();
    let master = [place(layout::CONFIG, 4, 2), vec![6, 0]].concat();
    serving(&mut kept, |kept| {
        request(kept, VERSION, &[0; 4]);
        request(kept, REGION_WRITE, &master);
        request(kept, DMA_MAP, &range);
    });
    serving(&mut kept, |kept| {
        request(kept, REGION_WRITE, &master);
    });
}

#[test]
fn a_message_that_comes_alone_takes_one_read() {
    let session = Session::without_listener(card(), |_, e| panic!("{e}")).unwrap();
    let kept = Kept::new();
    let lifeline = kept.lifeline();
    for (what, lifeline, fds, reads) in [
        ("alone", None, 0, 100),
        ("with a process that may die", Some(&lifeline), 0, 100),
        // Behind these there may be more.
        ("with descriptors", None, 1, 200),
    ] {
        let kept = Kept::new();
        let client = match lifeline {
            Some(lifeline) => Connection::kept(kept.socket(), lifeline),
            None => Connection::new(kept.socket(), &session.closer),
        };
        client.recover(&session.control).unwrap();
        let mut inbox = Inbox::default();
        let mut more = true;
        for id in 0..100 {
            kept.send(&message(id, 36), fds);
            loop {
                let received = session.receive(&client, &mut inbox, None, more);
                more = received.expect("the client is there");
                let Some(message) = inbox.next().unwrap() else {
                    continue;
                };
                assert_eq!(message.header.id, id);
                let header = message.header;
                let place = (36, inbox.unread());
                client
                    .answer(&header, place, &[], &session.control)
                    .unwrap();
                break;
            }
        }
        let count = client.reads.load(std::sync::atomic::Ordering::Relaxed);
        assert!(count <= reads, "{what}: {count} reads");
    }
}
