// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The tables of the data sheet that the contract speaks of.
//!
//! Such a table stands under a line `<!-- contract: MARKER -->`. Several tables may have the same
//! marker: then each holds a part of the rows.

/// A marked table as it stands in the text.
pub(crate) struct Table {
    /// What the comment above it says.
    pub(crate) marker: String,
    /// Titles of the columns.
    pub(crate) columns: Vec<String>,
    /// The rows.
    pub(crate) rows: Vec<Row>,
}

/// A row of a table.
pub(crate) struct Row {
    /// Index of its line in the text.
    pub(crate) line: usize,
    /// Its cells, trimmed.
    pub(crate) cells: Vec<String>,
}

/// A cell, so that two ways to write the same thing are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// A decimal or hexadecimal number.
    Number(u64),
    /// Anything else, without backticks.
    Text(String),
}

impl Cell {
    /// Reads a cell as it is written.
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.replace('`', "");
        let number = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        number.map_or(Self::Text(text), Self::Number)
    }
}

impl Table {
    /// Position of the column with this title.
    pub(crate) fn column(&self, title: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == title)
    }
}

/// Finds the marked tables.
pub(crate) fn find(text: &str) -> Result<Vec<Table>, String> {
    let mut tables = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let marker = line
            .strip_prefix("<!-- contract: ")
            .and_then(|rest| rest.strip_suffix(" -->"));
        let Some(marker) = marker else { continue };

        let mut rows = Vec::new();
        while let Some((line, text)) = lines.next_if(|(_, l)| l.starts_with('|')) {
            let cells = cells(text).ok_or(format!("line {}: not a row", line + 1))?;
            rows.push(Row { line, cells });
        }
        let mut rows = rows.into_iter();
        let (Some(title), Some(_rule)) = (rows.next(), rows.next()) else {
            return Err(format!("line {}: no table below the marker", at + 1));
        };
        let table = Table {
            marker: marker.into(),
            columns: title.cells,
            rows: rows.collect(),
        };
        if let Some(row) = table
            .rows
            .iter()
            .find(|r| r.cells.len() != table.columns.len())
        {
            return Err(format!(
                "line {}: {} cells in a table of {} columns",
                row.line + 1,
                row.cells.len(),
                table.columns.len()
            ));
        }
        tables.push(table);
    }
    Ok(tables)
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim_end().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|c| c.trim().to_string()).collect())
}

/// A row made of these cells, as text.
pub(crate) fn write_row(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}
