// SPDX-License-Identifier: MIT OR Apache-2.0
//! How two runs differ, as part of a result and as text.

use super::origin::Commit;
use crate::run::Verdict;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// How two runs differ, of what this run was asked to judge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The name of the earlier run's file, without its folder.
    pub baseline: String,
    /// When the earlier run was, if it says.
    pub date: String,
    /// Of which commit it was, if it says.
    pub commit: Option<Commit>,
    /// What has changed, the worst first.
    pub changes: Vec<Change>,
    /// Benches that the earlier run did not have.
    pub new_benches: Vec<String>,
    /// How many rules the earlier run had judged that this one did not run, over all benches.
    pub not_run: usize,
}

/// A verdict that has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// In which way.
    pub kind: Kind,
    /// Name of the bench.
    pub bench: String,
    /// Number of the rule.
    pub rule: u8,
    /// Name of the clause; none if the rule has none.
    pub clause: Option<String>,
    /// The verdict of the earlier run.
    pub before: Option<Verdict>,
    /// The verdict of this run.
    pub now: Option<Verdict>,
}

/// In which way a verdict has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The verdict is worse.
    Worse,
    /// This run has no such clause.
    Gone,
    /// The earlier run had no such clause.
    New,
    /// The verdict is better.
    Better,
}

impl Kind {
    /// All of them, the worst first.
    pub const ALL: &[Kind] = &[Kind::Worse, Kind::Gone, Kind::New, Kind::Better];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Worse => "worse",
            Kind::Gone => "gone",
            Kind::New => "new",
            Kind::Better => "better",
        })
    }
}

impl Comparison {
    /// How many changes are of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        let of_kind = self.changes.iter().filter(|change| change.kind == kind);
        of_kind.count()
    }

    /// How many changes there are of each kind, in a sentence without its full stop.
    pub fn sentence(&self) -> String {
        let counts = Kind::ALL
            .iter()
            .map(|kind| format!("{} {kind}", self.count(*kind)));
        counts.collect::<Vec<_>>().join(", ")
    }

    /// The comparison as comments of TAP: a line a change, and the counts at last.
    pub fn comments(&self) -> String {
        let mut text = String::new();
        for change in &self.changes {
            let _ = writeln!(text, "# {change}");
        }
        for bench in &self.new_benches {
            let _ = writeln!(text, "# {bench}: the baseline has no such bench");
        }
        if self.not_run > 0 {
            let _ = writeln!(
                text,
                "# of the baseline, {} results of rules were not asked for",
                self.not_run
            );
        }
        let when = match self.date.as_str() {
            "" => String::new(),
            date => format!(" of {date}"),
        };
        let (baseline, sentence) = (&self.baseline, self.sentence());
        let _ = writeln!(text, "# compared with {baseline}{when}: {sentence}");
        text
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change {
            kind, bench, rule, ..
        } = self;
        write!(f, "{kind}: {bench}: rule {rule}")?;
        if let Some(clause) = &self.clause {
            write!(f, ", {clause}")?;
        }
        match (self.before, self.now) {
            (Some(before), Some(now)) => write!(f, ": {before} before, {now} now"),
            (Some(before), None) => write!(f, ": {before} before"),
            (None, Some(now)) => write!(f, ": {now} now"),
            (None, None) => Ok(()),
        }
    }
}
