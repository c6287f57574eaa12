// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a rule says, and what came of it: all rules one by one, and before them what failed.

use super::super::results::{Clause, Mutant, Results, Rule};
use super::inputs::Inputs;
use super::matrix::{Row, rows};
use super::parts::{anchor, badge, counted};
use crate::run::Verdict;
use maud::{Markup, html};

/// What failed, the first thing that a reader wants.
pub fn failures(inputs: &Inputs) -> Option<Markup> {
    let results = inputs.suite.as_ref()?;
    let mut failures = Vec::new();
    for (at, bench) in results.benches.iter().enumerate() {
        let failed = bench.rules.iter().filter(|r| r.verdict == Verdict::Failed);
        failures.extend(failed.map(|rule| (at, rule)));
    }
    failures.sort_by_key(|(at, rule)| (rule.number, *at));
    if failures.is_empty() {
        return None;
    }
    Some(html! {
        @for (at, rule) in failures { (failure(results, at, rule)) }
    })
}

fn failure(results: &Results, at: usize, rule: &Rule) -> Markup {
    let bench = &results.benches[at].bench;
    let failed = rule.clauses.iter();
    let failed = failed.filter(|clause| clause.verdict == Verdict::Failed);
    html! {
        article.failure {
            h3 { "Rule " (rule.number) " on " (bench) ": " (rule.title) }
            p { (rule.says) " " span.source { "(" (rule.section) ")" } }
            @if !rule.text.is_empty() { p.seen { (rule.text) } }
            @for clause in failed { (clause_of(clause, true)) }
            p {
                a href={ "#" (anchor(results, rule.number, Some(at))) } {
                    "All clauses of rule " (rule.number) " on " (bench)
                }
                ". To run it alone: " code { "make suite RULE=" (rule.number) " BENCH=" (bench) }
            }
        }
    }
}

/// A clause, with the requests of the device folded unless they matter at once.
fn clause_of(clause: &Clause, open: bool) -> Markup {
    html! {
        div.clause {
            p { (badge(clause.verdict)) " " strong { "“" (clause.name) "”" } }
            p.seen { (said(clause)) }
            @if let Some(known) = &clause.deviation {
                p {
                    "Deviation "
                    @match known.report {
                        Some(report) => a href={ "#" (super::deviations::anchor(report)) } {
                            (format!("{report:02}")) ": " (known.title)
                        },
                        None => { "“" (known.title) "”" }
                    }
                    " – in the unit's source: " (known.place)
                }
            }
            @if !clause.requests.is_empty() {
                details open[open] {
                    summary { "Sent by the device: " (counted(clause.requests.len(), "request")) }
                    ol { @for request in &clause.requests { li { (request) } } }
                }
            }
        }
    }
}

/// What a clause says; a failure in its parts.
fn said(clause: &Clause) -> Markup {
    let parts = || {
        let (what, rest) = clause.text.split_once(": expected ")?;
        let (expected, found) = rest.rsplit_once(", found ")?;
        Some((what, expected, found))
    };
    let judged = matches!(clause.verdict, Verdict::Failed | Verdict::Deviates);
    match parts().filter(|_| judged) {
        Some((what, expected, found)) => html! {
            (what) ": expected " b { (expected) } ", found " b { (found) }
        },
        None => html! { (clause.text) },
    }
}

/// All rules.
pub fn rules(inputs: &Inputs) -> Option<Markup> {
    let results = inputs.suite.as_ref()?;
    let rows = rows(results);
    if rows.is_empty() {
        return None;
    }
    Some(html! {
        p { "What each rule says, and what came of its clauses. The suite shows the last requests \
             that the device has sent before the verdict." }
        @for row in &rows { (rule(inputs, results, row)) }
    })
}

fn rule(inputs: &Inputs, results: &Results, row: &Row<'_>) -> Markup {
    let rule = row.any;
    html! {
        article.rule.all-passed[row.all_passed()] {
            h3 #(anchor(results, row.number, None)) { (row.number) " " (rule.title) }
            p { (rule.says) }
            p.source { "Source: " (rule.section) }
            @for (at, on) in row.on.iter().enumerate() {
                @if let Some(rule) = on { (on_bench(results, at, rule)) }
            }
            (mutants(inputs, row.number))
            p { a href="#matrix" { "Back to the matrix" span.unseen { " from rule " (row.number) } } }
        }
    }
}

fn on_bench(results: &Results, at: usize, rule: &Rule) -> Markup {
    html! {
        section.on-bench {
            h4 #(anchor(results, rule.number, Some(at))) tabindex="-1" {
                "Rule " (rule.number) " on " (results.benches[at].bench) " " (badge(rule.verdict))
            }
            @if !rule.text.is_empty() { p.seen { (rule.text) } }
            @for clause in &rule.clauses {
                (clause_of(clause, clause.verdict == Verdict::Failed))
            }
        }
    }
}

/// The mutants of a rule, if they were run.
fn mutants(inputs: &Inputs, rule: u8) -> Markup {
    let all = inputs.mutants.iter().flat_map(|results| &results.benches);
    let of_rule: Vec<&Mutant> = all
        .flat_map(|bench| &bench.mutants)
        .filter(|mutant| mutant.rule == rule)
        .collect();
    let caught = of_rule.iter().filter(|mutant| mutant.caught).count();
    html! {
        @if !of_rule.is_empty() {
            p {
                "Mutants: " (caught) " caught, " (of_rule.len() - caught) " survived ("
                a href={ "#" (super::mutants::anchor(rule)) } { "mutants of rule " (rule) } ")."
            }
        }
    }
}
