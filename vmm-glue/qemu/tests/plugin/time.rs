// SPDX-License-Identifier: GPL-2.0-or-later
//! What depends on time, which is that of the machine: it passes here only when a test lets it.

use std::time::Duration;

use serde_json::json;
use svm_abi::completion::{Error, status};
use svm_abi::registers;

use crate::client::has_clock;
use crate::context::{DESTINATION, fill, map_new, ready};

/// The time-out of the tests in milliseconds, as a property.
const TIMEOUT: &str = ",page-response-timeout=50";

#[test]
fn a_page_request_without_response_fails_its_descriptor_in_time() {
    if !has_clock() {
        return;
    }
    let Some((mut machine, mut context)) = ready(TIMEOUT) else {
        return;
    };
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 1));
    let request = machine.wait_page_request();
    // Not before its time.
    machine.qemu.clock_step(Duration::from_millis(49));
    let record = context.completion(&mut machine, number);
    assert_eq!(record.status, status::PENDING);
    let mut steps = 0;
    while context.completion(&mut machine, number).status == status::PENDING {
        machine.qemu.clock_step(Duration::from_millis(1));
        steps += 1;
        assert!(steps < 100_000, "the page request never times out");
    }
    let record = context.completion(&mut machine, number);
    assert_eq!(Error::from_u8(record.error), Some(Error::ResponseTimeout));
    // A late response harms nobody, and the next request is answered.
    machine.respond(&request, 0);
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 2));
    let request = machine.wait_page_request();
    let frame = map_new(&mut machine, DESTINATION);
    machine.respond(&request, 0);
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    assert_eq!(machine.qemu.readq(frame), 2);
    machine.qemu.quit();
}

#[test]
fn no_time_passes_while_the_machine_is_stopped() {
    if !has_clock() {
        return;
    }
    let Some((mut machine, mut context)) = ready(TIMEOUT) else {
        return;
    };
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 1));
    let request = machine.wait_page_request();
    machine.qemu.qmp("stop", json!({})).unwrap();
    machine.qemu.wait_event("STOP");
    // Longer than the time-out, by the clock on the wall.
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_millis(100) {
        let record = context.completion(&mut machine, number);
        assert_eq!(record.status, status::PENDING);
    }
    machine.qemu.qmp("cont", json!({})).unwrap();
    machine.qemu.wait_event("RESUME");
    map_new(&mut machine, DESTINATION);
    machine.respond(&request, 0);
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    machine.qemu.quit();
}

/// With stop markers a context does not wait for responses: what it asked for ends with the
/// marker, behind which nothing of it can come.
#[test]
fn a_stop_marker_takes_the_place_of_the_wait_for_responses() {
    for markers in [false, true] {
        let properties = if markers { ",stop-markers=on" } else { "" };
        let Some((mut machine, mut context)) = ready(properties) else {
            return;
        };
        context.submit(&mut machine, fill(DESTINATION, 8, 1));
        let request = machine.wait_page_request();
        context.write(
            &mut machine,
            registers::context::CONTROL,
            registers::control::STOP,
        );
        let disabled = registers::status::DISABLED;
        let status = registers::context_block(context.number) + registers::context::STATUS;
        let at = context.bars.registers + status;
        if markers {
            let marker = machine.wait_page_request();
            assert_eq!((marker.sid, marker.pasid), (request.sid, request.pasid));
            assert!(!marker.read && !marker.write && marker.last, "{marker:?}");
        } else {
            let state = registers::status::state(machine.qemu.readq(at));
            assert_ne!(state, disabled);
            machine.respond(&request, 0);
        }
        machine.qemu.until("the end of the context", |qemu| {
            registers::status::state(qemu.readq(at)) == disabled
        });
        machine.qemu.quit();
    }
}
