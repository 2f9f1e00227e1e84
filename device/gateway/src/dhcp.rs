// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A DHCP server (RFC 2131) for a LAN of a few stations.
//!
//! A station keeps its address as long as it is among the last [`STATIONS`] that asked. That needs
//! no clock, and a guest that asks in ever new names only takes addresses from itself.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    DhcpFlags, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, IpEndpoint,
};

use crate::datagram;
use crate::net::{Lan, STATIONS};
use crate::outbound::Outbound;
use crate::ports::{DHCP_CLIENT, DHCP_SERVER};

const LEASE_SECONDS: u32 = 3600;
/// Some clients refuse less (RFC 951).
const MIN_MESSAGE_LEN: usize = 300;

const OPTION_REQUESTED_IP: u8 = 50;
const OPTION_MESSAGE_TYPE: u8 = 53;
const OPTION_SERVER_IDENTIFIER: u8 = 54;

/// The server.
pub(crate) struct Server {
    lan: Lan,
    /// The station that has the address of the first guest + index.
    leases: [Lease; STATIONS],
    /// Counts requests, so that leases can be ordered by age.
    requests: u64,
}

#[derive(Clone, Copy, Default)]
struct Lease {
    station: Option<EthernetAddress>,
    last_request: u64,
}

/// What the server has to know of a message.
struct Request {
    kind: DhcpMessageType,
    transaction_id: u32,
    station: EthernetAddress,
    client_ip: Ipv4Addr,
    requested_ip: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    broadcast: bool,
}

/// An answer and where it goes.
pub(crate) struct Reply {
    message: DhcpRepr<'static>,
    from_ip: Ipv4Addr,
    to: EthernetAddress,
    to_ip: Ipv4Addr,
}

impl Server {
    pub(crate) fn new(lan: Lan) -> Self {
        Self {
            lan,
            leases: Default::default(),
            requests: 0,
        }
    }

    /// Answers a message to the server's port. `None`: malformed, or not to be answered.
    pub(crate) fn answer(&mut self, message: &[u8]) -> Option<Reply> {
        let request = parse(message)?;
        let ours = request.server.is_none_or(|server| server == self.lan.ipv4);
        match request.kind {
            DhcpMessageType::Discover => {
                let address = self.lease(request.station);
                Some(reply(&self.lan, &request, DhcpMessageType::Offer, address))
            }
            DhcpMessageType::Request if ours => {
                let address = self.lease(request.station);
                // A new client repeats what it was offered; one that renews uses it already.
                let wanted = request.requested_ip.unwrap_or(request.client_ip);
                let kind = if wanted == address {
                    DhcpMessageType::Ack
                } else {
                    DhcpMessageType::Nak
                };
                Some(reply(&self.lan, &request, kind, address))
            }
            DhcpMessageType::Inform => Some(reply(
                &self.lan,
                &request,
                DhcpMessageType::Ack,
                Ipv4Addr::UNSPECIFIED,
            )),
            DhcpMessageType::Release => {
                self.release(request.station);
                None
            }
            DhcpMessageType::Decline => {
                self.decline(request.station, request.requested_ip);
                None
            }
            _ => None,
        }
    }

    /// The address of a station: the one that it has, else that of the station that asked least
    /// recently, which is none at first.
    fn lease(&mut self, station: EthernetAddress) -> Ipv4Addr {
        self.requests += 1;
        let index = self
            .leases
            .iter()
            .position(|lease| lease.station == Some(station))
            .or_else(|| (0..STATIONS).min_by_key(|i| self.leases[*i].last_request))
            .unwrap_or(0);
        self.leases[index] = Lease {
            station: Some(station),
            last_request: self.requests,
        };
        Ipv4Addr::from_bits(self.lan.first_guest().to_bits() + index as u32)
    }

    /// Makes the address of a station the first one to be given to another. The station gets it
    /// again if it asks before that happens.
    fn release(&mut self, station: EthernetAddress) {
        for lease in &mut self.leases {
            if lease.station == Some(station) {
                lease.last_request = 0;
            }
        }
    }

    /// A station finds that somebody else uses its address: that is the last one to be given to anybody.
    fn decline(&mut self, station: EthernetAddress, address: Option<Ipv4Addr>) {
        self.requests += 1;
        let first = self.lan.first_guest().to_bits();
        for (lease, own) in self.leases.iter_mut().zip(first..) {
            if lease.station == Some(station) && address == Some(Ipv4Addr::from_bits(own)) {
                *lease = Lease {
                    station: None,
                    last_request: self.requests,
                };
            }
        }
    }
}

fn parse(message: &[u8]) -> Option<Request> {
    const ETHERNET: (u16, u8) = (1, 6);
    const BOOT_REQUEST: u8 = 1;

    let packet = DhcpPacket::new_checked(message).ok()?;
    let hardware = (u16::from(packet.hardware_type()), packet.hardware_len());
    // There are no relays on this LAN.
    if hardware != ETHERNET
        || u8::from(packet.opcode()) != BOOT_REQUEST
        || !packet.relay_agent_ip().is_unspecified()
    {
        return None;
    }
    let station = packet.client_hardware_address();
    if !station.is_unicast() {
        return None;
    }
    let mut kind = None;
    let mut requested_ip = None;
    let mut server = None;
    for option in packet.options() {
        match (option.kind, option.data) {
            (OPTION_MESSAGE_TYPE, [value]) => kind = Some(DhcpMessageType::from(*value)),
            (OPTION_REQUESTED_IP, [a, b, c, d]) => {
                requested_ip = Some(Ipv4Addr::new(*a, *b, *c, *d));
            }
            (OPTION_SERVER_IDENTIFIER, [a, b, c, d]) => {
                server = Some(Ipv4Addr::new(*a, *b, *c, *d));
            }
            _ => {}
        }
    }
    Some(Request {
        kind: kind?,
        transaction_id: packet.transaction_id(),
        station,
        client_ip: packet.client_ip(),
        requested_ip,
        server,
        broadcast: packet.flags().contains(DhcpFlags::BROADCAST),
    })
}

fn reply(lan: &Lan, request: &Request, kind: DhcpMessageType, address: Ipv4Addr) -> Reply {
    let granted = kind != DhcpMessageType::Nak;
    let leased = granted && !address.is_unspecified();
    let your_ip = if leased {
        address
    } else {
        Ipv4Addr::UNSPECIFIED
    };
    // RFC 2131, 4.1: to the address that the client uses; a client that has none yet can say that
    // it does not see packets to the address that it is going to have.
    let to_ip = if !granted {
        Ipv4Addr::BROADCAST
    } else if is_on_lan(lan, request.client_ip) {
        request.client_ip
    } else if request.broadcast || !leased {
        Ipv4Addr::BROADCAST
    } else {
        your_ip
    };
    let to = if to_ip.is_broadcast() {
        EthernetAddress::BROADCAST
    } else {
        request.station
    };
    let message = DhcpRepr {
        message_type: kind,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: request.station,
        client_ip: if granted {
            request.client_ip
        } else {
            Ipv4Addr::UNSPECIFIED
        },
        your_ip,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: granted.then_some(lan.ipv4),
        subnet_mask: granted.then_some(lan.ipv4_mask()),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(lan.ipv4),
        parameter_request_list: None,
        dns_servers: granted.then(|| [lan.ipv4].into_iter().collect()),
        max_size: None,
        lease_duration: leased.then_some(LEASE_SECONDS),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    Reply {
        from_ip: lan.ipv4,
        message,
        to,
        to_ip,
    }
}

fn is_on_lan(lan: &Lan, address: Ipv4Addr) -> bool {
    let mask = lan.ipv4_mask().to_bits();
    address.to_bits() & mask == lan.ipv4.to_bits() & mask && address != lan.ipv4
}

impl Reply {
    /// Sends the answer.
    pub(crate) fn emit(&self, out: &mut Outbound) {
        let from = IpEndpoint::new(self.from_ip.into(), DHCP_SERVER);
        let to = IpEndpoint::new(self.to_ip.into(), DHCP_CLIENT);
        let len = self.message.buffer_len().max(MIN_MESSAGE_LEN);
        datagram::send(out, self.to, from, to, len, |message| {
            // The only error is a buffer that is too short, and it is as long as it says.
            let emitted = self.message.emit(&mut DhcpPacket::new_unchecked(message));
            debug_assert!(emitted.is_ok());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net;

    const A: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
    const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    fn request(kind: DhcpMessageType, station: EthernetAddress) -> DhcpRepr<'static> {
        DhcpRepr {
            message_type: kind,
            transaction_id: 77,
            secs: 0,
            client_hardware_address: station,
            client_ip: ANY,
            your_ip: ANY,
            server_ip: ANY,
            router: None,
            subnet_mask: None,
            relay_agent_ip: ANY,
            broadcast: false,
            requested_ip: None,
            client_identifier: Some(station),
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        }
    }

    fn ask(server: &mut Server, request: &DhcpRepr<'_>) -> Option<Reply> {
        let mut bytes = vec![0; request.buffer_len() + 6];
        request
            .emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]))
            .unwrap();
        server.answer(&bytes)
    }

    fn address(reply: Option<Reply>) -> Ipv4Addr {
        reply.expect("no answer").message.your_ip
    }

    #[test]
    fn a_client_is_offered_an_address_and_gets_it() {
        let mut server = Server::new(Lan::default());
        let offer = ask(&mut server, &request(DhcpMessageType::Discover, A)).unwrap();
        assert_eq!(offer.message.message_type, DhcpMessageType::Offer);
        assert_eq!(offer.message.your_ip, net::IPV4_FIRST_GUEST);
        assert_eq!((offer.to, offer.to_ip), (A, net::IPV4_FIRST_GUEST));

        let mut wanted = request(DhcpMessageType::Request, A);
        wanted.requested_ip = Some(net::IPV4_FIRST_GUEST);
        wanted.server_identifier = Some(net::IPV4);
        wanted.broadcast = true;
        let ack = ask(&mut server, &wanted).unwrap();
        assert_eq!(ack.message.message_type, DhcpMessageType::Ack);
        assert_eq!(ack.message.your_ip, net::IPV4_FIRST_GUEST);
        assert_eq!(ack.message.router, Some(net::IPV4));
        assert_eq!(ack.message.lease_duration, Some(LEASE_SECONDS));
        assert_eq!(ack.to, EthernetAddress::BROADCAST);

        let mut renewal = request(DhcpMessageType::Request, A);
        renewal.client_ip = net::IPV4_FIRST_GUEST;
        let ack = ask(&mut server, &renewal).unwrap();
        assert_eq!(ack.message.message_type, DhcpMessageType::Ack);
        assert_eq!((ack.to, ack.to_ip), (A, net::IPV4_FIRST_GUEST));
    }

    #[test]
    fn an_address_that_is_not_the_clients_is_refused() {
        let mut server = Server::new(Lan::default());
        let mut wanted = request(DhcpMessageType::Request, A);
        wanted.requested_ip = Some(Ipv4Addr::new(192, 168, 0, 7));
        let nak = ask(&mut server, &wanted).unwrap();
        assert_eq!(nak.message.message_type, DhcpMessageType::Nak);
        assert_eq!(nak.message.your_ip, ANY);
        assert_eq!(nak.to_ip, Ipv4Addr::BROADCAST);

        wanted.server_identifier = Some(Ipv4Addr::new(10, 77, 0, 9));
        assert!(ask(&mut server, &wanted).is_none());
    }

    /// One of many stations.
    fn station(n: u8) -> EthernetAddress {
        EthernetAddress([2, 0, 0, 0, 1, n])
    }

    /// The address that it is offered.
    fn discover(server: &mut Server, n: u8) -> Ipv4Addr {
        address(ask(server, &request(DhcpMessageType::Discover, station(n))))
    }

    #[test]
    fn stations_have_addresses_of_their_own_and_the_oldest_is_reused() {
        let mut server = Server::new(Lan::default());
        let first: Vec<_> = (0..32).map(|n| discover(&mut server, n)).collect();
        let mut unique = first.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), STATIONS);
        assert!(unique.iter().all(|a| is_on_lan(&Lan::default(), *a)));

        assert_eq!(discover(&mut server, 0), first[0]);
        assert_eq!(discover(&mut server, 200), first[1]);
        // A released address goes first, unless its station comes back before.
        let release = request(DhcpMessageType::Release, station(20));
        assert!(ask(&mut server, &release).is_none());
        assert_eq!(discover(&mut server, 20), first[20]);
        assert!(ask(&mut server, &release).is_none());
        assert_eq!(discover(&mut server, 201), first[20]);
    }

    #[test]
    fn an_address_that_somebody_else_uses_is_given_last() {
        let mut server = Server::new(Lan::default());
        let taken = discover(&mut server, 0);
        let mut decline = request(DhcpMessageType::Decline, station(0));
        decline.requested_ip = Some(taken);
        assert!(ask(&mut server, &decline).is_none());
        // The same station, and as many as there are other addresses.
        for n in 0..31 {
            assert_ne!(discover(&mut server, n), taken);
        }
        assert_eq!(discover(&mut server, 31), taken);
    }

    #[test]
    fn information_without_a_lease() {
        let mut server = Server::new(Lan::default());
        let mut inform = request(DhcpMessageType::Inform, A);
        inform.client_ip = Ipv4Addr::new(10, 77, 0, 99);
        let ack = ask(&mut server, &inform).unwrap();
        assert_eq!(ack.message.message_type, DhcpMessageType::Ack);
        assert_eq!(ack.message.your_ip, ANY);
        assert_eq!(ack.message.lease_duration, None);
        assert_eq!(ack.message.router, Some(net::IPV4));
        assert_eq!(ack.to_ip, inform.client_ip);
    }

    #[test]
    fn replies_and_relayed_requests_are_not_answered() {
        let mut server = Server::new(Lan::default());
        assert!(ask(&mut server, &request(DhcpMessageType::Offer, A)).is_none());
        let mut relayed = request(DhcpMessageType::Discover, A);
        relayed.relay_agent_ip = Ipv4Addr::new(10, 0, 0, 1);
        assert!(ask(&mut server, &relayed).is_none());
        assert!(ask(
            &mut server,
            &request(DhcpMessageType::Discover, EthernetAddress::BROADCAST)
        )
        .is_none());
        assert!(server.answer(&[1; 100]).is_none());
    }
}
