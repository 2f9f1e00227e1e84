// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a card costs among many in one vnetd: memory of its own, threads, and CPU time for each frame.
//!
//! Each card is its own network, and each frame comes back: a frame is counted once for both ways. All
//! cards have traffic in turn, in bursts of 32 frames of 1000 bytes, the same number of frames in all.
//!
//! `cargo run --release -p vnet-testkit --example many_cards [POLL_US]`, with `poll-us` for the cards;
//! `VNET_VNETD` names another server.
#![allow(missing_docs)]

use std::fs;
use std::time::Duration;

use vnet_contract::hdr::NetHdr;
use vnet_testkit::{Cards, Nic, Options, Result, LIMIT};

const FRAMES: u32 = 128 * 1024;
const BURST: u32 = 32;

/// Anonymous memory of the process in kilobytes: without that of the guests, and without the program.
fn memory(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok());
    Ok(kilobytes.unwrap_or(0))
}

/// How long the threads of the process have been on a CPU, and how many there are.
fn threads(process: u32) -> Result<(Duration, u32)> {
    let (mut sum, mut count) = (Duration::ZERO, 0);
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        let nanoseconds = stat.split(' ').next().and_then(|n| n.parse().ok());
        sum += Duration::from_nanos(nanoseconds.unwrap_or(0));
        count += 1;
    }
    Ok((sum, count))
}

/// Sends a burst to the card itself, and waits until it is back.
fn burst(nic: &mut Nic, frame: &[u8]) -> Result<()> {
    for _ in 0..BURST {
        nic.queue(0, NetHdr::default(), frame)?;
    }
    nic.flush(0)?;
    for _ in 0..BURST {
        assert!(nic.receive(0, LIMIT)?.is_some(), "a frame is lost");
    }
    Ok(())
}

fn main() -> Result<()> {
    let poll = std::env::args().nth(1);
    let poll = poll.map_or(String::new(), |us| format!("poll-us = {us}\n"));
    println!("cards | memory of a card, KiB | threads of a card | CPU of a frame, us");
    let empty = Cards::start("control = \"@DIR@/control\"\n", &["control"])?;
    let (nothing, (_, idle)) = (memory(empty.process.id())?, threads(empty.process.id())?);
    for count in [1, 4, 16, 64] {
        let card = |n| format!("[[card]]\nsocket = \"@DIR@/{n}\"\nnet = \"loopback\"\n{poll}");
        let names: Vec<_> = (0..count).map(|n: u32| n.to_string()).collect();
        let config = names.iter().map(card).collect::<String>();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let cards = Cards::start(&format!("control = \"@DIR@/control\"\n{config}"), &names)?;
        let nics = names.iter().map(|name| cards.nic(name, Options::default()));
        let mut nics = nics.collect::<Result<Vec<_>>>()?;
        let process = cards.process.id();
        let frames: Vec<_> = nics
            .iter()
            .map(|nic| [&nic.mac[..], &nic.mac, &[0x88, 0xb5], &[7; 986]].concat())
            .collect();
        for (nic, frame) in nics.iter_mut().zip(&frames) {
            burst(nic, frame)?;
        }
        let (before, all) = threads(process)?;
        for _ in 0..FRAMES / BURST / count {
            for (nic, frame) in nics.iter_mut().zip(&frames) {
                burst(nic, frame)?;
            }
        }
        let cpu = threads(process)?.0 - before;
        let own = memory(process)?.saturating_sub(nothing);
        println!(
            "{count} | {} | {} | {:.2}",
            own / u64::from(count),
            (all - idle) / count,
            cpu.as_secs_f64() * 1e6 / f64::from(FRAMES)
        );
    }
    Ok(())
}
