// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a doorbell costs when it is served where it arrives, and when it wakes the worker; without
//! and with polling.
//!
//! A guest thread sends frames of 60 bytes. A doorbell goes to the message thread through a unix
//! socket, as from a real client. "latency": one frame at a time, from the avail index to the used
//! index, with the guest spinning. "stream": as fast as the ring allows.
//!
//! `cargo run --release -p vnet-worker --example doorbell`

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_backend::{Frame, Queue, RxRing};
use vnet_contract::hdr::NetHdr;
use vnet_contract::queue::Kind;
use vnet_queue::mock::{packet, Driver, Memory};
use vnet_worker::{Fault, Options, Pair, Report};

const SIZE: u16 = 256;
const RING: u64 = 0x1_0000;
const BUFFERS: u64 = 0x10_0000;

/// Takes frames, each for the time that a system call would take.
struct Sink(Duration);

impl Queue for Sink {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        for _ in batch {
            let end = Instant::now() + self.0;
            while Instant::now() < end {
                std::hint::spin_loop();
            }
        }
        batch.len()
    }

    fn receive(&mut self, _: &mut dyn RxRing) {}
}

struct Loud;

impl Report for Loud {
    fn queue_failed(&self, queue: u16, fault: Fault) {
        panic!("queue {queue}: {fault}");
    }

    fn pair_failed(&self, pair: u16) {
        panic!("pair {pair} failed");
    }
}

struct Guest {
    driver: Driver,
    doorbell: UnixStream,
}

impl Guest {
    fn send(&mut self, head: u16) {
        if self.driver.offer(head) {
            self.doorbell.write_all(&[0; 36]).expect("message thread");
        }
    }

    fn reap(&mut self) -> u16 {
        std::iter::from_fn(|| self.driver.take_used()).count() as u16
    }
}

fn measure(options: Options, work: Duration) -> std::io::Result<()> {
    let mem = Memory::new(&[(RING, 0x1_0000), (BUFFERS, 0x1000)]);
    let driver = Driver::new(&mem, RING, SIZE, 0);
    mem.write(BUFFERS, &packet(NetHdr::default(), &[0; 60]));
    for head in 0..SIZE {
        driver.chain(head, &[(BUFFERS, 72)], false);
    }
    let report: Arc<dyn Report> = Arc::new(Loud);
    let backend = Box::new(Sink(work));
    let pair = Pair::spawn(0, backend, mem.space.clone(), report, options)?;
    pair.start(Kind::Tx, driver.config, None)
        .map_err(std::io::Error::other)?;
    let (doorbell, mut messages) = UnixStream::pair()?;
    std::thread::scope(|s| {
        let pair = &pair;
        s.spawn(move || {
            let mut message = [0; 36];
            while messages.read_exact(&mut message).is_ok() {
                pair.doorbell(Kind::Tx);
            }
        });
        let mut guest = Guest { driver, doorbell };
        let mut head = 0;
        let mut next = || {
            head = (head + 1) % SIZE;
            head
        };

        let mut latencies: Vec<Duration> = (0..5000)
            .map(|_| {
                // Long enough for everybody to go to sleep.
                std::thread::sleep(Duration::from_micros(100));
                let start = Instant::now();
                guest.send(next());
                while guest.reap() == 0 {
                    std::hint::spin_loop();
                }
                start.elapsed()
            })
            .collect();
        latencies.sort_unstable();
        let p = |n: usize| latencies[latencies.len() * n / 100].as_nanos() as f64 / 1e3;

        let before = pair.counters(Kind::Tx);
        let (start, mut free) = (Instant::now(), SIZE);
        while start.elapsed() < Duration::from_secs(2) {
            while free > 0 {
                guest.send(next());
                free -= 1;
            }
            free += guest.reap();
            if free == 0 {
                std::thread::yield_now();
            }
        }
        let after = pair.counters(Kind::Tx);
        let frames = (after.frames - before.frames) as f64;
        println!(
            "{:>7} | {:>4} us | {:>6} ns | {:>7.1} | {:>7.1} | {:>8.2} | {:>8.4}",
            if options.inline_doorbells {
                "inline"
            } else {
                "worker"
            },
            options.poll.as_micros(),
            work.as_nanos(),
            p(50),
            p(99),
            frames / start.elapsed().as_secs_f64() / 1e6,
            (after.doorbells - before.doorbells) as f64 / frames,
        );
        // Ends the message thread.
        drop(guest);
    });
    Ok(())
}

fn main() -> std::io::Result<()> {
    println!("served  | polling | backend   | latency | latency | stream   | doorbells");
    println!("        |         | per frame | p50, us | p99, us | Mframe/s | per frame");
    for work in [Duration::ZERO, Duration::from_nanos(1400)] {
        for (inline_doorbells, poll) in [(true, 0), (false, 0), (true, 50), (false, 50)] {
            let options = Options {
                inline_doorbells,
                poll: Duration::from_micros(poll),
                ..Options::default()
            };
            measure(options, work)?;
        }
    }
    Ok(())
}
