// SPDX-License-Identifier: MIT OR Apache-2.0
//! Raw requests.

use super::HERE;
use crate::testing::{Service, World};
use crate::{Config, config_space};
use pcie_ats::{Function, ResponseCode};
use svm_abi::completion::Error;
use svm_abi::registers::attributes::{self, LAST, READ};
use svm_abi::registers::{LABORATORY, capabilities, device, laboratory};

const PASID_1: u64 = 1 | attributes::PASID_PRESENT;

fn world() -> World {
    World::running_with(Config {
        laboratory: true,
        ..Config::default()
    })
}

fn write(world: &World, register: u64, value: u64) {
    world.endpoint.bar_write(0, LABORATORY + register, value, 8);
}

fn read(world: &World, register: u64) -> u64 {
    world.endpoint.bar_read(0, LABORATORY + register, 8)
}

/// Gives a command, and returns the state and reason afterwards.
fn command(world: &World, command: u64, address: u64, attributes: u64) -> (u64, u64) {
    write(world, laboratory::STATE, 0);
    write(world, laboratory::ADDRESS, address);
    write(world, laboratory::ATTRIBUTES, attributes);
    write(world, laboratory::COMMAND, command);
    assert_eq!(read(world, laboratory::STATE), 1);
    world.run();
    let state = read(world, laboratory::STATE);
    (state & 0xff, state >> 8)
}

#[test]
fn a_device_without_a_laboratory_has_none() {
    let world = World::running();
    write(&world, laboratory::ADDRESS, 1);
    write(&world, laboratory::COMMAND, 1);
    assert_eq!(read(&world, laboratory::ADDRESS), 0);
    assert_eq!(read(&world, laboratory::STATE), 0);
    assert_eq!(world.run(), 0);
    let capabilities = self::world().endpoint.bar_read(0, device::CAPABILITIES, 8);
    assert_ne!(capabilities & capabilities::LABORATORY, 0);
}

#[test]
fn a_raw_translation_request_shows_its_completion() {
    let world = world();
    let frame = world.map(1, HERE, false);
    assert_eq!(command(&world, 1, HERE, PASID_1), (2, 0));
    assert_eq!(read(&world, laboratory::TRANSLATED), frame);
    assert_eq!(read(&world, laboratory::COMPLETION), 12 | 1 << 8);
    // The result is not cached.
    assert_eq!(command(&world, 1, HERE, PASID_1), (2, 0));
    assert_eq!(world.inner.lock().unwrap().translations.len(), 2);
}

#[test]
fn raw_accesses_go_where_they_are_sent() {
    let world = world();
    let frame = world.map(1, HERE, true);
    write(&world, laboratory::DATA, 0x1122_3344_5566_7788);
    assert_eq!(command(&world, 6, frame + 8, 0), (2, 0));
    assert_eq!(command(&world, 4, HERE + 16, PASID_1), (2, 0));
    assert_eq!(world.peek(1, HERE + 8, 2), [0x88, 0x77]);
    assert_eq!(world.peek(1, HERE + 16, 2), [0x88, 0x77]);
    write(&world, laboratory::DATA, 0);
    assert_eq!(command(&world, 3, HERE + 8, PASID_1), (2, 0));
    assert_eq!(read(&world, laboratory::DATA), 0x1122_3344_5566_7788);
    write(&world, laboratory::DATA, 0);
    assert_eq!(command(&world, 5, frame + 16, 0), (2, 0));
    assert_eq!(read(&world, laboratory::DATA), 0x1122_3344_5566_7788);
    let refused = (3, Error::MemoryAccess as u64);
    assert_eq!(command(&world, 3, HERE + 0x1000, PASID_1), refused);
}

#[test]
fn a_raw_page_request_waits_for_its_response() {
    let world = world();
    *world.service.lock().unwrap() = Service::Later;
    let attributes = PASID_1 | READ | LAST | 77 << 48;
    assert_eq!(command(&world, 2, HERE, attributes), (1, 0));
    world.serve(ResponseCode::InvalidRequest);
    assert_eq!(
        read(&world, laboratory::STATE),
        3 | (Error::PageFault as u64) << 8
    );

    *world.service.lock().unwrap() = Service::Now;
    world.map_absent(1, HERE, true);
    assert_eq!(command(&world, 2, HERE, attributes), (2, 0));
    assert!(world.mapping(1, HERE).unwrap().present);
    // A request that does not end its group has no response.
    assert_eq!(command(&world, 2, HERE, attributes & !LAST), (2, 0));
}

#[test]
fn a_raw_request_that_the_state_of_the_function_forbids_is_not_sent() {
    let world = world();
    let frame = world.map(1, HERE, true);
    let e = &world.endpoint;
    let refused = (3, Error::NotPresent as u64);
    e.config_write(config_space::PRI + 4, 0, 0xffff);
    assert_eq!(command(&world, 2, HERE, PASID_1 | READ | LAST), refused);
    e.config_write(config_space::ATS + 4, 0, 0xffff_0000);
    assert_eq!(command(&world, 1, HERE, PASID_1), refused);
    assert_eq!(command(&world, 5, frame, 0), refused);
    assert_eq!(command(&world, 3, HERE, PASID_1), (2, 0));
    e.config_write(config_space::PASID + 4, 0, !0);
    assert_eq!(command(&world, 3, HERE, PASID_1), refused);
    e.config_write(4, 0, 4);
    assert_eq!(command(&world, 3, HERE, 0), refused);
    let inner = world.inner.lock().unwrap();
    assert!(inner.translations.is_empty() && inner.page_requests.is_empty());
}

#[test]
fn what_was_sent_is_shown_by_its_number() {
    let world = world();
    let frame = world.map(1, HERE, true);
    let shown = |number| {
        write(&world, laboratory::SENT_NUMBER, number);
        [
            laboratory::SENT_WHAT,
            laboratory::SENT_ADDRESS,
            laboratory::SENT_LENGTH,
        ]
        .map(|register| read(&world, register))
    };
    let first = read(&world, laboratory::SENT);
    assert_eq!(command(&world, 1, HERE, PASID_1), (2, 0));
    assert_eq!(command(&world, 6, frame + 8, 0), (2, 0));
    write(&world, laboratory::STATE, 0);
    write(&world, laboratory::ATTRIBUTES, PASID_1 | READ | LAST);
    write(&world, laboratory::ADDRESS, HERE);
    write(&world, laboratory::COMMAND, 2);
    assert_eq!(read(&world, laboratory::WORK), 1);
    world.run();
    assert_eq!(read(&world, laboratory::WORK), 0);
    assert_eq!(read(&world, laboratory::SENT), first + 3);
    assert_eq!(shown(first), [1 << 60 | PASID_1, HERE, 1]);
    assert_eq!(shown(first + 1), [6 << 60, frame + 8, 8]);
    assert_eq!(shown(first + 2), [2 << 60 | PASID_1 | READ | LAST, HERE, 0]);
    assert_eq!(shown(first + 3), [0; 3]);
}
