// SPDX-License-Identifier: MIT OR Apache-2.0
//! The states of contexts and of the function, registers, doorbells, interrupts and turns.

use super::*;
use crate::testing::{RECORDS, RING, Service, World};
use crate::{Config, Step, config_space};
use pcie_ats::{Function, Reset, ResponseCode};
use std::sync::{Arc, Mutex};
use svm_abi::counters::index;
use svm_abi::doorbell;
use svm_abi::ids;
use svm_abi::registers::{
    LABORATORY, capabilities, context, context_block, control, device, function, halt, laboratory,
    status,
};

fn state(world: &World, n: u16) -> (u8, u8) {
    let value = world.get(n, context::STATUS);
    (status::state(value), status::error(value))
}

#[test]
fn the_registers_describe_the_device() {
    let world = World::new(Config::default());
    let read = |offset| world.endpoint.bar_read(0, offset, 8);
    assert_eq!(read(device::IDENT), 0x5356_4d44_0000_0102);
    let value = read(device::CAPABILITIES);
    assert_eq!(capabilities::contexts(value), 64);
    assert_eq!(capabilities::vectors(value), 65);
    assert_eq!(capabilities::ring_log2(value), ids::MAX_RING_LOG2);
    assert_eq!(capabilities::transfer_log2(value), ids::MAX_TRANSFER_LOG2);
    assert_eq!(capabilities::batch_log2(value), ids::MAX_BATCH_LOG2);
    assert_eq!(value & capabilities::LABORATORY, 0);
    assert_eq!(read(device::OPERATIONS), 0x3fff);
    assert_eq!(read(device::RESOURCES), 512 << 32 | 1024);
    assert_eq!(read(device::FUNCTION), 0);
    world.enable(64);
    let all = function::BUS_MASTER | function::ATS | function::PRI | function::PASID;
    assert_eq!(read(device::FUNCTION), all);
    assert_eq!(world.endpoint.bar_read(0, 4, 4), 0x5356_4d44);
    assert_eq!(world.endpoint.bar_read(0, 0, 2), 0);
}

#[test]
fn a_context_goes_through_its_states() {
    let world = World::running();
    assert_eq!(state(&world, 0), (status::ENABLED, halt::NONE));
    assert_eq!(world.endpoint.pasids(), [crate::testing::pid(1)]);
    let before = world.endpoint.pasid_generation();
    world.set(0, context::CONTROL, control::STOP);
    assert_eq!(state(&world, 0), (status::DISABLED, halt::NONE));
    assert_ne!(world.endpoint.pasid_generation(), before);
    assert_eq!(world.endpoint.pasids(), []);
    world.set(0, context::PASID, 1);
    world.set(0, context::CONTROL, control::START);
    assert_eq!(state(&world, 0), (status::HALTED, halt::BAD_PASID));
    world.set(0, context::CONTROL, control::START);
    assert_eq!(state(&world, 0), (status::HALTED, halt::BAD_PASID));
    world.set(0, context::CONTROL, control::STOP);
    world.start(0, 1);
    success(world.perform(nop()));
}

#[test]
fn a_start_clears_head_tail_and_counters() {
    let world = World::running();
    success(world.perform(nop()));
    assert_eq!(
        (world.get(0, context::HEAD), world.get(0, context::TAIL)),
        (1, 1)
    );
    world.set(0, context::CONTROL, control::STOP);
    world.start(0, 1);
    assert_eq!(
        (world.get(0, context::HEAD), world.get(0, context::TAIL)),
        (0, 0)
    );
    assert_eq!(world.counter(0, index::DESCRIPTORS), 0);
    assert_eq!(world.endpoint.bar_read(0, 0x100, 8), 1);
}

#[test]
fn the_ring_goes_round() {
    let world = World::running();
    for _ in 0..3 * 64 + 5 {
        success(world.perform(nop()));
    }
    assert_eq!(world.get(0, context::HEAD), 197);
    // A whole ring at a time.
    for slot in 0..64 {
        world.poke(1, RING + 64 * slot, &nop().to_bytes());
    }
    world.doorbell(0, 197 + 64);
    world.run();
    assert_eq!(world.get(0, context::HEAD), 261);
}

#[test]
fn many_small_descriptors_take_few_steps_and_one_read() {
    let world = World::running();
    for slot in 0..64u64 {
        let completion = RECORDS + 32 * slot;
        world.poke(
            1,
            RING + 64 * slot,
            &Descriptor {
                completion,
                ..nop()
            }
            .to_bytes(),
        );
    }
    world.doorbell(0, 64);
    let steps = world.run();
    assert!(steps <= 4, "{steps}");
    assert_eq!(world.counter(0, index::BYTES_READ), 4096);
    assert_eq!(world.counter(0, index::DESCRIPTORS), 64);
}

#[test]
fn one_cold_descriptor_takes_one_step() {
    let world = World::running();
    world.map(1, HERE, true);
    world.map(1, THERE, true);
    world.submit(copy(HERE, THERE, 4096));
    assert_eq!(world.run(), 1);
    assert!(!world.endpoint.has_work());
}

#[test]
fn a_wrong_doorbell_halts_its_context_only() {
    let world = World::running();
    world.start(1, 2);
    world.doorbell(0, 65);
    world.run();
    assert_eq!(state(&world, 0), (status::HALTED, halt::BAD_DOORBELL));
    assert_eq!(world.inner.lock().unwrap().interrupts, [1]);
    world.doorbell(0, 1);
    assert_eq!(world.get(0, context::TAIL), 0);
    let record = world.submit_to(1, 2, nop());
    world.run();
    success(world.record(2, record));
}

#[test]
fn a_doorbell_takes_eight_bytes() {
    let world = World::running();
    world.endpoint.bar_write(2, 0, 1, 4);
    world.endpoint.bar_write(2, 4, 1, 4);
    assert_eq!(world.get(0, context::TAIL), 0);
    assert_eq!(
        world.endpoint.bar_read(2, 0x10, 4),
        u64::from(status::ENABLED)
    );
    // A context that does not exist, and one that is not started.
    world.endpoint.bar_write(2, 64 * 0x1000, 1, 8);
    world.doorbell(5, 1);
    assert_eq!(world.endpoint.step(&world), Step::Idle);
}

#[test]
pub(super) fn rule_72_interrupts_are_sent_as_asked() {
    let world = World::running();
    let interrupting = Descriptor {
        flags: flags::INTERRUPT,
        ..nop()
    };
    for _ in 0..3 {
        world.submit(interrupting);
    }
    world.submit(nop());
    world.run();
    assert_eq!(world.inner.lock().unwrap().interrupts, [1, 1, 1]);
    assert_eq!(world.counter(0, index::INTERRUPTS), 3);
    world.set(0, context::VECTOR, 2);
    success(world.perform(interrupting));
    world.set(0, context::VECTOR, 1 << 31 | 65);
    success(world.perform(interrupting));
    assert_eq!(world.inner.lock().unwrap().interrupts.len(), 3);
}

#[test]
pub(super) fn rule_65_a_context_that_is_told_to_stop_stops() {
    let world = World::running();
    world.submit(nop());
    world.set(0, context::CONTROL, control::STOP);
    assert_eq!(state(&world, 0), (status::DISABLED, halt::NONE));
    let seen = world.inner.lock().unwrap().writes.len();
    world.run();
    assert_eq!(world.inner.lock().unwrap().writes.len(), seen);
}

#[test]
pub(super) fn contexts_of_one_address_space_do_work_of_their_own() {
    let world = World::running();
    world.start(1, 1);
    let places = [HERE, HERE + 0x1000];
    let frames = places.map(|place| world.map(1, place, true));
    success(world.perform(fill(places[0], 8)));
    world.submit_to(1, 1, fill(places[1], 8));
    world.run();
    for frame in frames {
        assert_eq!(world.peek_frame(frame, 8), [0x5a; 8]);
    }
}

/// For a driver that reads a context that it has told to stop, in the middle of a reset.
#[test]
fn a_silent_device_answers_with_all_ones_behind_a_stop() {
    let world = World::running_with(Config {
        laboratory: true,
        ..Config::default()
    });
    let e = &world.endpoint;
    let look = || e.bar_read(0, context_block(0) + context::STATUS, 8);
    e.bar_write(0, LABORATORY + laboratory::SILENCE, 2, 8);
    world.set(1, context::CONTROL, control::STOP);
    assert_eq!(look(), status::encode(status::ENABLED, 0));
    world.set(0, context::CONTROL, control::STOP);
    assert_eq!(e.bar_read(2, doorbell::STATUS, 8), 0);
    assert_eq!([look(), look(), look()], [!0, !0, 0]);
}

#[test]
pub(super) fn rule_68_to_70_work_halts_when_the_function_loses_what_it_needs() {
    let off = [(4, 0, 4), (config_space::ATS + 4, 0, 0xffff_0000)];
    for (offset, value, mask) in off {
        let world = World::running();
        *world.service.lock().unwrap() = Service::Later;
        world.map_absent(1, HERE, true);
        world.submit(fill(HERE, 8));
        world.run();
        world.submit(nop());
        world.endpoint.config_write(offset, value, mask);
        let seen = world.inner.lock().unwrap().translations.len();
        let writes = world.inner.lock().unwrap().writes.len();
        assert_eq!(state(&world, 0), (status::HALTED, halt::FUNCTION_DISABLED));
        world.run();
        let bus_master = world.endpoint.config_read(4) != 0;
        let interrupts = world.inner.lock().unwrap().interrupts.clone();
        assert_eq!(interrupts.len(), usize::from(bus_master));
        // The response that was outstanding changes nothing.
        world.serve(ResponseCode::Success);
        world.run();
        assert_eq!(world.inner.lock().unwrap().translations.len(), seen);
        assert_eq!(world.inner.lock().unwrap().writes.len(), writes);
        world.set(0, context::CONTROL, control::STOP);
        assert_eq!(state(&world, 0).0, status::DISABLED);
        world.start(0, 1);
        assert_eq!(state(&world, 0), (status::HALTED, halt::FUNCTION_DISABLED));
    }
}

#[test]
pub(super) fn rule_69_ats_that_goes_away_during_an_access_ends_the_work() {
    let world = World::running();
    world.map(1, HERE, true);
    *world.on_write.lock().unwrap() = Some(Box::new(|world| {
        world
            .endpoint
            .config_write(config_space::ATS + 4, 0, 0xffff_0000);
    }));
    let record = world.submit(fill(HERE, 8));
    world.run();
    assert_eq!(state(&world, 0), (status::HALTED, halt::FUNCTION_DISABLED));
    assert_eq!(world.record(1, record).status, 0);
}

#[test]
pub(super) fn rule_67_a_reset_makes_everything_new_in_any_state() {
    for kind in [Reset::FunctionLevel, Reset::Conventional] {
        let world = World::running();
        *world.service.lock().unwrap() = Service::Later;
        world.map_absent(1, HERE, true);
        world.submit(fill(HERE, 8));
        world.run();
        let late = world.inner.lock().unwrap().queue[0];
        world.endpoint.reset(kind);
        assert_eq!(state(&world, 0), (status::DISABLED, halt::NONE));
        for register in [
            context::PASID,
            context::RING,
            context::VECTOR,
            context::TAIL,
        ] {
            assert_eq!(world.get(0, register), 0);
        }
        assert_eq!(
            world.endpoint.config_read(config_space::PRI + 4),
            1 << 31 | 1 << 24
        );
        assert_eq!(world.endpoint.config_read(4), 0);
        world.respond(&late, ResponseCode::ResponseFailure);
        assert_eq!(
            world.endpoint.config_read(config_space::PRI + 4),
            1 << 31 | 1 << 24
        );
        assert_eq!(world.run(), 0);
        *world.service.lock().unwrap() = Service::Now;
        world.enable(64);
        world.start(0, 1);
        success(world.perform(fill(HERE, 8)));
    }
}

#[test]
fn rule_67_a_reset_during_an_access_lets_no_result_through() {
    for during_translation in [true, false] {
        let world = World::running();
        world.map(1, HERE, true);
        let hook: crate::testing::Hook = Box::new(|world| {
            world.endpoint.reset(Reset::FunctionLevel);
            world.enable(64);
            world.start(0, 1);
        });
        let slot = if during_translation {
            &world.on_translate
        } else {
            &world.on_write
        };
        *slot.lock().unwrap() = Some(hook);
        let record = world.submit(fill(HERE, 8));
        world.run();
        // The restarted context has no work, and no state of the old one.
        assert_eq!(state(&world, 0), (status::ENABLED, halt::NONE));
        assert_eq!(world.get(0, context::HEAD), 0);
        assert_eq!(world.record(1, record).status, 0);
        assert_eq!(world.counter(0, index::BYTES_WRITTEN), 0);
        success(world.perform(fill(HERE, 8)));
    }
}

#[test]
fn a_stop_during_an_access_ends_with_it() {
    let world = World::running();
    world.map(1, HERE, true);
    *world.on_write.lock().unwrap() = Some(Box::new(|world| {
        world.set(0, context::CONTROL, control::STOP);
        assert_eq!(state(world, 0).0, status::STOPPING);
    }));
    let record = world.submit(fill(HERE, 8));
    world.run();
    assert_eq!(state(&world, 0).0, status::DISABLED);
    assert_eq!(world.record(1, record).status, 0);
}

#[test]
fn a_doorbell_rung_from_inside_an_access_is_heard() {
    let world = World::running();
    world.map(1, HERE, true);
    world.poke(
        1,
        RING + 64,
        &Descriptor {
            completion: RECORDS + 32,
            ..nop()
        }
        .to_bytes(),
    );
    *world.on_write.lock().unwrap() = Some(Box::new(|world| world.doorbell(0, 2)));
    world.submit(fill(HERE, 8));
    world.run();
    success(world.record(1, RECORDS + 32));
}

#[test]
fn contexts_take_turns() {
    let world = World::running();
    let length = 4 << 20;
    for n in 0..3u16 {
        let pasid = u32::from(n) + 1;
        if n > 0 {
            world.start(n, pasid);
        }
        let range = pcie_ats::AlignedRange::containing(0x4000_0000, 22).unwrap();
        world.map_to(pasid, range, world.frames(22), true, true);
        world.submit_to(n, pasid, fill(0x4000_0000, length));
    }
    let written = |n| world.counter(n, index::BYTES_WRITTEN);
    while world.endpoint.step(&world) == Step::Worked {
        let all = [written(0), written(1), written(2)];
        let spread = all.iter().max().unwrap() - all.iter().min().unwrap();
        assert!(spread <= 256 << 10 | 32, "{all:?}");
    }
    assert_eq!(written(2), length + 32);
}

/// The function loses its right to send while one of its requests is on its way: that request
/// reaches memory, no later one does, and a host can detect when the last request has landed.
#[test]
fn rule_67_to_69_a_function_is_quiet_when_the_last_request_has_landed() {
    type Change = fn(&crate::Endpoint);
    let changes: [Change; 3] = [
        |e| e.reset(Reset::FunctionLevel),
        |e| e.config_write(4, 0, 4),
        |e| e.config_write(config_space::ATS + 4, 0, 1 << 31),
    ];
    for change in changes {
        let world = World::running();
        world.map(1, HERE, true);
        world.map(1, HERE + 0x1000, true);
        success(world.perform(fill(HERE, 0x2000)));
        assert!(world.endpoint.quiesced());
        world.submit(fill(HERE, 0x2000));
        let seen = Arc::new(Mutex::new(None));
        let note = seen.clone();
        // Between the last check of the permission and the memory access.
        *world.on_write.lock().unwrap() = Some(Box::new(move |world| {
            change(&world.endpoint);
            let writes = world.inner.lock().unwrap().writes.len();
            *note.lock().unwrap() = Some((world.endpoint.quiesced(), writes));
        }));
        world.endpoint.step(&world);
        let (quiet, writes) = seen.lock().unwrap().unwrap();
        assert!(!quiet, "a write is on its way");
        assert!(world.endpoint.quiesced());
        let after = world.inner.lock().unwrap().writes.len();
        assert_eq!(after, writes + 1);
        world.run();
        assert_eq!(world.inner.lock().unwrap().writes.len(), after);
    }
}
