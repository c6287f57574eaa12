// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a case ends that does not fail.

/// How a case ended that did not fail.
#[derive(Debug)]
pub enum Verdict {
    /// All was as it should be; a remark, or nothing.
    Passed(String),
    /// It could not run, for this reason.
    Skipped(String),
}

/// It passed, and there is nothing to add.
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
