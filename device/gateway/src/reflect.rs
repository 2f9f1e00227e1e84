// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Echo: answers that are the question turned round.
//!
//! A reply to an ICMP echo request is the request with its addresses swapped and another type; a
//! reply of the UDP echo service has its ports swapped too. Both keep the checksum right: it does
//! not depend on the order of what it sums, and a changed type is a known difference (RFC 1624).
//!
//! So nothing is reassembled: each fragment is turned for itself. That keeps no data of the
//! guest's, answers requests of any length, and answers in fragments of the size that the guest
//! itself uses, whatever its MTU is.

use smoltcp::wire::{EthernetAddress, EthernetFrame, IpAddress, IpProtocol};
use vnet_backend::checksum;

use crate::net::{self, Lan};
use crate::packet::{Ip, Packet, Transport, ETHERNET_LEN};
use crate::ports;

const ICMPV4_ECHO_REQUEST: u8 = 8;
const ICMPV4_ECHO_REPLY: u8 = 0;
const ICMPV6_ECHO_REQUEST: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;

/// Datagrams whose further fragments are still expected. More than are under way at once.
const DATAGRAMS: usize = 16;

/// What all fragments of one datagram have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    src: IpAddress,
    dst: IpAddress,
    protocol: IpProtocol,
    ident: u32,
}

/// Knows which packets to turn round.
#[derive(Default)]
pub(crate) struct Reflector {
    datagrams: [Option<Key>; DATAGRAMS],
    /// Where the next datagram goes; the oldest is forgotten.
    next: usize,
}

impl Reflector {
    /// True if the answer to this packet is the packet itself, turned round.
    pub(crate) fn wants(&mut self, lan: &Lan, ip: &Ip) -> bool {
        if !is_for_us(lan, ip) {
            return false;
        }
        let Some(fragment) = ip.fragment else {
            return is_echo(ip);
        };
        let key = Key {
            src: ip.src,
            dst: ip.dst,
            protocol: ip.protocol,
            ident: fragment.ident,
        };
        if fragment.first {
            if !is_echo(ip) {
                return false;
            }
            self.datagrams[self.next] = Some(key);
            self.next = (self.next + 1) % DATAGRAMS;
            return true;
        }
        let known = self.datagrams.iter_mut().find(|slot| **slot == Some(key));
        match known {
            Some(slot) => {
                if fragment.last {
                    *slot = None;
                }
                true
            }
            None => false,
        }
    }
}

/// True if the packet goes from another station to the gateway itself.
pub(crate) fn is_for_us(lan: &Lan, ip: &Ip) -> bool {
    is_ours(lan, &ip.dst) && ip.src.is_unicast() && !is_ours(lan, &ip.src)
}

fn is_ours(lan: &Lan, address: &IpAddress) -> bool {
    match address {
        IpAddress::Ipv4(a) => *a == lan.ipv4,
        IpAddress::Ipv6(a) => *a == lan.ipv6 || *a == net::IPV6_LINK_LOCAL,
    }
}

fn is_echo(ip: &Ip) -> bool {
    match (ip.protocol, ip.transport) {
        (IpProtocol::Icmp, Transport::Icmp { kind, code }) => {
            (kind, code) == (ICMPV4_ECHO_REQUEST, 0) && matches!(ip.src, IpAddress::Ipv4(_))
        }
        (IpProtocol::Icmpv6, Transport::Icmp { kind, code }) => {
            (kind, code) == (ICMPV6_ECHO_REQUEST, 0) && matches!(ip.src, IpAddress::Ipv6(_))
        }
        (_, Transport::Udp { src, dst }) => dst == ports::ECHO && !ports::answers_by_itself(src),
        _ => false,
    }
}

/// Turns round a copy of the frame that `packet` describes.
pub(crate) fn turn(frame: &mut [u8], packet: &Packet, ip: &Ip) {
    let mut ethernet = EthernetFrame::new_unchecked(&mut *frame);
    ethernet.set_src_addr(net::MAC);
    ethernet.set_dst_addr(packet.from);

    let (addresses, len) = match ip.src {
        IpAddress::Ipv4(_) => (ETHERNET_LEN + 12, 4),
        IpAddress::Ipv6(_) => (ETHERNET_LEN + 8, 16),
    };
    swap(&mut frame[addresses..addresses + 2 * len]);

    let transport = &mut frame[ip.start..ip.end];
    match (ip.protocol, ip.transport) {
        (IpProtocol::Icmp, Transport::Icmp { .. }) => set_icmp_type(transport, ICMPV4_ECHO_REPLY),
        (IpProtocol::Icmpv6, Transport::Icmp { .. }) => set_icmp_type(transport, ICMPV6_ECHO_REPLY),
        (_, Transport::Udp { .. }) => swap(&mut transport[..4]),
        // A further fragment.
        _ => {}
    }
}

fn swap(pair: &mut [u8]) {
    let (a, b) = pair.split_at_mut(pair.len() / 2);
    a.swap_with_slice(b);
}

/// Sets the type of an ICMP message and corrects its checksum by the difference.
fn set_icmp_type(message: &mut [u8], kind: u8) {
    let old = u16::from_be_bytes([message[0], message[1]]);
    message[0] = kind;
    let new = u16::from_be_bytes([message[0], message[1]]);
    let sum = !u16::from_be_bytes([message[2], message[3]]);
    let sum = checksum::add(checksum::add(sum, !old), new);
    message[2..4].copy_from_slice(&(!sum).to_be_bytes());
}

/// True if frames to `address` are for the gateway.
pub(crate) fn is_addressed_to_us(address: EthernetAddress) -> bool {
    address == net::MAC || address.is_multicast() || address.is_broadcast()
}
