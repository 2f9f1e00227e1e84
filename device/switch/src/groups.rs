// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Which multicast groups are wanted at which port (RFC 4541).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::message::{Query, Report};

/// Most memberships of a switch: groups of ports, by VLAN.
pub const MAX_MEMBERSHIPS: usize = 16_384;
/// Most memberships of a port. One that has more gets everything, as long as those last.
pub const MAX_PER_PORT: usize = 256;

/// How long a membership lasts at least, and a querier that is not heard of any more: what all versions
/// have as default.
const MEMBERSHIP: Duration = Duration::from_secs(260);
const PRESENCE: Duration = Duration::from_secs(255);
/// At most, whatever a query says.
const MOST: Duration = Duration::from_secs(3600);
/// The least time that members have to answer a query about their group.
const LAST_CALL: Duration = Duration::from_secs(2);
/// How often the table is gone through for what is over, at most, when it is full.
const SWEEP: Duration = Duration::from_secs(1);

/// What a port is listed for: in a VLAN, and for all but a group with IPv6 or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// It wants the group.
    Member(u16, IpAddr),
    /// There is a multicast router, which wants all groups.
    Router(u16, bool),
    /// There is somebody who asks and is no router, and wants the answers.
    Asker(u16, bool),
}

/// A port in a place, until some time.
#[derive(Debug)]
struct Seat {
    port: u32,
    until: Instant,
}

/// Since when members are asked in a VLAN, and until when they are known from that.
#[derive(Debug)]
struct Asked {
    /// The first answers are in.
    from: Instant,
    until: Instant,
    membership: Duration,
}

/// The table. Of what is over some is left in it until its place is needed.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    seats: HashMap<Place, Vec<Seat>>,
    /// How many of those a port has, and all.
    by_port: HashMap<u32, usize>,
    total: usize,
    asked: HashMap<(u16, bool), Asked>,
    /// Ports that get everything, as not all is known that they want.
    unsure: HashMap<u32, Instant>,
    swept: Option<Instant>,
}

impl Groups {
    /// Puts the ports that a group is for into `ports`, in order. False if that is not known, and so it
    /// is for all: there is nobody who asks, so memberships would end that nobody ended.
    pub(crate) fn members(
        &self,
        vid: u16,
        group: IpAddr,
        now: Instant,
        ports: &mut Vec<u32>,
    ) -> bool {
        let v6 = group.is_ipv6();
        let asked = self.asked.get(&(vid, v6));
        if !asked.is_some_and(|asked| (asked.from..asked.until).contains(&now)) {
            return false;
        }
        let places = [Place::Member(vid, group), Place::Router(vid, v6)];
        self.collect(places, now, ports);
        true
    }

    /// The same for what members say.
    pub(crate) fn askers(&self, vid: u16, v6: bool, now: Instant, ports: &mut Vec<u32>) -> bool {
        let asked = self.asked.get(&(vid, v6));
        if asked.is_none_or(|asked| asked.until <= now) {
            return false;
        }
        let places = [Place::Router(vid, v6), Place::Asker(vid, v6)];
        self.collect(places, now, ports);
        true
    }

    fn collect(&self, places: [Place; 2], now: Instant, ports: &mut Vec<u32>) {
        ports.clear();
        let seats = places.iter().filter_map(|place| self.seats.get(place));
        let seats = seats.flatten().filter(|seat| now < seat.until);
        ports.extend(seats.map(|seat| seat.port));
        let unsure = self.unsure.iter().filter(|(_, until)| now < **until);
        ports.extend(unsure.map(|(port, _)| port));
        ports.sort_unstable();
    }

    /// A query came in at a port.
    pub(crate) fn query(&mut self, vid: u16, port: u32, query: &Query, now: Instant) {
        let lan = (vid, query.v6);
        let Some(group) = query.group else {
            let asked = self.asked.entry(lan).or_insert(Asked {
                from: now,
                until: now,
                membership: MEMBERSHIP,
            });
            if asked.until <= now {
                asked.from = now + query.respond;
            }
            let interval = query.interval * query.robustness;
            let presence = (interval + query.respond / 2).clamp(PRESENCE, MOST);
            asked.membership = (interval + query.respond).clamp(MEMBERSHIP, MOST);
            asked.until = now + presence;
            let place = match query.routed {
                true => Place::Router(vid, query.v6),
                false => Place::Asker(vid, query.v6),
            };
            self.sit(place, port, now + presence, now);
            return;
        };
        if query.decides {
            let until = now + (query.respond * query.robustness).clamp(LAST_CALL, MEMBERSHIP);
            let seats = self.seats.get_mut(&Place::Member(vid, group));
            for seat in seats.into_iter().flatten() {
                seat.until = seat.until.min(until);
            }
        }
    }

    /// A report came in at a port; returns how many of its groups were looked at. Leaving is left to the
    /// querier, who asks if there are others.
    ///
    /// The table is locked meanwhile, for all ports, and a report can have thousands of groups. A port
    /// that has more than there is room for gets everything until the last of them would end, so all others
    /// in the report make no difference.
    pub(crate) fn report(
        &mut self,
        vid: u16,
        port: u32,
        report: &Report<'_>,
        now: Instant,
    ) -> usize {
        let asked = self.asked.get(&(vid, report.v6));
        let until = now + asked.map_or(MEMBERSHIP, |asked| asked.membership);
        let mut count = 0;
        for group in report.groups() {
            if count == MAX_PER_PORT {
                self.doubt(port, until);
                break;
            }
            count += 1;
            if !self.sit(Place::Member(vid, group), port, until, now) {
                break;
            }
        }
        count
    }

    /// A router introduced itself at a port.
    pub(crate) fn router(&mut self, vid: u16, port: u32, v6: bool, now: Instant) {
        self.sit(Place::Router(vid, v6), port, now + PRESENCE, now);
    }

    /// There is a new port, whose driver may have been a member of groups before, and was not asked.
    pub(crate) fn joined(&mut self, port: u32, now: Instant) {
        if self.asked.values().any(|asked| now < asked.until) {
            self.unsure.insert(port, now + MEMBERSHIP);
        }
    }

    /// Forgets a port that is gone.
    pub(crate) fn forget(&mut self, port: u32) {
        self.unsure.remove(&port);
        if let Some(own) = self.by_port.remove(&port) {
            self.total -= own;
            self.seats.retain(|_, seats| {
                seats.retain(|seat| seat.port != port);
                !seats.is_empty()
            });
        }
    }

    /// The number of groups that somebody is a member of.
    pub(crate) fn len(&self, now: Instant) -> usize {
        let lives = |seats: &[Seat]| seats.iter().any(|seat| now < seat.until);
        let all = self.seats.iter();
        all.filter(|(place, seats)| matches!(place, Place::Member(..)) && lives(seats))
            .count()
    }

    /// Without room for that the port gets everything for as long, and this is false.
    fn sit(&mut self, place: Place, port: u32, until: Instant, now: Instant) -> bool {
        let seats = self.seats.get_mut(&place).into_iter().flatten();
        if let Some(seat) = seats.into_iter().find(|seat| seat.port == port) {
            seat.until = seat.until.max(until);
            return true;
        }
        if self.is_full(port) {
            self.sweep(now);
            if self.is_full(port) {
                self.doubt(port, until);
                return false;
            }
        }
        *self.by_port.entry(port).or_default() += 1;
        self.total += 1;
        let seats = self.seats.entry(place).or_default();
        seats.push(Seat { port, until });
        true
    }

    /// Has the port get everything.
    fn doubt(&mut self, port: u32, until: Instant) {
        let unsure = self.unsure.entry(port).or_insert(until);
        *unsure = until.max(*unsure);
    }

    fn is_full(&self, port: u32) -> bool {
        let own = self.by_port.get(&port).copied().unwrap_or(0);
        own >= MAX_PER_PORT || self.total >= MAX_MEMBERSHIPS
    }

    /// Removes what is over.
    fn sweep(&mut self, now: Instant) {
        let lately = |at: Instant| now.saturating_duration_since(at) < SWEEP;
        if self.swept.is_some_and(lately) {
            return;
        }
        self.swept = Some(now);
        self.by_port.clear();
        self.total = 0;
        self.seats.retain(|_, seats| {
            seats.retain(|seat| now < seat.until);
            for seat in &*seats {
                *self.by_port.entry(seat.port).or_default() += 1;
            }
            self.total += seats.len();
            !seats.is_empty()
        });
        self.unsure.retain(|_, until| now < *until);
        self.asked.retain(|_, asked| now < asked.until);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn group(n: usize) -> IpAddr {
        let [.., a, b] = n.to_be_bytes();
        Ipv4Addr::new(239, 1, a, b).into()
    }

    fn query(group: Option<IpAddr>) -> Query {
        Query {
            v6: false,
            group,
            routed: true,
            respond: Duration::from_secs(1),
            interval: Duration::from_secs(125),
            robustness: 2,
            decides: true,
        }
    }

    impl Groups {
        fn join(&mut self, vid: u16, port: u32, n: usize, now: Instant) {
            self.sit(Place::Member(vid, group(n)), port, now + MEMBERSHIP, now);
        }

        fn of(&self, vid: u16, n: usize, now: Instant) -> Option<Vec<u32>> {
            let mut ports = Vec::new();
            let known = self.members(vid, group(n), now, &mut ports);
            known.then_some(ports)
        }
    }

    fn after(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn groups_are_for_members_and_routers_while_somebody_asks() {
        let (mut groups, now) = (Groups::default(), Instant::now());
        groups.join(1, 7, 1, now);
        assert_eq!(groups.of(1, 1, now), None);
        groups.query(1, 3, &query(None), now);
        // Those that were members before have yet to answer.
        assert_eq!(groups.of(1, 1, now + after(0.9)), None);
        let asked = now + after(1.0);
        groups.join(1, 2, 1, asked);
        assert_eq!(groups.of(1, 1, asked), Some(vec![2, 3, 7]));
        assert_eq!(groups.of(1, 2, asked), Some(vec![3]));
        assert_eq!(groups.of(2, 1, asked), None);
        let v6 = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 1).into();
        assert!(!groups.members(1, v6, asked, &mut Vec::new()));
        assert_eq!(groups.len(asked), 1);

        // A membership that is not renewed ends, and all of it when nobody asks any more.
        let late = now + after(250.0);
        groups.query(1, 3, &query(None), late);
        groups.join(1, 2, 1, late);
        assert_eq!(groups.of(1, 1, now + after(260.5)), Some(vec![2, 3]));
        assert_eq!(groups.of(1, 1, late + PRESENCE), None);
        assert_eq!(groups.len(late + MEMBERSHIP), 0);
    }

    #[test]
    fn who_leaves_is_a_member_until_the_querier_had_no_answer() {
        let (mut groups, now) = (Groups::default(), Instant::now());
        groups.query(1, 3, &query(None), now);
        let now = now + after(5.0);
        groups.join(1, 7, 1, now);
        groups.join(1, 8, 1, now);
        let repeated = Query {
            decides: false,
            ..query(Some(group(1)))
        };
        groups.query(1, 3, &repeated, now);
        assert_eq!(groups.of(1, 1, now + after(60.0)), Some(vec![3, 7, 8]));
        groups.query(1, 3, &query(Some(group(1))), now);
        assert_eq!(groups.of(1, 1, now + after(1.9)), Some(vec![3, 7, 8]));
        groups.join(1, 8, 1, now + after(1.0));
        assert_eq!(groups.of(1, 1, now + after(2.0)), Some(vec![3, 8]));
    }

    #[test]
    fn answers_go_to_who_asks_and_groups_to_routers() {
        let (mut groups, now) = (Groups::default(), Instant::now());
        let mut ports = Vec::new();
        assert!(!groups.askers(1, false, now, &mut ports));
        // A router that does not ask, and a switch that asks for it.
        groups.router(1, 3, false, now);
        assert!(!groups.askers(1, false, now, &mut ports));
        let proxy = Query {
            routed: false,
            ..query(None)
        };
        groups.query(1, 4, &proxy, now);
        assert!(groups.askers(1, false, now, &mut ports));
        assert_eq!(ports, [3, 4]);
        assert_eq!(groups.of(1, 1, now + after(1.0)), Some(vec![3]));
    }

    #[test]
    fn a_querier_says_how_long_memberships_last() {
        let (mut groups, now) = (Groups::default(), Instant::now());
        let slow = Query {
            interval: Duration::from_secs(400),
            ..query(None)
        };
        groups.query(1, 3, &slow, now);
        let report = Instant::now();
        groups.join(1, 3, 1, report);
        assert_eq!(groups.asked[&(1, false)].membership, after(801.0));
        assert_eq!(groups.of(1, 2, now + after(700.0)), Some(vec![3]));
        let never = Query {
            interval: Duration::from_secs(31 << 10),
            robustness: 7,
            ..query(None)
        };
        groups.query(1, 3, &never, now);
        assert_eq!(groups.asked[&(1, false)].membership, MOST);
    }

    #[test]
    fn a_port_with_too_many_gets_everything_and_takes_nothing_from_others() {
        let (mut groups, now) = (Groups::default(), Instant::now());
        groups.query(1, 9999, &query(None), now);
        let hostile = (MAX_MEMBERSHIPS / MAX_PER_PORT) as u32;
        let now = now + after(2.0);
        for port in 0..hostile {
            for n in 0..2 * MAX_PER_PORT {
                groups.join(1, port, usize::from(port as u16) << 8 | n, now);
            }
        }
        assert_eq!(groups.total, MAX_MEMBERSHIPS);
        // There is no room for this one, and it is as good as a member.
        groups.join(1, 5000, 60_000, now);
        let ports = groups.of(1, 60_000, now).unwrap();
        assert!(ports.contains(&5000) && ports.contains(&9999));
        for port in 0..hostile {
            groups.forget(port);
        }
        // That which asks, and no more.
        assert_eq!((groups.total, groups.seats.len()), (1, 1));
        groups.join(1, 5000, 60_000, now);
        assert_eq!(
            groups.of(1, 1, now + MEMBERSHIP - after(10.0)),
            Some(vec![5000, 9999])
        );
    }

    #[test]
    fn a_report_is_read_as_far_as_it_matters() {
        let now = Instant::now();
        let later = now + after(2.0);
        let any = |n: usize| [239, 1, (n >> 8) as u8, n as u8];
        let same = |_| any(0);
        let reported = |count, group: &dyn Fn(usize) -> [u8; 4]| {
            let mut groups = Groups::default();
            groups.query(1, 3, &query(None), now);
            groups.join(1, 8, 1, later);
            let read = groups.report(1, 7, &Report::of(&mut Vec::new(), count, group), later);
            // A group that nobody has said anything of.
            (read, groups.of(1, 60_000, later).unwrap())
        };
        // As many as a frame can have.
        assert_eq!(reported(8_187, &any), (MAX_PER_PORT, vec![3, 7]));
        assert_eq!(reported(8_187, &same), (MAX_PER_PORT, vec![3, 7]));
        assert_eq!(reported(MAX_PER_PORT, &any), (MAX_PER_PORT, vec![3]));
    }

    #[test]
    fn what_is_over_makes_room() {
        let (mut groups, now) = (Groups::default(), Instant::now());
        for n in 0..MAX_PER_PORT {
            groups.join(1, 7, n, now);
        }
        let later = now + MEMBERSHIP;
        groups.join(1, 7, 9999, later);
        assert_eq!((groups.total, groups.len(later)), (1, 1));
        assert!(groups.unsure.is_empty());
    }

    #[test]
    fn a_new_port_gets_everything_until_it_was_asked() {
        let (mut groups, now) = (Groups::default(), Instant::now());
        groups.joined(7, now);
        groups.query(1, 3, &query(None), now);
        let now = now + after(1.0);
        groups.joined(8, now);
        assert_eq!(groups.of(1, 1, now), Some(vec![3, 8]));
        groups.query(1, 3, &query(None), now + after(125.0));
        assert_eq!(groups.of(1, 1, now + MEMBERSHIP), Some(vec![3]));
    }
}
