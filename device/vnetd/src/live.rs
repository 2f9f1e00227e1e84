// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Pictures of the cards for the page: all of them in short, and one in full.

use std::collections::VecDeque;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::{json, Map, Value};
use vnet_capture::{now, Seen, Stages, Watch};
use vnet_card::{Picture, QueueReport};
use vnet_contract::queue::{kind, Error as QueueError, Kind};

use crate::decode::decode;
use crate::step::name;
use crate::views::{View, Views};
use crate::words;

/// Frames that are in each picture: so many of each queue, so that none goes under beside a busy one, and
/// of many queues fewer.
const FRAMES: usize = 48;
const OF_QUEUE: RangeInclusive<usize> = 2..=12;

/// Somebody who looks at a card. Its queues tell of their frames as long as this is there.
pub(crate) struct Live {
    /// Its name; empty: there is none.
    card: String,
    views: Views,
    /// Of each queue.
    watches: Vec<Watch>,
    /// The latest of each queue, oldest first, with the time of each.
    frames: Vec<VecDeque<(u64, Value)>>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.watches.iter().for_each(Watch::end);
    }
}

impl Live {
    pub(crate) fn new(card: String, views: Views) -> Self {
        Self {
            card,
            views,
            watches: Vec::new(),
            frames: Vec::new(),
        }
    }

    /// A picture of now. Waits for batches of the card that is shown in full, and for nobody else.
    pub(crate) fn picture(&mut self) -> Value {
        let views = self.views.load_full();
        let shown = views.iter().find(|view| view.name.as_str() == self.card);
        json!({
            "time-us": now() / 1000,
            "cards": views.iter().map(|view| short(view)).collect::<Vec<_>>(),
            "card": shown.map(|view| self.full(view)),
        })
    }

    fn full(&mut self, view: &Arc<View>) -> Value {
        let operator = &view.operator;
        let net = view.net().to_string();
        let count = operator.queue_count();
        while self.watches.len() < count.into() {
            self.watches.push(Watch::new());
            self.frames.push(VecDeque::new());
        }
        let queues: Vec<_> = (0..count)
            .zip(operator.queues())
            .zip(&self.watches)
            .map(|((queue, report), watch)| {
                let picture = operator.look(queue, watch);
                let paused = operator.is_paused(queue);
                let next = paused.then(|| operator.next_step(queue)).flatten();
                let next = next.map(|next| words::next(next, kind(queue), &net));
                let mut value = describe(queue, &report);
                value["paused"] = paused.into();
                value["next"] = json!(next);
                value["ring"] = json!(picture.as_ref().map(ring));
                value
            })
            .collect();
        let frames = self.latest(count);
        json!({
            "name": view.name.as_str(),
            "net": net,
            "queues": queues,
            "frames": frames,
        })
    }

    /// The latest frames of so many queues in their order, with those that came since the last picture.
    fn latest(&mut self, count: u16) -> Vec<&Value> {
        let most = FRAMES / usize::from(count);
        let most = most.clamp(*OF_QUEUE.start(), *OF_QUEUE.end());
        for (queue, (watch, frames)) in (0u16..).zip(self.watches.iter().zip(&mut self.frames)) {
            for seen in watch.take() {
                frames.push_back((seen.stages.fetch, frame(queue, &seen)));
            }
            let old = frames.len().saturating_sub(most);
            frames.drain(..old);
        }
        let mut latest: Vec<_> = self.frames.iter().flatten().collect();
        latest.sort_by_key(|(time, _)| *time);
        latest.into_iter().map(|(_, frame)| frame).collect()
    }
}

fn short(view: &View) -> Value {
    json!({
        "name": view.name.as_str(),
        "failed": view.failed,
        "net": view.net().to_string(),
        "up": view.operator.link().link.up,
        "paused": (0..view.operator.queue_count()).any(|queue| view.operator.is_paused(queue)),
    })
}

fn describe(queue: u16, report: &QueueReport) -> Value {
    let c = report.counters;
    let reasons = report.drops.iter().filter(|(_, count)| *count > 0);
    let reasons: Map<_, _> = reasons
        .map(|(reason, count)| (reason.name().into(), count.into()))
        .collect();
    json!({
        "queue": name(queue),
        "direction": match kind(queue) {
            Kind::Rx => "receive",
            Kind::Tx => "transmit",
        },
        "error": QueueError::from_code(report.error).map(|e| e.name()),
        "frames": c.frames,
        "bytes": c.bytes,
        "drops": c.drops,
        "reasons": reasons,
        "doorbells": c.doorbells,
        "interrupts": c.interrupts,
    })
}

fn ring(picture: &Picture) -> Value {
    json!({
        "size": picture.size,
        "avail": picture.avail,
        "next-avail": picture.next_avail,
        "used": picture.used,
        "used-event": picture.used_event,
        "avail-event": picture.avail_event,
        "owned": runs(&picture.owned),
    })
}

/// The stretches of descriptors that the card owns: first and number.
fn runs(owned: &[bool]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, _) in owned.iter().enumerate().filter(|(_, &owned)| owned) {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == at => *count += 1,
            _ => runs.push((at, 1)),
        }
    }
    runs
}

fn frame(queue: u16, seen: &Seen) -> Value {
    let mut start = String::new();
    for byte in &seen.start {
        // Writing to a string does not fail.
        let _ = write!(start, "{byte:02x}");
    }
    let chains = seen.chains.iter();
    let chains: Vec<_> = chains
        .map(|chain| {
            json!({
                "head": chain.head,
                "descriptors": chain.count,
                "counted": chain.is_counted(),
                "table": chain.indirect,
            })
        })
        .collect();
    json!({
        "queue": name(queue),
        "number": seen.number,
        "bytes": seen.len,
        "segments-of": seen.meta.gso.map(|gso| gso.size),
        "text": decode(&seen.start),
        "start": start,
        "time-us": seen.stages.fetch / 1000,
        "stages": stages(&seen.stages),
        "chains": chains,
    })
}

/// When the frame was where, in nanoseconds from the fetch on; the doorbell was before.
fn stages(stages: &Stages) -> Value {
    let Stages {
        doorbell,
        fetch,
        backend,
        done,
        used,
        interrupt,
    } = *stages;
    let since = |time: u64| (time != 0).then(|| time.wrapping_sub(fetch) as i64);
    json!({
        "doorbell": since(doorbell),
        "backend": since(backend),
        "done": since(done),
        "used": since(used),
        "interrupt": since(interrupt),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_told_by_their_ends() {
        let owned = |text: &str| text.bytes().map(|b| b == b'x').collect::<Vec<_>>();
        for (text, due) in [
            ("", vec![]),
            ("..", vec![]),
            ("xx.x", vec![(0, 2), (3, 1)]),
            ("xxxx", vec![(0, 4)]),
        ] {
            assert_eq!(runs(&owned(text)), due, "{text}");
        }
    }

    #[test]
    fn a_stage_that_was_not_has_no_time() {
        let told = stages(&Stages {
            doorbell: 900,
            fetch: 1000,
            backend: 1500,
            done: 1700,
            used: 1800,
            interrupt: 0,
        });
        assert_eq!(
            told,
            json!({"doorbell": -100, "backend": 500, "done": 700, "used": 800, "interrupt": null})
        );
    }
}
