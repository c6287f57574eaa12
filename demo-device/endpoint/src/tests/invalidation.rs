// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invalidations: the entries that they remove, the accesses that they wait for, and the answers
//! that they overtake.

use super::*;
use crate::config_space;
use crate::testing::World;
use pcie_ats::{
    AlignedRange, Function, InvalidateCompletion, InvalidateRequest, Invalidation, Itag,
};
use std::sync::{Arc, Mutex};
use svm_abi::counters::index;

fn page(address: u64) -> AlignedRange {
    AlignedRange::page(address)
}

/// Moves a page to another frame, as a kernel does: first the tables, then the invalidation.
fn remap(world: &World, address: u64) -> u64 {
    let fresh = world.frame();
    world.change(1, address, |m| m.output = fresh);
    fresh
}

#[test]
pub(super) fn rule_47_after_an_invalidation_nothing_reaches_the_old_page() {
    let world = World::running();
    let old = world.map(1, HERE, true);
    success(world.perform(fill(HERE, 8)));
    let fresh = remap(&world, HERE);
    assert_eq!(world.invalidate(1, page(HERE)), Invalidation::Completed);
    success(world.perform(fill(HERE + 8, 8)));
    assert_eq!(world.peek_frame(old, 16)[8..], [0; 8]);
    assert_eq!(world.peek_frame(fresh, 16)[8..], [0x5a; 8]);
    assert_eq!(world.counter(0, index::INVALIDATIONS), 1);
    assert_eq!(world.counter(0, index::INVALIDATED_ENTRIES), 1);
}

#[test]
pub(super) fn rule_37_a_4k_invalidation_drops_the_2m_entry() {
    let world = World::running();
    let big = AlignedRange::containing(0x4000_0000, 21).unwrap();
    world.map_to(1, big, world.frames(21), true, true);
    success(world.perform(fill(0x4000_0000, 8)));
    let fresh = world.frames(21);
    world.change(1, 0x4000_0000, |m| m.output = fresh);
    let _ = world.invalidate(1, page(0x401f_f000));
    success(world.perform(fill(0x4000_0010, 8)));
    assert_eq!(world.peek_frame(fresh + 0x10, 8), [0x5a; 8]);
}

#[test]
pub(super) fn rule_36_an_invalidation_is_for_its_pasid_only() {
    let world = World::running();
    world.start(1, 2);
    for pasid in [1, 2] {
        world.map(pasid, HERE, true);
        world.submit_to(pasid as u16 - 1, pasid, fill(HERE, 8));
    }
    world.run();
    let _ = world.invalidate(1, AlignedRange::ALL);
    world.inner.lock().unwrap().translations.clear();
    world.submit_to(1, 2, fill(HERE, 8));
    world.run();
    assert!(world.inner.lock().unwrap().translations.is_empty());

    let everywhere = InvalidateRequest {
        itag: Itag::new(0).unwrap(),
        pasid: None,
        range: page(HERE),
        global: true,
    };
    assert_eq!(
        world.endpoint.invalidate(&everywhere),
        Invalidation::Completed
    );
    world.submit_to(1, 2, fill(HERE, 8));
    world.run();
    assert_eq!(world.inner.lock().unwrap().translations.len(), 1);
    assert_eq!(world.counter(1, index::INVALIDATED_ENTRIES), 1);
}

#[test]
pub(super) fn rule_39_an_answer_that_was_overtaken_is_asked_for_again() {
    let world = World::running();
    let old = world.map(1, HERE, true);
    success(world.perform(nop()));
    world.inner.lock().unwrap().translations.clear();
    *world.on_translate.lock().unwrap() = Some(Box::new(|world| {
        remap(world, HERE);
        assert_eq!(world.invalidate(1, page(HERE)), Invalidation::Completed);
    }));
    success(world.perform(fill(HERE, 8)));
    assert_eq!(world.peek_frame(old, 8), [0; 8]);
    assert_eq!(world.peek(1, HERE, 8), [0x5a; 8]);
    assert_eq!(world.inner.lock().unwrap().translations.len(), 2);
}

#[test]
fn rule_39_the_pages_ahead_are_overtaken_as_well() {
    let world = World::running();
    world.map(1, HERE, true);
    let old = world.map(1, HERE + 0x1000, true);
    *world.on_translate.lock().unwrap() = None;
    success(world.perform(nop()));
    *world.on_translate.lock().unwrap() = Some(Box::new(|world| {
        remap(world, HERE + 0x1000);
        assert_eq!(
            world.invalidate(1, page(HERE + 0x1000)),
            Invalidation::Completed
        );
    }));
    success(world.perform(fill(HERE, 0x2000)));
    assert_eq!(world.peek_frame(old, 8), [0; 8]);
    assert_eq!(world.peek(1, HERE + 0x1ff8, 8), [0x5a; 8]);
}

#[test]
pub(super) fn rule_38_an_invalidation_waits_for_the_access_that_uses_its_range() {
    let world = World::running();
    world.map(1, HERE, true);
    success(world.perform(fill(HERE, 8)));
    let answers = Arc::new(Mutex::new(Vec::new()));
    let seen = answers.clone();
    *world.on_write.lock().unwrap() = Some(Box::new(move |world| {
        let mut seen = seen.lock().unwrap();
        seen.push(world.invalidate_tagged(1, page(THERE), 3));
        seen.push(world.invalidate_tagged(1, page(HERE), 4));
        seen.push(world.invalidate_tagged(1, AlignedRange::ALL, 5));
        assert!(world.inner.lock().unwrap().completions.is_empty());
    }));
    success(world.perform(fill(HERE, 8)));
    use Invalidation::{Completed, Pending};
    assert_eq!(*answers.lock().unwrap(), [Completed, Pending, Pending]);
    assert_eq!(
        world.inner.lock().unwrap().completions,
        [InvalidateCompletion {
            itag_vector: 1 << 4 | 1 << 5,
            completion_count: 1
        }]
    );
}

#[test]
pub(super) fn rule_38_all_pages_of_a_run_are_held_until_the_last_is_done() {
    const PAGES: u64 = 8;
    let world = World::running();
    // Half of the frames are consecutive.
    for n in 0..PAGES {
        if n >= PAGES / 2 {
            world.frame();
        }
        world.map(1, HERE + (n << 12), true);
    }
    let all = fill(HERE + 0x10, (PAGES << 12) - 0x20);
    success(world.perform(all));
    world.inner.lock().unwrap().log = Some(Vec::new());
    let answers = Arc::new(Mutex::new(Vec::new()));
    let seen = answers.clone();
    *world.on_write.lock().unwrap() = Some(Box::new(move |world| {
        let behind = page(HERE + (PAGES << 12));
        let answer = world.invalidate_tagged(1, behind, PAGES as u8);
        seen.lock().unwrap().push(answer);
        for n in 0..PAGES {
            let answer = world.invalidate_tagged(1, page(HERE + (n << 12)), n as u8);
            seen.lock().unwrap().push(answer);
        }
        assert!(world.inner.lock().unwrap().completions.is_empty());
    }));
    success(world.perform(all));
    use Invalidation::{Completed, Pending};
    let answers = answers.lock().unwrap();
    assert_eq!(answers[0], Completed);
    assert_eq!(answers[1..], [Pending; PAGES as usize]);
    assert_eq!(
        world.inner.lock().unwrap().completions,
        [InvalidateCompletion {
            itag_vector: (1 << PAGES) - 1,
            completion_count: 1
        }]
    );
    // One write for the consecutive frames, and one for each other page.
    let log = world.inner.lock().unwrap().log.take().unwrap();
    let writes = log.iter().filter(|(_, length, _)| *length >= 0xff0);
    assert_eq!(writes.count(), 1 + PAGES as usize / 2, "{log:x?}");
    assert_eq!(world.peek(1, HERE + 0x10, 8), [0x5a; 8]);
}

#[test]
pub(super) fn rule_10_and_46_the_cache_is_empty_when_ats_is_enabled() {
    let world = World::running();
    world.map(1, HERE, true);
    success(world.perform(fill(HERE, 8)));
    let e = &world.endpoint;
    e.config_write(config_space::ATS + 4, 0, 0xffff_0000);
    e.config_write(config_space::ATS + 4, 1 << 31, 0xffff_0000);
    let _ = world.invalidate(1, AlignedRange::ALL);
    assert_eq!(world.counter(0, index::INVALIDATED_ENTRIES), 0);
    world.set(
        0,
        svm_abi::registers::context::CONTROL,
        svm_abi::registers::control::STOP,
    );
    world.start(0, 1);
    let fresh = remap(&world, HERE);
    success(world.perform(fill(HERE, 8)));
    assert_eq!(world.peek_frame(fresh, 8), [0x5a; 8]);
}

#[test]
pub(super) fn rule_66_a_stopped_context_leaves_nothing_in_the_cache() {
    let world = World::running();
    world.map(1, HERE, true);
    success(world.perform(fill(HERE, 8)));
    world.start(1, 1);
    world.set(
        0,
        svm_abi::registers::context::CONTROL,
        svm_abi::registers::control::STOP,
    );
    // Another context still works for the process.
    world.inner.lock().unwrap().translations.clear();
    world.submit_to(1, 1, fill(HERE, 8));
    world.run();
    assert!(world.inner.lock().unwrap().translations.is_empty());
    world.set(
        1,
        svm_abi::registers::context::CONTROL,
        svm_abi::registers::control::STOP,
    );
    let removed = world.counter(1, index::INVALIDATED_ENTRIES);
    assert_eq!(removed, 0);
    world.start(1, 1);
    world.submit_to(1, 1, fill(HERE, 8));
    world.run();
    assert_eq!(world.inner.lock().unwrap().translations.len(), 3);
}

#[test]
fn rule_37_an_invalidation_takes_nothing_but_its_range_from_a_full_cache() {
    let world = World::running();
    for page in 0..512 {
        world.map(1, HERE + (page << 12), true);
    }
    success(world.perform(fill(HERE, 512 << 12)));
    let _ = world.invalidate(1, page(HERE + 0x1f_f000));
    assert_eq!(world.counter(0, index::INVALIDATED_ENTRIES), 1);
    let requests = world.inner.lock().unwrap().translations.len();
    success(world.perform(fill(HERE + 0x1f_e000, 0x1000)));
    assert_eq!(world.inner.lock().unwrap().translations.len(), requests);
    success(world.perform(fill(HERE + 0x1f_f000, 0x1000)));
    assert_eq!(world.inner.lock().unwrap().translations.len(), requests + 1);
}
