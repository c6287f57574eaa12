// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counting what passed: the totals of cargo's test runner and of the guest's results.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that did not run, for a reason that was printed.
    pub skipped: u64,
}

impl Tally {
    /// One test.
    pub fn one(passed: bool) -> Self {
        Tally {
            passed: passed.into(),
            failed: (!passed).into(),
            skipped: 0,
        }
    }

    /// How many tests there were.
    pub fn tests(&self) -> u64 {
        self.passed + self.failed + self.skipped
    }

    /// The totals of one `test result:` line of cargo's test runner; none if it is another line.
    pub fn from_cargo(line: &str) -> Option<Self> {
        let rest = line.trim().strip_prefix("test result: ")?;
        let field = |name: &str| {
            rest.split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(name)?.trim().parse().ok())
        };
        Some(Tally {
            passed: field("passed")?,
            failed: field("failed")?,
            skipped: field("ignored")?,
        })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_totals_are_read() {
        let line = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(
            Tally::from_cargo(line),
            Some(Tally {
                passed: 12,
                failed: 1,
                skipped: 2
            })
        );
        assert_eq!(Tally::from_cargo("test a::b ... ok"), None);
    }

    #[test]
    fn a_tally_prints_as_the_closing_line() {
        assert_eq!(
            Tally {
                passed: 3,
                failed: 0,
                skipped: 0
            }
            .to_string(),
            "3 passed, 0 failed"
        );
        assert_eq!(
            Tally {
                passed: 3,
                failed: 0,
                skipped: 1
            }
            .to_string(),
            "3 passed, 0 failed, 1 skipped"
        );
    }
}
