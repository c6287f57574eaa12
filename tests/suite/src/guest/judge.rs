// SPDX-License-Identifier: MIT OR Apache-2.0
//! Verdicts from what cases reported. A case that is not there is a failure.

use super::results::Cases;
use super::table::{self, Clause, Level};
use crate::rule::Rule;
use crate::run::{ClauseResult, RuleResult, Verdict};
use std::time::Duration;

/// Judges rules by the cases of a guest.
pub fn judge(level: Level, rules: &[&'static Rule], cases: &Cases) -> Vec<RuleResult> {
    rules
        .iter()
        .map(|rule| of_rule(level, rule, cases))
        .collect()
}

fn of_rule(level: Level, rule: &'static Rule, cases: &Cases) -> RuleResult {
    let clauses = table::clauses(level, rule.number);
    let names = clauses.iter().flat_map(|clause| clause.cases);
    let time: Duration = names
        .filter_map(|name| cases.get(name))
        .map(super::results::Case::time)
        .sum();
    let results: Vec<ClauseResult> = clauses
        .iter()
        .map(|clause| of_clause(level, clause, cases))
        .collect();
    let (verdict, text) = match results.iter().map(|result| result.verdict).min() {
        Some(verdict) => (verdict, String::new()),
        None => without_clauses(level, rule.number, cases),
    };
    RuleResult {
        rule,
        clauses: results,
        verdict,
        text,
        time,
    }
}

/// What came of a case: whether it passed, and what there is to say.
fn of_case(name: &str, cases: &Cases) -> (bool, String) {
    match cases.get(name) {
        None => (false, format!("“{name}” was not reported")),
        Some(case) if case.status == "ok" && case.message.is_empty() => (true, format!("“{name}”")),
        Some(case) if case.status == "ok" => (true, format!("“{name}”: {}", case.message)),
        Some(case) => (false, format!("“{name}” {}: {}", case.status, case.message)),
    }
}

fn of_clause(level: Level, clause: &Clause, cases: &Cases) -> ClauseResult {
    let (verdict, text) = match (level, clause.l2_skips) {
        (Level::L2, Some(why)) => skipped(clause, why, cases),
        _ => {
            let all = clause.cases.iter().map(|name| of_case(name, cases));
            let (passed, failed): (Vec<_>, Vec<_>) = all.partition(|(passed, _)| *passed);
            let (verdict, shown) = match failed.is_empty() {
                true => (Verdict::Passed, passed),
                false => (Verdict::Failed, failed),
            };
            let texts: Vec<String> = shown.into_iter().map(|(_, text)| text).collect();
            (verdict, texts.join("; "))
        }
    };
    ClauseResult {
        name: clause.name,
        verdict,
        text,
        requests: Vec::new(),
        deviation: None,
    }
}

/// A clause whose cases are to skip themselves for a reason.
fn skipped(clause: &Clause, why: &str, cases: &Cases) -> (Verdict, String) {
    let mut said = Vec::new();
    for name in clause.cases {
        match cases.get(name) {
            Some(case) if case.status == "skipped" && case.message.contains(why) => {
                said.push(case.message.as_str());
            }
            Some(case) if case.status == "ok" => {
                return (
                    Verdict::Failed,
                    format!("the reason holds no more: {why}: “{name}” passed"),
                );
            }
            _ => return (Verdict::Failed, of_case(name, cases).1),
        }
    }
    said.dedup();
    (Verdict::NotApplicable, said.join("; "))
}

/// The verdict on a rule that no case judges: its reason has to be shown, or a guest of a guest says
/// why it cannot show it.
fn without_clauses(level: Level, rule: u8, cases: &Cases) -> (Verdict, String) {
    let reason = table::reason(rule);
    let Some(name) = reason.shown_by else {
        return (Verdict::NotApplicable, reason.text.to_owned());
    };
    let case = cases.get(name);
    let l2_skips = reason.l2_skips.filter(|_| level == Level::L2);
    if let (Some(case), Some(why)) = (case, l2_skips) {
        if case.status == "skipped" && case.message.contains(why) {
            let text = format!("{}; not shown: {}", reason.text, case.message);
            return (Verdict::NotApplicable, text);
        }
    }
    match of_case(name, cases) {
        (true, shown) => (Verdict::NotApplicable, format!("{}: {shown}", reason.text)),
        (false, why) => (
            Verdict::Failed,
            format!("the reason is not shown: {}: {why}", reason.text),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::cases;
    use super::*;
    use crate::rules;

    const LEVELS: [Level; 2] = [Level::Guest, Level::L2];

    /// What a level reports if all is well, but for one case.
    fn reported(level: Level, other: (&str, &str, &str)) -> Cases {
        let mut list = Vec::new();
        let ports = table::PORTS.iter().flat_map(|clause| clause.cases).copied();
        for name in table::cases().into_iter().chain(ports) {
            list.push((name, "ok", ""));
        }
        if level == Level::L2 {
            for clause in table::CLAUSES
                .iter()
                .filter(|clause| clause.l2_skips.is_some())
            {
                list.retain(|(name, ..)| !clause.cases.contains(name));
                for name in clause.cases {
                    list.push((name, "skipped", clause.l2_skips.unwrap_or_default()));
                }
            }
        }
        list.retain(|(name, ..)| *name != other.0);
        if other.1 != "missing" {
            list.push(other);
        }
        cases(&list)
    }

    fn verdict(level: Level, rule: u8, cases: &Cases) -> (Verdict, String) {
        let all = rules::all();
        let results = judge(level, &all, cases);
        assert_eq!(results.len(), 81);
        let result = &results[usize::from(rule) - 1];
        let clauses = result.clauses.iter().map(|clause| clause.text.as_str());
        let text: Vec<&str> = clauses.chain([result.text.as_str()]).collect();
        (result.verdict, text.join("; "))
    }

    #[test]
    fn each_rule_is_judged_or_has_a_reason_when_all_cases_pass() {
        for level in LEVELS {
            let all = rules::all();
            let results = judge(level, &all, &reported(level, ("", "missing", "")));
            let failed: Vec<u8> = results
                .iter()
                .filter(|result| result.verdict == Verdict::Failed)
                .map(|result| result.rule.number)
                .collect();
            assert_eq!(failed, Vec::<u8>::new(), "{level:?}");
            for rule in [62, 64, 65, 71] {
                let result = &results[rule - 1];
                assert_eq!(result.verdict, Verdict::Passed, "{level:?}: {rule}");
            }
        }
    }

    #[test]
    fn a_case_that_is_missing_failed_or_skipped_fails_each_rule_that_it_judges() {
        for level in LEVELS {
            for clause in of_level(level) {
                for name in clause.cases {
                    for status in ["missing", "failed", "skipped"] {
                        let cases = reported(level, (name, status, "on purpose"));
                        let (found, text) = verdict(level, clause.rule, &cases);
                        assert_eq!(found, Verdict::Failed, "{level:?}: {name}: {status}");
                        assert!(text.contains(name), "{text}");
                    }
                }
            }
        }
    }

    fn of_level(level: Level) -> Vec<&'static Clause> {
        (1..=81)
            .flat_map(|rule| table::clauses(level, rule))
            .collect()
    }

    #[test]
    fn a_reason_that_holds_no_more_fails_the_rule() {
        let passes = ("suspended to idle at work, and woken", "ok", "2 s");
        let (found, text) = verdict(Level::L2, 71, &reported(Level::L2, passes));
        assert_eq!(found, Verdict::Failed);
        assert!(text.contains("the reason holds no more"), "{text}");
        let reached = (
            "no program reaches the registers of the IOMMU",
            "failed",
            "mapped",
        );
        for rule in [74, 81] {
            let (found, text) = verdict(Level::Guest, rule, &reported(Level::Guest, reached));
            assert_eq!(found, Verdict::Failed);
            assert!(text.contains("the reason is not shown"), "{text}");
        }
    }

    #[test]
    fn a_guest_of_a_guest_may_say_that_it_cannot_show_a_reason() {
        let lax = (
            "no program reaches the registers of the IOMMU",
            "skipped",
            "this kernel lets root map the registers that a driver has",
        );
        let (found, text) = verdict(Level::L2, 81, &reported(Level::L2, lax));
        assert_eq!(found, Verdict::NotApplicable);
        assert!(text.contains("not shown: this kernel"), "{text}");
        let (found, _) = verdict(Level::Guest, 81, &reported(Level::Guest, lax));
        assert_eq!(found, Verdict::Failed);
    }

    #[test]
    fn clauses_are_of_rules_and_have_names_of_their_own() {
        let all: Vec<&Clause> = table::CLAUSES.iter().chain(table::PORTS).collect();
        for (n, clause) in all.iter().enumerate() {
            assert!((1..=81).contains(&clause.rule) && !clause.cases.is_empty());
            let same = |other: &&&Clause| (other.rule, other.name) == (clause.rule, clause.name);
            assert!(!all[..n].iter().any(|other| same(&other)), "{clause:?}");
        }
    }
}
