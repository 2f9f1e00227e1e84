// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! `docs/faults.md` and the guest test that goes through all faults know the same ones as the plan's
//! parser.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use vnet_faults::Kind;

fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap()
}

/// What is between two marks.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).expect(start);
    rest.split_once(end).expect(end).0
}

#[test]
fn the_document_lists_each_kind() {
    let text = file("docs/faults.md");
    let table = between(&text, "\n## Faults\n", "\n\nA round is");
    let listed: Vec<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(listed, names);
}

/// A row of the test's table begins with a plan, whose lines have ` + ` between them.
#[test]
fn a_guest_lives_through_each_kind() {
    let text = file("scripts/tests/faults.sh");
    let tried: BTreeSet<_> = between(&text, "\ntable=\"\\\n", "\"\n")
        .lines()
        .filter_map(|row| row.split('|').next())
        .flat_map(|plan| plan.split(" + "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let names: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(tried, names);
}
