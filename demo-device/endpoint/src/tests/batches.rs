// SPDX-License-Identifier: MIT OR Apache-2.0
//! Batches: their entries, their ends, and their independence from other work.

use super::*;
use crate::testing::{RECORDS, Service, World};
use crate::{Config, Step};
use pcie_ats::{AlignedRange, Function, Reset, ResponseCode};
use proptest::prelude::*;
use svm_abi::counters::index;
use svm_abi::descriptor::{SIZE, batch};
use svm_abi::registers::{context, control, status as states};

/// Address of the arrays, with room for the longest.
const ARRAY: u64 = 0x100_0000;
/// Address of the records of entries: consecutive, in the order of the array.
const ENTRY_RECORDS: u64 = 0x200_0000;

fn world() -> World {
    let world = World::running();
    for page in 0..16 {
        world.map(1, ARRAY + (page << 12), true);
        world.map(1, ENTRY_RECORDS + (page << 12), true);
    }
    world
}

/// Writes entries to the array, each with a record, and returns their batch.
fn lay_out(world: &World, entries: &[Descriptor]) -> Descriptor {
    for (n, entry) in entries.iter().enumerate() {
        let n = n as u64;
        let completion = match entry.completion {
            0 => ENTRY_RECORDS + 32 * n,
            other => other,
        };
        let entry = Descriptor {
            completion,
            ..*entry
        };
        world.poke(1, ARRAY + SIZE as u64 * n, &entry.to_bytes());
        world.poke(1, ENTRY_RECORDS + 32 * n, &[0; 32]);
    }
    batch_of(entries.len() as u64)
}

fn batch_of(length: u64) -> Descriptor {
    Descriptor {
        operation: Operation::Batch as u8,
        flags: flags::BLOCK_ON_FAULT,
        source: ARRAY,
        length,
        ..Descriptor::default()
    }
}

fn entry_record(world: &World, n: u64) -> Completion {
    world.record(1, ENTRY_RECORDS + 32 * n)
}

fn status_of(world: &World, n: u64) -> u8 {
    entry_record(world, n).status
}

fn context_state(world: &World) -> u8 {
    states::state(world.get(0, context::STATUS))
}

#[test]
fn a_batch_performs_its_entries_in_order_and_then_what_stands_behind_it_in_the_ring() {
    let world = world();
    world.map(1, HERE, true);
    // Each entry reads the data that the previous one wrote.
    let add = |at: u64| Descriptor {
        operation: Operation::FetchAdd as u8,
        destination: at,
        operand0: 1,
        ..nop()
    };
    let entries = [
        add(HERE),
        copy(HERE, HERE + 8, 8),
        add(HERE + 8),
        copy(HERE + 8, HERE + 16, 8),
        add(HERE + 16),
    ];
    let first = world.submit(lay_out(&world, &entries));
    let second = world.submit(copy(HERE + 16, HERE + 24, 8));
    world.run();
    let record = world.record(1, first);
    success(record);
    assert_eq!((record.bytes_done, record.result), (5, 5));
    success(world.record(1, second));
    assert_eq!(world.peek(1, HERE + 24, 1), [3]);
    for n in 0..5 {
        success(entry_record(&world, n));
    }
    assert_eq!(world.get(0, context::HEAD), 2);
    assert_eq!(world.counter(0, index::DESCRIPTORS), 7);
    // The record of the batch comes after those of its entries and before those of later work.
    let frame = |at| world.mapping(1, at).unwrap().output;
    let entry = |n: u64| frame(ENTRY_RECORDS) + 32 * n;
    let ring = |slot: u64| frame(RECORDS) + 32 * slot;
    let order: Vec<_> = (0..5).map(entry).chain([ring(0), ring(1)]).collect();
    let inner = world.inner.lock().unwrap();
    // The last write of a record contains the status.
    let mut written: Vec<_> = inner.writes.iter().map(|(at, _)| *at).collect();
    written.retain(|at| order.contains(at));
    assert_eq!(written, order);
}

#[test]
fn the_longest_batch_is_of_1024_entries_and_an_empty_one_succeeds() {
    let world = world();
    let entries = vec![nop(); batch::MAX_ENTRIES as usize];
    let record = world.perform(lay_out(&world, &entries));
    success(record);
    assert_eq!(record.result, 1024);
    assert!((0..1024).all(|n| status_of(&world, n) == status::SUCCESS));
    // The device read the array a page at a time.
    let fetched = 1024 * SIZE as u64 + SIZE as u64;
    assert_eq!(world.counter(0, index::BYTES_READ), fetched);
    let record = world.perform(batch_of(0));
    success(record);
    assert_eq!((record.bytes_done, record.result), (0, 0));
}

#[test]
fn wrong_batches_fail_with_an_error_of_their_own() {
    let world = world();
    let fails = |change: fn(&mut Descriptor)| {
        let mut descriptor = batch_of(1);
        change(&mut descriptor);
        let record = world.perform(descriptor);
        assert_eq!((record.bytes_done, record.result), (0, 0));
        failure(record).0
    };
    assert_eq!(fails(|d| d.source += 32), Error::Misaligned);
    assert_eq!(fails(|d| d.length = 1025), Error::BadLength);
    assert_eq!(fails(|d| d.length = 1 << 58), Error::BadLength);
    assert_eq!(fails(|d| d.source = !63), Error::BadLength);
    assert_eq!(fails(|d| d.destination = 1), Error::Reserved);
    assert_eq!(fails(|d| d.operand0 = 1), Error::Reserved);
    assert_eq!(fails(|d| d.operand1 = 1), Error::Reserved);
    assert_eq!(fails(|d| d.reserved1 = 1), Error::Reserved);
    assert_eq!(fails(|d| d.flags |= 0x80), Error::Reserved);
    assert_eq!(fails(|d| d.source = 1 << 60), Error::BadAddress);
    assert_eq!(fails(|d| d.source = 0x7000_0000), Error::PageFault);
    success(world.perform(nop()));
}

#[test]
fn an_entry_that_is_wrong_fails_alone_and_the_batch_says_where_the_first_stands() {
    let world = world();
    world.map(1, HERE, true);
    let entries = [
        fill(HERE, 8),
        Descriptor {
            operation: 200,
            ..nop()
        },
        batch_of(1),
        Descriptor {
            reserved1: 1,
            ..nop()
        },
        Descriptor {
            operation: Operation::FetchAdd as u8,
            destination: HERE + 1,
            ..nop()
        },
        fill(THERE, 8),
        fill(HERE + 8, 8),
    ];
    let record = world.perform(lay_out(&world, &entries));
    let first = ARRAY + SIZE as u64;
    assert_eq!(failure(record), (Error::EntryFailed, first, 0));
    assert_eq!((record.bytes_done, record.result), (7, 2));
    let expected = [
        Error::BadOperation,
        Error::NestedBatch,
        Error::Reserved,
        Error::Misaligned,
        Error::PageFault,
    ];
    for (n, error) in expected.into_iter().enumerate() {
        assert_eq!(failure(entry_record(&world, n as u64 + 1)).0, error);
    }
    success(entry_record(&world, 0));
    success(entry_record(&world, 6));
    assert_eq!(world.peek(1, HERE, 16), [0x5a; 16]);
    // The entries and the batch itself.
    assert_eq!(world.counter(0, index::FAILED_DESCRIPTORS), 6);
    success(world.perform(nop()));
}

#[test]
fn a_fence_behind_a_failure_ends_the_batch() {
    let world = world();
    world.map(1, HERE, true);
    let fenced = Descriptor {
        flags: flags::FENCE | flags::BLOCK_ON_FAULT,
        ..fill(HERE, 8)
    };
    // Nothing has failed: the fence stops nothing.
    success(world.perform(lay_out(&world, &[nop(), fenced, nop()])));
    let entries = [nop(), fill(THERE, 8), nop(), fenced, nop()];
    world.poke(1, HERE, &[0; 8]);
    let record = world.perform(lay_out(&world, &entries));
    let first = ARRAY + SIZE as u64;
    assert_eq!(failure(record), (Error::EntryFailed, first, 0));
    assert_eq!((record.bytes_done, record.result), (3, 2));
    assert_eq!(world.peek(1, HERE, 8), [0; 8]);
    for n in 3..5 {
        assert_eq!(status_of(&world, n), status::PENDING);
    }
    // A fence in the ring is not affected.
    success(world.perform(fenced));
}

#[test]
fn drains_flags_and_interrupts_of_entries_are_their_own() {
    let world = world();
    world.map_absent(1, HERE, true);
    let interrupting = Descriptor {
        flags: flags::INTERRUPT,
        ..nop()
    };
    let drain = Descriptor {
        operation: Operation::Drain as u8,
        ..interrupting
    };
    let impatient = Descriptor {
        flags: 0,
        ..fill(HERE, 8)
    };
    let entries = [interrupting, impatient, drain, fill(HERE, 8)];
    let mut descriptor = lay_out(&world, &entries);
    // The page flags of the batch apply to its array.
    descriptor.flags = flags::INTERRUPT | flags::FENCE;
    let record = world.perform(descriptor);
    let second = ARRAY + SIZE as u64;
    assert_eq!(failure(record), (Error::EntryFailed, second, 0));
    assert_eq!(record.result, 3);
    assert_eq!(
        failure(entry_record(&world, 1)),
        (Error::NotPresent, HERE, 1)
    );
    success(entry_record(&world, 3));
    assert_eq!(world.inner.lock().unwrap().interrupts, [1; 3]);
}

#[test]
fn an_array_that_is_not_present_is_requested_if_the_batch_waits_for_it() {
    let world = world();
    // Two pages of entries, the second of which is absent.
    let descriptor = lay_out(&world, &[nop(); 128]);
    let second = ARRAY + 0x1000;
    world.change(1, second, |m| m.present = false);
    let record = world.perform(Descriptor {
        flags: 0,
        ..descriptor
    });
    assert_eq!(failure(record), (Error::NotPresent, second, 0));
    assert_eq!((record.bytes_done, record.result), (64, 64));
    assert_eq!(status_of(&world, 63), status::SUCCESS);
    assert_eq!(status_of(&world, 64), status::PENDING);
    assert!(world.inner.lock().unwrap().page_requests.is_empty());

    let record = world.perform(lay_out(&world, &[nop(); 128]));
    success(record);
    assert_eq!(record.result, 128);
}

#[test]
fn an_array_that_ends_in_the_middle_fails_there_after_what_came_before() {
    let world = world();
    let fences = Descriptor {
        flags: flags::FENCE,
        ..nop()
    };
    let descriptor = lay_out(&world, &[fences; 128]);
    let second = ARRAY + 0x1000;
    world.unmap(1, second);
    let record = world.perform(descriptor);
    assert_eq!(failure(record), (Error::PageFault, second, 0));
    assert_eq!((record.bytes_done, record.result), (64, 64));
    // The same for a refused memory access.
    let frame = world.map(1, second, true);
    world.poke(1, second, &[0; 64 * SIZE]);
    world.inner.lock().unwrap().refuse_memory = Some(frame);
    let record = world.perform(descriptor);
    assert_eq!(failure(record), (Error::MemoryAccess, second, 0));
    world.inner.lock().unwrap().refuse_memory = None;
    success(world.perform(descriptor));
    assert_eq!(context_state(&world), states::ENABLED);
}

#[test]
fn a_page_that_is_taken_away_from_an_entry_is_requested_for_it() {
    let world = world();
    for page in 0..8 {
        world.map_absent(1, HERE + (page << 12), true);
    }
    world.map_absent(1, HERE + 0x8000, false);
    let entries: Vec<_> = (0..9).map(|n| fill(HERE + (n << 12), 0x1000)).collect();
    let record = world.perform(lay_out(&world, &entries));
    let last = ARRAY + 8 * SIZE as u64;
    assert_eq!(failure(record), (Error::EntryFailed, last, 0));
    assert_eq!(record.result, 8);
    assert!(world.peek(1, HERE, 0x8000) == [0x5a; 0x8000]);
    assert_eq!(
        failure(entry_record(&world, 8)),
        (Error::PageFault, HERE + 0x8000, 1)
    );
}

#[test]
fn records_that_cannot_be_written_are_lost_and_the_batch_goes_on() {
    let world = world();
    let lost = [THERE, RECORDS + 8, 1 << 60].map(|completion| Descriptor {
        completion,
        ..nop()
    });
    let record = world.perform(lay_out(&world, &lost));
    success(record);
    assert_eq!(record.result, 3);
    assert_eq!(world.counter(0, index::LOST_COMPLETIONS), 3);
}

#[test]
fn the_longest_batch_starves_nobody() {
    let world = world();
    world.start(1, 2);
    let range = AlignedRange::containing(0x4000_0000, 21).unwrap();
    world.map_to(1, range, world.frames(21), true, true);
    // A gibibyte of work; one turn does 64 KiB of it.
    let entries = vec![fill(0x4000_0000, 1 << 20); batch::MAX_ENTRIES as usize];
    let long = world.submit(lay_out(&world, &entries));
    let mut rounds = 0;
    while rounds < 64 {
        let record = world.submit_to(1, 2, nop());
        let mut steps = 0;
        while world.record(2, record).status == status::PENDING {
            assert_eq!(world.endpoint.step(&world), Step::Worked);
            steps += 1;
        }
        assert!(steps <= 2, "{steps}");
        rounds += 1;
    }
    assert_eq!(world.record(1, long).status, status::PENDING);
    assert!(world.counter(0, index::BYTES_WRITTEN) >= 60 << 16);
    // The same for entries without data: an entry is not a separate action.
    world.set(0, context::CONTROL, control::STOP);
    world.run();
    world.start(0, 1);
    let bare = Descriptor {
        completion: THERE,
        ..nop()
    };
    for n in 0..batch::MAX_ENTRIES {
        world.poke(1, ARRAY + SIZE as u64 * n, &bare.to_bytes());
    }
    let long = world.submit(batch_of(batch::MAX_ENTRIES));
    assert_eq!(world.endpoint.step(&world), Step::Worked);
    assert_eq!(world.record(1, long).status, status::PENDING);
    world.run();
    success(world.record(1, long));
}

#[test]
fn a_context_that_stops_in_the_middle_of_a_batch_abandons_all_of_it() {
    let world = world();
    world.map(1, HERE, true);
    let entries = vec![fill(HERE, 8); 100];
    let address = world.submit(lay_out(&world, &entries));
    // During the write of the second entry's data.
    let count = std::sync::atomic::AtomicU32::new(0);
    fn later(count: std::sync::atomic::AtomicU32) -> crate::testing::Hook {
        Box::new(move |world| {
            let seen = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seen == 3 {
                world.set(0, context::CONTROL, control::STOP);
            } else {
                let next = std::sync::atomic::AtomicU32::new(seen + 1);
                *world.on_write.lock().unwrap() = Some(later(next));
            }
        })
    }
    *world.on_write.lock().unwrap() = Some(later(count));
    world.run();
    assert_eq!(context_state(&world), states::DISABLED);
    assert_eq!(world.record(1, address).status, status::PENDING);
    assert_eq!(status_of(&world, 0), status::SUCCESS);
    assert_eq!(status_of(&world, 1), status::PENDING);
    let writes = world.inner.lock().unwrap().writes.len();
    // Nothing of it remains after the restart.
    world.start(0, 1);
    world.run();
    assert_eq!(world.inner.lock().unwrap().writes.len(), writes);
    success(world.perform(nop()));
    assert_eq!(status_of(&world, 1), status::PENDING);
}

#[test]
fn a_stop_during_the_reading_of_the_array_and_during_its_page_request() {
    let world = world();
    let descriptor = lay_out(&world, &[nop(); 10]);
    world.change(1, ARRAY, |m| m.present = false);
    *world.service.lock().unwrap() = Service::Later;
    let address = world.submit(descriptor);
    world.run();
    assert_eq!(world.inner.lock().unwrap().queue.len(), 1);
    world.set(0, context::CONTROL, control::STOP);
    assert_eq!(context_state(&world), states::STOPPING);
    world.serve(ResponseCode::Success);
    assert_eq!(context_state(&world), states::DISABLED);
    world.run();
    assert_eq!(world.record(1, address).status, status::PENDING);

    world.start(0, 1);
    // The first read is that of the ring, the second that of the array.
    *world.on_read.lock().unwrap() = Some(Box::new(|world| {
        *world.on_read.lock().unwrap() = Some(Box::new(|world| {
            world.set(0, context::CONTROL, control::STOP);
        }));
    }));
    let address = world.submit(descriptor);
    world.run();
    assert_eq!(context_state(&world), states::DISABLED);
    assert_eq!(world.record(1, address).status, status::PENDING);
    assert_eq!(status_of(&world, 0), status::PENDING);
}

#[test]
fn rule_67_a_reset_in_the_middle_of_a_batch_leaves_nothing_of_it() {
    for kind in [Reset::FunctionLevel, Reset::Conventional] {
        let world = world();
        world.map(1, HERE, true);
        let entries = vec![fill(HERE, 8); 100];
        let address = world.submit(lay_out(&world, &entries));
        *world.on_write.lock().unwrap() = Some(Box::new(move |world| {
            world.endpoint.reset(kind);
            world.enable(64);
            world.start(0, 1);
        }));
        world.run();
        assert_eq!(context_state(&world), states::ENABLED);
        assert_eq!(world.get(0, context::HEAD), 0);
        assert_eq!(world.record(1, address).status, status::PENDING);
        assert_eq!(status_of(&world, 0), status::PENDING);
        success(world.perform(nop()));
        assert_eq!(status_of(&world, 0), status::PENDING);
    }
}

/// Descriptors within a few pages. Some are invalid, and some cause faults.
fn entry() -> impl Strategy<Value = Descriptor> {
    let at = (0u64..5, 0u64..4096).prop_map(|(page, offset)| HERE + (page << 12) + offset);
    (
        0u8..16,
        prop_oneof![4 => Just(flags::BLOCK_ON_FAULT), 1 => Just(0), 1 => Just(8)],
        at.clone(),
        at,
        0u64..0x2000,
        any::<u64>(),
    )
        .prop_map(|(operation, flags, source, destination, length, operand)| {
            let base = Descriptor {
                flags,
                ..Descriptor::default()
            };
            match operation {
                0..3 => Descriptor {
                    flags,
                    ..copy(source, destination, length)
                },
                3..6 => Descriptor {
                    operand0: operand,
                    flags,
                    ..fill(destination, length)
                },
                6..8 => Descriptor {
                    flags,
                    ..crc(source, length)
                },
                8..10 => Descriptor {
                    operation: Operation::Compare as u8,
                    flags,
                    ..copy(source, destination, length)
                },
                10..12 => Descriptor {
                    operation: Operation::FetchAdd as u8,
                    destination: destination & !7,
                    operand0: operand,
                    ..base
                },
                12 => Descriptor {
                    operation: Operation::Prefetch as u8,
                    source,
                    length,
                    ..base
                },
                13 => Descriptor {
                    operation: 99,
                    ..base
                },
                _ => base,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn a_batch_does_what_the_ring_does_with_the_same_descriptors(
        entries in prop::collection::vec(entry(), 1..60),
        entries_log2 in 2u32..6,
    ) {
        let new = || {
            let world = World::running_with(Config {
                atc_entries: 1 << entries_log2,
                ..Config::default()
            });
            for page in 0..4 {
                // The fourth is read-only, and nothing is mapped behind it.
                world.map_absent(1, HERE + (page << 12), page != 3);
                world.map(1, ARRAY + (page << 12), true);
                world.map(1, ENTRY_RECORDS + (page << 12), true);
            }
            world
        };
        let one = new();
        let of_batch = one.perform(lay_out(&one, &entries));
        let other = new();
        let mut good = 0;
        for (n, entry) in entries.iter().enumerate() {
            let record = other.perform(*entry);
            good += u64::from(record.status == status::SUCCESS);
            prop_assert_eq!(entry_record(&one, n as u64), record, "entry {}", n);
        }
        prop_assert_eq!((of_batch.bytes_done, of_batch.result), (entries.len() as u64, good));
        let all = good == entries.len() as u64;
        prop_assert_eq!(of_batch.status == status::SUCCESS, all);
        for page in 0..4 {
            let at = HERE + (page << 12);
            prop_assert!(one.peek(1, at, 4096) == other.peek(1, at, 4096), "page {}", page);
        }
    }
}
