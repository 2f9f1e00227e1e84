// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The tables that the contract's own lists call for.

use vnet_contract::features::FEATURES;
use vnet_contract::regs::{Access, Register, Reset};
use vnet_contract::{hdr, pci, queue, regs, ring, Constant, Member};

use crate::table::Cell;

/// Stands in a cell that says "none".
const NONE: &str = "–";

/// A table that the data sheet must have.
pub(crate) struct Expected {
    /// Its marker.
    pub(crate) marker: &'static str,
    /// The columns that are compared; the first one names the row.
    pub(crate) columns: &'static [&'static str],
    /// The rows, one cell per compared column.
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// All tables that the data sheet must have.
pub(crate) fn tables() -> Vec<Expected> {
    vec![
        constants("pci::IDENTITY", pci::IDENTITY),
        constants("pci::BARS", pci::BARS),
        constants("pci::LIMITS", pci::LIMITS),
        constants("regs::CONSTANTS", regs::CONSTANTS),
        constants("queue::CONSTANTS", queue::CONSTANTS),
        constants("ring::CONSTANTS", ring::CONSTANTS),
        constants("hdr::SIZES", hdr::SIZES),
        constants("hdr::FLAGS", hdr::FLAGS),
        constants("hdr::GSO_TYPES", hdr::GSO_TYPES),
        constants("hdr::HASH_REPORTS", hdr::HASH_REPORTS),
        members("ring::DESC_MEMBERS", ring::DESC_MEMBERS),
        members("ring::USED_ENTRY_MEMBERS", ring::USED_ENTRY_MEMBERS),
        members("hdr::MEMBERS", hdr::MEMBERS),
        members("hdr::HASH_MEMBERS", hdr::HASH_MEMBERS),
        members("hdr::VLAN_MEMBERS", hdr::VLAN_MEMBERS),
        members("hdr::STAMP_MEMBERS", hdr::STAMP_MEMBERS),
        access_types(),
        global(),
        block("regs::QUEUE", regs::QUEUE),
        block("regs::STATS", regs::STATS),
        bits(),
        fields(),
        features(),
        errors(),
        linear(
            "queue numbering",
            "p",
            &[
                ("rx_index", &|p| queue::rx_index(p).into()),
                ("tx_index", &|p| queue::tx_index(p).into()),
            ],
        ),
        linear(
            "ring layout",
            "N",
            &[
                ("desc_bytes", &ring::desc_bytes),
                ("avail_bytes", &ring::avail_bytes),
                ("used_bytes", &ring::used_bytes),
                ("used_event_offset", &ring::used_event_offset),
                ("avail_event_offset", &ring::avail_event_offset),
            ],
        ),
    ]
}

fn text(s: &str) -> Cell {
    Cell::Text(s.into())
}

fn number(n: impl Into<u64>) -> Cell {
    Cell::Number(n.into())
}

fn constants(marker: &'static str, list: &[Constant]) -> Expected {
    Expected {
        marker,
        columns: &["Name", "Value"],
        rows: list
            .iter()
            .map(|c| vec![text(c.name), number(c.value)])
            .collect(),
    }
}

fn members(marker: &'static str, list: &[Member]) -> Expected {
    Expected {
        marker,
        columns: &["Name", "Offset", "Width"],
        rows: list
            .iter()
            .map(|m| vec![text(m.name), number(m.offset as u64), number(m.width)])
            .collect(),
    }
}

/// Names of the features in a mask.
fn feature_names(mask: u64) -> Cell {
    let names: Vec<_> = FEATURES
        .iter()
        .filter(|f| mask & (1 << f.bit) != 0)
        .map(|f| f.name)
        .collect();
    match names.is_empty() {
        true => text(NONE),
        false => text(&names.join(", ")),
    }
}

fn register(r: &Register) -> Vec<Cell> {
    vec![
        text(r.name),
        number(r.offset),
        number(r.width),
        text(r.access.name()),
        match r.reset {
            Reset::Value(value) => number(value),
            Reset::Config => text("config"),
        },
        feature_names(r.feature),
    ]
}

/// The only table with a column for arrays.
fn global() -> Expected {
    let row = |r: &Register| {
        let mut row = register(r);
        row.push(match r.count {
            1 => text(NONE),
            n => text(&format!("{n} × {}", r.stride)),
        });
        row
    };
    Expected {
        marker: "regs::GLOBAL",
        columns: &[
            "Name", "Offset", "Width", "Access", "Reset", "Feature", "Array",
        ],
        rows: regs::GLOBAL.iter().map(row).collect(),
    }
}

fn block(marker: &'static str, list: &[Register]) -> Expected {
    assert!(list.iter().all(|r| r.count == 1), "{marker} has an array");
    Expected {
        marker,
        columns: &["Name", "Offset", "Width", "Access", "Reset", "Feature"],
        rows: list.iter().map(register).collect(),
    }
}

fn bits() -> Expected {
    Expected {
        marker: "regs::BITS",
        columns: &["Name", "Register", "Bit"],
        rows: regs::BITS
            .iter()
            .map(|b| vec![text(b.name), text(&b.registers.join(", ")), number(b.bit)])
            .collect(),
    }
}

fn fields() -> Expected {
    Expected {
        marker: "regs::FIELDS",
        columns: &["Name", "Register", "Bits"],
        rows: regs::FIELDS
            .iter()
            .map(|f| {
                let bits = format!("{}:{}", f.high, f.low);
                vec![text(f.name), text(f.register), text(&bits)]
            })
            .collect(),
    }
}

fn features() -> Expected {
    Expected {
        marker: "features::FEATURES",
        columns: &["Name", "Bit", "Needs"],
        rows: FEATURES
            .iter()
            .map(|f| vec![text(f.name), number(f.bit), feature_names(f.needs)])
            .collect(),
    }
}

fn errors() -> Expected {
    Expected {
        marker: "queue::Error",
        columns: &["Name", "Code"],
        rows: queue::Error::ALL
            .iter()
            .map(|&e| vec![text(e.name()), number(e as u8)])
            .collect(),
    }
}

/// Functions that grow evenly: what each gives at zero, and what every step adds.
fn linear(
    marker: &'static str,
    variable: &str,
    functions: &[(&str, &dyn Fn(u16) -> usize)],
) -> Expected {
    let row = |&(name, f): &(&str, &dyn Fn(u16) -> usize)| {
        let (base, step) = (f(0), f(1) - f(0));
        for x in [2, 15, 4096] {
            assert_eq!(f(x), base + step * usize::from(x), "{name} is not linear");
        }
        vec![text(name), text(&format!("{base} + {step} × {variable}"))]
    };
    Expected {
        marker,
        columns: &["Name", "Value"],
        rows: functions.iter().map(row).collect(),
    }
}

fn access_types() -> Expected {
    let all = [
        Access::Ro,
        Access::Rw,
        Access::RwStopped,
        Access::W1c,
        Access::Wo,
    ];
    Expected {
        marker: "access types",
        columns: &["Type"],
        rows: all.iter().map(|a| vec![text(a.name())]).collect(),
    }
}
