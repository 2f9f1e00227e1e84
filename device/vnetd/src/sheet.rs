// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The data sheet, for the links of the page: its text as it is, with headings to go to.

use std::sync::OnceLock;

const SHEET: &str = include_str!("../../../docs/datasheet.md");

/// The data sheet as a page.
pub(crate) fn page() -> &'static str {
    static PAGE: OnceLock<String> = OnceLock::new();
    PAGE.get_or_init(|| {
        let mut page = String::from(
            "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>vnet data sheet</title>\
             <link rel=\"stylesheet\" href=\"style.css\"><pre class=\"sheet\">",
        );
        for line in SHEET.lines() {
            let text = escaped(line);
            match line.starts_with('#') {
                true => page.push_str(&format!("<b id=\"{}\">{text}</b>\n", anchor(line))),
                false => page.push_str(&format!("{text}\n")),
            }
        }
        page.push_str("</pre></html>\n");
        page
    })
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// The anchor that a heading gets: lower case, without punctuation, blanks as dashes.
pub(crate) fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_can_be_gone_to() {
        assert!(page().contains("<b id=\"101-msi-x\">### 10.1 MSI-X</b>"));
        assert!(!page().contains("<!-- contract"), "comments are text");
    }
}
