// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What was measured, for people and for programs.

use std::fmt::Write;

use crate::memcpy::{ONE_TO_RING, RING_TO_ONE, RING_TO_RING};

struct Row {
    direction: &'static str,
    backend: &'static str,
    size: u32,
    queues: u16,
    /// Frames per second, sorted.
    samples: Vec<f64>,
}

impl Row {
    fn median(&self) -> f64 {
        self.samples[self.samples.len() / 2]
    }

    fn bytes(&self, frames: f64) -> f64 {
        frames * f64::from(self.size)
    }
}

/// All rows.
pub(crate) struct Report(Vec<Row>);

impl Report {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a row, and says so at once: the whole takes minutes.
    pub(crate) fn add(
        &mut self,
        direction: &'static str,
        backend: &'static str,
        size: u32,
        queues: u16,
        mut samples: Vec<f64>,
    ) {
        samples.sort_by(f64::total_cmp);
        let row = Row {
            direction,
            backend,
            size,
            queues,
            samples,
        };
        eprintln!(
            "{direction} {backend} {size} B, {queues} queue(s): {:.3} Mpps",
            row.median() / 1e6
        );
        self.0.push(row);
    }

    /// The rate of a row to compare with.
    fn rate(&self, direction: &str, backend: &str, size: u32) -> Option<f64> {
        let same = |r: &&Row| (r.direction, r.backend, r.size) == (direction, backend, size);
        self.0.iter().find(same).map(Row::median)
    }

    /// What a plain copy would reach that copies as this row does: as often, and between as many
    /// buffers.
    fn limit(&self, row: &Row) -> Option<f64> {
        let copy = |name| self.rate("memcpy", name, row.size);
        match (row.direction, row.backend) {
            ("memcpy", name) => copy(name),
            ("tx", "null") => None,
            (_, "null-copy") => copy(RING_TO_ONE),
            ("rx", "null") => copy(ONE_TO_RING),
            // Into the loopback and out again.
            (_, "loopback") => copy(RING_TO_RING).map(|rate| rate / 2.0),
            _ => copy(RING_TO_RING),
        }
    }

    /// A Markdown table.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| direction | backend | bytes | queues | Mpps | min … max | GB/s | of memcpy | of DPDK |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.0 {
            let share = |other: Option<f64>| match other {
                Some(other) if other > 0.0 => format!("{:.2} ×", row.median() / other),
                _ => "–".into(),
            };
            let mpps = |rate: f64| format!("{:.3}", rate / 1e6);
            let (low, high) = (row.samples[0], row.samples[row.samples.len() - 1]);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} … {} | {:.2} | {} | {} |",
                row.direction,
                row.backend,
                row.size,
                row.queues,
                mpps(row.median()),
                mpps(low),
                mpps(high),
                row.bytes(row.median()) / 1e9,
                share(self.limit(row)),
                share(self.rate(row.direction, "dpdk", row.size)),
            );
        }
        text
    }

    /// The same as JSON.
    pub(crate) fn json(&self) -> String {
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|row| {
                serde_json::json!({
                    "direction": row.direction,
                    "backend": row.backend,
                    "bytes": row.size,
                    "queues": row.queues,
                    "frames_per_second": row.median(),
                    "bytes_per_second": row.bytes(row.median()),
                    "samples": row.samples,
                })
            })
            .collect();
        format!("{:#}\n", serde_json::Value::Array(rows))
    }
}
