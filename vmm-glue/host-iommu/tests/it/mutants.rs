// SPDX-License-Identifier: MIT OR Apache-2.0
//! The proof that each numbered behaviour has a test that can fail: for each, one that breaks it.

use crate::failure::all_caught;
use crate::{
    ats, bindings, cache_invalidate, capabilities, compatibility, compatibility_properties,
    guest_pasids, ids, invalidations, page_requests, parents, virtual_commands,
};
use host_iommu::mutant::{Mutant, set};

/// A test with its name.
macro_rules! named {
    ($($part:ident)::+) => {
        (stringify!($($part)::+), $($part)::+ as fn())
    };
}

/// The test of what a mutant breaks.
pub fn test(mutant: Mutant) -> (&'static str, fn()) {
    match mutant {
        Mutant::N1_1 => named!(ids::n1_1_the_lowest_free_id_of_the_range_is_given),
        Mutant::N1_2 => named!(ids::n1_2_a_freed_id_can_be_allocated_again),
        Mutant::N1_3 => named!(ids::n1_3_an_id_is_found_by_its_set_and_its_getter),
        Mutant::N1_4 => named!(ids::n1_4_data_are_replaced_and_the_old_ones_are_given_back),
        Mutant::N1_5 => named!(ids::n1_5_the_default_allocator_serves_when_no_other_is_active),
        Mutant::N1_6 => named!(ids::n1_6_the_first_custom_allocator_needs_an_empty_default),
        Mutant::N1_7 => named!(ids::n1_7_an_allocator_is_registered_once),
        Mutant::N1_8 => named!(ids::n1_8_allocators_of_one_provider_share_their_ids),
        Mutant::N1_9 => named!(ids::n1_9_another_provider_waits_for_its_turn),
        Mutant::N1_10 => named!(ids::n1_10_ids_stay_until_the_last_of_their_allocators_leaves),
        Mutant::N1_11 => named!(ids::n1_11_an_id_that_is_in_use_is_given_back),
        Mutant::N1_12 => named!(ids::n1_12_allocators_come_and_go_at_any_time),
        Mutant::N1_13 => {
            named!(virtual_commands::n1_13_the_allocator_is_there_if_the_unit_reports_it)
        }
        Mutant::N1_14 => named!(virtual_commands::n1_14_every_pasid_is_an_id_of_the_host),
        Mutant::N1_25 => {
            named!(virtual_commands::n1_25_a_guest_waits_for_the_end_and_knows_the_errors)
        }
        Mutant::VirtualRange => {
            named!(virtual_commands::what_the_host_gives_outside_of_the_range_is_given_back)
        }
        Mutant::GivenUp => {
            named!(virtual_commands::a_guest_that_has_given_up_is_told_of_its_next_command)
        }
        Mutant::N1_30 => {
            named!(cache_invalidate::n1_30_the_structure_has_a_version_caches_and_a_granularity)
        }
        Mutant::N1_31 => named!(cache_invalidate::n1_31_flags_say_what_is_given),
        Mutant::N1_32 => named!(cache_invalidate::n1_32_caches_and_selections_go_together_or_not),
        Mutant::N1_33 => {
            named!(cache_invalidate::n1_33_caches_and_granularities_are_those_of_the_unit)
        }
        Mutant::N1_34 => {
            named!(cache_invalidate::n1_34_sizes_are_powers_of_two_and_addresses_aligned_to_them)
        }
        Mutant::N1_35 => named!(cache_invalidate::n1_35_the_device_tlb_forgets_what_the_iotlb_does),
        Mutant::N1_36 => {
            named!(cache_invalidate::n1_36_all_of_a_pasid_is_all_addresses_in_the_device)
        }
        Mutant::N1_37 => named!(cache_invalidate::n1_37_what_is_missing_is_an_error),
        Mutant::N1_38 => {
            named!(cache_invalidate::n1_38_a_guest_in_caching_mode_invalidates_what_it_must)
        }
        Mutant::N1_40 => named!(guest_pasids::n1_40_a_pasid_is_bound_and_unbound),
        Mutant::N1_41 => named!(guest_pasids::n1_41_data_have_a_version_a_format_and_flags),
        Mutant::N1_42 => named!(guest_pasids::n1_42_what_the_hardware_cannot_do_is_refused),
        Mutant::N1_43 => named!(guest_pasids::n1_43_the_first_stage_is_nested_in_the_parent),
        Mutant::N1_44 => named!(guest_pasids::n1_44_a_pasid_can_be_bound_to_several_devices),
        Mutant::N1_45 => named!(guest_pasids::n1_45_the_guests_own_number_is_recorded),
        Mutant::N1_46 => named!(guest_pasids::n1_46_a_failure_leaves_nothing_behind),
        Mutant::N1_47 => named!(guest_pasids::n1_47_unbinding_does_not_free_the_pasid),
        Mutant::N2_2 => named!(ats::n2_2_off_hides_it_always),
        Mutant::N2_3 => named!(ats::n2_3_on_refuses_a_host_that_cannot),
        Mutant::N2_4 => named!(ats::n2_4_auto_hides_it_when_the_host_cannot),
        Mutant::N2_5 => named!(ats::n2_5_the_host_says_it_by_a_bit_of_the_device),
        Mutant::N2_6 => named!(ats::n2_6_a_host_that_says_nothing_counts_as_one_that_can),
        Mutant::N2_7 => named!(ats::n2_7_a_user_is_warned),
        Mutant::N2_8 => named!(ats::n2_8_the_decision_says_which_capabilities_are_hidden),
        Mutant::N2_9 => named!(ats::n2_9_hiding_relinks_the_chain_alone),
        Mutant::N2_10 => named!(ats::n2_10_pasid_is_decided_by_itself),
        Mutant::N3_27 => {
            named!(compatibility::n3_27_shadowing_needs_caching_mode_and_no_snoop_control)
        }
        Mutant::N3_29 => named!(parents::n3_29_what_is_no_memory_is_not_mapped),
        Mutant::N4_1 => named!(invalidations::n4_1_a_partial_failure_says_how_many_were_done),
        Mutant::N4_6 => named!(capabilities::n4_6_capabilities_have_their_bits_and_errors),
        Mutant::N4_9 => named!(compatibility::n4_9_each_reason_to_refuse_a_device_has_its_sentence),
        Mutant::N4_10 => named!(bindings::n4_10_a_requester_is_assigned_once),
        Mutant::N4_11 => named!(bindings::n4_11_requests_without_pasid_have_the_entry_of_rid_pasid),
        Mutant::N4_12 => named!(bindings::n4_12_scopes_are_a_domain_a_pasid_or_everything),
        Mutant::N4_13 => named!(bindings::n4_13_what_is_bound_is_read_again),
        Mutant::N4_14 => named!(bindings::n4_14_what_is_new_is_bound),
        Mutant::N4_15 => named!(bindings::n4_15_tables_count_in_scalable_mode_alone),
        Mutant::N4_16 => named!(bindings::n4_16_a_reset_drops_everything_and_reads_nothing),
        Mutant::N4_17 => named!(bindings::n4_17_first_stages_and_pass_through_are_handed_down),
        Mutant::N4_18 => named!(bindings::n4_18_a_first_stage_is_described_to_the_host),
        Mutant::N4_19 => named!(parents::n4_19_a_parent_that_there_is_comes_first),
        Mutant::N4_20 => named!(parents::n4_20_whole_pages_of_memory_are_mapped),
        Mutant::N4_21 => named!(bindings::n4_21_what_nobody_has_is_freed),
        Mutant::N4_22 => named!(bindings::n4_22_pasids_are_bound_and_not_only_requests_without),
        Mutant::N4_23 => named!(bindings::n4_23_a_failure_is_reported_and_blocks_the_address_space),
        Mutant::N4_24 => named!(parents::n4_24_read_only_memory_is_left_out_below_the_erratum),
        Mutant::N4_25 => named!(bindings::n4_25_context_entries_select_functions),
        Mutant::N4_26 => {
            named!(invalidations::n4_26_page_tables_of_domain_and_pasid_are_invalidated)
        }
        Mutant::N4_27 => named!(bindings::n4_27_switching_translation_binds_everything_anew),
        Mutant::N4_30 => named!(bindings::n4_30_equal_first_stages_have_one_page_table),
        Mutant::N4_32 => {
            named!(bindings::n4_32_devices_are_plugged_in_and_out_while_translation_is_on)
        }
        Mutant::N4_40 => {
            named!(capabilities::n4_40_the_unit_says_what_it_wants_of_those_who_assign)
        }
        Mutant::N4_41 => named!(capabilities::n4_41_the_erratum_leaves_read_only_mappings_out),
        Mutant::N4_43 => {
            named!(compatibility::n4_43_devices_behind_bridges_are_refused_in_first_stage_mode)
        }
        Mutant::N4_44 => named!(bindings::n4_44_the_new_page_table_comes_before_the_old_one_goes),
        Mutant::N4_45 => named!(capabilities::n4_45_the_limit_of_pasids_includes_the_device),
        Mutant::N4_46 => named!(bindings::n4_46_what_is_gone_goes_before_what_is_new_comes),
        Mutant::N4_47 => {
            named!(bindings::n4_47_page_tables_of_a_device_with_pasids_can_be_attached_to_them)
        }
        Mutant::N4_48 => named!(capabilities::n4_48_the_guest_gets_a_pasid_capability),
        Mutant::N4_49 => named!(capabilities::n4_49_dirty_tracking_is_used_where_the_host_has_it),
        Mutant::Range => {
            named!(invalidations::ranges_of_any_size_are_told_and_what_is_too_large_is_all)
        }
        Mutant::Leaf => named!(invalidations::the_leaf_hint_is_passed_on),
        Mutant::Whole => named!(invalidations::what_fails_is_tried_as_a_whole),
        Mutant::Others => {
            named!(invalidations::what_fails_again_fails_the_descriptor_and_not_the_others)
        }
        Mutant::Overflow => {
            named!(page_requests::a_device_without_a_free_index_is_told_to_ask_again)
        }
        Mutant::Groups => named!(page_requests::groups_reach_the_guest_as_a_whole),
        Mutant::Code => named!(page_requests::responses_find_their_group_by_its_cookie),
        Mutant::Detach => {
            named!(page_requests::groups_of_an_address_space_that_is_gone_are_invalid)
        }
        Mutant::Refused => named!(page_requests::a_response_that_the_host_refuses_keeps_none_back),
    }
}

/// The files with these tests.
const SOURCES: &[(&str, &str)] = &[
    ("ats.rs", include_str!("ats.rs")),
    ("bindings.rs", include_str!("bindings.rs")),
    ("cache_invalidate.rs", include_str!("cache_invalidate.rs")),
    ("capabilities.rs", include_str!("capabilities.rs")),
    ("compatibility.rs", include_str!("compatibility.rs")),
    (
        "compatibility_properties.rs",
        include_str!("compatibility_properties.rs"),
    ),
    ("guest_pasids.rs", include_str!("guest_pasids.rs")),
    ("ids.rs", include_str!("ids.rs")),
    ("invalidations.rs", include_str!("invalidations.rs")),
    ("page_requests.rs", include_str!("page_requests.rs")),
    ("parents.rs", include_str!("parents.rs")),
    ("virtual_commands.rs", include_str!("virtual_commands.rs")),
];

/// Caught is a mutant by an assertion of the very test that is named for it.
#[test]
fn every_mutant_is_caught_by_an_assertion_of_its_test() {
    all_caught(Mutant::ALL, test, set, SOURCES);
}

/// A property, and mutants that it notices beside the tests of their rows.
type Noticed = ((&'static str, fn()), &'static [Mutant]);

const PROPERTIES: &[Noticed] = &[
    (
        named!(ats::the_decision_is_that_of_the_truth_table),
        &[
            Mutant::N2_2,
            Mutant::N2_3,
            Mutant::N2_4,
            Mutant::N2_6,
            Mutant::N2_7,
        ],
    ),
    (
        named!(ats::what_is_hidden_is_passed_over_and_nothing_else_changes),
        &[Mutant::N2_9],
    ),
    (named!(ats::a_chain_of_any_words_ends), &[Mutant::N2_9]),
    (
        named!(compatibility_properties::the_reason_is_the_first_that_the_registers_give),
        &[Mutant::N3_27, Mutant::N4_9, Mutant::N4_43],
    ),
    (
        named!(invalidations::the_host_forgets_what_the_guest_has_invalidated),
        &[
            Mutant::N4_1,
            Mutant::N4_26,
            Mutant::Range,
            Mutant::Leaf,
            Mutant::Whole,
            Mutant::Others,
        ],
    ),
    (
        named!(virtual_commands::commands_end_as_in_a_naive_model),
        &[Mutant::N1_14],
    ),
];

#[test]
fn properties_notice_mutants_too() {
    for (property, mutants) in PROPERTIES {
        all_caught(mutants, |_| *property, set, SOURCES);
    }
}

/// Properties that the unit above has a part in, and mutants of it.
#[test]
fn properties_notice_mutants_of_the_unit() {
    use vtd::mutant::Mutant;
    let of_commands = named!(virtual_commands::commands_end_as_in_a_naive_model);
    let mutants = [Mutant::N1_22, Mutant::N1_23, Mutant::N1_24, Mutant::N1_26];
    all_caught(&mutants, |_| of_commands, vtd::mutant::set, SOURCES);
    let of_limits = named!(
        compatibility_properties::a_unit_that_is_limited_by_the_hosts_is_taken_and_loses_no_more
    );
    all_caught(
        &[Mutant::HostLimits],
        |_| of_limits,
        vtd::mutant::set,
        SOURCES,
    );
}
