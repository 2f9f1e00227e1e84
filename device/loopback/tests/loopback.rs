// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Loopback and null as the card sees them.

use vnet_backend::mock::{receive, transmit};
use vnet_backend::{Checksum, Endpoint, Gso, GsoKind, Meta, Offloads};
use vnet_loopback::{Loopback, Null};

const BUFFER: usize = 2048;

fn frame(n: usize) -> Vec<u8> {
    (0..60 + n).map(|i| (i * 7 + n) as u8).collect()
}

const PARTIAL: Meta = Meta {
    checksum: Checksum::Partial {
        start: 34,
        offset: 6,
    },
    gso: None,
};

#[test]
fn frames_come_back_on_their_queue_in_order_and_wait_for_room() {
    let mut queues = Loopback::new().open(2).unwrap();
    for n in 0..5 {
        assert!(transmit(&mut *queues[0], &frame(n), Meta::default()));
    }
    assert!(queues[0].has_frames());
    assert!(!queues[1].has_frames());

    let mut received = receive(&mut *queues[0], 2, BUFFER);
    assert_eq!(received.len(), 2);
    assert!(queues[0].has_frames());
    received.extend(receive(&mut *queues[0], 9, BUFFER));
    assert!(!queues[0].has_frames());
    let expected: Vec<_> = (0..5).map(|n| (frame(n), Meta::default())).collect();
    assert_eq!(received, expected);
    assert_eq!(queues[0].losses().missed, 0);
}

#[test]
fn metadata_passes_through_and_is_taken_as_far_as_the_driver_accepts_it() {
    let mut endpoint = Loopback::new();
    let mut queue = endpoint.open(1).unwrap().remove(0);
    assert_eq!(queue.offloads(), Offloads::default());
    for offloads in [
        Offloads {
            checksum: true,
            ..Offloads::default()
        },
        Offloads::ALL,
    ] {
        endpoint.set_offloads(offloads);
        assert_eq!(queue.offloads(), offloads);
        let gso = Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: 10,
            hdr_len: 54,
        };
        let meta = Meta {
            gso: offloads.tso4.then_some(gso),
            ..PARTIAL
        };
        assert!(transmit(&mut *queue, &frame(3), meta));
        assert_eq!(receive(&mut *queue, 9, BUFFER), [(frame(3), meta)]);
    }
    assert_eq!(queue.losses().missed, 0);
}

#[test]
fn a_guest_that_does_not_receive_loses_the_newest_frames_and_a_reset_forgets_the_rest() {
    let mut queue = Loopback::new().open(1).unwrap().remove(0);
    for n in 0..3000 {
        assert!(transmit(&mut *queue, &frame(n % 1000), Meta::default()));
    }
    let lost = queue.losses().missed;
    assert!((1..3000).contains(&lost));
    assert_eq!(receive(&mut *queue, 1, BUFFER)[0].0, frame(0));

    queue.reset();
    assert!(!queue.has_frames());
    assert!(receive(&mut *queue, 1, BUFFER).is_empty());
    assert_eq!(queue.losses().missed, lost);
}

#[test]
fn null_takes_everything_and_gives_nothing() {
    let mut queue = Null::new().open(1).unwrap().remove(0);
    for n in 0..2000 {
        assert!(transmit(&mut *queue, &frame(n), PARTIAL));
    }
    assert!(!queue.has_frames());
    assert!(receive(&mut *queue, 1, BUFFER).is_empty());
    assert_eq!(queue.losses().missed, 0);
}

#[test]
fn null_gives_frames_when_it_is_asked_to() {
    let mut null = Null {
        copy: true,
        source: Some(60),
    };
    let mut queue = null.open(1).unwrap().remove(0);
    assert!(transmit(&mut *queue, &frame(7), PARTIAL));
    assert!(queue.has_frames());
    let frames = receive(&mut *queue, 5, BUFFER);
    assert_eq!(frames.len(), 5);
    for (frame, meta) in frames {
        assert_eq!((frame.len(), meta), (60, Meta::default()));
        assert_eq!(frame[..6], [0xff; 6]);
    }
}
