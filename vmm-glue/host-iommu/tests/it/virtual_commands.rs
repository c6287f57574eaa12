// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual commands from a guest through a unit to its host, and the allocator that they make.

use crate::bench::{holds, pasid};
use host_iommu::ids::{Allocator, AllocatorId, IdSpaces, MAX_ID, Provider, SetId};
use host_iommu::virtual_commands::{CommandError, Registers, VirtualCommandAllocator, answer};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeSet;
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
    // The one that it gave up waiting for was given back.
    for number in [1, 2] {
        assert_eq!(allocator.allocate_pasid(), Ok(pasid(number)));
    }
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

/// What happens to the registers of a unit and to the ids of its host.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The guest writes VCMD.
    Command(u64),
    /// Its upper half.
    Upper(u32),
    /// The host ends the command that it was told, if there is one.
    Answer,
    /// Somebody else takes an id, or frees one.
    Take(u32),
    GiveBack(u32),
    Reset,
}

/// Ids above this one belong to somebody else: there are soon none left.
const LAST: u32 = 4;

fn events() -> impl Strategy<Value = Vec<Event>> {
    // PASIDs of the guest, of others, beyond what there is, and one of more than 20 bits.
    let free = (0u64..LAST as u64 + 3).prop_map(|n| 2 | n << 16);
    let command = prop_oneof![
        4 => Just(1u64),
        4 => free,
        1 => (0u64..256).prop_map(|n| n | 3 << 16),
        1 => any::<u64>(),
    ];
    let id = || 1..=LAST;
    let event = prop_oneof![
        6 => command.prop_map(Event::Command),
        1 => any::<u32>().prop_map(Event::Upper),
        6 => Just(Event::Answer),
        2 => id().prop_map(Event::Take),
        2 => id().prop_map(Event::GiveBack),
        1 => Just(Event::Reset),
    ];
    proptest::collection::vec(event, 1..60)
}

/// The command of a word: 1, or 2 with its operand.
fn command(word: u64) -> Option<(u64, u32)> {
    matches!(word & 0xff, 1 | 2).then_some((word & 0xff, (word >> 16) as u32 & 0xf_ffff))
}

#[test]
pub(crate) fn commands_end_as_in_a_naive_model() {
    const OTHERS: SetId = SetId(9);
    thread_local! {
        // The ids are those of all cases: a million takes long to allocate.
        static HOST: Shared = {
            let host = machine(true);
            take_all_from(&host, LAST + 1);
            host
        };
    }
    let host = HOST.with(Clone::clone);
    holds(300, events(), |events| {
        let host = &mut *host.0.borrow_mut();
        let config = Config {
            virtual_commands: true,
            ..Config::default()
        };
        host.unit = Unit::new(Capabilities::new(config).unwrap());
        host.pending = None;
        for id in 1..=LAST {
            let _ = host.ids.free(id);
        }
        let (mut word, mut response, mut busy) = (0u64, 0u64, None);
        let (mut guest, mut others) = (BTreeSet::new(), BTreeSet::new());
        for event in events {
            let mut fx = Effects::new();
            let mut begun = None;
            match event {
                Event::Command(value) => {
                    if busy.is_none() {
                        word = value;
                        begun = command(value);
                        busy = begun;
                        // IP; or there is no such command.
                        response = if begun.is_some() { 1 } else { 1 << 1 };
                    }
                    host.unit.write(offset::VCMD, value, 8, &mut fx);
                }
                Event::Upper(value) => {
                    if busy.is_none() {
                        word = word & 0xffff_ffff | u64::from(value) << 32;
                    }
                    host.unit.write(offset::VCMD + 4, value.into(), 4, &mut fx);
                }
                Event::Answer => {
                    let answered = host.pending.take();
                    prop_assert_eq!(answered.is_some(), busy.is_some());
                    if let Some(command) = answered {
                        let end = answer(&mut host.ids, GUEST, command);
                        host.unit.virtual_command_ended(end);
                    } else {
                        // Nothing was asked for.
                        host.unit.virtual_command_ended(VirtualCommandEnd::NoPasid);
                    }
                    let none = 16 << 1;
                    response = match busy.take() {
                        None => response,
                        Some((1, _)) => {
                            let free = |id: &u32| !guest.contains(id) && !others.contains(id);
                            let id = (1..=LAST).find(free);
                            guest.extend(id);
                            id.map_or(none, |id| u64::from(id) << 16)
                        }
                        Some((_, id)) => {
                            if guest.remove(&id) {
                                0
                            } else {
                                none
                            }
                        }
                    };
                }
                Event::Take(id) => {
                    let taken = host.ids.allocate(OTHERS, id, id, ());
                    prop_assert_eq!(taken.is_some(), !guest.contains(&id) && others.insert(id));
                }
                Event::GiveBack(id) => {
                    if others.remove(&id) {
                        prop_assert_eq!(host.ids.free(id), Ok(()));
                    }
                }
                Event::Reset => {
                    host.unit.reset(&mut fx);
                    host.pending = None;
                    (word, response, busy) = (0, 0, None);
                }
            }
            let told = fx.into_iter().find_map(|effect| match effect {
                Effect::VirtualCommand(command) => Some(command),
                _ => None,
            });
            prop_assert_eq!(
                told.map(Command::to_word),
                begun.map(|(number, operand)| match number {
                    1 => 1,
                    _ => 2 | u64::from(operand) << 16,
                })
            );
            host.pending = told.or(host.pending);
            prop_assert_eq!(host.unit.read(offset::VCMD, 8), word);
            prop_assert_eq!(host.unit.read(offset::VCRSP, 8), response, "{:?}", event);
            let has = |id: &u32| host.ids.find(Some(GUEST), *id, |_| true).is_ok();
            let of_guest: BTreeSet<u32> = (1..=LAST).filter(has).collect();
            prop_assert_eq!(&of_guest, &guest);
        }
        Ok(())
    });
}

/// A guest allocates and frees while the host takes its time, and gives up waiting. What it is told
/// is what has become of its own command, and no PASID is lost.
#[test]
pub(crate) fn a_guest_that_has_given_up_is_told_of_its_next_command() {
    let step = (any::<bool>(), 0u32..6, 1u32..5);
    let steps = proptest::collection::vec(step, 1..30);
    holds(300, steps, |steps| {
        let host = machine(true);
        let mut allocator = VirtualCommandAllocator::new(host.clone(), 3).unwrap();
        let (mut own, mut perhaps) = (BTreeSet::new(), BTreeSet::new());
        for (allocates, delay, number) in steps {
            host.0.borrow_mut().delay = delay;
            match allocates {
                true => match allocator.allocate_pasid() {
                    Ok(id) => {
                        perhaps.remove(&id.get());
                        prop_assert!(own.insert(id.get()), "{id:?} twice");
                    }
                    Err(error) => prop_assert_eq!(error, CommandError::TimedOut(3)),
                },
                false => match allocator.free_pasid(pasid(number)) {
                    Ok(()) => {
                        let has = own.remove(&number) || perhaps.remove(&number);
                        prop_assert!(has, "{number} is not the guest's");
                    }
                    Err(CommandError::InvalidPasid) => prop_assert!(!own.contains(&number)),
                    Err(error) => {
                        prop_assert_eq!(error, CommandError::TimedOut(3));
                        // Nobody knows whether it is free.
                        perhaps.extend(own.take(&number));
                    }
                },
            }
        }
        // All that was asked for has ended.
        host.0.borrow_mut().delay = 0;
        let _ = allocator.free_pasid(pasid(LAST + 99));
        let machine = host.0.borrow();
        let has = |id: &u32| machine.ids.find(Some(GUEST), *id, |_| true).is_ok();
        let of_guest: BTreeSet<u32> = (1..200).filter(has).collect();
        let all = own.union(&perhaps).copied().collect();
        prop_assert!(
            of_guest.is_superset(&own) && of_guest.is_subset(&all),
            "{of_guest:?}"
        );
        Ok(())
    });
}
