// SPDX-License-Identifier: MIT OR Apache-2.0
//! The matrix: a row for each rule, a column for each bench. Each cell leads to what was seen.

use super::super::results::{Bench, Results, Rule};
use super::inputs::Inputs;
use super::parts::{anchor, class, scrolled, sign};
use crate::run::Verdict;
use maud::{Markup, html};
use std::collections::BTreeMap;

/// A rule by its place in the results: on each bench, if it ran there.
pub struct Row<'a> {
    /// Its number.
    pub number: u8,
    /// On any bench.
    pub any: &'a Rule,
    /// On each bench.
    pub on: Vec<Option<&'a Rule>>,
}

impl Row<'_> {
    /// Whether it passed wherever it was run.
    pub fn all_passed(&self) -> bool {
        let run = self.on.iter().flatten();
        run.clone().all(|rule| rule.verdict == Verdict::Passed)
    }
}

/// All rules that ran anywhere, by number.
pub fn rows(results: &Results) -> Vec<Row<'_>> {
    let of = |bench: &'_ Bench, number| -> Option<usize> {
        bench.rules.iter().position(|rule| rule.number == number)
    };
    let mut any: BTreeMap<u8, &Rule> = BTreeMap::new();
    for rule in results.benches.iter().flat_map(|bench| &bench.rules) {
        any.entry(rule.number).or_insert(rule);
    }
    let row = |(number, any)| Row {
        number,
        any,
        on: results
            .benches
            .iter()
            .map(|bench| of(bench, number).map(|at| &bench.rules[at]))
            .collect(),
    };
    any.into_iter().map(row).collect()
}

/// The word of a verdict where there is little room.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Failed => "failed",
        Verdict::Deviates => "deviation",
        Verdict::Passed => "passed",
        Verdict::NotApplicable => "n/a",
    }
}

/// The matrix.
pub fn matrix(inputs: &Inputs) -> Option<Markup> {
    let results = inputs.suite.as_ref()?;
    let rows = rows(results);
    if rows.is_empty() {
        return None;
    }
    let cell = |row: &Row<'_>, at: usize| {
        let bench = &results.benches[at].bench;
        html! {
            @match row.on[at] {
                Some(rule) => td class=(class(rule.verdict)) {
                    a href={ "#" (anchor(results, row.number, Some(at))) } {
                        (sign(rule.verdict)) (word(rule.verdict))
                        span.unseen { ": rule " (row.number) " on " (bench) }
                    }
                },
                None => td { "not run" },
            }
        }
    };
    let table = html! {
        table.matrix {
            caption { "The verdict on each rule, on each bench" }
            thead { tr {
                th scope="col" { "Rule" }
                @for bench in &results.benches { th scope="col" { (bench.bench) } }
            } }
            tbody {
                @for row in &rows {
                    tr.all-passed[row.all_passed()] {
                        th scope="row" {
                            a href={ "#" (anchor(results, row.number, None)) } {
                                span.number { (row.number) } " " (row.any.title)
                            }
                        }
                        @for at in 0..results.benches.len() { (cell(row, at)) }
                    }
                }
            }
        }
    };
    Some(html! {
        p { "A verdict leads to what was sent and seen; the title of a rule, to what it says. \
             “n/a” is not applicable: the bench cannot express the rule, and the reason is there." }
        p.choice {
            input #only type="checkbox";
            " "
            label for="only" { "Show only rules that did not pass on every bench" }
        }
        (scrolled("Rules by bench", table))
    })
}
