// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prefetches of absent pages, alongside work that needs these pages: neither disturbs the other.

use super::*;
use crate::testing::{RECORDS, RING, World};
use crate::{Config, Step, config_space};
use pcie_ats::{Function, PAGE_SIZE};
use svm_abi::counters::{COUNTERS, index};
use svm_abi::descriptor::operand;
use svm_abi::registers::{DEVICE_COUNTERS, context, control, pasid, status as states};

/// Number of pages in 1 MiB, and in a stretch with one hole.
const PAGES: u64 = 256;
const STRETCH: u64 = 16;
/// The absent page of each stretch.
const HOLE: u64 = 7;
/// A read-only page.
const READ_ONLY: u64 = 5 * STRETCH + 3;
/// Descriptors of the other context.
const BESIDE: u64 = 8;

fn address(page: u64) -> u64 {
    HERE + page * PAGE_SIZE
}

fn prefetch(page: u64, pages: u64) -> Descriptor {
    Descriptor {
        operation: Operation::Prefetch as u8,
        source: address(page),
        length: pages * PAGE_SIZE,
        operand0: operand::WRITE,
        ..Descriptor::default()
    }
}

fn forget(page: u64, pages: u64) -> Descriptor {
    Descriptor {
        operation: Operation::CacheControl as u8,
        source: address(page),
        length: pages * PAGE_SIZE,
        ..Descriptor::default()
    }
}

/// Starts context 1 for the process of context 0, with its ring and records behind those of context
/// 0.
fn start_beside(world: &World) {
    world.set(1, context::PASID, 1 | pasid::VALID);
    world.set(1, context::RING, RING + 0x800);
    world.set(1, context::RING_LOG2, 5);
    world.set(1, context::CONTROL, control::START);
}

/// Writes a descriptor to the ring of context 1, and returns the address of its record.
fn submit_beside(world: &World, descriptor: Descriptor) -> u64 {
    let tail = world.get(1, context::TAIL);
    let completion = RECORDS + 0x800 + 32 * tail;
    world.poke(1, completion, &[0; 32]);
    let descriptor = Descriptor {
        completion,
        ..descriptor
    };
    world.poke(1, RING + 0x800 + 64 * tail, &descriptor.to_bytes());
    world.doorbell(1, tail + 1);
    completion
}

/// Prefetches a mebibyte with a hole in each stretch and a read-only page, as a whole and stretch
/// by stretch, with one credit for page requests. After `delay` steps, the other context copies
/// within it and drops its cached translations.
fn prefetch_beside_a_copy(delay: u64) {
    let world = World::running_with(Config {
        pri_capacity: 1,
        ..Config::default()
    });
    start_beside(&world);
    world.judge();
    for page in 0..PAGES {
        match page {
            _ if page % STRETCH == HOLE => world.map_absent(1, address(page), true),
            _ => drop(world.map(1, address(page), page != READ_ONLY)),
        }
    }
    let data = [0x77; 2 * PAGE_SIZE as usize];
    let mut expected = Vec::new();
    let whole = world.submit(prefetch(0, PAGES));
    let parts: Vec<_> = (0..PAGES / STRETCH)
        .map(|n| world.submit(prefetch(n * STRETCH, STRETCH)))
        .collect();
    // From behind a hole up to the next one.
    let rest = world.submit(prefetch(HOLE + 1, STRETCH - 1));
    for _ in 0..delay {
        world.endpoint.step(&world);
    }
    let mut beside = Vec::new();
    for n in 0..BESIDE / 2 {
        // Across a hole, which the copy needs.
        let (from, to) = (n * 2 * STRETCH + HOLE - 1, n * 2 * STRETCH + STRETCH + HOLE);
        world.poke(1, address(from), &data);
        beside.push(submit_beside(
            &world,
            copy(address(from), address(to), 0x2000),
        ));
        beside.push(submit_beside(&world, forget(0, PAGES)));
        expected.push(to);
    }
    while world.endpoint.step(&world) == Step::Worked {}

    for record in beside {
        success(world.record(1, record));
    }
    for page in expected {
        assert_eq!(world.peek(1, address(page), data.len()), data);
    }
    // A prefetch ends at an absent page. The copy may have filled a hole by then.
    let ended = |record, first: u64, count: u64| {
        let record = world.record(1, record);
        if record.status == status::SUCCESS {
            let there = |page: u64| world.mapping(1, address(page)).unwrap();
            assert!((first..first + count).all(|page| there(page).present && there(page).write));
            assert_eq!(record.bytes_done, count * PAGE_SIZE);
            return 0;
        }
        let (error, fault, access) = failure(record);
        assert_eq!((error, access), (Error::NotPresent, 1));
        let page = (fault - HERE) / PAGE_SIZE;
        assert!(page % STRETCH == HOLE || page == READ_ONLY, "{page}");
        assert_eq!(record.bytes_done, (page - first) * PAGE_SIZE);
        1
    };
    let mut failed = ended(whole, 0, PAGES);
    for (n, record) in parts.iter().enumerate() {
        failed += ended(*record, n as u64 * STRETCH, STRETCH);
    }
    assert_eq!(ended(rest, HOLE + 1, STRETCH - 1), 0);
    // The whole, the stretch with the read-only page, and those that are not copied.
    assert!(failed >= 2 + PAGES / STRETCH - BESIDE, "{failed}");

    let descriptors = [parts.len() as u64 + 2, BESIDE];
    for (n, count) in (0..).zip(descriptors) {
        assert_eq!(world.counter(n, index::DESCRIPTORS), count);
    }
    assert_eq!(world.counter(0, index::FAILED_DESCRIPTORS), failed);
    assert_eq!(world.counter(1, index::FAILED_DESCRIPTORS), 0);
    // Only the copies have requested pages, and each page only once.
    let inner = world.inner.lock().unwrap();
    let (asked, requested) = (inner.translations.len(), inner.page_requests.len());
    assert!(inner.page_requests.iter().all(|request| request.last));
    drop(inner);
    assert_eq!(world.counter(0, index::PAGE_REQUESTS), 0);
    assert_eq!(world.counter(1, index::PAGE_REQUESTS), requested as u64);
    assert_eq!(world.counter(1, index::PRG_RESPONSES), requested as u64);
    assert_eq!(requested as u64, BESIDE);
    let device = |which: usize| {
        let register = DEVICE_COUNTERS + 8 * which as u64;
        world.endpoint.bar_read(0, register, 8)
    };
    assert_eq!(device(index::TRANSLATION_REQUESTS), asked as u64);
    for counter in COUNTERS {
        let sum = world.counter(0, counter.index) + world.counter(1, counter.index);
        assert_eq!(device(counter.index), sum, "{}", counter.key);
    }

    for n in 0..2 {
        world.set(n, context::CONTROL, control::STOP);
        let disabled = u64::from(states::DISABLED);
        assert_eq!(world.get(n, context::STATUS), disabled);
    }
    // Stopped is set when no page request is outstanding (PCIe 10.5.2.3).
    let e = &world.endpoint;
    e.config_write(config_space::PRI + 4, 0, 0xffff);
    assert_eq!(e.config_read(config_space::PRI + 4) >> 24 & 1, 1);
    assert!(world.inner.lock().unwrap().queue.is_empty());
}

#[test]
fn a_prefetch_with_holes_leaves_its_neighbour_and_nothing_behind() {
    for delay in 0..60 {
        prefetch_beside_a_copy(delay);
    }
}
