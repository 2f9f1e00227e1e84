// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Clients that come and go.

use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use vfio_user::Client;
use vnet_card::{Config, Options};
use vnet_contract::regs::ID_VALUE;
use vnet_loopback::Null;

/// Runs a session while `test` talks to it, and stops it.
fn with_session(test: impl FnOnce(&Path, &Control)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let socket = Socket::bind(&path).unwrap();
    let config = Config {
        mac: [2, 0, 0, 0, 0, 1],
        queue_pairs: 1,
        max_mtu: 1500,
        withheld: 0,
        service: Options::default(),
    };
    let card = Card::new(config, Box::new(Null::new())).unwrap();
    let on_fatal = |_, e| panic!("{e}");
    let mut session = Session::new(&socket, Arc::new(Mutex::new(card)), on_fatal).unwrap();
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
