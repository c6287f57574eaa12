// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translation requests, the cached parts of their completions, and the accesses made with them.

use super::*;
use crate::Config;
use crate::testing::{RECORDS, World};
use pcie_ats::{AlignedRange, Function, TranslationError};
use svm_abi::completion::access;
use svm_abi::counters::index;
use svm_abi::registers::{context, control};

fn requests(world: &World) -> Vec<(u64, u16, bool)> {
    let mut inner = world.inner.lock().unwrap();
    let requests = std::mem::take(&mut inner.translations);
    requests
        .iter()
        .map(|r| (r.address, r.pages, r.no_write))
        .collect()
}

#[test]
fn a_second_access_needs_no_request() {
    let world = World::running();
    world.map(1, HERE, true);
    success(world.perform(fill(HERE, 64)));
    requests(&world);
    let hits = world.counter(0, index::ATC_HITS);
    success(world.perform(fill(HERE + 64, 64)));
    assert_eq!(requests(&world), []);
    // The ring, the data, the record.
    assert_eq!(world.counter(0, index::ATC_HITS), hits + 3);
}

#[test]
fn rule_14_one_request_asks_for_several_pages() {
    let world = World::running();
    for page in 0..20 {
        world.map(1, HERE + (page << 12), true);
    }
    success(world.perform(nop()));
    requests(&world);
    success(world.perform(fill(HERE + 8, 0x13_000)));
    assert_eq!(
        requests(&world),
        [(HERE, 16, false), (HERE + 0x10_000, 4, false)]
    );
}

#[test]
pub(super) fn rule_18_reads_ask_for_no_write_permission_and_do_not_write_with_the_answer() {
    let world = World::running();
    world.map(1, HERE, true);
    success(world.perform(nop()));
    requests(&world);
    success(world.perform(crc(HERE, 64)));
    assert_eq!(requests(&world), [(HERE, 1, true)]);
    success(world.perform(fill(HERE, 64)));
    assert_eq!(requests(&world), [(HERE, 1, false)]);
    success(world.perform(crc(HERE, 64)));
    assert_eq!(requests(&world), []);
}

#[test]
fn rule_18_a_write_permission_that_was_gained_is_found() {
    let world = World::running();
    world.map(1, HERE, false);
    success(world.perform(crc(HERE, 64)));
    assert_eq!(
        failure(world.perform(fill(HERE, 64))),
        (Error::PageFault, HERE, 1)
    );
    // Adding a permission needs no invalidation.
    world.change(1, HERE, |m| m.write = true);
    success(world.perform(fill(HERE, 64)));
}

/// A second stage with W and without R: permission to write is no permission to read.
#[test]
fn rule_17_a_page_that_may_only_be_written_is_never_read() {
    let world = World::running();
    world.judge();
    let frame = world.map(1, HERE, true);
    world.map(1, THERE, true);
    world.change(1, HERE, |m| m.write_only = true);
    success(world.perform(fill(HERE, 8)));
    assert_eq!(world.peek_frame(frame, 8), [0x5a; 8]);
    let read_only = |fetch: Descriptor| (fetch, 0);
    let both = |atomic: Descriptor| (atomic, access::WRITE);
    let add = Descriptor {
        operation: Operation::FetchAdd as u8,
        length: 0,
        ..fill(HERE, 0)
    };
    for (reads, kind) in [
        read_only(crc(HERE, 8)),
        read_only(copy(HERE, THERE, 8)),
        both(add),
    ] {
        let before = world.inner.lock().unwrap().page_requests.len();
        let blocked = failure(world.perform(reads));
        assert_eq!(blocked, (Error::PageFault, HERE, kind), "{reads:?}");
        let requests = world.inner.lock().unwrap().page_requests[before..].to_vec();
        assert_eq!(requests.len(), 1);
        let writes = kind == access::WRITE;
        assert_eq!((requests[0].read, requests[0].write), (true, writes));
        let alone = failure(world.perform(Descriptor { flags: 0, ..reads }));
        assert_eq!(alone, (Error::NotPresent, HERE, kind), "{reads:?}");
    }
    // A refusal is not cached, and an entry that permits writes remains.
    let before = world.counter(0, index::TRANSLATION_REQUESTS);
    success(world.perform(fill(HERE + 8, 8)));
    assert_eq!(world.counter(0, index::TRANSLATION_REQUESTS), before);
    assert_eq!(world.peek_frame(frame, 16), [0x5a; 16]);
    assert_eq!(world.peek(1, THERE, 8), [0; 8]);
}

#[test]
pub(super) fn rule_17_what_permits_nothing_is_asked_for_each_time() {
    let world = World::running();
    success(world.perform(nop()));
    requests(&world);
    for _ in 0..3 {
        let record = world.perform(Descriptor {
            flags: 0,
            ..crc(HERE, 64)
        });
        assert_eq!(failure(record), (Error::NotPresent, HERE, 0));
    }
    assert_eq!(requests(&world).len(), 3);
    let _ = world.invalidate(1, AlignedRange::page(HERE));
    assert_eq!(world.counter(0, index::INVALIDATED_ENTRIES), 0);
}

#[test]
pub(super) fn rule_13_unsupported_request_and_completer_abort_are_errors_of_the_descriptor() {
    let world = World::running();
    world.map(1, HERE, true);
    success(world.perform(nop()));
    for (error, expected) in [
        (TranslationError::CompleterAbort, Error::CompleterAbort),
        (
            TranslationError::CompletionTimeout,
            Error::CompletionTimeout,
        ),
        (
            TranslationError::UnsupportedRequest,
            Error::UnsupportedRequest,
        ),
    ] {
        world.inner.lock().unwrap().error = Some(error);
        assert_eq!(
            failure(world.perform(fill(HERE + 5, 64))),
            (expected, HERE + 5, 1)
        );
        world.inner.lock().unwrap().error = None;
    }
    // After an Unsupported Request the context sends no requests until ATS or the context is
    // enabled anew.
    requests(&world);
    assert_eq!(
        failure(world.perform(fill(HERE, 64))).0,
        Error::UnsupportedRequest
    );
    assert_eq!(requests(&world), []);
    world.set(0, context::CONTROL, control::STOP);
    world.start(0, 1);
    success(world.perform(fill(HERE, 64)));
}

#[test]
pub(super) fn rule_15_a_large_translation_serves_all_of_its_range_and_no_more() {
    let world = World::running();
    let big = AlignedRange::containing(0x4000_0000, 21).unwrap();
    world.map_to(1, big, world.frames(21), true, true);
    success(world.perform(nop()));
    requests(&world);
    success(world.perform(fill(0x4000_1000, 64)));
    assert_eq!(requests(&world).len(), 1);
    success(world.perform(fill(0x4000_0000, 0x20_0000)));
    assert_eq!(requests(&world), []);
    let record = world.perform(fill(0x401f_ffff, 2));
    assert_eq!(failure(record), (Error::PageFault, 0x4020_0000, 1));
    assert_eq!(record.bytes_done, 1);
}

#[test]
fn rule_22_an_untranslated_only_range_is_reached_untranslated() {
    let world = World::running();
    world.map(1, HERE, true);
    world.change(1, HERE, |m| m.untranslated_only = true);
    success(world.perform(fill(HERE + 3, 5)));
    assert_eq!(
        world.peek(1, HERE, 9),
        [0, 0, 0, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0]
    );
}

#[test]
fn rule_24_an_address_of_a_process_is_no_bus_address() {
    // For an x86 machine, a write without PASID to 0xfeexxxxx is an interrupt message. With a PASID
    // the address is an ordinary one (VT-d 3.14 of revision 3.4, 3.15 of later ones). The
    // translation agent decides how the machine treats it, not the function.
    let world = World::running();
    world.map(1, 0xfedf_f000, true);
    world.map(1, 0xfee0_0000, true);
    success(world.perform(nop()));
    requests(&world);
    success(world.perform(fill(0xfedf_f800, 0x1000)));
    let asked = requests(&world);
    assert!(asked.iter().any(|(address, ..)| *address == 0xfedf_f000));
    assert_eq!(world.peek(1, 0xfee0_0000, 0x800), [0x5a; 0x800]);
    // An agent that refuses it reports this.
    world.unmap(1, 0xfee0_0000);
    let _ = world.invalidate(1, pcie_ats::AlignedRange::page(0xfee0_0000));
    world.inner.lock().unwrap().error = Some(TranslationError::CompleterAbort);
    let record = world.perform(fill(0xfee0_0010, 8));
    let expected = (Error::CompleterAbort, 0xfee0_0010, 1);
    assert_eq!(failure(record), expected);
}

#[test]
fn two_processes_have_the_same_address_and_different_memory() {
    let world = World::running();
    world.start(1, 2);
    let frames = [world.map(1, HERE, true), world.map(2, HERE, true)];
    world.submit_to(0, 1, fill(HERE, 8));
    world.submit_to(
        1,
        2,
        Descriptor {
            operand0: 0,
            ..fill(HERE + 8, 8)
        },
    );
    world.submit_to(
        1,
        2,
        Descriptor {
            operand0: !0,
            ..fill(HERE, 4)
        },
    );
    world.run();
    assert_eq!(world.peek_frame(frames[0], 8), [0x5a; 8]);
    assert_eq!(
        world.peek_frame(frames[1], 8),
        [255, 255, 255, 255, 0, 0, 0, 0]
    );
}

#[test]
fn the_smallest_cache_does_all_that_the_largest_does() {
    let world = World::running_with(Config {
        atc_entries: 4,
        ..Config::default()
    });
    for page in 0..32 {
        world.map(1, HERE + (page << 12), true);
        world.map(1, THERE + (page << 12), true);
    }
    world.poke(1, HERE, &[7; 0x1_f000]);
    success(world.perform(copy(HERE + 1, THERE + 2, 0x1_e000)));
    assert!(
        world
            .peek(1, THERE + 2, 0x1_e000)
            .iter()
            .all(|byte| *byte == 7)
    );
    assert!(world.counter(0, index::ATC_EVICTIONS) > 0);
}

#[test]
fn memory_that_refuses_fails_the_descriptor() {
    let world = World::running();
    let frame = world.map(1, HERE + 0x1000, true);
    world.map(1, HERE, true);
    world.inner.lock().unwrap().refuse_memory = Some(frame);
    let record = world.perform(fill(HERE, 0x2000));
    assert_eq!(failure(record), (Error::MemoryAccess, HERE + 0x1000, 1));
    assert_eq!(record.bytes_done, 0x1000);
}

#[test]
fn the_status_of_a_record_is_written_last_and_in_one_access() {
    let world = World::running();
    success(world.perform(nop()));
    let record = world.mapping(1, RECORDS).unwrap().output;
    let writes = world.inner.lock().unwrap().writes.clone();
    assert_eq!(writes, [(record + 8, 24), (record, 8)]);
}

#[test]
fn counters_add_up() {
    let world = World::running();
    world.map(1, HERE, true);
    success(world.perform(fill(HERE, 100)));
    assert_eq!(world.counter(0, index::DESCRIPTORS), 1);
    assert_eq!(world.counter(0, index::FAILED_DESCRIPTORS), 0);
    assert_eq!(world.counter(0, index::TRANSLATION_REQUESTS), 3);
    assert_eq!(world.counter(0, index::ATC_MISSES), 3);
    assert_eq!(world.counter(0, index::ATC_HITS), 0);
    assert_eq!(world.counter(0, index::BYTES_READ), 64);
    assert_eq!(world.counter(0, index::BYTES_WRITTEN), 132);
    failure(world.perform(Descriptor {
        operation: 99,
        ..nop()
    }));
    assert_eq!(world.counter(0, index::DESCRIPTORS), 2);
    assert_eq!(world.counter(0, index::FAILED_DESCRIPTORS), 1);
    // The doorbell page shows the same counters, and so does the device.
    for n in 0..svm_abi::counters::COUNT as u64 {
        let of_context = world.counter(0, n as usize);
        assert_eq!(world.endpoint.bar_read(2, 0x80 + 8 * n, 8), of_context);
        assert_eq!(world.endpoint.bar_read(0, 0x100 + 8 * n, 8), of_context);
    }
}
