// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! One measurement, as a line of JSON that scripts/bench collects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::account::Usage;

/// Other load from which on a sample counts as disturbed: this part of one CPU.
const DISTURBED: f64 = 0.10;

/// A measurement of one NIC.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    /// What was done.
    pub metric: String,
    /// On which NIC.
    pub nic: String,
    /// CPUs of the guest.
    pub smp: u32,
    /// In which round.
    pub repeat: u32,
    /// Figures by name.
    pub values: BTreeMap<String, f64>,
    /// CPUs that were busy with something else, or stolen.
    #[serde(default)]
    pub others: f64,
    /// Why there are no figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Sample {
    /// Whether somebody else used the machine.
    pub fn disturbed(&self) -> bool {
        self.others > DISTURBED
    }

    /// Notes a figure.
    pub fn set(&mut self, name: &str, value: f64) {
        self.values.insert(name.into(), value);
    }

    /// Notes who used the CPUs. What `vnetd` used belongs to the set-up only for its own card.
    pub fn account(&mut self, usage: &Usage) {
        let own: f64 = usage
            .own
            .iter()
            .filter(|(name, _)| *name != "vnetd" || self.nic == "vnet")
            .map(|(_, seconds)| seconds)
            .sum();
        self.set("elapsed", usage.elapsed);
        self.set("cpu", own);
        for (name, seconds) in &usage.own {
            self.set(&format!("cpu_{name}"), *seconds);
        }
        if usage.elapsed > 0.0 {
            self.others = (usage.other + usage.steal) / usage.elapsed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_server_counts_for_its_own_card() {
        let usage = Usage {
            elapsed: 2.0,
            own: [("qemu", 1.0), ("peer", 0.5), ("vnetd", 0.25)]
                .map(|(name, seconds)| (name.into(), seconds))
                .into(),
            other: 0.1,
            steal: 0.0,
        };
        for (nic, cpu) in [("vnet", 1.75), ("igb", 1.5)] {
            let mut sample = Sample {
                nic: nic.into(),
                ..Sample::default()
            };
            sample.account(&usage);
            assert_eq!(sample.values["cpu"], cpu);
            assert!(!sample.disturbed());
        }
    }

    #[test]
    fn load_and_stolen_time_disturb() {
        for (other, steal, disturbed) in [(0.1, 0.0, false), (0.3, 0.0, true), (0.1, 0.15, true)] {
            let mut sample = Sample::default();
            sample.account(&Usage {
                elapsed: 2.0,
                other,
                steal,
                ..Usage::default()
            });
            assert_eq!(sample.disturbed(), disturbed, "{other} {steal}");
        }
    }
}
