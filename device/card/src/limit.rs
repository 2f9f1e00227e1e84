// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A limit on log lines that a guest or its virtual machine can cause.

use std::time::{Duration, Instant};

/// Lines per [`WINDOW`].
const BURST: u32 = 5;
const WINDOW: Duration = Duration::from_secs(10);

/// Lets a few lines through per window of time, and counts the rest.
#[derive(Debug)]
pub struct Limit {
    window: Instant,
    used: u32,
    suppressed: u64,
}

impl Limit {
    /// A limit that has seen no line yet.
    pub fn new(now: Instant) -> Self {
        Self {
            window: now,
            used: 0,
            suppressed: 0,
        }
    }

    /// `Some` if a line may be written now: the number of lines that were suppressed since the
    /// last one.
    pub fn permit(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.window) >= WINDOW {
            self.window = now;
            self.used = 0;
        }
        if self.used == BURST {
            self.suppress(1);
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.suppressed))
    }

    /// Counts lines that were lost elsewhere.
    pub fn suppress(&mut self, lines: u64) {
        self.suppressed = self.suppressed.saturating_add(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_silence_then_the_count() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        for _ in 0..BURST {
            assert_eq!(limit.permit(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(limit.permit(start + WINDOW / 2), None);
        }
        limit.suppress(3);
        assert_eq!(limit.permit(start + WINDOW), Some(10));
        assert_eq!(limit.permit(start + WINDOW), Some(0));
    }
}
