// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! `docs/rules.md` and the list of rules say the same, and every rule is broken in a test.

use std::collections::{BTreeMap, BTreeSet};
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

/// The rules that tests break: what they call `breaks` with, once or for each case of a list.
fn broken(tests: &str) -> BTreeSet<String> {
    let of_one = |test: &str| -> Vec<_> {
        let code: String = test
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(str::split_whitespace)
            .collect();
        let rule = match code.contains("breaks(rule,") {
            true => "(\"",
            false => "breaks(\"",
        };
        code.split(rule)
            .skip(1)
            .filter_map(|rest| Some(rest.split_once("\",")?.0.to_owned()))
            .collect()
    };
    tests.split("#[test]").flat_map(of_one).collect()
}

#[test]
fn each_rule_is_broken_in_a_test() {
    let tests: String = fs::read_dir(root().join("device/testkit/tests/sanitizer"))
        .unwrap()
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let broken = broken(&tests);
    let missing: Vec<_> = Rule::ALL
        .iter()
        .filter(|rule| !broken.contains(rule.id()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_rule_that_is_only_spoken_of_is_not_broken() {
    let tests = r#"
        #[test]
        fn one() {
            breaks(
                "chain-loop",
                "Queue 3",
            );
            assert!(rules.contains_key("chain-index"));
            // breaks("chain-length", "Queue 3");
        }
        #[test]
        fn several() {
            for (rule, place) in [("used-ignored", "Queue 2"), ("rearm-race", "Queue 3")] {
                breaks(rule, place);
            }
        }
    "#;
    let expected = ["chain-loop", "rearm-race", "used-ignored"].map(str::to_owned);
    assert_eq!(broken(tests), BTreeSet::from(expected));
}

/// The list of guest tests that may go without: it links to all in which nobody looks, or nobody asks
/// what was found.
#[test]
fn the_document_names_the_tests_in_which_rules_may_be_broken() {
    let text = fs::read_to_string(root().join("docs/rules.md")).unwrap();
    let (_, rest) = text.split_once("but for these:\n").unwrap();
    let (list, _) = rest.split_once("\n\nA finding").unwrap();
    let excused = |test: &str| {
        let asks = |line: &str| line.trim_start().starts_with("finish");
        test.contains("SANITIZE=off")
            || !(test.contains("no_rule_broken") || test.lines().any(asks))
    };
    let mut found = 0;
    for file in fs::read_dir(root().join("scripts/tests")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "sh")
            && excused(&fs::read_to_string(&path).unwrap())
        {
            let name = path.file_name().unwrap().display();
            let link = format!("](../scripts/tests/{name})");
            assert!(list.contains(&link), "{name}");
            found += 1;
        }
    }
    assert!(found > 5);
}
