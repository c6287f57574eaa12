// SPDX-License-Identifier: MIT OR Apache-2.0
//! One examined item and its text form.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// One item that shared virtual addressing needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is needed, and where.
    pub name: String,
    /// Whether it is there.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do if it is missing; empty otherwise.
    pub remedy: String,
}

/// Whether an item is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is.
    Present,
    /// It is not.
    Missing,
    /// It could not be found out.
    Unknown,
    /// It is not, and is not needed.
    Optional,
}

impl Verdict {
    /// [`Verdict::Present`] or [`Verdict::Missing`].
    pub(crate) fn of(is: bool) -> Self {
        if is { Self::Present } else { Self::Missing }
    }
}

impl Check {
    /// A check. The remedy is kept only if something must be done.
    pub(crate) fn new(
        name: impl Into<String>,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: &str,
    ) -> Self {
        let remedy = if verdict == Verdict::Present {
            ""
        } else {
            remedy
        };
        Self {
            name: name.into(),
            verdict,
            found: found.into(),
            remedy: remedy.to_owned(),
        }
    }
}

/// Checks as text, one per line, with the remedy below.
pub fn render(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = match check.verdict {
            Verdict::Present => "ok     ",
            Verdict::Missing => "MISSING",
            Verdict::Unknown => "unknown",
            Verdict::Optional => "without",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mark}  {}: {}", check.name, check.found);
        if !check.remedy.is_empty() {
            let _ = writeln!(text, "         -> {}", check.remedy);
        }
    }
    text
}
