// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Draws a part of a trace, as docs/capture.md shows one. Times are microseconds of the trace:
//!
//! ```text
//! cargo run -p vnet-timeline --example picture -- trace.json FROM TO >picture.svg
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;

use serde_json::Value;

const WIDTH: f64 = 960.0;
/// Room for the names of tracks.
const LEFT: f64 = 150.0;
const ROW: f64 = 22.0;
const TOP: f64 = 34.0;
/// A batch is drawn above its stages.
const TRACK: f64 = 2.0 * ROW + 14.0;

const COLOURS: [(&str, &str); 5] = [
    ("doorbell", "#f2b84b"),
    ("fetch", "#7fb7e6"),
    ("backend", "#6abf8a"),
    ("used", "#b39ddb"),
    ("interrupt", "#e58a8a"),
];

struct Slice {
    from: f64,
    to: f64,
    name: String,
}

struct Picture {
    from: f64,
    to: f64,
    text: String,
}

impl Picture {
    fn x(&self, time: f64) -> f64 {
        let share = (time.clamp(self.from, self.to) - self.from) / (self.to - self.from);
        LEFT + share * (WIDTH - LEFT - 10.0)
    }

    fn words(&mut self, x: f64, y: f64, anchor: &str, words: &str) {
        let words = words.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.text,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{words}</text>"#
        );
    }

    fn slice(&mut self, slice: &Slice, y: f64) {
        let (x, end) = (self.x(slice.from), self.x(slice.to));
        let width = (end - x).max(1.0);
        let colour = COLOURS.iter().find(|(name, _)| *name == slice.name);
        let colour = colour.map_or("#d7dde4", |(_, colour)| colour);
        let name = &slice.name;
        let length = slice.to - slice.from;
        let _ = writeln!(
            self.text,
            r##"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{:.1}" fill="{colour}" stroke="#fff" stroke-width="0.5"><title>{name}, {length:.1} us</title></rect>"##,
            ROW - 2.0
        );
        // As far as there is room.
        let label = format!("{name} {length:.1}");
        for label in [label.as_str(), name.as_str()] {
            if label.len() as f64 * 6.2 < width {
                self.words((x + end) / 2.0, y + 14.0, "middle", label);
                break;
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [file, from, to] = &args[..] else {
        return Err("picture TRACE FROM TO".into());
    };
    let mut picture = Picture {
        from: from.parse()?,
        to: to.parse()?,
        text: String::new(),
    };
    let trace: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let events = trace["traceEvents"].as_array().ok_or("not a trace")?;
    let track = |e: &Value| (e["pid"].as_u64(), e["tid"].as_u64());
    let time = |e: &Value| e["ts"].as_f64().unwrap_or_default();

    let mut names = BTreeMap::new();
    let mut tracks: BTreeMap<_, Vec<Slice>> = BTreeMap::new();
    for event in events {
        if event["name"] == "thread_name" {
            names.insert(track(event), event["args"]["name"].as_str().unwrap_or(""));
        }
        let from = time(event);
        let to = from + event["dur"].as_f64().unwrap_or_default();
        if event["ph"] == "X" && to >= picture.from && from <= picture.to {
            let name = event["name"].as_str().unwrap_or("").into();
            let slices = tracks.entry(track(event)).or_default();
            slices.push(Slice { from, to, name });
        }
    }
    let rows: BTreeMap<_, _> = tracks
        .keys()
        .enumerate()
        .map(|(n, track)| (*track, TOP + n as f64 * TRACK))
        .collect();
    for (track, slices) in &tracks {
        let y = rows[track];
        let name = names.get(track).copied().unwrap_or("");
        picture.words(LEFT - 8.0, y + 15.0, "end", name);
        for slice in slices {
            let stage = COLOURS.iter().any(|(name, _)| *name == slice.name);
            let y = if stage { y + ROW } else { y };
            picture.slice(slice, y);
        }
    }
    // The ends of each arrow in order: start, thread, end.
    let mut arrows: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for event in events {
        if let (Some(id), Some(y)) = (event["id"].as_u64(), rows.get(&track(event))) {
            let at = time(event);
            if (picture.from..=picture.to).contains(&at) {
                let y = y + if event["ph"] == "t" {
                    ROW / 2.0
                } else {
                    1.5 * ROW
                };
                arrows.entry(id).or_default().push((picture.x(at), y));
            }
        }
    }
    for points in arrows.values() {
        for pair in points.windows(2) {
            let [(a, b), (c, d)] = [pair[0], pair[1]];
            let middle = (b + d) / 2.0;
            let _ = writeln!(
                picture.text,
                r##"<path d="M{a:.1} {b:.1} C{a:.1} {middle:.1} {c:.1} {middle:.1} {c:.1} {d:.1}" fill="none" stroke="#444" stroke-width="1" marker-end="url(#head)"/>"##
            );
        }
    }
    // A scale of ten parts.
    for n in 0..=10 {
        let at = picture.from + (picture.to - picture.from) * f64::from(n) / 10.0;
        let x = picture.x(at);
        picture.words(x, 16.0, "middle", &format!("{:.0}", at - picture.from));
    }
    picture.words(LEFT - 8.0, 16.0, "end", "microseconds");
    let height = TOP + tracks.len() as f64 * TRACK + 6.0;
    println!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11" fill="#222">
<defs><marker id="head" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0 L6 3 L0 6 z" fill="#444"/></marker></defs>
<rect width="{WIDTH}" height="{height}" fill="#fff"/>
{}</svg>"##,
        picture.text
    );
    Ok(())
}
