// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several threads at once: rules 38, 47 and 48 in the small.

use super::*;
use crate::Step;
use crate::testing::{RING, Service, World, pid};
use pcie_ats::{AlignedRange, Function, Invalidation, ResponseCode};
use std::sync::atomic::{AtomicBool, Ordering};
use svm_abi::counters::index;
use svm_abi::registers::{context, control, status};

const THREADS: u16 = 4;
const PAGES: u64 = 8;

/// Invalidates a page of process 1, and waits for the completion. Returns whether it had to.
fn invalidate(world: &World, address: u64, itag: u8) -> bool {
    let seen = world.inner.lock().unwrap().completions.len();
    let range = AlignedRange::page(address);
    if world.invalidate_tagged(1, range, itag) == Invalidation::Completed {
        return false;
    }
    let complete = || {
        let inner = world.inner.lock().unwrap();
        let after = &inner.completions[seen..];
        after.iter().any(|c| c.itag_vector >> itag & 1 != 0)
    };
    while !complete() {
        std::thread::yield_now();
    }
    true
}

/// Keeps context `n` supplied with work for the pages of process 1, and works for everybody.
fn work(world: &World, n: u16, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        while world.endpoint.step(world) == Step::Worked {}
        let tail = world.get(n, context::TAIL);
        if world.get(n, context::HEAD) == tail {
            // The contexts share the ring: the descriptors are the same for all.
            let descriptor = fill(HERE + (tail % PAGES << 12), 4096);
            world.poke(1, RING + 64 * (tail % 64), &descriptor.to_bytes());
            world.doorbell(n, tail + 1);
        }
    }
}

/// A world with contexts that all work for process 1, so that each invalidation concerns all.
fn world() -> World {
    let world = World::running();
    for n in 1..THREADS {
        world.start(n, 1);
    }
    for page in 0..PAGES {
        world.map(1, HERE + (page << 12), true);
    }
    world
}

#[test]
fn rule_38_and_47_no_write_reaches_a_page_after_its_invalidation_is_complete() {
    const ROUNDS: u64 = 2000;
    let world = world();
    let stop = AtomicBool::new(false);
    let mut waited = 0;
    std::thread::scope(|scope| {
        for n in 0..THREADS {
            let (world, stop) = (&world, &stop);
            scope.spawn(move || work(world, n, stop));
        }
        for round in 0..ROUNDS {
            let address = HERE + (round % PAGES << 12);
            let old = world.mapping(1, address).unwrap().output;
            let fresh = world.frame();
            world.change(1, address, |m| m.output = fresh);
            waited += u64::from(invalidate(&world, address, (round % 32) as u8));
            // The frame belongs to somebody else now.
            world.retire_frame(old);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(world.inner.lock().unwrap().trespasses, [] as [u64; 0]);
    assert_eq!(world.counter(0, index::INVALIDATIONS), ROUNDS);
    println!("{waited} of {ROUNDS} invalidations waited for an access");
}

#[test]
fn rule_48_pages_come_and_go_and_contexts_stop_and_start_under_load() {
    const ROUNDS: u64 = 1000;
    let world = world();
    *world.service.lock().unwrap() = Service::Later;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..THREADS {
            let (world, stop) = (&world, &stop);
            scope.spawn(move || work(world, n, stop));
        }
        for round in 0..ROUNDS {
            let address = HERE + (round * 5 % PAGES << 12);
            let old = world.mapping(1, address).unwrap().output;
            let fresh = world.frame();
            world.change(1, address, |m| {
                m.present = false;
                m.output = fresh;
            });
            invalidate(&world, address, (round % 32) as u8);
            world.retire_frame(old);
            while !world.serve(ResponseCode::Success).is_empty() {}
            if round % 10 == 0 {
                let n = (round / 10 % u64::from(THREADS)) as u16;
                world.set(n, context::CONTROL, control::STOP);
                while world.get(n, context::STATUS) != u64::from(status::DISABLED) {
                    world.serve(ResponseCode::Success);
                    std::thread::yield_now();
                }
                world.start(n, 1);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(world.inner.lock().unwrap().trespasses, [] as [u64; 0]);
    assert_eq!(world.endpoint.pasids(), [pid(1)]);
    // Nothing was lost: what is still waiting is served, and all rings run empty.
    loop {
        world.run();
        if world.serve(ResponseCode::Success).is_empty() {
            break;
        }
    }
    for n in 0..THREADS {
        assert_eq!(world.get(n, context::STATUS), u64::from(status::ENABLED));
        assert_eq!(world.get(n, context::HEAD), world.get(n, context::TAIL));
    }
    assert!(
        Function::bar_read(
            &world.endpoint,
            0,
            0x100 + 8 * index::PAGE_REQUESTS as u64,
            8
        ) > 0
    );
}
