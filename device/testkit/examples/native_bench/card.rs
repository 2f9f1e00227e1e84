// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The card, with a driver that does as little as one can: its chains stand in the rings from the
//! start, one descriptor each, and it moves the avail index as the used index comes back. So what
//! is measured is the server. Rates are those of the card's own counters.

use std::error::Error;
use std::net::UdpSocket;
use std::sync::atomic::{fence, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vnet_contract::ring::{avail_event_offset, need_event, DESC_F_WRITE};
use vnet_contract::{features, hdr, queue, regs};
use vnet_ring::Memory;
use vnet_testkit::{Card, DmaRing, GuestRam, RawQueue, Result, Server};

use crate::{cpu, Direction, Options};

/// Descriptors of a ring.
pub(crate) const RING: u16 = 256;

const RAM_BASE: u64 = 0x1_0000_0000;
/// Time before a sample starts.
const WARM_UP: Duration = Duration::from_millis(300);
/// Ethernet, IPv4 and UDP headers.
const UDP_HEADERS: u32 = 14 + 20 + 8;

/// Measures one row: frames per second of each sample.
pub(crate) fn samples(
    options: &Options,
    net: &str,
    direction: Direction,
    size: u32,
    queues: u16,
    feed: Option<&str>,
) -> std::result::Result<Vec<f64>, Box<dyn Error>> {
    let queues_arg = queues.to_string();
    let args = ["--queues", &queues_arg, "--mtu-max", "65535", "--mac", MAC];
    if queues == 1 {
        // The server inherits it.
        cpu::bind(cpu::SERVER);
    }
    let mut server = Server::start_with(net, &args)?;
    if queues == 1 {
        cpu::bind(cpu::DRIVER);
    }
    let feed = feed.map(Feed::new).transpose()?;
    let mut card = Card::connect(server.socket())?;
    let samples = (0..options.repeat)
        .map(|_| {
            sample(
                &mut card,
                direction,
                size,
                queues,
                options.time,
                feed.as_ref(),
            )
        })
        .collect::<Result<_>>();
    cpu::unbind();
    server.end()?;
    Ok(samples?)
}

/// The address that the host's neighbour table knows.
const MAC: &str = "52:54:00:76:6e:00";

/// A source of frames on the host's side of a TAP.
struct Feed(UdpSocket);

impl Feed {
    fn new(address: &str) -> Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(address)?;
        // Its frames wait in the TAP, and who is to make room there is this very thread.
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// A burst of datagrams. One that the TAP has no room for is lost, as on any network.
    fn send(&self, payload: &[u8]) {
        for _ in 0..16 {
            let _ = self.0.send(payload);
        }
    }
}

/// A queue whose chains never change: entry n of the avail ring is descriptor n.
struct Lane {
    ring: DmaRing,
    index: u16,
    avail: u16,
}

impl Lane {
    fn new(card: &mut Card, ram: &Arc<GuestRam>, index: u16, size: u32) -> Result<Self> {
        let mut raw = RawQueue::new(ram, RING);
        let write = queue::kind(index) == queue::Kind::Rx;
        let bytes = hdr::SIZE as u32 + size;
        for n in 0..RING {
            let buffer = ram.alloc(bytes.into(), 64);
            if !write {
                ram.write(buffer, &frame(bytes as usize));
            }
            raw.desc(n, buffer, bytes, if write { DESC_F_WRITE } else { 0 }, 0);
            raw.ring.write_avail(n, n);
        }
        let addresses = raw.ring.addresses();
        card.enable(index, RING.into(), addresses, queue::NO_VECTOR)?;
        if let Some(error) = card.queue_error(index)? {
            let text = format!("queue {index}: {}", error.name());
            return Err(vnet_testkit::Error::Card(text));
        }
        Ok(Self {
            ring: raw.ring,
            index,
            avail: 0,
        })
    }

    /// Gives the card all that it has given back.
    fn turn(&mut self, card: &mut Card, ram: &GuestRam) -> Result<()> {
        let avail = self.ring.used_index().wrapping_add(RING);
        let before = self.avail;
        if avail == before {
            return Ok(());
        }
        self.ring.publish_avail_index(avail);
        self.avail = avail;
        fence(Ordering::SeqCst);
        let at = self.ring.addresses()[2] + avail_event_offset(RING) as u64;
        let event = u16::from_le(ram.load(at, Ordering::Relaxed));
        if need_event(event, avail, before) {
            card.doorbell(self.index, avail)?;
        }
        Ok(())
    }
}

/// A per-packet header, and a broadcast frame of the EtherType for local experiments.
fn frame(bytes: usize) -> Vec<u8> {
    let mut frame = vec![0u8; bytes];
    frame[hdr::SIZE..hdr::SIZE + 6].fill(0xff);
    frame[hdr::SIZE + 12..hdr::SIZE + 14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// Sets the card up anew, lets it run, and returns frames per second.
fn sample(
    card: &mut Card,
    direction: Direction,
    size: u32,
    queues: u16,
    time: Duration,
    feed: Option<&Feed>,
) -> Result<f64> {
    card.reset()?;
    let offered = card.reg64(regs::DEVICE_FEATURES_LO)?;
    card.negotiate(offered & (features::QUEUE_STATS | features::MRG_RXBUF))?;
    // The card asks for room for the longest frame that the TAP may have: short buffers, of which
    // that would be more than there are in the ring, are not what a driver posts.
    let room = match feed {
        Some(_) => size.max(2048),
        None => size,
    };
    let per_frame = u64::from(room) + 3 * 64;
    let bytes = u64::from(2 * queues) * u64::from(RING) * per_frame + (1 << 20);
    let ram = Arc::new(GuestRam::new(RAM_BASE, bytes.next_multiple_of(1 << 21))?);
    card.map(&ram)?;
    let mtu = size.saturating_sub(UDP_HEADERS - 28).clamp(1500, 65_535);
    card.set_reg(regs::MTU, mtu)?;
    card.set_reg(regs::RX_MODE, regs::RX_MODE_PROMISC)?;

    let (mut lanes, mut counted) = (Vec::new(), Vec::new());
    for pair in 0..queues {
        let (rx, tx) = (queue::rx_index(pair), queue::tx_index(pair));
        if direction != Direction::Tx {
            lanes.push(Lane::new(card, &ram, rx, room)?);
        }
        if direction != Direction::Rx {
            lanes.push(Lane::new(card, &ram, tx, size)?);
        }
        // What comes back is what was delivered.
        counted.push(if direction == Direction::Tx { tx } else { rx });
    }

    let payload = vec![0; size.saturating_sub(UDP_HEADERS) as usize];
    let mut spin = |card: &mut Card, time: Duration| {
        let end = Instant::now() + time;
        while Instant::now() < end {
            for _ in 0..64 {
                if let Some(feed) = feed {
                    feed.send(&payload);
                }
                for lane in &mut lanes {
                    lane.turn(card, &ram)?;
                }
            }
        }
        Ok::<_, vnet_testkit::Error>(())
    };
    let frames = |card: &mut Card| {
        let registers = counted.iter().map(|&q| regs::stats_reg(q, regs::S_FRAMES));
        registers.map(|r| card.reg64(r)).sum::<Result<u64>>()
    };
    spin(card, WARM_UP)?;
    let start = Instant::now();
    let before = frames(card)?;
    spin(card, time)?;
    let after = frames(card)?;
    let rate = (after - before) as f64 / start.elapsed().as_secs_f64();
    card.reset()?;
    card.unmap(ram.base(), ram.size())?;
    Ok(rate)
}
