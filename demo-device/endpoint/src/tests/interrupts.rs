// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt moderation: how many completions share an interrupt, and that none is held back for
//! ever.

use super::*;
use crate::testing::{RING, World};
use crate::{Config, Power, Step};
use pcie_ats::{Function, Reset};
use svm_abi::counters::index;
use svm_abi::registers::{
    CONTEXT_STRIDE, CONTEXTS, context, control, moderation, pasid, status as states,
};

fn world(completions: u16, microseconds: u32) -> World {
    let world = World::running();
    set(&world, completions, microseconds);
    world
}

fn set(world: &World, completions: u16, microseconds: u32) {
    let value = moderation::encode(completions, microseconds);
    world.set(0, context::MODERATION, value);
}

fn telling() -> Descriptor {
    Descriptor {
        flags: flags::INTERRUPT,
        ..nop()
    }
}

fn complete(world: &World, count: usize) {
    for _ in 0..count {
        success(world.perform(telling()));
    }
}

fn interrupts(world: &World) -> usize {
    world.run();
    world.inner.lock().unwrap().interrupts.len()
}

#[test]
fn rule_72_as_many_completions_as_the_number_share_an_interrupt() {
    let world = world(4, 0);
    let counts: Vec<_> = (0..9)
        .map(|_| {
            complete(&world, 1);
            // Completions that do not request an interrupt are not counted.
            success(world.perform(nop()));
            interrupts(&world)
        })
        .collect();
    assert_eq!(counts, [0, 0, 0, 1, 1, 1, 1, 2, 2]);
    assert_eq!(world.counter(0, index::INTERRUPTS), 2);
    // Whole rings at a time: no interrupt is missing.
    set(&world, 64, 0);
    let before = interrupts(&world);
    for round in 1..=20 {
        for slot in 0..64 {
            world.poke(1, RING + 64 * slot, &telling().to_bytes());
        }
        let tail = world.get(0, context::TAIL);
        world.doorbell(0, tail + 64);
        assert_eq!(interrupts(&world), before + round);
    }
}

#[test]
fn what_is_held_back_is_told_when_its_time_has_come() {
    let world = world(100, 50);
    let e = &world.endpoint;
    assert_eq!(e.tick(0), None);
    complete(&world, 3);
    assert_eq!(interrupts(&world), 0);
    // The wait begins when the first completion is seen. Later completions do not restart it.
    assert_eq!(e.tick(1000), Some(1050));
    complete(&world, 3);
    assert_eq!(e.tick(1049), Some(1050));
    assert_eq!(e.step(&world), Step::Idle);
    assert_eq!(e.tick(1050), None);
    assert_eq!(interrupts(&world), 1);
    assert_eq!(e.tick(5000), None);
    assert_eq!(interrupts(&world), 1);
    // The full number of completions does not wait for the time, which then restarts.
    complete(&world, 99);
    assert_eq!(e.tick(6000), Some(6050));
    complete(&world, 1);
    assert_eq!(interrupts(&world), 2);
    complete(&world, 1);
    assert_eq!(e.tick(6050), Some(6100));
    assert_eq!(e.tick(6100), None);
    assert_eq!(interrupts(&world), 3);
}

#[test]
fn the_next_time_is_that_of_whoever_is_first() {
    let world = World::running_with(Config {
        page_response_timeout: 30,
        ..Config::default()
    });
    world.start(1, 2);
    for (n, microseconds) in [(0, 70), (1, 20)] {
        let value = moderation::encode(9, microseconds);
        world.set(n, context::MODERATION, value);
        world.submit_to(n, u32::from(n) + 1, telling());
    }
    world.run();
    *world.service.lock().unwrap() = crate::testing::Service::Later;
    world.start(2, 3);
    world.map_absent(3, HERE, true);
    let record = world.submit_to(2, 3, fill(HERE, 8));
    world.run();
    let e = &world.endpoint;
    assert_eq!(e.tick(100), Some(120));
    assert_eq!(e.tick(120), Some(130));
    world.run();
    assert_eq!(world.inner.lock().unwrap().interrupts, [2]);
    assert_eq!(e.tick(130), Some(170));
    world.run();
    let failed = failure(world.record(3, record));
    assert_eq!(failed, (Error::ResponseTimeout, HERE, 1));
    assert_eq!(e.tick(170), None);
    world.run();
    assert_eq!(world.inner.lock().unwrap().interrupts, [2, 1]);
}

#[test]
fn entries_of_a_batch_are_completions_as_well() {
    let world = world(5, 0);
    world.map(1, HERE, true);
    for n in 0..4 {
        world.poke(1, HERE + 64 * n, &telling().to_bytes());
    }
    success(world.perform(Descriptor {
        operation: Operation::Batch as u8,
        source: HERE,
        length: 4,
        ..telling()
    }));
    assert_eq!(interrupts(&world), 1);
}

#[test]
fn a_write_tells_what_was_held_back_and_begins_anew() {
    let world = world(10, 50);
    complete(&world, 9);
    assert_eq!(interrupts(&world), 0);
    set(&world, 10, 50);
    assert_eq!(interrupts(&world), 1);
    complete(&world, 9);
    assert_eq!(interrupts(&world), 1);
    // Each half can be written separately.
    let register = CONTEXTS + context::MODERATION;
    world.endpoint.bar_write(0, register + 4, 60, 4);
    assert_eq!(
        world.get(0, context::MODERATION),
        moderation::encode(10, 60)
    );
    assert_eq!(interrupts(&world), 2);
    set(&world, 0, 0);
    assert_eq!(interrupts(&world), 2);
    complete(&world, 2);
    assert_eq!(interrupts(&world), 4);
    // It is a register of the context, and its undefined bits are 0.
    world.set(0, context::MODERATION, !0);
    assert_eq!(world.get(0, context::MODERATION), moderation::ALL);
    assert_eq!(world.endpoint.bar_read(0, register + CONTEXT_STRIDE, 8), 0);
}

#[test]
fn a_stop_drops_what_was_held_back_and_keeps_the_setting() {
    let world = world(10, 50);
    complete(&world, 9);
    assert_eq!(world.endpoint.tick(0), Some(50));
    world.set(0, context::CONTROL, control::STOP);
    assert_eq!(world.endpoint.tick(50), None);
    assert_eq!(interrupts(&world), 0);
    world.start(0, 2);
    assert_eq!(world.get(0, context::MODERATION), 0, "for another process");
    world.set(0, context::CONTROL, control::STOP);
    set(&world, 2, 0);
    world.set(0, context::CONTROL, control::START);
    world.submit_to(0, 2, telling());
    assert_eq!(interrupts(&world), 0);
    world.submit_to(0, 2, telling());
    assert_eq!(interrupts(&world), 1);
    world.set(0, context::CONTROL, control::STOP);
    world.set(0, context::PASID, 2 | pasid::VALID);
    assert_eq!(world.get(0, context::MODERATION), 0);
}

#[test]
fn a_reset_makes_the_setting_as_new() {
    for kind in [Reset::FunctionLevel, Reset::Conventional] {
        let world = world(10, 50);
        complete(&world, 9);
        assert_eq!(world.endpoint.tick(0), Some(50));
        world.endpoint.reset(kind);
        assert_eq!(world.get(0, context::MODERATION), 0);
        assert_eq!(world.endpoint.tick(50), None);
        assert_eq!(interrupts(&world), 0);
        world.enable(64);
        world.start(0, 1);
        complete(&world, 1);
        assert_eq!(interrupts(&world), 1);
    }
}

#[test]
fn that_a_context_halted_is_told_at_once() {
    let world = world(10, 0);
    complete(&world, 3);
    world.doorbell(0, 1000);
    assert_eq!(interrupts(&world), 1);
    let state = states::state(world.get(0, context::STATUS));
    assert_eq!(state, states::HALTED);
    // It covers the completions that were held back.
    world.set(0, context::CONTROL, control::STOP);
    world.set(0, context::CONTROL, control::START);
    complete(&world, 9);
    assert_eq!(interrupts(&world), 1);
    complete(&world, 1);
    assert_eq!(interrupts(&world), 2);
}

#[test]
fn rule_68_what_is_held_back_is_not_sent_while_the_function_may_not() {
    let world = world(10, 50);
    complete(&world, 3);
    assert_eq!(world.endpoint.tick(0), Some(50));
    world.endpoint.config_write(4, 0, 4);
    assert_eq!(world.endpoint.tick(50), None);
    assert_eq!(interrupts(&world), 0);

    let world = self::world(10, 50);
    complete(&world, 3);
    assert_eq!(world.endpoint.tick(0), Some(50));
    world.endpoint.set_power(Power::D3Hot);
    assert_eq!(world.endpoint.tick(50), None);
    assert_eq!(interrupts(&world), 0);
    world.endpoint.set_power(Power::D0);
    // The interrupt of the halt.
    assert_eq!(interrupts(&world), 1);
}
