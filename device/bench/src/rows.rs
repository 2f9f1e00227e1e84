// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The rows of the table: what is taken from which samples, and what vnet wants to reach.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::sample::Sample;

/// The NIC that the rows are about.
pub const OURS: &str = "vnet";

/// Which of two figures is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The larger.
    More,
    /// The smaller.
    Less,
}

/// A row's definition.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Name of its plot's file.
    pub id: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Its unit.
    pub unit: &'static str,
    metric: &'static str,
    /// One figure of the sample, or the quotient of two.
    value: (&'static str, Option<&'static str>),
    better: Better,
    /// What our figure divided by the best rival's shall be, or better.
    goal: Option<f64>,
}

const fn row(
    id: &'static str,
    title: &'static str,
    unit: &'static str,
    metric: &'static str,
    value: &'static str,
    better: Better,
    goal: Option<f64>,
) -> Row {
    Row {
        id,
        title,
        unit,
        metric,
        value: (value, None),
        better,
        goal,
    }
}

const fn quotient(mut row: Row, by: &'static str) -> Row {
    row.value.1 = Some(by);
    row
}

use Better::{Less, More};

/// All rows, in the order of the table.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("tcp-out", "TCP guest→host, 1 stream", "Mbit/s", "tcp-out", "mbit_s", More, Some(1.25)),
    row("tcp-in", "TCP host→guest, 1 stream", "Mbit/s", "tcp-in", "mbit_s", More, Some(1.25)),
    row("tcp4-out", "TCP guest→host, 4 streams", "Mbit/s", "tcp4-out", "mbit_s", More, Some(1.25)),
    row("tcp4-in", "TCP host→guest, 4 streams", "Mbit/s", "tcp4-in", "mbit_s", More, Some(1.25)),
    row("udp-out", "UDP 64 B guest→host", "kpps", "udp-out", "kpps", More, Some(1.4)),
    row("pktgen", "pktgen 60 B", "kpps", "pktgen", "kpps", More, Some(1.4)),
    row("udp-in", "UDP 64 B host→guest, loss < 0.1 %", "kpps", "udp-in", "kpps", More, Some(1.3)),
    row("udp-overload", "UDP 64 B host→guest, delivered of 120 kpps", "kpps", "udp-overload", "kpps", More, Some(1.0)),
    row("udp-rr-p50", "UDP request-response, median", "µs", "udp-rr", "p50_us", Less, Some(0.85)),
    row("udp-rr-p99", "UDP request-response, 99th percentile", "µs", "udp-rr", "p99_us", Less, Some(1.0)),
    row("ping", "flood ping, average", "µs", "ping", "average_us", Less, Some(0.9)),
    row("cpu-in", "host CPU per GB, host→guest", "s", "tcp-in", "cpu_s_per_gb", Less, Some(0.8)),
    row("cpu-out", "host CPU per GB, guest→host", "s", "tcp-out", "cpu_s_per_gb", Less, Some(0.8)),
    row("interrupts-in", "interrupts per MB, TCP host→guest", "", "tcp-in", "interrupts_per_mb", Less, Some(1.0)),
    row("interrupts-out", "interrupts per MB, TCP guest→host", "", "tcp-out", "interrupts_per_mb", Less, Some(1.0)),
    row("interrupts-udp-in", "interrupts per packet, UDP overload", "", "udp-overload", "interrupts_per_packet", Less, None),
    row("interrupts-udp-out", "interrupts per packet, UDP guest→host", "", "udp-out", "interrupts_per_packet", Less, Some(1.0)),
    quotient(row("writes-in", "register writes per MB, TCP host→guest", "", "exits-tcp-in", "writes", Less, Some(1.0)), "megabytes"),
    quotient(row("writes-out", "register writes per MB, TCP guest→host", "", "exits-tcp-out", "writes", Less, Some(1.0)), "megabytes"),
    quotient(row("writes-udp-in", "register writes per packet, UDP overload", "", "exits-udp-overload", "writes", Less, Some(1.0)), "packets"),
    quotient(row("writes-udp-out", "register writes per packet, UDP guest→host", "", "exits-udp-out", "writes", Less, Some(1.0)), "packets"),
    quotient(row("reads-in", "register reads per MB, TCP host→guest", "", "exits-tcp-in", "reads", Less, None), "megabytes"),
    quotient(row("reads-out", "register reads per MB, TCP guest→host", "", "exits-tcp-out", "reads", Less, None), "megabytes"),
    row("memory-idle", "guest memory per queue pair, idle", "KiB", "memory", "idle_kib_per_queue", Less, None),
    row("memory-used", "guest memory per queue pair, after traffic", "KiB", "memory", "used_kib_per_queue", Less, None),
    row("memory-device", "memory of vnetd", "KiB", "memory", "vnetd_kib", Less, None),
];

impl Row {
    fn figure(&self, sample: &Sample) -> Option<f64> {
        if sample.metric != self.metric || sample.error.is_some() {
            return None;
        }
        // The server's memory is there whatever NIC is measured; it is the memory of one.
        if self.id == "memory-device" && sample.nic != OURS {
            return None;
        }
        let value = *sample.values.get(self.value.0)?;
        match self.value.1 {
            None => Some(value),
            Some(by) => Some(value / sample.values.get(by).filter(|by| **by > 0.0)?),
        }
    }
}

/// A NIC's figures in a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many there are.
    pub samples: usize,
    /// No sample was without other load. Otherwise those that were are left out.
    pub disturbed: bool,
}

/// Median and range; of the undisturbed, if there are any.
fn figures(mut all: Vec<(f64, bool)>) -> Option<Figures> {
    let disturbed = all.iter().all(|(_, disturbed)| *disturbed);
    if !disturbed {
        all.retain(|(_, disturbed)| !disturbed);
    }
    let mut values: Vec<f64> = all.into_iter().map(|(value, _)| value).collect();
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    };
    Some(Figures {
        median,
        min,
        max,
        samples: values.len(),
        disturbed,
    })
}

/// Ours against the best of the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Who that is.
    pub rival: String,
    /// Our median divided by theirs; none if theirs is nothing.
    pub ratio: Option<f64>,
    /// What it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
    /// Whether it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

/// A row for one number of guest CPUs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Name of the row.
    pub id: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Guest CPUs.
    pub smp: u32,
    /// Which figure is better.
    pub better: Better,
    /// By NIC.
    pub nics: BTreeMap<String, Figures>,
    /// The comparison, if there is something to compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// Of the no-loss rate, what an overloaded guest must still get.
pub const NO_LIVELOCK: f64 = 0.8;

/// All lines that the samples have figures for.
pub fn lines(samples: &[Sample]) -> Vec<Line> {
    let mut smps: Vec<u32> = samples.iter().map(|sample| sample.smp).collect();
    smps.sort_unstable();
    smps.dedup();
    let mut lines = Vec::new();
    for row in ROWS {
        for smp in &smps {
            let mut by_nic: BTreeMap<String, Vec<(f64, bool)>> = BTreeMap::new();
            for sample in samples.iter().filter(|sample| sample.smp == *smp) {
                if let Some(value) = row.figure(sample) {
                    let figure = (value, sample.disturbed());
                    by_nic.entry(sample.nic.clone()).or_default().push(figure);
                }
            }
            let nics: BTreeMap<_, _> = by_nic
                .into_iter()
                .filter_map(|(nic, all)| Some((nic, figures(all)?)))
                .collect();
            if !nics.is_empty() {
                lines.push(Line {
                    id: row.id,
                    title: row.title,
                    unit: row.unit,
                    smp: *smp,
                    better: row.better,
                    verdict: verdict(row, &nics),
                    nics,
                });
            }
        }
    }
    lines
}

fn verdict(row: &Row, nics: &BTreeMap<String, Figures>) -> Option<Verdict> {
    let ours = nics.get(OURS)?.median;
    let (rival, theirs) = nics
        .iter()
        .filter(|(nic, _)| *nic != OURS)
        .map(|(nic, figures)| (nic, figures.median))
        .min_by(|(_, a), (_, b)| match row.better {
            More => b.total_cmp(a),
            Less => a.total_cmp(b),
        })?;
    let reached = |goal: f64| match row.better {
        More => ours >= goal * theirs,
        Less => ours <= goal * theirs,
    };
    Some(Verdict {
        rival: rival.clone(),
        ratio: (theirs > 0.0).then(|| ours / theirs),
        goal: row.goal,
        met: row.goal.map(reached),
    })
}

/// What part of its no-loss rate each NIC delivers when overloaded, by CPUs and NIC.
pub fn under_overload(lines: &[Line]) -> Vec<(u32, String, f64)> {
    let of = |id: &str, smp: u32, nic: &str| {
        let line = lines.iter().find(|line| line.id == id && line.smp == smp)?;
        Some(line.nics.get(nic)?.median)
    };
    let overloads = lines.iter().filter(|line| line.id == "udp-overload");
    overloads
        .flat_map(|line| line.nics.keys().map(|nic| (line.smp, nic)))
        .filter_map(|(smp, nic)| {
            let part = of("udp-overload", smp, nic)? / of("udp-in", smp, nic)?;
            Some((smp, nic.clone(), part))
        })
        .collect()
}

/// Kilobytes that vnetd takes for one queue pair more: it has as many pairs as the guest CPUs, so
/// this needs runs with different numbers of them.
pub fn device_memory_per_pair(lines: &[Line]) -> Option<f64> {
    let mut memory = lines
        .iter()
        .filter(|line| line.id == "memory-device")
        .filter_map(|line| Some((f64::from(line.smp), line.nics.get(OURS)?.median)));
    let (fewest, least) = memory.next()?;
    let (most, largest) = memory.next_back()?;
    Some((largest - least) / (most - fewest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(nic: &str, metric: &str, name: &str, value: f64, others: f64) -> Sample {
        Sample {
            metric: metric.into(),
            nic: nic.into(),
            smp: 1,
            repeat: 1,
            values: [(name.into(), value)].into(),
            others,
            error: None,
        }
    }

    fn tcp(nic: &str, value: f64, others: f64) -> Sample {
        sample(nic, "tcp-out", "mbit_s", value, others)
    }

    #[test]
    fn medians_leave_disturbed_samples_out() {
        let samples = [
            tcp("vnet", 10.0, 0.0),
            tcp("vnet", 30.0, 0.0),
            tcp("vnet", 20.0, 0.05),
            tcp("vnet", 1.0, 0.5),
        ];
        let lines = lines(&samples);
        assert_eq!(lines.len(), 1);
        let figures = &lines[0].nics["vnet"];
        assert_eq!(
            (figures.median, figures.min, figures.max),
            (20.0, 10.0, 30.0)
        );
        assert_eq!((figures.samples, figures.disturbed), (3, false));
        assert_eq!(lines[0].verdict, None);
    }

    #[test]
    fn when_all_are_disturbed_that_is_said() {
        let figures = figures(vec![(1.0, true), (3.0, true)]).unwrap();
        assert_eq!((figures.median, figures.disturbed), (2.0, true));
        assert_eq!(super::figures(vec![]), None);
    }

    #[test]
    fn the_best_rival_is_what_counts() {
        let samples = [
            tcp("vnet", 130.0, 0.0),
            tcp("igb", 100.0, 0.0),
            tcp("e1000e", 90.0, 0.0),
        ];
        let verdict = lines(&samples)[0].verdict.clone().unwrap();
        assert_eq!(verdict.rival, "igb");
        assert_eq!(verdict.ratio, Some(1.3));
        assert_eq!(verdict.met, Some(true));

        let ping = |nic, value| sample(nic, "ping", "average_us", value, 0.0);
        let samples = [
            ping("vnet", 95.0),
            ping("igb", 100.0),
            ping("e1000e", 110.0),
        ];
        let verdict = lines(&samples)[0].verdict.clone().unwrap();
        assert_eq!(verdict.rival, "igb");
        assert_eq!((verdict.ratio, verdict.met), (Some(0.95), Some(false)));
    }

    #[test]
    fn failed_samples_have_no_figures() {
        let mut failed = tcp("vnet", 1.0, 0.0);
        failed.error = Some("no".into());
        assert!(lines(&[failed]).is_empty());
    }

    #[test]
    fn a_quotient_needs_both() {
        let mut exits = sample("vnet", "exits-udp-out", "writes", 10.0, 0.0);
        assert!(lines(&[exits.clone()]).is_empty());
        exits.set("packets", 40.0);
        assert_eq!(lines(&[exits])[0].nics["vnet"].median, 0.25);
    }

    #[test]
    fn livelock_is_seen() {
        let samples = [
            sample("igb", "udp-in", "kpps", 60.0, 0.0),
            sample("igb", "udp-overload", "kpps", 15.0, 0.0),
            sample("vnet", "udp-overload", "kpps", 15.0, 0.0),
        ];
        assert_eq!(under_overload(&lines(&samples)), [(1, "igb".into(), 0.25)]);
    }

    #[test]
    fn a_queue_pair_of_the_device_takes_memory() {
        let memory = |smp, value| Sample {
            smp,
            ..sample("vnet", "memory", "vnetd_kib", value, 0.0)
        };
        let all = [memory(4, 900.0), memory(1, 600.0), memory(2, 730.0)];
        assert_eq!(device_memory_per_pair(&lines(&all)), Some(100.0));
        assert_eq!(device_memory_per_pair(&lines(&all[..1])), None);
    }

    #[test]
    fn every_row_has_a_file_of_its_own() {
        let mut ids: Vec<_> = ROWS.iter().map(|row| row.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROWS.len());
    }
}
