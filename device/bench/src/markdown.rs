// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The table, for people: in a terminal and in the document.

use std::fmt::Write;

use crate::{
    report::Run,
    rows::{device_memory_per_pair, under_overload, Better, Line, Verdict, NO_LIVELOCK},
    svg::short,
};

/// The document's part that this program writes is between these; what people write around them
/// stays.
const BEGIN: &str = "<!-- scripts/bench: begin -->";
const END: &str = "<!-- scripts/bench: end -->";

/// Rows with an asterisk had other load on the machine in every sample.
fn star(disturbed: bool) -> &'static str {
    if disturbed {
        "\\*"
    } else {
        ""
    }
}

fn goal(line: &Line, verdict: &Verdict) -> String {
    let (Some(goal), Some(met)) = (verdict.goal, verdict.met) else {
        return "–".into();
    };
    let relation = match line.better {
        Better::More => "≥",
        Better::Less => "≤",
    };
    format!(
        "{relation} {goal} {}",
        if met { "met" } else { "**missed**" }
    )
}

/// The lines of one number of guest CPUs as a Markdown table.
pub fn table(lines: &[&Line], nics: &[String]) -> String {
    let mut rows = vec![vec!["metric".to_owned(), "unit".into()]];
    rows[0].extend(nics.iter().cloned());
    rows[0].extend(["best rival", "vnet ÷ it", "goal"].map(String::from));
    for line in lines {
        let mut row = vec![line.title.to_owned(), line.unit.into()];
        for nic in nics {
            row.push(line.nics.get(nic).map_or("–".into(), |figures| {
                let median = short(figures.median);
                let range = if figures.samples > 1 {
                    format!(" ({}–{})", short(figures.min), short(figures.max))
                } else {
                    String::new()
                };
                format!("{median}{}{range}", star(figures.disturbed))
            }));
        }
        row.extend(match &line.verdict {
            None => ["–".into(), "–".into(), "–".into()],
            Some(verdict) => [
                verdict.rival.clone(),
                verdict
                    .ratio
                    .map_or("–".into(), |ratio| format!("{ratio:.2}")),
                goal(line, verdict),
            ],
        });
        rows.push(row);
    }
    aligned(&rows)
}

/// Pads cells, so that the table can be read without rendering, too.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| Some(row.get(column)?.chars().count()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(out, "| {cell:width$} ");
        }
        out.push_str("|\n");
        if n == 0 {
            for width in &widths {
                let _ = write!(out, "|-{}-", "-".repeat(*width));
            }
            out.push_str("|\n");
        }
    }
    out
}

/// The tables of a run, one for each number of guest CPUs.
pub fn tables(run: &Run) -> String {
    let mut smps: Vec<u32> = run.lines.iter().map(|line| line.smp).collect();
    smps.sort_unstable();
    smps.dedup();
    let mut out = String::new();
    for smp in smps {
        let lines: Vec<&Line> = run.lines.iter().filter(|line| line.smp == smp).collect();
        let _ = writeln!(
            out,
            "### {smp} guest CPU{}\n",
            if smp == 1 { "" } else { "s" }
        );
        let _ = writeln!(out, "{}", table(&lines, &run.nics));
    }
    let overload = under_overload(&run.lines);
    if !overload.is_empty() {
        let parts: Vec<String> = overload
            .iter()
            .map(|(smp, nic, part)| {
                let verdict = if *part >= NO_LIVELOCK {
                    ""
                } else {
                    " (livelock)"
                };
                format!(
                    "{nic} with {smp} CPU{} {:.0} %{verdict}",
                    if *smp == 1 { "" } else { "s" },
                    part * 100.0
                )
            })
            .collect();
        let _ = writeln!(
            out,
            "Delivered under overload, as a part of the no-loss rate (goal: {:.0} %): {}.\n",
            NO_LIVELOCK * 100.0,
            parts.join(", ")
        );
    }
    if let Some(kilobytes) = device_memory_per_pair(&run.lines) {
        let _ = writeln!(
            out,
            "One queue pair more takes {kilobytes:.0} KiB in vnetd.\n"
        );
    }
    let met = |line: &&Line| line.verdict.as_ref().and_then(|v| v.met);
    let judged: Vec<bool> = run.lines.iter().filter_map(|line| met(&line)).collect();
    if !judged.is_empty() {
        let _ = writeln!(
            out,
            "Goals met: {} of {}.\n",
            judged.iter().filter(|met| **met).count(),
            judged.len()
        );
    }
    if run
        .lines
        .iter()
        .any(|line| line.nics.values().any(|f| f.disturbed))
    {
        let _ = writeln!(
            out,
            "\\* something else used the machine during every sample.\n"
        );
    }
    if !run.failures.is_empty() {
        let _ = writeln!(out, "Samples that failed:\n");
        for failure in &run.failures {
            let _ = writeln!(out, "- {failure}");
        }
        out.push('\n');
    }
    out
}

/// The part of the document that is made of a run.
fn generated(run: &Run) -> String {
    let about = &run.about;
    let mut out = format!(
        "{BEGIN}\n\n## In a guest\n\n\
         {}, commit {}, by `{}`, which writes this part of the file. {} CPUs ({}), {}, guest kernel {}, \
         accelerator {}. Samples of {} s; figures are medians, with the smallest and the largest.\n\n",
        about.date, about.commit, about.command, about.cpus, about.cpu_model, about.qemu,
        about.guest_kernel, about.accelerator, about.seconds,
    );
    out.push_str(&tables(run));
    out.push_str("### Plots\n\n");
    let mut seen = Vec::new();
    for line in &run.lines {
        if !seen.contains(&line.id) {
            seen.push(line.id);
            let _ = writeln!(out, "![{}](benchmarks/{}.svg)\n", line.title, line.id);
        }
    }
    let _ = writeln!(
        out,
        "All figures and samples: [results.json](benchmarks/results.json)\n"
    );
    out.push_str(END);
    out.push('\n');
    out
}

const PREFACE: &str = "<!-- SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 -->\n# Benchmarks\n\n";

/// The document with this run's part in it. `old` is the document so far.
pub fn document(old: Option<&str>, run: &Run) -> String {
    let new = generated(run);
    let Some(old) = old else {
        return format!("{PREFACE}{new}");
    };
    match (old.find(BEGIN), old.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            let rest = old[end + END.len()..].trim_start_matches('\n');
            let gap = if rest.is_empty() { "" } else { "\n" };
            format!("{}{new}{gap}{rest}", &old[..begin])
        }
        _ => format!("{}\n\n{new}", old.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::About, rows, sample::Sample};

    fn run() -> Run {
        let tcp = |nic: &str, value| Sample {
            metric: "tcp-out".into(),
            nic: nic.into(),
            smp: 1,
            values: [("mbit_s".into(), value)].into(),
            ..Sample::default()
        };
        let samples = [tcp("vnet", 130.0), tcp("vnet", 150.0), tcp("igb", 100.0)];
        Run {
            about: About::default(),
            nics: vec!["vnet".into(), "igb".into()],
            lines: rows::lines(&samples),
            failures: vec![],
            samples: samples.into(),
        }
    }

    #[test]
    fn the_table_names_rival_ratio_and_goal() {
        let text = tables(&run());
        assert!(
            text.contains("| 140 (130–150) | 100 | igb        | 1.40      | ≥ 1.25 met |"),
            "{text}"
        );
        assert!(text.contains("Goals met: 1 of 1."));
        let lengths: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.chars().count())
            .collect();
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn what_people_wrote_stays() {
        let first = document(None, &run());
        let edited = first.replace("# Benchmarks\n", "# Benchmarks\n\nBefore.\n") + "\nAfter.\n";
        let again = document(Some(&edited), &run());
        assert_eq!(again, edited);
        assert!(again.contains("Before.") && again.ends_with("\nAfter.\n"));
        let foreign = document(Some("# Benchmarks\n\nBy hand.\n"), &run());
        assert!(foreign.starts_with("# Benchmarks\n\nBy hand.\n\n<!--"));
    }
}
