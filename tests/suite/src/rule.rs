// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a rule is.

use crate::mutant::Mutant;
use crate::need::Need;
use crate::trial::Trial;
use crate::verdict::{Evidence, Failure};

/// A rule of ATS, PRI and PASID, or of the remapping unit.
#[derive(Debug)]
pub struct Rule {
    /// Its number, 1 to 81.
    pub number: u8,
    /// What it demands, in a line.
    pub title: &'static str,
    /// Where the demand comes from.
    pub section: &'static str,
    /// How it is judged.
    pub judged: Judged,
}

/// How a rule is judged.
#[derive(Debug)]
pub enum Judged {
    /// By these clauses, of which each can fail by itself.
    By(&'static [Clause]),
    /// By no bench of this crate.
    Nowhere {
        /// Why.
        reason: &'static str,
        /// Whether the reason still holds on a bench.
        holds: fn(&Trial<'_>) -> bool,
    },
}

/// What a rule demands in one case.
#[derive(Debug)]
pub struct Clause {
    /// Its name, unique within the rule.
    pub name: &'static str,
    /// Sends what it takes, and judges what comes.
    pub run: fn(&Trial<'_>) -> Result<Evidence, Failure>,
    /// What the bench must be able to do.
    pub needs: &'static [Need],
    /// Violations that it must notice.
    pub mutants: &'static [Mutant],
}

impl Clause {
    /// A clause that every bench can run, and that no mutant breaks.
    pub const fn new(
        name: &'static str,
        run: fn(&Trial<'_>) -> Result<Evidence, Failure>,
    ) -> Clause {
        Clause {
            name,
            run,
            needs: &[],
            mutants: &[],
        }
    }

    /// The same where the bench can do this.
    #[must_use]
    pub const fn needing(self, needs: &'static [Need]) -> Clause {
        Clause { needs, ..self }
    }

    /// The same, and these violations must be noticed.
    #[must_use]
    pub const fn catching(self, mutants: &'static [Mutant]) -> Clause {
        Clause { mutants, ..self }
    }
}
