// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The guest's interface: its counters, its interrupts, its switch.

use std::{collections::BTreeSet, fs, process::Command, thread, time::Duration};

use crate::error::{Context, Error, Result};

/// Totals since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets in both directions, as the driver counts them.
    pub packets: u64,
    /// Interrupts of all its vectors.
    pub interrupts: u64,
}

impl std::ops::Sub for Counters {
    type Output = Self;
    fn sub(self, start: Self) -> Self {
        Self {
            packets: self.packets - start.packets,
            interrupts: self.interrupts - start.interrupts,
        }
    }
}

/// Adds up the lines of those vectors in `/proc/interrupts`.
fn sum_interrupts(table: &str, vectors: &BTreeSet<u32>) -> u64 {
    let cpus = table
        .lines()
        .next()
        .map_or(0, |heads| heads.split_whitespace().count());
    table
        .lines()
        .filter_map(|line| {
            let (vector, counts) = line.split_once(':')?;
            vectors
                .contains(&vector.trim().parse().ok()?)
                .then_some(counts)
        })
        .flat_map(|counts| counts.split_whitespace().take(cpus))
        .filter_map(|count| count.parse::<u64>().ok())
        .sum()
}

fn read(path: String) -> Result<String> {
    fs::read_to_string(&path).context(path)
}

/// The vectors of the PCI device below an interface; none for one without such a device. That of
/// virtio is between the two.
fn vectors(interface: &str) -> BTreeSet<u32> {
    ["device/msi_irqs", "device/../msi_irqs"]
        .iter()
        .filter_map(|place| fs::read_dir(format!("/sys/class/net/{interface}/{place}")).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// The counters now.
pub fn counters(interface: &str) -> Result<Counters> {
    let mut packets = 0;
    for name in ["rx_packets", "tx_packets"] {
        let text = read(format!("/sys/class/net/{interface}/statistics/{name}"))?;
        let value: u64 = text
            .trim()
            .parse()
            .map_err(|_| Error::Strange("interface counter", text.clone()))?;
        packets += value;
    }
    let table = read("/proc/interrupts".into())?;
    Ok(Counters {
        packets,
        interrupts: sum_interrupts(&table, &vectors(interface)),
    })
}

/// Receive queues that the driver uses.
pub fn queues(interface: &str) -> Result<usize> {
    let folder = format!("/sys/class/net/{interface}/queues");
    let entries = fs::read_dir(&folder).context(folder)?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("rx-"))
        .count())
}

/// Runs a program that must succeed; returns what it printed.
pub fn run(program: &'static str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .context(program)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(Error::Strange(program, format!("{text}{complaint}")))
    }
}

/// Switches the interface on and waits until it has a link, or off.
pub fn switch(interface: &str, on: bool) -> Result<()> {
    let state = if on { "up" } else { "down" };
    run("ip", &["link", "set", "dev", interface, state])?;
    for _ in 0..100 {
        if !on || read(format!("/sys/class/net/{interface}/carrier")).is_ok_and(|c| c == "1\n") {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(Error::Strange("link", format!("{interface} has none")))
}

/// Free pages in `/proc/zoneinfo`, with those that CPUs keep at hand: from these the first buffers
/// of an interface come, and `MemFree` would not move.
fn free_pages(table: &str) -> u64 {
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            let value = words.next()?.parse::<u64>().ok()?;
            matches!(name, "nr_free_pages" | "count:").then_some(value)
        })
        .sum()
}

/// Kilobytes of memory that nothing uses, once caches are dropped.
pub fn free_memory() -> Result<i64> {
    for _ in 0..2 {
        let path = "/proc/sys/vm/drop_caches";
        fs::write(path, "3").context(path)?;
        // What these hold is freed after a grace period.
        thread::sleep(Duration::from_millis(300));
    }
    // Slabs without objects, which each cache keeps some of. A kernel without these files keeps them.
    for cache in fs::read_dir("/sys/kernel/slab")
        .into_iter()
        .flatten()
        .flatten()
    {
        let _ = fs::write(cache.path().join("shrink"), "1");
    }
    // Counters that CPUs have for themselves go into the sum.
    read("/proc/sys/vm/stat_refresh".into())?;
    let pages = free_pages(&read("/proc/zoneinfo".into())?);
    Ok((pages * rustix::param::page_size() as u64 / 1024) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_of_its_vectors_on_all_cpus() {
        let table = "           CPU0       CPU1\n  0:  1 2 IO-APIC 2-edge timer\n\
                     24:  10  20  PCI-MSIX-0000:01:00.0 0-edge  vnet0-0\n\
                     25:  5  7  PCI-MSIX-0000:01:00.0 1-edge  3\nNMI: 9 9 Non-maskable\n";
        assert_eq!(sum_interrupts(table, &BTreeSet::from([24, 25])), 42);
        assert_eq!(sum_interrupts(table, &BTreeSet::from([2])), 0);
        assert_eq!(sum_interrupts("", &BTreeSet::from([24])), 0);
    }

    #[test]
    fn free_pages_of_all_zones_and_cpus() {
        let table = "Node 0, zone      DMA\n  pages free     5\n      nr_free_pages 5\n\
                     nr_free_pages_blocks 4\n  pagesets\n    cpu: 0\n              count:    7\n\
                     high: 9\nNode 0, zone DMA32\n nr_free_pages 100\n    count: 1\n";
        assert_eq!(free_pages(table), 113);
    }
}
