// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has changed since an earlier run: the verdicts of clauses, and of rules that have none.

use super::change::{Change, Comparison, Kind};
use super::results::{Bench, Clause, Results, Rule};
use crate::run::Verdict;

/// How good a verdict is: what is not judged is better than what failed, and worse than what was
/// judged with a result that is known.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Failed => 0,
        Verdict::NotApplicable => 1,
        Verdict::Deviates => 2,
        Verdict::Passed => 3,
    }
}

/// What a rule's verdicts are of: its clauses, or itself.
fn verdicts(rule: &Rule) -> Vec<(Option<&str>, Verdict)> {
    if rule.clauses.is_empty() {
        return vec![(None, rule.verdict)];
    }
    let clauses = rule.clauses.iter();
    clauses
        .map(|Clause { name, verdict, .. }| (Some(name.as_str()), *verdict))
        .collect()
}

/// Compares a run with an earlier one, that of the file `baseline`.
pub fn compare(baseline: &str, before: &Results, now: &Results) -> Comparison {
    let mut comparison = Comparison {
        baseline: baseline.to_owned(),
        date: before.date.clone(),
        commit: before.commit.clone(),
        ..Comparison::default()
    };
    for bench in &now.benches {
        match before.benches.iter().find(|old| old.bench == bench.bench) {
            Some(old) => compare_bench(&mut comparison, old, bench),
            None => comparison.new_benches.push(bench.bench.clone()),
        }
    }
    let was_run = |bench: &str, rule: &Rule| {
        let mut benches = now.benches.iter().filter(|b| b.bench == bench);
        benches.any(|b| b.rules.iter().any(|r| r.number == rule.number))
    };
    for bench in &before.benches {
        let not_run = bench
            .rules
            .iter()
            .filter(|rule| !was_run(&bench.bench, rule));
        comparison.not_run += not_run.count();
    }
    comparison.changes.sort_by_key(|change| change.kind);
    comparison
}

fn compare_bench(comparison: &mut Comparison, before: &Bench, now: &Bench) {
    for rule in &now.rules {
        let old = before.rules.iter().find(|old| old.number == rule.number);
        let old = old.map(verdicts).unwrap_or_default();
        let new = verdicts(rule);
        let in_old = |name| {
            old.iter()
                .find(|(other, _)| *other == name)
                .map(|(_, v)| *v)
        };
        let is_new = |name| new.iter().any(|(other, _)| *other == name);
        let kept = new.iter().map(|(name, v)| (*name, in_old(*name), Some(*v)));
        let gone = old.iter().filter(|(name, _)| !is_new(*name));
        let gone = gone.map(|(name, verdict)| (*name, Some(*verdict), None));
        for (clause, before, after) in kept.chain(gone) {
            if let Some(kind) = kind(before, after) {
                comparison.changes.push(Change {
                    kind,
                    bench: now.bench.clone(),
                    rule: rule.number,
                    clause: clause.map(str::to_owned),
                    before,
                    now: after,
                });
            }
        }
    }
}

/// In which way a verdict has changed; none if it has not.
fn kind(before: Option<Verdict>, now: Option<Verdict>) -> Option<Kind> {
    match (before, now) {
        (None, None) => None,
        (None, Some(_)) => Some(Kind::New),
        (Some(_), None) => Some(Kind::Gone),
        (Some(before), Some(now)) if rank(now) < rank(before) => Some(Kind::Worse),
        (Some(before), Some(now)) if rank(now) > rank(before) => Some(Kind::Better),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Deviates, Failed, NotApplicable, Passed};

    fn rule(number: u8, clauses: &[(&str, Verdict)]) -> Rule {
        let clause = |(name, verdict): &(&str, Verdict)| Clause {
            name: (*name).to_owned(),
            verdict: *verdict,
            text: String::new(),
            requests: Vec::new(),
            deviation: None,
        };
        Rule {
            number,
            title: String::new(),
            says: String::new(),
            section: String::new(),
            verdict: clauses
                .iter()
                .map(|(_, v)| *v)
                .min()
                .unwrap_or(NotApplicable),
            text: String::new(),
            seconds: 0.0,
            clauses: clauses.iter().map(clause).collect(),
        }
    }

    fn results(benches: &[(&str, Vec<Rule>)]) -> Results {
        let bench = |(name, rules): &(&str, Vec<Rule>)| Bench {
            bench: (*name).to_owned(),
            rules: rules.clone(),
            ..Bench::default()
        };
        Results {
            date: "2026-01-01T00:00:00Z".to_owned(),
            benches: benches.iter().map(bench).collect(),
            ..Results::default()
        }
    }

    #[test]
    fn each_change_of_a_verdict_is_told_and_nothing_else() {
        let before = results(&[
            (
                "a",
                vec![
                    rule(1, &[("same", Passed), ("broken", Passed), ("gone", Passed)]),
                    rule(2, &[("mended", Failed)]),
                    rule(3, &[]),
                    rule(4, &[("not run", Passed)]),
                ],
            ),
            ("only before", vec![rule(1, &[("x", Passed)])]),
        ]);
        let now = results(&[
            (
                "a",
                vec![
                    rule(1, &[("same", Passed), ("broken", Failed), ("new", Passed)]),
                    rule(2, &[("mended", Deviates)]),
                    rule(3, &[]),
                ],
            ),
            ("only now", vec![rule(1, &[("x", Failed)])]),
        ]);
        let comments = compare("old.json", &before, &now).comments();
        let expected = "\
# worse: a: rule 1, broken: passed before, failed now
# gone: a: rule 1, gone: passed before
# new: a: rule 1, new: passed now
# better: a: rule 2, mended: failed before, expected deviation now
# only now: the baseline has no such bench
# of the baseline, 2 results of rules were not asked for
# compared with old.json of 2026-01-01T00:00:00Z: 1 worse, 1 gone, 1 new, 1 better
";
        assert_eq!(comments, expected);
    }

    #[test]
    fn what_is_judged_no_more_is_worse_and_what_is_judged_by_now_is_better() {
        for (before, now, expected) in [
            (Passed, NotApplicable, Some(Kind::Worse)),
            (Deviates, NotApplicable, Some(Kind::Worse)),
            (Passed, Deviates, Some(Kind::Worse)),
            (NotApplicable, Failed, Some(Kind::Worse)),
            (NotApplicable, Passed, Some(Kind::Better)),
            (Failed, NotApplicable, Some(Kind::Better)),
            (Deviates, Passed, Some(Kind::Better)),
            (Deviates, Deviates, None),
        ] {
            let found = kind(Some(before), Some(now));
            assert_eq!(found, expected, "{before} to {now}");
        }
    }
}
