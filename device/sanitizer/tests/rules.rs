// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! `docs/rules.md` and the list of rules say the same, and every rule is broken in a test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vnet_sanitizer::Rule;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The chapters of the document: name and text.
fn chapters(text: &str) -> Vec<(&str, &str)> {
    text.split("\n### ")
        .skip(1)
        .map(|chapter| chapter.split_once('\n').unwrap())
        .collect()
}

/// What is wrong with a chapter about a rule.
fn wrong(rule: Rule, text: &str) -> Option<&'static str> {
    let severity = match rule.severity().name() {
        "error" => "*Error.*",
        _ => "*Warning.*",
    };
    let lead = format!("\n{severity} {}\n", rule.sentence());
    match text {
        _ if !text.starts_with(&lead) => Some("severity or sentence"),
        _ if !text.contains("\nWhy: ") => Some("no reason"),
        _ if !text.contains("\nHow to fix: ") => Some("no remedy"),
        _ => None,
    }
}

#[test]
fn the_document_has_a_chapter_for_each_rule() {
    let text = fs::read_to_string(root().join("docs/rules.md")).unwrap();
    let chapters = chapters(&text);
    let names: Vec<_> = chapters.iter().map(|(name, _)| *name).collect();
    let ids: Vec<_> = Rule::ALL.iter().map(|rule| rule.id()).collect();
    assert_eq!(names, ids);
    let wrong: BTreeMap<_, _> = Rule::ALL
        .iter()
        .zip(chapters)
        .filter_map(|(rule, (name, text))| Some((name, wrong(*rule, text)?)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_chapter_that_differs_is_noticed() {
    let rule = Rule::ChainLoop;
    let good = format!(
        "\n*Error.* {}\n\nWhy: a\n\nHow to fix: b\n",
        rule.sentence()
    );
    assert_eq!(wrong(rule, &good), None);
    for (part, other) in [
        ("*Error.*", "*Warning.*"),
        ("Why: ", ""),
        ("How to fix: ", ""),
    ] {
        assert!(wrong(rule, &good.replace(part, other)).is_some(), "{part}");
    }
}

#[test]
fn each_rule_is_broken_in_a_test() {
    let tests: String = fs::read_dir(root().join("device/testkit/tests/sanitizer"))
        .unwrap()
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let missing: Vec<_> = Rule::ALL
        .iter()
        .filter(|rule| !tests.contains(&format!("\"{rule}\"")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
