// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contexts whose requests have no PASID: they use the address space of the function itself.

use super::*;
use crate::config_space;
use crate::testing::{FUNCTION, World};
use pcie_ats::{AlignedRange, Function, Invalidation};
use svm_abi::counters::index;
use svm_abi::registers::{context, control, halt, status};

/// A world with context 0 in the address space of the function.
fn world() -> World {
    let world = World::new(crate::config::Config::default());
    world.enable(64);
    world.start(0, FUNCTION);
    world
}

fn perform(world: &World, descriptor: Descriptor) -> Completion {
    let record = world.submit_to(0, FUNCTION, descriptor);
    world.run();
    world.record(FUNCTION, record)
}

fn state(world: &World) -> u8 {
    status::state(world.get(0, context::STATUS))
}

#[test]
fn work_is_done_with_translations_of_requests_without_pasid() {
    let world = world();
    world.judge();
    let frame = world.map(FUNCTION, HERE, true);
    // The same address in a process is another page.
    let other = world.map(1, HERE, true);
    success(perform(&world, fill(HERE, 64)));
    success(perform(&world, crc(HERE, 64)));
    assert_eq!(world.peek_frame(frame, 64), [0x5a; 64]);
    assert_eq!(world.peek_frame(other, 64), [0; 64]);
    assert!(world.counter(0, index::ATC_HITS) > 0);
    assert!(world.endpoint.pasids().is_empty());
}

#[test]
fn an_invalidation_is_for_requests_with_the_pasid_or_for_those_without() {
    let world = world();
    world.start(1, 1);
    let old = world.map(FUNCTION, HERE, true);
    world.map(1, HERE, true);
    success(perform(&world, fill(HERE, 8)));
    let fresh = world.frame();
    world.change(FUNCTION, HERE, |m| m.output = fresh);
    // The invalidation for a process changes nothing here.
    let done = world.invalidate(1, AlignedRange::page(HERE));
    assert_eq!(done, Invalidation::Completed);
    success(perform(&world, fill(HERE + 8, 8)));
    assert_eq!(world.peek_frame(old + 8, 8), [0x5a; 8]);
    let done = world.invalidate(FUNCTION, AlignedRange::page(HERE));
    assert_eq!(done, Invalidation::Completed);
    success(perform(&world, fill(HERE + 16, 8)));
    assert_eq!(world.peek_frame(old + 16, 8), [0; 8]);
    assert_eq!(world.peek_frame(fresh + 16, 8), [0x5a; 8]);
    assert_eq!(world.counter(0, index::INVALIDATED_ENTRIES), 1);
    assert_eq!(world.counter(1, index::INVALIDATIONS), 1);
}

#[test]
fn a_page_that_is_not_present_is_not_requested() {
    let world = world();
    world.map_absent(FUNCTION, HERE, true);
    let (error, address, _) = failure(perform(&world, fill(HERE + 0x10, 8)));
    assert_eq!((error, address), (Error::NotPresent, HERE + 0x10));
    assert_eq!(world.counter(0, index::PAGE_REQUESTS), 0);
}

#[test]
fn it_needs_ats_and_not_pasid() {
    let world = world();
    world.map(FUNCTION, HERE, true);
    let e = &world.endpoint;
    let ats = |on: u32| e.config_write(config_space::ATS + 4, on << 31, 0xffff_0000);
    ats(0);
    assert_eq!(state(&world), status::HALTED);
    // PASID Enable changes only while ATS is off.
    e.config_write(config_space::PASID + 4, 0, 7 << 16);
    world.set(0, context::CONTROL, control::STOP);
    world.run();
    world.start(0, FUNCTION);
    assert_eq!(state(&world), status::HALTED);
    world.set(0, context::CONTROL, control::STOP);
    world.run();
    ats(1);
    world.start(0, FUNCTION);
    success(perform(&world, fill(HERE, 8)));
    // A context with a PASID does not start meanwhile.
    world.start(1, 1);
    let other = world.get(1, context::STATUS);
    assert_eq!(status::state(other), status::HALTED);
    assert_eq!(status::error(other), halt::FUNCTION_DISABLED);
}

#[test]
fn what_it_had_cached_goes_with_it() {
    let world = world();
    world.map(FUNCTION, HERE, true);
    success(perform(&world, fill(HERE, 8)));
    world.set(0, context::CONTROL, control::STOP);
    world.run();
    assert_eq!(state(&world), status::DISABLED);
    world.start(0, FUNCTION);
    success(perform(&world, fill(HERE, 8)));
    assert!(world.counter(0, index::TRANSLATION_REQUESTS) > 0);
}
