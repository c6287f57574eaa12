// SPDX-License-Identifier: GPL-2.0-or-later
//! Snapshots and migration: what is in the devices is in this process only, so they are refused
//! with a message that says what stands in the way, and nothing else changes.

use serde_json::json;
use svm_abi::completion::status;

use crate::client::{Installation, Qemu};
use crate::context::{DESTINATION, fill, map_new, ready};
use crate::machine::{Machine, is_svm_vtd};

/// Tries to migrate and to take a snapshot; both must be refused for the sake of this device.
fn refused(machine: &mut Machine, device: &str) {
    let migration = json!({ "uri": "exec:cat >/dev/null" });
    let reason = machine.qemu.qmp("migrate", migration).unwrap_err();
    assert!(reason.contains(device), "{reason}");
    let command = json!({ "command-line": "savevm now" });
    let said = machine.qemu.qmp("human-monitor-command", command).unwrap();
    let said = said.as_str().unwrap_or_default();
    assert!(said.contains("Error") && said.contains(device), "{said}");
}

#[test]
fn both_are_refused_and_work_goes_on() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let device = if is_svm_vtd() { "svm-" } else { "svm-demo" };
    refused(&mut machine, device);
    // Work that waits for a page is not disturbed.
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 7));
    let request = machine.wait_page_request();
    refused(&mut machine, device);
    let frame = map_new(&mut machine, DESTINATION);
    machine.respond(&request, 0);
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    assert_eq!(machine.qemu.readq(frame), 7);
    machine.qemu.quit();
}

#[test]
fn a_unit_without_devices_refuses_too() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let qemu = Qemu::start(&installation, &["-device", "svm-vtd"]);
    let mut machine = Machine::from(qemu);
    refused(&mut machine, "svm-vtd");
    machine.qemu.quit();
}
