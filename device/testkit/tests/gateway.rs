// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A guest in user space on the gateway's LAN: smoltcp's stack over the driver, over the real
//! socket, with the card's queues in between.
#![allow(missing_docs)]

mod common;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::mpsc::{channel, Receiver};
use std::thread;
use std::time::{Duration, Instant as Clock};

use common::options;
use sha2::{Digest, Sha256};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, icmp, tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpCidr};
use vnet_contract::hdr::{NetHdr, F_DATA_VALID};
use vnet_contract::{features, queue, regs};
use vnet_gateway::{net, ports};
use vnet_testkit::{Nic, Options, Server, LIMIT};

/// Where tests without DHCP put the guest.
const GUEST: Ipv4Addr = net::IPV4_FIRST_GUEST;
const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);

/// The card as smoltcp's device.
struct Port {
    nic: Nic,
    mtu: u16,
}

struct Frame(Vec<u8>);
struct Room<'a>(&'a mut Nic);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.queue(0, NetHdr::default(), &frame).unwrap();
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Frame, Room<'_>)> {
        let got = self.nic.try_receive(0).unwrap()?;
        assert_eq!(got.header.flags & !F_DATA_VALID, 0);
        Some((Frame(got.frame), Room(&mut self.nic)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Room<'_>> {
        Some(Room(&mut self.nic))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(self.mtu) + 14;
        // Every checksum that the gateway and the card make is checked.
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

/// A guest: its card, its stack and its sockets.
struct Guest {
    port: Port,
    stack: Interface,
    sockets: SocketSet<'static>,
    start: Clock,
    // Dropped last.
    server: Server,
}

impl Guest {
    /// A guest without an address.
    fn new(mtu: u16) -> Self {
        Self::of(Server::start("gateway").unwrap(), mtu)
    }

    /// The same with a server that is there.
    fn of(server: Server, mtu: u16) -> Self {
        let wanted = Options {
            // Checksums are to be complete in both directions.
            features: features::MRG_RXBUF | features::QUEUE_STATS,
            mtu,
            max_frame: u32::from(mtu) + 14,
            rx_mode: regs::RX_MODE_BROADCAST | regs::RX_MODE_ALLMULTI,
            ..options()
        };
        let nic = server.nic_with(wanted).unwrap();
        let mut port = Port { nic, mtu };
        let config = Config::new(EthernetAddress(port.nic.mac).into());
        Self {
            stack: Interface::new(config, &mut port, Instant::ZERO),
            port,
            sockets: SocketSet::new(Vec::new()),
            start: Clock::now(),
            server,
        }
    }

    /// A guest with the usual addresses.
    fn with_addresses(mtu: u16) -> Self {
        let mut guest = Self::new(mtu);
        guest.address();
        guest
    }

    fn address(&mut self) {
        self.stack.update_ip_addrs(|list| {
            let v4 = IpCidr::new(IpAddr::V4(GUEST).into(), net::IPV4_PREFIX_LEN);
            list.push(v4).unwrap();
            let v6 = IpCidr::new(IpAddr::V6(GUEST_V6).into(), 64);
            list.push(v6).unwrap();
        });
    }

    fn now(&self) -> Instant {
        Instant::from_micros(self.start.elapsed().as_micros() as i64)
    }

    /// Lets the stack run until `done` gives something.
    fn run<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Clock::now() + LIMIT;
        loop {
            let now = self.now();
            self.stack.poll(now, &mut self.port, &mut self.sockets);
            self.port.nic.flush(0).unwrap();
            if let Some(result) = done(self) {
                let now = self.now();
                self.stack.poll(now, &mut self.port, &mut self.sockets);
                self.port.nic.flush(0).unwrap();
                return result;
            }
            assert!(Clock::now() < end, "nothing happens any more");
            let now = self.now();
            let pause = self.stack.poll_delay(now, &self.sockets);
            let pause = pause.map_or(Duration::from_millis(50), Duration::from);
            if !pause.is_zero() {
                let pause = pause.min(Duration::from_millis(50));
                self.port.nic.wait(0, pause).unwrap();
            }
        }
    }

    fn connect(&mut self, port: u16) -> SocketHandle {
        static LOCAL: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(49152);
        let buffer = || tcp::SocketBuffer::new(vec![0; 256 << 10]);
        let handle = self.sockets.add(tcp::Socket::new(buffer(), buffer()));
        let local = LOCAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket
            .connect(self.stack.context(), (net::IPV4, port), local)
            .unwrap();
        self.run(|g| {
            g.sockets
                .get_mut::<tcp::Socket<'_>>(handle)
                .may_send()
                .then_some(())
        });
        handle
    }

    /// Sends `data`, half-closes, and returns what comes until the other side closes.
    fn exchange(&mut self, port: u16, data: &[u8]) -> Vec<u8> {
        let handle = self.connect(port);
        let mut sent = 0;
        let mut got = Vec::new();
        self.run(|guest| {
            let socket = guest.sockets.get_mut::<tcp::Socket<'_>>(handle);
            if sent < data.len() {
                sent += socket.send_slice(&data[sent..]).unwrap();
                if sent == data.len() && port != ports::SOURCE {
                    socket.close();
                }
            }
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        got.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .unwrap();
            }
            (!socket.may_recv()).then_some(())
        });
        self.sockets.get_mut::<tcp::Socket<'_>>(handle).close();
        got
    }
}

/// The pseudo-random stream of the source service, as the gateway documents it.
fn stream(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn dhcp_gives_an_address() {
    let mut guest = Guest::new(1500);
    let handle = guest.sockets.add(dhcpv4::Socket::new());
    let (address, router) = guest.run(|guest| {
        let socket = guest.sockets.get_mut::<dhcpv4::Socket<'_>>(handle);
        match socket.poll() {
            Some(dhcpv4::Event::Configured(config)) => Some((config.address, config.router)),
            _ => None,
        }
    });
    assert_eq!(address.address(), GUEST);
    assert_eq!(address.prefix_len(), net::IPV4_PREFIX_LEN);
    assert_eq!(router, Some(net::IPV4));
    // The lease is good for traffic.
    guest.stack.update_ip_addrs(|list| {
        list.push(IpCidr::Ipv4(address)).unwrap();
    });
    assert_eq!(guest.exchange(ports::ECHO, b"hello"), b"hello");
}

fn ping(guest: &mut Guest, to: IpAddr, len: usize) {
    let buffer =
        || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 64 << 10]);
    let handle = guest.sockets.add(icmp::Socket::new(buffer(), buffer()));
    let data: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
    let checksums = guest.port.capabilities().checksum;
    let socket = guest.sockets.get_mut::<icmp::Socket<'_>>(handle);
    socket.bind(icmp::Endpoint::Ident(0x77)).unwrap();
    match to {
        IpAddr::V4(_) => {
            let request = Icmpv4Repr::EchoRequest {
                ident: 0x77,
                seq_no: 5,
                data: &data,
            };
            let room = socket.send(request.buffer_len(), to.into()).unwrap();
            request.emit(&mut Icmpv4Packet::new_unchecked(room), &checksums);
        }
        IpAddr::V6(to) => {
            let request = Icmpv6Repr::EchoRequest {
                ident: 0x77,
                seq_no: 5,
                data: &data,
            };
            let room = socket
                .send(request.buffer_len(), IpAddr::V6(to).into())
                .unwrap();
            let mut packet = Icmpv6Packet::new_unchecked(room);
            request.emit(&GUEST_V6, &to, &mut packet, &checksums);
        }
    }
    let answer = guest.run(|guest| {
        let socket = guest.sockets.get_mut::<icmp::Socket<'_>>(handle);
        let (bytes, from) = socket.recv().ok()?;
        Some((bytes.to_vec(), from))
    });
    assert_eq!(IpAddr::from(answer.1), to);
    // Type, code and checksum of four bytes, then identifier and number.
    assert_eq!(answer.0[4..8], [0, 0x77, 0, 5]);
    assert_eq!(answer.0[8..], data[..], "{len} bytes");
    guest.sockets.remove(handle);
}

#[test]
fn pings_of_every_size_are_answered() {
    let mut guest = Guest::with_addresses(1500);
    for len in [0, 1, 56, 64, 1000, 1472] {
        ping(&mut guest, IpAddr::V4(net::IPV4), len);
    }
    let mut guest = Guest::with_addresses(9000);
    for len in [56, 2000, 8972] {
        ping(&mut guest, IpAddr::V4(net::IPV4), len);
    }
}

#[test]
fn ipv6_pings_are_answered() {
    let mut guest = Guest::with_addresses(1500);
    for len in [0, 56, 1232, 1452] {
        ping(&mut guest, IpAddr::V6(net::IPV6_LINK_LOCAL), len);
    }
}

#[test]
fn datagrams_are_echoed() {
    let mut guest = Guest::with_addresses(1500);
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 64 << 10]);
    let handle = guest.sockets.add(udp::Socket::new(buffer(), buffer()));
    let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
    socket.bind(5555).unwrap();
    let payload = |n: usize| stream(n as u64, 1 + n * 29 % 1472);
    for n in 0..200 {
        let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
        let to = (IpAddr::V4(net::IPV4), ports::ECHO);
        socket.send_slice(&payload(n), to).unwrap();
        let back = guest.run(|guest| {
            let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
            let (bytes, from) = socket.recv().ok()?;
            assert_eq!(from.endpoint.port, ports::ECHO);
            Some(bytes.to_vec())
        });
        assert_eq!(back, payload(n));
    }
}

#[test]
fn bytes_come_in_and_go_out_unharmed() {
    for mtu in [1500, 9000] {
        let mut guest = Guest::with_addresses(mtu);
        const LEN: usize = 4 << 20;
        let data = stream(1, LEN);

        assert_eq!(
            guest.exchange(ports::ECHO, &data[..1 << 20]),
            data[..1 << 20]
        );

        let answer = guest.exchange(ports::SINK, &data);
        let expected = format!("{LEN} {}\n", digest(&data));
        assert_eq!(String::from_utf8_lossy(&answer), expected);

        let request = format!("{LEN} 42\n");
        let got = guest.exchange(ports::SOURCE, request.as_bytes());
        assert_eq!(got.len(), LEN);
        assert!(got == stream(42, LEN), "other bytes than asked for");

        // TCP hides lost frames; the counters do not.
        let nic = &mut guest.port.nic;
        for q in [queue::rx_index(0), queue::tx_index(0)] {
            assert_eq!(nic.card.queue_error(q).unwrap(), None);
        }
        assert!(common::counter(nic, queue::rx_index(0), regs::S_BYTES) > LEN as u64);
    }
}

#[test]
fn the_page_about_the_card_is_served() {
    let mut guest = Guest::with_addresses(1500);
    let page = guest.exchange(ports::HTTP, b"GET / HTTP/1.0\r\n\r\n");
    let page = String::from_utf8(page).unwrap();
    assert!(page.starts_with("HTTP/1."), "{page}");
    assert!(page.contains(" 200 "), "{page}");
    assert!(page.contains("vnet"), "{page}");
}

/// Takes connections, and says on each what it was told when that ends. What is returned says when one is over.
fn parrot(listener: TcpListener) -> Receiver<io::Result<usize>> {
    let (sender, ends) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (sender, mut stream) = (sender.clone(), stream.unwrap());
            thread::spawn(move || {
                let mut all = Vec::new();
                let read = stream.read_to_end(&mut all);
                let _ = sender.send(read.and_then(|n| stream.write_all(&all).map(|()| n)));
            });
        }
    });
    ends
}

/// In the sandbox, in which only one thread can connect.
#[test]
fn ports_lead_to_the_host_also_when_another_process_has_taken_over() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let net = format!("gateway:forward=8000={}", listener.local_addr().unwrap());
    let ends = parrot(listener);
    let server = Server::start_with(&net, &["--survive"]).unwrap();
    let mut guest = Guest::of(server, 1500);
    guest.address();
    let data = stream(3, 1 << 20);
    assert!(guest.exchange(8000, &data) == data);
    assert_eq!(ends.recv().unwrap().unwrap(), data.len());

    let handle = guest.connect(8000);
    guest.server.kill_worker().unwrap();
    // The host hears of that now, and the guest when it goes on.
    let _ = ends.recv_timeout(LIMIT).unwrap();
    let socket = guest.sockets.get_mut::<tcp::Socket<'_>>(handle);
    socket.send_slice(b"still there?").unwrap();
    guest.run(|guest| {
        let socket = guest.sockets.get_mut::<tcp::Socket<'_>>(handle);
        (!socket.is_open()).then_some(())
    });
    assert!(guest.exchange(8000, &data) == data);
}

/// With all that there can be between the card and the gateway.
#[test]
fn connections_go_on_over_a_reset_of_the_card_and_end_with_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name| dir.path().join(name).display().to_string();
    std::fs::write(file("faults"), "").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let net = format!("gateway:forward=8000={}", listener.local_addr().unwrap());
    let ends = parrot(listener);
    let record = format!("file={}", file("record.pcapng"));
    let between = [
        "--shape",
        "delay=100us",
        "--record",
        &record,
        "--faults",
        &file("faults"),
    ];
    let mut guest = Guest::of(Server::start_with(&net, &between).unwrap(), 1500);
    guest.address();
    let handle = guest.connect(8000);
    let say = |guest: &mut Guest, words: &str| {
        let socket = guest.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.send_slice(words.as_bytes()).unwrap();
        guest.run(|guest| {
            let socket = guest.sockets.get_mut::<tcp::Socket<'_>>(handle);
            (socket.send_queue() == 0).then_some(())
        });
    };
    say(&mut guest, "before");
    guest.port.nic.restart().unwrap();
    say(&mut guest, " and after");
    assert_eq!(guest.exchange(8000, b"others"), b"others");
    assert_eq!(ends.recv_timeout(LIMIT).unwrap().unwrap(), 6);

    let Guest { port, server, .. } = guest;
    drop(port);
    let end = ends.recv_timeout(LIMIT).unwrap();
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    drop(server);
}
