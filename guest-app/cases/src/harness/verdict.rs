// SPDX-License-Identifier: MIT OR Apache-2.0
//! Outcomes of cases that do not fail.

/// Outcome of a case that did not fail.
#[derive(Debug)]
pub enum Verdict {
    /// Everything was as expected; a remark, or nothing.
    Passed(String),
    /// It could not run, for this reason.
    Skipped(String),
}

/// It passed, without a remark.
pub fn passed() -> anyhow::Result<Verdict> {
    Ok(Verdict::Passed(String::new()))
}

/// It passed, with a remark.
pub fn remark(text: impl Into<String>) -> anyhow::Result<Verdict> {
    Ok(Verdict::Passed(text.into()))
}

/// It could not run.
pub fn skipped(reason: impl Into<String>) -> anyhow::Result<Verdict> {
    Ok(Verdict::Skipped(reason.into()))
}
