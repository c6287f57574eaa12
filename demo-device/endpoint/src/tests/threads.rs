// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several threads at once: rules 38, 47 and 48 in the small.

use super::*;
use crate::Step;
use crate::testing::World;
use pcie_ats::{AlignedRange, Invalidation};
use std::sync::atomic::{AtomicBool, Ordering};

const THREADS: u16 = 4;
const PAGES: u64 = 8;
const ROUNDS: usize = 2000;

#[test]
fn rule_38_and_47_no_write_reaches_a_page_after_its_invalidation_is_complete() {
    let world = World::running();
    // All contexts work for one process, so that every invalidation concerns every thread.
    for n in 1..THREADS {
        world.start(n, 1);
    }
    for page in 0..PAGES {
        world.map(1, HERE + (page << 12), true);
    }
    let stop = AtomicBool::new(false);
    let mut waited = 0;
    std::thread::scope(|scope| {
        for n in 0..THREADS {
            let (world, stop) = (&world, &stop);
            scope.spawn(move || {
                let mut tail = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    // Everybody may do everybody's work.
                    while world.endpoint.step(world) == Step::Worked {}
                    let head = world.get(n, svm_abi::registers::context::HEAD);
                    if head == tail {
                        let page = tail % PAGES;
                        let slot = (tail % 64) * 64;
                        // The ring is shared by the contexts: the same descriptors for all.
                        let descriptor = Descriptor {
                            completion: 0,
                            ..fill(HERE + (page << 12), 4096)
                        };
                        world.poke(1, crate::testing::RING + slot, &descriptor.to_bytes());
                        tail += 1;
                        world.doorbell(n, tail);
                    }
                }
            });
        }
        for round in 0..ROUNDS {
            let address = HERE + ((round as u64 % PAGES) << 12);
            let old = world.mapping(1, address).unwrap().output;
            let fresh = world.frame();
            world.change(1, address, |m| m.output = fresh);
            let itag = (round % 32) as u8;
            let seen = world.inner.lock().unwrap().completions.len();
            if world.invalidate_tagged(1, AlignedRange::page(address), itag)
                == Invalidation::Pending
            {
                waited += 1;
                let complete = || {
                    let inner = world.inner.lock().unwrap();
                    let after = &inner.completions[seen..];
                    after.iter().any(|c| c.itag_vector >> itag & 1 != 0)
                };
                while !complete() {
                    std::thread::yield_now();
                }
            }
            // The frame belongs to somebody else now: a canary lives in it.
            world.retire_frame(old);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let inner = world.inner.lock().unwrap();
    assert_eq!(inner.trespasses, [] as [u64; 0]);
    drop(inner);
    let invalidations = world.counter(0, svm_abi::counters::index::INVALIDATIONS);
    assert_eq!(invalidations, ROUNDS as u64);
    println!("{waited} of {ROUNDS} invalidations waited for an access");
}
