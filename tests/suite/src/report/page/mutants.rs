// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mutants: each violation, and whether its clause noticed.

use super::super::results::{Mutant, Results};
use super::inputs::Inputs;
use super::parts::{counted, scrolled, time};
use maud::{Markup, html};
use std::collections::BTreeMap;

/// The id of a rule's mutants.
pub fn anchor(rule: u8) -> String {
    format!("mutants-of-rule-{rule}")
}

/// A mutant, and where it was run.
type At<'a> = (&'a str, &'a Mutant);

/// The mutants, those that survived first.
pub fn mutants(inputs: &Inputs) -> Option<Markup> {
    let Some(results) = &inputs.mutants else {
        // A page without rules has nothing to test.
        inputs.suite.as_ref()?;
        return Some(html! {
            p { "Not run: " code { "make mutants" } " breaks each rule on purpose and sees that its \
                 clause notices; then they are here." }
        });
    };
    let mut by_rule: BTreeMap<u8, Vec<At<'_>>> = BTreeMap::new();
    for bench in &results.benches {
        for mutant in &bench.mutants {
            let rule = by_rule.entry(mutant.rule).or_default();
            rule.push((&bench.bench, mutant));
        }
    }
    let all: Vec<At<'_>> = by_rule.values().flatten().copied().collect();
    let survived: Vec<At<'_>> = all.iter().copied().filter(|(_, m)| !m.caught).collect();
    Some(html! {
        p {
            "By mutants the suite itself is tested: each is a deliberate violation of a rule, and is "
            "caught when the clause fails with it and holds without. "
            strong { (all.len() - survived.len()) " caught, " (survived.len()) " survived" }
            "; run " (time(&results.date)) ", " (of(results)) "."
        }
        @if !survived.is_empty() { (survivors(&survived)) }
        details {
            summary { "All " (counted(all.len(), "mutant")) }
            (scrolled("Mutants", table(&by_rule)))
        }
    })
}

/// What was run.
fn of(results: &Results) -> Markup {
    html! {
        @if results.command.is_empty() { "in a way that is not known" }
        @else { "by " code { (results.command) } }
    }
}

fn survivors(survived: &[At<'_>]) -> Markup {
    html! {
        @for (bench, mutant) in survived {
            article.failure {
                h3 { "Rule " (mutant.rule) " on " (bench) ": " (mutant.mutant) " survived" }
                p { "The violation: " (mutant.violation) }
                p.seen { "Clause “" (mutant.clause) "”: " (mutant.text) }
            }
        }
    }
}

fn table(by_rule: &BTreeMap<u8, Vec<At<'_>>>) -> Markup {
    html! {
        table {
            caption { "Mutants by rule" }
            thead { tr {
                th scope="col" { "Rule" }
                th scope="col" { "Clause" }
                th scope="col" { "Mutant" }
                th scope="col" { "What it does wrong" }
                th scope="col" { "Bench" }
                th scope="col" { "Caught" }
            } }
            tbody {
                @for (rule, mutants) in by_rule {
                    @for (n, (bench, mutant)) in mutants.iter().enumerate() {
                        tr {
                            th scope="row" id=[(n == 0).then(|| anchor(*rule))] { (rule) }
                            td { (mutant.clause) }
                            td { (mutant.mutant) }
                            td { (mutant.violation) }
                            td { (bench) }
                            td { span.verdict.passed[mutant.caught].failed[!mutant.caught] {
                                (if mutant.caught { "caught" } else { "survived" })
                            } }
                        }
                    }
                }
            }
        }
    }
}
