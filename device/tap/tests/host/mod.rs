// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A TAP, with the host on one side and a guest made by hand on the other.
#![allow(
    dead_code,
    reason = "each of the test programs takes what it needs of it"
)]

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use vnet_backend::{checksum, mock, Checksum, Endpoint, Meta, Queue};
use vnet_tap::{Config, Tap};

use crate::namespace::ip;

/// A namespace with nothing in it.
pub(crate) const EMPTY: &str = "-Urn";

pub(crate) const NO_IPV6: &str = "/proc/sys/net/ipv6/conf/tap0/disable_ipv6";

pub(crate) const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const GUEST: [u8; 4] = [192, 0, 2, 2];
pub(crate) const HOST: [u8; 4] = [192, 0, 2, 1];

pub(crate) fn open(name: &str, queues: u16) -> Tap {
    Tap::open(config(name, queues)).unwrap()
}

pub(crate) fn config(name: &str, queues: u16) -> Config {
    Config {
        name: name.into(),
        queues,
        netns: None,
        bridge: None,
    }
}

/// A TAP whose host side has an address and knows the guest's.
pub(crate) fn network(queues: u16) -> (Tap, Vec<Box<dyn Queue>>) {
    let mut tap = open("tap0", queues);
    host_side();
    let ports = tap.open(queues).unwrap();
    (tap, ports)
}

/// Gives the interface an address, and the guest as a neighbour.
pub(crate) fn host_side() {
    // Without IPv6 the host sends only what it is asked to send.
    if Path::new(NO_IPV6).exists() {
        fs::write(NO_IPV6, "1").unwrap();
    }
    ip("link set tap0 address 02:00:00:00:00:01 mtu 1500 up");
    ip("addr add 192.0.2.1/24 dev tap0");
    ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev tap0");
}

/// Receives `count` frames.
pub(crate) fn receive(queue: &mut dyn Queue, count: usize, size: usize) -> Vec<(Vec<u8>, Meta)> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut frames = Vec::new();
    while frames.len() < count {
        assert!(Instant::now() < end, "frames: {frames:?}");
        wait(queue);
        frames.extend(mock::receive(queue, count - frames.len(), size));
    }
    frames
}

pub(crate) fn wait(queue: &dyn Queue) {
    let fd = queue.readiness().unwrap();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    poll(&mut fds, Some(&timeout)).unwrap();
}

/// Sum of the pseudo header of a UDP datagram of `len` bytes between guest and host.
pub(crate) fn pseudo(len: usize) -> u16 {
    [checksum::sum(&GUEST), checksum::sum(&HOST), 17, len as u16]
        .into_iter()
        .fold(0, checksum::add)
}

/// A UDP datagram from the guest to `port` of the host. Its checksum is left to be completed.
pub(crate) fn datagram(port: u16, data: &[u8]) -> Vec<u8> {
    let len = 8 + data.len();
    let mut frame = Vec::new();
    frame.extend_from_slice(&HOST_MAC);
    frame.extend_from_slice(&GUEST_MAC);
    frame.extend_from_slice(&[8, 0]);
    let mut header = [
        0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1,
    ];
    header[2..4].copy_from_slice(&((20 + len) as u16).to_be_bytes());
    let sum = !checksum::sum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&header);
    for field in [1000, port, len as u16, pseudo(len)] {
        frame.extend_from_slice(&field.to_be_bytes());
    }
    frame.extend_from_slice(data);
    frame
}

pub(crate) const PARTIAL: Meta = Meta {
    checksum: Checksum::Partial {
        start: 34,
        offset: 6,
    },
    gso: None,
};

pub(crate) fn socket() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// Sends from so many ports of the host that no queue is left out, and returns how many frames
/// each queue gets.
pub(crate) fn spread(ports: &mut [Box<dyn Queue>]) -> Vec<usize> {
    const FLOWS: usize = 64;
    for _ in 0..FLOWS {
        let (socket, _) = socket();
        socket.send_to(b"hello", "192.0.2.2:7").unwrap();
    }
    ports
        .iter_mut()
        .map(|port| mock::receive(port.as_mut(), FLOWS, 2048).len())
        .collect()
}
