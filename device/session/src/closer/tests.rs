// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Descriptors that would have whoever closes them wait.

use super::*;
use std::io::{ErrorKind, IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{eventfd, EventfdFlags};
use rustix::net::sockopt::{
    set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size,
};
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// A connection of which one end is full and lingers, and the other end, which does not read.
pub(crate) fn lingering() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set_socket_recv_buffer_size(&listener, 4096).unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    set_socket_send_buffer_size(&sender, 4096).unwrap();
    let (other, _) = listener.accept().unwrap();
    sender.set_nonblocking(true).unwrap();
    loop {
        match sender.write(&[0; 1 << 16]) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => panic!("{e}"),
        }
    }
    set_socket_linger(&sender, Some(Duration::from_secs(3600))).unwrap();
    (sender.into(), other)
}

pub(crate) fn send(client: &UnixStream, fds: &[OwnedFd]) {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SENT))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(
        client,
        &[IoSlice::new(&[7])],
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
}

fn read(closer: &Closer, socket: &OwnedFd) -> Read {
    let flags = RecvFlags::empty();
    closer.read(socket, &mut [0; 16], flags).unwrap()
}

fn wait_for(closer: &Closer, waiting: usize) {
    let end = Instant::now() + Duration::from_secs(20);
    while closer.0.waiting.load(Ordering::Relaxed) != waiting {
        assert!(Instant::now() < end, "{closer:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn files_and_eventfds_are_taken_and_nothing_else() {
    let (client, server) = UnixStream::pair().unwrap();
    let (server, closer) = (server.into(), Closer::default());
    let taken = [
        File::open("/proc/self/stat").unwrap().into(),
        eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
    ];
    send(&client, &taken);
    let got = read(&closer, &server);
    assert_eq!((got.fds.len(), got.lost), (2, None));
    assert!(closer.0.thread.get().is_none());

    let (reader, writer) = std::io::pipe().unwrap();
    let refused = [
        reader.into(),
        writer.into(),
        File::open("/dev/null").unwrap().into(),
        File::open("/").unwrap().into(),
        client.try_clone().unwrap().into(),
    ];
    for fd in refused {
        send(&client, &[fd]);
        let got = read(&closer, &server);
        assert_eq!((got.fds.len(), got.lost), (0, Some(Lost::Foreign)));
    }
    wait_for(&closer, 0);
    // As many as there can be: the kernel closes none.
    let many: Vec<_> = (0..MOST_SENT)
        .map(|_| taken[0].try_clone().unwrap())
        .collect();
    send(&client, &many);
    assert_eq!(read(&closer, &server).fds.len(), MOST_SENT);
}

#[test]
fn what_does_not_close_holds_up_nobody() {
    let (client, server) = UnixStream::pair().unwrap();
    let (server, closer) = (OwnedFd::from(server), Closer::default());
    let mut others = Vec::new();
    // One that nobody has looked at yet when it comes again, one within a socket, and one unread.
    for _ in 0..2 {
        let (fd, other) = lingering();
        others.push(other);
        let (inner, outer) = UnixStream::pair().unwrap();
        send(&inner, &[fd]);
        send(&client, &[outer.into()]);
        drop(inner);
    }
    let space = &mut [0; 16];
    let look = closer.read(&server, space, RecvFlags::PEEK).unwrap();
    assert_eq!(look.lost, Some(Lost::Foreign));
    read(&closer, &server);
    closer.hang_up(server);
    wait_for(&closer, 2);

    assert!(!closer.is_full());
    let (client, server) = UnixStream::pair().unwrap();
    let server = OwnedFd::from(server);
    for _ in 2..MOST {
        send(&client, &[File::open("/dev/null").unwrap().into()]);
        read(&closer, &server);
    }
    assert!(closer.is_full());
    // The other ends are gone: all closes.
    drop(others);
    wait_for(&closer, 0);
}
