// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules that are one short test each. `mutants.rs` shows for each that it can fail.

use super::*;
use crate::testing::{RECORDS, RING, Service, World, pid};
use crate::{Config, config_space};
use pcie_ats::{
    AlignedRange, Function, InvalidateRequest, Invalidation, Itag, MemoryAddressType, PasidWidth,
    Reset, ResponseCode,
};
use std::sync::{Arc, Mutex};
use svm_abi::completion;
use svm_abi::counters::index;
use svm_abi::registers::{
    DEVICE_COUNTERS, LABORATORY, attributes, command, context, control, halt, laboratory, pasid,
    status,
};

const ATS_CONTROL: u16 = config_space::ATS + 4;
const PASID_CONTROL: u16 = config_space::PASID + 4;
const PRI_CONTROL: u16 = config_space::PRI + 4;

fn state(world: &World) -> (u8, u8) {
    let value = world.get(0, context::STATUS);
    (status::state(value), status::error(value))
}

fn later() -> World {
    let world = World::running();
    *world.service.lock().unwrap() = Service::Later;
    world.map_absent(1, HERE, true);
    world
}

/// The answers to invalidations of a page that is written at the moment, and to others.
fn invalidations_during_a_write(world: &World, itags: &'static [u8]) -> Vec<Invalidation> {
    world.map(1, HERE, true);
    success(world.perform(fill(HERE, 8)));
    let answers = Arc::new(Mutex::new(Vec::new()));
    let seen = answers.clone();
    *world.on_write.lock().unwrap() = Some(Box::new(move |world| {
        for itag in itags {
            let range = AlignedRange::page(HERE);
            let answer = world.invalidate_tagged(1, range, *itag);
            seen.lock().unwrap().push(answer);
        }
    }));
    success(world.perform(fill(HERE, 8)));
    let answers = answers.lock().unwrap();
    answers.clone()
}

fn vectors(world: &World) -> Vec<u32> {
    let inner = world.inner.lock().unwrap();
    inner.completions.iter().map(|c| c.itag_vector).collect()
}

#[test]
pub(super) fn rule_01_ats_pri_and_pasid_are_listed_in_their_first_version() {
    let world = World::running();
    let mut found = Vec::new();
    let mut at = 0x100;
    while at != 0 {
        let header = world.endpoint.config_read(at);
        found.push((header as u16, header >> 16 & 0xf));
        at = (header >> 20) as u16;
    }
    assert_eq!(found, [(0x000f, 1), (0x0013, 1), (0x001b, 1)]);
}

#[test]
pub(super) fn rule_02_the_queue_depth_is_that_of_all_tags() {
    let world = World::running();
    assert_eq!(world.endpoint.config_read(ATS_CONTROL) & 31, 0);
}

#[test]
pub(super) fn rule_03_requests_are_aligned_to_a_page() {
    let world = World::running();
    world.map(1, HERE, true);
    success(world.perform(fill(HERE + 0x801, 3)));
    let inner = world.inner.lock().unwrap();
    assert!(inner.translations.iter().all(|r| r.address % 4096 == 0));
}

#[test]
pub(super) fn rule_04_requests_are_aligned_to_the_smallest_translation_unit() {
    let world = World::new(Config::default());
    world.enable(64);
    // The unit changes only while ATS is off.
    world.endpoint.config_write(ATS_CONTROL, 0, 1 << 31);
    let (unit, enable) = (2 << 16, 1 << 31);
    world
        .endpoint
        .config_write(ATS_CONTROL, unit | enable, 0xffff_0000);
    for at in [RING, RECORDS, HERE, HERE + 0x4000] {
        let range = AlignedRange::containing(at, 14).unwrap();
        world.map_to(1, range, world.frames(14), true, true);
    }
    world.start(0, 1);
    success(world.perform(fill(HERE + 0x3ffd, 0x1005)));
    assert!(world.peek(1, HERE + 0x3ffd, 0x1005) == [0x5a; 0x1005]);
    let inner = world.inner.lock().unwrap();
    assert!(inner.translations.iter().all(|r| r.address % 0x4000 == 0));
    let last = inner.translations.iter().find(|r| r.address == HERE);
    assert_eq!(last.unwrap().pages, 2, "in units of 16 KiB");
}

#[test]
pub(super) fn rule_04_all_of_the_smallest_translation_unit_is_writable() {
    let world = World::new(Config::default());
    let unit = 0x1f << 16;
    world.endpoint.config_write(ATS_CONTROL, unit, unit);
    assert_eq!(world.endpoint.config_read(ATS_CONTROL) & unit, unit);
}

#[test]
pub(super) fn rule_05_no_context_starts_while_ats_is_off() {
    let world = World::new(Config::default());
    world.enable(64);
    world.endpoint.config_write(ATS_CONTROL, 0, 1 << 31);
    world.start(0, 1);
    assert_eq!(state(&world), (status::HALTED, halt::FUNCTION_DISABLED));
}

#[test]
pub(super) fn rule_06_pasid_enable_does_not_change_while_ats_is_on() {
    let world = World::running();
    world.endpoint.config_write(PASID_CONTROL, 0, 1 << 16);
    assert_ne!(world.endpoint.config_read(PASID_CONTROL) & 1 << 16, 0);
    success(world.perform(nop()));
}

#[test]
pub(super) fn rule_07_no_pasid_is_wider_than_the_capability_says() {
    let world = World::new(Config {
        pasid_width: PasidWidth::new(8).unwrap(),
        ..Config::default()
    });
    world.enable(64);
    world.start(0, 256);
    assert_eq!(state(&world), (status::HALTED, halt::BAD_PASID));
    world.start(1, 255);
    assert_eq!(world.endpoint.pasids(), [pid(255), pid(256)]);
    world.run();
    assert!(world.inner.lock().unwrap().translations.is_empty());
}

#[test]
pub(super) fn rule_07_raw_requests_do_not_ask_for_what_is_not_enabled() {
    let world = World::running_with(Config {
        laboratory: true,
        ..Config::default()
    });
    let e = &world.endpoint;
    let register = |register: u64| LABORATORY + register;
    for bit in [attributes::EXECUTE, attributes::PRIVILEGED] {
        let of_process = attributes::PASID_PRESENT | 1 | bit;
        e.bar_write(0, register(laboratory::STATE), 0, 8);
        e.bar_write(0, register(laboratory::ADDRESS), HERE, 8);
        e.bar_write(0, register(laboratory::ATTRIBUTES), of_process, 8);
        e.bar_write(0, register(laboratory::COMMAND), command::TRANSLATE, 8);
        world.run();
        let refused = 3 | (Error::NotPresent as u64) << 8;
        assert_eq!(e.bar_read(0, register(laboratory::STATE), 8), refused);
    }
}

#[test]
pub(super) fn rule_09_page_requests_are_enabled_only_when_stopped() {
    let world = later();
    world.submit(fill(HERE, 8));
    world.run();
    let e = &world.endpoint;
    e.config_write(PRI_CONTROL, 0, 1);
    e.config_write(PRI_CONTROL, 1, 1);
    assert_eq!(e.config_read(PRI_CONTROL) & 1, 0);
    world.serve(ResponseCode::Success);
    e.config_write(PRI_CONTROL, 1, 1);
    assert_eq!(e.config_read(PRI_CONTROL) & 1, 1);
}

#[test]
pub(super) fn rule_11_what_is_translated_is_sent_as_translated() {
    let world = World::running();
    let frame = world.map(1, HERE, true);
    world.inner.lock().unwrap().log = Some(Vec::new());
    success(world.perform(fill(HERE + 3, 5)));
    let inner = world.inner.lock().unwrap();
    let log = inner.log.as_ref().unwrap();
    let translated = |t| t == MemoryAddressType::Translated;
    assert!(log.iter().all(|(r, ..)| translated(r.address_type)));
    assert!(log.iter().any(|(r, ..)| r.address == frame + 3));
}

#[test]
pub(super) fn rule_12_a_request_asks_for_at_least_one_translation() {
    let world = World::running();
    success(world.perform(nop()));
    assert!(world.inner.lock().unwrap().translations[0].pages >= 1);
}

#[test]
pub(super) fn rule_14_the_translations_of_a_completion_are_one_behind_the_other() {
    let world = World::running();
    let frames = [0u64, 1, 2].map(|page| world.map(1, HERE + (page << 12), true));
    success(world.perform(fill(HERE, 0x3000)));
    for frame in frames {
        assert!(world.peek_frame(frame, 4096) == [0x5a; 4096]);
    }
}

#[test]
pub(super) fn rule_19_execution_is_never_asked_for() {
    let world = World::running();
    world.map_absent(1, HERE, true);
    success(world.perform(fill(HERE, 8)));
    let inner = world.inner.lock().unwrap();
    assert!(inner.translations.iter().all(|r| !r.execute));
    assert!(inner.page_requests.iter().all(|r| !r.execute));
}

#[test]
pub(super) fn rule_20_translations_are_those_of_user_mode() {
    let world = World::running();
    success(world.perform(nop()));
    let inner = world.inner.lock().unwrap();
    assert!(inner.translations.iter().all(|r| !r.privileged));
}

#[test]
pub(super) fn rule_21_an_address_space_has_its_own_translations() {
    let world = World::running();
    world.start(1, 2);
    let frames = [world.map(1, HERE, true), world.map(2, HERE, true)];
    success(world.perform(fill(HERE, 8)));
    world.submit_to(1, 2, fill(HERE, 8));
    world.run();
    for frame in frames {
        assert_eq!(world.peek_frame(frame, 8), [0x5a; 8]);
    }
}

#[test]
pub(super) fn rule_22_an_untranslated_only_range_is_reached_by_untranslated_requests() {
    let world = World::running();
    world.map(1, HERE, true);
    world.change(1, HERE, |m| m.untranslated_only = true);
    success(world.perform(nop()));
    world.inner.lock().unwrap().log = Some(Vec::new());
    success(world.perform(fill(HERE + 3, 5)));
    let inner = world.inner.lock().unwrap();
    let log = inner.log.as_ref().unwrap();
    let write = log.iter().find(|(_, length, _)| *length == 5).unwrap().0;
    assert_eq!(write.address_type, MemoryAddressType::Untranslated);
    assert_eq!((write.address, write.pasid), (HERE + 3, Some(pid(1))));
}

#[test]
pub(super) fn rule_29_an_access_ends_where_its_translation_ends() {
    let world = World::running();
    world.map(1, HERE, true);
    let behind = world.frame();
    let record = world.perform(fill(HERE + 0xff0, 0x20));
    assert_eq!(failure(record), (Error::PageFault, HERE + 0x1000, 1));
    assert_eq!(record.bytes_done, 0x10);
    assert_eq!(world.peek_frame(behind, 0x10), [0; 0x10]);
}

#[test]
pub(super) fn rule_30_translated_accesses_carry_no_pasid() {
    let world = World::running();
    world.inner.lock().unwrap().log = Some(Vec::new());
    success(world.perform(nop()));
    let inner = world.inner.lock().unwrap();
    let log = inner.log.as_ref().unwrap();
    assert!(log.iter().all(|(request, ..)| request.pasid.is_none()));
}

#[test]
pub(super) fn rule_33_a_zero_length_read_reads_nothing() {
    let world = World::running_with(Config {
        laboratory: true,
        ..Config::default()
    });
    let frame = world.map(1, HERE, true);
    world.poke(1, HERE, &[0x11; 8]);
    let register = |register: u64| LABORATORY + register;
    let e = &world.endpoint;
    let run = |command: u64, address: u64, attributes: u64| {
        e.bar_write(0, register(laboratory::STATE), 0, 8);
        e.bar_write(0, register(laboratory::DATA), 0x22, 8);
        e.bar_write(0, register(laboratory::ADDRESS), address, 8);
        e.bar_write(0, register(laboratory::ATTRIBUTES), attributes, 8);
        e.bar_write(0, register(laboratory::COMMAND), command, 8);
        world.run();
        e.bar_read(0, register(laboratory::STATE), 8)
    };
    world.inner.lock().unwrap().log = Some(Vec::new());
    let of_process = 1 | 1 << 31;
    assert_eq!(run(7, HERE, of_process), 2);
    assert_eq!(run(8, frame, 0), 2);
    assert_eq!(e.bar_read(0, register(laboratory::DATA), 8), 0x22);
    // It needs a permission all the same.
    let refused = 3 | (Error::MemoryAccess as u64) << 8;
    assert_eq!(run(7, THERE, of_process), refused);
    let inner = world.inner.lock().unwrap();
    let log = inner.log.as_ref().unwrap();
    assert_eq!(log.len(), 3);
    assert!(log.iter().all(|(_, length, write)| *length == 0 && !write));
}

#[test]
pub(super) fn rule_35_atomic_operations_need_the_permission_to_write() {
    let world = World::running();
    world.map(1, HERE, false);
    for operation in [Operation::FetchAdd, Operation::CompareSwap] {
        let record = world.perform(Descriptor {
            operation: operation as u8,
            operand0: 0,
            ..fill(HERE, 0)
        });
        assert_eq!(failure(record), (Error::PageFault, HERE, 1));
    }
}

#[test]
pub(super) fn rule_40_invalidations_that_end_together_are_all_completed() {
    let world = World::running();
    let answers = invalidations_during_a_write(&world, &[4, 9]);
    assert_eq!(answers, [Invalidation::Pending; 2]);
    assert_eq!(vectors(&world), [1 << 4 | 1 << 9]);
    assert_eq!(
        world.inner.lock().unwrap().completions[0].completion_count,
        1
    );
}

#[test]
pub(super) fn rule_41_a_completion_carries_the_tag_of_its_request() {
    let world = World::running();
    invalidations_during_a_write(&world, &[31]);
    assert_eq!(vectors(&world), [1 << 31]);
}

#[test]
pub(super) fn rule_42_invalidations_do_not_wait_for_page_requests() {
    let world = later();
    world.submit(fill(HERE, 8));
    world.run();
    for itag in 0..32 {
        let answer = world.invalidate_tagged(1, AlignedRange::ALL, itag);
        assert_eq!(answer, Invalidation::Completed);
    }
    world.serve(ResponseCode::Success);
    world.run();
    success(world.record(1, RECORDS));
}

#[test]
pub(super) fn rule_43_an_invalidation_while_ats_is_off_is_answered() {
    let world = World::running();
    world.endpoint.config_write(ATS_CONTROL, 0, 1 << 31);
    let answer = world.invalidate(1, AlignedRange::ALL);
    assert_eq!(answer, Invalidation::Completed);
    world.endpoint.reset(Reset::FunctionLevel);
    let answer = world.invalidate(1, AlignedRange::ALL);
    assert_eq!(answer, Invalidation::Completed);
}

#[test]
pub(super) fn rule_44_a_pending_invalidation_is_completed_with_its_access() {
    let world = World::running();
    invalidations_during_a_write(&world, &[3]);
    assert_eq!(vectors(&world).len(), 1);
    assert_eq!(
        world.invalidate(1, AlignedRange::ALL),
        Invalidation::Completed
    );
}

#[test]
pub(super) fn rule_45_a_global_invalidation_is_for_all_pasids() {
    let world = World::running();
    let old = world.map(1, HERE, true);
    success(world.perform(fill(HERE, 8)));
    let fresh = world.frame();
    world.change(1, HERE, |m| m.output = fresh);
    let answer = world.endpoint.invalidate(&InvalidateRequest {
        itag: Itag::new(0).unwrap(),
        pasid: None,
        range: AlignedRange::page(HERE),
        global: true,
    });
    assert_eq!(answer, Invalidation::Completed);
    success(world.perform(fill(HERE + 8, 8)));
    assert_eq!(world.peek_frame(old, 16)[8..], [0; 8]);
}

#[test]
pub(super) fn rule_46_the_cache_is_empty_after_a_reset() {
    let world = World::running();
    world.map(1, HERE, true);
    success(world.perform(fill(HERE, 8)));
    world.endpoint.reset(Reset::FunctionLevel);
    // Before ATS is enabled, which would empty it as well.
    let _ = world.invalidate(1, AlignedRange::ALL);
    let removed = DEVICE_COUNTERS + 8 * index::INVALIDATED_ENTRIES as u64;
    assert_eq!(world.endpoint.bar_read(0, removed, 8), 0);
    world.enable(64);
    world.start(0, 1);
    success(world.perform(fill(HERE, 8)));
}

#[test]
pub(super) fn rule_49_outstanding_groups_have_indices_of_their_own() {
    let world = later();
    world.start(1, 2);
    world.map_absent(2, HERE, true);
    world.submit(fill(HERE, 8));
    world.submit_to(1, 2, fill(HERE, 8));
    world.run();
    let inner = world.inner.lock().unwrap();
    assert_eq!(inner.queue.len(), 2);
    assert_ne!(inner.queue[0].prgi, inner.queue[1].prgi);
}

#[test]
pub(super) fn rule_52_a_response_failure_is_no_success() {
    let world = World::running();
    *world.service.lock().unwrap() = Service::Refuse(ResponseCode::ResponseFailure);
    world.map_absent(1, HERE, true);
    let record = world.perform(fill(HERE, 8));
    assert_eq!(failure(record).0, Error::ResponseFailure);
    assert_eq!(world.inner.lock().unwrap().page_requests.len(), 1);
}

#[test]
pub(super) fn rule_62_no_page_is_requested_that_no_process_can_have() {
    let world = World::running();
    for address in [1 << 60, 0xdead_0000_0000_0000, 1 << 56, 0xfe7f << 48] {
        let record = world.perform(fill(address, 8));
        assert_eq!(failure(record), (Error::BadAddress, address, 1));
    }
    assert!(world.inner.lock().unwrap().page_requests.is_empty());
}

#[test]
pub(super) fn rule_70_no_context_starts_while_pasid_is_off() {
    let world = World::new(Config::default());
    world.endpoint.config_write(4, 4, 4);
    world.endpoint.config_write(ATS_CONTROL, 1 << 31, 1 << 31);
    world.start(0, 1);
    assert_eq!(state(&world), (status::HALTED, halt::FUNCTION_DISABLED));
}

#[test]
pub(super) fn rule_73_nothing_is_asked_for_in_privileged_mode() {
    let world = World::running();
    world.map_absent(1, HERE, true);
    world.inner.lock().unwrap().log = Some(Vec::new());
    success(world.perform(fill(HERE, 8)));
    let inner = world.inner.lock().unwrap();
    let log = inner.log.as_ref().unwrap();
    assert!(log.iter().all(|(request, ..)| !request.privileged));
    assert!(inner.page_requests.iter().all(|r| !r.privileged));
}

#[test]
fn rule_50_and_66_a_stop_marker_ends_the_use_of_a_pasid() {
    let world = World::new(Config {
        stop_markers: true,
        ..Config::default()
    });
    world.judge();
    world.enable(64);
    world.start(0, 1);
    world.start(1, 1);
    *world.service.lock().unwrap() = Service::Later;
    world.map_absent(1, HERE, true);
    world.submit(fill(HERE, 8));
    world.run();
    let stop = |n| world.set(n, context::CONTROL, control::STOP);
    // Another context goes on: no marker, and responses are waited for.
    stop(0);
    world.run();
    assert!(world.inner.lock().unwrap().markers.is_empty());
    assert_eq!(state(&world).0, status::STOPPING);
    world.serve(ResponseCode::Success);
    assert_eq!(state(&world).0, status::DISABLED);

    world.change(1, HERE, |m| m.present = false);
    let _ = world.invalidate(1, AlignedRange::ALL);
    world.submit_to(1, 1, fill(HERE, 8));
    world.run();
    let late = world.inner.lock().unwrap().queue[0];
    stop(1);
    assert_eq!(
        status::state(world.get(1, context::STATUS)),
        status::STOPPING
    );
    // A second command changes nothing.
    stop(1);
    world.run();
    assert_eq!(world.get(1, context::STATUS), u64::from(status::DISABLED));
    let markers = world.inner.lock().unwrap().markers.clone();
    assert_eq!(markers.len(), 1);
    assert_eq!((markers[0].pasid, markers[0].last), (Some(pid(1)), true));
    // The response that comes later is expected, and returns the credit.
    world.respond(&late, ResponseCode::Success);
    assert_eq!(world.endpoint.config_read(PRI_CONTROL) >> 17 & 1, 0);
    world.endpoint.config_write(PRI_CONTROL, 0, 1);
    assert_eq!(world.endpoint.config_read(PRI_CONTROL) >> 24 & 1, 1);
    assert_eq!(world.get(0, context::PASID), pasid::VALID | 1);
}

#[test]
fn rule_13_a_page_request_without_an_answer_fails_its_descriptor_alone() {
    let world = World::running_with(Config {
        page_response_timeout: 100,
        pri_capacity: 2,
        ..Config::default()
    });
    world.start(1, 2);
    *world.service.lock().unwrap() = Service::Later;
    world.map_absent(1, HERE, true);
    world.map_absent(2, HERE, true);
    let record = world.submit(fill(HERE, 8));
    world.run();
    world.endpoint.tick(1000);
    world.endpoint.tick(1099);
    world.run();
    assert_eq!(world.record(1, record).status, completion::status::PENDING);
    let other = world.submit_to(1, 2, fill(HERE, 8));
    world.run();
    world.endpoint.tick(1100);
    world.run();
    assert_eq!(
        failure(world.record(1, record)),
        (Error::ResponseTimeout, HERE, 1)
    );
    assert_eq!(world.record(2, other).status, completion::status::PENDING);
    // No context may wait for ever, not even for credits that never come back.
    world.endpoint.tick(1200);
    world.run();
    assert_eq!(failure(world.record(2, other)).0, Error::ResponseTimeout);
    let third = world.perform(fill(HERE, 8));
    assert_eq!(failure(third).0, Error::ResponseTimeout);
    assert_eq!(world.inner.lock().unwrap().queue.len(), 2);
    // A context that stops does not wait for what was given up.
    world.set(0, context::CONTROL, control::STOP);
    assert_eq!(state(&world).0, status::DISABLED);
    world.start(0, 1);
    // Late answers return credits and indices, and are no surprise.
    while !world.serve(ResponseCode::Success).is_empty() {}
    assert_eq!(world.endpoint.config_read(PRI_CONTROL) >> 17 & 1, 0);
    success(world.perform(fill(HERE, 8)));
}

#[test]
fn the_width_of_addresses_is_a_property() {
    for (bits, bad) in [(48, 1u64 << 47), (57, 1 << 56)] {
        let world = World::running_with(Config {
            address_bits: bits,
            ..Config::default()
        });
        let below = bad - 0x1000;
        world.map(1, below, true);
        success(world.perform(fill(below, 8)));
        let before = world.counter(0, index::TRANSLATION_REQUESTS);
        let record = world.perform(fill(below + 0xff8, 0x10));
        assert_eq!(failure(record), (Error::BadAddress, bad, 1));
        assert_eq!(record.bytes_done, 8);
        assert_eq!(world.counter(0, index::TRANSLATION_REQUESTS), before);
    }
}
