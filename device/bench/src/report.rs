// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! From samples to a table on standard output, `benchmarks.md`, and data and plots beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use crate::{
    error::{Context, Result},
    interface, markdown,
    rows::{self, Line},
    sample::Sample,
    svg,
};

/// Where from, where to, and what cannot be read off the machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File with a sample a line
    #[arg(long)]
    pub samples: PathBuf,
    /// Directory for benchmarks.md and benchmarks/
    #[arg(long)]
    pub out: PathBuf,
    /// The NICs, in the order of the columns
    #[arg(long, value_delimiter = ',')]
    pub nics: Vec<String>,
    /// The command that ran
    #[arg(long)]
    pub command: String,
    /// Accelerator
    #[arg(long)]
    pub accel: String,
    /// Release of the guest's kernel
    #[arg(long)]
    pub guest_kernel: String,
    /// Version of QEMU
    #[arg(long)]
    pub qemu: String,
    /// Commit of this repository
    #[arg(long)]
    pub commit: String,
    /// Seconds of a sample
    #[arg(long)]
    pub seconds: f64,
}

/// When, where and how.
#[derive(Debug, Default, Serialize)]
pub struct About {
    /// Day and time, UTC.
    pub date: String,
    /// What the host's CPUs call themselves.
    pub cpu_model: String,
    /// How many there are.
    pub cpus: usize,
    /// Version of QEMU.
    pub qemu: String,
    /// Its accelerator.
    pub accelerator: String,
    /// Release of the guest's kernel.
    pub guest_kernel: String,
    /// Commit of this repository.
    pub commit: String,
    /// The command that ran.
    pub command: String,
    /// Seconds of a sample.
    pub seconds: f64,
}

/// Everything about a run; `results.json`.
#[derive(Debug, Serialize)]
pub struct Run {
    /// When, where and how.
    pub about: About,
    /// The NICs, in the order of the columns.
    pub nics: Vec<String>,
    /// The table.
    pub lines: Vec<Line>,
    /// Samples without figures.
    pub failures: Vec<String>,
    /// What the table was made of.
    pub samples: Vec<Sample>,
}

/// The model of the first CPU in `/proc/cpuinfo`.
fn cpu_model(table: &str) -> Option<&str> {
    let line = table.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

fn about(args: &Args) -> Result<About> {
    let table = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    Ok(About {
        date: interface::run("date", &["-u", "+%Y-%m-%d %H:%M UTC"])?
            .trim()
            .into(),
        cpu_model: cpu_model(&table).unwrap_or("unknown").into(),
        cpus: table
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count(),
        qemu: args.qemu.clone(),
        accelerator: args.accel.clone(),
        guest_kernel: args.guest_kernel.clone(),
        commit: args.commit.clone(),
        command: args.command.trim().into(),
        seconds: args.seconds,
    })
}

fn failures(samples: &[Sample]) -> Vec<String> {
    let failed = |sample: &Sample| {
        let why = sample.error.as_ref()?;
        let Sample {
            metric,
            nic,
            smp,
            repeat,
            ..
        } = sample;
        Some(format!(
            "{metric} of {nic}, smp {smp}, round {repeat}: {why}"
        ))
    };
    samples.iter().filter_map(failed).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(path.display().to_string())
}

/// Writes everything. Samples that failed are reported and make the run fail.
pub fn make(args: &Args) -> Result<ExitCode> {
    let text = fs::read_to_string(&args.samples).context(args.samples.display().to_string())?;
    let samples: Vec<Sample> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<std::result::Result<_, _>>()?;
    let run = Run {
        about: about(args)?,
        nics: args.nics.clone(),
        lines: rows::lines(&samples),
        failures: failures(&samples),
        samples,
    };

    let folder = args.out.join("benchmarks");
    fs::create_dir_all(&folder).context(folder.display().to_string())?;
    for row in rows::ROWS {
        let lines: Vec<&Line> = run.lines.iter().filter(|line| line.id == row.id).collect();
        let path = folder.join(format!("{}.svg", row.id));
        if lines.is_empty() {
            // One that an earlier run left would not belong to this one.
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(e).context(path.display().to_string());
                }
                _ => continue,
            }
        }
        write(&path, &svg::draw(&lines, &run.nics))?;
    }
    let json = serde_json::to_string_pretty(&run)? + "\n";
    write(&folder.join("results.json"), &json)?;
    let document = args.out.join("benchmarks.md");
    let old = fs::read_to_string(&document).ok();
    write(&document, &markdown::document(old.as_deref(), &run))?;

    print!("{}", markdown::tables(&run));
    Ok(if run.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_table_data_and_plots() {
        let folder = tempfile::tempdir().unwrap();
        let samples = folder.path().join("samples");
        let line = |nic: &str, value: u32| {
            format!(
                r#"{{"metric":"ping","nic":"{nic}","smp":1,"repeat":1,"values":{{"average_us":{value}}}}}"#
            )
        };
        let failed = r#"{"metric":"ping","nic":"igb","smp":2,"repeat":1,"values":{},"error":"x"}"#;
        let mut args = Args {
            samples: samples.clone(),
            out: folder.path().into(),
            nics: vec!["vnet".into(), "igb".into()],
            command: "scripts/bench".into(),
            accel: "tcg".into(),
            guest_kernel: "7.3".into(),
            qemu: "QEMU".into(),
            commit: "c0ffee".into(),
            seconds: 2.0,
        };
        fs::write(
            &samples,
            format!("{}\n{}\n", line("vnet", 90), line("igb", 100)),
        )
        .unwrap();
        assert_eq!(make(&args).unwrap(), ExitCode::SUCCESS);
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("benchmarks.md").contains("(benchmarks/ping.svg)"));
        assert!(read("benchmarks/ping.svg").contains("flood ping"));
        let data: serde_json::Value =
            serde_json::from_str(&read("benchmarks/results.json")).unwrap();
        assert_eq!(data["lines"][0]["verdict"]["ratio"], 0.9);
        assert_eq!(data["samples"].as_array().unwrap().len(), 2);

        // A later run without that metric takes its plot away, and one that failed says so.
        args.samples = folder.path().join("failed");
        fs::write(&args.samples, format!("{failed}\n")).unwrap();
        assert_eq!(make(&args).unwrap(), ExitCode::FAILURE);
        assert!(!folder.path().join("benchmarks/ping.svg").exists());
        assert!(read("benchmarks.md").contains("- ping of igb, smp 2, round 1: x"));
    }

    #[test]
    fn model_of_the_cpu() {
        assert_eq!(
            cpu_model("processor\t: 0\nmodel name\t: A (R)\n"),
            Some("A (R)")
        );
        assert_eq!(cpu_model(""), None);
    }
}
