// SPDX-License-Identifier: MIT OR Apache-2.0
//! The function loses something it needs in every state that a descriptor can be in: one table of
//! states, one of events. Meanwhile the world checks each request: nothing may be sent that the
//! state of the function forbids.

use super::*;
use crate::testing::{Hook, RECORDS, RING, Service, World};
use crate::{Config, Power, config_space};
use pcie_ats::{AlignedRange, Function, Reset, ResponseCode};
use svm_abi::completion;
use svm_abi::registers::{context, control, halt, status};

/// The state of the current descriptor when the event occurs.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Submitted, but not yet started.
    Submitted,
    /// Its ring is being read.
    Fetching,
    /// A translation request is on its way.
    Translating,
    /// The first of several page requests is on its way.
    Requesting,
    /// It waits for the response to its page requests.
    Waiting,
    /// It waits for credits.
    Starving,
    /// The first half of a copy, its read, is on its way.
    Reading,
    /// Both halves of a copy are on their way, sent at the same moment.
    Copying,
    /// Its data is being written.
    Writing,
    /// An atomic operation is on its way.
    Adding,
    /// The array of a batch is being read.
    ReadingArray,
    /// The data of an entry of a batch is being written.
    InBatch,
    /// The first half of its record is being written.
    Recording,
    /// Its interrupt is being sent.
    Interrupting,
    /// It has completed.
    Completed,
}

const MOMENTS: [Moment; 15] = [
    Moment::Submitted,
    Moment::Fetching,
    Moment::Translating,
    Moment::Requesting,
    Moment::Waiting,
    Moment::Starving,
    Moment::Reading,
    Moment::Copying,
    Moment::Writing,
    Moment::Adding,
    Moment::ReadingArray,
    Moment::InBatch,
    Moment::Recording,
    Moment::Interrupting,
    Moment::Completed,
];

/// The event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    FunctionLevelReset,
    ConventionalReset,
    BusMasterOff,
    AtsOff,
    PasidOff,
    PriOff,
    PriOffAndReset,
    D3,
    SurpriseRemoval,
    Stop,
}

const EVENTS: [Event; 10] = [
    Event::FunctionLevelReset,
    Event::ConventionalReset,
    Event::BusMasterOff,
    Event::AtsOff,
    Event::PasidOff,
    Event::PriOff,
    Event::PriOffAndReset,
    Event::D3,
    Event::SurpriseRemoval,
    Event::Stop,
];

impl Event {
    fn happen(self, world: &World) {
        let e = &world.endpoint;
        match self {
            Event::FunctionLevelReset => e.reset(Reset::FunctionLevel),
            Event::ConventionalReset => e.reset(Reset::Conventional),
            Event::BusMasterOff => e.config_write(4, 0, 4),
            Event::AtsOff => e.config_write(config_space::ATS + 4, 0, 1 << 31),
            Event::PasidOff => {
                // It changes only while ATS is off.
                e.config_write(config_space::ATS + 4, 0, 1 << 31);
                e.config_write(config_space::PASID + 4, 0, 1 << 16);
            }
            Event::PriOff => e.config_write(config_space::PRI + 4, 0, 1),
            Event::PriOffAndReset => {
                e.config_write(config_space::PRI + 4, 0, 1);
                e.config_write(config_space::PRI + 4, 2, 2);
            }
            Event::D3 => e.set_power(Power::D3Hot),
            Event::SurpriseRemoval => world.inner.lock().unwrap().gone = true,
            Event::Stop => world.set(0, context::CONTROL, control::STOP),
        }
    }

    /// Whether work continues.
    fn harmless(self) -> bool {
        matches!(self, Event::PriOff | Event::PriOffAndReset)
    }
}

/// A world in which the event occurred at a moment of a descriptor, and the address of the
/// descriptor's record.
fn reach(moment: Moment, event: Event) -> (World, u64) {
    let world = World::running_with(Config {
        pri_capacity: 4,
        ..Config::default()
    });
    world.judge();
    for page in 0..3 {
        world.map(1, HERE + (page << 12), true);
        world.map(1, THERE + (page << 12), true);
    }
    let warm = !matches!(moment, Moment::Fetching);
    if warm {
        success(world.perform(nop()));
    }
    let absent = |count: u64| {
        for page in 0..count {
            world.change(1, HERE + (page << 12), |m| m.present = false);
        }
        let range = AlignedRange::containing(HERE, 14).unwrap();
        let _ = world.invalidate(1, range);
    };
    let hook: Hook = Box::new(move |world| event.happen(world));
    let descriptor = match moment {
        Moment::Requesting => {
            absent(3);
            *world.on_page.lock().unwrap() = Some(hook);
            fill(HERE, 0x3000)
        }
        Moment::Waiting | Moment::Starving => {
            *world.service.lock().unwrap() = Service::Later;
            absent(1);
            fill(HERE, 8)
        }
        Moment::Translating => {
            *world.on_translate.lock().unwrap() = Some(hook);
            fill(HERE, 8)
        }
        Moment::Fetching | Moment::Reading | Moment::Copying => {
            world.inner.lock().unwrap().copies = matches!(moment, Moment::Copying);
            if !matches!(moment, Moment::Fetching) {
                success(world.perform(copy(HERE, THERE, 0x2000)));
                // Not the read of the ring, but that of the data.
                let later: Hook = Box::new(move |world| {
                    *world.on_read.lock().unwrap() = Some(Box::new(move |w| event.happen(w)));
                });
                *world.on_read.lock().unwrap() = Some(later);
            } else {
                *world.on_read.lock().unwrap() = Some(hook);
            }
            copy(HERE, THERE, 0x2000)
        }
        Moment::Writing => {
            *world.on_write.lock().unwrap() = Some(hook);
            fill(HERE, 0x2000)
        }
        Moment::Adding => {
            *world.on_write.lock().unwrap() = Some(hook);
            Descriptor {
                operation: Operation::FetchAdd as u8,
                ..fill(HERE, 0)
            }
        }
        Moment::ReadingArray | Moment::InBatch => {
            let array = THERE + 0x2000;
            for n in 0..64 {
                world.poke(1, array + 64 * n, &fill(HERE, 8).to_bytes());
            }
            if matches!(moment, Moment::InBatch) {
                *world.on_write.lock().unwrap() = Some(hook);
            } else {
                // Not the read of the ring, but that of the array.
                *world.on_read.lock().unwrap() = Some(Box::new(move |world| {
                    *world.on_read.lock().unwrap() = Some(Box::new(move |w| event.happen(w)));
                }));
            }
            Descriptor {
                operation: Operation::Batch as u8,
                flags: flags::BLOCK_ON_FAULT,
                source: array,
                length: 64,
                ..Descriptor::default()
            }
        }
        Moment::Recording => {
            *world.on_write.lock().unwrap() = Some(hook);
            nop()
        }
        Moment::Interrupting => {
            *world.on_interrupt.lock().unwrap() = Some(hook);
            Descriptor {
                flags: flags::INTERRUPT,
                ..nop()
            }
        }
        Moment::Submitted | Moment::Completed => nop(),
    };
    if let Moment::Starving = moment {
        // Other contexts hold all the credits.
        for n in 1..5u16 {
            let pasid = u32::from(n) + 1;
            world.start(n, pasid);
            world.map_absent(pasid, HERE, true);
            world.submit_to(n, pasid, fill(HERE, 8));
            world.run();
        }
    }
    let record = world.submit(descriptor);
    match moment {
        Moment::Submitted => event.happen(&world),
        Moment::Waiting | Moment::Starving | Moment::Completed => {
            world.run();
            event.happen(&world);
        }
        _ => {}
    }
    world.run();
    (world, record)
}

fn state(world: &World, n: u16) -> (u8, u8) {
    let value = world.get(n, context::STATUS);
    (status::state(value), status::error(value))
}

/// Restores the function to work, as a driver does.
fn recover(world: &World, event: Event) {
    let e = &world.endpoint;
    e.set_power(Power::D0);
    if event == Event::SurpriseRemoval {
        // It is plugged in again: after power-up nothing of its work is left.
        world.inner.lock().unwrap().gone = false;
        e.reset(Reset::Conventional);
    }
    for n in 0..5 {
        world.set(n, context::CONTROL, control::STOP);
    }
    e.config_write(config_space::PRI + 4, 0, 1);
    if event == Event::Stop || event.harmless() {
        while !world.serve(ResponseCode::Success).is_empty() {}
    }
    e.config_write(config_space::PRI + 4, 2, 2);
    world.inner.lock().unwrap().queue.clear();
    world.run();
    for n in 0..5 {
        assert_eq!(state(world, n).0, status::DISABLED, "context {n}");
    }
    e.config_write(config_space::ATS + 4, 0, 1 << 31);
    *world.service.lock().unwrap() = Service::Now;
    world.enable(4);
    world.start(0, 1);
    for address in [RING, RECORDS, HERE] {
        world.change(1, address, |m| m.present = true);
    }
    success(world.perform(fill(HERE, 8)));
}

#[test]
fn rule_67_to_71_every_event_has_its_outcome_in_every_state_of_a_descriptor() {
    for event in EVENTS {
        for moment in MOMENTS {
            let told = format!("{event:?} while {moment:?}");
            println!("{told}");
            let (world, record) = reach(moment, event);
            let sent = |world: &World| {
                let inner = world.inner.lock().unwrap();
                let pages = inner.page_requests.len();
                (inner.translations.len(), pages, inner.writes.len())
            };
            let finished = matches!(moment, Moment::Completed | Moment::Interrupting);
            let expected = match event {
                Event::FunctionLevelReset | Event::ConventionalReset => {
                    (status::DISABLED, halt::NONE)
                }
                // All registers read as ones.
                Event::D3 => (0xff, 0xff),
                Event::Stop if matches!(moment, Moment::Waiting) => (status::STOPPING, halt::NONE),
                Event::Stop => (status::DISABLED, halt::NONE),
                Event::PriOff | Event::PriOffAndReset => (status::ENABLED, halt::NONE),
                _ => (status::HALTED, halt::FUNCTION_DISABLED),
            };
            if event == Event::SurpriseRemoval {
                // No response arrives: without a descriptor it fails, with one it waits for ever.
                let expected = match moment {
                    Moment::Submitted | Moment::Fetching => (status::HALTED, halt::RING_FAULT),
                    _ => (status::ENABLED, halt::NONE),
                };
                assert_eq!(state(&world, 0), expected, "{told}");
            } else {
                assert_eq!(state(&world, 0), expected, "{told}");
            }
            if !event.harmless() && !finished {
                // Abandoned without a record.
                let record = world.record(1, record);
                // A stop lets an access in flight end.
                let ends = event == Event::Stop && matches!(moment, Moment::Recording);
                let expected = if ends {
                    completion::status::SUCCESS
                } else {
                    completion::status::PENDING
                };
                assert_eq!(record.status, expected, "{told}");
            }
            // It remains in that state, whatever arrives from outside.
            let before = sent(&world);
            world.doorbell(0, world.get(0, context::TAIL).wrapping_add(1));
            if event == Event::SurpriseRemoval {
                world.run();
                assert_eq!(sent(&world), before, "{told}");
            } else if !event.harmless() && event != Event::Stop {
                let late = world.inner.lock().unwrap().queue.clone();
                for page in late.iter().filter(|page| page.last) {
                    world.respond(page, ResponseCode::Success);
                }
                world.run();
                assert_eq!(sent(&world), before, "{told}");
                let rf = world.endpoint.config_read(config_space::PRI + 4) >> 16 & 1;
                assert_eq!(rf, 0, "{told}");
            }
            // Nothing of it is left in the cache, unless it is used again or has not yet ended.
            let kept = matches!(
                event,
                Event::BusMasterOff | Event::D3 | Event::SurpriseRemoval
            ) || event.harmless();
            if !kept && expected.0 != status::STOPPING {
                let before = world.endpoint.bar_read(0, 0x100 + 8 * 8, 8);
                let _ = world.invalidate(1, AlignedRange::ALL);
                assert_eq!(
                    world.endpoint.bar_read(0, 0x100 + 8 * 8, 8),
                    before,
                    "{told}"
                );
            }
            recover(&world, event);
        }
    }
}

#[test]
pub(super) fn rule_71_in_d3_the_registers_are_silent_and_what_halted_is_told_in_d0() {
    let world = World::running();
    success(world.perform(nop()));
    world.endpoint.set_power(Power::D3Hot);
    assert_eq!(world.run(), 0);
    assert!(world.inner.lock().unwrap().interrupts.is_empty());
    assert_eq!(world.endpoint.bar_read(0, 0, 8), !0);
    assert_eq!(world.endpoint.bar_read(2, 4, 4), 0xffff_ffff);
    world.set(0, context::CONTROL, control::STOP);
    assert_ne!(world.endpoint.config_read(config_space::ATS + 4) >> 31, 0);
    world.endpoint.set_power(Power::D0);
    world.run();
    assert_eq!(state(&world, 0), (status::HALTED, halt::FUNCTION_DISABLED));
    assert_eq!(world.inner.lock().unwrap().interrupts, [1]);
    world.set(0, context::CONTROL, control::STOP);
    world.start(0, 1);
    success(world.perform(nop()));
}

#[test]
fn rule_68_a_copy_in_two_requests_sends_no_write_after_bus_master_is_off() {
    for at_one_moment in [false, true] {
        let world = World::running();
        world.map(1, HERE, true);
        world.map(1, THERE, true);
        success(world.perform(copy(HERE, THERE, 8)));
        world.inner.lock().unwrap().copies = at_one_moment;
        world.poke(1, HERE, &[7; 8]);
        *world.on_read.lock().unwrap() = Some(Box::new(|world| {
            // After the read of the ring.
            *world.on_read.lock().unwrap() = Some(Box::new(|world| {
                world.endpoint.config_write(4, 0, 4);
                world.inner.lock().unwrap().writes.clear();
            }));
        }));
        world.submit(copy(HERE, THERE, 8));
        world.run();
        // A write that was sent with the read arrives; a separate write is not sent any more.
        let sent = world.inner.lock().unwrap().writes.len();
        assert_eq!(sent, usize::from(at_one_moment));
        let byte = if at_one_moment { 7 } else { 0 };
        assert_eq!(world.peek(1, THERE, 8), [byte; 8]);
    }
}

#[test]
fn rule_55_a_failure_in_the_middle_of_a_group_ends_it() {
    let world = World::running();
    world.judge();
    world.start(1, 2);
    *world.service.lock().unwrap() = Service::Later;
    world.map_absent(2, HERE, true);
    world.submit_to(1, 2, fill(HERE, 8));
    world.run();
    for page in 0..3 {
        world.map_absent(1, HERE + (page << 12), true);
    }
    *world.on_page.lock().unwrap() = Some(Box::new(|world| {
        world.serve(ResponseCode::ResponseFailure);
    }));
    // The world's check would reject a second request.
    let record = world.submit(fill(HERE, 0x3000));
    *world.service.lock().unwrap() = Service::Later;
    world.inner.lock().unwrap().judge = false;
    world.run();
    let requests = world.inner.lock().unwrap().page_requests.len();
    assert_eq!(requests, 2, "one of each group");
    assert_eq!(failure(world.record(1, record)).0, Error::ResponseFailure);
    // The device does not wait for the interrupted group.
    let pri = config_space::PRI + 4;
    world.endpoint.config_write(pri, 0, 1);
    assert_ne!(world.endpoint.config_read(pri) >> 24 & 1, 0);
}
