// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Trace events: the format that Chrome's tracing began with, and that Perfetto reads. A process is a card,
//! and its threads are tracks: of each queue, of each thread that served one, and of what went wrong.

use std::io::{BufWriter, Write};

use serde_json::{json, Value};

use crate::batch::Batch;
use crate::read::Event;
use crate::Error;

/// Numbers of tracks: of the events, of threads from here on, and of queues from there.
const EVENTS: usize = 1;
const THREADS: usize = 2;
const QUEUES: usize = 1000;
/// Tracks that a queue may have: batches that overlap are beside each other, such as one that waits for its
/// interrupt and the next. A batch beyond that is left out.
const MAX_LANES: usize = 32;

/// The tracks of a card.
#[derive(Debug)]
struct Card {
    name: String,
    threads: Vec<String>,
    queues: Vec<Queue>,
}

#[derive(Debug)]
struct Queue {
    name: String,
    /// When the last batch of each lane ends.
    lanes: Vec<i64>,
}

/// Writes events.
struct Out<W: Write> {
    out: BufWriter<W>,
    first: bool,
    /// Times count from here on.
    base: i64,
}

pub(crate) fn write(batches: &[Batch], events: &[Event], out: impl Write) -> Result<(), Error> {
    let starts = batches.iter().map(Batch::from);
    let times = events.iter().map(|event| event.time);
    let mut out = Out {
        out: BufWriter::new(out),
        first: true,
        base: starts.chain(times).min().unwrap_or(0),
    };
    let mut cards: Vec<Card> = Vec::new();
    out.out
        .write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    for (id, batch) in (1u64..).zip(batches) {
        let card = place(&mut cards, &batch.first().card);
        out.batch(id, batch, card, &mut cards[card])?;
    }
    for event in events {
        let card = place(&mut cards, &event.card);
        let ts = out.time(event.time);
        out.event(json!({
            "name": event.text, "cat": "event", "ph": "i", "s": "p",
            "pid": card + 1, "tid": EVENTS, "ts": ts,
        }))?;
    }
    for (n, card) in cards.iter().enumerate() {
        out.names(n + 1, card)?;
    }
    out.out.write_all(b"\n]}\n")?;
    Ok(out.out.flush()?)
}

fn place(cards: &mut Vec<Card>, name: &str) -> usize {
    let found = cards.iter().position(|card| card.name == name);
    found.unwrap_or_else(|| {
        cards.push(Card {
            name: name.into(),
            threads: Vec::new(),
            queues: Vec::new(),
        });
        cards.len() - 1
    })
}

impl Card {
    /// The track of a thread.
    fn thread(&mut self, name: &str) -> usize {
        let found = self.threads.iter().position(|thread| thread == name);
        let at = found.unwrap_or_else(|| {
            self.threads.push(name.into());
            self.threads.len() - 1
        });
        THREADS + at
    }

    /// A track of a queue that is free from `from` on, and is taken until `to` then.
    fn lane(&mut self, name: &str, from: i64, to: i64) -> Option<usize> {
        let found = self.queues.iter().position(|queue| queue.name == name);
        let queue = found.unwrap_or_else(|| {
            self.queues.push(Queue {
                name: name.into(),
                lanes: Vec::new(),
            });
            self.queues.len() - 1
        });
        let lanes = &mut self.queues[queue].lanes;
        let free = lanes.iter().position(|end| *end <= from);
        let lane = free.unwrap_or(lanes.len());
        if lane == lanes.len() {
            lanes.push(to);
        } else {
            lanes[lane] = to;
        }
        (lane < MAX_LANES).then_some(QUEUES + queue * MAX_LANES + lane)
    }
}

impl<W: Write> Out<W> {
    /// Microseconds, as the format has it.
    fn time(&self, time: i64) -> f64 {
        (time - self.base) as f64 / 1000.0
    }

    fn event(&mut self, event: Value) -> Result<(), Error> {
        let comma = if self.first { "\n" } else { ",\n" };
        self.first = false;
        write!(self.out, "{comma}{event}")?;
        Ok(())
    }

    fn slice(
        &mut self,
        (pid, tid): (usize, usize),
        (from, to): (i64, i64),
        name: &str,
        args: Value,
    ) -> Result<(), Error> {
        let (ts, end) = (self.time(from), self.time(to));
        // Rounded as the numbers are, so that what ends together does.
        let dur = ((end - ts) * 1000.0).round() / 1000.0;
        self.event(json!({
            "name": name, "cat": "card", "ph": "X", "pid": pid, "tid": tid,
            "ts": ts, "dur": dur, "args": args,
        }))
    }

    fn arrow(
        &mut self,
        phase: &str,
        id: u64,
        (pid, tid): (usize, usize),
        (from, to): (i64, i64),
    ) -> Result<(), Error> {
        // In the middle, where there is no doubt which slice is meant.
        let ts = self.time(from + (to - from) / 2);
        self.event(json!({
            "name": "frames", "cat": "frames", "ph": phase, "bp": "e", "id": id,
            "pid": pid, "tid": tid, "ts": ts,
        }))
    }

    fn batch(&mut self, id: u64, batch: &Batch, pid: usize, card: &mut Card) -> Result<(), Error> {
        let pid = pid + 1;
        let first = batch.first();
        let (from, to) = (batch.from(), batch.to());
        let Some(lane) = card.lane(&first.queue, from, to) else {
            return Ok(());
        };
        let thread = card.thread(&first.thread);
        let lens: Vec<_> = batch.frames.iter().map(|frame| frame.len).collect();
        let count = match lens.len() {
            1 => "1 frame".into(),
            n => format!("{n} frames"),
        };
        let args = json!({ "frames": lens, "bytes": batch.bytes() });
        self.slice((pid, lane), (from, to), &count, args)?;
        let stages = batch.stages();
        for stage in &stages {
            let args = match stage.frame {
                Some(n) => json!({ "bytes": lens[n] }),
                None => json!({}),
            };
            self.slice((pid, lane), (stage.from, stage.to), stage.name, args)?;
        }
        let name = format!("{}: {count}", first.queue);
        let served = (first.fetch, first.used);
        self.slice((pid, thread), served, &name, json!({}))?;
        let ends = [stages.first(), stages.last()].map(|s| s.map(|s| (s.from, s.to)));
        if let [Some(start), Some(end)] = ends {
            self.arrow("s", id, (pid, lane), start)?;
            self.arrow("t", id, (pid, thread), served)?;
            self.arrow("f", id, (pid, lane), end)?;
        }
        Ok(())
    }

    /// Says what cards and tracks are called.
    fn names(&mut self, pid: usize, card: &Card) -> Result<(), Error> {
        self.event(json!({
            "name": "process_name", "ph": "M", "pid": pid, "args": { "name": card.name },
        }))?;
        let mut tracks = vec![(EVENTS, "events".to_owned())];
        for (n, name) in card.threads.iter().enumerate() {
            tracks.push((THREADS + n, format!("thread {name}")));
        }
        for (n, queue) in card.queues.iter().enumerate() {
            for lane in 0..queue.lanes.len().min(MAX_LANES) {
                let name = match lane {
                    0 => queue.name.clone(),
                    _ => format!("{}, meanwhile", queue.name),
                };
                tracks.push((QUEUES + n * MAX_LANES + lane, name));
            }
        }
        for (tid, name) in tracks {
            self.event(json!({
                "name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": { "name": name },
            }))?;
            self.event(json!({
                "name": "thread_sort_index", "ph": "M", "pid": pid, "tid": tid,
                "args": { "sort_index": tid },
            }))?;
        }
        Ok(())
    }
}
