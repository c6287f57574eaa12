// SPDX-License-Identifier: MIT OR Apache-2.0
//! What comes of a clause, as a value.

use std::fmt;

/// What was seen of a rule that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence(pub String);

/// A rule that is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was looked at.
    pub what: String,
    /// What the rule demands of it.
    pub expected: String,
    /// What came.
    pub found: String,
    /// The last requests of the device, oldest first.
    pub requests: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure {
            what,
            expected,
            found,
            ..
        } = self;
        write!(f, "{what}: expected {expected}, found {found}")
    }
}

/// What came of a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is kept.
    Kept(Evidence),
    /// It is not kept.
    Failed(Failure),
    /// The bench did not get as far as the rule: a panic, with its sentence.
    Broken(String),
}
