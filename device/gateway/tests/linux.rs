// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The gateway with Linux as the guest: its queue and that of a TAP are joined, in a network
//! namespace of the test's own.

#[path = "../../tap/tests/namespace/mod.rs"]
mod namespace;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use namespace::{ip, run, say};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    ipproto, recv, sendto, socket_with, AddressFamily, RecvFlags, SendFlags, SocketFlags,
    SocketType,
};
use sha2::{Digest, Sha256};
use vnet_backend::{mock, Endpoint, Offloads, Queue};
use vnet_gateway::{net, ports, Config, Gateway};

/// What the end-to-end test moves, in each direction.
const BULK: usize = 200_000_000;

/// Moves frames between the two queues until it is told to stop.
struct Pump {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Pump {
    /// Joins a gateway and a TAP with these offloads.
    fn start(mtu: u16, offloads: Offloads) -> Self {
        Self::lossy(mtu, offloads, 0)
    }

    /// The same by a line that loses one frame in so many, by chance, in each direction.
    fn lossy(mtu: u16, offloads: Offloads, loses: u32) -> Self {
        let mut tap = vnet_tap::Tap::open(vnet_tap::Config {
            name: "tap0".into(),
            queues: 1,
            netns: None,
            bridge: None,
        })
        .unwrap();
        ip(&format!("link set tap0 mtu {mtu} up"));
        ip("addr add 10.77.0.2/24 dev tap0");
        let mut host = tap.open(1).unwrap().remove(0);
        tap.set_offloads(offloads);
        let mut gateway = Gateway::new(Config::default());
        let mut port = gateway.open(1).unwrap().remove(0);
        gateway.set_offloads(gateway.capabilities().receive);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let _tap = tap;
            let mut chance = Chance(1);
            while !stopped.load(Ordering::Relaxed) {
                let mut moved = 0;
                moved += carry(&mut *host, &mut *port, || chance.one_in(loses));
                moved += carry(&mut *port, &mut *host, || chance.one_in(loses));
                if moved == 0 {
                    sleep(&*host, port.deadline());
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// Chance that is the same in each run.
struct Chance(u32);

impl Chance {
    /// True for one in `n`; for none, if that is zero.
    fn one_in(&mut self, n: u32) -> bool {
        self.0 = self.0.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        n != 0 && (self.0 >> 8).is_multiple_of(n)
    }
}

fn carry(from: &mut dyn Queue, to: &mut dyn Queue, mut lost: impl FnMut() -> bool) -> usize {
    let frames = mock::receive(from, 64, 70_000);
    for (frame, meta) in &frames {
        assert!(lost() || mock::transmit(to, frame, *meta));
    }
    frames.len()
}

fn sleep(queue: &dyn Queue, deadline: Option<Instant>) {
    let longest = Duration::from_millis(50);
    let left = deadline.map_or(longest, |at| at.saturating_duration_since(Instant::now()));
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: left.min(longest).as_nanos() as i64,
    };
    let fd = queue.readiness().unwrap();
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap();
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((net::IPV4, port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn line(mut stream: TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

/// Bulk in both directions, digests compared.
fn bulk() {
    let start = Instant::now();
    let block: Vec<u8> = (0..1_000_000u32).map(|n| (n ^ (n >> 9)) as u8).collect();
    let mut sink = connect(ports::SINK);
    let mut digest = Sha256::new();
    for _ in 0..BULK / block.len() {
        sink.write_all(&block).unwrap();
        digest.update(&block);
    }
    sink.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    sink.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("{BULK} {}\n", hex(&digest.finalize())));

    let mut source = connect(ports::SOURCE);
    source.write_all(format!("{BULK} 7\n").as_bytes()).unwrap();
    let mut digest = Sha256::new();
    let mut count = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = source.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        digest.update(&buffer[..n]);
        count += n;
    }
    assert_eq!(count, BULK);
    let sum = line(connect(ports::SOURCE), &format!("{BULK} 7 sum\n"));
    assert_eq!(sum, format!("{BULK} {}\n", hex(&digest.finalize())));
    assert!(start.elapsed() < Duration::from_secs(120));
}

const CHECKSUM: Offloads = Offloads {
    checksum: true,
    tso4: false,
    tso6: false,
    ecn: false,
    uso: false,
};

#[test]
fn bulk_tcp_with_checksums_complete() {
    run("bulk_tcp_with_checksums_complete", "-Urn", || {
        let _pump = Pump::start(1500, Offloads::default());
        bulk();
    });
}

#[test]
fn bulk_tcp_with_checksum_offload_and_jumbo_frames() {
    run(
        "bulk_tcp_with_checksum_offload_and_jumbo_frames",
        "-Urn",
        || {
            let _pump = Pump::start(9000, CHECKSUM);
            bulk();
        },
    );
}

#[test]
fn bulk_tcp_with_segmentation_offload() {
    run("bulk_tcp_with_segmentation_offload", "-Urn", || {
        let _pump = Pump::start(
            1500,
            Offloads {
                tso4: true,
                tso6: true,
                ecn: true,
                ..CHECKSUM
            },
        );
        bulk();
    });
}

/// Connections of several clients at a time, some of which end in the middle: each of the others gets its
/// answer, whatever is lost on the way.
#[test]
fn each_upload_is_answered_though_frames_are_lost() {
    const CLIENTS: usize = 4;
    let uploads = match std::env::var_os("VNET_LONG") {
        Some(_) => 200,
        None => 8,
    };
    run(
        "each_upload_is_answered_though_frames_are_lost",
        "-Urn",
        || {
            let tso = Offloads {
                tso4: true,
                ..CHECKSUM
            };
            let _pump = Pump::lossy(1500, tso, 20);
            let data: Vec<u8> = (0..300_000u32).map(|n| (n ^ (n >> 9)) as u8).collect();
            let answer = format!("{} {}\n", data.len(), hex(&Sha256::digest(&data)));
            thread::scope(|s| {
                for _ in 0..CLIENTS {
                    s.spawn(|| {
                        for _ in 0..uploads {
                            let mut given_up = connect(ports::SINK);
                            given_up.write_all(&data[..100_000]).unwrap();
                            drop(given_up);
                            let mut sink = connect(ports::SINK);
                            sink.write_all(&data).unwrap();
                            sink.shutdown(Shutdown::Write).unwrap();
                            let mut got = String::new();
                            sink.read_to_string(&mut got).unwrap();
                            assert_eq!(got, answer);
                        }
                    });
                }
            });
        },
    );
}

#[test]
fn ping_and_udp_of_any_length() {
    run("ping_and_udp_of_any_length", "-Urn", || {
        let _pump = Pump::start(1500, CHECKSUM);
        let socket = UdpSocket::bind("10.77.0.2:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut buffer = vec![0; 65_536];
        for len in [0, 1, 1472, 1473, 9000, 60_000] {
            let data: Vec<u8> = (0..len as u32).map(|n| (n * 3) as u8).collect();
            socket.send_to(&data, (net::IPV4, ports::ECHO)).unwrap();
            assert_eq!(socket.recv(&mut buffer).unwrap(), len);
            assert!(buffer[..len] == data[..]);
        }

        // Sockets for echo requests are open to this group.
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
        let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
        let ping = socket_with(family, kind, SocketFlags::CLOEXEC, Some(ipproto::ICMP)).unwrap();
        let timeout = Some(Duration::from_secs(10));
        sockopt::set_socket_timeout(&ping, Timeout::Recv, timeout).unwrap();
        for (sequence, len) in [0, 56, 1472, 1473, 9000, 65_499].into_iter().enumerate() {
            let mut request = vec![8, 0, 0, 0, 0, 0, 0, sequence as u8];
            request.extend((0..len as u32).map(|n| (n * 5) as u8));
            let to = SocketAddrV4::new(net::IPV4, 0);
            sendto(&ping, &request, SendFlags::empty(), &to).unwrap();
            let (n, _) = recv(&ping, &mut buffer[..], RecvFlags::empty()).unwrap();
            assert_eq!(n, request.len());
            assert_eq!(buffer[0], 0, "not an echo reply");
            assert!(buffer[6..n] == request[6..]);
        }
    });
}

#[test]
fn ipv6_gives_itself_an_address_and_carries_tcp() {
    run(
        "ipv6_gives_itself_an_address_and_carries_tcp",
        "-Urn",
        || {
            if !fs::exists("/proc/sys/net/ipv6").unwrap() {
                say("SKIPPED ipv6_gives_itself_an_address_and_carries_tcp: no IPv6 here");
                return;
            }
            let _pump = Pump::start(1500, CHECKSUM);
            let prefix = "fd76:6e65:7400:0:";
            let end = Instant::now() + Duration::from_secs(30);
            loop {
                let output = Command::new("ip")
                    .args(["-6", "-o", "addr", "show", "dev", "tap0", "-tentative"])
                    .output()
                    .unwrap();
                if String::from_utf8_lossy(&output.stdout).contains(prefix) {
                    break;
                }
                assert!(Instant::now() < end, "no address: {output:?}");
                thread::sleep(Duration::from_millis(100));
            }
            let mut echo = TcpStream::connect((net::IPV6, ports::ECHO)).unwrap();
            echo.write_all(b"over the other protocol").unwrap();
            echo.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            echo.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "over the other protocol");
        },
    );
}

#[test]
fn a_hundred_clients_at_a_time() {
    run("a_hundred_clients_at_a_time", "-Urn", || {
        let _pump = Pump::start(1500, CHECKSUM);
        let clients: Vec<_> = (0..100u32)
            .map(|n| {
                thread::spawn(move || {
                    let data: Vec<u8> = (0..50_000).map(|i| (i * n) as u8).collect();
                    let mut stream = connect(ports::ECHO);
                    let mut back = stream.try_clone().unwrap();
                    let expected = data.clone();
                    let reader = thread::spawn(move || {
                        let mut answer = Vec::new();
                        back.read_to_end(&mut answer).unwrap();
                        assert!(answer == expected);
                    });
                    stream.write_all(&data).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                    reader.join().unwrap();
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        // Closed ports refuse at once.
        let error = TcpStream::connect((net::IPV4, 81)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        // And the page is there.
        let mut page = String::new();
        let mut http = connect(ports::HTTP);
        http.write_all(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
            .unwrap();
        http.read_to_string(&mut page).unwrap();
        assert!(page.starts_with("HTTP/1.1 200 OK"));
    });
}
