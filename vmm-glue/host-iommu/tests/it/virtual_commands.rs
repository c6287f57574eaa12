// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual commands from a guest through a unit to its host, and the allocator that they make.

use crate::bench::pasid;
use host_iommu::ids::{Allocator, AllocatorId, IdSpaces, MAX_ID, Provider, SetId};
use host_iommu::virtual_commands::{CommandError, Registers, VirtualCommandAllocator, answer};
use std::cell::RefCell;
use std::rc::Rc;
use vtd::spec::register::offset;
use vtd::spec::virtual_command::{Command, Response, Status};
use vtd::{Capabilities, Config, Effect, Effects, Unit, VirtualCommandEnd};

const GUEST: SetId = SetId(1);

/// A unit with its host, which answers when the response is looked at for the nth time.
struct Machine {
    unit: Unit,
    ids: IdSpaces<()>,
    pending: Option<Command>,
    /// How often the guest has looked at a response.
    looks: u32,
    delay: u32,
    /// A response that no host gives.
    strange: Option<u64>,
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Machine>>);

impl Registers for Shared {
    fn read(&mut self, offset: u16) -> u64 {
        let mut machine = self.0.borrow_mut();
        if offset == offset::VCRSP {
            machine.looks += 1;
            if machine.looks > machine.delay {
                if let Some(command) = machine.pending.take() {
                    let end = answer(&mut machine.ids, GUEST, command);
                    machine.unit.virtual_command_ended(end);
                }
            }
            if let Some(strange) = machine.strange {
                return strange;
            }
        }
        machine.unit.read(offset, 8)
    }

    fn write(&mut self, offset: u16, value: u64) {
        let mut machine = self.0.borrow_mut();
        let mut fx = Effects::new();
        machine.unit.write(offset, value, 8, &mut fx);
        for effect in fx {
            if let Effect::VirtualCommand(command) = effect {
                machine.pending = Some(command);
                machine.looks = 0;
            }
        }
    }
}

fn machine(virtual_commands: bool) -> Shared {
    let config = Config {
        virtual_commands,
        ..Config::default()
    };
    Shared(Rc::new(RefCell::new(Machine {
        unit: Unit::new(Capabilities::new(config).unwrap()),
        ids: IdSpaces::new(),
        pending: None,
        looks: 0,
        delay: 0,
        strange: None,
    })))
}

/// All ids from a number on belong to somebody else.
fn take_all_from(machine: &Shared, first: u32) {
    let ids = &mut machine.0.borrow_mut().ids;
    for id in first..=MAX_ID {
        ids.allocate(SetId(9), id, id, ()).unwrap();
    }
}

#[test]
pub(crate) fn n1_13_the_allocator_is_there_if_the_unit_reports_it() {
    assert!(VirtualCommandAllocator::new(machine(true), 9).is_some());
    assert!(VirtualCommandAllocator::new(machine(false), 9).is_none());
    // A unit that has the capability, and reports the command register without it.
    struct Lying;
    impl Registers for Lying {
        fn read(&mut self, offset: u16) -> u64 {
            u64::from(offset == offset::VCCAP)
        }
        fn write(&mut self, _: u16, _: u64) {}
    }
    assert!(VirtualCommandAllocator::new(Lying, 9).is_none());
    // As a custom allocator: ids of the guest are PASIDs of the host.
    let host = machine(true);
    host.0
        .borrow_mut()
        .ids
        .allocate(SetId(9), 1, 1, ())
        .unwrap();
    let mut ids = IdSpaces::new();
    let allocator = VirtualCommandAllocator::new(host.clone(), 9).unwrap();
    let boxed = Box::new(allocator);
    ids.register(AllocatorId(1), Provider(1), boxed).unwrap();
    assert_eq!(ids.allocate(SetId(5), 1, 99, "mm"), Some(2));
    assert_eq!(host.0.borrow().ids.in_use(), 2);
    ids.free(2).unwrap();
    assert_eq!(host.0.borrow().ids.in_use(), 1);
}

#[test]
pub(crate) fn what_the_host_gives_outside_of_the_range_is_given_back() {
    let host = machine(true);
    let mut allocator = VirtualCommandAllocator::new(host.clone(), 9).unwrap();
    assert_eq!(allocator.allocate(10, 20), None, "the host has given 1");
    assert_eq!(host.0.borrow().ids.in_use(), 0);
    assert_eq!(allocator.allocate(1, 1), Some(1));
}

#[test]
pub(crate) fn n1_14_every_pasid_is_an_id_of_the_host() {
    let mut ids: IdSpaces<()> = IdSpaces::new();
    let first = answer(&mut ids, GUEST, Command::AllocatePasid);
    assert_eq!(first, VirtualCommandEnd::Allocated(pasid(1)));
    assert_eq!(ids.find(Some(GUEST), 1, |_| true), Ok(Some(&())));
    // Not one that the host itself, or another guest, has.
    ids.allocate(SetId(2), 2, 2, ()).unwrap();
    let next = answer(&mut ids, GUEST, Command::AllocatePasid);
    assert_eq!(next, VirtualCommandEnd::Allocated(pasid(3)));
    let free =
        |ids: &mut IdSpaces<()>, number| answer(ids, GUEST, Command::FreePasid(pasid(number)));
    assert_eq!(free(&mut ids, 2), VirtualCommandEnd::InvalidPasid);
    assert_eq!(free(&mut ids, 1), VirtualCommandEnd::Freed);
    assert_eq!(free(&mut ids, 1), VirtualCommandEnd::InvalidPasid);
    assert_eq!(ids.in_use(), 2);
}

#[test]
pub(crate) fn n1_25_a_guest_waits_for_the_end_and_knows_the_errors() {
    let host = machine(true);
    let mut allocator = VirtualCommandAllocator::new(host.clone(), 4).unwrap();
    // In progress for a while.
    host.0.borrow_mut().delay = 3;
    assert_eq!(allocator.allocate_pasid(), Ok(pasid(1)));
    host.0.borrow_mut().delay = 4;
    assert_eq!(allocator.allocate_pasid(), Err(CommandError::TimedOut(4)));
    // What is in progress ends, and the next one begins.
    host.0.borrow_mut().delay = 0;
    host.read_response();
    assert_eq!(allocator.free_pasid(pasid(1)), Ok(()));
    assert_eq!(
        allocator.free_pasid(pasid(1)),
        Err(CommandError::InvalidPasid)
    );
    take_all_from(&host, 3);
    assert_eq!(allocator.allocate_pasid(), Ok(pasid(1)));
    assert_eq!(allocator.allocate_pasid(), Err(CommandError::NoPasid));
    host.0.borrow_mut().strange = Some(Response::ended(Status::Unknown(9), 0));
    let unknown = Err(CommandError::Unknown(Status::Unknown(9)));
    assert_eq!(allocator.allocate_pasid(), unknown);
}

impl Shared {
    /// Looks at the response, as somebody else does.
    fn read_response(&self) {
        self.clone().read(offset::VCRSP);
    }
}
