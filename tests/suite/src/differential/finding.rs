// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tries cases on two units: counts what happens, and finds the differences that are not known.

use super::apply::Answer;
use super::case::{Case, Step};
use super::compare::{Difference, Subject, differences};
use super::minimise;
use super::run::Run;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// What happened in a run. One in which too little did shows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Cases.
    pub cases: usize,
    /// Requests of the function that were answered by a translation with permission, by data or
    /// by success.
    pub permitted: usize,
    /// Requests of the function that were refused.
    pub refused: usize,
    /// Faults that were recorded.
    pub faults: usize,
    /// Page requests in the queue.
    pub page_requests: usize,
    /// Invalidations that were done.
    pub invalidations: usize,
    /// Descriptors that stopped the invalidation queue.
    pub queue_errors: usize,
    /// Differences that are known, by their report: how many, and the number of the first case.
    pub known: BTreeMap<u8, (usize, u64)>,
}

/// A difference that no report explains.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Number of the case that showed it.
    pub number: u64,
    /// The smallest case that shows it.
    pub case: Case,
    /// The difference.
    pub difference: Difference,
}

impl Count {
    fn add(&mut self, case: &Case, run: &Run) {
        self.cases += 1;
        for (step, seen) in case.steps.iter().zip(&run.seen) {
            match &seen.answer {
                Answer::Translated(translated) if !translated.permits() => self.refused += 1,
                Answer::Translated(_) | Answer::Data(_) | Answer::Done => self.permitted += 1,
                Answer::Failed(_) => self.refused += 1,
                Answer::None | Answer::Missing => {}
            }
            self.faults += seen.faults.len();
            self.page_requests += seen.page_requests.len();
            let invalidates = matches!(step, Step::Invalidate(_) | Step::Change(..));
            match seen.queue {
                Some(_) => self.queue_errors += 1,
                None => self.invalidations += usize::from(invalidates),
            }
        }
    }

    /// What did not happen, though it has to if many cases were tried.
    pub fn missing(&self) -> Option<&'static str> {
        [
            (self.permitted, "request that was permitted"),
            (self.refused, "request that was refused"),
            (self.faults, "recorded fault"),
            (self.page_requests, "page request"),
            (self.invalidations, "invalidation"),
            (self.queue_errors, "error of the invalidation queue"),
        ]
        .into_iter()
        .find_map(|(count, what)| (count == 0).then_some(what))
    }
}

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cases: {} requests permitted, {} refused, {} faults, {} page requests, \
             {} invalidations, {} errors of the queue",
            self.cases,
            self.permitted,
            self.refused,
            self.faults,
            self.page_requests,
            self.invalidations,
            self.queue_errors
        )
    }
}

/// Tries a case on two subjects: counts what happened on the left one, and returns the differences
/// that no report explains, one of each kind, each with the smallest case that shows it.
pub fn compare(
    left: &Subject<'_>,
    right: &Subject<'_>,
    number: u64,
    case: &Case,
    count: &mut Count,
) -> Vec<Finding> {
    let run = left.run(case);
    count.add(case, &run);
    let mut findings: Vec<Finding> = Vec::new();
    for difference in differences(case, &run, &right.run(case)) {
        if !difference.reports.is_empty() {
            for report in difference.reports {
                let (times, _) = count.known.entry(report).or_insert((0, number));
                *times += 1;
            }
            continue;
        }
        let known =
            |finding: &Finding| finding.difference.is_like(&difference, &finding.case, case);
        if findings.iter().any(known) {
            continue;
        }
        let like = |other: &Case| {
            let all = differences(other, &left.run(other), &right.run(other));
            all.into_iter()
                .find(|found| found.is_like(&difference, other, case))
        };
        let least = minimise::minimise(case.clone(), |other| like(other).is_some());
        let shown = like(&least).unwrap_or(difference);
        findings.push(Finding {
            number,
            case: least,
            difference: shown,
        });
    }
    findings
}
