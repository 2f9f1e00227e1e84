// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Columns of text.

use std::fmt::Write;

/// Lines with columns: names to the left, numbers to the right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Columns from this one on are numbers.
    numbers: usize,
}

impl Table {
    pub(crate) fn new(head: &[&str], numbers: usize) -> Self {
        let head = head.iter().map(|name| (*name).to_owned()).collect();
        Self {
            rows: vec![head],
            numbers,
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                // Writing to a string does not fail.
                let _ = match column >= self.numbers {
                    true => write!(line, "{gap}{cell:>width$}"),
                    false => write!(line, "{gap}{cell:<width$}"),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let mut table = Table::new(&["CARD", "FRAMES"], 1);
        table.row(vec!["a-long-name".into(), "7".into()]);
        table.row(vec!["b".into(), "1234567".into()]);
        assert_eq!(
            table.text(),
            "CARD          FRAMES\na-long-name        7\nb            1234567\n"
        );
    }
}
