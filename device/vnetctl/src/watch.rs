// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Counters again and again, with what they came to meanwhile.

use std::io::{self, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use vnet_control::{Client, ClientError, Command, Counters, Queue};

use crate::run::Error;
use crate::show::direction;
use crate::table::Table;

/// Prints rates every so many seconds, so many times or until something ends it.
pub(crate) fn watch(
    client: &mut Client,
    call: &Command,
    seconds: u32,
    count: Option<u32>,
    json: bool,
) -> Result<(), Error> {
    let period = Duration::from_secs(seconds.into());
    let mut left = count;
    let mut before = None;
    let mut due = Instant::now();
    while left != Some(0) {
        let answer = client.call(call)?;
        let now = Instant::now();
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{answer}")?;
            left = left.map(|n| n - 1);
        } else {
            let all: Vec<Counters> = serde_json::from_value(answer).map_err(ClientError::from)?;
            if let Some((old, then)) = before.replace((all.clone(), now)) {
                write!(out, "{}", rates(&old, &all, now - then))?;
                left = left.map(|n| n - 1);
            }
        }
        out.flush()?;
        drop(out);
        due = next(due, period, Instant::now());
        if left != Some(0) {
            sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    Ok(())
}

/// When the next view is due: of those that somebody was too late for, as who was stopped for a while, none
/// is made up for.
pub(crate) fn next(due: Instant, period: Duration, now: Instant) -> Instant {
    let next = due + period;
    if next > now {
        next
    } else {
        now + period
    }
}

/// What each queue did in this time, by the second.
fn rates(before: &[Counters], now: &[Counters], time: Duration) -> String {
    let head = [
        "CARD",
        "QUEUE",
        "FRAMES/S",
        "MBIT/S",
        "DROPS/S",
        "DOORBELLS/S",
        "INTERRUPTS/S",
    ];
    let mut table = Table::new(&head, 2);
    let seconds = time.as_secs_f64().max(0.001);
    for card in now {
        let old = before.iter().find(|old| old.card == card.card);
        for (n, queue) in card.queues.iter().enumerate() {
            let old = old.and_then(|old| old.queues.get(n));
            let rate = |counter: fn(&Queue) -> u64| {
                // A card that was made anew begins at zero.
                let old = old.map_or(0, counter);
                counter(queue).saturating_sub(old) as f64 / seconds
            };
            table.row(vec![
                card.card.clone(),
                format!("{}{}", direction(queue), queue.pair),
                format!("{:.0}", rate(|q| q.frames)),
                format!("{:.1}", rate(|q| q.bytes) * 8.0 / 1e6),
                format!("{:.0}", rate(|q| q.drops)),
                format!("{:.0}", rate(|q| q.doorbells)),
                format!("{:.0}", rate(|q| q.interrupts)),
            ]);
        }
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_control::Direction;

    fn counters(frames: u64, bytes: u64) -> Vec<Counters> {
        vec![Counters {
            card: "a".into(),
            queues: vec![Queue {
                pair: 0,
                direction: Direction::Receive,
                error: None,
                frames,
                bytes,
                drops: 0,
                errors: 0,
                doorbells: 0,
                interrupts: 0,
                drops_by_reason: Default::default(),
                ring: None,
                times: None,
            }],
            shape: None,
            generator: None,
        }]
    }

    #[test]
    fn views_are_not_made_up_for() {
        let (due, second) = (Instant::now(), Duration::from_secs(1));
        let after = |late| next(due, second, due + late) - due;
        assert_eq!(after(second / 2), second);
        assert_eq!(after(60 * second), 61 * second);
    }

    #[test]
    fn rates_are_by_the_second() {
        let text = rates(
            &counters(100, 0),
            &counters(300, 1_000_000),
            Duration::from_secs(2),
        );
        let cells: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["a", "rx0", "100", "4.0", "0", "0", "0"]);
        // One that was not there, and one that began anew.
        assert!(rates(&[], &counters(5, 5), Duration::from_secs(1)).contains(" 5 "));
        assert!(rates(&counters(9, 9), &counters(5, 5), Duration::from_secs(1)).contains(" 0 "));
    }
}
