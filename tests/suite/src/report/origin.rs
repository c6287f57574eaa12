// SPDX-License-Identifier: MIT OR Apache-2.0
//! When and of which commit a result is.

use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

/// A commit of the suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its name, in full.
    pub id: String,
    /// Whether files of the checkout differ from it.
    pub changed: bool,
}

/// A file by which a checkout of the suite is known.
const MARK: &str = "tests/suite/Cargo.toml";

/// The time in UTC, as RFC 3339 has it.
pub fn now() -> String {
    written(jiff::Timestamp::now())
}

/// When a file was written, likewise; none if it is not there.
pub fn written_at(path: &Path) -> Option<String> {
    let time: SystemTime = path.metadata().ok()?.modified().ok()?;
    Some(written(jiff::Timestamp::try_from(time).ok()?))
}

fn written(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The commit that is checked out here; none outside of a checkout of the suite.
pub fn commit() -> Option<Commit> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    Path::new(&top).join(MARK).is_file().then_some(())?;
    Some(Commit {
        id: git(&["rev-parse", "HEAD"])?,
        changed: !git(&["status", "--porcelain"])?.is_empty(),
    })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc_without_fractions() {
        let time = jiff::Timestamp::new(86_400, 999_999_999).unwrap();
        assert_eq!(written(time), "1970-01-02T00:00:00Z");
    }
}
