// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Which address is behind which port.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::head::Mac;
use crate::member::Member;

/// How long an address is known without being seen (802.1Q's default).
pub const AGEING: Duration = Duration::from_secs(300);
/// Most addresses of a switch.
pub const MAX_ADDRESSES: usize = 16_384;
/// Most addresses of a port, so that one which makes them up leaves room to the others.
pub const MAX_PER_PORT: usize = 1024;

/// An address that was seen lately need not be noted again, which would take the lock.
const FRESH: Duration = Duration::from_secs(1);
/// How often the table is gone through for what is too old, at most, when it is full.
const SWEEP: Duration = Duration::from_secs(1);

/// Addresses by VLAN.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<(u16, Mac), Entry>,
    by_port: HashMap<u32, usize>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    member: Arc<Member>,
    seen: Instant,
}

impl Table {
    /// The port that an address is behind.
    pub(crate) fn find(&self, vid: u16, mac: Mac, now: Instant) -> Option<&Arc<Member>> {
        let entry = self.entries.get(&(vid, mac))?;
        (now.saturating_duration_since(entry.seen) < AGEING).then_some(&entry.member)
    }

    /// True if [`Self::learn`] would only say what is known.
    pub(crate) fn knows(&self, vid: u16, mac: Mac, member: &Member, now: Instant) -> bool {
        self.entries.get(&(vid, mac)).is_some_and(|entry| {
            entry.member.id == member.id && now.saturating_duration_since(entry.seen) < FRESH
        })
    }

    /// An address was seen at a port. Not learned if there are too many; then its frames go to all.
    pub(crate) fn learn(&mut self, vid: u16, mac: Mac, member: &Arc<Member>, now: Instant) {
        if !self.is_behind(vid, mac, member.id) {
            // It is not where it was, whether or not there is room for where it is.
            if let Some(former) = self.entries.remove(&(vid, mac)) {
                self.uncount(former.member.id);
            }
            if self.is_full(member.id) {
                self.sweep(now);
                if self.is_full(member.id) {
                    return;
                }
            }
            *self.by_port.entry(member.id).or_default() += 1;
        }
        let member = Arc::clone(member);
        self.entries.insert((vid, mac), Entry { member, seen: now });
    }

    fn is_behind(&self, vid: u16, mac: Mac, id: u32) -> bool {
        let entry = self.entries.get(&(vid, mac));
        entry.is_some_and(|entry| entry.member.id == id)
    }

    /// True if nothing more can be learned of a port.
    fn is_full(&self, id: u32) -> bool {
        self.count(id) >= MAX_PER_PORT || self.entries.len() >= MAX_ADDRESSES
    }

    /// Forgets what is behind a port that is gone.
    pub(crate) fn forget(&mut self, id: u32) {
        self.entries.retain(|_, entry| entry.member.id != id);
        self.by_port.remove(&id);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn count(&self, id: u32) -> usize {
        self.by_port.get(&id).copied().unwrap_or(0)
    }

    fn uncount(&mut self, id: u32) {
        if let Some(count) = self.by_port.get_mut(&id) {
            *count = count.saturating_sub(1);
        }
    }

    /// Removes what is too old.
    fn sweep(&mut self, now: Instant) {
        let lately = |at: Instant| now.saturating_duration_since(at) < SWEEP;
        if self.swept.is_some_and(lately) {
            return;
        }
        self.swept = Some(now);
        let by_port = &mut self.by_port;
        self.entries.retain(|_, entry| {
            let keep = now.saturating_duration_since(entry.seen) < AGEING;
            if let (false, Some(count)) = (keep, by_port.get_mut(&entry.member.id)) {
                *count = count.saturating_sub(1);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: usize) -> Mac {
        let [.., a, b, c, d] = n.to_be_bytes();
        [2, 0, a, b, c, d]
    }

    #[test]
    fn addresses_move_and_age() {
        let mut table = Table::default();
        let [a, b] = [1, 2].map(Member::for_test);
        let now = Instant::now();
        table.learn(1, mac(7), &a, now);
        table.learn(2, mac(7), &b, now);
        assert_eq!(table.find(1, mac(7), now).unwrap().id, 1);
        assert_eq!(table.find(2, mac(7), now).unwrap().id, 2);
        assert!(table.find(3, mac(7), now).is_none());
        assert!(table.knows(1, mac(7), &a, now) && !table.knows(1, mac(7), &b, now));
        assert!(!table.knows(1, mac(7), &a, now + FRESH));

        table.learn(1, mac(7), &b, now);
        assert_eq!(table.find(1, mac(7), now).unwrap().id, 2);
        assert_eq!((table.count(1), table.count(2)), (0, 2));
        let later = now + AGEING;
        assert!(table.find(1, mac(7), later - FRESH).is_some());
        assert!(table.find(1, mac(7), later).is_none());
        table.forget(2);
        assert_eq!((table.len(), table.count(2)), (0, 0));
    }

    #[test]
    fn an_address_that_moves_to_a_full_port_is_not_looked_for_where_it_was() {
        let mut table = Table::default();
        let [a, b] = [1, 2].map(Member::for_test);
        let now = Instant::now();
        for n in 0..MAX_PER_PORT {
            table.learn(1, mac(n), &b, now);
        }
        table.learn(1, mac(MAX_PER_PORT), &a, now);
        table.learn(1, mac(MAX_PER_PORT), &b, now);
        assert!(table.find(1, mac(MAX_PER_PORT), now).is_none());
        assert_eq!((table.count(1), table.count(2)), (0, MAX_PER_PORT));
    }

    #[test]
    fn an_address_that_moves_is_counted_out_once() {
        let mut table = Table::default();
        let [a, b] = [1, 2].map(Member::for_test);
        let now = Instant::now();
        let moves = mac(MAX_PER_PORT);
        for n in 0..MAX_PER_PORT {
            table.learn(1, mac(n), &b, now);
        }
        table.learn(1, moves, &a, now);
        // It and all of the port that it moves to are too old by then, and are swept out.
        let later = now + AGEING;
        table.learn(2, moves, &a, later);
        table.learn(1, moves, &b, later);
        assert_eq!((table.count(1), table.count(2)), (1, 1));
    }

    #[test]
    fn a_port_that_makes_up_addresses_leaves_room() {
        let mut table = Table::default();
        let now = Instant::now();
        let ports = MAX_ADDRESSES / MAX_PER_PORT;
        let members: Vec<_> = (0..=ports as u32).map(Member::for_test).collect();
        for (p, member) in members.iter().enumerate() {
            for n in 0..2 * MAX_PER_PORT {
                table.learn(1, mac(p << 16 | n), member, now);
            }
            assert_eq!(
                table.count(member.id),
                MAX_PER_PORT.min(MAX_ADDRESSES - p * MAX_PER_PORT)
            );
        }
        assert_eq!(table.len(), MAX_ADDRESSES);
        // An address may move though the table is full, and all of it be new when it is old.
        let last = &members[ports];
        table.learn(1, mac(0), last, now);
        assert_eq!(table.find(1, mac(0), now).unwrap().id, last.id);
        let later = now + AGEING;
        table.learn(1, mac(99 << 16), last, later);
        assert_eq!((table.len(), table.count(last.id)), (1, 1));
    }
}
