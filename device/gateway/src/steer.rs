// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Which queue a frame to the guest goes to: the one that the guest last sent the flow on, so
//! that both directions of a flow meet on one CPU of the guest.

use smoltcp::wire::IpAddress;

use crate::packet::{self, Ip, Packet, Transport};

const BUCKETS: usize = 256;

/// Remembers the queue of each flow, by hash.
pub(crate) struct Steering {
    queues: [u16; BUCKETS],
}

impl Default for Steering {
    fn default() -> Self {
        Self {
            queues: [0; BUCKETS],
        }
    }
}

impl Steering {
    /// Notes that the guest sent `packet` on `queue`.
    pub(crate) fn learn(&mut self, packet: &Packet, queue: u16) {
        self.queues[bucket(packet.ip.as_ref())] = queue;
    }

    /// The queue for a frame to the guest.
    pub(crate) fn queue(&self, frame: &[u8]) -> u16 {
        let packet = packet::parse(frame);
        self.queues[bucket(packet.and_then(|packet| packet.ip).as_ref())]
    }
}

/// The same for both directions of a flow: addresses and ports go in without their order.
fn bucket(ip: Option<&Ip>) -> usize {
    let Some(ip) = ip else {
        return 0;
    };
    let ports = match ip.transport {
        Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst } => src ^ dst,
        Transport::Icmp { .. } | Transport::Other => 0,
    };
    let key = fold(&ip.src) ^ fold(&ip.dst) ^ u32::from(ports);
    // Multiplicative hashing: the upper bits depend on all lower ones.
    (key.wrapping_mul(0x9e37_79b1) >> 24) as usize
}

fn fold(address: &IpAddress) -> u32 {
    match address {
        IpAddress::Ipv4(a) => a.to_bits(),
        IpAddress::Ipv6(a) => {
            let bits = a.to_bits();
            (bits ^ bits >> 32 ^ bits >> 64 ^ bits >> 96) as u32
        }
    }
}
