// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Frames and a link that suffer on their way between the card and what it is connected to.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use vm_memory::VolatileSlice;
use vnet_backend::{
    Attachment, Capabilities, Checksum, Endpoint, Error, Frame, Gso, GsoKind, Link, Losses, Meta,
    Offloads, Queue, Room, RxRing, MAX_FRAME,
};
use vnet_contract::queue::{rx_index, tx_index};

use crate::{Faults, Kind, Site};

/// Shortest frame: an Ethernet header.
const ETH_HLEN: usize = 14;
/// What an oversized frame has beyond its length, at most.
const MOST_EXTRA: usize = 4096;

/// Faults of which a frame can tell.
const OF_FRAMES: &[Kind] = &[
    Kind::FrameLost,
    Kind::FrameCorrupt,
    Kind::FrameTruncated,
    Kind::FrameOversized,
    Kind::FrameDuplicated,
    Kind::FrameReordered,
    Kind::BadChecksum,
    Kind::BadSegments,
];

/// An endpoint whose frames and link suffer.
pub struct Faulty {
    inner: Box<dyn Endpoint>,
    faults: Arc<Faults>,
    card: Site,
}

impl Faulty {
    /// Stands before an endpoint.
    pub fn new(inner: Box<dyn Endpoint>, faults: Arc<Faults>) -> Self {
        Self {
            inner,
            card: Site::card(Arc::clone(&faults)),
            faults,
        }
    }

    /// Stands before the queue of this pair, of an endpoint that was opened without faults.
    pub fn queue(inner: Box<dyn Queue>, pair: u16, faults: &Arc<Faults>) -> Box<dyn Queue> {
        let lane = |queue| Lane::new(Site::queue(Arc::clone(faults), queue));
        Box::new(FaultyQueue {
            inner,
            rx: lane(rx_index(pair)),
            tx: lane(tx_index(pair)),
        })
    }
}

impl Endpoint for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn link(&self) -> Link {
        let link = self.inner.link();
        match self.card.hit(Kind::LinkDown) {
            Some(_) => Link { up: false, ..link },
            None => link,
        }
    }

    fn open(&mut self, queues: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
        let queues = (0..).zip(self.inner.open(queues)?);
        Ok(queues
            .map(|(pair, inner)| Self::queue(inner, pair, &self.faults))
            .collect())
    }

    fn set_offloads(&mut self, receive: Offloads) {
        self.inner.set_offloads(receive);
    }

    fn missed(&self) -> u64 {
        self.inner.missed()
    }
}

struct FaultyQueue {
    inner: Box<dyn Queue>,
    rx: Lane,
    tx: Lane,
}

/// One direction.
struct Lane {
    site: Site,
    /// A frame that the next one overtakes.
    held: Option<Copied>,
    /// What has yet to go on, in its order. No frame is looked at before these are gone, so they are few: one,
    /// once more, and the one that it overtook.
    owed: VecDeque<Copied>,
    /// The frame in whose place they go on, as it came. Of sent ones only: it is the card's for as long as the
    /// backend does not take all that is owed, so that the worker waits for the backend.
    judged: Option<Copied>,
}

/// A frame apart from the buffers it came in.
#[derive(Clone, PartialEq)]
struct Copied {
    bytes: Vec<u8>,
    meta: Meta,
}

impl Copied {
    fn of(frame: &Frame<'_>) -> Self {
        let mut bytes = vec![0; frame.len];
        frame.read(&mut bytes);
        Self {
            bytes,
            meta: frame.meta,
        }
    }
}

impl Lane {
    fn new(site: Site) -> Self {
        Self {
            site,
            held: None,
            owed: VecDeque::new(),
            judged: None,
        }
    }

    fn is_quiet(&self) -> bool {
        self.held.is_none() && self.owed.is_empty() && !self.site.may(OF_FRAMES)
    }

    /// Decides what becomes of a frame: what goes on in its place is owed.
    fn suffer(&mut self, mut frame: Copied) {
        let site = &self.site;
        if site.hit(Kind::FrameLost).is_some() {
            return;
        }
        let len = frame.bytes.len();
        if let Some(hit) = site.hit(Kind::FrameCorrupt) {
            let bit = hit.random as usize % (8 * len);
            frame.bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if let Some(hit) = site.hit(Kind::FrameTruncated) {
            frame
                .bytes
                .truncate(ETH_HLEN + hit.random as usize % (len - ETH_HLEN).max(1));
            // What it says of places in the frame does not hold any more.
            frame.meta = Meta::default();
        }
        if let Some(hit) = site.hit(Kind::FrameOversized) {
            let extra = 1 + hit.random as usize % MOST_EXTRA;
            let len = frame.bytes.len().max(MOST_EXTRA) + extra;
            frame.bytes.resize(len.min(MAX_FRAME), hit.random as u8);
            frame.meta = Meta::default();
        }
        if let Some(hit) = site.hit(Kind::BadChecksum) {
            frame.meta.checksum = wrong_checksum(frame.meta.checksum, hit.random);
        }
        if let Some(hit) = site.hit(Kind::BadSegments) {
            frame.meta.gso = Some(wrong_segments(hit.random));
        }
        let twice = site.hit(Kind::FrameDuplicated).is_some();
        if self.held.is_none() && site.hit(Kind::FrameReordered).is_some() {
            self.held = Some(frame);
            return;
        }
        if twice {
            self.owed.push_back(frame.clone());
        }
        self.owed.push_back(frame);
        self.owed.extend(self.held.take());
    }

    /// Passes on what is owed for as long as it is taken. True if nothing is left.
    fn settle(&mut self, mut pass: impl FnMut(&mut Copied) -> bool) -> bool {
        while let Some(next) = self.owed.front_mut() {
            if !pass(next) {
                return false;
            }
            self.owed.pop_front();
        }
        true
    }

    fn forget(&mut self) {
        self.held = None;
        self.owed.clear();
        self.judged = None;
    }
}

/// The opposite of a verdict, or places that no frame has.
fn wrong_checksum(right: Checksum, random: u64) -> Checksum {
    match right {
        _ if random & 1 == 0 => Checksum::Partial {
            start: (random >> 16) as u16 | 0x8000,
            offset: (random >> 32) as u16,
        },
        Checksum::Unverified => Checksum::Valid,
        Checksum::Valid | Checksum::Partial { .. } => Checksum::Unverified,
    }
}

fn wrong_segments(random: u64) -> Gso {
    let kinds = [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::Udp];
    Gso {
        kind: kinds[(random >> 8) as usize % kinds.len()],
        ecn: false,
        size: [0, 1, u16::MAX, (random >> 16) as u16][(random & 3) as usize],
        hdr_len: (random >> 32) as u16,
    }
}

impl FaultyQueue {
    /// Sends what is owed; true if the backend took all of it.
    fn send_owed(&mut self) -> bool {
        let inner = &mut self.inner;
        self.tx.settle(|copied| {
            let frame = Frame {
                meta: copied.meta,
                len: copied.bytes.len(),
                parts: &[VolatileSlice::from(&mut copied.bytes[..])],
            };
            inner.transmit(&[frame]) == 1
        })
    }
}

impl Queue for FaultyQueue {
    fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
        if self.tx.is_quiet() || batch.is_empty() {
            return self.inner.transmit(batch);
        }
        if self.tx.site.has_begun() {
            // Its frames are others, whatever they look like.
            self.tx.judged = None;
        }
        if !self.send_owed() {
            return 0;
        }
        // The frame that was judged comes again, unless it was dropped meanwhile.
        let again = batch.first().is_some_and(|frame| {
            let judged = self.tx.judged.take();
            judged.is_some_and(|judged| judged == Copied::of(frame))
        });
        for (n, frame) in batch.iter().enumerate().skip(usize::from(again)) {
            self.tx.suffer(Copied::of(frame));
            if !self.send_owed() {
                self.tx.judged = Some(Copied::of(frame));
                return n;
            }
        }
        batch.len()
    }

    fn offloads(&self) -> Offloads {
        self.inner.offloads()
    }

    fn receive(&mut self, ring: &mut dyn RxRing) {
        if self.rx.is_quiet() {
            return self.inner.receive(ring);
        }
        let mut ring = FaultyRing {
            inner: ring,
            lane: &mut self.rx,
        };
        ring.deliver_owed();
        self.inner.receive(&mut ring);
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.inner.readiness()
    }

    fn deadline(&self) -> Option<Instant> {
        self.inner.deadline()
    }

    fn owes(&self) -> Option<Instant> {
        self.inner.owes()
    }

    fn has_work(&self) -> bool {
        self.inner.has_work()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn attachment(&self) -> Option<Box<dyn Attachment>> {
        self.inner.attachment()
    }

    fn has_frames(&self) -> bool {
        !self.rx.owed.is_empty() || self.inner.has_frames()
    }

    fn losses(&self) -> Losses {
        self.inner.losses()
    }

    fn reset(&mut self) {
        self.rx.forget();
        self.tx.forget();
        self.inner.reset();
    }

    fn disconnect(&mut self) {
        self.inner.disconnect();
    }
}

/// A receive ring as the endpoint sees it.
struct FaultyRing<'r> {
    inner: &'r mut dyn RxRing,
    lane: &'r mut Lane,
}

impl FaultyRing<'_> {
    /// Delivers what is owed; true if there was room for all of it.
    fn deliver_owed(&mut self) -> bool {
        self.lane.settle(|copied| {
            let Some(room) = self.inner.room(copied.bytes.len()) else {
                return false;
            };
            let len = room.write(&copied.bytes);
            self.inner.commit(len, copied.meta);
            true
        })
    }
}

impl RxRing for FaultyRing<'_> {
    fn room(&mut self, len: usize) -> Option<Room<'_>> {
        match self.deliver_owed() {
            true => self.inner.room(len),
            false => None,
        }
    }

    fn commit(&mut self, len: usize, meta: Meta) {
        // Asked for once more, the room is the same, with the frame in it.
        let Some(room) = self.inner.room(len).filter(|_| len >= ETH_HLEN) else {
            return;
        };
        let copied = Copied::of(&Frame {
            meta,
            len,
            parts: room.parts,
        });
        self.lane.suffer(copied);
        self.deliver_owed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use vnet_backend::mock;

    type Frames = Vec<(Vec<u8>, Meta)>;

    /// Keeps what was sent, and delivers what is put in.
    #[derive(Clone, Default)]
    struct Medium {
        sent: Arc<Mutex<Frames>>,
        waiting: Arc<Mutex<VecDeque<Vec<u8>>>>,
        /// How many more frames it takes, if it does not take all.
        room: Arc<Mutex<Option<usize>>>,
        /// Batches without frames.
        empty: Arc<Mutex<usize>>,
    }

    impl Endpoint for Medium {
        fn capabilities(&self) -> Capabilities {
            Capabilities {
                receive: Offloads::ALL,
                max_queues: 1,
                max_mtu: 1500,
            }
        }

        fn open(&mut self, _: u16) -> Result<Vec<Box<dyn Queue>>, Error> {
            Ok(vec![Box::new(self.clone())])
        }

        fn set_offloads(&mut self, _: Offloads) {}
    }

    impl Queue for Medium {
        fn transmit(&mut self, batch: &[Frame<'_>]) -> usize {
            *self.empty.lock().unwrap() += usize::from(batch.is_empty());
            for (n, frame) in batch.iter().enumerate() {
                match &mut *self.room.lock().unwrap() {
                    Some(0) => return n,
                    Some(left) => *left -= 1,
                    None => {}
                }
                let mut bytes = vec![0; frame.len];
                frame.read(&mut bytes);
                self.sent.lock().unwrap().push((bytes, frame.meta));
            }
            batch.len()
        }

        fn receive(&mut self, ring: &mut dyn RxRing) {
            let mut waiting = self.waiting.lock().unwrap();
            while let Some(frame) = waiting.front() {
                let Some(room) = ring.room(frame.len()) else {
                    return;
                };
                let len = room.write(frame);
                ring.commit(len, Meta::default());
                waiting.pop_front();
            }
        }
    }

    /// Frame `n`, of 60 bytes.
    fn frame(n: u8) -> Vec<u8> {
        vec![n; 60]
    }

    /// What becomes of `count` frames under a plan, sent and received: that must not differ.
    fn passed(plan: &str, count: u8) -> Frames {
        let (sent, received) = both(plan, count);
        assert_eq!(sent, received, "{plan}");
        sent
    }

    fn planned(plan: &str) -> (Medium, Box<dyn Queue>) {
        let faults = Arc::new(Faults::default());
        faults.load(&plan.parse().unwrap());
        let medium = Medium::default();
        let mut endpoint = Faulty::new(Box::new(medium.clone()), faults);
        (medium, endpoint.open(1).unwrap().remove(0))
    }

    fn both(plan: &str, count: u8) -> (Frames, Frames) {
        // Sites differ, so chance would treat the directions differently.
        let run = |direction| planned(&plan.replace("QUEUE", direction));
        let (medium, mut queue) = run("tx");
        for n in 0..count {
            assert!(mock::transmit(queue.as_mut(), &frame(n), Meta::default()));
        }
        let sent = medium.sent.lock().unwrap().clone();
        let (medium, mut queue) = run("rx");
        medium.waiting.lock().unwrap().extend((0..count).map(frame));
        (sent, mock::receive(queue.as_mut(), 1000, 10_000))
    }

    fn numbers(frames: &Frames) -> Vec<u8> {
        frames.iter().map(|(bytes, _)| bytes[20]).collect()
    }

    #[test]
    fn without_a_fault_frames_pass() {
        for plan in ["", "frame-lost at=9", "stall"] {
            let frames = passed(plan, 3);
            let expected: Vec<_> = (0..3).map(|n| (frame(n), Meta::default())).collect();
            assert_eq!(frames, expected);
        }
    }

    #[test]
    fn frames_are_lost_doubled_and_overtaken() {
        for (plan, order) in [
            ("frame-lost every=2", &[0, 2, 4][..]),
            ("frame-duplicated at=2", &[0, 1, 1, 2, 3, 4]),
            ("frame-reordered at=2", &[0, 2, 1, 3, 4]),
            // One at a time: the third is not held, as the second is.
            ("frame-reordered", &[1, 0, 3, 2]),
        ] {
            assert_eq!(numbers(&passed(plan, 5)), order, "{plan}");
        }
    }

    #[test]
    fn one_bit_of_a_frame_changes() {
        let (sent, received) = both("frame-corrupt at=2 queue=QUEUE", 3);
        for frames in [sent, received] {
            for (n, (bytes, _)) in (0..).zip(&frames) {
                let pairs = bytes.iter().zip(frame(n));
                let bits: u32 = pairs.map(|(a, b)| (a ^ b).count_ones()).sum();
                assert_eq!(bits, u32::from(n == 1));
            }
        }
    }

    #[test]
    fn frames_get_shorter_and_longer() {
        let (sent, received) = both("frame-truncated", 50);
        for (n, (bytes, _)) in (0..50).cycle().zip(sent.iter().chain(&received)) {
            assert!((ETH_HLEN..60).contains(&bytes.len()));
            assert_eq!(bytes[..], frame(n)[..bytes.len()]);
        }
        let (sent, received) = both("frame-oversized", 50);
        for (n, (bytes, _)) in (0..50).cycle().zip(sent.iter().chain(&received)) {
            assert!((MOST_EXTRA + 1..=2 * MOST_EXTRA).contains(&bytes.len()));
            assert_eq!(bytes[..60], frame(n));
        }
    }

    #[test]
    fn verdicts_on_received_frames_are_wrong() {
        let (sent, received) = both("bad-checksum\nbad-segments", 50);
        assert!(sent.iter().all(|(_, meta)| *meta == Meta::default()));
        let beyond = |meta: &Meta| match meta.checksum {
            Checksum::Partial { start, .. } => start >= 0x8000,
            checksum => checksum == Checksum::Valid,
        };
        assert!(received.iter().all(|(_, meta)| beyond(meta)));
        assert!(received.iter().any(|(_, m)| m.checksum == Checksum::Valid));
        assert!(received.iter().any(|(_, m)| m.checksum != Checksum::Valid));
        let sizes: Vec<_> = received.iter().map(|(_, m)| m.gso.unwrap().size).collect();
        assert!(sizes.contains(&0) && sizes.contains(&1) && sizes.contains(&u16::MAX));
        assert_eq!(numbers(&received), (0..50).collect::<Vec<_>>());
    }

    /// All that can happen to a frame, often more than one thing at once.
    const ALL: &str = "seed=3
        frame-lost rate=1/7
        frame-corrupt rate=1/3
        frame-truncated rate=1/5
        frame-oversized rate=1/9
        frame-duplicated rate=1/3
        frame-reordered rate=1/3";

    #[test]
    fn a_backend_that_is_slow_loses_nothing_and_changes_nothing() {
        let (due, _) = both(ALL, 200);
        for room in 1..5 {
            let (medium, mut queue) = planned(ALL);
            let mut next = 0;
            while next < 200 {
                *medium.room.lock().unwrap() = Some(room);
                let mut bytes: Vec<_> = (next..200).take(7).map(frame).collect();
                let parts: Vec<_> = bytes
                    .iter_mut()
                    .map(|bytes| [VolatileSlice::from(&mut bytes[..])])
                    .collect();
                let batch: Vec<_> = parts
                    .iter()
                    .map(|parts| Frame {
                        meta: Meta::default(),
                        len: parts[0].len(),
                        parts,
                    })
                    .collect();
                next += queue.transmit(&batch) as u8;
            }
            assert!(*medium.sent.lock().unwrap() == due, "{room}");
        }
    }

    #[test]
    fn a_driver_that_is_slow_loses_nothing_and_changes_nothing() {
        let (_, due) = both(ALL, 200);
        for buffers in 1..5 {
            let (medium, mut queue) = planned(ALL);
            medium.waiting.lock().unwrap().extend((0..200).map(frame));
            let mut got = Vec::new();
            while queue.has_frames() || !medium.waiting.lock().unwrap().is_empty() {
                got.extend(mock::receive(queue.as_mut(), buffers, 10_000));
            }
            assert!(got == due, "{buffers}");
        }
    }

    #[test]
    fn only_what_is_taken_comes_back_to_the_driver() {
        let (medium, mut queue) = planned("frame-corrupt at=1");
        *medium.room.lock().unwrap() = Some(2);
        let mut send = |n| mock::transmit(queue.as_mut(), &frame(n), Meta::default());
        assert_eq!([1, 2, 3, 3].map(&mut send), [true, true, false, false]);
        *medium.room.lock().unwrap() = None;
        assert!(send(3) && send(4));
        assert_eq!(numbers(&medium.sent.lock().unwrap())[1..], [2, 3, 4]);
    }

    /// Nobody receives: it is how a line behind the faults gets on with its frames.
    #[test]
    fn a_batch_without_frames_gets_to_the_endpoint_and_is_not_judged() {
        let (medium, mut queue) = planned("frame-duplicated at=1");
        *medium.room.lock().unwrap() = Some(1);
        let mut send = |n| mock::transmit(queue.as_mut(), &frame(n), Meta::default());
        assert!(!send(1));
        assert_eq!(queue.transmit(&[]), 0);
        assert_eq!(*medium.empty.lock().unwrap(), 1);
        *medium.room.lock().unwrap() = None;
        assert!(mock::transmit(queue.as_mut(), &frame(1), Meta::default()));
        assert_eq!(numbers(&medium.sent.lock().unwrap()), [1, 1]);
    }

    /// A driver may stop its queue, and start it with other frames. The fate of one is not that of another.
    #[test]
    fn a_frame_that_does_not_come_again_costs_no_other() {
        let (medium, mut queue) = planned("frame-duplicated at=1\nframe-lost at=4");
        *medium.room.lock().unwrap() = Some(1);
        let mut send = |n| mock::transmit(queue.as_mut(), &frame(n), Meta::default());
        assert!(!send(1));
        *medium.room.lock().unwrap() = None;
        assert!([2, 3, 4, 5].map(&mut send).iter().all(|sent| *sent));
        assert_eq!(numbers(&medium.sent.lock().unwrap()), [1, 1, 2, 3, 5]);
    }

    /// A request that is sent again because the queue was started anew is another frame.
    #[test]
    fn of_a_queue_that_was_started_anew_no_frame_is_an_old_one() {
        let faults = Arc::new(Faults::default());
        faults.load(&"frame-lost at=9".parse().unwrap());
        let medium = Medium::default();
        let site = Site::queue(Arc::clone(&faults), tx_index(0));
        let mut queue = Faulty::queue(Box::new(medium.clone()), 0, &faults);
        let mut send = || mock::transmit(queue.as_mut(), &frame(7), Meta::default());
        site.begin();
        *medium.room.lock().unwrap() = Some(0);
        assert!(!send() && !send());
        site.begin();
        assert!(!send());
        *medium.room.lock().unwrap() = None;
        assert!(send());
        // What was to become of the first one does so all the same.
        assert_eq!(numbers(&medium.sent.lock().unwrap()), [7, 7]);
        let report = faults.report();
        assert_eq!(report, ["fault in line 1, frame-lost: 0 of 2 events"]);
    }

    #[test]
    fn a_reset_forgets_the_frames_that_wait() {
        let (medium, mut queue) = planned("frame-reordered at=1\nframe-duplicated at=3");
        mock::transmit(queue.as_mut(), &frame(0), Meta::default());
        queue.reset();
        mock::transmit(queue.as_mut(), &frame(1), Meta::default());
        assert_eq!(numbers(&medium.sent.lock().unwrap()), [1]);
        *medium.room.lock().unwrap() = Some(1);
        mock::transmit(queue.as_mut(), &frame(2), Meta::default());
        queue.reset();
        *medium.room.lock().unwrap() = None;
        mock::transmit(queue.as_mut(), &frame(3), Meta::default());
        assert_eq!(numbers(&medium.sent.lock().unwrap()), [1, 2, 3]);
    }

    #[test]
    fn the_link_goes_down_and_comes_back() {
        let faults = Arc::new(Faults::default());
        faults.load(&"link-down every=2".parse().unwrap());
        let endpoint = Faulty::new(Box::new(Medium::default()), faults);
        let seen = [(); 4].map(|()| endpoint.link().up);
        assert_eq!(seen, [true, false, true, false]);
    }
}
