// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several threads at once: rules 38, 47 and 48 on a small scale.

use super::*;
use crate::Step;
use crate::testing::{RING, Service, World, pid};
use pcie_ats::{AlignedRange, Function, Invalidation, ResponseCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use svm_abi::counters::index;
use svm_abi::registers::{DEVICE_COUNTERS, context, control, status};

const THREADS: u16 = 4;
const PAGES: u64 = 8;
/// How often a test does its part.
const ROUNDS: u64 = 1000;

/// Whether an invalidation has been completed after the first `seen` completions.
fn completed(world: &World, seen: usize, itag: u8) -> bool {
    let inner = world.inner.lock().unwrap();
    let after = &inner.completions[seen..];
    after.iter().any(|c| c.itag_vector >> itag & 1 != 0)
}

/// Invalidates a page of process 1, and waits for the completion.
fn invalidate(world: &World, address: u64, itag: u8) {
    let seen = world.inner.lock().unwrap().completions.len();
    let range = AlignedRange::page(address);
    if world.invalidate_tagged(1, range, itag) == Invalidation::Pending {
        while !completed(world, seen, itag) {
            std::thread::yield_now();
        }
    }
}

/// Keeps context `n` supplied with work on the pages of process 1, and runs the device. The lock
/// prevents the context's driver from stopping it in the middle of a submission.
fn work(world: &World, n: u16, driver: &Mutex<()>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        while world.endpoint.step(world) == Step::Worked {}
        let driver = driver.lock().unwrap();
        let tail = world.get(n, context::TAIL);
        if world.get(n, context::HEAD) == tail {
            // The contexts share the ring: the descriptors are the same for all.
            let descriptor = fill(HERE + ((tail % PAGES) << 12), 4096);
            world.poke(1, RING + 64 * (tail % 64), &descriptor.to_bytes());
            world.doorbell(n, tail + 1);
        } else {
            // It waits for a page, which another thread must bring in.
            drop(driver);
            std::thread::yield_now();
        }
    }
}

/// Descriptors that the device has completed.
fn descriptors(world: &World) -> u64 {
    device_counter(world, index::DESCRIPTORS)
}

fn device_counter(world: &World, which: usize) -> u64 {
    world
        .endpoint
        .bar_read(0, DEVICE_COUNTERS + 8 * which as u64, 8)
}

/// A world in which all contexts work for process 1, so that each invalidation affects all of them.
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

/// Ends the work of the threads, even if a test fails.
struct Stop<'a>(&'a World, &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
        self.0.gate.open();
    }
}

/// Keeps the threads at work while something is done again and again, with the locks of their
/// drivers.
fn under_load(world: &World, mut round: impl FnMut(u64, &[Mutex<()>])) {
    let stop = AtomicBool::new(false);
    let drivers: [Mutex<()>; THREADS as usize] = Default::default();
    std::thread::scope(|scope| {
        let _stop = Stop(world, &stop);
        for n in 0..THREADS {
            let (driver, stop) = (&drivers[usize::from(n)], &stop);
            scope.spawn(move || work(world, n, driver, stop));
        }
        for number in 0..ROUNDS {
            round(number, &drivers);
        }
    });
    assert_eq!(world.inner.lock().unwrap().trespasses, [] as [u64; 0]);
}

#[test]
fn rule_38_and_47_no_write_reaches_a_page_after_its_invalidation_is_complete() {
    let world = world();
    world.gate.close();
    under_load(&world, |round, _| {
        // One write is on its way; the others continue.
        let old = world.gate.held();
        let address = world.address_of(1, old).unwrap();
        let fresh = world.frame();
        world.change(1, address, |m| m.output = fresh);
        let itag = (round % 32) as u8;
        let seen = world.inner.lock().unwrap().completions.len();
        let answer = world.invalidate_tagged(1, AlignedRange::page(address), itag);
        assert_eq!(answer, Invalidation::Pending);
        assert!(!completed(&world, seen, itag));
        // Another write to the same page may be held after this one.
        while !completed(&world, seen, itag) {
            world.gate.release();
            std::thread::yield_now();
        }
        // The frame now belongs to someone else.
        world.retire_frame(old);
    });
    assert_eq!(world.counter(0, index::INVALIDATIONS), ROUNDS);
}

#[test]
fn rule_48_pages_come_and_go_and_contexts_stop_and_start_under_load() {
    let world = world();
    *world.service.lock().unwrap() = Service::Later;
    under_load(&world, |round, drivers| {
        let address = HERE + ((round * 5 % PAGES) << 12);
        let old = world.mapping(1, address).unwrap().output;
        let fresh = world.frame();
        world.change(1, address, |m| {
            m.present = false;
            m.output = fresh;
        });
        invalidate(&world, address, (round % 32) as u8);
        world.retire_frame(old);
        // The load continues between two rounds.
        let before = descriptors(&world);
        while descriptors(&world) == before {
            world.serve(ResponseCode::Success);
            std::thread::yield_now();
        }
        if round % 10 == 0 {
            let n = (round / 10 % u64::from(THREADS)) as u16;
            let _driver = drivers[usize::from(n)].lock().unwrap();
            world.set(n, context::CONTROL, control::STOP);
            while world.get(n, context::STATUS) != u64::from(status::DISABLED) {
                world.serve(ResponseCode::Success);
                std::thread::yield_now();
            }
            world.start(n, 1);
        }
    });
    assert_eq!(world.endpoint.pasids(), [pid(1)]);
    // Nothing was lost: outstanding requests are served, and all rings become empty.
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
    assert!(device_counter(&world, index::PAGE_REQUESTS) > 0);
}
