// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The switch, and what becomes of a frame.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use arc_swap::ArcSwap;
use vnet_backend::{Checksum, Error, Frame};

use crate::groups::Groups;
use crate::head::{Head, Mac, Outside};
use crate::member::{Member, Way};
use crate::message::{self, Packet};
use crate::port::Port;
use crate::table::Table;
use crate::{Config, Report};

/// Most ports.
pub const MAX_PORTS: usize = 1024;

/// Joins ports.
#[derive(Debug, Default)]
pub struct Switch {
    members: ArcSwap<Members>,
    /// Held by who joins or leaves.
    changes: Mutex<()>,
    table: RwLock<Table>,
    groups: RwLock<Groups>,
    next: AtomicU32,
}

#[derive(Debug, Default)]
struct Members {
    /// Those between which frames are switched.
    ports: Vec<Arc<Member>>,
    /// Those that only get copies.
    mirrors: Vec<Arc<Member>>,
    /// Multicast is for who asked for it.
    snooping: bool,
}

impl Members {
    fn new(ports: Vec<Arc<Member>>, mirrors: Vec<Arc<Member>>) -> Self {
        let snooping = |list: &[Arc<Member>]| list.iter().any(|m| m.config.snooping);
        Self {
            snooping: snooping(&ports) || snooping(&mirrors),
            ports,
            mirrors,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.ports.iter().chain(&self.mirrors)
    }
}

/// Where a frame goes.
enum Target {
    Nowhere,
    One(Arc<Member>),
    All,
}

/// Whom a frame is for that is for several.
enum Audience {
    All,
    /// The ports of [`Way::ports`], and those that get everything.
    Some,
    Damaged,
}

impl Switch {
    /// A switch without ports.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds a port, which leaves the switch when it is dropped.
    pub fn join(self: &Arc<Self>, config: Config) -> Result<Port, Error> {
        let member = self.add(config)?;
        Ok(Port::new(Arc::clone(self), member))
    }

    /// The counters of all ports, in the order in which they came.
    pub fn report(&self) -> Vec<Report> {
        let members = self.members.load();
        let mut reports: Vec<_> = members.all().map(|m| (m.id, Report::of(m))).collect();
        reports.sort_by_key(|(id, _)| *id);
        reports.into_iter().map(|(_, report)| report).collect()
    }

    /// Number of addresses that it has learned.
    pub fn addresses(&self) -> usize {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.len()
    }

    /// Number of multicast groups that somebody is a member of, if it listens to that.
    pub fn groups(&self) -> Option<usize> {
        let snooping = self.members.load().snooping;
        snooping.then(|| self.groups_ref().len(Instant::now()))
    }

    fn groups_ref(&self) -> RwLockReadGuard<'_, Groups> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups_mut(&self) -> RwLockWriteGuard<'_, Groups> {
        self.groups.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, config: Config) -> Result<Arc<Member>, Error> {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let members = self.members.load();
        if let Some(name) = &config.port {
            if members.all().any(|m| m.config.port.as_ref() == Some(name)) {
                return Err(Error::Unsupported(format!(
                    "the switch has a port {name} already"
                )));
            }
        }
        if members.all().count() >= MAX_PORTS {
            return Err(Error::Unsupported(format!(
                "the switch has {MAX_PORTS} ports already"
            )));
        }
        let member = Arc::new(Member::new(self.next.fetch_add(1, Relaxed), config));
        let (mut ports, mut mirrors) = (members.ports.clone(), members.mirrors.clone());
        match member.config.mirror {
            None => ports.push(Arc::clone(&member)),
            Some(_) => mirrors.push(Arc::clone(&member)),
        }
        self.groups_mut().joined(member.id, Instant::now());
        self.members.store(Arc::new(Members::new(ports, mirrors)));
        Ok(member)
    }

    pub(crate) fn remove(&self, member: &Member) {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let members = self.members.load();
        let without = |list: &[Arc<Member>]| {
            let rest = list.iter().filter(|m| m.id != member.id);
            rest.cloned().collect()
        };
        let left = Members::new(without(&members.ports), without(&members.mirrors));
        match left.snooping {
            true => self.groups_mut().forget(member.id),
            false => *self.groups_mut() = Groups::default(),
        }
        self.members.store(Arc::new(left));
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.forget(member.id);
    }

    /// Sends a frame that came in by a queue of a port to where it belongs.
    pub(crate) fn forward(&self, from: &Arc<Member>, queue: u16, frame: &Frame<'_>, way: &mut Way) {
        let counters = &from.counters;
        counters.frames_in.fetch_add(1, Relaxed);
        counters.bytes_in.fetch_add(frame.len as u64, Relaxed);
        let head = Head::of(frame).filter(|_| from.config.mirror.is_none());
        let admitted = head.and_then(|head| {
            let vid = from.config.vlans.classify(head.tag())?;
            let good = is_station(head.from) && head.is_safe(&frame.meta);
            good.then_some((head, vid))
        });
        let Some((head, vid)) = admitted else {
            counters.refused.fetch_add(1, Relaxed);
            return;
        };
        let members = self.members.load();
        let copy = |mirrored: &Member, way: &mut Way| {
            for mirror in &members.mirrors {
                if mirror.mirrors(mirrored) {
                    mirror.deliver(&Outside::new(frame, &head, head), queue, true, way);
                }
            }
        };
        copy(from, way);
        let leave = |to: &Member, flooded, way: &mut Way| {
            let outside = to.config.vlans.leaves(vid);
            let Some(outside) = outside.and_then(|t| head.outside(t.then_some(vid))) else {
                return;
            };
            to.deliver(&Outside::new(frame, &head, outside), queue, flooded, way);
            // One that shows everything has it from where it came in.
            for mirror in &members.mirrors {
                if mirror.mirrors(to) && !mirror.mirrors(from) {
                    mirror.deliver(&Outside::new(frame, &head, outside), queue, true, way);
                }
            }
        };
        match self.target(from, vid, &head) {
            Target::Nowhere => {}
            Target::One(to) => leave(&to, false, way),
            Target::All => {
                let audience = match members.snooping && message::is_mapped(head.to) {
                    true => self.audience(from, vid, &head, frame, way),
                    false => Audience::All,
                };
                // Apart, since the rest of it is needed on the way.
                let ports = std::mem::take(&mut way.ports);
                let wants = |to: &Member| match audience {
                    Audience::All => true,
                    Audience::Some => {
                        to.config.all_multicast || ports.binary_search(&to.id).is_ok()
                    }
                    Audience::Damaged => false,
                };
                for to in members.ports.iter().filter(|m| m.id != from.id) {
                    if wants(to) {
                        leave(to, true, way);
                    }
                }
                way.ports = ports;
            }
        }
    }

    /// Whom a frame to a multicast address is for, and learns what it says about that.
    fn audience(
        &self,
        from: &Member,
        vid: u16,
        head: &Head,
        frame: &Frame<'_>,
        way: &mut Way,
    ) -> Audience {
        let mut start = [0; message::START];
        let len = frame.read_at(head.len(), &mut start);
        let mut packet = &start[..len];
        if message::is_message(head.kind, packet) {
            if matches!(frame.meta.checksum, Checksum::Partial { .. }) {
                // Not to be checked before somebody finishes it.
                return Audience::All;
            }
            way.scratch.resize(frame.len - head.len(), 0);
            frame.read_at(head.len(), &mut way.scratch);
            packet = &way.scratch;
        }
        let (now, ports) = (Instant::now(), &mut way.ports);
        let known = match message::parse(head.to, head.kind, packet) {
            Packet::Data(group) => self.groups_ref().members(vid, group, now, ports),
            Packet::Report(report) => {
                let mut groups = self.groups_mut();
                way.work += groups.report(vid, from.id, &report, now);
                groups.askers(vid, report.v6, now, ports)
            }
            Packet::Query(query) => {
                self.groups_mut().query(vid, from.id, &query, now);
                false
            }
            Packet::Router { v6 } => {
                self.groups_mut().router(vid, from.id, v6, now);
                false
            }
            Packet::Damaged => {
                from.counters.refused.fetch_add(1, Relaxed);
                return Audience::Damaged;
            }
            Packet::Other => false,
        };
        match known {
            true => Audience::Some,
            false => Audience::All,
        }
    }

    /// Learns where a frame came from, and says where it goes.
    fn target(&self, from: &Arc<Member>, vid: u16, head: &Head) -> Target {
        let now = Instant::now();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let known = table.knows(vid, head.from, from, now);
        let target = match head.to {
            to if is_reserved(to) => Target::Nowhere,
            [first, ..] if first & 1 != 0 => Target::All,
            to => match table.find(vid, to, now) {
                Some(member) if member.id == from.id => Target::Nowhere,
                Some(member) => Target::One(Arc::clone(member)),
                None => Target::All,
            },
        };
        drop(table);
        if !known {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            table.learn(vid, head.from, from, now);
        }
        target
    }
}

/// True for the address of one station, as the source of a frame has to be.
fn is_station(mac: Mac) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

/// Addresses that no bridge forwards (802.1Q, table 8-1).
fn is_reserved(mac: Mac) -> bool {
    matches!(mac, [0x01, 0x80, 0xc2, 0, 0, last] if last < 0x10)
}
