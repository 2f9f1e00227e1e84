// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The generator, and a guest that returns what it gets, or something else.

use arbitrary::{Result, Unstructured};
use vnet_backend::{mock, Endpoint, Meta, Queue, MAX_FRAME};
use vnet_generator::{Config, Counters, Generator, Report};

use crate::frames;
use crate::input::{bytes, index, mostly, rarely};

const TRAFFIC: [&str; 6] = [
    "to=10.77.0.2",
    "to=10.77.0.2,mac=52:54:00:01:02:03,traffic=icmp+udpx3+tcp,flows=3",
    "to=10.77.0.2,traffic=udp,size=imix",
    "from=fd76:6e65:7400::1,to=fd76:6e65:7400::2,traffic=icmp+udp+tcp",
    "from=fd76:6e65:7400::1,to=fd76:6e65:7400::2,mac=52:54:00:01:02:03,traffic=tcp",
    "to=10.77.0.2,mac=52:54:00:01:02:03,traffic=udp,size=60x3+65535,count=20",
];
/// Frames that the guest remembers.
const REMEMBERED: usize = 64;

/// Traffic by a description that may be anything, and frames that come back late, twice, changed, forged, or
/// not at all. Each that comes is counted once; what was sent has come, is lost, or may yet come.
pub fn generator(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let Some(config) = config(u)? else {
        return Ok(());
    };
    let mut generator = Generator::new(config);
    let counters = generator.counters();
    let count = u.int_in_range(1..=2)?;
    let mut queues = generator.open(count).expect("opens");
    let mut guest = Guest::default();
    while !u.is_empty() {
        let queue = &mut *queues[usize::from(u.int_in_range(0..=count - 1)?)];
        let before = counters.report();
        match u.int_in_range(0..=9)? {
            0..=3 => guest.receive(queue, u.int_in_range(0..=20)?, &before, &counters),
            4..=8 => {
                let frame = guest.frame(u)?;
                assert!(mock::transmit(queue, &frame, Meta::default()));
                look_at_arrival(&before, &counters.report());
            }
            _ => queue.reset(),
        }
        queue.deadline();
        queue.has_frames();
        let report = counters.report();
        only_grows(&before, &report);
        assert!(report.sent <= report.received + report.lost + report.unanswered);
        assert!(!report.to_string().contains('\n'));
    }
    Ok(())
}

/// What to send; `None` if that is not a description of traffic.
fn config(u: &mut Unstructured<'_>) -> Result<Option<Config>> {
    let mut text = u.choose(&TRAFFIC)?.to_string();
    if rarely(u, 3)? {
        text += &format!(",{}", String::from_utf8_lossy(bytes(u, 30)?));
    }
    match text.parse::<Config>() {
        Ok(config) => {
            // It is shown as it could have been written.
            assert_eq!(config.to_string().parse().as_ref(), Ok(&config));
            // Faster than a guest takes it, or nothing would come in so short a time.
            let config = format!("{text},full").parse().unwrap_or(config);
            Ok(Some(config))
        }
        Err(e) => {
            assert!(!e.to_string().is_empty());
            Ok(None)
        }
    }
}

fn look_at_arrival(before: &Report, after: &Report) {
    let arrived = |r: &Report| r.received + r.duplicated + r.damaged + r.other;
    let late = after.reordered - before.reordered;
    let counted = arrived(after) - arrived(before);
    // One that was lost already is late and no more; a question for the own address is none of these.
    assert!(counted <= 1 && late <= 1);
    assert_eq!(after.sent, before.sent);
}

fn only_grows(before: &Report, after: &Report) {
    let counts = |r: &Report| {
        [
            r.sent,
            r.sent_bytes,
            r.received,
            r.received_bytes,
            r.lost,
            r.reordered,
            r.duplicated,
            r.damaged,
            r.other,
        ]
    };
    let pairs = counts(before).into_iter().zip(counts(after));
    assert!(pairs.into_iter().all(|(was, is)| was <= is));
}

/// A guest, with the frames that it was sent.
#[derive(Default)]
struct Guest(Vec<Vec<u8>>);

impl Guest {
    fn receive(
        &mut self,
        queue: &mut dyn Queue,
        most: usize,
        before: &Report,
        counters: &Counters,
    ) {
        let frames = mock::receive(queue, most, MAX_FRAME);
        let sent = counters.report().sent - before.sent;
        // The others ask for an address, or answer that.
        assert!(sent <= frames.len() as u64 && frames.len() <= most);
        for (frame, meta) in frames {
            assert!((60..=MAX_FRAME).contains(&frame.len()));
            assert_eq!(meta, Meta::default());
            if self.0.len() == REMEMBERED {
                self.0.remove(0);
            }
            self.0.push(frame);
        }
    }

    /// What the guest sends.
    fn frame(&self, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        if self.0.is_empty() || rarely(u, 6)? {
            return Ok(frames::frame(u)?.0);
        }
        let mut frame = self.0[index(u, self.0.len())?].clone();
        if !rarely(u, 6)? {
            turn_round(&mut frame);
        }
        if rarely(u, 3)? {
            for _ in 0..u.int_in_range(1..=4)? {
                let at = index(u, frame.len().min(100))?;
                frame[at] = mostly(u, &[0, 0xff])?;
            }
        }
        if rarely(u, 6)? {
            frame.truncate(index(u, frame.len())?);
        }
        Ok(frame)
    }
}

/// Sends a frame back: an answer to ARP, or what was sent, with the addresses of both ends swapped.
fn turn_round(frame: &mut [u8]) {
    let (head, rest) = frame.split_at_mut(14);
    let (to, from) = head.split_at_mut(6);
    to.swap_with_slice(&mut from[..6]);
    let (at, len) = match [head[12], head[13]] {
        [8, 0] => (12, 4),
        [0x86, 0xdd] => (8, 16),
        [8, 6] => {
            // The answer to a request; the addresses are the sender's and the other's.
            rest[7] = 2;
            let (sender, other) = rest[8..28].split_at_mut(10);
            sender.swap_with_slice(other);
            sender[..6].copy_from_slice(&[0x52, 0x54, 0, 1, 2, 3]);
            return;
        }
        _ => return,
    };
    let (source, target) = rest[at..at + 2 * len].split_at_mut(len);
    source.swap_with_slice(target);
}
