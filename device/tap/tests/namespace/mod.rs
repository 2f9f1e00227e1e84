// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Tests in network namespaces of their own, so that they change nothing of the machine and need
//! no privileges where users may have namespaces.

use std::env;
use std::io::{self, Write};
use std::process::Command;

/// Set in the process that runs within the namespace.
const INSIDE: &str = "VNET_TAP_TEST_INSIDE";

/// Runs `test`, the body of the test called `name`, under `unshare` with `options`. Where that is
/// not possible, says so and does nothing.
pub(crate) fn run(name: &str, options: &str, test: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        test();
        return;
    }
    let possible = Command::new("unshare")
        .args([
            options,
            "--",
            "sh",
            "-c",
            "test -w /dev/net/tun && command -v ip",
        ])
        .output();
    match possible {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            let reason = match reason.trim() {
                "" => "no /dev/net/tun that can be written, or no ip command",
                reason => reason,
            };
            say(&format!("SKIPPED {name}: {reason}"));
            return;
        }
        Err(error) => {
            say(&format!("SKIPPED {name}: cannot run unshare: {error}"));
            return;
        }
    }
    let output = Command::new("unshare")
        .args([options, "--"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    log.lines()
        .filter(|line| line.starts_with("SKIPPED"))
        .for_each(say);
    // A filter that matches nothing succeeds too.
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(
        output.status.success() && ran,
        "{name} failed within the namespace:\n{log}"
    );
}

/// Writes a line that is seen also if the test passes, for which the test harness would keep what
/// the macros write.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Runs `ip` with the words of `arguments`.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
}
