// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Runs every target on the inputs that are kept, those that once broke something among them.

use std::fs;
use std::path::Path;

/// The inputs of a target in a directory; none if it has none there.
fn inputs(kind: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(kind)
        .join(target);
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), fs::read(path).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

fn run_on_all(name: &str) {
    let (_, target) = vnet_fuzz::TARGETS.iter().find(|(n, _)| *n == name).unwrap();
    let corpus = inputs("corpus", name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    for (path, input) in corpus.into_iter().chain(inputs("regressions", name)) {
        // Says which input it was; the panic's own message comes before.
        assert!(
            std::panic::catch_unwind(|| target(&input)).is_ok(),
            "{path}"
        );
    }
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            run_on_all(stringify!($name));
        })*

        /// A target that is not replayed would be forgotten.
        #[test]
        fn every_target_is_here() {
            let names: Vec<&str> = vnet_fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

targets!(
    config, control, device, gateway, generator, plan, registers, replay, requests, rss, rx,
    segment, session, state, stream, switch, takeover, timeline, tx, unshared
);
