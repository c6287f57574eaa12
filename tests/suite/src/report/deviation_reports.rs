// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reports of docs/deviations, which go into the program: the page shows them wherever it is.

use include_dir::{Dir, include_dir};

static REPORTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../docs/deviations");

/// The text of a report, as Markdown; empty if there is none.
pub fn text(report: u8) -> &'static str {
    let file = REPORTS.get_file(format!("{report:02}.md"));
    file.and_then(|file| file.contents_utf8())
        .unwrap_or_default()
}

/// The title of a report, without its number; empty if there is none.
pub fn title(report: u8) -> &'static str {
    let heading = text(report)
        .lines()
        .find_map(|line| line.strip_prefix("# "));
    let title = heading.and_then(|heading| heading.split_once(": "));
    title.map_or("", |(_, title)| title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_deviation_has_a_report_with_a_title() {
        for known in crate::deviations::INTEL_IOMMU {
            assert_ne!(known.report.title(), "", "{known:?}");
        }
        assert_eq!((text(0), title(0)), ("", ""));
    }
}
