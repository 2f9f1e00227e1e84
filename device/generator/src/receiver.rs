// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Takes the frames that come, and says what they mean for those that were sent.

use std::net::IpAddr;

use smoltcp::wire::EthernetAddress;

use crate::config::{Config, Protocol};
use crate::counters::Report;
use crate::frame::{self, Arrived, Station};
use crate::stamp::{self, Stamp};
use crate::track::{Arrival, Track};

/// Most generators beside the own one whose frames are told from one another.
const MAX_STREAMS: usize = 8;
/// Nanoseconds after which a request for an address is not answered any more, once the next one is sent.
const ARP_PATIENCE: u64 = 500_000_000;

/// What is known of the frames of all generators.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) report: Report,
    pub(crate) own: Station,
    to: IpAddr,
    /// MAC address of `to`, if the user has given it.
    given_mac: Option<EthernetAddress>,
    /// Where `to` is, if that is known.
    mac: Option<EthernetAddress>,
    stream: u16,
    /// Stamps that were given out, and the clock when the first could have been.
    stamps: u64,
    began: u64,
    /// Those that have come back.
    back: Track,
    others: Vec<Other>,
    /// Requests for an address without answer, and when the last one was sent.
    open: u64,
    asked: u64,
}

/// Another generator.
#[derive(Debug)]
struct Other {
    stream: u16,
    track: Track,
    /// When its highest number was sent.
    newest: u64,
}

impl Receiver {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            report: Report::default(),
            own: Station::own(config),
            to: config.to,
            given_mac: config.mac,
            mac: config.mac,
            stream: stamp::stream(config),
            stamps: 0,
            began: stamp::now(),
            back: Track::new(0),
            others: Vec::new(),
            open: 0,
            asked: 0,
        }
    }

    /// Forgets all but what was counted. What has not come back is lost.
    pub(crate) fn restart(&mut self) {
        self.report.lost += self.report.unanswered;
        self.report.unanswered = 0;
        for other in self.others.drain(..) {
            self.report.lost += other.track.missing();
        }
        self.mac = self.given_mac;
        self.stamps = 0;
        self.began = stamp::now();
        self.back = Track::new(0);
        self.open = 0;
    }

    /// Who is sent to, if it is known where that is.
    pub(crate) fn destination(&self) -> Option<Station> {
        let ip = self.to;
        self.mac.map(|mac| Station { mac, ip })
    }

    /// Who is asked for.
    pub(crate) fn wanted(&self) -> Station {
        Station {
            mac: EthernetAddress::BROADCAST,
            ip: self.to,
        }
    }

    /// The stamp of the next frame.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            stream: self.stream,
            number: self.stamps as u32,
            time: stamp::now(),
        }
    }

    /// A frame goes, with [`Self::stamp`] unless it is ARP. Before the guest has it.
    pub(crate) fn sent(&mut self, protocol: Protocol, len: usize) {
        self.report.sent += 1;
        self.report.sent_bytes += len as u64;
        self.report.unanswered += 1;
        if protocol != Protocol::Arp {
            self.stamps += 1;
            return;
        }
        let now = stamp::now();
        if self.open > 0 && now.saturating_sub(self.asked) >= ARP_PATIENCE {
            self.report.lost += self.open;
            self.answered(self.open);
            self.open = 0;
        }
        self.open += 1;
        self.asked = now;
    }

    /// A frame has come. Returns whom to answer, if that asks for our address.
    pub(crate) fn take(&mut self, frame: &[u8], pattern: &[u8]) -> Option<Station> {
        match frame::parse(frame) {
            Some(Arrived::Neighbour { asks, from, about }) => {
                return self.neighbour(asks, from, about, frame.len())
            }
            Some(Arrived::Payload { to, bytes }) if to == self.own.ip => match Stamp::read(bytes) {
                Some(stamp) => self.payload(stamp, bytes, frame.len(), pattern),
                None => self.report.other += 1,
            },
            _ => self.report.other += 1,
        }
        None
    }

    fn neighbour(
        &mut self,
        asks: bool,
        from: Station,
        about: IpAddr,
        len: usize,
    ) -> Option<Station> {
        if from.ip == self.to && self.given_mac.is_none() {
            self.mac = Some(from.mac);
        }
        let to_us = about == self.own.ip;
        if asks && to_us {
            return Some(from);
        }
        if asks || !to_us || from.ip != self.to {
            self.report.other += 1;
        } else if self.open > 0 {
            // An answer does not say to which request it is.
            if self.open == 1 {
                let time = stamp::now().saturating_sub(self.asked);
                self.report.latency.add(time);
            }
            self.open -= 1;
            self.received(len);
            self.answered(1);
        }
        None
    }

    fn payload(&mut self, stamp: Stamp, bytes: &[u8], len: usize, pattern: &[u8]) {
        let rest = stamp::LEN..bytes.len();
        if bytes.get(rest.clone()) != pattern.get(rest) {
            self.report.damaged += 1;
            return;
        }
        let own = stamp.stream == self.stream;
        let arrival = if own {
            self.arrive_back(stamp)
        } else {
            self.arrive_from_other(stamp)
        };
        match arrival {
            None => self.report.other += 1,
            Some(Arrival::Duplicate) => self.report.duplicated += 1,
            Some(Arrival::Old) => self.report.reordered += 1,
            Some(arrival @ (Arrival::Next { .. } | Arrival::Late)) => {
                self.report.reordered += u64::from(arrival == Arrival::Late);
                self.received(len);
                if own {
                    self.answered(1);
                }
                // Another machine's clock may be ahead.
                if let Some(time) = stamp::now().checked_sub(stamp.time) {
                    self.report.latency.add(time);
                }
            }
        }
    }

    /// An own frame comes back. `None`: it was never sent, or before the generator began anew.
    fn arrive_back(&mut self, stamp: Stamp) -> Option<Arrival> {
        let sent = self.began..=stamp::now();
        let number = self.back.whole(stamp.number)?;
        if number >= self.stamps || !sent.contains(&stamp.time) {
            return None;
        }
        let arrival = self.back.arrive(number);
        if let Arrival::Next { lost } = arrival {
            self.report.lost += lost;
            self.answered(lost);
        }
        Some(arrival)
    }

    /// The frame of another generator comes. `None`: there are too many of them.
    fn arrive_from_other(&mut self, stamp: Stamp) -> Option<Arrival> {
        let known = self.others.iter().position(|o| o.stream == stamp.stream);
        let index = match known {
            Some(index) => index,
            None if self.others.len() < MAX_STREAMS => {
                self.others.push(Other {
                    stream: stamp.stream,
                    // Nobody knows how many there were before.
                    track: Track::new(stamp.number.into()),
                    newest: stamp.time,
                });
                self.others.len() - 1
            }
            None => return None,
        };
        let other = &mut self.others[index];
        let number = other.track.whole(stamp.number);
        // A lower number that was sent later: it counts from zero again.
        if number.is_none_or(|n| n < other.track.next()) && stamp.time > other.newest {
            self.report.lost += other.track.missing();
            other.track = Track::new(stamp.number.into());
        }
        let number = other.track.whole(stamp.number)?;
        if number >= other.track.next() {
            other.newest = stamp.time;
        }
        let arrival = other.track.arrive(number);
        if let Arrival::Next { lost } = arrival {
            self.report.lost += lost;
        }
        Some(arrival)
    }

    fn received(&mut self, len: usize) {
        self.report.received += 1;
        self.report.received_bytes += len as u64;
    }

    /// So many own frames have come back, or are lost.
    fn answered(&mut self, frames: u64) {
        self.report.unanswered = self.report.unanswered.saturating_sub(frames);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Content;
    use crate::plan;

    /// Frames of a generator, sent by `from` to `to`.
    struct Peer {
        config: Config,
        receiver: Receiver,
        pattern: Vec<u8>,
        number: u64,
    }

    impl Peer {
        fn new(text: &str) -> Self {
            let config: Config = text.parse().unwrap();
            let mut receiver = Receiver::new(&config);
            receiver.mac = Some(EthernetAddress([2; 6]));
            Self {
                config,
                receiver,
                pattern: (0..2000).map(|n| n as u8).collect(),
                number: 0,
            }
        }

        fn send(&mut self) -> Vec<u8> {
            let plan = plan::frame(&self.config, self.number);
            let mut payload = self.pattern.clone();
            payload[..stamp::LEN].copy_from_slice(&self.receiver.stamp().bytes());
            let content = Content {
                position: 0,
                port: 7,
                payload: &payload,
            };
            let mut out = vec![0; plan.len];
            let to = self.receiver.destination().unwrap();
            frame::make(&mut out, plan, self.receiver.own, to, content);
            self.receiver.sent(plan.protocol, plan.len);
            self.number += 1;
            out
        }

        fn take(&mut self, frame: &[u8]) -> Report {
            assert_eq!(self.receiver.take(frame, &self.pattern), None);
            self.receiver.report
        }
    }

    fn pair() -> [Peer; 2] {
        [
            Peer::new("to=10.0.0.2,from=10.0.0.1,traffic=udp,size=100"),
            Peer::new("to=10.0.0.1,from=10.0.0.2,traffic=udp,size=100"),
        ]
    }

    #[test]
    fn what_happens_to_frames_is_told() {
        let [mut a, mut b] = pair();
        let frames: Vec<_> = (0..10).map(|_| a.send()).collect();
        // 2 and 3 change places, 5 comes twice, 7 is damaged, 8 lost.
        for n in [0, 1, 3, 2, 4, 5, 5, 6] {
            b.take(&frames[n]);
        }
        let mut damaged = frames[7].clone();
        damaged[99] ^= 1;
        b.take(&damaged);
        let report = b.take(&frames[9]);
        assert_eq!((report.received, report.received_bytes), (8, 800));
        assert_eq!((report.reordered, report.duplicated), (1, 1));
        assert_eq!((report.damaged, report.lost, report.other), (1, 0, 0));
        assert_eq!(report.latency.count(), 8);
        // What is lost is sure when nobody waits any more.
        b.receiver.restart();
        assert_eq!(b.receiver.report.lost, 2);
        assert_eq!(a.receiver.report.unanswered, 10);
        a.receiver.restart();
        assert_eq!(
            (a.receiver.report.lost, a.receiver.report.unanswered),
            (10, 0)
        );
    }

    #[test]
    fn the_first_two_may_change_places() {
        let [mut a, mut b] = pair();
        let frames: Vec<_> = (0..6).map(|_| a.send()).collect();
        // And one between them is lost.
        for n in [4, 2, 5] {
            b.take(&frames[n]);
        }
        let report = b.receiver.report;
        assert_eq!((report.received, report.reordered), (3, 1));
        assert_eq!(b.take(&frames[2]).duplicated, 1);
        b.receiver.restart();
        assert_eq!(b.receiver.report.lost, 1);
    }

    #[test]
    fn one_that_begins_again_is_followed() {
        let [mut a, mut b] = pair();
        for _ in 0..5 {
            b.take(&a.send());
        }
        a.receiver.restart();
        a.receiver.mac = Some(EthernetAddress([2; 6]));
        a.send();
        let report = b.take(&a.send());
        assert_eq!(
            (report.received, report.duplicated, report.reordered),
            (6, 0, 0)
        );
        assert_eq!(report.lost, 0);
    }

    /// Turns an own frame into one that comes back.
    fn back(frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        let (src, dst) = (frame[26..30].to_vec(), frame[30..34].to_vec());
        frame[26..30].copy_from_slice(&dst);
        frame[30..34].copy_from_slice(&src);
        frame
    }

    #[test]
    fn what_was_never_sent_does_not_come_back() {
        let [mut a, _] = pair();
        let frames: Vec<_> = (0..3).map(|_| back(&a.send())).collect();
        assert_eq!(a.take(&frames[1]).received, 1);
        let mut forged = frames[2].clone();
        // The number.
        forged[42 + 7] = 9;
        let report = a.take(&forged);
        assert_eq!((report.other, report.received, report.lost), (1, 1, 0));
        a.receiver.restart();
        let report = a.take(&frames[0]);
        assert_eq!((report.other, report.lost, report.unanswered), (2, 2, 0));
    }

    #[test]
    fn streams_and_leaps_of_others_are_bounded() {
        let [mut a, mut b] = pair();
        let mut frame = a.send();
        for stream in 0..100u8 {
            frame[42 + 3] = stream;
            b.take(&frame);
        }
        assert_eq!(b.receiver.others.len(), MAX_STREAMS);
        assert_eq!(b.receiver.report.other, 100 - MAX_STREAMS as u64);
        frame[42 + 3] = 0;
        // The highest number that is ahead, again and again.
        for leap in 1..9u32 {
            let number = leap.wrapping_mul(0x7fff_ffff);
            frame[42 + 4..42 + 8].copy_from_slice(&number.to_be_bytes());
            b.take(&frame);
        }
        assert_eq!(b.receiver.report.received, MAX_STREAMS as u64 + 8);
    }

    #[test]
    fn answers_to_requests_are_counted_once() {
        for text in ["count=3", "count=3,to=fd00::2"] {
            answers_of(text);
        }
    }

    fn answers_of(text: &str) {
        let mut a = Peer::new(text);
        let guest = Station {
            mac: EthernetAddress([2, 0, 0, 0, 0, 9]),
            ip: a.config.to,
        };
        let own = a.receiver.own;
        let mut answer = vec![0; frame::neighbour_len(guest.ip)];
        frame::answer(&mut answer, guest, own);
        a.receiver.mac = None;
        a.receiver.sent(Protocol::Arp, 60);
        let report = a.take(&answer);
        assert_eq!((report.received, report.unanswered), (1, 0));
        assert_eq!(report.latency.count(), 1);
        assert_eq!(a.receiver.destination(), Some(guest));
        assert_eq!(a.take(&answer).received, 1);
        // One that asks is answered.
        let mut question = answer.clone();
        frame::ask(&mut question, guest, own.ip);
        assert_eq!(a.receiver.take(&question, &[]), Some(guest));
    }
}
