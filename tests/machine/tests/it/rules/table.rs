// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which test shows that a rule is kept, and that each notices a device that breaks it.

use super::*;
use crate::failure::{caught, place_of_failure};
use crate::storm;
use std::fmt::Write;
use svm_endpoint::Mutant;

/// What shows that a rule is kept.
enum Proof {
    /// A test of this file, by its name.
    Test(&'static str, fn()),
    /// The storm.
    Storm,
    /// A test with the endpoint's own bench, because the unit never does what it takes.
    Endpoint(&'static str),
}

macro_rules! test {
    ($mutant:ident, $name:ident) => {
        (Mutant::$mutant, Proof::Test(stringify!($name), $name))
    };
}

/// The proof of each rule that has a mutant.
const PROOFS: &[(Mutant, Proof)] = &[
    test!(Rule01, rule_01_ats_pri_and_pasid_are_listed),
    test!(Rule02, rule_02_the_queue_depth_is_that_of_all_tags),
    test!(Rule03, rule_03_requests_are_aligned_to_a_page),
    (
        Mutant::Rule04,
        Proof::Endpoint("all its pages would have to be as large as the unit"),
    ),
    test!(Rule05, rule_05_no_context_starts_while_ats_is_off),
    test!(Rule06, rule_06_pasid_enable_does_not_change_while_ats_is_on),
    test!(Rule07, rule_07_no_pasid_is_wider_than_the_capability_says),
    test!(Rule09, rule_09_page_requests_are_enabled_only_when_stopped),
    test!(Rule10, rule_10_the_cache_is_empty_when_ats_is_enabled),
    test!(Rule11, rule_11_what_is_translated_is_sent_as_translated),
    (Mutant::Rule12, Proof::Storm),
    test!(Rule13, rule_13_a_function_that_may_not_ask_is_told_so),
    (Mutant::Rule14, Proof::Storm),
    (Mutant::Rule15, Proof::Storm),
    (
        Mutant::Rule16,
        Proof::Endpoint("the unit answers page by page what is not present"),
    ),
    (Mutant::Rule17, Proof::Storm),
    (
        Mutant::Rule18,
        Proof::Endpoint("the unit permits no write where none is asked for"),
    ),
    (Mutant::Rule19, Proof::Storm),
    (Mutant::Rule20, Proof::Storm),
    (Mutant::Rule21, Proof::Storm),
    (
        Mutant::Rule22,
        Proof::Endpoint("the unit has no ranges for untranslated requests only"),
    ),
    (Mutant::Rule29, Proof::Storm),
    (Mutant::Rule30, Proof::Storm),
    (
        Mutant::Rule33,
        Proof::Endpoint("memory does not see of how many bytes a read is"),
    ),
    (Mutant::Rule34, Proof::Storm),
    test!(
        Rule35,
        rule_35_atomic_operations_need_the_permission_to_write
    ),
    test!(Rule36, rule_36_an_invalidation_is_for_its_pasid_only),
    (Mutant::Rule37, Proof::Storm),
    (Mutant::Rule38, Proof::Storm),
    (Mutant::Rule39, Proof::Storm),
    (Mutant::Rule40, Proof::Storm),
    (Mutant::Rule41, Proof::Storm),
    (Mutant::Rule42, Proof::Storm),
    test!(Rule43, rule_43_an_invalidation_while_ats_is_off_is_answered),
    (Mutant::Rule44, Proof::Storm),
    test!(Rule45, rule_45_a_global_invalidation_is_for_all_pasids),
    (
        Mutant::Rule46,
        Proof::Endpoint("ATS, which must be enabled after the reset, empties the cache, too"),
    ),
    (Mutant::Rule47, Proof::Storm),
    (Mutant::Rule48, Proof::Storm),
    (Mutant::Rule49, Proof::Storm),
    (Mutant::Rule50, Proof::Storm),
    test!(Rule51, rule_51_the_last_request_of_a_group_says_so),
    test!(Rule52, rule_52_a_response_failure_is_no_success),
    test!(
        Rule53,
        rule_53_a_page_that_is_gone_again_is_requested_a_bounded_number_of_times
    ),
    (Mutant::Rule54, Proof::Storm),
    test!(
        Rule55,
        rule_55_a_failure_ends_page_requests_until_they_are_enabled_anew
    ),
    test!(Rule56, rule_56_a_response_to_no_group_is_noted),
    test!(
        Rule57,
        rule_57_a_response_under_another_pasid_is_not_the_groups
    ),
    test!(Rule58, rule_58_credits_bound_the_pages_outstanding),
    test!(Rule59, rule_59_stopped_is_set_when_nothing_is_outstanding),
    test!(Rule61, rule_61_what_an_overflow_answered_is_asked_for_again),
    test!(
        Rule62,
        rule_62_no_page_is_requested_that_no_process_can_have
    ),
    test!(Rule63, rule_63_several_groups_are_outstanding_at_once),
    test!(Rule64, rule_64_an_invalid_request_ends_its_descriptor),
    test!(Rule65, rule_65_a_stop_waits_for_the_responses),
    test!(
        Rule66,
        rule_66_a_stopped_context_leaves_nothing_in_the_cache
    ),
    test!(Rule67, rule_67_a_reset_makes_the_contexts_as_new),
    test!(
        Rule68,
        rule_68_nothing_is_sent_when_bus_mastering_is_taken_away
    ),
    test!(Rule69, rule_69_nothing_is_translated_when_ats_is_taken_away),
    test!(Rule70, rule_70_no_context_starts_while_pasid_is_off),
    test!(Rule71, rule_71_nothing_is_sent_in_d3),
    test!(Rule72, rule_72_each_completion_that_asks_for_it_is_told),
    test!(Rule73, rule_73_nothing_is_asked_for_in_privileged_mode),
];

/// Rules that the device cannot break, and why.
const WITHOUT_MUTANT: &[(u8, &str)] = &[
    (
        8,
        "What the path above the function must have is not the function's: the kernel and the \
         machine are asked about it.",
    ),
    (
        31,
        "Where translated addresses may go is for the translation agent to say, and its mutant is \
         the unit's: docs/vtd.md.",
    ),
    (
        60,
        "The device has no virtual functions that could use credits of its own.",
    ),
];

/// The rules of the endpoint.
fn rules() -> impl Iterator<Item = u8> {
    (1..=22).chain(29..=31).chain(33..=73)
}

/// Caught is a mutant by an assertion of its rule's own test. What fails elsewhere, when the bench
/// is set up for instance, proves nothing.
#[test]
fn every_rule_of_the_endpoint_has_a_mutant_that_is_caught_or_a_reason() {
    let mut wrong = Vec::new();
    for rule in rules() {
        let reason = WITHOUT_MUTANT.iter().any(|(other, _)| *other == rule);
        let mutant = Mutant::of_rule(rule.into());
        let proofs: Vec<_> = PROOFS.iter().filter(|(m, _)| m.rule() == rule).collect();
        let (Some(mutant), [(_, proof)], false) = (mutant, &proofs[..], reason) else {
            if mutant.is_some() || !proofs.is_empty() || !reason {
                let what = "needs a mutant with one proof, or else a reason";
                wrong.push((rule, what.to_owned()));
            }
            continue;
        };
        match proof {
            Proof::Storm if !storm::CAUGHT.contains(&mutant) => {
                wrong.push((rule, "the storm is not said to catch it".to_owned()));
            }
            Proof::Storm | Proof::Endpoint(_) => {}
            Proof::Test(name, test) => {
                if let Some(place) = place_of_failure(test) {
                    wrong.push((rule, format!("fails without the mutant: {place:?}")));
                }
                MUTANT.set(Some(mutant));
                let sources = [("/rules/mod.rs", include_str!("mod.rs"))];
                let result = caught(test, &sources, &[name]);
                MUTANT.set(None);
                if let Err(place) = result {
                    wrong.push((rule, format!("not caught: {place:?}")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(
        PROOFS
            .iter()
            .all(|(mutant, _)| rules().any(|r| r == mutant.rule()))
    );
}

#[test]
fn the_table_of_the_rules_is_that_of_the_documentation() {
    let mut table = String::new();
    for rule in rules() {
        let proof = PROOFS.iter().find(|(mutant, _)| mutant.rule() == rule);
        let (mutant, shown) = match proof {
            Some((mutant, Proof::Test(name, _))) => (mutant.doc().trim(), format!("`{name}`")),
            Some((mutant, Proof::Storm)) => (mutant.doc().trim(), "the storm".to_owned()),
            Some((mutant, Proof::Endpoint(why))) => {
                (mutant.doc().trim(), format!("the endpoint's own: {why}"))
            }
            None => {
                let reason = WITHOUT_MUTANT.iter().find(|(other, _)| *other == rule);
                ("none", reason.map_or("?", |(_, why)| why).to_owned())
            }
        };
        writeln!(table, "| {rule} | {mutant} | {shown} |").unwrap();
    }
    let document = include_str!("../../../../../docs/rules.md");
    assert!(
        document.ends_with(&table),
        "docs/rules.md is to end with:\n{table}"
    );
}
