// SPDX-License-Identifier: GPL-2.0-or-later
//! Resets, and enables that go away in the middle of work.

use svm_abi::{counters, registers};
use svm_endpoint::config_space::PRI;

use crate::context::{Context, DESTINATION, PASID, fill, map_new, ready};
use crate::machine::{Bars, DEVICE, Machine};

#[test]
fn without_bus_mastering_nothing_happens() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let frame = map_new(&mut machine, DESTINATION);
    machine.config_write16(DEVICE, 4, 0x2);
    context.submit(&mut machine, fill(DESTINATION, 8, 1));
    let status = registers::context_block(1) + registers::context::STATUS;
    let bars = context.bars;
    machine.qemu.until("the context to halt", |qemu| {
        let status = qemu.readq(bars.registers + status);
        registers::status::state(status) == registers::status::HALTED
    });
    let status = context.status(&mut machine);
    assert_eq!(
        registers::status::error(status),
        registers::halt::FUNCTION_DISABLED
    );
    assert_eq!(machine.qemu.readq(frame), 0);
    machine.qemu.quit();
}

/// Makes a device that has been reset ready again.
fn revive(machine: &mut Machine) -> (Bars, Context) {
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    let context = Context::start(machine, bars, 1, PASID);
    (bars, context)
}

#[test]
fn a_function_level_reset_drops_an_outstanding_page_request() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    context.submit(&mut machine, fill(DESTINATION, 8, 0x11));
    let request = machine.wait_page_request();
    machine.reset_function(DEVICE);
    let frame = map_new(&mut machine, DESTINATION);
    // Too late: nobody waits for it.
    machine.respond(&request, 0);
    assert_eq!(machine.qemu.readq(frame), 0);
    let (_, mut context) = revive(&mut machine);
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x22));
    assert_eq!(machine.qemu.readq(frame), 0x22);
    machine.qemu.quit();
}

/// An automatic response that waits for its time must not survive a reset: the device would
/// take it for one that it did not ask for.
#[test]
fn a_reset_forgets_automatic_responses() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    machine.fill_page_queue(true);
    context.submit(&mut machine, fill(DESTINATION, 8, 0x11));
    while !machine.page_queue_overflowed() {}
    machine.reset_function(DEVICE);
    let (bars, mut context) = revive(&mut machine);
    context.submit(&mut machine, fill(DESTINATION, 8, 0x22));
    // Automatic responses come at once: with the first of the new context, nothing of the old one is
    // to come any more.
    let responses = bars.registers
        + registers::context_block(1)
        + registers::CONTEXT_COUNTERS
        + 8 * counters::index::PRG_RESPONSES as u64;
    machine
        .qemu
        .until("an automatic response", |qemu| qemu.readq(responses) >= 1);
    // Unexpected Page Request Group Index.
    assert_eq!(machine.config_read(DEVICE, PRI + 4) & 1 << 17, 0);
    machine.qemu.quit();
}

/// What the endpoint's rules ignore must not change what QEMU checks.
#[test]
fn a_write_that_would_disable_pasid_under_ats_changes_nothing() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let frame = map_new(&mut machine, DESTINATION);
    machine.config_write16(DEVICE, svm_endpoint::config_space::PASID + 6, 0);
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x11));
    assert_eq!(machine.qemu.readq(frame), 0x11);
    machine.qemu.quit();
}

#[test]
fn a_reset_forgets_translations() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let old = map_new(&mut machine, DESTINATION);
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x11));
    machine.reset_function(DEVICE);
    let new = map_new(&mut machine, DESTINATION);
    machine.invalidate(DEVICE, PASID, DESTINATION);
    let (_, mut context) = revive(&mut machine);
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x22));
    assert_eq!(
        (machine.qemu.readq(old), machine.qemu.readq(new)),
        (0x11, 0x22)
    );
    machine.qemu.quit();
}
