// SPDX-License-Identifier: MIT OR Apache-2.0
//! The results as JSON, for programs and for the page.

use crate::run::{ClauseResult, MutantResult, RuleResult};
use serde_json::{Value, json};

/// The results of one bench.
pub fn bench(name: &str, subject: &str, rules: &[RuleResult], mutants: &[MutantResult]) -> Value {
    json!({
        "bench": name,
        "subject": subject,
        "rules": rules.iter().map(rule).collect::<Vec<_>>(),
        "mutants": mutants.iter().map(mutant).collect::<Vec<_>>(),
    })
}

fn rule(result: &RuleResult) -> Value {
    json!({
        "number": result.rule.number,
        "title": result.rule.title,
        "section": result.rule.section,
        "verdict": result.verdict.to_string(),
        "text": result.text,
        "seconds": result.time.as_secs_f64(),
        "clauses": result.clauses.iter().map(clause).collect::<Vec<_>>(),
    })
}

fn clause(result: &ClauseResult) -> Value {
    json!({
        "name": result.name,
        "verdict": result.verdict.to_string(),
        "text": result.text,
        "requests": result.requests,
        "deviation": result.deviation.map(|known| json!({
            "report": known.report,
            "place": known.place,
        })),
    })
}

fn mutant(result: &MutantResult) -> Value {
    json!({
        "rule": result.rule,
        "clause": result.clause,
        "mutant": result.mutant.to_string(),
        "violation": result.mutant.doc(),
        "caught": result.caught,
        "text": result.text,
    })
}
