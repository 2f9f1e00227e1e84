// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The endpoint with a peer at the other end of its socket.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use vnet_backend::{mock, Endpoint, Losses, Meta, Queue, MAX_FRAME};
use vnet_stream::{Stream, STALL};

struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    Place { _dir: dir, path }
}

fn record(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

/// The frame that a peer gets.
fn get(peer: &mut UnixStream) -> Vec<u8> {
    let mut len = [0; 4];
    peer.read_exact(&mut len).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(len) as usize];
    peer.read_exact(&mut frame).unwrap();
    frame
}

fn send(queue: &mut dyn Queue, frame: &[u8]) -> bool {
    mock::transmit(queue, frame, Meta::default())
}

fn receive(queue: &mut dyn Queue) -> Vec<Vec<u8>> {
    let frames = mock::receive(queue, 1000, MAX_FRAME);
    frames.into_iter().map(|(bytes, _)| bytes).collect()
}

fn is_ready(queue: &dyn Queue) -> bool {
    let fd = queue.readiness().unwrap();
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
}

/// Looks at the link until it is so.
fn within(endpoint: &dyn Endpoint, up: bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while endpoint.link().up != up {
        assert!(Instant::now() < end, "the link does not change");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An endpoint that has connected, its queues, and the peer.
fn connected(queues: u16) -> (Place, Stream, Vec<Box<dyn Queue>>, UnixStream) {
    let place = place();
    let listener = UnixListener::bind(&place.path).unwrap();
    let mut stream = Stream::connect(&place.path).unwrap();
    let ports = stream.open(queues).unwrap();
    assert!(stream.link().up);
    let (peer, _) = listener.accept().unwrap();
    (place, stream, ports, peer)
}

#[test]
fn frames_cross_in_both_directions() {
    let (_place, _stream, mut ports, mut peer) = connected(1);
    let port = ports[0].as_mut();
    assert!(!is_ready(port));
    for len in [14, 60, 1514, MAX_FRAME] {
        let frame: Vec<_> = (0..len).map(|n| n as u8).collect();
        assert!(send(port, &frame));
        let reader = std::thread::spawn({
            let mut peer = peer.try_clone().unwrap();
            move || get(&mut peer)
        });
        while !reader.is_finished() {
            // The rest of a frame that the socket had no room for.
            assert_eq!(receive(port), Vec::<Vec<u8>>::new());
        }
        assert_eq!(reader.join().unwrap(), frame);
        peer.write_all(&record(&frame)).unwrap();
        assert!(is_ready(port));
        assert_eq!(receive(port), [frame]);
        assert!(!is_ready(port));
    }
    assert_eq!(port.losses().sent, 0);
}

#[test]
fn frames_wait_for_room_in_the_ring() {
    let (_place, _stream, mut ports, mut peer) = connected(1);
    let port = ports[0].as_mut();
    for n in 0..5 {
        peer.write_all(&record(&[n; 60])).unwrap();
    }
    assert_eq!(mock::receive(port, 2, 2000).len(), 2);
    assert!(port.has_frames() && !port.has_work());
    let rest = receive(port);
    assert_eq!(rest, [2, 3, 4].map(|n| vec![n; 60]));
    assert!(!port.has_frames());
}

#[test]
fn without_a_peer_there_is_no_carrier_and_frames_are_lost() {
    let place = place();
    let mut stream = Stream::connect(&place.path).unwrap();
    let mut ports = stream.open(1).unwrap();
    assert!(!stream.link().up);
    assert!(send(ports[0].as_mut(), &[0; 60]));
    assert_eq!(ports[0].losses().sent, 1);
    assert!(!is_ready(ports[0].as_ref()));
}

#[test]
fn a_peer_that_is_gone_is_dialled_again() {
    let place = place();
    let mut stream = Stream::connect(&place.path).unwrap();
    let mut ports = stream.open(1).unwrap();
    let port = ports[0].as_mut();
    for round in 0..3u8 {
        within(&stream, false);
        let listener = UnixListener::bind(&place.path).unwrap();
        within(&stream, true);
        let (mut peer, _) = listener.accept().unwrap();
        assert!(send(port, &[round; 60]));
        assert_eq!(get(&mut peer), [round; 60]);
        peer.write_all(&record(&[round; 61])).unwrap();
        // Half a frame, which is not to be mixed up with what the next peer says.
        peer.write_all(&record(&[round; 70])[..30]).unwrap();
        assert_eq!(receive(port), [[round; 61]]);
        drop((listener, peer));
        std::fs::remove_file(&place.path).unwrap();
        assert!(is_ready(port));
        assert_eq!(receive(port), Vec::<Vec<u8>>::new());
        // Nothing that a worker would wake for again and again.
        receive(port);
        assert!(!is_ready(port));
    }
}

#[test]
fn a_peer_that_comes_back_at_once_shows_as_a_carrier_that_was_gone() {
    let place = place();
    let listener = UnixListener::bind(&place.path).unwrap();
    let mut stream = Stream::connect(&place.path).unwrap();
    let mut ports = stream.open(1).unwrap();
    assert!(stream.link().up);
    receive(ports[0].as_mut());
    drop(listener.accept().unwrap());
    receive(ports[0].as_mut());
    assert!(!stream.link().up);
    assert!(stream.link().up);
}

#[test]
fn what_a_peer_has_sent_is_received_although_it_is_gone() {
    let (_place, stream, mut ports, mut peer) = connected(1);
    let port = ports[0].as_mut();
    for n in 0..5 {
        peer.write_all(&record(&[n; 60])).unwrap();
    }
    drop(peer);
    // Whoever notices first: the one that looks at the link, or one that sends. It looks but once: the second time it
    // may be late, and then the driver is.
    assert!(!stream.link().up);
    assert!(send(port, &[0; 60]));
    assert_eq!(mock::receive(port, 2, 2000).len(), 2);
    assert_eq!(receive(port), [2, 3, 4].map(|n| vec![n; 60]));
    assert_eq!(receive(port).len(), 0);
    receive(port);
    assert!(!is_ready(port));
    let one_sent = Losses {
        sent: 1,
        ..Losses::default()
    };
    assert_eq!(port.losses(), one_sent);
}

#[test]
fn what_the_driver_has_no_room_for_when_the_peer_is_gone_is_missed_in_the_end() {
    let (place, stream, mut ports, mut peer) = connected(1);
    let port = ports[0].as_mut();
    for n in 0..5 {
        peer.write_all(&record(&[n; 60])).unwrap();
    }
    assert_eq!(mock::receive(port, 2, 2000).len(), 2);
    // These are not even read. The last one has no end, and is none.
    peer.write_all(&record(&[5; 60])).unwrap();
    peer.write_all(&record(&[6; 60])[..30]).unwrap();
    drop(peer);
    std::fs::remove_file(&place.path).unwrap();
    let _listener = UnixListener::bind(&place.path).unwrap();
    within(&stream, false);
    within(&stream, true);
    assert_eq!(receive(port).len(), 0);
    let missed = Losses {
        missed: 4,
        ..Losses::default()
    };
    assert_eq!(port.losses(), missed);
}

#[test]
fn a_frame_of_which_the_peer_has_only_a_part_is_lost_once() {
    let (_place, _stream, mut ports, peer) = connected(2);
    let frame = [7; MAX_FRAME];
    while ports[1].owes().is_none() {
        assert!(send(ports[1].as_mut(), &frame));
    }
    drop(peer);
    for port in &mut ports {
        receive(port.as_mut());
    }
    for port in &mut ports {
        receive(port.as_mut());
        assert!(!is_ready(port.as_ref()));
        assert_eq!(port.owes(), None);
    }
    let [first, second] = [0, 1].map(|n: usize| ports[n].losses().sent);
    assert_eq!((first, second), (0, 1));
}

#[test]
fn a_peer_that_connects_is_accepted_and_another_after_it() {
    let place = place();
    let listener = UnixListener::bind(&place.path).unwrap();
    let guard = std::sync::Arc::new(());
    let mut stream = Stream::accept(listener, &place.path, guard.clone()).unwrap();
    let mut ports = stream.open(1).unwrap();
    assert!(!stream.link().up);
    for n in 0..3 {
        let mut peer = UnixStream::connect(&place.path).unwrap();
        within(&stream, true);
        assert!(send(ports[0].as_mut(), &[n; 60]));
        assert_eq!(get(&mut peer), [n; 60]);
        drop(peer);
        receive(ports[0].as_mut());
        within(&stream, false);
    }
    assert_eq!(std::sync::Arc::strong_count(&guard), 2);
    drop(stream);
    assert_eq!(std::sync::Arc::strong_count(&guard), 1);
}

#[test]
fn a_peer_that_does_not_read_makes_frames_wait_and_then_loses_them() {
    let (_place, _stream, mut ports, mut peer) = connected(1);
    let port = ports[0].as_mut();
    let start = Instant::now();
    let mut frame = vec![0; 9000];
    let mut sent: u32 = 0;
    loop {
        frame[20..24].copy_from_slice(&sent.to_be_bytes());
        if !send(port, &frame) {
            break;
        }
        sent += 1;
        assert!(sent < 10_000);
    }
    assert!(!is_ready(port));
    assert!(port.deadline().is_some_and(|d| d >= start + STALL));
    std::thread::sleep(STALL);
    // The time is over: frames go, and the worker has nothing to wait for but the peer.
    assert!(send(port, &frame));
    assert_eq!((port.losses().sent, port.deadline()), (1, None));

    for n in 0..sent {
        let got = get(&mut peer);
        assert_eq!((got.len(), &got[20..24]), (9000, &n.to_be_bytes()[..]));
        assert_eq!(receive(port).len(), 0);
    }
    assert!(!is_ready(port));
    assert!(send(port, &[7; 60]));
    assert_eq!(get(&mut peer), [7; 60]);
    assert_eq!(port.losses().sent, 1);
}

#[test]
fn room_that_comes_in_the_middle_of_a_round_wakes_the_worker() {
    // Not the first queue: nothing but room wakes this one.
    let (_place, _stream, mut ports, mut peer) = connected(2);
    let port = ports[1].as_mut();
    let frame = [7; 9000];
    while send(port, &frame) {}
    peer.set_nonblocking(true).unwrap();
    while peer.read(&mut [0; 65536]).is_ok() {}
    // The rest of a frame that was sent in part may go out here, but the one that was refused cannot.
    assert_eq!(receive(port).len(), 0);
    assert!(is_ready(port));
    assert!(send(port, &frame));
    assert_eq!(receive(port).len(), 0);
    assert!(!is_ready(port));
}

/// The driver does not receive: nothing but a batch without frames sends the rest of the last one.
#[test]
fn the_rest_of_a_frame_is_owed() {
    let (_place, _stream, mut ports, mut peer) = connected(1);
    let port = ports[0].as_mut();
    let frame = [7; MAX_FRAME];
    assert_eq!(port.owes(), None);
    // The last one is begun and no other follows it.
    let mut sent = 0;
    while port.owes().is_none() {
        assert!(send(port, &frame));
        sent += 1;
    }
    assert!(!is_ready(port));
    let reader = std::thread::spawn(move || {
        (0..sent).for_each(|_| assert_eq!(get(&mut peer), frame));
    });
    let end = Instant::now() + Duration::from_secs(30);
    while port.owes().is_some() {
        assert!(Instant::now() < end, "it is not sent");
        assert_eq!(port.transmit(&[]), 0);
    }
    reader.join().unwrap();
    assert_eq!(port.losses().sent, 0);
}

#[test]
fn a_length_that_no_frame_has_ends_the_connection_only() {
    let (place, stream, mut ports, mut peer) = connected(1);
    let port = ports[0].as_mut();
    peer.write_all(&record(&[1; 60])).unwrap();
    peer.write_all(&[0xff; 1000]).unwrap();
    assert_eq!(receive(port), [[1; 60]]);
    assert_eq!(receive(port).len(), 0);
    assert!(!is_ready(port));
    within(&stream, false);
    receive(port);
    // The peer sees it.
    peer.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    match peer.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
    let _ = place;
}

#[test]
fn frames_that_are_none_do_not_keep_the_worker() {
    let (_place, _stream, mut ports, peer) = connected(1);
    let port = ports[0].as_mut();
    peer.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while (&peer).write_all(&[0; 4096]).is_ok() {
        sent += 4096 / 4;
    }
    while is_ready(port) || port.has_work() {
        assert_eq!(receive(port).len(), 0);
    }
    assert!(port.losses().received >= sent);
}

#[test]
fn a_reset_forgets_what_waits() {
    let (_place, _stream, mut ports, mut peer) = connected(1);
    let port = ports[0].as_mut();
    let stream = [1, 2, 3].map(|n| record(&[n; 60])).concat();
    peer.write_all(&stream[..150]).unwrap();
    assert_eq!(mock::receive(port, 1, 2000).len(), 1);
    port.reset();
    assert!(!port.has_frames());
    peer.write_all(&stream[150..]).unwrap();
    peer.write_all(&record(&[4; 60])).unwrap();
    assert_eq!(receive(port), [[4; 60]]);
}

#[test]
fn all_queues_send_and_the_first_receives() {
    const EACH: u32 = 2000;
    let (_place, _stream, mut ports, mut peer) = connected(3);
    assert!(ports.iter().all(|p| p.is_shared()));
    let reader = std::thread::spawn({
        let mut peer = peer.try_clone().unwrap();
        move || {
            let mut next = [0u32; 3];
            for _ in 0..3 * EACH {
                let frame = get(&mut peer);
                let port = usize::from(frame[14]);
                assert!(frame[18..].iter().all(|b| *b == frame[14]));
                assert_eq!(frame[15..18], next[port].to_be_bytes()[1..]);
                next[port] += 1;
            }
        }
    });
    std::thread::scope(|scope| {
        for (index, port) in (0u8..).zip(&mut ports) {
            scope.spawn(move || {
                for n in 0..EACH {
                    let mut frame = vec![index; 64 + n as usize % 3000];
                    frame[15..18].copy_from_slice(&n.to_be_bytes()[1..]);
                    while !send(port.as_mut(), &frame) {
                        let fd = port.readiness().unwrap();
                        poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], None).unwrap();
                    }
                }
                while port.deadline().is_some() {
                    assert_eq!(receive(port.as_mut()).len(), 0);
                }
            });
        }
    });
    reader.join().unwrap();
    peer.write_all(&record(&[5; 60])).unwrap();
    assert!(is_ready(ports[0].as_ref()));
    assert!(!is_ready(ports[1].as_ref()));
    assert_eq!(receive(ports[1].as_mut()).len(), 0);
    assert_eq!(receive(ports[0].as_mut()), [[5; 60]]);
}

#[test]
fn a_path_that_cannot_be_one_is_refused() {
    let long = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
    let error = Stream::connect(&long).err().unwrap().to_string();
    assert!(error.contains("cannot be the path of a socket"), "{error}");
    assert!(!error.contains('\n'));
}
