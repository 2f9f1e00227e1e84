// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Holds docs/datasheet.md to the definitions of this crate, in both directions.
//!
//! The values are taken from the lists that the contract's macros make; there is no second copy of
//! them here. That the comparison sees a change is tested too, by changing each compared cell.

mod contract;
mod table;

use std::collections::BTreeSet;
use std::path::Path;

use contract::Expected;
use table::{Cell, Table};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn datasheet() -> String {
    read("../../docs/datasheet.md")
}

/// What the text and the contract disagree about, one sentence each.
fn check(text: &str, expected: &[Expected]) -> Vec<String> {
    let tables = match table::find(text) {
        Ok(tables) => tables,
        Err(e) => return vec![e],
    };
    let mut findings = Vec::new();
    for t in &tables {
        if !expected.iter().any(|e| e.marker == t.marker) {
            findings.push(format!("{}: not in the contract", t.marker));
        }
    }
    for e in expected {
        let parts: Vec<_> = tables.iter().filter(|t| t.marker == e.marker).collect();
        compare(e, &parts, &mut findings);
    }
    findings
}

fn compare(expected: &Expected, parts: &[&Table], findings: &mut Vec<String>) {
    let marker = expected.marker;
    let mut found: Vec<Vec<Cell>> = Vec::new();
    for table in parts {
        let columns: Option<Vec<_>> = expected.columns.iter().map(|c| table.column(c)).collect();
        let Some(columns) = columns else {
            findings.push(format!(
                "{marker}: needs the columns {:?}",
                expected.columns
            ));
            return;
        };
        for row in &table.rows {
            let row: Vec<_> = columns
                .iter()
                .map(|&c| Cell::parse(&row.cells[c]))
                .collect();
            if found.iter().any(|f| f[0] == row[0]) {
                findings.push(format!("{marker}: {:?} stands there twice", row[0]));
            }
            found.push(row);
        }
    }
    for row in &expected.rows {
        match found.iter().find(|f| f[0] == row[0]) {
            None => findings.push(format!("{marker}: {:?} is missing", row[0])),
            Some(f) if f != row => {
                findings.push(format!("{marker}: {f:?}, but the contract has {row:?}"));
            }
            Some(_) => {}
        }
    }
    for f in &found {
        if !expected.rows.iter().any(|row| row[0] == f[0]) {
            findings.push(format!("{marker}: {:?} is not in the contract", f[0]));
        }
    }
}

#[test]
fn the_tables_agree_with_the_contract() {
    let findings = check(&datasheet(), &contract::tables());
    assert!(findings.is_empty(), "{findings:#?}");
}

/// Names in code style that the text may use: the first column of every table.
fn known_names(expected: &[Expected]) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for row in expected.iter().flat_map(|e| &e.rows) {
        if let Cell::Text(name) = &row[0] {
            known.insert(name.clone());
        }
    }
    known
}

/// Names in capitals and code style that the text uses, without those that are known.
fn unknown_names(text: &str, known: &BTreeSet<String>) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| {
            code.starts_with(|c: char| c.is_ascii_uppercase())
                && code
                    .chars()
                    .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        })
        .filter(|code| !known.contains(*code))
        .map(String::from)
        .collect()
}

#[test]
fn prose_uses_only_names_that_exist() {
    let known = known_names(&contract::tables());
    assert_eq!(unknown_names(&datasheet(), &known), [""; 0]);

    let mutated = datasheet().replace("`Q_CTRL_ENABLE` to `Q_CTRL`", "`Q_CTRL_START` to `Q_CTRL`");
    assert!(unknown_names(&mutated, &known).contains(&"Q_CTRL_START".into()));
}

/// The text with one line replaced by others.
fn with_line(text: &str, line: usize, by: &[&str]) -> String {
    let lines: Vec<_> = text.lines().collect();
    [&lines[..line], by, &lines[line + 1..]].concat().join("\n")
}

#[test]
fn a_change_of_any_compared_cell_is_noticed() {
    let text = datasheet();
    let expected = contract::tables();
    let mut changed = 0;
    for table in table::find(&text).unwrap() {
        let e = expected.iter().find(|e| e.marker == table.marker).unwrap();
        for row in &table.rows {
            for title in e.columns {
                let at = table.column(title).unwrap();
                let mut cells = row.cells.clone();
                cells[at] = match Cell::parse(&cells[at]) {
                    Cell::Number(n) => (n ^ 1).to_string(),
                    Cell::Text(t) => format!("{t}X"),
                };
                let mutated = with_line(&text, row.line, &[&table::write_row(&cells)]);
                let line = row.line + 1;
                assert!(
                    !check(&mutated, &expected).is_empty(),
                    "line {line}: change of {title} unnoticed"
                );
                changed += 1;
            }
        }
    }
    let cells: usize = expected
        .iter()
        .map(|e| e.columns.len() * e.rows.len())
        .sum();
    assert_eq!(changed, cells);
}

#[test]
fn a_row_that_is_gone_or_there_twice_is_noticed() {
    let text = datasheet();
    let expected = contract::tables();
    let lines: Vec<_> = text.lines().collect();
    for row in table::find(&text).unwrap().iter().flat_map(|t| &t.rows) {
        let (at, line) = (row.line, lines[row.line]);
        let gone = with_line(&text, at, &[]);
        assert!(!check(&gone, &expected).is_empty(), "gone: {line}");
        let twice = with_line(&text, at, &[line, line]);
        assert!(!check(&twice, &expected).is_empty(), "twice: {line}");
    }
}

#[test]
fn a_table_that_is_gone_or_unknown_is_noticed() {
    let text = datasheet();
    let expected = contract::tables();
    for (at, line) in text.lines().enumerate() {
        if line.starts_with("<!-- contract: ") {
            let gone = with_line(&text, at, &[]);
            assert!(!check(&gone, &expected).is_empty(), "gone: {line}");
            let other = with_line(&text, at, &["<!-- contract: other -->"]);
            assert!(!check(&other, &expected).is_empty(), "renamed: {line}");
        }
    }
    let ragged = text.replacen("| `CTRL` | 32 |", "| `CTRL` |", 1);
    assert_ne!(ragged, text);
    assert!(!check(&ragged, &expected).is_empty());
}

/// The lists that the sources of the contract define by its macros, as `module::LIST`.
fn lists_in(module: &str, source: &str) -> Vec<String> {
    let macros = [
        "constants! {",
        "members! {",
        "registers! {",
        "bits! {",
        "fields! {",
    ];
    let mut lists = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let name = match line {
            "features! {" => Some("FEATURES"),
            "errors! {" => Some("Error"),
            // The list's name is the first thing in the macro that is no comment.
            _ if macros.contains(&line) => lines
                .by_ref()
                .map(str::trim)
                .find(|l| !l.starts_with("///"))
                .and_then(|l| l.split([',', ';']).next()),
            _ => None,
        };
        lists.extend(name.map(|name| format!("{module}::{name}")));
    }
    lists
}

/// Numbers that the sources define outside of the lists.
fn loose_constants(source: &str) -> Vec<&str> {
    source
        .lines()
        .map(str::trim_start)
        .filter(|l| l.starts_with("pub const ") && !l.starts_with("pub const fn "))
        // In macros the name is a variable; lists are references.
        .filter(|l| !l.contains('$') && !l.contains(": &"))
        .collect()
}

#[test]
fn every_definition_is_in_a_list_and_every_list_is_compared() {
    let mut defined = BTreeSet::new();
    for module in ["features", "hdr", "pci", "queue", "regs", "ring"] {
        let source = read(&format!("src/{module}.rs"));
        assert_eq!(loose_constants(&source), [""; 0], "{module}");
        defined.extend(lists_in(module, &source));
    }
    let root = read("src/lib.rs");
    assert_eq!(loose_constants(&root), [""; 0]);
    assert_eq!(
        root.matches("\npub mod ").count(),
        6,
        "a module is not read"
    );

    let expected = contract::tables();
    let compared: BTreeSet<_> = expected.iter().map(|e| e.marker.to_string()).collect();
    let derived = ["access types", "queue numbering", "ring layout"]
        .map(String::from)
        .into();
    assert_eq!(defined, &compared - &derived);

    assert_eq!(loose_constants("    pub const NEW: u32 = 1;").len(), 1);
    let new = "constants! {\n    /// Doc.\n    NEW;\n}\n";
    assert_eq!(lists_in("hdr", new), ["hdr::NEW"]);
}
