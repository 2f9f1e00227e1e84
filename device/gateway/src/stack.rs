// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The gateway itself: takes frames from the guest, and has frames for it.

use std::net::IpAddr;
use std::ops::Range;
use std::time;

use smoltcp::iface::{self, Interface, SocketSet};
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, IpEndpoint, TcpPacket, UDP_HEADER_LEN};
use vnet_backend::{checksum, Checksum, Frame, GsoKind, Losses, MAX_FRAME};

use crate::config::Config;
use crate::connections::{Connections, MAX_CONNECTIONS};
use crate::dns::Name;
use crate::hosts::{Answered, Asked, Hosts};
use crate::net::Lan;
use crate::outbound::{Outbound, STALLED_AFTER};
use crate::packet::{self, Ip, Packet, Transport, ETHERNET_LEN};
use crate::reflect::{self, Reflector};
use crate::service::Service;
use crate::status::Status;
use crate::wire::Wire;
use crate::{datagram, dhcp, dns, neighbour, net, ports, router, stream};

/// Rounds of sending per call: a bound for a call, not for the traffic.
const ROUNDS: usize = 64;
/// Most bytes that the UDP character generator sends (RFC 864).
const CHARGEN_DATAGRAM: usize = 512;
/// When something that should go on cannot, it is tried again after this time instead of at once.
const RETRY: Duration = Duration::from_millis(1);
/// Nobody calls, if a call is overdue for so long.
const OVERDUE: Duration = Duration::from_secs(1);
/// Room for a VLAN tag, as every Ethernet card leaves.
const VLAN_LEN: usize = 4;

pub(crate) struct Stack {
    clock: fn() -> time::Instant,
    /// When its time began, but for the while that it stood still.
    start: time::Instant,
    /// When it was last called.
    called: Instant,
    mtu: u16,
    lan: Lan,
    names: Vec<(Name, IpAddr)>,
    /// Differs from run to run, and from machine to machine.
    seed: u64,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Connections,
    /// `None`: no port leads to the host.
    hosts: Option<Hosts>,
    reflector: Reflector,
    dhcp: dhcp::Server,
    next_advertisement: Instant,
    /// The frame that is being received.
    inbound: Box<[u8]>,
    pub(crate) outbound: Outbound,
    status: Status,
    /// True if the last round had nothing to send.
    drained: bool,
    /// True once the guest has sent a frame: before, there is nobody to advertise to.
    seen_guest: bool,
}

impl Stack {
    pub(crate) fn new(
        config: &Config,
        seed: u64,
        mut outbound: Outbound,
        hosts: Option<Hosts>,
        clock: fn() -> time::Instant,
    ) -> Self {
        let (mtu, lan) = (config.mtu, config.lan);
        let interface = interface(mtu, &lan, seed, &mut outbound, Instant::ZERO);
        let forwards = hosts.as_ref().map(Hosts::tallies).unwrap_or_default();
        Self {
            clock,
            start: clock(),
            called: Instant::ZERO,
            mtu,
            lan,
            names: config.names.clone(),
            seed,
            interface,
            sockets: sockets(),
            connections: Connections::default(),
            hosts,
            reflector: Reflector::default(),
            dhcp: dhcp::Server::new(lan),
            next_advertisement: Instant::ZERO + router::ADVERTISE_EVERY,
            inbound: vec![0; MAX_FRAME].into_boxed_slice(),
            outbound,
            status: Status {
                lan,
                captive: config.captive,
                forwards,
                ..Status::default()
            },
            drained: true,
            seen_guest: false,
        }
    }

    /// The card was reset. A station elsewhere on the LAN would miss the frames that were on their way, and
    /// notice nothing else: connections go on, and who does not know of them any more says so when he gets
    /// the next segment.
    pub(crate) fn reset(&mut self) {
        self.outbound.reset();
        // The driver may use fewer queues now: nobody is to wait for the host at one of the others.
        if let Some(hosts) = &mut self.hosts {
            hosts.reset();
        }
        let hosts = self.hosts.as_ref();
        self.connections
            .reset(hosts.map(|hosts| (0, hosts.watch(0))));
    }

    /// Forgets the guest, as its machine is gone and the next one may be another: its connections, and where
    /// it is. Leases stay: they belong to stations.
    pub(crate) fn forget(&mut self) {
        let now = self.now();
        // So that new connections do not repeat the sequence numbers of old ones.
        self.seed = self
            .seed
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(1);
        self.interface = interface(self.mtu, &self.lan, self.seed, &mut self.outbound, now);
        self.sockets = sockets();
        self.connections = Connections::default();
        self.reflector = Reflector::default();
        self.next_advertisement = now + router::ADVERTISE_EVERY;
        self.drained = true;
        self.seen_guest = false;
    }

    /// Frames that the gateway did not take or could not send.
    pub(crate) fn losses(&self) -> Losses {
        Losses {
            sent: self.status.refused,
            missed: self.outbound.lost,
            received: 0,
        }
    }

    /// Takes a frame from the guest, which sent it on `queue`.
    pub(crate) fn take(&mut self, queue: u16, frame: &Frame<'_>) {
        self.status.from_guest.0 += 1;
        self.status.from_guest.1 += frame.len as u64;
        // A TCP frame that stands for several segments may be longer than the MTU.
        let limit = match frame.meta.gso {
            None => usize::from(self.mtu) + ETHERNET_LEN + VLAN_LEN,
            Some(gso) if gso.kind != GsoKind::Udp => MAX_FRAME,
            Some(_) => 0,
        };
        if frame.len > limit.min(MAX_FRAME) {
            self.status.refused += 1;
            return;
        }
        let len = frame.read(&mut self.inbound[..frame.len]);
        let now = self.now();
        if self.handle(queue, len, frame.meta.checksum, now).is_none() {
            self.status.refused += 1;
        }
    }

    /// Handles the frame in `inbound`. `None`: it was malformed.
    fn handle(&mut self, queue: u16, len: usize, state: Checksum, now: Instant) -> Option<()> {
        let packet = packet::parse(&self.inbound[..len])?;
        if !reflect::is_addressed_to_us(packet.to) {
            return Some(());
        }
        self.seen_guest = true;
        self.outbound.steering.learn(&packet, queue);
        if let Some(address) = packet.ipv4_sender(&self.inbound[..len]) {
            self.dhcp.heard(packet.from, address, now);
        }
        let Some(ip) = &packet.ip else {
            self.pass_on(len, now);
            return Some(());
        };
        let right = match state {
            Checksum::Unverified => packet::transport_checksum_is_right(&self.inbound[..len], ip),
            Checksum::Valid | Checksum::Partial { .. } => true,
        };
        if !right {
            return None;
        }
        if self.reflector.wants(&self.lan, ip) {
            self.reflect(&packet, ip, len, state)?;
        } else if router::is_solicitation(ip) {
            self.advertise(now);
        } else {
            match ip.transport {
                Transport::Udp { dst, .. } if dst == ports::DISCARD => {}
                // An echo request that must not be answered.
                Transport::Udp { dst, .. } if dst == ports::ECHO => {}
                Transport::Udp { dst, .. } if dst == ports::DHCP_SERVER => {
                    self.lease(packet.from, ip, now);
                }
                Transport::Udp { src, dst } if matches!(dst, ports::CHARGEN | ports::DNS) => {
                    self.answer(packet.from, ip, src, dst);
                }
                Transport::Tcp { src, dst, syn }
                    if reflect::is_for_us(&self.lan, ip) && ip.fragment.is_none() =>
                {
                    let client = IpEndpoint::new(ip.src, src);
                    let segment = ip.start..ip.end;
                    if syn {
                        self.meet(packet.from, ip.src, now);
                        self.request(queue, packet.from, (client, dst), segment, len, now);
                    } else {
                        let hosts = self.hosts.as_ref();
                        let at = hosts.map(|hosts| (queue, hosts.watch(queue)));
                        // The stack does not look at the checksum again.
                        let mut segment = TcpPacket::new_unchecked(&mut self.inbound[segment]);
                        self.connections.pass((client, dst), at, &mut segment);
                        let ends = segment.fin();
                        self.pass_on(len, now);
                        if ends {
                            self.end((client, dst), ip, len, now);
                        }
                    }
                }
                _ => self.pass_on(len, now),
            }
        }
        Some(())
    }

    /// The frame in `inbound`, which the stack has seen, ends a stream. If data before it is missing, the stack
    /// does not take the end; nor does it if the segment is sent again once all data is there, for then it takes
    /// the whole segment for an old one. So it gets the end by itself, or the guest's retransmission timer,
    /// which has doubled meanwhile, would have to run out for it.
    fn end(&mut self, (client, port): (IpEndpoint, u16), ip: &Ip, len: usize, now: Instant) {
        let state = self.connections.state(&self.sockets, client, port);
        let Some(State::Established | State::FinWait1 | State::FinWait2) = state else {
            return;
        };
        if let Some(len) = packet::bare_end(&mut self.inbound[..len], ip) {
            self.pass_on(len, now);
        }
    }

    /// A station asks for a connection: the stack is told where it is, as the frame says that. Else it would
    /// ask before it answers, once a second for all its connections together; and be kept waiting by the first of
    /// them whose station does not answer yet.
    fn meet(&mut self, from: EthernetAddress, station: IpAddress, now: Instant) {
        let mut wire = Wire {
            inbound: Some(&neighbour::introduction(&self.lan, from, station)),
            outbound: &mut self.outbound,
            mtu: self.mtu,
        };
        self.interface
            .poll_ingress_single(now, &mut wire, &mut self.sockets);
    }

    /// The frame in `inbound` asks for a connection.
    fn request(
        &mut self,
        queue: u16,
        station: EthernetAddress,
        (client, port): (IpEndpoint, u16),
        segment: Range<usize>,
        len: usize,
        now: Instant,
    ) {
        let known = self.connections.state(&self.sockets, client, port);
        if known.is_some() {
            // The request was repeated, or comes from a client that lost its memory. The connection answers.
            return self.pass_on(len, now);
        }
        let hosts = self.hosts.as_mut().filter(|hosts| hosts.leads(port));
        let Some(hosts) = hosts else {
            let service = Service::of(port);
            return self.admit(station, (client, port), service, segment, len, now);
        };
        if self.connections.has_room(&self.sockets, station, now) {
            let asked = Asked {
                station,
                client,
                port,
                frame: self.inbound[..len].into(),
                segment,
            };
            hosts.ask(queue, asked, now);
        } else {
            self.pass_on(len, now);
        }
    }

    /// Takes the connection that the frame in `inbound` asks for, or refuses it if there is no service.
    fn admit(
        &mut self,
        station: EthernetAddress,
        connection: (IpEndpoint, u16),
        service: Option<Service>,
        segment: Range<usize>,
        len: usize,
        now: Instant,
    ) {
        if let Some(service) = service {
            let request = TcpPacket::new_unchecked(&self.inbound[segment]);
            self.connections.admit(
                &mut self.sockets,
                station,
                connection,
                service,
                &request,
                now,
            );
        }
        self.pass_on(len, now);
        self.connections.settle(&mut self.sockets);
    }

    /// Hears what the host has to say.
    fn hear(&mut self, now: Instant) {
        let Some(hosts) = &mut self.hosts else {
            return;
        };
        let mut answered = Vec::new();
        let connections = &mut self.connections;
        hosts.hear(self.outbound.current, &mut answered, |id| {
            connections.wake(id)
        });
        for Answered { asked, host } in answered {
            let len = asked.frame.len();
            self.inbound[..len].copy_from_slice(&asked.frame);
            let service = host.map(|host| Service::Host(Box::new(host)));
            let connection = (asked.client, asked.port);
            self.admit(asked.station, connection, service, asked.segment, len, now);
        }
    }

    /// Gives the frame in `inbound` to the stack.
    fn pass_on(&mut self, len: usize, now: Instant) {
        let mut wire = Wire {
            inbound: Some(&self.inbound[..len]),
            outbound: &mut self.outbound,
            mtu: self.mtu,
        };
        self.interface
            .poll_ingress_single(now, &mut wire, &mut self.sockets);
    }

    fn reflect(&mut self, packet: &Packet, ip: &Ip, len: usize, state: Checksum) -> Option<()> {
        let frame = &mut self.inbound[..len];
        if let Checksum::Partial { start, offset } = state {
            if !checksum::complete(frame, start, offset) {
                return None;
            }
        }
        self.outbound.send(len, |out| {
            out.copy_from_slice(frame);
            reflect::turn(out, packet, ip);
        });
        Some(())
    }

    /// Answers a datagram to the name server or the character generator.
    fn answer(&mut self, station: EthernetAddress, ip: &Ip, src: u16, dst: u16) {
        let ours = reflect::is_for_us(&self.lan, ip) && ip.fragment.is_none();
        if !ours || ports::answers_by_itself(src) {
            return;
        }
        let (from, to) = (IpEndpoint::new(ip.dst, dst), IpEndpoint::new(ip.src, src));
        let out = &mut self.outbound;
        if dst == ports::CHARGEN {
            datagram::send(out, station, from, to, CHARGEN_DATAGRAM, |data| {
                stream::characters(0, data);
            });
        } else {
            let mut answer = [0; dns::MAX_MESSAGE];
            let message = self.inbound.get(ip.start + UDP_HEADER_LEN..ip.end);
            let len = message
                .and_then(|message| dns::answer(message, &self.names, &self.status, &mut answer));
            if let Some(answer) = len.and_then(|len| answer.get(..len)) {
                datagram::send(out, station, from, to, answer.len(), |data| {
                    data.copy_from_slice(answer);
                });
            }
        }
    }

    fn lease(&mut self, station: EthernetAddress, ip: &Ip, now: Instant) {
        if ip.fragment.is_some() {
            return;
        }
        let message = self.inbound.get(ip.start + UDP_HEADER_LEN..ip.end);
        let reply = message.and_then(|message| self.dhcp.answer(station, message, now));
        if let Some(reply) = reply {
            reply.emit(&mut self.outbound);
        }
    }

    fn advertise(&mut self, now: Instant) {
        router::advertise(&self.lan, &mut self.outbound);
        self.next_advertisement = now + router::ADVERTISE_EVERY;
    }

    /// Goes on with everything that does not wait for a frame: services, timers, sending.
    pub(crate) fn work(&mut self) {
        let now = self.now();
        if now >= self.next_advertisement {
            if self.seen_guest {
                self.advertise(now);
            } else {
                self.next_advertisement = now + router::ADVERTISE_EVERY;
            }
        }
        self.hear(now);
        self.serve(now);
        for _ in 0..ROUNDS {
            if !self.outbound.is_open(now) {
                return;
            }
            let before = self.outbound.frames;
            let mut wire = Wire {
                inbound: None,
                outbound: &mut self.outbound,
                mtu: self.mtu,
            };
            self.interface
                .poll_egress(now, &mut wire, &mut self.sockets);
            self.drained = self.outbound.frames == before;
            if self.drained {
                return;
            }
        }
    }

    fn serve(&mut self, now: Instant) {
        self.status.to_guest = (self.outbound.frames, self.outbound.bytes);
        self.status.lost = self.outbound.lost;
        self.status.connections = self.connections.len();
        self.connections.serve(&mut self.sockets, &self.status, now);
    }

    /// True if [`Self::work`] should be called again at once by the worker of `queue`: the last
    /// one that called, so that the others sleep.
    pub(crate) fn has_work(&self, queue: u16) -> bool {
        self.connections.is_busy() && self.outbound.current == queue
    }

    /// When the worker of `queue` has to call [`Self::work`] without a frame from the guest.
    pub(crate) fn deadline(&mut self, queue: u16) -> Option<time::Instant> {
        let now = self.time();
        let mut at = if self.outbound.is_open(now) {
            // The stack wants to send but had nothing to: it waits for something that has no
            // time, so do not let it spin.
            let earliest = if self.drained { now + RETRY } else { now };
            self.interface
                .poll_at(now, &self.sockets)
                .map(|at| at.max(earliest))
        } else {
            self.outbound.opens_at()
        };
        if self.connections.is_busy() {
            let turn = match self.has_work(queue) {
                true => now,
                // If the queue that began does not go on, it was stopped.
                false => now + STALLED_AFTER,
            };
            at = Some(at.map_or(turn, |at| at.min(turn)));
        }
        if self.seen_guest {
            at = Some(at.map_or(self.next_advertisement, |at| {
                at.min(self.next_advertisement)
            }));
        }
        let at = at?.max(now);
        Some(self.start + time::Duration::from_micros(at.total_micros().unsigned_abs()))
    }

    /// The time, for a call that goes on with something. It stands still from a while after there was something
    /// to do until somebody calls: no driver receives, and a station that could not be asked whether it is still
    /// there is not to be given up for that.
    fn now(&mut self) -> Instant {
        let now = self.time();
        if now > self.called + OVERDUE {
            let stack = self.interface.poll_at(self.called, &self.sockets);
            let own = self.seen_guest.then_some(self.next_advertisement);
            let due = stack.into_iter().chain(own).min();
            let still = due.map(|due| due.max(self.called) + OVERDUE);
            if let Some(still) = still.filter(|still| *still < now) {
                self.start += time::Duration::from(now - still);
            }
        }
        self.called = self.time();
        self.called
    }

    fn time(&self) -> Instant {
        let elapsed = (self.clock)().saturating_duration_since(self.start);
        Instant::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
    }
}

/// The stack's network side: its addresses, and no neighbours yet.
fn interface(mtu: u16, lan: &Lan, seed: u64, outbound: &mut Outbound, now: Instant) -> Interface {
    let mut config = iface::Config::new(net::MAC.into());
    config.random_seed = seed;
    let mut wire = Wire {
        inbound: None,
        outbound,
        mtu,
    };
    let mut interface = Interface::new(config, &mut wire, now);
    interface.update_ip_addrs(|addresses| {
        for cidr in [
            IpCidr::new(IpAddress::from(lan.ipv4), lan.ipv4_prefix_len),
            IpCidr::new(IpAddress::from(net::IPV6_LINK_LOCAL), 64),
            IpCidr::new(IpAddress::from(lan.ipv6), net::IPV6_PREFIX_LEN),
        ] {
            // The crate's feature `iface-max-addr-count-4` leaves room for them.
            let added = addresses.push(cidr);
            debug_assert!(added.is_ok());
        }
    });
    interface
}

/// Room for the sockets of all connections.
fn sockets() -> SocketSet<'static> {
    SocketSet::new(Vec::with_capacity(MAX_CONNECTIONS))
}
