// SPDX-License-Identifier: MIT OR Apache-2.0
//! Differential fuzzing: random cases on two units, whose answers are compared. A difference is made
//! as small as it can be, and is either known or a finding.

mod apply;
mod case;
mod command;
mod compare;
mod expected;
mod finding;
mod generate;
mod minimise;
mod run;
mod tables;

pub use case::Case;
pub use command::{Amount, differential};
pub use compare::{Difference, Subject};
pub use expected::REPORTS;
pub use finding::{Count, Finding, compare};
pub use generate::case;
pub use run::{Field, Run};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{InProcess, Like};
    use vtd::mutant::Mutant;

    /// The first finding of this project's unit against one that breaks a rule.
    fn find(mutant: Mutant, like: Like, most: u64) -> Option<Finding> {
        let (left, right) = (Subject::new(&InProcess), Subject::new(&InProcess));
        let right = right.breaking(mutant);
        let mut count = Count::default();
        (0..most).find_map(|number| {
            let case = case(like, 1, number);
            compare(&left, &right, number, &case, &mut count)
                .into_iter()
                .next()
        })
    }

    #[test]
    fn a_unit_agrees_with_itself() {
        let (left, right) = (Subject::new(&InProcess), Subject::new(&InProcess));
        let mut count = Count::default();
        for like in [Like::SvmVtd, Like::IntelIommu] {
            for number in 0..200 {
                let case = case(like, 1, number);
                let findings = compare(&left, &right, number, &case, &mut count);
                assert!(findings.is_empty(), "{findings:?}");
            }
        }
        assert_eq!(count.missing(), None);
        assert_eq!(count.cases, 400);
    }

    #[test]
    fn a_rule_that_is_broken_is_found() {
        let mutants = [
            Mutant::G09,
            Mutant::G10,
            Mutant::G11,
            Mutant::G16,
            Mutant::G26,
            Mutant::G27,
            Mutant::B01,
            Mutant::B02,
            Mutant::B05,
            Mutant::Rule18,
            Mutant::Rule23,
            Mutant::Rule25,
            Mutant::Rule26,
            Mutant::Rule27,
            Mutant::Rule28,
            Mutant::Rule31,
            Mutant::Rule32,
            Mutant::Rule77,
            Mutant::Rule78,
            Mutant::Rule79,
        ];
        let lost: Vec<Mutant> = mutants
            .into_iter()
            .filter(|mutant| find(*mutant, Like::SvmVtd, 2_000).is_none())
            .collect();
        assert_eq!(lost, []);
    }

    #[test]
    fn a_finding_is_as_small_as_it_can_be() {
        let finding = find(Mutant::Rule32, Like::SvmVtd, 100).unwrap();
        assert_eq!(finding.difference.field, Field::Faults);
        assert_eq!(finding.case.steps.len(), 1, "{}", finding.case);
        let text = finding.difference.text(&finding.case, "one", "other");
        assert!(text.contains("at step 0"), "{text}");
    }

    #[test]
    fn too_little_is_not_enough() {
        let mut count = Count::default();
        assert_eq!(count.missing(), Some("request that was permitted"));
        count.permitted = 1;
        assert_eq!(count.missing(), Some("request that was refused"));
    }
}
