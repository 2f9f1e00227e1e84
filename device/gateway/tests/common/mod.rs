// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A guest of the gateway: a second stack, on the other side of the seam.

// Each test file is a crate of its own and uses its part.
#![allow(dead_code, unreachable_pub)]

pub mod frames;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;
use std::time::{Duration, Instant as StdInstant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use vnet_backend::{mock, Checksum, Endpoint, Gso, Meta, Queue};
use vnet_gateway::{net, Gateway};

pub const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 1, 2, 3]);
pub const IPV4: Ipv4Addr = net::IPV4_FIRST_GUEST;
pub const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);

/// Longest buffer that the guest posts.
pub const BUFFER: usize = 70_000;

pub fn open(queues: u16) -> Vec<Box<dyn Queue>> {
    Gateway::new(Default::default()).open(queues).unwrap()
}

/// A time that does not pass.
pub fn still() -> StdInstant {
    static NOW: LazyLock<StdInstant> = LazyLock::new(StdInstant::now);
    *NOW
}

/// Sends a frame and returns the answers.
pub fn ask(queue: &mut dyn Queue, frame: &[u8]) -> Vec<Vec<u8>> {
    assert!(mock::transmit(queue, frame, Meta::default()));
    receive(queue)
}

pub fn receive(queue: &mut dyn Queue) -> Vec<Vec<u8>> {
    mock::receive(queue, 1000, BUFFER)
        .into_iter()
        .map(|(frame, _)| frame)
        .collect()
}

/// The guest's end of the wire.
pub struct Wire {
    pub queue: Box<dyn Queue>,
    pub mtu: usize,
    pub waiting: VecDeque<Vec<u8>>,
    pub longest_received: usize,
    /// What transmitted frames are said to stand for.
    pub gso: Option<Gso>,
}

impl Wire {
    fn transmit_meta(&self) -> Meta {
        Meta {
            checksum: Checksum::Unverified,
            gso: self.gso,
        }
    }
}

pub struct Rx(Vec<u8>);
pub struct Tx<'a>(&'a mut dyn Queue, Meta);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        assert!(mock::transmit(self.0, &frame, self.1));
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        if self.waiting.is_empty() {
            for (frame, _) in mock::receive(&mut *self.queue, 256, 16 * 1024) {
                self.longest_received = self.longest_received.max(frame.len());
                self.waiting.push_back(frame);
            }
        }
        let frame = self.waiting.pop_front()?;
        let meta = self.transmit_meta();
        Some((Rx(frame), Tx(&mut *self.queue, meta)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        let meta = self.transmit_meta();
        Some(Tx(&mut *self.queue, meta))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

/// The guest.
pub struct Guest {
    pub wire: Wire,
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    start: StdInstant,
    next_port: u16,
}

impl Guest {
    pub fn new(mtu: usize) -> Self {
        Self::on(open(1).remove(0), mtu)
    }

    pub fn on(queue: Box<dyn Queue>, mtu: usize) -> Self {
        Self::station(queue, mtu, MAC, IPV4)
    }

    /// One of several guests.
    pub fn station(
        queue: Box<dyn Queue>,
        mtu: usize,
        mac: EthernetAddress,
        address: Ipv4Addr,
    ) -> Self {
        let mut wire = Wire {
            queue,
            mtu,
            waiting: VecDeque::new(),
            longest_received: 0,
            gso: None,
        };
        let mut interface = Interface::new(Config::new(mac.into()), &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::from(address), 24))
                .unwrap();
            addresses
                .push(IpCidr::new(IpAddress::from(LINK_LOCAL), 64))
                .unwrap();
        });
        Self {
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            start: StdInstant::now(),
            next_port: 40_000,
        }
    }

    /// Sends what there is to send, and receives nothing.
    pub fn send(&mut self) {
        let now = self.now();
        self.interface
            .poll_egress(now, &mut self.wire, &mut self.sockets);
    }

    fn now(&self) -> Instant {
        Instant::from_micros(self.start.elapsed().as_micros() as i64)
    }

    pub fn poll(&mut self) {
        let now = self.now();
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
    }

    /// Polls until `done` says so; fails after a time that no step takes.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = StdInstant::now();
        loop {
            self.poll();
            if done(self) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{what}");
            // What a worker does: sleep until the deadline, if there is nothing else.
            if self.wire.waiting.is_empty() && !self.wire.queue.has_frames() {
                let now = StdInstant::now();
                let deadline = self.wire.queue.deadline().unwrap_or(now);
                let pause = deadline.saturating_duration_since(now);
                std::thread::sleep(pause.min(Duration::from_micros(200)));
            }
        }
    }

    pub fn connect(&mut self, address: impl Into<IpAddress>, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 1 << 20]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // Acknowledge at once, also the last segment: the socket may be gone before the delay is.
        socket.set_ack_delay(None);
        self.next_port += 1;
        socket
            .connect(
                self.interface.context(),
                (address.into(), port),
                self.next_port,
            )
            .unwrap();
        self.sockets.add(socket)
    }

    pub fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends `data` and closes; returns what comes back until the gateway closes.
    pub fn exchange(&mut self, address: impl Into<IpAddress>, port: u16, data: &[u8]) -> Vec<u8> {
        let handle = self.connect(address, port);
        let mut sent = 0;
        let mut received = Vec::new();
        let mut closed = false;
        self.until("exchange", |guest| {
            let socket = guest.socket(handle);
            if sent < data.len() && socket.can_send() {
                sent += socket.send_slice(&data[sent..]).unwrap();
            }
            if sent == data.len() && !closed && socket.may_send() {
                socket.close();
                closed = true;
            }
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        received.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .unwrap();
            }
            assert!(socket.is_open() || closed, "refused");
            closed && !socket.may_recv()
        });
        // The last acknowledgement.
        self.poll();
        self.sockets.remove(handle);
        received
    }
}
