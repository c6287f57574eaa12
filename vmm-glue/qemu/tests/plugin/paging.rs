// SPDX-License-Identifier: GPL-2.0-or-later
//! Page requests and their responses, those of the guest and those that QEMU does not let reach it.

use std::time::Duration;

use svm_abi::completion::{Error, access, status};
use svm_abi::{counters, registers};
use svm_endpoint::config_space::PRI;

use crate::client::has_clock;
use crate::context::{Context, DESTINATION, PASID, SOURCE, copy, fill, map_new, ready};
use crate::machine::{DEVICE, Machine};

#[test]
fn a_missing_page_is_requested_and_used_when_it_is_there() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let source = map_new(&mut machine, SOURCE);
    machine.qemu.write(source, b"paged in on demand");
    let number = context.submit(&mut machine, copy(SOURCE, DESTINATION, 18));
    let request = machine.wait_page_request();
    assert_eq!((request.sid, request.pasid), (DEVICE.sid(), PASID));
    assert_eq!(
        (request.address, request.write, request.last),
        (DESTINATION, true, true)
    );
    assert_eq!(
        context.completion(&mut machine, number).status,
        status::PENDING
    );
    let destination = map_new(&mut machine, DESTINATION);
    machine.respond(&request, 0);
    let record = context.wait(&mut machine, number);
    assert_eq!(record.status, status::SUCCESS, "{record:?}");
    assert_eq!(machine.qemu.read(destination, 18), b"paged in on demand");
    assert_eq!(
        context.counter(&mut machine, counters::index::PRG_RESPONSES),
        1
    );
    assert_eq!(machine.page_requests_waiting(), 0);
    machine.qemu.quit();
}

#[test]
fn an_invalid_page_fails_its_descriptor_only() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let number = context.submit(&mut machine, fill(DESTINATION + 8, 8, 1));
    let request = machine.wait_page_request();
    machine.respond(&request, 1);
    let record = context.wait(&mut machine, number);
    assert_eq!(record.status, status::FAILURE, "{record:?}");
    assert_eq!(Error::from_u8(record.error), Some(Error::PageFault));
    assert_eq!(
        (record.fault_address, record.access),
        (DESTINATION + 8, access::WRITE)
    );
    let frame = map_new(&mut machine, DESTINATION);
    context.succeed(&mut machine, fill(DESTINATION + 8, 8, 1));
    assert_eq!(machine.qemu.readq(frame + 8), 1);
    machine.qemu.quit();
}

#[test]
fn a_response_failure_stops_page_requests_until_they_are_enabled_anew() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 1));
    let request = machine.wait_page_request();
    machine.respond(&request, 15);
    let record = context.wait(&mut machine, number);
    assert_eq!(
        Error::from_u8(record.error),
        Some(Error::ResponseFailure),
        "{record:?}"
    );
    // Response Failure.
    assert_ne!(machine.config_read(DEVICE, PRI + 4) & 1 << 16, 0);
    machine.config_write16(DEVICE, PRI + 4, 0);
    assert_ne!(
        machine.config_read(DEVICE, PRI + 4) & 1 << 24,
        0,
        "not stopped"
    );
    machine.config_write16(DEVICE, PRI + 4, 1);
    assert_eq!(machine.config_read(DEVICE, PRI + 4) & 1 << 16, 0);
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 1));
    let request = machine.wait_page_request();
    map_new(&mut machine, DESTINATION);
    machine.respond(&request, 0);
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    machine.qemu.quit();
}

#[test]
fn a_full_page_request_queue_delays_and_loses_nothing() {
    // The device asks again in a while, by the clock of the machine.
    if !has_clock() {
        return;
    }
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    machine.fill_page_queue(true);
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 1));
    // Refused requests are answered on behalf of the guest, and sent again.
    let bars = context.bars;
    let responses = registers::context_block(1)
        + registers::CONTEXT_COUNTERS
        + 8 * counters::index::PRG_RESPONSES as u64;
    machine.qemu.until("two automatic responses", |qemu| {
        qemu.readq(bars.registers + responses) >= 2
    });
    assert!(machine.page_queue_overflowed());
    assert_eq!(
        context.completion(&mut machine, number).status,
        status::PENDING
    );
    machine.fill_page_queue(false);
    machine.qemu.clock_step(Duration::from_millis(1));
    let request = machine.wait_page_request();
    assert_eq!(request.address, DESTINATION);
    let frame = map_new(&mut machine, DESTINATION);
    machine.respond(&request, 0);
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    assert_eq!(machine.qemu.readq(frame), 1);
    machine.qemu.quit();
}

#[test]
fn page_requests_that_the_context_entry_denies_are_invalid() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    // The ring's pages first, which page requests are not needed for.
    map_new(&mut machine, SOURCE);
    context.succeed(&mut machine, fill(SOURCE, 8, 1));
    machine.deny_page_requests(DEVICE);
    let record = context.run(&mut machine, fill(DESTINATION, 8, 1));
    assert_eq!(record.status, status::FAILURE, "{record:?}");
    assert_eq!(Error::from_u8(record.error), Some(Error::PageFault));
    assert_eq!(machine.page_requests_waiting(), 0);
    machine.qemu.quit();
}

#[test]
fn a_page_that_is_read_only_is_requested_for_writing() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let frame = machine.page();
    machine.map(PASID, DESTINATION, frame, false);
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 1));
    let request = machine.wait_page_request();
    assert!(request.write, "{request:?}");
    machine.respond(&request, 1);
    let record = context.wait(&mut machine, number);
    assert_eq!(
        Error::from_u8(record.error),
        Some(Error::PageFault),
        "{record:?}"
    );
    assert_eq!(machine.qemu.readq(frame), 0);
    machine.qemu.quit();
}

#[test]
fn a_late_response_gives_credits_back_however_many_processes_came_since() {
    let Some(mut machine) = Machine::with(",stop-markers=on") else {
        return;
    };
    use registers::{context as register, control, pasid as field};
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    // One page request at a time.
    machine.config_write16(DEVICE, PRI + 4, 0);
    machine.config_write(DEVICE, PRI + 12, 1);
    machine.config_write16(DEVICE, PRI + 4, 1);
    machine.enable_vtd(&[DEVICE]);
    machine.add_pasid(PASID);
    let mut context = Context::start(&mut machine, bars, 1, PASID);
    context.submit(&mut machine, fill(DESTINATION, 8, 1));
    let late = machine.wait_page_request();
    let stop = |machine: &mut Machine, context: &Context| {
        context.write(machine, register::CONTROL, control::STOP);
        let at = bars.registers + registers::context_block(context.number) + register::STATUS;
        machine.qemu.until("the context to stop", |qemu| {
            registers::status::state(qemu.readq(at)) == registers::status::DISABLED
        });
    };
    stop(&mut machine, &context);
    // More than are kept while nobody uses them.
    for pasid in 1..=70 {
        context.write(&mut machine, register::PASID, field::VALID | pasid);
        context.write(&mut machine, register::CONTROL, control::START);
        let status = registers::status::state(context.status(&mut machine));
        assert_eq!(status, registers::status::ENABLED);
        stop(&mut machine, &context);
    }
    while let Some(marker) = machine.page_request() {
        assert!(!marker.read && !marker.write, "{marker:?}");
    }
    machine.respond(&late, 0);
    let other = PASID + 1;
    machine.add_pasid(other);
    let mut context = Context::start(&mut machine, bars, 2, other);
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 2));
    let request = machine.wait_page_request();
    assert_eq!((request.pasid, request.write), (other, true));
    let frame = machine.page();
    machine.map(other, DESTINATION, frame, true);
    machine.respond(&request, 0);
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    machine.qemu.quit();
}

/// Where the machine has no memory.
const NOWHERE: u64 = 0x4000_0000;

/// Of a request that cannot be queued the function is told that its requests are lost, and not
/// that the page does not exist (PCIe 10.4.2).
#[test]
fn page_requests_whose_queue_is_no_memory_are_response_failures() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    map_new(&mut machine, SOURCE);
    context.succeed(&mut machine, fill(SOURCE, 8, 1));
    machine.put_page_queue(Some(NOWHERE));
    let record = context.run(&mut machine, fill(DESTINATION, 8, 1));
    assert_eq!(
        (record.status, Error::from_u8(record.error)),
        (status::FAILURE, Some(Error::ResponseFailure)),
        "{record:?}"
    );
    assert!(!machine.page_request_is_pending());
    assert_eq!(machine.page_requests_waiting(), 0);
    // Response Failure. Page requests are off until software has enabled them anew.
    assert_ne!(machine.config_read(DEVICE, PRI + 4) & 1 << 16, 0);
    machine.put_page_queue(None);
    machine.config_write16(DEVICE, PRI + 4, 0);
    machine.config_write16(DEVICE, PRI + 4, 1);
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 2));
    let request = machine.wait_page_request();
    assert_eq!(request.address, DESTINATION);
    let frame = map_new(&mut machine, DESTINATION);
    machine.respond(&request, 0);
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    assert_eq!(machine.qemu.readq(frame), 2);
    machine.qemu.quit();
}
