// SPDX-License-Identifier: MIT OR Apache-2.0
//! The invalidation contract under the schedules of a model checker: threads of the host work,
//! invalidate, respond and stop. The checker may choose any order of their accesses to the device
//! and to memory.

use super::*;
use crate::sync::model;
use crate::testing::failure::caught;
use crate::testing::{MUTANT, RECORDS, RING, Service, World};
use crate::{Mutant, Step};
use pcie_ats::{AlignedRange, Invalidation, ResponseCode};
use shuttle::thread;
use std::sync::Arc;
use svm_abi::completion;
use svm_abi::registers::{context, control};

const SCHEDULES: usize = 300;

/// Works until a number of descriptors of a context have completed.
fn engine(world: &World, n: u16, descriptors: u64) {
    while world.get(n, context::HEAD) < descriptors {
        if world.endpoint.step(world) == Step::Idle {
            model::point();
        }
    }
}

/// Two contexts of a process write to a page that the kernel moves at the same time.
fn pin_invalidate_complete() {
    let world = Arc::new(World::running());
    world.start(1, 1);
    let old = world.map(1, HERE, true);
    for n in 0..2 {
        // Both share the ring, and so the descriptors.
        let slot = fill(HERE + 64 * u64::from(n), 64);
        if n == 0 {
            for number in 0..2 {
                let completion = RECORDS + 32 * number;
                let descriptor = Descriptor { completion, ..slot };
                world.poke(1, RING + 64 * number, &descriptor.to_bytes());
            }
        }
        world.doorbell(n, 2);
    }
    let engines: Vec<_> = (0..2)
        .map(|n| {
            let world = world.clone();
            thread::spawn(move || engine(&world, n, 2))
        })
        .collect();
    let kernel = {
        let world = world.clone();
        thread::spawn(move || {
            let fresh = world.frame();
            world.change(1, HERE, |m| m.output = fresh);
            if world.invalidate_tagged(1, AlignedRange::page(HERE), 6) == Invalidation::Pending {
                let completed = || {
                    let inner = world.inner.lock().unwrap();
                    inner.completions.iter().any(|c| c.itag_vector == 1 << 6)
                };
                while !completed() {
                    model::point();
                }
            }
            world.retire_frame(old);
        })
    };
    for engine in engines {
        engine.join().unwrap();
    }
    kernel.join().unwrap();
    assert!(world.inner.lock().unwrap().trespasses.is_empty());
    for number in 0..2 {
        success(world.record(1, RECORDS + 32 * number));
    }
}

#[test]
fn rule_38_and_39_hold_in_every_order_of_access_invalidation_and_completion() {
    model::check(SCHEDULES, pin_invalidate_complete);
}

#[test]
fn the_model_of_an_invalidation_finds_what_breaks_its_contract() {
    for mutant in [Mutant::Rule38, Mutant::Rule39, Mutant::Rule47] {
        MUTANT.set(Some(mutant));
        let test = || model::check(3000, pin_invalidate_complete);
        let sources = [("/tests/models.rs", include_str!("models.rs"))];
        let result = caught(test, &sources, &["pin_invalidate_complete"]);
        MUTANT.set(None);
        assert_eq!(result, Ok(()), "{mutant:?}");
    }
}

/// A context stops while its pages are requested, answered and given up.
fn request_respond_stop() {
    let world = Arc::new(World::running());
    world.judge();
    *world.service.lock().unwrap() = Service::Later;
    world.map_absent(1, HERE, true);
    let record = world.submit(fill(HERE, 8));
    let spawn = |task: fn(&World)| {
        let world = world.clone();
        thread::spawn(move || task(&world))
    };
    let threads = [
        spawn(|world| {
            for _ in 0..20 {
                world.endpoint.step(world);
            }
        }),
        spawn(|world| {
            for _ in 0..20 {
                world.serve(ResponseCode::Success);
                model::point();
            }
        }),
        spawn(|world| {
            world.set(0, context::CONTROL, control::STOP);
            // From DISABLED on, the PASID has no owner: the world rejects requests with it.
            while world.get(0, context::STATUS) & 0xff != 0 {
                world.serve(ResponseCode::Success);
                model::point();
            }
            assert!(world.endpoint.pasids().is_empty());
        }),
    ];
    for thread in threads {
        thread.join().unwrap();
    }
    let status = world.record(1, record).status;
    assert!(status == completion::status::PENDING || status == completion::status::SUCCESS);
    assert!(world.inner.lock().unwrap().queue.is_empty());
    // It works as before.
    *world.service.lock().unwrap() = Service::Now;
    world.start(0, 1);
    success(world.perform(fill(HERE, 8)));
}

#[test]
fn rule_65_and_66_hold_in_every_order_of_request_response_and_stop() {
    model::check(SCHEDULES, request_respond_stop);
}
