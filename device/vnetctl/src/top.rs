// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The queues at work, again and again: on a terminal in place, else one view after the other.

use std::io::{self, IsTerminal, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;
use serde::Serialize;
use vnet_control::{Client, ClientError, Command, Counters, Queue, Ring, Times};

use crate::run::Error;
use crate::show::direction;
use crate::table::Table;
use crate::watch;

/// What the terminal is told: to the upper left corner.
const HOME: &str = "\x1b[H";
/// To forget the rest of the line.
const CLEAR_LINE: &str = "\x1b[K";
/// To forget all that is below.
const CLEAR_REST: &str = "\x1b[J";
/// Lines of a terminal that does not say how many it has.
const USUAL_LINES: u16 = 24;

/// A queue, by the second.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Rates {
    card: String,
    queue: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    frames: f64,
    bits: f64,
    drops: Vec<(String, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ring: Option<Ring>,
    doorbells: f64,
    interrupts: f64,
    /// Half of the batches took no longer than this; nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    median: Option<f64>,
    /// And all but one in a hundred this.
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<f64>,
}

/// Shows rates every so many seconds, so many times or until something ends it.
pub(crate) fn top(
    client: &mut Client,
    call: &Command,
    seconds: u32,
    count: Option<u32>,
    json: bool,
) -> Result<(), Error> {
    let ask = |client: &mut Client| -> Result<(Vec<Counters>, Instant), Error> {
        let answer = client.call(call)?;
        let all = serde_json::from_value(answer).map_err(ClientError::from)?;
        Ok((all, Instant::now()))
    };
    let terminal = io::stdout().is_terminal() && !json;
    let (mut before, mut then) = ask(client)?;
    let period = Duration::from_secs(seconds.into());
    let mut due = then;
    let mut left = count;
    while left != Some(0) {
        due = watch::next(due, period, Instant::now());
        sleep(due.saturating_duration_since(Instant::now()));
        let (all, now) = ask(client)?;
        let rates = rates(&before, &all, now - then);
        let text = match (json, terminal) {
            (true, _) => serde_json::to_string(&rates).map_err(ClientError::from)? + "\n",
            (false, true) => screen(&table(&rates), lines()),
            (false, false) => table(&rates) + if left == Some(1) { "" } else { "\n" },
        };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        (before, then) = (all, now);
        left = left.map(|n| n - 1);
    }
    if terminal {
        // What comes next goes below.
        writeln!(io::stdout())?;
    }
    Ok(())
}

/// Lines of the terminal.
fn lines() -> usize {
    let size = tcgetwinsize(io::stdout()).map(|size| size.ws_row);
    let lines = size.ok().filter(|&lines| lines > 0);
    lines.unwrap_or(USUAL_LINES).into()
}

/// The text in place of the one before, as far as the terminal has lines.
fn screen(text: &str, lines: usize) -> String {
    let all = text.lines().count();
    // The last line is the cursor's.
    let most = lines.saturating_sub(1).max(1);
    let shown = if all > most { most - 1 } else { all };
    let mut screen = String::from(HOME);
    for line in text.lines().take(shown) {
        screen += &format!("{line}{CLEAR_LINE}\n");
    }
    if shown < all {
        screen += &format!("({} more lines){CLEAR_LINE}\n", all - shown);
    }
    screen + CLEAR_REST
}

fn table(rates: &[Rates]) -> String {
    let head = [
        "CARD",
        "QUEUE",
        "STATE",
        "FRAMES/S",
        "MBIT/S",
        "RING",
        "DOORBELLS/S",
        "INTERRUPTS/S",
        "P50",
        "P99",
        "DROPS/S",
    ];
    let mut table = Table::new(&head, 3);
    for queue in rates {
        let drops = queue.drops.iter();
        let drops: Vec<_> = drops
            .map(|(why, rate)| format!("{rate:.0} {why}"))
            .collect();
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        table.row(vec![
            queue.card.clone(),
            queue.queue.clone(),
            queue.error.clone().unwrap_or_else(|| "ok".into()),
            format!("{:.0}", queue.frames),
            format!("{:.1}", queue.bits / 1e6),
            or_none(queue.ring.map(|r| format!("{}/{}", r.waiting, r.size))),
            format!("{:.0}", queue.doorbells),
            format!("{:.0}", queue.interrupts),
            or_none(queue.median.map(time)),
            or_none(queue.p99.map(time)),
            if drops.is_empty() {
                "0".into()
            } else {
                drops.join(", ")
            },
        ]);
    }
    table.text()
}

/// Nanoseconds, for people.
pub(crate) fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.0}ns"),
        ns if ns < 1e6 => format!("{:.1}us", ns / 1e3),
        ns => format!("{:.1}ms", ns / 1e6),
    }
}

/// What each queue did in this time.
fn rates(before: &[Counters], now: &[Counters], time: Duration) -> Vec<Rates> {
    let seconds = time.as_secs_f64().max(0.001);
    let mut all = Vec::new();
    for card in now {
        let old = before.iter().find(|old| old.card == card.card);
        for (n, queue) in card.queues.iter().enumerate() {
            let old = old.and_then(|old| old.queues.get(n));
            let since = |now: u64, old: u64| now.saturating_sub(old) as f64 / seconds;
            let rate = |counter: fn(&Queue) -> u64| {
                // A card that was made anew begins at zero.
                since(counter(queue), old.map_or(0, counter))
            };
            let drops = queue.drops_by_reason.iter().map(|(why, &frames)| {
                let old = old.and_then(|old| old.drops_by_reason.get(why));
                (why.clone(), since(frames, old.copied().unwrap_or(0)))
            });
            let times = queue.times.as_ref();
            let times = times.map(|t| difference(t, old.and_then(|old| old.times.as_ref())));
            let part = |part: f64| times.as_ref().and_then(|times| quantile(times, part));
            all.push(Rates {
                card: card.card.clone(),
                queue: format!("{}{}", direction(queue), queue.pair),
                error: queue.error.clone(),
                frames: rate(|q| q.frames),
                bits: rate(|q| q.bytes) * 8.0,
                drops: drops.filter(|(_, rate)| *rate > 0.0).collect(),
                ring: queue.ring,
                doorbells: rate(|q| q.doorbells),
                interrupts: rate(|q| q.interrupts),
                median: part(0.5),
                p99: part(0.99),
            });
        }
    }
    all
}

/// Upper bound, in nanoseconds, and number of batches of each bucket, without those of before.
pub(crate) fn difference(now: &Times, before: Option<&Times>) -> Vec<(Option<u64>, u64)> {
    let before = |n: usize| before.and_then(|times| times.buckets.get(n));
    let buckets = now.buckets.iter().enumerate();
    buckets
        .map(|(n, bucket)| {
            let old = before(n).map_or(0, |old| old.count);
            (bucket.most, bucket.count.saturating_sub(old))
        })
        .collect()
}

/// How long this part of the batches took at most, as if those of a bucket were spread evenly over it.
pub(crate) fn quantile(buckets: &[(Option<u64>, u64)], part: f64) -> Option<f64> {
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    if all == 0 {
        return None;
    }
    let mut left = part * all as f64;
    let mut lower = 0.0;
    for &(most, count) in buckets {
        // There is no telling how long the longest took.
        let Some(upper) = most.map(|most| most as f64) else {
            break;
        };
        if left <= count as f64 && count > 0 {
            return Some(lower + (upper - lower) * left / count as f64);
        }
        left -= count as f64;
        lower = upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_control::{Bucket, Direction};

    fn counters(frames: u64, drops: u64, counts: [u64; 3]) -> Vec<Counters> {
        let bounds = [Some(1000), Some(2000), None];
        let buckets = bounds.into_iter().zip(counts);
        vec![Counters {
            card: "a".into(),
            queues: vec![Queue {
                pair: 0,
                direction: Direction::Transmit,
                error: None,
                frames,
                bytes: 125_000 * frames,
                drops,
                errors: 0,
                doorbells: 0,
                interrupts: frames / 2,
                drops_by_reason: [("backend".to_owned(), drops)].into(),
                ring: Some(Ring {
                    waiting: 3,
                    size: 256,
                }),
                times: Some(Times {
                    sum: 0,
                    buckets: buckets
                        .map(|(most, count)| Bucket { most, count })
                        .collect(),
                }),
            }],
            shape: None,
            generator: None,
        }]
    }

    #[test]
    fn a_queue_by_the_second() {
        let (old, new) = (counters(10, 0, [7, 7, 7]), counters(30, 5, [17, 17, 7]));
        let all = rates(&old, &new, Duration::from_secs(2));
        let text = table(&all);
        let cells: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let due = "a tx0 ok 10 10.0 3/256 0 5 1.0us 2.0us 2 backend";
        assert_eq!(cells.join(" "), due);
        // A card that was made anew, and one at rest.
        let new = counters(3, 0, [0; 3]);
        let again = rates(&old, &new, Duration::from_secs(1));
        assert_eq!((again[0].frames, again[0].median), (0.0, None));
        assert_eq!(rates(&[], &new, Duration::from_secs(1))[0].frames, 3.0);
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!(json[0]["queue"], "tx0");
        assert_eq!(json[0]["drops"], serde_json::json!([["backend", 2.5]]));
    }

    #[test]
    fn parts_of_a_distribution() {
        let buckets = [(Some(100), 50), (Some(200), 50), (None, 0)];
        assert_eq!(quantile(&buckets, 0.5), Some(100.0));
        assert_eq!(quantile(&buckets, 0.99), Some(198.0));
        assert_eq!(quantile(&[(Some(100), 0), (None, 9)], 0.5), Some(100.0));
        assert_eq!(quantile(&[(Some(100), 0), (None, 0)], 0.5), None);
        assert_eq!(time(999.0) + &time(1500.0) + &time(2e6), "999ns1.5us2.0ms");
    }

    #[test]
    fn a_screen_shows_what_it_has_lines_for() {
        let text = "a\nb\nc\nd\n";
        let whole = screen(text, 24);
        assert_eq!(whole, "\x1b[Ha\x1b[K\nb\x1b[K\nc\x1b[K\nd\x1b[K\n\x1b[J");
        let part = screen(text, 4);
        assert_eq!(part, "\x1b[Ha\x1b[K\nb\x1b[K\n(2 more lines)\x1b[K\n\x1b[J");
        assert_eq!(screen(text, 0).matches('\n').count(), 1);
    }
}
