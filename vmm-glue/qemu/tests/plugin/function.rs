// SPDX-License-Identifier: GPL-2.0-or-later
//! The state of the function: power, and interrupts that are masked.

use svm_abi::descriptor::Descriptor;
use svm_abi::{ids, registers};

use crate::client::Installation;
use crate::context::{Context, DESTINATION, PASID, enabled, fill, map_new, ready};
use crate::machine::{Address, DEVICE, Machine};
use crate::msix::{MESSAGE, Msix, VECTOR};

/// The power states that software may write.
const D0: u32 = 0;
const D1: u32 = 1;
const D3HOT: u32 = 3;

/// Writes a power state, and returns the one that is read then.
fn power(machine: &mut Machine, state: u32) -> u32 {
    let control = machine.capability(DEVICE, 0x01) + 4;
    let value = machine.config_read(DEVICE, control) & !3;
    machine.config_write(DEVICE, control, value | state);
    machine.config_read(DEVICE, control) & 3
}

/// IDENT, which reads as all ones where nobody answers.
fn ident(machine: &mut Machine, context: &Context) -> u64 {
    let at = context.bars.registers + registers::device::IDENT;
    machine.qemu.readq(at)
}

#[test]
fn a_function_in_d3hot_is_silent_and_works_again_in_d0() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let frame = map_new(&mut machine, DESTINATION);
    let expected = u64::from(ids::IDENT_MAGIC) << 32 | u64::from(ids::ABI_VERSION);
    assert_eq!(ident(&mut machine, &context), expected);
    assert_eq!(power(&mut machine, D3HOT), D3HOT);
    assert_ne!(ident(&mut machine, &context), expected);
    // The doorbell is not heard.
    context.submit(&mut machine, fill(DESTINATION, 8, 0x11));
    assert_eq!(power(&mut machine, D0), D0);
    assert_eq!(ident(&mut machine, &context), expected);
    let state = registers::status::state(context.status(&mut machine));
    assert_eq!(state, registers::status::HALTED);
    assert_eq!(machine.qemu.readq(frame), 0);
    // What was programmed is kept (No_Soft_Reset), so a new start is enough.
    context.write(
        &mut machine,
        registers::context::CONTROL,
        registers::control::STOP,
    );
    let mut context = Context::start(&mut machine, context.bars, 1, PASID);
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x22));
    assert_eq!(machine.qemu.readq(frame), 0x22);
    machine.qemu.quit();
}

#[test]
fn a_function_level_reset_ends_d3hot() {
    let Some((mut machine, _context)) = ready("") else {
        return;
    };
    assert_eq!(power(&mut machine, D3HOT), D3HOT);
    machine.reset_function(DEVICE);
    let control = machine.capability(DEVICE, 0x01) + 4;
    assert_eq!(machine.config_read(DEVICE, control) & 3, D0);
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    let mut context = Context::start(&mut machine, bars, 1, PASID);
    let nop = Descriptor::default();
    context.succeed(&mut machine, nop);
    machine.qemu.quit();
}

#[test]
fn a_power_state_that_it_does_not_have_is_not_entered() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    assert_eq!(power(&mut machine, D1), D0);
    let nop = Descriptor::default();
    context.succeed(&mut machine, nop);
    machine.qemu.quit();
}

#[test]
fn an_interrupt_of_a_masked_vector_is_pending_until_it_is_unmasked() {
    type Mask = fn(&Msix, &mut Machine, bool);
    for mask in [Msix::mask as Mask, Msix::mask_all] {
        let Some((mut machine, mut context)) = ready("") else {
            return;
        };
        let msix = Msix::enable(&mut machine, DEVICE, &context);
        mask(&msix, &mut machine, true);
        // Two are one.
        msix.interrupt(&mut machine, &mut context);
        msix.interrupt(&mut machine, &mut context);
        assert_eq!(msix.state(&mut machine), (false, true));
        mask(&msix, &mut machine, false);
        assert_eq!(msix.state(&mut machine), (true, false));
        machine.qemu.writel(msix.mailbox, 0);
        msix.interrupt(&mut machine, &mut context);
        assert_eq!(msix.state(&mut machine), (true, false));
        machine.qemu.quit();
    }
}

#[test]
fn a_pending_interrupt_is_gone_after_a_reset() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let msix = Msix::enable(&mut machine, DEVICE, &context);
    msix.mask(&mut machine, true);
    msix.interrupt(&mut machine, &mut context);
    assert_eq!(msix.state(&mut machine), (false, true));
    machine.reset_function(DEVICE);
    let bars = machine.enable_bars(DEVICE);
    context.bars = bars;
    let msix = Msix::enable(&mut machine, DEVICE, &context);
    assert_eq!(msix.state(&mut machine), (false, false));
    machine.qemu.quit();
}

/// A register of QEMU's device `edu` that reads as the complement of what was written to it.
const EDU: Address = Address { bus: 0, slot: 6 };
const EDU_BAR: u64 = 0xe800_0000;
const EDU_COMPLEMENT: u64 = EDU_BAR + 4;

/// The messages go to a register of another device: QEMU notes each write of that.
#[test]
fn what_was_pending_is_one_message_and_none_after_a_reset() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let arguments = [
        "-device",
        "svm-demo,addr=4.0",
        "-device",
        "edu,addr=6.0",
        "-trace",
        "memory_region_ops_write",
        "-D",
        log.to_str().unwrap(),
    ];
    let messages = || {
        let text = std::fs::read_to_string(&log).unwrap();
        let to_edu = text.lines().filter(|line| line.contains("edu-mmio"));
        to_edu.count()
    };
    let (mut machine, mut context) = enabled(Machine::new(&installation, &arguments));
    machine.config_write(EDU, 0x10, EDU_BAR as u32);
    machine.config_write16(EDU, 4, 0x2);
    let msix = Msix::aimed_at(&mut machine, DEVICE, &context, EDU_COMPLEMENT);
    msix.mask(&mut machine, true);
    msix.interrupt(&mut machine, &mut context);
    msix.interrupt(&mut machine, &mut context);
    assert!(msix.state(&mut machine).1);
    assert_eq!(messages(), 0);
    type Mask = fn(&Msix, &mut Machine, bool);
    for mask in [Msix::mask as Mask, Msix::mask_all, Msix::mask] {
        mask(&msix, &mut machine, false);
        assert_eq!(machine.qemu.readl(EDU_COMPLEMENT), !MESSAGE);
        assert_eq!(messages(), 1);
        mask(&msix, &mut machine, true);
    }
    msix.interrupt(&mut machine, &mut context);
    assert!(msix.state(&mut machine).1);
    machine.reset_function(DEVICE);
    context.bars = machine.enable_bars(DEVICE);
    let msix = Msix::aimed_at(&mut machine, DEVICE, &context, EDU_COMPLEMENT);
    // It has gone neither to the function nor, with the mask, out of it.
    assert!(!msix.state(&mut machine).1);
    assert_eq!(messages(), 1);
    machine.enable_ats(DEVICE);
    let mut context = Context::start(&mut machine, context.bars, 1, PASID);
    let vector = registers::vector::ENABLE | u64::from(VECTOR);
    context.write(&mut machine, registers::context::VECTOR, vector);
    msix.interrupt(&mut machine, &mut context);
    machine.qemu.until("the message", |_| messages() > 1);
    machine.qemu.quit();
    assert_eq!(messages(), 2);
}

/// The function uses MSI-X only, never INTx.
#[test]
fn it_has_no_interrupt_pin() {
    let Some((mut machine, _context)) = ready("") else {
        return;
    };
    assert_eq!(machine.config_read(DEVICE, 0x3c) >> 8 & 0xff, 0);
    machine.qemu.quit();
}
