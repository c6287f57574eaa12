// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of docs/rules.md for the unit whose tests are in no other file; and the proof that
//! each rule and each row of docs/vtd.md has a test that can fail: a unit that breaks it.

use crate::bench::*;
use crate::failure::all_caught;
use crate::{
    defects, faults, gaps, host_below, page_requests, queue, translation, virtual_commands,
};
use pcie_ats::{Translation, TranslationRequest};
use std::fmt::Write;
use vtd::config::{FirstStage, Stages};
use vtd::mutant::{Mutant, set};
use vtd::spec::register::{global, offset};
use vtd::{Access, Config, Effect};

/// The answer to a translation request that asks for the permission to write, at 0x1000 of PASID 5.
fn answer(b: &mut Bench) -> Translation {
    let request = TranslationRequest {
        address: 0x1000,
        pages: 1,
        pasid: Some(pasid_of(5)),
        privileged: false,
        execute: false,
        no_write: false,
    };
    let mut found = [Translation::from_word(0)];
    let (ram, fx) = (&b.ram, &mut b.fx);
    let got = b
        .unit
        .translation_request(ram, SID, &request, &mut found, fx);
    assert_eq!(got, Ok(1));
    found[0]
}

#[test]
fn rule_18_a_read_only_page_is_answered_without_permission_to_write() {
    for (flags, expected) in [(USER, true), (P | US, false)] {
        let mut b = Bench::new();
        let table = b.page();
        b.map_first(table, 0x1000, 0x800_0000, flags);
        b.pasid(SID, 5, first_stage(table, 1));
        let found = answer(&mut b);
        assert_eq!((found.read, found.write), (true, expected));
    }
}

#[test]
fn rule_24_the_interrupt_range_is_blocked_for_requests_without_pasid() {
    let mut b = Bench::new();
    let table = b.page();
    b.map_first(table, 0xfee0_0000, 0x800_0000, USER);
    b.pasid(SID, 0, first_stage(table, 1));
    b.pasid(SID, 5, first_stage(table, 1));
    assert_eq!(b.goes(0xfee0_0000, Access::Write), Err(0x87));
    assert_eq!(b.codes(), [0x87]);
    assert_eq!(b.goes_pasid(5, 0xfee0_0000, Access::Write), Ok(0x800_0000));
}

#[test]
fn rule_26_dirty_is_set_with_permission_to_write_alone() {
    for (flags, expected) in [(USER, A | D), (P | US, A)] {
        let mut b = Bench::new();
        let table = b.page();
        let entry = b.map_first(table, 0x1000, 0x800_0000, flags);
        b.pasid(SID, 5, first_stage(table, 1));
        answer(&mut b);
        assert_eq!(b.ram.get(entry) & (A | D), expected);
    }
}

#[test]
fn rule_75_a_domain_invalidation_takes_its_domain_alone() {
    let mut b = Bench::new();
    let tables = [b.page(), b.page()];
    let entries = tables.map(|table| b.map_first(table, 0x1000, 0x800_0000, USER));
    for (n, table) in tables.into_iter().enumerate() {
        b.pasid(SID, 5 + n as u32, first_stage(table, 1 + n as u16));
        assert!(b.goes_pasid(5 + n as u32, 0x1000, Access::Read).is_ok());
    }
    for entry in entries {
        b.ram.set(entry, 0x900_0000 | USER);
    }
    b.submit(&[domain_all(1)]);
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Ok(0x900_0000));
    assert_eq!(b.goes_pasid(6, 0x1000, Access::Read), Ok(0x800_0000));
}

/// Changes the first stage of a configuration.
fn first(change: impl FnOnce(&mut FirstStage)) -> impl FnOnce(&mut Config) {
    |c| match &mut c.scalable.as_mut().unwrap().stages {
        Stages::First(first) | Stages::Both { first, .. } => change(first),
        Stages::Second => panic!("the default has a first stage"),
    }
}

#[test]
fn rule_79_pages_of_1_gib_are_an_ability() {
    for (has, expected) in [(true, Ok(0x4000_1000)), (false, Err(0x72))] {
        let mut b = Bench::scalable(first(|f| f.one_gib_pages = has));
        assert_eq!(b.unit.capabilities().cap().fs1gp(), has);
        let table = b.page();
        b.map(table, 4, 3, 0x8000_0000, 0x4000_0000 | PS | USER, USER);
        b.pasid(SID, 5, first_stage(table, 1));
        let got = b.goes_pasid(5, 0x8000_1000, Access::Read);
        assert_eq!(got, expected);
    }
}

#[test]
fn rule_80_what_is_not_there_is_not_reported() {
    let ecap = |change: fn(&mut Config)| Bench::scalable(change).unit.capabilities().ecap().0;
    let all = ecap(|_| {});
    type Ability = (fn(&mut Config), u64);
    let abilities: [Ability; 6] = [
        (|c| c.scalable.as_mut().unwrap().rid_pasid = false, 1 << 49),
        (
            |c| c.scalable.as_mut().unwrap().second_stage_dirty = false,
            1 << 45,
        ),
        (
            |c| c.scalable.as_mut().unwrap().supervisor_requests = false,
            1 << 31 | 1 << 53,
        ),
        (|c| c.snoop_control = false, 1 << 7),
        (|c| c.pass_through = false, 1 << 6),
        (|c| c.abort_dma = false, 1 << 52),
    ];
    for (without, bits) in abilities {
        assert_eq!(all & bits, bits);
        assert_eq!(ecap(without), all & !bits, "{bits:#x}");
    }
}

#[test]
fn rule_81_a_reset_empties_the_caches() {
    let mut b = Bench::legacy(|_| {});
    b.legacy_context(SID, legacy_entry(2, 0).0);
    assert_eq!(b.goes(0x1000, Access::Read), Ok(0x1000));
    b.fx.clear();
    b.unit.reset(&mut b.fx);
    assert_eq!(b.read32(offset::GSTS), 0);
    assert_eq!(b.effects(), [Effect::TranslationEnabled(false)]);
    // There is no root table any more, and no entry from the previous one.
    b.command(global::TE);
    assert_eq!(b.goes(0x1000, Access::Read), Err(1));
}

/// A test with its name.
macro_rules! named {
    ($($part:ident)::+) => {
        (stringify!($($part)::+), $($part)::+ as fn())
    };
}

/// The test of the rule that a mutant breaks.
fn test(mutant: Mutant) -> (&'static str, fn()) {
    match mutant {
        Mutant::G01 => named!(gaps::g01_nested_translation),
        Mutant::G02 => named!(gaps::g02_both_stages_in_one_unit),
        Mutant::G03 => named!(gaps::g03_coherent_walks),
        Mutant::G04 => named!(gaps::g04_five_levels),
        Mutant::G05 => named!(gaps::g05_supervisor_requests),
        Mutant::G06 => named!(gaps::g06_execute_permission),
        Mutant::G07 => named!(gaps::g07_write_protect_and_extended_accessed),
        Mutant::G08 => named!(gaps::g08_second_stage_accessed_and_dirty),
        Mutant::G09 => named!(gaps::g09_flags_by_compare_and_swap_also_for_cached_pages),
        Mutant::G10 => named!(gaps::g10_page_requests_and_responses_without_pasid),
        Mutant::G11 => named!(gaps::g11_stop_markers),
        Mutant::G12 => named!(gaps::g12_draining),
        Mutant::G13 => named!(gaps::g13_snooping),
        Mutant::G14 => named!(gaps::g14_rid_pasid),
        Mutant::G15 => named!(gaps::g15_abort_dma_mode),
        Mutant::G16 => named!(gaps::g16_context_entry_enables),
        Mutant::G17 => named!(gaps::g17_translated_requests_are_checked),
        Mutant::G18 => named!(gaps::g18_fields_of_translations),
        Mutant::G19 => named!(gaps::g19_device_tlb_invalidation_is_asynchronous_and_times_out),
        Mutant::G20 => named!(gaps::g20_throttling_by_physical_function),
        Mutant::G21 => named!(gaps::g21_fault_records),
        Mutant::G22 => named!(gaps::g22_overflow_of_the_page_request_queue),
        Mutant::G23 => {
            named!(gaps::g23_optional_registers_are_reported_absent_and_protected_memory_works)
        }
        Mutant::G24 => named!(gaps::g24_posted_interrupts),
        Mutant::G25 => named!(gaps::g25_context_invalidation_by_domain),
        Mutant::G26 => named!(gaps::g26_pasids_beyond_the_directory),
        Mutant::G27 => named!(gaps::g27_reserved_bits_of_pasid_entries),
        Mutant::G28 => named!(gaps::g28_faults_of_functions_that_are_passed_through),
        Mutant::G29 => named!(gaps::g29_every_pasid_gets_its_responses),
        Mutant::G30 => named!(gaps::g30_untranslated_requests_with_20_bits_of_pasid),
        Mutant::G31 => named!(queue::invalidations_are_told_to_hosts_that_keep_copies),
        Mutant::B01 => named!(defects::b01_present_comes_before_the_translation_type),
        Mutant::B02 => named!(defects::b02_a_pasid_does_not_need_pasid_0),
        Mutant::B03 => named!(defects::b03_a_cached_page_is_no_leave_to_write),
        Mutant::B04 => named!(defects::b04_the_first_stage_goes_by_fspm_and_not_by_aw),
        Mutant::B05 => named!(defects::b05_a_new_entry_replaces_the_old_one_with_its_domain),
        Mutant::B06 => named!(defects::b06_page_request_descriptors_end_in_zeros),
        Mutant::B07 => {
            named!(defects::b07_page_requests_of_all_kinds_of_entries_one_behind_the_other)
        }
        Mutant::B08 => named!(defects::b08_the_active_mode_chooses_the_fault_reason),
        Mutant::B09 => named!(defects::b09_translations_do_not_wrap_round),
        Mutant::B10 => named!(defects::b10_privileged_translation_requests),
        Mutant::B11 => named!(defects::b11_the_second_fault_is_recorded),
        Mutant::B12 => named!(defects::b12_responses_are_checked_and_unknown_ones_counted),
        Mutant::B13 => named!(defects::b13_all_errors_are_write_1_to_clear),
        Mutant::Rule18 => named!(rule_18_a_read_only_page_is_answered_without_permission_to_write),
        Mutant::Rule23 => named!(defects::b01_present_comes_before_the_translation_type),
        Mutant::Rule24 => named!(rule_24_the_interrupt_range_is_blocked_for_requests_without_pasid),
        Mutant::Rule25 => named!(defects::b10_privileged_translation_requests),
        Mutant::Rule26 => named!(rule_26_dirty_is_set_with_permission_to_write_alone),
        Mutant::Rule27 => named!(defects::b04_the_first_stage_goes_by_fspm_and_not_by_aw),
        Mutant::Rule28 => named!(defects::b05_a_new_entry_replaces_the_old_one_with_its_domain),
        Mutant::Rule30 => named!(translation::translated_requests_are_checked),
        Mutant::Rule31 => named!(translation::translated_requests_are_checked),
        Mutant::Rule32 => named!(gaps::g21_fault_records),
        Mutant::Rule74 => named!(queue::a_bad_descriptor_stops_the_queue_until_iqe_is_cleared),
        Mutant::Rule75 => named!(rule_75_a_domain_invalidation_takes_its_domain_alone),
        Mutant::Rule76 => named!(page_requests::the_queue_wraps_at_every_size),
        Mutant::Rule77 => named!(faults::fpd_suppresses_the_fault_of_the_interrupt_range_too),
        Mutant::Rule78 => named!(gaps::g27_reserved_bits_of_pasid_entries),
        Mutant::Rule79 => named!(rule_79_pages_of_1_gib_are_an_ability),
        Mutant::Rule80 => named!(rule_80_what_is_not_there_is_not_reported),
        Mutant::Rule81 => named!(rule_81_a_reset_empties_the_caches),
        Mutant::Turn => named!(queue::a_round_of_the_queue_ends_before_the_next_begins),
        Mutant::LeafHint => named!(host_below::the_hint_of_an_invalidation_is_told),
        Mutant::PasidEnable => {
            named!(host_below::an_address_space_is_described_as_its_entries_have_it)
        }
        Mutant::Confirm => named!(host_below::an_invalidation_that_fails_stops_the_queue_there),
        Mutant::Abandon => named!(host_below::page_requests_that_are_given_up_are_invalid),
        Mutant::Held => {
            named!(host_below::a_page_request_before_the_invalidation_of_its_pasid_is_no_fault)
        }
        Mutant::HostLimits => {
            named!(host_below::a_unit_above_another_reports_what_that_can_carry)
        }
        Mutant::N1_20 => {
            named!(virtual_commands::n1_20_a_unit_says_whether_it_takes_virtual_commands)
        }
        Mutant::N1_21 => named!(virtual_commands::n1_21_the_registers_have_their_places),
        Mutant::N1_22 => named!(virtual_commands::n1_22_commands_allocate_and_free),
        Mutant::N1_23 => {
            named!(virtual_commands::n1_23_a_response_says_whether_a_command_is_in_progress)
        }
        Mutant::N1_24 => named!(virtual_commands::n1_24_failures_have_their_status),
        Mutant::N1_26 => named!(virtual_commands::n1_26_a_command_during_another_is_ignored),
        other => panic!("{other:?} has no test here: a clause of the suite notices it"),
    }
}

/// The files that contain these tests.
const SOURCES: &[(&str, &str)] = &[
    ("defects.rs", include_str!("defects.rs")),
    ("faults.rs", include_str!("faults.rs")),
    ("gaps.rs", include_str!("gaps.rs")),
    ("host_below.rs", include_str!("host_below.rs")),
    ("page_requests.rs", include_str!("page_requests.rs")),
    ("queue.rs", include_str!("queue.rs")),
    ("rules.rs", include_str!("rules.rs")),
    ("translation.rs", include_str!("translation.rs")),
    ("virtual_commands.rs", include_str!("virtual_commands.rs")),
];

/// The mutants that this crate's tests notice. Of the others the correctness suite makes sure.
fn own() -> impl Iterator<Item = Mutant> {
    let all = Mutant::ALL.iter().copied();
    all.filter(|mutant| !mutant.is_of_suite())
}

/// A mutant is caught only by an assertion in the test that is named for it: a failure elsewhere,
/// for instance in the setup of the bench, proves nothing.
#[test]
fn every_mutant_is_caught_by_an_assertion_of_its_test() {
    let own: Vec<Mutant> = own().collect();
    all_caught(&own, test, set, SOURCES);
}

#[test]
fn the_table_of_the_mutants_is_that_of_the_documentation() {
    let mut table = String::new();
    for mutant in own() {
        let (path, _) = test(mutant);
        let path = path.replace(' ', "");
        let doc = mutant.doc().trim();
        writeln!(table, "| {mutant:?} | {doc} | `{path}` |").unwrap();
    }
    let document = include_str!("../../../../docs/vtd.md");
    assert!(document.contains(&table), "docs/vtd.md lacks:\n{table}");
}
