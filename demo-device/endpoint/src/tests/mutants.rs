// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each mutant breaks one rule, and the test of that rule must detect it.

use super::{fast, invalidation, moments, pages, rules, shadow, states, translation};
use crate::testing::failure::{caught, place_of_failure};
use crate::testing::{MUTANT, World};
use crate::{Config, Mutant};
use pcie_ats::{Function, Reset};
use std::fs;
use std::path::Path;
use svm_abi::registers::{LABORATORY, laboratory};

/// A test with its name.
macro_rules! named {
    ($($part:ident)::+) => {
        (stringify!($($part)::+), $($part)::+ as fn())
    };
}

/// The files that contain tests of rules.
const SOURCES: &[(&str, &str)] = &[
    ("/tests/fast.rs", include_str!("fast.rs")),
    ("/tests/invalidation.rs", include_str!("invalidation.rs")),
    ("/tests/moments.rs", include_str!("moments.rs")),
    ("/tests/pages.rs", include_str!("pages.rs")),
    ("/tests/rules.rs", include_str!("rules.rs")),
    ("/tests/shadow.rs", include_str!("shadow.rs")),
    ("/tests/states.rs", include_str!("states.rs")),
    ("/tests/translation.rs", include_str!("translation.rs")),
    (
        "/operation/tests/mod.rs",
        include_str!("../operation/tests/mod.rs"),
    ),
];

/// The test of the rule that a mutant breaks.
fn test(mutant: Mutant) -> (&'static str, fn()) {
    match mutant {
        Mutant::Rule01 => named!(rules::rule_01_ats_pri_and_pasid_are_listed_in_their_first_version),
        Mutant::Rule02 => named!(rules::rule_02_the_queue_depth_is_that_of_all_tags),
        Mutant::Rule03 => named!(rules::rule_03_requests_are_aligned_to_a_page),
        Mutant::Rule04 => named!(rules::rule_04_requests_are_aligned_to_the_smallest_translation_unit),
        Mutant::Rule05 => named!(rules::rule_05_no_context_starts_while_ats_is_off),
        Mutant::Rule06 => named!(rules::rule_06_pasid_enable_does_not_change_while_ats_is_on),
        Mutant::Rule07 => named!(rules::rule_07_no_pasid_is_wider_than_the_capability_says),
        Mutant::Rule09 => named!(rules::rule_09_page_requests_are_enabled_only_when_stopped),
        Mutant::Rule10 => named!(invalidation::rule_10_and_46_the_cache_is_empty_when_ats_is_enabled),
        Mutant::Rule11 => named!(rules::rule_11_what_is_translated_is_sent_as_translated),
        Mutant::Rule12 => named!(rules::rule_12_a_request_asks_for_at_least_one_translation),
        Mutant::Rule13 => named!(translation::rule_13_unsupported_request_and_completer_abort_are_errors_of_the_descriptor),
        Mutant::Rule14 => named!(rules::rule_14_the_translations_of_a_completion_are_one_behind_the_other),
        Mutant::Rule15 => named!(translation::rule_15_a_large_translation_serves_all_of_its_range_and_no_more),
        Mutant::Rule16 => named!(pages::rule_16_the_size_of_a_hole_says_how_many_pages_are_wanted),
        Mutant::Rule17 => named!(translation::rule_17_what_permits_nothing_is_asked_for_each_time),
        Mutant::Rule18 => named!(translation::rule_18_reads_ask_for_no_write_permission_and_do_not_write_with_the_answer),
        Mutant::Rule19 => named!(rules::rule_19_execution_is_never_asked_for),
        Mutant::Rule20 => named!(rules::rule_20_translations_are_those_of_user_mode),
        Mutant::Rule21 => named!(rules::rule_21_an_address_space_has_its_own_translations),
        Mutant::Rule22 => named!(rules::rule_22_an_untranslated_only_range_is_reached_by_untranslated_requests),
        Mutant::Rule29 => named!(rules::rule_29_an_access_ends_where_its_translation_ends),
        Mutant::Rule30 => named!(rules::rule_30_translated_accesses_carry_no_pasid),
        Mutant::Rule33 => named!(rules::rule_33_a_zero_length_read_reads_nothing),
        Mutant::Rule34 => named!(crate::operation::tests::rule_34_copy_is_exact_at_odd_offsets_over_many_pages),
        Mutant::Rule35 => named!(rules::rule_35_atomic_operations_need_the_permission_to_write),
        Mutant::Rule36 => named!(invalidation::rule_36_an_invalidation_is_for_its_pasid_only),
        Mutant::Rule37 => named!(invalidation::rule_37_a_4k_invalidation_drops_the_2m_entry),
        Mutant::Rule38 => named!(invalidation::rule_38_an_invalidation_waits_for_the_access_that_uses_its_range),
        Mutant::Rule39 => named!(invalidation::rule_39_an_answer_that_was_overtaken_is_asked_for_again),
        Mutant::Rule40 => named!(rules::rule_40_invalidations_that_end_together_are_all_completed),
        Mutant::Rule41 => named!(rules::rule_41_a_completion_carries_the_tag_of_its_request),
        Mutant::Rule42 => named!(rules::rule_42_invalidations_do_not_wait_for_page_requests),
        Mutant::Rule43 => named!(rules::rule_43_an_invalidation_while_ats_is_off_is_answered),
        Mutant::Rule44 => named!(rules::rule_44_a_pending_invalidation_is_completed_with_its_access),
        Mutant::Rule45 => named!(rules::rule_45_a_global_invalidation_is_for_all_pasids),
        Mutant::Rule46 => named!(rules::rule_46_the_cache_is_empty_after_a_reset),
        Mutant::Rule47 => named!(invalidation::rule_47_after_an_invalidation_nothing_reaches_the_old_page),
        Mutant::Rule48 => named!(shadow::rule_48_what_moves_under_the_work_agrees_with_a_shadow),
        Mutant::Rule49 => named!(rules::rule_49_outstanding_groups_have_indices_of_their_own),
        Mutant::Rule50 => named!(pages::rule_50_a_request_says_what_the_access_needs),
        Mutant::Rule51 => named!(pages::rule_51_a_group_holds_the_pages_ahead_and_its_last_request_says_so),
        Mutant::Rule52 => named!(rules::rule_52_a_response_failure_is_no_success),
        Mutant::Rule53 => named!(pages::rule_53_a_page_that_is_gone_again_is_requested_a_bounded_number_of_times),
        Mutant::Rule54 => named!(pages::rule_54_an_invalid_request_fails_its_descriptor_and_nothing_else),
        Mutant::Rule55 => named!(pages::rule_55_a_failure_closes_the_interface_until_it_is_enabled_anew),
        Mutant::Rule56 => named!(pages::rule_56_a_response_to_nothing_is_noted_and_dropped),
        Mutant::Rule57 => named!(pages::rule_57_a_response_without_the_pasid_is_not_the_groups),
        Mutant::Rule58 => named!(pages::rule_58_credits_bound_the_pages_outstanding),
        Mutant::Rule59 => named!(pages::rule_59_disabling_stops_requests_and_waits_for_the_outstanding),
        Mutant::Rule61 => named!(pages::rule_61_a_success_that_was_none_is_asked_for_again),
        Mutant::Rule62 => named!(rules::rule_62_no_page_is_requested_that_no_process_can_have),
        Mutant::Rule63 => named!(pages::rule_63_responses_come_in_any_order),
        Mutant::Rule64 => named!(pages::rule_64_an_address_space_that_goes_away_ends_the_work_in_it),
        Mutant::Rule65 => named!(pages::rule_65_a_stop_waits_for_the_responses),
        Mutant::Rule66 => named!(invalidation::rule_66_a_stopped_context_leaves_nothing_in_the_cache),
        Mutant::Rule67 => named!(states::rule_67_a_reset_makes_everything_new_in_any_state),
        Mutant::Rule68 => named!(states::rule_68_to_70_work_halts_when_the_function_loses_what_it_needs),
        Mutant::Rule69 => named!(states::rule_69_ats_that_goes_away_during_an_access_ends_the_work),
        Mutant::Rule70 => named!(rules::rule_70_no_context_starts_while_pasid_is_off),
        Mutant::Rule71 => named!(moments::rule_71_in_d3_the_registers_are_silent_and_what_halted_is_told_in_d0),
        Mutant::Rule72 => named!(states::rule_72_interrupts_are_sent_as_asked),
        Mutant::Rule73 => named!(rules::rule_73_nothing_is_asked_for_in_privileged_mode),
        Mutant::Width04 => named!(rules::rule_04_all_of_the_smallest_translation_unit_is_writable),
        Mutant::Enable07 => named!(rules::rule_07_raw_requests_do_not_ask_for_what_is_not_enabled),
        Mutant::Stop65 => named!(states::rule_65_a_context_that_is_told_to_stop_stops),
        Mutant::Page15 => named!(translation::rule_15_a_large_translation_serves_all_of_its_range_and_no_more),
        Mutant::Join37 => named!(fast::rule_37_what_has_grown_to_2_mib_goes_with_any_of_its_pages),
        Mutant::Extend38 => named!(invalidation::rule_38_all_pages_of_a_run_are_held_until_the_last_is_done),
        Mutant::Ahead58 => named!(fast::rule_58_credits_bound_the_pages_ahead),
        Mutant::Ahead39 => named!(fast::rule_39_what_was_asked_for_ahead_and_overtaken_is_not_used),
        Mutant::Mixed => named!(states::contexts_of_one_address_space_do_work_of_their_own),
    }
}

/// A mutant is caught only by an assertion in the test of its rule. A failure elsewhere, for
/// instance in the world of the test, proves nothing about the rule.
#[test]
fn every_mutant_is_caught_by_an_assertion_of_the_test_of_its_rule() {
    let mut escaped = Vec::new();
    for mutant in Mutant::ALL {
        let (name, test) = test(*mutant);
        let name = name.rsplit("::").next().unwrap_or(name).trim();
        assert_eq!(place_of_failure(test), None, "{mutant:?}: without it");
        MUTANT.set(Some(*mutant));
        let result = caught(test, SOURCES, &[name]);
        MUTANT.set(None);
        if let Err(place) = result {
            escaped.push((mutant, place));
        }
    }
    assert!(escaped.is_empty(), "not caught: {escaped:#?}");
    println!("mutants: {} caught, 0 survived", Mutant::ALL.len());
}

#[test]
fn a_mutant_is_set_by_the_register_of_a_laboratory_and_by_nothing_else() {
    let register = LABORATORY + laboratory::MUTANT;
    let world = World::running_with(Config {
        laboratory: true,
        ..Config::default()
    });
    let e = &world.endpoint;
    let mutant = || e.bar_read(0, register, 8);
    e.bar_write(0, register, 38, 8);
    assert_eq!(mutant(), 38);
    // No such mutant.
    for rule in [8, 60, 255, 38 + 256, !0] {
        e.bar_write(0, register, rule, 8);
        assert_eq!(mutant(), 38);
    }
    e.reset(Reset::FunctionLevel);
    assert_eq!(mutant(), 38);
    e.reset(Reset::Conventional);
    assert_eq!(mutant(), 0);
    // Whatever a process writes to the doorbell pages.
    for offset in (0..64 * 0x1000).step_by(8) {
        e.bar_write(2, offset, 38, 8);
    }
    assert_eq!(mutant(), 0);
    e.bar_write(0, register, 47, 8);
    e.bar_write(0, register, 0, 8);
    assert_eq!(mutant(), 0);

    let plain = World::running();
    plain.endpoint.bar_write(0, register, 47, 8);
    assert_eq!(plain.endpoint.bar_read(0, register, 8), 0);
    invalidation::rule_47_after_an_invalidation_nothing_reaches_the_old_page();
}

#[test]
fn a_mutant_has_the_number_of_its_rule_and_says_what_it_does() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // The manual is the project's; the package of this crate has none.
    let manual = project.join("demo-device").is_dir().then(|| {
        fs::read_to_string(project.join("docs/device.md")).expect("docs/device.md cannot be read")
    });
    for mutant in Mutant::ALL {
        assert_eq!(Mutant::of_rule(mutant.rule().into()), Some(*mutant));
        let row = format!("| {} | {} |\n", mutant.rule(), mutant.doc().trim());
        if let Some(manual) = &manual {
            assert!(manual.contains(&row), "docs/device.md lacks {row}");
        }
    }
}
