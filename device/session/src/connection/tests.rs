// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the kernel makes of writes and reads.

use super::*;
use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::io::{fcntl_getfd, FdFlags};
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage};

/// A message of this size, its header included.
fn message(id: u16, size: u32) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    bytes[0..2].copy_from_slice(&id.to_ne_bytes());
    bytes[4..8].copy_from_slice(&size.to_ne_bytes());
    bytes
}

fn send_with(client: &UnixStream, bytes: &[u8], count: usize) {
    let file = File::open("/proc/self/stat").unwrap();
    let fds = vec![file.as_fd(); count];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let bytes = [IoSlice::new(bytes)];
    sendmsg(client, &bytes, &mut control, SendFlags::empty()).unwrap();
}

/// Reads all that is there. Each message: its id, its descriptors, and whether some are lost.
fn receive(connection: &Connection) -> Vec<(u16, usize, bool)> {
    let mut inbox = Inbox::default();
    let mut list = Vec::new();
    while let Received::Data { .. } = connection.receive(&mut inbox).unwrap() {
        while let Some(message) = inbox.next().unwrap() {
            for fd in &message.fds {
                assert!(fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
            }
            list.push((message.header.id, message.fds.len(), message.lost.is_some()));
        }
    }
    list
}

fn pair() -> (UnixStream, Connection<'static>) {
    let (client, server) = UnixStream::pair().unwrap();
    (client, Connection::new(server.into(), &Closer::default()))
}

#[test]
fn each_message_gets_its_own_descriptors() {
    let (mut client, connection) = pair();
    client.write_all(&message(1, 36)).unwrap();
    client.write_all(&message(2, 36)).unwrap();
    send_with(&client, &message(3, 48), 1);
    send_with(&client, &message(4, 48), 16);
    client.write_all(&message(5, 16)).unwrap();
    // A header with descriptors, and the payload after it.
    send_with(&client, &message(6, 48)[..16], 2);
    client.write_all(&message(6, 48)[16..]).unwrap();
    client.write_all(&message(7, 16)).unwrap();
    let fds: Vec<_> = [0, 0, 1, 16, 0, 2, 0].to_vec();
    let expected: Vec<_> = (1..).zip(fds).map(|(id, n)| (id, n, false)).collect();
    assert_eq!(receive(&connection), expected);
}

#[test]
fn descriptors_beyond_the_limit_are_known_to_be_lost() {
    let (mut client, connection) = pair();
    for (id, count) in [(1, 17), (2, 18), (3, 32), (4, 16)] {
        send_with(&client, &message(id, 48), count);
    }
    client.write_all(&message(5, 16)).unwrap();
    let lost: Vec<_> = receive(&connection).iter().map(|m| (m.0, m.2)).collect();
    let expected = [(1, true), (2, true), (3, true), (4, false), (5, false)];
    assert_eq!(lost, expected);
}

/// What was asked for about the last client may be heard of only when the next one is there.
#[test]
fn an_event_without_a_request_does_not_keep_the_thread_awake() {
    let (mut client, connection) = pair();
    let control = Control::new().unwrap();
    let former = control.client();
    control.client_here(&client.try_clone().unwrap().into());
    control.hang_up(former);
    let inbox = Inbox::default();
    connection.wait_for_data(&inbox, &control, None).unwrap();
    assert_eq!(control.request(), None);
    let asleep = std::thread::scope(|s| {
        let sleeper = s.spawn(|| connection.wait_for_data(&inbox, &control, None));
        std::thread::sleep(std::time::Duration::from_millis(50));
        let asleep = !sleeper.is_finished();
        client.write_all(&[0]).unwrap();
        sleeper.join().unwrap().unwrap();
        asleep
    });
    assert!(asleep);
}

#[test]
fn many_messages_come_with_one_read() {
    let (mut client, connection) = pair();
    for id in 0..100 {
        client.write_all(&message(id, 36)).unwrap();
    }
    let mut inbox = Inbox::default();
    let data = Received::Data { more: false };
    assert_eq!(connection.receive(&mut inbox), Ok(data));
    for id in 0..100 {
        assert_eq!(inbox.next().unwrap().unwrap().header.id, id);
    }
    assert_eq!(connection.receive(&mut inbox), Ok(Received::Nothing));
    drop(client);
    assert_eq!(connection.receive(&mut inbox), Ok(Received::End));
}
