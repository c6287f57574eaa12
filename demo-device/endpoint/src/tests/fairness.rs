// SPDX-License-Identifier: MIT OR Apache-2.0
//! No context starves, and no work continues for long after it was cancelled: measured in steps and
//! requests, not in time.

use super::*;
use crate::dma::MAX_CHUNK;
use crate::testing::{Service, World};
use crate::turn::SHARED_BUDGET;
use crate::{Config, Step};
use pcie_ats::AlignedRange;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use svm_abi::counters::index;
use svm_abi::registers::{context, control, pasid, status};

/// Address of a large ring, and of large data.
const LARGE: u64 = 0x4000_0000;

fn state(world: &World, n: u16) -> u8 {
    status::state(world.get(n, context::STATUS))
}

/// Starts a context with a ring of 2^15 descriptors, all zero: nops without a record.
fn start_large(world: &World, n: u16, number: u32) {
    let range = AlignedRange::containing(LARGE, 21).unwrap();
    world.map_to(number, range, world.frames(21), true, true);
    world.set(n, context::PASID, u64::from(number) | pasid::VALID);
    world.set(n, context::RING, LARGE);
    world.set(n, context::RING_LOG2, 15);
    world.set(n, context::CONTROL, control::START);
}

#[test]
fn a_context_with_a_million_descriptors_starves_nobody() {
    let world = World::running();
    start_large(&world, 1, 2);
    success(world.perform(nop()));
    let mut rounds = 0;
    let mut most = 0;
    loop {
        let head = world.get(1, context::HEAD);
        if head >= 1_000_000 {
            break;
        }
        world.doorbell(1, head + (1 << 15));
        let record = world.submit(nop());
        let mut steps = 0;
        while world.record(1, record).status == status_pending() {
            assert_eq!(world.endpoint.step(&world), Step::Worked);
            steps += 1;
        }
        // Its own turn, and at most one of the other context.
        most = most.max(steps);
        rounds += 1;
        // The large one continues to work meanwhile.
        for _ in 0..10 {
            world.endpoint.step(&world);
        }
    }
    assert!(most <= 2, "{most} steps in {rounds} rounds");
    assert!(rounds > 10, "{rounds}");
}

fn status_pending() -> u8 {
    svm_abi::completion::status::PENDING
}

#[test]
fn a_turn_ends_when_its_bytes_are_moved_however_many_descriptors_follow() {
    let world = World::running();
    let range = AlignedRange::containing(LARGE, 21).unwrap();
    world.map_to(1, range, world.frames(21), true, true);
    for _ in 0..12 {
        world.submit(fill(LARGE, MAX_CHUNK as u64 / 2));
    }
    let written = || world.counter(0, index::BYTES_WRITTEN);
    let mut turns = 0;
    while world.get(0, context::HEAD) < 12 {
        let before = written();
        assert_eq!(world.endpoint.step(&world), Step::Worked);
        // The last descriptor's record is written in the same turn.
        let most = MAX_CHUNK as u64 + MAX_CHUNK as u64 / 2 + 3 * 32;
        assert!(written() - before <= most, "{}", written() - before);
        turns += 1;
    }
    assert!((4..=12).contains(&turns), "{turns}");
}

#[test]
fn beside_others_a_turn_is_short() {
    let world = World::running();
    world.map(1, HERE, true);
    let range = AlignedRange::containing(LARGE, 21).unwrap();
    world.map_to(2, range, world.frames(21), true, true);
    world.start(1, 2);
    success(world.perform(fill(HERE, 8)));
    for _ in 0..4 {
        world.submit_to(1, 2, fill(LARGE, 1 << 21));
    }
    let written = || world.counter(1, index::BYTES_WRITTEN);
    // Alone, a context has the full amount of an action. The first step reads the ring.
    while written() == 0 {
        assert_eq!(world.endpoint.step(&world), Step::Worked);
    }
    assert_eq!(written(), MAX_CHUNK as u64);
    let mut shares = Vec::new();
    for _ in 0..8 {
        let before = written();
        let record = world.submit(fill(HERE, 8));
        while world.record(1, record).status == status_pending() {
            assert_eq!(world.endpoint.step(&world), Step::Worked);
        }
        shares.push(written() - before);
    }
    // The other one has its turn first, except perhaps the first time.
    assert_eq!(shares[1..], [SHARED_BUDGET; 7]);
}

#[test]
fn a_brief_step_does_a_small_operation_whole_and_a_share_of_a_large_one() {
    let world = World::running();
    world.map(1, HERE, true);
    let range = AlignedRange::containing(LARGE, 21).unwrap();
    world.map_to(1, range, world.frames(21), true, true);
    success(world.perform(fill(HERE, 8)));
    success(world.perform(fill(LARGE, 8)));
    let record = world.submit(fill(HERE, 8));
    assert_eq!(world.endpoint.step_briefly(&world), Step::Worked);
    assert_ne!(world.record(1, record).status, status_pending());
    assert!(!world.endpoint.has_work());
    let written = || world.counter(0, index::BYTES_WRITTEN);
    let before = written();
    world.submit(fill(LARGE, 1 << 21));
    assert_eq!(world.endpoint.step_briefly(&world), Step::Worked);
    assert_eq!(written() - before, SHARED_BUDGET);
    assert!(world.endpoint.has_work());
    assert_eq!(world.endpoint.step(&world), Step::Worked);
    assert_eq!(written() - before, SHARED_BUDGET + MAX_CHUNK as u64);
}

#[test]
fn of_many_contexts_with_much_to_do_each_has_its_share() {
    let world = World::running();
    for n in 1..9 {
        start_large(&world, n, u32::from(n) + 1);
        world.doorbell(n, 1 << 15);
    }
    let heads = || {
        (1..9)
            .map(|n| world.get(n, context::HEAD))
            .collect::<Vec<_>>()
    };
    for round in 1..=20u64 {
        for _ in 0..8 {
            assert_eq!(world.endpoint.step(&world), Step::Worked);
        }
        let heads = heads();
        let least = *heads.iter().min().unwrap();
        assert_eq!(heads, [least; 8], "round {round}");
        assert!(least > 0);
    }
}

/// Work that would continue for a long time.
fn endless(world: &World) -> Vec<Descriptor> {
    let range = AlignedRange::containing(1 << 40, 33).unwrap();
    world.map_to(1, range, 1 << 40, true, true);
    world.map(1, HERE, true);
    // A node that links to itself, and entries that never end.
    world.poke(1, HERE, &HERE.to_le_bytes());
    let list = HERE + 0x100;
    for entry in 0..16 {
        let words = [1u64 << 40, 1 << 28].map(u64::to_le_bytes).concat();
        world.poke(1, list + 16 * entry, &words);
    }
    let operation = |operation: Operation| Descriptor {
        operation: operation as u8,
        operand0: 0,
        ..fill(0, 1 << 32)
    };
    let (source, destination) = (1 << 40, 1 << 40);
    vec![
        Descriptor {
            destination,
            ..operation(Operation::Fill)
        },
        Descriptor {
            source,
            destination: destination + 1,
            ..operation(Operation::Copy)
        },
        Descriptor {
            source,
            destination,
            ..operation(Operation::Compare)
        },
        Descriptor {
            source,
            ..operation(Operation::Crc32c)
        },
        Descriptor {
            source,
            ..operation(Operation::Prefetch)
        },
        Descriptor {
            source: HERE,
            operand1: 8,
            ..operation(Operation::Chase)
        },
        Descriptor {
            source: list,
            destination: (1 << 40) + (1 << 32),
            length: 16,
            operand0: 1 << 32,
            ..operation(Operation::Gather)
        },
    ]
}

#[test]
fn whatever_a_context_does_it_stops_at_once_between_steps() {
    let world = World::running();
    for descriptor in endless(&world) {
        for steps in 1..5 {
            let record = world.submit(descriptor);
            for _ in 0..steps {
                assert_eq!(world.endpoint.step(&world), Step::Worked);
            }
            assert_eq!(world.record(1, record).status, status_pending());
            world.set(0, context::CONTROL, control::STOP);
            assert_eq!(state(&world, 0), status::DISABLED, "{descriptor:?}");
            assert_eq!(world.endpoint.step(&world), Step::Idle);
            world.start(0, 1);
        }
    }
}

#[test]
fn a_stop_from_inside_an_access_is_followed_by_what_one_action_has_left() {
    // The most requests that an action sends: both halves of a copied chunk, or of a record.
    let world = World::running();
    for descriptor in endless(&world) {
        if descriptor.operation == Operation::Prefetch as u8 {
            // It accesses nothing.
            continue;
        }
        let after = Arc::new(AtomicU64::new(0));
        let before = after.clone();
        world.submit(descriptor);
        // The first read is that of the ring.
        *world.on_read.lock().unwrap() = Some(Box::new(move |world| {
            let before = before.clone();
            let stop: crate::testing::Hook = Box::new(move |world| {
                world.set(0, context::CONTROL, control::STOP);
                let mut inner = world.inner.lock().unwrap();
                inner.log = Some(Vec::new());
                before.store(1, Ordering::Relaxed);
            });
            let slot = match descriptor.operation {
                operation if operation == Operation::Fill as u8 => &world.on_write,
                _ => &world.on_read,
            };
            *slot.lock().unwrap() = Some(stop);
        }));
        world.run();
        assert_eq!(after.load(Ordering::Relaxed), 1, "{descriptor:?}");
        let log = world.inner.lock().unwrap().log.take().unwrap();
        assert!(log.len() <= 2, "{descriptor:?}: {log:x?}");
        let bytes: usize = log.iter().map(|(_, length, _)| *length).sum();
        assert!(bytes <= 2 * MAX_CHUNK, "{descriptor:?}: {bytes}");
        assert_eq!(state(&world, 0), status::DISABLED, "{descriptor:?}");
        world.start(0, 1);
    }
}

#[test]
fn a_context_that_waits_for_an_answer_that_never_comes_stops_after_the_time_out() {
    let world = World::running_with(Config {
        page_response_timeout: 10,
        ..Config::default()
    });
    *world.service.lock().unwrap() = Service::Later;
    world.map_absent(1, HERE, true);
    world.submit(fill(HERE, 8));
    world.run();
    world.set(0, context::CONTROL, control::STOP);
    world.endpoint.tick(0);
    assert_eq!(state(&world, 0), status::STOPPING);
    world.endpoint.tick(9);
    assert_eq!(state(&world, 0), status::STOPPING);
    world.endpoint.tick(10);
    assert_eq!(state(&world, 0), status::DISABLED);
    assert_eq!(world.endpoint.step(&world), Step::Idle);
}
