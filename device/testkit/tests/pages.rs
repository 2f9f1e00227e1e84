// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Manual pages and completion of vnetd: of the same definition as its arguments.
#![allow(missing_docs)]

use vnet_testkit::Server;

#[test]
fn manual_pages_have_every_argument() {
    let dir = tempfile::tempdir().unwrap();
    let status = Server::command().arg("man").arg(dir.path()).status();
    assert!(status.unwrap().success());
    let page = std::fs::read_to_string(dir.path().join("vnetd.1")).unwrap();
    // As troff has them.
    let page = page.replace("\\-", "-");
    let help = Server::command().arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let arguments: Vec<_> = help
        .split_whitespace()
        .filter(|word| word.starts_with("--"))
        .map(|word| word.trim_end_matches(|c: char| !c.is_ascii_alphabetic()))
        .collect();
    assert!(arguments.len() > 10, "{help}");
    for argument in arguments {
        assert!(page.contains(argument), "{argument}");
    }
    assert!(dir.path().join("vnetd-check.1").exists());
    // What others are not to use is in neither.
    assert!(!page.contains("--worker"));

    let refused = Server::command().args(["man", "/nonexistent"]).output();
    let refused = refused.unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.starts_with(b"vnetd: /nonexistent: "));
}

#[test]
fn shells_complete_arguments() {
    for (shell, part) in [
        ("bash", "complete -F _vnetd"),
        ("zsh", "#compdef vnetd"),
        ("fish", "complete -c vnetd"),
    ] {
        let output = Server::command().args(["completion", shell]).output();
        let script = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(
            script.contains(part) && script.contains("mtu-max"),
            "{shell}"
        );
    }
}
