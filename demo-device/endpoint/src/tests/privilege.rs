// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests for execution and in privileged mode: only if they are enabled, only from the contexts
//! that need them, and the use of their answers.

use super::*;
use crate::testing::{Service, World};
use crate::{Config, config_space};
use pcie_ats::{AlignedRange, Function, MemoryAddressType, ResponseCode};
use svm_abi::descriptor::{operand, translation};
use svm_abi::registers::{
    LABORATORY, attributes, context, control, device, function, halt, laboratory, pasid,
    status as states,
};

const PASID_CONTROL: u16 = config_space::PASID + 4;

fn world() -> World {
    let world = World::running_with(Config {
        execute: true,
        privileged: true,
        laboratory: true,
        ..Config::default()
    });
    world.judge();
    world
}

/// Starts context 1 for the same address space as context 0, in privileged mode.
fn start_privileged(world: &World) {
    world.set(1, context::CONTROL, control::STOP);
    let supervisor = 1 | pasid::PRIVILEGED | pasid::VALID;
    world.set(1, context::PASID, supervisor);
    world.set(1, context::RING, crate::testing::RING + 0x800);
    world.set(1, context::RING_LOG2, 4);
    world.set(1, context::CONTROL, control::START);
}

/// Performs a descriptor in context 1.
fn perform_privileged(world: &World, descriptor: Descriptor) -> Completion {
    let tail = world.get(1, context::TAIL);
    let slot = tail % 16;
    let record = crate::testing::RECORDS + 0x800 + 32 * slot;
    let descriptor = Descriptor {
        completion: record,
        ..descriptor
    };
    world.poke(1, record, &[0; 32]);
    let at = crate::testing::RING + 0x800 + 64 * slot;
    world.poke(1, at, &descriptor.to_bytes());
    world.doorbell(1, tail + 1);
    world.run();
    world.record(1, record)
}

fn state(world: &World, n: u16) -> (u8, u8) {
    let value = world.get(n, context::STATUS);
    (states::state(value), states::error(value))
}

#[test]
fn rule_07_a_device_offers_neither_unless_it_was_made_so() {
    let plain = World::running();
    assert_eq!(plain.endpoint.config_read(PASID_CONTROL), 20 << 8 | 1 << 16);
    start_privileged(&plain);
    assert_eq!(state(&plain, 1), (states::HALTED, halt::BAD_PASID));
    let function_register = plain.endpoint.bar_read(0, device::FUNCTION, 8);
    assert_eq!(function_register >> 4, 0);

    let world = world();
    assert_eq!(
        world.endpoint.config_read(PASID_CONTROL),
        3 << 1 | 20 << 8 | 7 << 16
    );
    let bits = function::EXECUTE | function::PRIVILEGED;
    let function_register = world.endpoint.bar_read(0, device::FUNCTION, 8);
    assert_eq!(function_register & bits, bits);
    start_privileged(&world);
    assert_eq!(state(&world, 1).0, states::ENABLED);
    success(perform_privileged(&world, nop()));
}

#[test]
fn rule_20_an_entry_of_one_mode_says_nothing_of_the_other() {
    let world = world();
    start_privileged(&world);
    world.map(1, HERE, true);
    world.change(1, HERE, |m| m.supervisor = true);
    for _ in 0..2 {
        success(perform_privileged(&world, fill(HERE, 8)));
        // The entry exists, but not for this mode.
        let record = world.perform(fill(HERE, 8));
        assert_eq!(failure(record), (Error::PageFault, HERE, 1));
    }
    // And vice versa: the entry of user mode is not used in privileged mode.
    world.map(1, THERE, true);
    success(world.perform(fill(THERE, 8)));
    let before = world.inner.lock().unwrap().translations.len();
    success(perform_privileged(&world, fill(THERE, 8)));
    let inner = world.inner.lock().unwrap();
    let asked = &inner.translations[before..];
    assert!(asked.iter().any(|r| r.address == THERE && r.privileged));
}

#[test]
fn rule_20_each_mode_asks_for_itself() {
    let world = world();
    start_privileged(&world);
    world.map_absent(1, HERE, true);
    world.change(1, HERE, |m| m.supervisor = true);
    success(perform_privileged(&world, fill(HERE, 8)));
    world.map_absent(1, THERE, true);
    success(world.perform(fill(THERE, 8)));
    let modes = |inner: &crate::testing::Inner, at: u64| {
        let pages = inner.page_requests.iter().filter(|r| r.address == at);
        pages.map(|r| r.privileged).collect::<Vec<_>>()
    };
    {
        let inner = world.inner.lock().unwrap();
        assert_eq!(modes(&inner, HERE), [true]);
        assert_eq!(modes(&inner, THERE), [false]);
        assert!(inner.page_requests.iter().all(|r| !r.execute));
    }
    // Untranslated accesses are made in the mode.
    world.map(1, HERE, true);
    world.change(1, HERE, |m| {
        m.supervisor = true;
        m.untranslated_only = true;
    });
    let _ = world.invalidate(1, AlignedRange::page(HERE));
    world.inner.lock().unwrap().log = Some(Vec::new());
    success(perform_privileged(&world, fill(HERE, 5)));
    let inner = world.inner.lock().unwrap();
    let mut log = inner.log.as_ref().unwrap().iter();
    let write = log.find(|(_, length, _)| *length == 5).unwrap().0;
    assert_eq!(write.address_type, MemoryAddressType::Untranslated);
    assert!(write.privileged);
}

#[test]
fn rule_36_an_invalidation_of_a_pasid_is_for_both_modes() {
    let world = world();
    start_privileged(&world);
    let old = world.map(1, HERE, true);
    success(perform_privileged(&world, fill(HERE, 8)));
    success(world.perform(fill(HERE, 8)));
    let fresh = world.frame();
    world.change(1, HERE, |m| m.output = fresh);
    let _ = world.invalidate(1, AlignedRange::page(HERE));
    world.fill_frame(old, 8, 0);
    success(perform_privileged(&world, fill(HERE, 8)));
    success(world.perform(fill(HERE, 8)));
    assert_eq!(world.peek_frame(old, 8), [0; 8]);
    assert_eq!(world.peek_frame(fresh, 8), [0x5a; 8]);
}

#[test]
fn rule_70_without_its_enable_bit_no_context_asks_for_privileged_mode() {
    let world = world();
    start_privileged(&world);
    let e = &world.endpoint;
    // Like PASID Enable, the bits do not change while ATS is on.
    e.config_write(PASID_CONTROL, 1 << 16, 7 << 16);
    assert_eq!(e.config_read(PASID_CONTROL) >> 16, 7);
    e.config_write(config_space::ATS + 4, 0, 1 << 31);
    assert_eq!(state(&world, 1), (states::HALTED, halt::FUNCTION_DISABLED));
    e.config_write(PASID_CONTROL, 1 << 16, 7 << 16);
    e.config_write(config_space::ATS + 4, 1 << 31, 1 << 31);
    start_privileged(&world);
    assert_eq!(state(&world, 1), (states::HALTED, halt::BAD_PASID));
    world.set(0, context::CONTROL, control::STOP);
    world.start(0, 1);
    success(world.perform(nop()));
}

#[test]
fn rule_73_a_process_does_not_become_privileged() {
    let world = world();
    world.map(1, HERE, true);
    world.change(1, HERE, |m| m.supervisor = true);
    // The register is fixed while the context works, and is not in any doorbell page.
    world.set(0, context::PASID, 1 | pasid::PRIVILEGED | pasid::VALID);
    for offset in (0..0x1000).step_by(8) {
        if offset != svm_abi::doorbell::TAIL {
            world.endpoint.bar_write(2, offset, !0, 8);
        }
    }
    assert_eq!(world.get(0, context::PASID), 1 | pasid::VALID);
    assert_eq!(
        failure(world.perform(fill(HERE, 8))),
        (Error::PageFault, HERE, 1)
    );
    let inner = world.inner.lock().unwrap();
    assert!(inner.translations.iter().all(|r| !r.privileged));
}

#[test]
fn rule_19_translate_asks_for_execution_where_the_function_may() {
    let translate = |operand0| Descriptor {
        operation: Operation::Translate as u8,
        source: HERE,
        operand0,
        ..nop()
    };
    let world = world();
    world.map(1, HERE, true);
    let record = world.perform(translate(operand::EXECUTE));
    success(record);
    assert_ne!(record.result & translation::EXECUTE, 0);
    assert_eq!(record.result & translation::WRITE, 0);
    let both = world.perform(translate(operand::EXECUTE | operand::WRITE));
    assert_ne!(both.result & translation::WRITE, 0);
    let plain = world.perform(translate(0));
    assert_eq!(plain.result & translation::EXECUTE, 0);
    // An absent page cannot be executed.
    world.unmap(1, HERE);
    let record = world.perform(translate(operand::EXECUTE));
    success(record);
    assert_eq!(record.result & translation::EXECUTE, 0);
    let asked = |w: &World| {
        let inner = w.inner.lock().unwrap();
        inner.translations.iter().filter(|r| r.execute).count()
    };
    assert_eq!(asked(&world), 3);

    let plain = World::running();
    plain.map(1, HERE, true);
    let record = plain.perform(translate(operand::EXECUTE));
    assert_eq!(failure(record), (Error::UnsupportedAccess, HERE, 0));
    assert_eq!(asked(&plain), 0);
    let record = plain.perform(translate(4));
    assert_eq!(failure(record).0, Error::Reserved);
}

#[test]
fn rule_07_the_laboratory_asks_only_for_what_is_enabled() {
    let world = world();
    world.map(1, HERE, true);
    let e = &world.endpoint;
    let (execute, privileged) = (attributes::EXECUTE, attributes::PRIVILEGED);
    let (read, last) = (attributes::READ, attributes::LAST);
    let run = |command: u64, attributes: u64| {
        e.bar_write(0, LABORATORY + laboratory::STATE, 0, 8);
        e.bar_write(0, LABORATORY + laboratory::ADDRESS, HERE, 8);
        e.bar_write(0, LABORATORY + laboratory::ATTRIBUTES, attributes, 8);
        e.bar_write(0, LABORATORY + laboratory::COMMAND, command, 8);
        world.run();
        e.bar_read(0, LABORATORY + laboratory::STATE, 8)
    };
    let of_process = 1 | attributes::PASID_PRESENT;
    let refused = 3 | (Error::NotPresent as u64) << 8;
    for bits in [execute, privileged, execute | privileged] {
        assert_eq!(run(1, of_process | bits), 2);
        let shown = e.bar_read(0, LABORATORY + laboratory::COMPLETION, 8) >> 10 & 3;
        assert_eq!(shown, bits >> 33 | (bits >> 32 & 1) << 1);
        assert_eq!(run(2, of_process | read | last | bits), 2);
        // There are no such requests without a PASID.
        assert_eq!(run(1, bits), refused);
    }
    assert_eq!(run(3, of_process | privileged), 2);
    e.config_write(config_space::ATS + 4, 0, 1 << 31);
    e.config_write(PASID_CONTROL, 1 << 16, 7 << 16);
    e.config_write(config_space::ATS + 4, 1 << 31, 1 << 31);
    for bits in [execute, privileged] {
        assert_eq!(run(1, of_process | bits), refused);
        assert_eq!(run(2, of_process | read | last | bits), refused);
    }
    assert_eq!(run(3, of_process | privileged), refused);
}

#[test]
fn a_privileged_page_that_is_taken_away_is_requested_anew() {
    let world = world();
    start_privileged(&world);
    *world.service.lock().unwrap() = Service::Later;
    world.map_absent(1, HERE, true);
    world.change(1, HERE, |m| m.supervisor = true);
    let record = perform_privileged(&world, fill(HERE, 8));
    assert_eq!(record.status, status::PENDING);
    world.set(1, context::CONTROL, control::STOP);
    assert_eq!(state(&world, 1).0, states::STOPPING);
    world.serve(ResponseCode::Success);
    assert_eq!(state(&world, 1).0, states::DISABLED);
}
