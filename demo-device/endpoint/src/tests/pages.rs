// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page requests: groups, responses, credits, and the states of the interface.

use super::*;
use crate::testing::{RECORDS, RING, Service, World};
use crate::{Config, config_space};
use pcie_ats::{AlignedRange, Function, Pasid, Prgi, Reset, ResponseCode};
use std::collections::HashSet;
use svm_abi::completion::status as status_of_record;
use svm_abi::counters::index;
use svm_abi::doorbell;
use svm_abi::registers::{context, control, halt, lost as registers_of_lost, status};

fn world(service: Service) -> World {
    let world = World::running();
    success(world.perform(nop()));
    *world.service.lock().unwrap() = service;
    world
}

fn requested(world: &World) -> Vec<(u64, bool)> {
    let mut inner = world.inner.lock().unwrap();
    let requests = std::mem::take(&mut inner.page_requests);
    requests.iter().map(|r| (r.address, r.last)).collect()
}

fn pri_status(world: &World) -> u32 {
    world.endpoint.config_read(config_space::PRI + 4) >> 16
}

const RF: u32 = 1;
const UPRGI: u32 = 2;
const STOPPED: u32 = 1 << 8;

#[test]
fn rule_53_a_page_that_is_not_there_is_requested_translated_again_and_used() {
    let world = world(Service::Now);
    world.map_absent(1, HERE, true);
    success(world.perform(fill(HERE + 3, 64)));
    assert_eq!(requested(&world), [(HERE, true)]);
    assert_eq!(world.peek(1, HERE + 3, 64), [0x5a; 64]);
    assert_eq!(world.counter(0, index::PAGE_REQUESTS), 1);
    assert_eq!(world.counter(0, index::PRG_RESPONSES), 1);
}

#[test]
pub(super) fn rule_51_a_group_holds_the_pages_ahead_and_its_last_request_says_so() {
    let world = world(Service::Now);
    for page in 0..20 {
        world.map_absent(1, HERE + (page << 12), true);
    }
    world.change(1, HERE + 0x5000, |m| m.present = true);
    success(world.perform(fill(HERE + 0x800, 0x13_000)));
    let pages = |range: std::ops::Range<u64>| {
        let last = range.end - 1;
        range.map(move |page| (HERE + (page << 12), page == last))
    };
    let expected: Vec<_> = pages(0..5).chain(pages(6..20)).collect();
    assert_eq!(requested(&world), expected);
}

#[test]
pub(super) fn rule_50_a_request_says_what_the_access_needs() {
    let world = world(Service::Now);
    for page in 0..3 {
        world.map_absent(1, HERE + (page << 12), true);
    }
    success(world.perform(crc(HERE, 8)));
    success(world.perform(fill(HERE + 0x1000, 8)));
    success(world.perform(Descriptor {
        operation: Operation::FetchAdd as u8,
        length: 0,
        ..fill(HERE + 0x2000, 0)
    }));
    let inner = world.inner.lock().unwrap();
    let flags: Vec<_> = inner
        .page_requests
        .iter()
        .map(|r| (r.read, r.write))
        .collect();
    assert_eq!(flags, [(true, false), (false, true), (true, true)]);
}

#[test]
pub(super) fn rule_54_an_invalid_request_fails_its_descriptor_and_nothing_else() {
    let world = world(Service::Now);
    world.map_absent(1, HERE, false);
    assert_eq!(
        failure(world.perform(fill(HERE + 7, 64))),
        (Error::PageFault, HERE + 7, 1)
    );
    assert_eq!(
        failure(world.perform(crc(THERE, 64))),
        (Error::PageFault, THERE, 0)
    );
    success(world.perform(crc(HERE, 64)));
    assert_eq!(pri_status(&world) & (RF | UPRGI), 0);
}

#[test]
fn rule_54_of_a_group_only_the_page_that_does_not_exist_is_a_fault() {
    let world = world(Service::Now);
    for page in 0..3 {
        world.map_absent(1, HERE + (page << 12), true);
    }
    let record = world.perform(fill(HERE + 0x10, 0x4000));
    assert_eq!(failure(record), (Error::PageFault, HERE + 0x3000, 1));
    assert_eq!(record.bytes_done, 0x2ff0);
}

#[test]
fn without_block_on_fault_no_page_is_requested_for_data() {
    let world = world(Service::Now);
    world.map(1, HERE, true);
    world.map_absent(1, HERE + 0x1000, true);
    let record = world.perform(Descriptor {
        flags: 0,
        ..fill(HERE + 0x100, 0x1000)
    });
    assert_eq!(failure(record), (Error::NotPresent, HERE + 0x1000, 1));
    assert_eq!(record.bytes_done, 0xf00);
    assert_eq!(requested(&world), []);
}

#[test]
fn ring_and_record_are_requested_whatever_the_descriptor_says() {
    let world = World::new(Config::default());
    world.enable(64);
    for page in [RING, RECORDS] {
        world.map_absent(1, page, true);
    }
    world.start(0, 1);
    success(world.perform(nop()));
    assert_eq!(requested(&world), [(RING, true), (RECORDS, true)]);
}

#[test]
pub(super) fn rule_53_a_page_that_is_gone_again_is_requested_a_bounded_number_of_times() {
    let world = world(Service::Pretend);
    let record = world.submit(crc(HERE, 8));
    let ends = (0..10_000).any(|_| world.endpoint.step(&world) == crate::Step::Idle);
    assert!(ends, "{} requests", requested(&world).len());
    let exhausted = (Error::RetriesExhausted, HERE, 0);
    assert_eq!(failure(world.record(1, record)), exhausted);
    assert_eq!(requested(&world).len(), 1000);
    // The bound is for one access: the next one has all its attempts.
    *world.service.lock().unwrap() = Service::Now;
    world.map_absent(1, HERE, true);
    success(world.perform(crc(HERE, 8)));
}

/// The queue upstream is full, so requests are answered with success at once. A device that also
/// repeats at once uses up its attempts long before software has read the queue.
#[test]
fn rule_61_what_a_full_queue_answered_is_requested_ever_more_slowly() {
    let world = World::running_with(Config {
        page_request_backoff: 100,
        ..Config::default()
    });
    success(world.perform(nop()));
    *world.service.lock().unwrap() = Service::Pretend;
    world.map_absent(1, HERE, true);
    let record = world.submit(fill(HERE, 8));
    world.run();
    // The page may just have been evicted again: the first repetition is immediate.
    assert_eq!(requested(&world).len(), 2);
    let e = &world.endpoint;
    let mut now = 5000;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let due = e.tick(now).expect("it is to be repeated");
        assert_eq!(e.tick(due - 1), Some(due));
        assert!(!e.has_work() && requested(&world).is_empty());
        assert_eq!(e.tick(due), None);
        world.run();
        assert_eq!(requested(&world), [(HERE, true)]);
        waits.push(due - now);
        now = due;
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 100, 100]);
    *world.service.lock().unwrap() = Service::Now;
    let due = e.tick(now).unwrap();
    assert_eq!(e.tick(due), None);
    world.run();
    success(world.record(1, record));
    // The first repetition of the next access is immediate again.
    *world.service.lock().unwrap() = Service::Pretend;
    world.map_absent(1, THERE, true);
    requested(&world);
    world.submit(fill(THERE, 8));
    world.run();
    assert_eq!(requested(&world).len(), 2);
}

/// A pausing context waits for no response: a stop, a reset or disabling the interface ends the
/// pause.
#[test]
fn rule_61_a_repetition_that_is_due_later_keeps_nobody() {
    let resting = || {
        let world = World::running_with(Config {
            page_request_backoff: 100,
            ..Config::default()
        });
        *world.service.lock().unwrap() = Service::Pretend;
        world.map_absent(1, HERE, true);
        let record = world.submit(fill(HERE, 8));
        world.run();
        assert_eq!(world.endpoint.tick(10), Some(12));
        requested(&world);
        (world, record)
    };
    let (world, _) = resting();
    world.set(0, context::CONTROL, control::STOP);
    assert_eq!(world.get(0, context::STATUS), u64::from(status::DISABLED));
    assert_eq!(world.endpoint.tick(12), None);
    world.run();
    assert_eq!(requested(&world), []);

    let (world, _) = resting();
    world.endpoint.reset(Reset::FunctionLevel);
    assert_eq!(world.endpoint.tick(12), None);
    world.run();
    assert_eq!(requested(&world), []);

    let (world, record) = resting();
    world
        .endpoint
        .config_write(config_space::PRI + 4, 0, 0xffff);
    assert_eq!(pri_status(&world) & STOPPED, STOPPED);
    world.endpoint.tick(12);
    world.run();
    assert_eq!(failure(world.record(1, record)).0, Error::NotPresent);
    assert_eq!(requested(&world), []);
}

#[test]
pub(super) fn rule_16_the_size_of_a_hole_says_how_many_pages_are_wanted() {
    let world = world(Service::Now);
    let range = AlignedRange::containing(HERE, 21).unwrap();
    world.map_to(1, range, world.frames(21), true, false);
    let before = world.inner.lock().unwrap().translations.len();
    success(world.perform(fill(HERE + 0x5800, 0xf000)));
    // One request and one answer, of 2 MiB, for all sixteen pages.
    let expected: Vec<_> = (5..21).map(|n| (HERE + (n << 12), n == 20)).collect();
    assert_eq!(requested(&world), expected);
    let asked = world.inner.lock().unwrap().translations[before].pages;
    assert_eq!(asked, 16);
}

#[test]
pub(super) fn rule_61_a_success_that_was_none_is_asked_for_again() {
    // An overflowing queue answers with success and drops the request.
    let world = world(Service::Later);
    let contexts = 1..20;
    for n in contexts.clone() {
        let pasid = u32::from(n) + 1;
        world.start(n, pasid);
        for page in 0..3 {
            world.map_absent(pasid, HERE + (page << 12), true);
        }
        world.submit_to(n, pasid, fill(HERE, 0x3000));
    }
    for _ in 0..5 {
        world.run();
        let lost: Vec<_> = world.inner.lock().unwrap().queue.drain(..).collect();
        let last: Vec<_> = lost.iter().filter(|page| page.last).collect();
        assert_eq!(last.len(), 19);
        for page in last {
            world.respond(page, ResponseCode::Success);
        }
    }
    // A queue that has room for a few at a time finally serves all of them.
    let mut rounds = 0;
    loop {
        world.run();
        if world.serve(ResponseCode::Success).is_empty() {
            break;
        }
        let lost: Vec<_> = world.inner.lock().unwrap().queue.drain(..).collect();
        for page in lost.iter().filter(|page| page.last) {
            world.respond(page, ResponseCode::Success);
        }
        rounds += 1;
    }
    assert!(rounds <= 19, "{rounds}");
    for n in contexts {
        success(world.record(u32::from(n) + 1, RECORDS));
    }
}

#[test]
pub(super) fn rule_64_an_address_space_that_goes_away_ends_the_work_in_it() {
    let world = world(Service::Later);
    for page in 0..3 {
        world.map_absent(1, HERE + (page << 12), true);
    }
    world.submit(fill(HERE, 0x3000));
    world.submit(nop());
    world.run();
    // The process exits: none of its memory is left, and all requests are invalid.
    for address in [HERE, HERE + 0x1000, HERE + 0x2000, RING, RECORDS] {
        world.unmap(1, address);
    }
    let _ = world.invalidate(1, AlignedRange::ALL);
    let mut groups = 0;
    while !world.serve(ResponseCode::InvalidRequest).is_empty() {
        world.run();
        groups += 1;
    }
    // The group, its first page alone, and the records.
    assert_eq!(groups, 4);
    assert_eq!(world.counter(0, index::LOST_COMPLETIONS), 2);
    assert_eq!(world.get(0, context::HEAD), 3);
    world.doorbell(0, 5);
    world.run();
    world.serve(ResponseCode::InvalidRequest);
    world.run();
    let halted = status::encode(status::HALTED, halt::RING_FAULT);
    assert_eq!(world.get(0, context::STATUS), halted);
    world.set(0, context::CONTROL, control::STOP);
    assert_eq!(world.get(0, context::STATUS), u64::from(status::DISABLED));
}

#[test]
pub(super) fn rule_63_responses_come_in_any_order() {
    let world = world(Service::Later);
    for n in 1..40 {
        world.start(n, u32::from(n) + 1);
        world.submit_to(n, u32::from(n) + 1, fill(HERE, 8));
        world.map_absent(u32::from(n) + 1, HERE, true);
    }
    world.run();
    let mut groups: Vec<_> = world.inner.lock().unwrap().queue.drain(..).collect();
    assert_eq!(groups.len(), 39);
    let mut indices: Vec<_> = groups.iter().map(|r| r.prgi).collect();
    indices.sort_unstable();
    indices.dedup();
    assert_eq!(indices.len(), 39, "rule 49");
    groups.reverse();
    for group in groups {
        world.serve_group(&[group], ResponseCode::Success);
        world.run();
    }
    for n in 2..41 {
        success(world.record(n, RECORDS));
    }
}

#[test]
pub(super) fn rule_58_credits_bound_the_pages_outstanding() {
    let world = World::new(Config::default());
    world.enable(5);
    world.start(0, 1);
    world.start(1, 2);
    *world.service.lock().unwrap() = Service::Later;
    for page in 0..8 {
        world.map_absent(1, HERE + (page << 12), true);
        world.map_absent(2, HERE + (page << 12), true);
    }
    let records = [
        world.submit_to(0, 1, fill(HERE, 0x8000)),
        world.submit_to(1, 2, fill(HERE, 0x8000)),
    ];
    let mut rounds = 0;
    loop {
        world.run();
        assert!(world.inner.lock().unwrap().queue.len() <= 5);
        if world.serve(ResponseCode::Success).is_empty() {
            break;
        }
        rounds += 1;
    }
    assert!(rounds >= 4, "{rounds}");
    for (n, record) in records.into_iter().enumerate() {
        success(world.record(n as u32 + 1, record));
    }
}

/// Makes a context need more pages than fit in a group.
fn want_many_pages(world: &World, n: u16, pasid: u32) {
    world.start(n, pasid);
    for page in 0..32 {
        world.map_absent(pasid, HERE + (page << 12), true);
    }
    world.submit_to(n, pasid, fill(HERE, 0x20000));
    world.run();
}

#[test]
fn contexts_that_nobody_answers_leave_each_other_a_credit() {
    let config = Config {
        pri_capacity: 128,
        ..Config::default()
    };
    let world = World::new(config);
    world.enable(config.pri_capacity);
    *world.service.lock().unwrap() = Service::Later;
    // One after the other, as programs start: a context that has not started yet has its credit,
    // too.
    for n in 0..config.contexts {
        let pasid = u32::from(n) + 1;
        want_many_pages(&world, n, pasid);
        let inner = world.inner.lock().unwrap();
        let pasids: HashSet<_> = inner.queue.iter().map(|request| request.pasid).collect();
        assert_eq!(
            pasids.len(),
            usize::from(n) + 1,
            "a context could not request a page"
        );
        // As many as fit in a group, while there are enough.
        let own = Pasid::new(pasid).ok();
        let own = inner.queue.iter().filter(|request| request.pasid == own);
        assert!(n >= 4 || own.count() == 16, "context {n}");
        assert!(inner.queue.len() <= config.pri_capacity as usize);
    }
}

#[test]
fn with_few_credits_half_of_them_are_for_who_has_none() {
    let world = World::new(Config::default());
    world.enable(4);
    *world.service.lock().unwrap() = Service::Later;
    let mut queued = Vec::new();
    for n in 0..4 {
        let pasid = u32::from(n) + 1;
        want_many_pages(&world, n, pasid);
        queued.push(world.inner.lock().unwrap().queue.len());
    }
    assert_eq!(queued, [2, 3, 4, 4]);
}

#[test]
fn rule_58_an_allocation_of_nothing_permits_no_request() {
    let world = World::new(Config::default());
    world.enable(0);
    world.start(0, 1);
    world.map_absent(1, HERE, true);
    assert_eq!(
        failure(world.perform(fill(HERE, 8))),
        (Error::NotPresent, HERE, 1)
    );
    assert_eq!(requested(&world), []);
}

#[test]
pub(super) fn rule_55_a_failure_closes_the_interface_until_it_is_enabled_anew() {
    let world = world(Service::Later);
    world.start(1, 2);
    for pasid in [1, 2] {
        world.map_absent(pasid, HERE, true);
    }
    let first = world.submit_to(0, 1, fill(HERE, 8));
    let second = world.submit_to(1, 2, fill(HERE, 8));
    world.run();
    world.serve(ResponseCode::ResponseFailure);
    world.run();
    assert_eq!(pri_status(&world) & (RF | UPRGI), RF);
    // No access waits for a response that would be ignored.
    assert_eq!(failure(world.record(1, first)).0, Error::ResponseFailure);
    assert_eq!(failure(world.record(2, second)).0, Error::ResponseFailure);
    requested(&world);
    assert_eq!(failure(world.perform(fill(HERE, 8))).0, Error::NotPresent);
    assert_eq!(requested(&world), []);

    let e = &world.endpoint;
    e.config_write(config_space::PRI + 4, 0, 0xffff);
    assert_eq!(pri_status(&world) & STOPPED, 0, "one group is outstanding");
    world.serve(ResponseCode::Success);
    assert_eq!(pri_status(&world) & (STOPPED | UPRGI), STOPPED);
    e.config_write(config_space::PRI + 4, 1, 0xffff);
    assert_eq!(pri_status(&world) & (STOPPED | RF), 0);
    *world.service.lock().unwrap() = Service::Now;
    success(world.perform(fill(HERE, 8)));
}

#[test]
fn rule_55_a_failure_fails_its_own_descriptor() {
    let world = world(Service::Refuse(ResponseCode::ResponseFailure));
    world.map_absent(1, HERE, true);
    let record = world.perform(fill(HERE + 9, 8));
    assert_eq!(failure(record), (Error::ResponseFailure, HERE + 9, 1));
}

#[test]
pub(super) fn rule_56_a_response_to_nothing_is_noted_and_dropped() {
    let world = world(Service::Later);
    world.map_absent(1, HERE, true);
    let record = world.submit(fill(HERE, 8));
    world.run();
    let mut stray = world.inner.lock().unwrap().queue[0];
    stray.prgi = Prgi::new(stray.prgi.get() + 1).unwrap();
    world.respond(&stray, ResponseCode::InvalidRequest);
    world.run();
    assert_eq!(pri_status(&world) & UPRGI, UPRGI);
    assert_eq!(world.record(1, record).status, 0);
    world.serve(ResponseCode::Success);
    world.run();
    success(world.record(1, record));
}

#[test]
pub(super) fn rule_57_a_response_without_the_pasid_is_not_the_groups() {
    let world = world(Service::Later);
    world.map_absent(1, HERE, true);
    let record = world.submit(fill(HERE, 8));
    world.run();
    let mut bare = world.inner.lock().unwrap().queue[0];
    bare.pasid = None;
    world.respond(&bare, ResponseCode::Success);
    assert_eq!(pri_status(&world) & UPRGI, UPRGI);
    world.serve(ResponseCode::Success);
    world.run();
    success(world.record(1, record));
}

#[test]
pub(super) fn rule_59_disabling_stops_requests_and_waits_for_the_outstanding() {
    let world = world(Service::Later);
    for page in 0..2 {
        world.map_absent(1, HERE + (page << 12), true);
    }
    let record = world.submit(fill(HERE + 0xff8, 8));
    world.submit(fill(HERE + 0x1000, 8));
    world.run();
    let e = &world.endpoint;
    assert_eq!(pri_status(&world) & STOPPED, 0);
    e.config_write(config_space::PRI + 4, 0, 0xffff);
    assert_eq!(pri_status(&world) & STOPPED, 0);
    e.config_write(config_space::PRI + 4, 1, 0xffff);
    assert_eq!(e.config_read(config_space::PRI + 4) & 1, 0, "rule 9");
    requested(&world);
    world.serve(ResponseCode::Success);
    world.run();
    assert_eq!(pri_status(&world) & STOPPED, STOPPED);
    success(world.record(1, record));
    let next = world.record(1, record + 32);
    assert_eq!(failure(next), (Error::NotPresent, HERE + 0x1000, 1));
    assert_eq!(requested(&world), []);
}

#[test]
fn rule_59_a_reset_of_the_interface_forgets_what_is_outstanding() {
    let world = world(Service::Later);
    world.map_absent(1, HERE, true);
    let record = world.submit(fill(HERE, 8));
    world.run();
    let late = world.inner.lock().unwrap().queue[0];
    let e = &world.endpoint;
    e.config_write(config_space::PRI + 4, 2, 0xffff);
    assert_eq!(pri_status(&world) & STOPPED, 0, "reset needs enable off");
    e.config_write(config_space::PRI + 4, 0, 0xffff);
    e.config_write(config_space::PRI + 4, 2, 0xffff);
    assert_eq!(pri_status(&world) & STOPPED, STOPPED);
    world.run();
    assert_eq!(failure(world.record(1, record)).0, Error::NotPresent);
    world.respond(&late, ResponseCode::Success);
    assert_eq!(pri_status(&world) & UPRGI, 0);
    e.config_write(config_space::PRI + 4, 1, 0xffff);
    world.respond(&late, ResponseCode::Success);
    assert_eq!(pri_status(&world) & UPRGI, UPRGI);
}

/// Late responses to requests from before a reset of the function, which has forgotten these
/// requests. A response that arrives while page requests are disabled is dropped. A later one has
/// no matching request and is recorded (PCIe 10.5.2.3). None is mistaken for the response to a new
/// request.
#[test]
fn rule_56_a_response_of_before_a_reset_is_nobodys() {
    for kind in [Reset::FunctionLevel, Reset::Conventional] {
        let world = world(Service::Later);
        for page in 0..3 {
            world.map_absent(1, HERE + (page << 12), true);
        }
        world.start(1, 2);
        world.map_absent(2, HERE, true);
        world.submit(fill(HERE, 0x3000));
        world.submit_to(1, 2, fill(HERE, 8));
        world.run();
        let late = std::mem::take(&mut world.inner.lock().unwrap().queue);
        let late: Vec<_> = late.into_iter().filter(|request| request.last).collect();
        assert_eq!(late.len(), 2);
        world.endpoint.reset(kind);
        world.respond(&late[0], ResponseCode::ResponseFailure);
        assert_eq!(pri_status(&world) & (RF | UPRGI | STOPPED), STOPPED);
        world.enable(64);
        world.start(0, 1);
        requested(&world);
        let record = world.submit(fill(HERE, 0x3000));
        world.run();
        assert_eq!(requested(&world).len(), 3);
        for request in &late {
            let same = |new: &pcie_ats::PageRequest| new.prgi == request.prgi;
            assert!(!world.inner.lock().unwrap().queue.iter().any(same));
        }
        world.respond(&late[0], ResponseCode::InvalidRequest);
        assert_eq!(pri_status(&world) & (RF | UPRGI | STOPPED), UPRGI);
        // It would fail the new request, or close the interface for it.
        world.respond(&late[0], ResponseCode::ResponseFailure);
        world.run();
        assert_eq!(pri_status(&world) & (RF | UPRGI | STOPPED), UPRGI);
        assert_eq!(world.record(1, record).status, status_of_record::PENDING);
        world.serve(ResponseCode::Success);
        world.run();
        success(world.record(1, record));
    }
}

#[test]
pub(super) fn rule_65_a_stop_waits_for_the_responses() {
    let world = world(Service::Later);
    world.map_absent(1, HERE, true);
    let record = world.submit(fill(HERE, 8));
    world.run();
    world.set(0, context::CONTROL, control::STOP);
    assert_eq!(world.get(0, context::STATUS), u64::from(status::STOPPING));
    world.set(0, context::CONTROL, control::START);
    assert_eq!(world.get(0, context::STATUS), u64::from(status::STOPPING));
    world.run();
    world.serve(ResponseCode::Success);
    assert_eq!(world.get(0, context::STATUS), u64::from(status::DISABLED));
    assert_eq!(world.endpoint.pasids(), []);
    world.run();
    assert_eq!(
        world.record(1, record).status,
        0,
        "abandoned without a record"
    );
}

#[test]
fn a_ring_that_does_not_exist_halts_the_context_and_tells() {
    let world = world(Service::Now);
    world.unmap(1, RING);
    let _ = world.invalidate(1, AlignedRange::page(RING));
    world.doorbell(0, 2);
    world.run();
    assert_eq!(
        world.get(0, context::STATUS),
        status::encode(status::HALTED, halt::RING_FAULT)
    );
    assert_eq!(world.inner.lock().unwrap().interrupts, [1]);
}

#[test]
fn a_record_that_cannot_be_written_is_lost_and_the_context_goes_on() {
    let world = world(Service::Now);
    world.map(1, HERE, false);
    assert_eq!(world.get(0, context::LOST), 0);
    for (completion, why) in [
        (HERE, Error::PageFault),
        (THERE, Error::PageFault),
        (RECORDS + 8, Error::Misaligned),
        (1 << 60, Error::BadAddress),
        (!31, Error::PageFault),
    ] {
        let lost = world.counter(0, index::LOST_COMPLETIONS);
        let number = world.get(0, context::HEAD);
        world.submit(Descriptor {
            completion,
            ..nop()
        });
        world.run();
        assert_eq!(
            world.counter(0, index::LOST_COMPLETIONS),
            lost + 1,
            "{completion:#x}"
        );
        let told = registers_of_lost::encode(why as u8, number);
        assert_eq!(world.get(0, context::LOST), told, "{completion:#x}");
        // Its process can also see it.
        assert_eq!(world.endpoint.bar_read(2, doorbell::LOST, 8), told);
    }
    success(world.perform(nop()));
    world.set(0, context::CONTROL, control::STOP);
    world.start(0, 1);
    assert_eq!(world.get(0, context::LOST), 0);
}
