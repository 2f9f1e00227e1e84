// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A capture to make a trace of, that may be anything.

use serde_json::Value;
use vnet_timeline::{export, Error};

/// A file that `vnetctl capture` has written, or not. A trace is JSON as those who open it take it, with
/// an event for each slice; a file without one is refused in one line.
pub fn timeline(data: &[u8]) {
    let mut out = Vec::new();
    match export(data, &mut out) {
        Ok(summary) => {
            assert!((1..=summary.frames).contains(&summary.batches));
            let trace: Value = serde_json::from_slice(&out).expect("JSON");
            let events = trace["traceEvents"].as_array().expect("a list of events");
            let slices = events.iter().filter(|event| event["ph"] == "X");
            assert!(slices.count() >= summary.batches);
        }
        Err(e) => {
            assert!(!matches!(e, Error::Output(_)));
            assert!(!e.to_string().contains('\n'));
        }
    }
}
