// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page requests that meet software of every kind, and overflow.

use machine::os::{App, Behaviour, Driver, Mode, Os, copy, crc32c, fill};
use machine::{Machine, MachineConfig};
use pcie_ats::{Reset, ResponseCode};
use svm_abi::completion::Error;
use svm_abi::registers::status;
use vtd::spec::register::{offset, prs};

/// Several processes, each with a context of the first function.
fn apps(count: u16, pri_capacity: u32) -> (Machine, Os, Vec<App>) {
    let mut config = MachineConfig::default();
    config.functions[0].endpoint.pri_capacity = pri_capacity;
    let machine = Machine::new(&config).unwrap();
    let os = Os::boot(&machine, Mode::Scalable);
    let driver = Driver::probe(&os, 0);
    let apps = (0..count)
        .map(|context| App::start(&driver, os.process(), context))
        .collect();
    (machine, os, apps)
}

#[test]
fn groups_that_are_answered_in_reverse_order_are_all_served() {
    let (machine, os, apps) = apps(20, 512);
    os.set_behaviour(Behaviour::Reorder);
    let tickets: Vec<_> = apps
        .iter()
        .map(|app| app.submit(fill(app.process().map_absent(0x10_0000, 0x5000), 0x5000, 9)))
        .collect();
    // All have asked before the first is answered.
    machine.run_until_idle(10_000).unwrap();
    for (app, ticket) in apps.iter().zip(tickets) {
        assert_eq!(app.wait(ticket).map(|done| done.error), Some(0));
        assert_eq!(app.process().load(0x10_4ff8), 9);
    }
    assert_eq!(
        machine.with_unit(0, |u, _, _| u.counters().unexpected_responses),
        0
    );
}

#[test]
fn a_refused_request_fails_its_descriptor_only() {
    let app = App::quick();
    let base = app.process().map_absent(0x10_0000, 0x2000);
    app.os()
        .set_behaviour(Behaviour::Refuse(ResponseCode::InvalidRequest));
    let done = app.perform(fill(base + 0x1000, 8, 1));
    assert_eq!(
        (done.error, done.fault_address),
        (Error::PageFault as u8, base + 0x1000)
    );
    app.os().set_behaviour(Behaviour::Serve);
    assert_eq!(app.perform(fill(base + 0x1000, 8, 1)).error, 0);
}

#[test]
fn a_response_failure_ends_page_requests_until_they_are_enabled_anew() {
    let app = App::quick();
    let base = app.process().map_absent(0x10_0000, 0x3000);
    app.os()
        .set_behaviour(Behaviour::Refuse(ResponseCode::ResponseFailure));
    assert_eq!(
        app.perform(fill(base, 8, 1)).error,
        Error::ResponseFailure as u8
    );
    app.os().set_behaviour(Behaviour::Serve);
    assert_eq!(
        app.perform(fill(base + 0x1000, 8, 1)).error,
        Error::NotPresent as u8
    );
    Driver::probe(app.os(), 0);
    let pri = svm_endpoint::config_space::PRI + 4;
    app.machine().config_write(0, pri, 0, 1);
    app.machine().config_write(0, pri, 1, 1);
    assert_eq!(app.perform(fill(base + 0x2000, 8, 1)).error, 0);
}

#[test]
fn a_delayed_group_waits_and_others_go_on() {
    let (_, os, apps) = apps(2, 64);
    os.set_behaviour(Behaviour::Delay);
    let first = apps[0].submit(fill(apps[0].process().map_absent(0x10_0000, 0x1000), 8, 1));
    assert_eq!(apps[0].wait(first), None);
    assert_eq!(os.delayed_page_requests(), 1);
    let other = apps[1].process().map(0x10_0000, 0x1000);
    assert_eq!(apps[1].perform(fill(other, 8, 1)).error, 0);
    assert_eq!(os.release_page_requests(), 1);
    assert_eq!(apps[0].wait(first).map(|done| done.error), Some(0));
}

#[test]
fn a_request_that_is_never_answered_is_ended_by_a_reset() {
    let app = App::quick();
    let base = app.process().map_absent(0x10_0000, 0x1000);
    app.os().set_behaviour(Behaviour::Ignore);
    let ticket = app.submit(fill(base, 8, 1));
    assert_eq!(app.wait(ticket), None);
    assert!(
        !app.driver().stop(app.context()),
        "it waits for its response"
    );
    assert_eq!(status::state(app.status()), status::STOPPING);
    app.machine().reset_function(0, Reset::FunctionLevel);
    assert_eq!(status::state(app.status()), status::DISABLED);
    let (os, process) = (app.os().clone(), app.process().clone());
    drop(app);
    os.set_behaviour(Behaviour::Serve);
    let app = App::start(&Driver::probe(&os, 0), process, 0);
    assert_eq!(app.perform(fill(base, 8, 2)).error, 0);
}

#[test]
fn a_request_that_is_lost_on_the_link_is_one_that_is_never_answered() {
    use std::sync::atomic::Ordering;
    let app = App::quick();
    app.machine()
        .link(0)
        .loses_page_requests
        .store(true, Ordering::Relaxed);
    let ticket = app.submit(fill(app.process().map_absent(0x10_0000, 0x1000), 8, 1));
    assert_eq!(app.wait(ticket), None);
}

#[test]
fn an_overflow_is_answered_by_the_unit_and_asked_again() {
    let (machine, os, apps) = apps(40, 1024);
    let tickets: Vec<_> = apps
        .iter()
        .map(|app| {
            let process = app.process();
            let (from, to) = (process.map_absent(0x10_0000, 0x1_0000), 0x40_0000);
            process.write(from, &from.to_le_bytes());
            process.map_absent(to, 0x1_0000);
            app.submit(copy(from, to, 0x1_0000))
        })
        .collect();
    // The queue has room for 127 requests, and nobody reads it.
    let overflow = || machine.unit_read(0, offset::PRS, 4) as u32 & prs::PRO != 0;
    for _ in 0..10_000 {
        if overflow() {
            break;
        }
        machine.step();
    }
    assert!(overflow());
    for (app, ticket) in apps.iter().zip(tickets) {
        assert_eq!(app.wait(ticket).map(|done| done.error), Some(0));
        assert_eq!(app.process().load(0x40_0000), 0x10_0000);
    }
    assert!(!overflow());
    let counters = machine.with_unit(0, |unit, _, _| *unit.counters());
    assert!(counters.page_requests_refused > 0);
    let event = Os::event_message(0, 2);
    let events = machine.interrupts().take();
    assert!(events.iter().any(|delivered| delivered.message == event));
    os.settle();
}

#[test]
fn an_exit_with_page_requests_outstanding_leaves_nothing_behind() {
    let (machine, os, mut apps) = apps(2, 64);
    os.set_behaviour(Behaviour::Delay);
    let app = apps.remove(0);
    let base = app.process().map_absent(0x10_0000, 0x4000);
    let ticket = app.submit(fill(base, 0x4000, 1));
    assert_eq!(app.wait(ticket), None);
    let pasid = app.process().pasid();
    let driver = app.driver().clone();
    drop(app.exit().unwrap());
    os.settle();
    // The next process gets its PASID, and no page, no answer and no translation of it.
    let heir = App::start(&driver, os.process(), 0);
    assert_eq!(heir.process().pasid(), pasid);
    os.set_behaviour(Behaviour::Serve);
    assert_eq!(heir.perform(crc32c(base, 8)).error, Error::PageFault as u8);
    heir.process().map(base, 0x1000);
    assert_eq!(heir.perform(fill(base, 0x1000, 5)).error, 0);
    assert_eq!(heir.process().load(base), 5);
    assert_eq!(
        machine.with_unit(0, |u, _, _| u.counters().unexpected_responses),
        0
    );
}

#[test]
fn a_pasid_is_used_again_without_a_trace_of_its_last_life() {
    let machine = Machine::new(&MachineConfig::default()).unwrap();
    let os = Os::boot(&machine, Mode::Scalable);
    let driver = Driver::probe(&os, 0);
    let mut seen = std::collections::HashSet::new();
    for round in 0..100 {
        let app = App::start(&driver, os.process(), round % 3);
        seen.insert(app.process().pasid());
        let base = app.process().map(0x10_0000, 0x2000);
        app.process().store(base, u64::from(round));
        assert_eq!(app.perform(copy(base, base + 0x1000, 8)).error, 0);
        assert_eq!(app.process().load(base + 0x1000), u64::from(round));
        drop(app.exit().unwrap());
    }
    assert_eq!(seen.len(), 1, "the PASID was not used again");
    assert_eq!(os.faults(0), []);
}
