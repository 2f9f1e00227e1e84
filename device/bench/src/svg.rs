// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A bar chart: a group of bars for each number of guest CPUs, a bar for each NIC, with its range.

use std::fmt::Write;

use crate::rows::{Better, Line, OURS};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 40.0;

/// Ours stands out; the others are greys that differ in print, too.
fn colour(nic: &str, index: usize) -> &'static str {
    if nic == OURS {
        "#c2410c"
    } else {
        ["#475569", "#94a3b8", "#64748b", "#b6c2d1"][index % 4]
    }
}

/// A figure with as many digits as it deserves.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The end of the axis and the distance of its marks: 1, 2 or 5 times a power of ten.
fn axis(max: f64) -> (f64, f64) {
    let max = if max > 0.0 { max } else { 1.0 };
    let power = 10f64.powf((max / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|n| n * power)
        .into_iter()
        .find(|step| max / step <= 5.0)
        .unwrap_or(10.0 * power);
    ((max / step).ceil() * step, step)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Draws one row of the table; `lines` are its lines, `nics` the order of the bars.
pub fn draw(lines: &[&Line], nics: &[String]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_chart(&mut out, lines, nics);
    out
}

fn write_chart(out: &mut String, lines: &[&Line], nics: &[String]) -> std::fmt::Result {
    let Some(first) = lines.first() else {
        return Ok(());
    };
    let max = lines
        .iter()
        .flat_map(|line| line.nics.values())
        .fold(0f64, |max, figures| max.max(figures.max));
    let (end, step) = axis(max);
    let (plot_width, plot_height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let y_of = |value: f64| TOP + plot_height * (1.0 - value / end);

    let better = match first.better {
        Better::More => "more is better",
        Better::Less => "less is better",
    };
    let unit = if first.unit.is_empty() {
        String::new()
    } else {
        format!("{}, ", first.unit)
    };
    writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="11">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="18" font-size="14" font-weight="bold" fill="#0f172a">{}</text>
<text x="{LEFT}" y="34" fill="#475569">{unit}{better}; bar: median, line: smallest to largest</text>"##,
        escape(first.title)
    )?;

    for mark in 0..=(end / step).round() as u32 {
        let value = f64::from(mark) * step;
        let y = y_of(value);
        writeln!(
            out,
            r##"<line x1="{LEFT}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}" stroke="#e2e8f0"/>
<text x="{:.1}" y="{:.1}" text-anchor="end" fill="#475569">{}</text>"##,
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            short(value)
        )?;
    }

    let group = plot_width / lines.len() as f64;
    let bar = group * 0.9 / nics.len().max(1) as f64;
    for (g, line) in lines.iter().enumerate() {
        let start = LEFT + group * (g as f64 + 0.05);
        for (i, nic) in nics.iter().enumerate() {
            let Some(figures) = line.nics.get(nic) else {
                continue;
            };
            let x = start + bar * i as f64;
            let middle = x + bar / 2.0;
            let y = y_of(figures.median);
            let (low, high) = (y_of(figures.min), y_of(figures.max));
            writeln!(
                out,
                r##"<rect x="{:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" fill="{}"/>
<line x1="{middle:.1}" y1="{low:.1}" x2="{middle:.1}" y2="{high:.1}" stroke="#0f172a"/>
<text x="{middle:.1}" y="{:.1}" text-anchor="middle" fill="#0f172a">{}{}</text>
<text x="{middle:.1}" y="{:.1}" text-anchor="middle" font-size="10" fill="#0f172a">{}</text>"##,
                x + 2.0,
                bar - 4.0,
                TOP + plot_height - y,
                colour(nic, i),
                high.min(y) - 4.0,
                short(figures.median),
                if figures.disturbed { "*" } else { "" },
                HEIGHT - BOTTOM + 13.0,
                escape(nic),
            )?;
        }
        writeln!(
            out,
            r##"<text x="{:.1}" y="{:.1}" text-anchor="middle" fill="#475569">{} guest CPU{}</text>"##,
            start + group * 0.45,
            HEIGHT - BOTTOM + 30.0,
            line.smp,
            if line.smp == 1 { "" } else { "s" },
        )?;
    }
    writeln!(out, "</svg>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Figures;

    fn line(smp: u32, medians: &[(&str, f64)]) -> Line {
        Line {
            id: "x",
            title: "loss < 0.1 %",
            unit: "kpps",
            smp,
            better: Better::More,
            nics: medians
                .iter()
                .map(|(nic, median)| {
                    let figures = Figures {
                        median: *median,
                        min: median * 0.9,
                        max: median * 1.1,
                        samples: 3,
                        disturbed: false,
                    };
                    (nic.to_string(), figures)
                })
                .collect(),
            verdict: None,
        }
    }

    /// Heights of the bars.
    fn bars(svg: &str) -> Vec<f64> {
        svg.split("height=\"")
            .skip(3)
            .filter_map(|rest| rest.split('"').next()?.parse().ok())
            .collect()
    }

    #[test]
    fn a_bar_for_each_nic_and_cpu_count_in_proportion() {
        let (one, two) = (
            line(1, &[("vnet", 100.0), ("igb", 50.0)]),
            line(2, &[("vnet", 25.0), ("igb", 0.0)]),
        );
        let svg = draw(&[&one, &two], &["vnet".into(), "igb".into()]);
        let bars = bars(&svg);
        assert_eq!(bars.len(), 4);
        assert!((bars[0] / bars[1] - 2.0).abs() < 0.01);
        assert!((bars[0] / bars[2] - 4.0).abs() < 0.02);
        assert_eq!(bars[3], 0.0);
        assert!(svg.contains("loss &lt; 0.1 %"));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn the_axis_ends_above_everything() {
        for max in [0.0003, 0.9, 1.0, 4.99, 5.01, 77.0, 12345.0] {
            let (end, step) = axis(max);
            assert!(end >= max && end - step < max, "{max}: {end} {step}");
            assert!(end / step <= 5.01);
        }
        assert_eq!(axis(0.0), axis(1.0));
    }

    #[test]
    fn digits() {
        assert_eq!(short(4290.4), "4290");
        assert_eq!(short(69.04), "69.0");
        assert_eq!(short(2.345), "2.35");
        assert_eq!(short(0.0123), "0.0123");
        assert_eq!(short(0.0), "0");
    }
}
