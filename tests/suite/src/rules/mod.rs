// SPDX-License-Identifier: MIT OR Apache-2.0
//! All rules, by their numbers. A file has the rules of one subject: first the functions that judge,
//! and behind them the table with titles and mutants.

mod capabilities;
mod invalidation;
mod memory;
mod page_requests;
mod says;
mod state;
mod translation;
mod unit;

use crate::rule::Rule;

pub use says::says;

/// All rules in the order of their numbers.
pub fn all() -> Vec<&'static Rule> {
    [
        capabilities::RULES,
        translation::RULES,
        memory::RULES,
        invalidation::RULES,
        page_requests::RULES,
        state::RULES,
        unit::RULES,
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutant::Mutant;
    use crate::rule::Judged;
    use svm_endpoint::Mutant as DeviceMutant;

    #[test]
    fn every_number_from_1_to_81_is_there_once_and_in_order() {
        let numbers: Vec<u8> = all().iter().map(|rule| rule.number).collect();
        assert_eq!(numbers, (1..=81).collect::<Vec<u8>>());
    }

    /// Mutants of the device that no bench of the suite can notice, and why.
    const UNSEEN: &[(DeviceMutant, &str)] = &[
        (
            DeviceMutant::Rule16,
            "the units answer page by page what is not present",
        ),
        (
            DeviceMutant::Rule18,
            "the units permit no write where none is asked for",
        ),
        (DeviceMutant::Rule22, "the units say U of no memory"),
        (
            DeviceMutant::Rule46,
            "ATS, which must be enabled after the reset, empties the cache, too",
        ),
    ];

    #[test]
    fn every_mutant_of_a_rule_of_the_device_is_of_a_clause_or_has_a_reason() {
        let mut used = Vec::new();
        for rule in all() {
            if let Judged::By(clauses) = &rule.judged {
                used.extend(clauses.iter().flat_map(|clause| clause.mutants));
            }
        }
        for mutant in DeviceMutant::ALL
            .iter()
            .filter(|mutant| mutant.rule() < 100)
        {
            let is_it = |other: &&&Mutant| matches!(other, Mutant::Device(m) | Mutant::Hosted(m) if m == mutant);
            let seen = used.iter().any(|other| is_it(&other));
            let unseen = UNSEEN.iter().any(|(other, _)| other == mutant);
            assert!(seen != unseen, "{mutant:?}");
        }
    }

    /// The clauses that nothing breaks, and why.
    const UNBROKEN: &[(u8, &str, &str)] = &[(
        46,
        "reset",
        "ATS, which must be enabled after the reset, empties the cache, too",
    )];

    #[test]
    fn every_clause_has_a_mutant_or_a_reason() {
        let mut found = Vec::new();
        for rule in all() {
            let Judged::By(clauses) = &rule.judged else {
                continue;
            };
            let unbroken = clauses.iter().filter(|clause| clause.mutants.is_empty());
            found.extend(unbroken.map(|clause| (rule.number, clause.name)));
        }
        let expected: Vec<_> = UNBROKEN
            .iter()
            .map(|(rule, name, _)| (*rule, *name))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_mutant_of_the_unit_that_only_the_suite_notices_is_of_a_clause() {
        let mut used = Vec::new();
        for rule in all() {
            if let Judged::By(clauses) = &rule.judged {
                used.extend(clauses.iter().flat_map(|clause| clause.mutants));
            }
        }
        let of_suite = vtd::mutant::Mutant::ALL
            .iter()
            .filter(|mutant| mutant.is_of_suite());
        for mutant in of_suite {
            let is_it = |other: &&&Mutant| matches!(other, Mutant::Unit(m) if m == mutant);
            assert!(used.iter().any(|other| is_it(&other)), "{mutant:?}");
        }
    }

    /// The rules of the endpoint; the others are the unit's.
    fn endpoints(rule: &&&Rule) -> bool {
        matches!(rule.number, 1..=22 | 29..=31 | 33..=73)
    }

    /// What shows that a rule of the endpoint is kept.
    fn shown(rule: &Rule) -> (&'static str, String) {
        let mutant = DeviceMutant::of_rule(rule.number.into());
        let doc = mutant.map_or("none", |mutant| mutant.doc().trim());
        let clauses = match &rule.judged {
            Judged::By(clauses) => *clauses,
            Judged::Nowhere { reason, .. } => return (doc, (*reason).to_owned()),
        };
        if let Some((_, why)) = UNSEEN.iter().find(|(other, _)| Some(*other) == mutant) {
            return (doc, format!("the endpoint's own: {why}"));
        }
        let notices = |clause: &&crate::rule::Clause| {
            clause.mutants.iter().any(|other| {
                matches!(other, Mutant::Device(m) | Mutant::Hosted(m) if Some(*m) == mutant)
            })
        };
        let names: Vec<String> = clauses
            .iter()
            .filter(|clause| mutant.is_none() || notices(clause))
            .map(|clause| format!("“{}”", clause.name))
            .collect();
        (doc, names.join(", "))
    }

    #[test]
    fn the_table_of_the_endpoints_rules_is_that_of_the_documentation() {
        let mut table = String::new();
        for rule in all().iter().filter(endpoints) {
            let (mutant, shown) = shown(rule);
            table += &format!("| {} | {mutant} | {shown} |\n", rule.number);
        }
        let document = include_str!("../../../../docs/rules.md");
        assert!(
            document.ends_with(&table),
            "docs/rules.md is to end with:\n{table}"
        );
    }

    #[test]
    fn each_rule_says_something_of_its_own() {
        let texts: Vec<&str> = all().iter().map(|rule| says(rule.number)).collect();
        for (n, text) in texts.iter().enumerate() {
            assert!(text.ends_with('.'), "rule {}: {text:?}", n + 1);
            assert!(!texts[..n].contains(text), "rule {}", n + 1);
        }
        assert_eq!((says(0), says(82)), ("", ""));
    }

    #[test]
    fn names_of_clauses_are_unique_within_their_rule() {
        for rule in all() {
            let Judged::By(clauses) = &rule.judged else {
                continue;
            };
            assert!(!clauses.is_empty(), "rule {}", rule.number);
            for (n, clause) in clauses.iter().enumerate() {
                let same = clauses[..n].iter().any(|other| other.name == clause.name);
                assert!(!same, "rule {}: {}", rule.number, clause.name);
            }
        }
    }
}
