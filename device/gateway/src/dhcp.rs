// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A DHCP server (RFC 2131) for a LAN of a few stations.
//!
//! An address is one station's until its lease has run out, also where there are more stations than
//! addresses: behind a switch, who comes late is not to be given one that another guest uses. After that, it
//! stays with its station until another one needs it.
//!
//! Some stations use an address beyond their lease (a kernel that asked with `ip=dhcp` does not renew it),
//! without one, or have it from a server that was here before this one started. Their frames say so.

use std::net::Ipv4Addr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    DhcpFlags, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, IpEndpoint,
};

use crate::datagram;
use crate::net::Lan;
use crate::outbound::Outbound;
use crate::ports::{DHCP_CLIENT, DHCP_SERVER};

const LEASE_SECONDS: u32 = 3600;
const LEASE: Duration = Duration::from_secs(LEASE_SECONDS as u64);
/// An address that was offered is kept for so long for a station that does not ask for it.
const OFFER: Duration = Duration::from_secs(60);
/// Some clients refuse less (RFC 951).
const MIN_MESSAGE_LEN: usize = 300;

const OPTION_REQUESTED_IP: u8 = 50;
const OPTION_MESSAGE_TYPE: u8 = 53;
const OPTION_SERVER_IDENTIFIER: u8 = 54;

/// The server.
pub(crate) struct Server {
    lan: Lan,
    /// The station that has the address of the first guest + index.
    leases: Vec<Lease>,
}

#[derive(Clone, Copy)]
struct Lease {
    /// Who has the address, or had it last.
    station: Option<EthernetAddress>,
    /// Nobody else gets it before.
    until: Instant,
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
        let free = Lease {
            station: None,
            until: Instant::ZERO,
        };
        Self {
            lan,
            leases: vec![free; lan.stations() as usize],
        }
    }

    /// A station uses this address. If it is its own, or free, the station has it for a lease from now on. But
    /// one that has a lease of another address gets none of this one: each has one only.
    pub(crate) fn heard(&mut self, station: EthernetAddress, address: Ipv4Addr, now: Instant) {
        let Some(index) = self.index(address) else {
            return;
        };
        let lease = self.leases[index];
        if lease.station != Some(station) {
            if lease.until > now {
                return;
            }
            if let Some(own) = self.own(station) {
                if self.leases[own].until > now {
                    return;
                }
                self.leases[own].station = None;
            }
        }
        self.keep(index, station, now + LEASE);
    }

    /// Answers a message to the server's port that this station sent. `None`: malformed, or not to be answered,
    /// such as by an offer where nothing is free.
    pub(crate) fn answer(
        &mut self,
        from: EthernetAddress,
        message: &[u8],
        now: Instant,
    ) -> Option<Reply> {
        // A station asks for itself only.
        let request = parse(message).filter(|request| request.station == from)?;
        let ours = request.server.is_none_or(|server| server == self.lan.ipv4);
        let (kind, address) = match request.kind {
            DhcpMessageType::Discover => {
                let index = self.find(from, request.requested_ip, now)?;
                self.keep(index, from, now + OFFER);
                (DhcpMessageType::Offer, self.address(index))
            }
            DhcpMessageType::Request if ours => {
                // A new client repeats what it was offered; one that renews uses it already.
                let wanted = request.requested_ip.unwrap_or(request.client_ip);
                let found = self.find(from, Some(wanted), now);
                match found.filter(|index| self.address(*index) == wanted) {
                    Some(index) => {
                        self.keep(index, from, now + LEASE);
                        (DhcpMessageType::Ack, wanted)
                    }
                    None => (DhcpMessageType::Nak, wanted),
                }
            }
            DhcpMessageType::Inform => (DhcpMessageType::Ack, Ipv4Addr::UNSPECIFIED),
            DhcpMessageType::Release => {
                if let Some(lease) = self.held(from, Some(request.client_ip)) {
                    lease.until = now;
                }
                return None;
            }
            DhcpMessageType::Decline => {
                if let Some(lease) = self.held(from, request.requested_ip) {
                    // Somebody uses it who did not ask for it.
                    *lease = Lease {
                        station: None,
                        until: now + LEASE,
                    };
                }
                return None;
            }
            _ => return None,
        };
        Some(reply(&self.lan, &request, kind, address))
    }

    /// What a station gets: its own, else what it wants, else what has been free for longest. `None`: all are
    /// others'.
    fn find(
        &self,
        station: EthernetAddress,
        wanted: Option<Ipv4Addr>,
        now: Instant,
    ) -> Option<usize> {
        let free = (0..self.leases.len()).filter(|index| self.leases[*index].until <= now);
        self.own(station)
            .or_else(|| free.clone().find(|i| wanted == Some(self.address(*i))))
            .or_else(|| free.min_by_key(|index| self.leases[*index].until))
    }

    fn own(&self, station: EthernetAddress) -> Option<usize> {
        let mut leases = self.leases.iter();
        leases.position(|lease| lease.station == Some(station))
    }

    fn address(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.lan.first_guest().to_bits() + index as u32)
    }

    fn index(&self, address: Ipv4Addr) -> Option<usize> {
        let first = self.lan.first_guest().to_bits();
        let index = address.to_bits().checked_sub(first)? as usize;
        (index < self.leases.len()).then_some(index)
    }

    /// Keeps an address for a station until then at least.
    fn keep(&mut self, index: usize, station: EthernetAddress, until: Instant) {
        let lease = &mut self.leases[index];
        lease.station = Some(station);
        lease.until = lease.until.max(until);
    }

    /// The lease that a station has of an address.
    fn held(&mut self, station: EthernetAddress, address: Option<Ipv4Addr>) -> Option<&mut Lease> {
        let index = self.own(station)?;
        (address == Some(self.address(index))).then(|| &mut self.leases[index])
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
    const A_FAR_ONE: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 7);

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
        ask_at(server, request, Instant::ZERO)
    }

    fn ask_at(server: &mut Server, request: &DhcpRepr<'_>, now: Instant) -> Option<Reply> {
        ask_from(server, request.client_hardware_address, request, now)
    }

    fn ask_from(
        server: &mut Server,
        from: EthernetAddress,
        request: &DhcpRepr<'_>,
        now: Instant,
    ) -> Option<Reply> {
        let mut bytes = vec![0; request.buffer_len() + 6];
        request
            .emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]))
            .unwrap();
        server.answer(from, &bytes, now)
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
        wanted.requested_ip = Some(A_FAR_ONE);
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

    /// What a station gets that asks for what it has or wants.
    fn renew(server: &mut Server, n: u8, address: Ipv4Addr, now: Instant) -> DhcpMessageType {
        let mut renewal = request(DhcpMessageType::Request, station(n));
        renewal.client_ip = address;
        let reply = ask_at(server, &renewal, now).expect("no answer");
        reply.message.message_type
    }

    /// As many as there are addresses.
    const ALL: std::ops::Range<u8> = 0..253;

    /// A server with all addresses leased.
    fn full() -> (Server, Vec<Ipv4Addr>) {
        let mut server = Server::new(Lan::default());
        let all: Vec<_> = ALL.map(|n| discover(&mut server, n)).collect();
        for (n, address) in ALL.zip(&all) {
            let answer = renew(&mut server, n, *address, Instant::ZERO);
            assert_eq!(answer, DhcpMessageType::Ack);
        }
        (server, all)
    }

    #[test]
    fn stations_have_addresses_of_their_own_until_their_leases_run_out() {
        let (mut server, all) = full();
        let mut unique = all.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), ALL.len());
        assert!(unique.iter().all(|a| is_on_lan(&Lan::default(), *a)));

        let late = request(DhcpMessageType::Discover, station(254));
        let half = Instant::ZERO + LEASE / 2;
        assert!(ask_at(&mut server, &late, half).is_none());
        assert_eq!(
            renew(&mut server, 254, all[7], half),
            DhcpMessageType::Nak,
            "another's"
        );
        for n in ALL.filter(|n| *n != 7) {
            let address = all[usize::from(n)];
            assert_eq!(
                renew(&mut server, n, address, half),
                DhcpMessageType::Ack,
                "{n}"
            );
        }
        // The one that did not renew its lease has it to the end.
        let end = Instant::ZERO + LEASE;
        let before = end - Duration::from_secs(1);
        assert!(ask_at(&mut server, &late, before).is_none());
        assert_eq!(address(ask_at(&mut server, &late, end)), all[7]);
        assert_eq!(renew(&mut server, 7, all[7], end), DhcpMessageType::Nak);
    }

    #[test]
    fn an_offer_that_nobody_takes_is_made_to_another_one_soon() {
        let mut server = Server::new(Lan::default());
        for n in ALL {
            discover(&mut server, n);
        }
        let late = request(DhcpMessageType::Discover, station(254));
        assert!(ask(&mut server, &late).is_none());
        assert!(ask_at(&mut server, &late, Instant::ZERO + OFFER).is_some());
    }

    #[test]
    fn a_station_gives_back_its_own_address_only() {
        let (mut server, all) = full();
        let late = request(DhcpMessageType::Discover, station(254));
        let mut release = request(DhcpMessageType::Release, station(20));
        release.client_ip = all[19];
        assert!(ask(&mut server, &release).is_none());
        assert!(ask(&mut server, &late).is_none());
        release.client_ip = all[20];
        assert!(ask_from(&mut server, station(19), &release, Instant::ZERO).is_none());
        assert!(ask(&mut server, &late).is_none());

        assert!(ask(&mut server, &release).is_none());
        // Unless the station comes back before.
        assert_eq!(discover(&mut server, 20), all[20]);
        assert!(ask(&mut server, &late).is_none());
        let later = Instant::ZERO + OFFER;
        assert!(ask_at(&mut server, &release, later).is_none());
        assert_eq!(address(ask_at(&mut server, &late, later)), all[20]);
    }

    /// Such as after a start of the server.
    #[test]
    fn a_lease_that_is_not_known_goes_on_if_its_address_is_free() {
        let mut server = Server::new(Lan::default());
        let address = Ipv4Addr::new(10, 77, 0, 20);
        let now = Instant::ZERO;
        assert_eq!(renew(&mut server, 5, address, now), DhcpMessageType::Ack);
        assert_eq!(renew(&mut server, 6, address, now), DhcpMessageType::Nak);
        assert_eq!(discover(&mut server, 5), address);
    }

    /// Such as by a client that does not renew its lease.
    #[test]
    fn an_address_is_its_stations_for_as_long_as_it_is_used() {
        let (mut server, all) = full();
        let half = Instant::ZERO + LEASE / 2;
        for n in ALL.filter(|n| *n != 7) {
            server.heard(station(n), all[usize::from(n)], half);
        }
        // Nobody keeps another's.
        server.heard(station(8), all[7], half);
        let late = request(DhcpMessageType::Discover, station(254));
        let end = Instant::ZERO + LEASE;
        assert_eq!(address(ask_at(&mut server, &late, end)), all[7]);
        let later = request(DhcpMessageType::Discover, station(255));
        assert!(ask_at(&mut server, &later, end).is_none());
        // Also afterwards, unless somebody else came first.
        let over = half + LEASE;
        server.heard(station(0), all[0], over);
        let next = address(ask_at(&mut server, &later, over));
        assert_ne!(next, all[0]);
        server.heard(station(1), next, over);
        assert_eq!(renew(&mut server, 255, next, over), DhcpMessageType::Ack);
    }

    #[test]
    fn an_address_that_is_used_without_a_lease_is_given_to_nobody_else() {
        let mut server = Server::new(Lan::default());
        let now = Instant::ZERO;
        let used = net::IPV4_FIRST_GUEST;
        server.heard(station(0), used, now);
        assert_ne!(discover(&mut server, 1), used);
        assert_eq!(renew(&mut server, 2, used, now), DhcpMessageType::Nak);
        assert_eq!(discover(&mut server, 0), used);
        // None beside those that are given out.
        for other in [ANY, net::IPV4, Ipv4Addr::new(10, 77, 0, 255), A_FAR_ONE] {
            server.heard(station(3), other, now);
        }
        // And one for each station: a guest does not take all by their names.
        let mut free = Server::new(Lan::default());
        for n in ALL {
            free.heard(A, free.address(n.into()), now);
        }
        assert_eq!(discover(&mut free, 1), Ipv4Addr::new(10, 77, 0, 3));
        // When it may be somebody else's, it can have another one instead.
        let over = now + LEASE;
        free.heard(A, Ipv4Addr::new(10, 77, 0, 9), over);
        assert_eq!(renew(&mut free, 2, used, over), DhcpMessageType::Ack);
    }

    #[test]
    fn an_address_that_somebody_else_uses_is_given_to_nobody_for_a_lease() {
        let mut server = Server::new(Lan::default());
        let taken = discover(&mut server, 0);
        let mut decline = request(DhcpMessageType::Decline, station(0));
        decline.requested_ip = Some(taken);
        assert!(ask(&mut server, &decline).is_none());
        // The same station, and as many as there are other addresses.
        for n in 0..252 {
            assert_ne!(discover(&mut server, n), taken);
        }
        let last = request(DhcpMessageType::Discover, station(252));
        assert!(ask(&mut server, &last).is_none());
        assert!(ask_at(&mut server, &last, Instant::ZERO + LEASE).is_some());
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
    fn replies_and_requests_for_others_are_not_answered() {
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
        assert!(server.answer(A, &[1; 100], Instant::ZERO).is_none());
        // In the name of another station.
        let discover = request(DhcpMessageType::Discover, A);
        assert!(ask_from(&mut server, station(1), &discover, Instant::ZERO).is_none());
    }
}
