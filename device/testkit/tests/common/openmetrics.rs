// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A strict reader of the text format of metrics (OpenMetrics 1.0, the parts of it that vnetd uses).
//! It takes nothing that Prometheus would not take.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::collections::{BTreeMap, BTreeSet};

pub type Labels = BTreeMap<String, String>;

/// What a scrape said: samples by name and labels.
#[derive(Debug, Default)]
pub struct Scrape {
    pub samples: BTreeMap<(String, Labels), f64>,
    /// Type of each family.
    pub families: BTreeMap<String, String>,
}

impl Scrape {
    /// The sum of all samples of this name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |all: &Labels| {
            labels
                .iter()
                .all(|(k, v)| all.get(*k).is_some_and(|value| value == v))
        };
        let named = self.samples.iter().filter(|((n, _), _)| n == name);
        named.filter(|((_, l), _)| has(l)).map(|(_, v)| v).sum()
    }

    pub fn names(&self) -> BTreeSet<&str> {
        self.samples.keys().map(|(name, _)| name.as_str()).collect()
    }
}

/// Reads a scrape. Panics at the first line that is wrong.
pub fn parse(text: &str) -> Scrape {
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    let mut scrape = Scrape::default();
    let mut family = String::new();
    // What has been said of the family so far.
    let mut said = BTreeSet::new();
    for line in body.lines() {
        if let Some(told) = line.strip_prefix("# ") {
            let mut words = told.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next(), words.next());
            let (what, name, rest) = (what.unwrap(), name.expect(line), rest.expect(line));
            assert!(is_name(name), "{line}");
            if name != family {
                assert!(
                    !scrape.families.contains_key(name),
                    "{name} comes twice, or in pieces"
                );
                family = name.to_owned();
                said.clear();
                scrape.families.insert(family.clone(), "unknown".into());
            }
            assert!(said.insert(what.to_owned()), "{line}: twice");
            match what {
                "HELP" => assert!(!rest.is_empty(), "{line}"),
                "TYPE" => {
                    assert!(
                        ["counter", "gauge", "histogram", "info"].contains(&rest),
                        "{line}"
                    );
                    scrape.families.insert(family.clone(), rest.to_owned());
                }
                "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, labels, value) = sample(line);
        let kind = scrape.families.get(&family).expect("a sample has a family");
        let suffix = name
            .strip_prefix(&family)
            .unwrap_or_else(|| panic!("{line}: in {family}"));
        let good = match kind.as_str() {
            "counter" => suffix == "_total",
            "gauge" => suffix.is_empty(),
            "info" => suffix == "_info" && value == 1.0,
            "histogram" => match suffix {
                "_bucket" => labels.contains_key("le"),
                "_sum" | "_count" => true,
                _ => false,
            },
            _ => false,
        };
        assert!(good, "{line}: of a {kind}");
        assert!(said.contains("HELP") && said.contains("TYPE"), "{family}");
        assert!(kind == "gauge" || value >= 0.0, "{line}");
        let twice = scrape.samples.insert((name.clone(), labels), value);
        assert!(twice.is_none(), "{line}: twice");
    }
    histograms(&scrape);
    scrape
}

/// Buckets grow, the last is for all, and says how many there are.
fn histograms(scrape: &Scrape) {
    let mut all: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
    for ((name, labels), value) in &scrape.samples {
        if let Some(family) = name.strip_suffix("_bucket") {
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap();
            let bound = match bound.as_str() {
                "+Inf" => f64::INFINITY,
                number => number.parse().expect("a bound is a number"),
            };
            let key = (family.to_owned(), labels);
            all.entry(key).or_default().push((bound, *value));
        }
    }
    for ((family, labels), mut buckets) in all {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(
            buckets.is_sorted_by(|a, b| a.1 <= b.1),
            "{family}: {buckets:?}"
        );
        let (bound, count) = *buckets.last().unwrap();
        assert_eq!(bound, f64::INFINITY);
        let of = |suffix: &str| scrape.samples[&(format!("{family}{suffix}"), labels.clone())];
        assert_eq!(of("_count"), count);
        assert!(of("_sum") >= 0.0);
    }
}

fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(good)
}

/// Name, labels and value of a line.
fn sample(line: &str) -> (String, Labels, f64) {
    let (head, value) = line.rsplit_once(' ').expect(line);
    let value: f64 = value
        .parse()
        .unwrap_or_else(|_| panic!("{line}: no number"));
    let Some((name, rest)) = head.split_once('{') else {
        assert!(is_name(head), "{line}");
        return (head.to_owned(), Labels::new(), value);
    };
    assert!(is_name(name), "{line}");
    let mut rest = rest.strip_suffix('}').expect(line);
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (key, more) = rest.split_once("=\"").expect(line);
        assert!(is_name(key) && !key.contains(':'), "{line}");
        let mut text = String::new();
        let mut chars = more.char_indices();
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("{line}: no end")) {
                (at, '"') => break at,
                (_, '\\') => match chars.next().map(|(_, c)| c) {
                    Some('n') => text.push('\n'),
                    Some(c @ ('"' | '\\')) => text.push(c),
                    _ => panic!("{line}: escape"),
                },
                (_, c) => text.push(c),
            }
        };
        assert!(labels.insert(key.to_owned(), text).is_none(), "{line}");
        rest = &more[end + 1..];
        if let Some(more) = rest.strip_prefix(',') {
            assert!(!more.is_empty(), "{line}");
            rest = more;
        } else {
            assert!(rest.is_empty(), "{line}");
        }
    }
    (name.to_owned(), labels, value)
}
