// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the documents point at exists: links, headings, and files named in code style.

use std::path::{Path, PathBuf};

/// Folders of the repository whose files the documents name.
const ROOMS: [&str; 6] = [
    "device/",
    "docs/",
    "guest-driver/",
    "images/",
    "qemu-config/",
    "scripts/",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Files of a folder with an extension, with paths from the root.
fn files_in(folder: &str, extension: &str) -> Vec<PathBuf> {
    std::fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| Path::new(folder).join(entry.unwrap().file_name()))
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect()
}

/// The documents: the README and all of docs/, with paths from the root.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = files_in("docs", "md");
    paths.extend(files_in("docs/tour", "md"));
    paths.push("README.md".into());
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(root().join(&path)).unwrap();
            (path, text)
        })
        .collect()
}

/// Targets of links to places in the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://"))
}

/// Files and folders in code style.
fn files(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|code| ROOMS.iter().any(|room| code.starts_with(room)) && !code.contains(' '))
}

/// The anchor that a heading gets: lower case, without punctuation, blanks as dashes.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// What `text`, a document at `path`, points at that does not exist.
fn broken(path: &Path, text: &str) -> Vec<String> {
    let folder = path.parent().unwrap();
    let mut broken = Vec::new();
    for link in links(text) {
        let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
        let target = root().join(folder).join(file);
        let exists = match (file, fragment) {
            (_, "") => target.exists(),
            ("", _) => has_heading(text, fragment),
            _ => std::fs::read_to_string(target).is_ok_and(|t| has_heading(&t, fragment)),
        };
        if !exists {
            broken.push(format!("{}: link to {link}", path.display()));
        }
    }
    for file in files(text).filter(|file| !root().join(file).exists()) {
        broken.push(format!("{}: names {file}", path.display()));
    }
    broken
}

fn has_heading(text: &str, fragment: &str) -> bool {
    text.lines()
        .any(|line| line.starts_with('#') && anchor(line) == fragment)
}

#[test]
fn links_and_file_names_lead_somewhere() {
    let broken: Vec<_> = documents()
        .iter()
        .flat_map(|(path, text)| broken(path, text))
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A phase of the tour is to be read in one sitting, with what it shares with others.
#[test]
fn phases_of_the_tour_are_short() {
    let files = files_in("guest-driver/phases", "rs");
    let phases = files
        .iter()
        .filter_map(|path| path.file_name()?.to_str())
        .filter(|name| name.starts_with("phase"));
    assert_eq!(phases.count(), 8);
    for path in files {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        let lines = text.lines().count();
        assert!(
            (30..=200).contains(&lines),
            "{}: {lines} lines",
            path.display()
        );
    }
}

/// Types of the layer that only the layer makes and names.
const WITHOUT_EXAMPLE: [&str; 4] = ["Data", "Device", "Registration", "SpinLockIrqBackend"];

/// The examples in a source's documentation that are not in the code that they say they are from, and its public
/// types that have none.
fn examples_amiss(source: &str) -> Vec<String> {
    let mut amiss = Vec::new();
    let mut lines = source.lines().map(str::trim);
    // An example since the last thing that was documented.
    let mut example = false;
    while let Some(line) = lines.next() {
        if line == "/// ```ignore" {
            example = true;
            let block: Vec<_> = lines
                .by_ref()
                .take_while(|line| *line != "/// ```")
                .map(|line| line.trim_start_matches("///").trim())
                .collect();
            let (origin, code) = block.split_first().unwrap();
            let found = origin
                .strip_prefix("// ")
                .and_then(|file| std::fs::read_to_string(root().join(file)).ok())
                .is_some_and(|text| {
                    let text: Vec<_> = text.lines().map(str::trim).collect();
                    text.windows(code.len()).any(|window| window == code)
                });
            if !found {
                amiss.push(format!("{origin}: {}", code.join("\n")));
            }
        } else if let Some(rest) = ["pub struct ", "pub enum ", "pub trait "]
            .iter()
            .find_map(|kind| line.strip_prefix(kind))
        {
            let end = rest
                .find(|c: char| !c.is_alphanumeric())
                .unwrap_or(rest.len());
            let name = &rest[..end];
            if !example && !name.is_empty() && !WITHOUT_EXAMPLE.contains(&name) {
                amiss.push(format!("{name} has no example"));
            }
            example = false;
        } else if !line.starts_with("///") && !line.starts_with("#[") {
            example = false;
        }
    }
    amiss
}

/// The kernel does not compile examples in documentation. So those of the layer are taken from drivers, which are
/// compiled.
#[test]
fn examples_of_the_layer_are_from_code_that_is_compiled() {
    for path in files_in("guest-driver/netdev", "rs") {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        let amiss = examples_amiss(&text);
        assert!(amiss.is_empty(), "{}: {amiss:#?}", path.display());
    }
    let bad = "/// ```ignore\n/// // guest-driver/phases/arp.rs\n/// fn none() {}\n/// ```\n\
        pub struct A;\npub struct B;\n";
    assert_eq!(examples_amiss(bad).len(), 2);
}

/// Rows of the feature table whose state and test do not fit: what works in whole or in part names
/// a test, what is owed does not.
fn unproven(features: &str) -> Vec<&str> {
    features
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| **"))
        .skip(1)
        .filter(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let [.., state, test, ""] = cells[..] else {
                return true;
            };
            let proven = state.starts_with("works") || state.starts_with("part: ");
            let names_test = test.contains("](");
            !(proven && names_test || state == "owed" && test.is_empty())
        })
        .collect()
}

#[test]
fn what_works_names_its_test() {
    let features = std::fs::read_to_string(root().join("docs/features.md")).unwrap();
    assert_eq!(unproven(&features), [""; 0]);

    let claim = "| Row | State | Shown by |\n|---|---|---|\n| a | works | [t](t.sh) |\n";
    assert!(unproven(claim).is_empty());
    for bad in [
        "| b | works | |",
        "| c | owed | [t](t.sh) |",
        "| d | soon | |",
    ] {
        assert_eq!(unproven(&format!("{claim}{bad}\n")), [bad]);
    }
}

#[test]
fn what_leads_nowhere_is_noticed() {
    let text = "# One: two\n\
        [a](#one-two) [b](../README.md) [c](https://example.org/x) `docs/datasheet.md`\n\
        [d](#two) [e](../NO.md) [f](../README.md#none) `docs/none.md`\n";
    let path = Path::new("docs/x.md");
    assert_eq!(broken(path, text).len(), 4, "{:?}", broken(path, text));
}
