// SPDX-License-Identifier: MIT OR Apache-2.0
//! TAP version 14: one line a rule, and the values that matter below one that is not kept.

use crate::run::{ClauseResult, MutantResult, RuleResult, Verdict};
use std::fmt::Write;

/// The lines before all results.
pub fn header(tests: usize) -> String {
    format!("TAP version 14\n1..{tests}\n")
}

/// The lines of a rule.
pub fn rule(bench: &str, result: &RuleResult) -> String {
    let (number, title) = (result.rule.number, result.rule.title);
    let word = match result.verdict {
        Verdict::Failed => "not ok",
        _ => "ok",
    };
    let directive = match result.verdict {
        Verdict::NotApplicable => format!(" # SKIP {}", reasons(result)),
        Verdict::Deviates => format!(" # expected deviation {}", reports(result)),
        _ => String::new(),
    };
    let mut text = format!("{word} {number} - {bench}: {title}{directive}\n");
    if matches!(result.verdict, Verdict::Failed | Verdict::Deviates) {
        text += "  ---\n";
        if !result.text.is_empty() {
            let _ = writeln!(text, "  message: {:?}", result.text);
        }
        let _ = writeln!(text, "  section: {:?}", result.rule.section);
        for clause in &result.clauses {
            if matches!(clause.verdict, Verdict::Failed | Verdict::Deviates) {
                text += &broken_clause(clause);
            }
        }
        text += "  ...\n";
    }
    text
}

fn broken_clause(clause: &ClauseResult) -> String {
    let mut text = format!("  {:?}:\n    message: {:?}\n", clause.name, clause.text);
    if !clause.requests.is_empty() {
        text += "    requests:\n";
        for request in &clause.requests {
            let _ = writeln!(text, "      - {request:?}");
        }
    }
    text
}

fn reasons(result: &RuleResult) -> String {
    let mut reasons: Vec<&str> = result.clauses.iter().map(|c| c.text.as_str()).collect();
    if !result.text.is_empty() {
        reasons.push(&result.text);
    }
    reasons.dedup();
    reasons.join("; ")
}

fn reports(result: &RuleResult) -> String {
    let known = result.clauses.iter().filter_map(|clause| clause.deviation);
    let mut numbers: Vec<String> = known.map(|known| known.report.to_string()).collect();
    numbers.dedup();
    numbers.join(", ")
}

/// The line of a mutant.
pub fn mutant(number: usize, bench: &str, result: &MutantResult) -> String {
    let word = if result.caught { "ok" } else { "not ok" };
    let MutantResult {
        rule,
        clause,
        mutant,
        text,
        ..
    } = result;
    let mut line = format!("{word} {number} - {bench}: rule {rule}, {clause}: {mutant}\n");
    if !result.caught {
        let doc = mutant.doc();
        let _ = write!(
            line,
            "  ---\n  violation: {doc:?}\n  message: {text:?}\n  ...\n"
        );
    }
    line
}
