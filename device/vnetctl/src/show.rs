// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Answers for people.

use std::fmt::Write;

use vnet_control::{
    BackendChanged, CaptureEnd, CaptureState, Card, Counters, Direction, FaultPlan, Findings,
    LinkState, Paused, Queue, Status, Stepped, Switch, Words,
};

use crate::table::Table;
use crate::top::{difference, quantile, time};

/// What is not there.
const NONE: &str = "-";

pub(crate) fn cards(cards: &[Card]) -> String {
    let mut table = Table::new(
        &["CARD", "STATUS", "LINK", "CLIENT", "BACKEND", "SOCKET"],
        6,
    );
    for card in cards {
        table.row(vec![
            card.name.clone(),
            status(card).into(),
            link(&card.link),
            client(card),
            card.net.clone(),
            card.socket.clone(),
        ]);
    }
    table.text()
}

fn status(card: &Card) -> &'static str {
    match card.status {
        Status::Serving => "serving",
        Status::Failed => "failed",
    }
}

fn client(card: &Card) -> String {
    card.client
        .map_or(NONE.into(), |peer| format!("pid {}", peer.pid))
}

pub(crate) fn link(link: &LinkState) -> String {
    let state = match (link.up, link.forced_down) {
        (true, _) => "up",
        (false, true) => "pulled",
        (false, false) => "down",
    };
    match link.speed {
        Some(speed) => format!("{state}, {speed} Mbit/s"),
        None => state.into(),
    }
}

pub(crate) fn card(card: &Card) -> String {
    let features = card.features.map(|f| format!("{f:#x}"));
    let rules = card.rules_broken.map_or(String::new(), |times| {
        format!(", rules broken {times} times")
    });
    let lines = [
        ("card", card.name.clone()),
        ("status", status(card).into()),
        ("error", card.error.clone().unwrap_or_default()),
        ("socket", card.socket.clone()),
        ("client", client(card)),
        ("backend", card.net.clone()),
        ("link", link(&card.link)),
        ("mac", card.mac.clone().unwrap_or_else(|| NONE.into())),
        ("queues", card.queues.to_string()),
        ("mtu-max", card.mtu_max.to_string()),
        ("features", features.unwrap_or_else(|| "no driver".into())),
        ("sanitize", format!("{}{rules}", card.sanitize)),
        ("faults", card.faults.to_string()),
        ("paused", card.paused.join(", ")),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        if !value.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name:<9} {value}");
        }
    }
    text
}

pub(crate) fn direction(queue: &Queue) -> &'static str {
    match queue.direction {
        Direction::Receive => "rx",
        Direction::Transmit => "tx",
    }
}

pub(crate) fn counters(all: &[Counters]) -> String {
    let head = [
        "CARD",
        "QUEUE",
        "STATE",
        "FRAMES",
        "BYTES",
        "DROPS",
        "ERRORS",
        "DOORBELLS",
        "INTERRUPTS",
    ];
    let mut table = Table::new(&head, 3);
    for card in all {
        for queue in &card.queues {
            let mut row = vec![
                card.card.clone(),
                format!("{}{}", direction(queue), queue.pair),
                queue.error.clone().unwrap_or_else(|| "ok".into()),
            ];
            let numbers = [
                queue.frames,
                queue.bytes,
                queue.drops,
                queue.errors,
                queue.doorbells,
                queue.interrupts,
            ];
            row.extend(numbers.map(|n| n.to_string()));
            table.row(row);
        }
    }
    table.text() + &shapes(all) + &generators(all)
}

/// The emulated lines, if there are any.
fn shapes(all: &[Counters]) -> String {
    let head = ["CARD", "LINE", "FRAMES", "BYTES", "LOST", "TWICE", "LATE"];
    let mut table = Table::new(&head, 2);
    let mut text = String::new();
    for card in all {
        let lanes = card.shape.map(|s| [("tx", s.transmit), ("rx", s.receive)]);
        for (name, lane) in lanes.into_iter().flatten() {
            let numbers = [
                lane.frames,
                lane.bytes,
                lane.lost,
                lane.duplicated,
                lane.reordered,
            ];
            let mut row = vec![card.card.clone(), name.into()];
            row.extend(numbers.map(|n| n.to_string()));
            table.row(row);
            text = format!("\n{}", table.text());
        }
    }
    text
}

/// The generators, if there are any.
fn generators(all: &[Counters]) -> String {
    let head = [
        "CARD",
        "SENT",
        "RECEIVED",
        "LOST",
        "UNANSWERED",
        "LATE",
        "TWICE",
        "DAMAGED",
        "OTHER",
        "P50",
        "P99",
        "MAX",
    ];
    let mut table = Table::new(&head, 1);
    let mut text = String::new();
    for card in all {
        let Some(generator) = &card.generator else {
            continue;
        };
        let numbers = [
            generator.sent,
            generator.received,
            generator.lost,
            generator.unanswered,
            generator.reordered,
            generator.duplicated,
            generator.damaged,
            generator.other,
        ];
        let times = difference(&generator.latency, None);
        let longest = generator.longest as f64;
        let time_of = |nanoseconds: Option<f64>| nanoseconds.map_or(NONE.into(), time);
        // Within a bucket it is a guess.
        let part = |part| time_of(quantile(&times, part).map(|t| t.min(longest)));
        let mut row = vec![card.card.clone()];
        row.extend(numbers.map(|n| n.to_string()));
        row.extend([part(0.5), part(0.99)]);
        row.push(time_of((longest > 0.0).then_some(longest)));
        table.row(row);
        text = format!("\n{}", table.text());
    }
    text
}

pub(crate) fn switches(all: &[Switch]) -> String {
    let head = [
        "SWITCH",
        "ADDRESSES",
        "GROUPS",
        "PORT",
        "FRAMES-IN",
        "BYTES-IN",
        "FRAMES-OUT",
        "BYTES-OUT",
        "FULL",
        "REFUSED",
    ];
    let mut table = Table::new(&head, 4);
    for switch in all {
        for port in &switch.ports {
            let mut row = vec![
                switch.name.clone(),
                switch.addresses.to_string(),
                switch.groups.map_or(NONE.into(), |n| n.to_string()),
                port.port.clone(),
            ];
            let numbers = [
                port.frames_in,
                port.bytes_in,
                port.frames_out,
                port.bytes_out,
                port.full,
                port.refused,
            ];
            row.extend(numbers.map(|n| n.to_string()));
            table.row(row);
        }
    }
    table.text()
}

pub(crate) fn changed(changed: &BackendChanged) -> String {
    let BackendChanged {
        net,
        before,
        dropped,
    } = changed;
    match dropped {
        0 => format!("{net} in place of {before}\n"),
        _ => format!("{net} in place of {before}; {dropped} frames were lost with that\n"),
    }
}

pub(crate) fn faults(plan: &FaultPlan) -> String {
    match plan.report.is_empty() {
        true => "no faults\n".into(),
        false => plan.report.join("\n") + "\n",
    }
}

pub(crate) fn paused(paused: &Paused) -> String {
    if paused.queues.is_empty() {
        return "no queue is paused\n".into();
    }
    let lines = paused.queues.iter().map(|queue| {
        let next = queue
            .next
            .as_ref()
            .map_or("does not run", |next| next.text.as_str());
        format!("{}: paused; next {next}\n", queue.queue)
    });
    lines.collect()
}

pub(crate) fn step(step: &Stepped) -> String {
    let Words { text, section, .. } = &step.did;
    let next = step.next.as_ref();
    let next = next.map_or("the queue does not run any more", |next| next.text.as_str());
    format!("{}: {text}\n     {section}\n     next {next}\n", step.queue)
}

pub(crate) fn findings(found: &Findings) -> String {
    if found.total == 0 {
        return "no rule was broken\n".into();
    }
    let mut text = String::new();
    for rule in &found.rules {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}: {} times", rule.rule, rule.total);
        for case in &rule.first {
            let _ = writeln!(text, "  {case}");
        }
    }
    text
}

pub(crate) fn capture(state: &CaptureState) -> String {
    let end = match state.end {
        None => "goes on",
        Some(CaptureEnd::Stopped) => "stopped",
        Some(CaptureEnd::Count) => "as many frames as were wanted",
        Some(CaptureEnd::Time) => "as long as was wanted",
        Some(CaptureEnd::Failed) => "failed",
        Some(CaptureEnd::Unfinished) => "stopped; the rest is yet to be read",
        Some(_) => "over",
    };
    let mut table = Table::new(&["QUEUE", "FRAMES", "DROPPED"], 1);
    for queue in &state.queues {
        table.row(vec![
            queue.queue.clone(),
            queue.seen.to_string(),
            queue.dropped.to_string(),
        ]);
    }
    let (frames, bytes) = (state.frames, state.bytes);
    format!("{frames} frames, {bytes} bytes: {end}\n{}", table.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_control::RuleBroken;

    #[test]
    fn a_link_is_told_in_words() {
        let state = |up, forced_down, speed| {
            link(&LinkState {
                up,
                speed,
                forced_down,
                backend_up: true,
            })
        };
        assert_eq!(state(true, false, None), "up");
        assert_eq!(state(false, true, Some(10)), "pulled, 10 Mbit/s");
        assert_eq!(state(false, false, None), "down");
    }

    #[test]
    fn each_case_of_a_broken_rule_is_told() {
        let rule = |rule: &str, total, first: &[&str]| RuleBroken {
            rule: rule.into(),
            total,
            first: first.iter().map(|case| (*case).into()).collect(),
        };
        let mut found = Findings {
            total: 3,
            rules: vec![
                rule("mac-group", 2, &["one", "another"]),
                rule("tx-csum", 1, &["a third"]),
            ],
        };
        assert_eq!(
            findings(&found),
            "mac-group: 2 times\n  one\n  another\ntx-csum: 1 times\n  a third\n"
        );
        found.total = 0;
        found.rules.clear();
        assert_eq!(findings(&found), "no rule was broken\n");
    }
}
