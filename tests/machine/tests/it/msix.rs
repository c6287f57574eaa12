// SPDX-License-Identifier: MIT OR Apache-2.0
//! Masked interrupts wait, and are sent once they may be.

use machine::msix::{ENTRY_SIZE, MASKED, PENDING};
use machine::os::{App, nop};
use pcie_ats::Reset;
use svm_abi::descriptor::{Descriptor, flags};
use svm_abi::ids::MSIX_BAR;

/// The command register, and its bit for bus mastering.
const COMMAND: (u16, u32) = (4, 1 << 2);

/// Completes a descriptor that asks for an interrupt, and returns how many were delivered.
fn interrupts(app: &App) -> usize {
    let done = app.perform(Descriptor {
        flags: flags::INTERRUPT,
        ..nop()
    });
    assert_eq!(done.error, 0);
    delivered(app)
}

fn delivered(app: &App) -> usize {
    app.os().settle();
    app.machine().interrupts().take().len()
}

fn control(app: &App) -> u64 {
    u64::from(app.context()) * ENTRY_SIZE + 8
}

fn mask(app: &App, masked: bool) {
    let old = app.machine().bar_read(0, MSIX_BAR, control(app), 8);
    let new = old & !MASKED | if masked { MASKED } else { 0 };
    app.machine().bar_write(0, MSIX_BAR, control(app), new, 8);
}

fn pending(app: &App) -> u64 {
    app.machine().bar_read(0, MSIX_BAR, PENDING, 8)
}

#[test]
fn rule_72_a_masked_vector_keeps_its_interrupt() {
    let app = App::quick();
    assert_eq!(interrupts(&app), 1);
    mask(&app, true);
    for _ in 0..3 {
        assert_eq!(interrupts(&app), 0);
    }
    assert_eq!(pending(&app), 1 << app.context());
    // The bits are read-only.
    app.machine().bar_write(0, MSIX_BAR, PENDING, 0, 8);
    assert_eq!(pending(&app), 1 << app.context());
    mask(&app, false);
    // One message stands for all that came meanwhile.
    assert_eq!(delivered(&app), 1);
    assert_eq!(pending(&app), 0);
    assert_eq!(interrupts(&app), 1);
}

#[test]
fn rule_72_the_function_mask_and_enable_hold_all_vectors() {
    for (enabled, masked) in [(true, true), (false, false)] {
        let app = App::quick();
        app.machine().set_msix_control(0, enabled, masked);
        assert_eq!(interrupts(&app), 0);
        assert_ne!(pending(&app), 0);
        app.machine().set_msix_control(0, true, false);
        assert_eq!(delivered(&app), 1);
    }
}

#[test]
fn rule_68_a_pending_message_is_not_sent_without_bus_mastering() {
    let app = App::quick();
    mask(&app, true);
    assert_eq!(interrupts(&app), 0);
    let (command, master) = COMMAND;
    app.machine().config_write(0, command, 0, master);
    // The halt asks for no message either.
    mask(&app, false);
    assert_eq!(delivered(&app), 0);
    app.machine().config_write(0, command, master, master);
    assert_eq!(delivered(&app), 1);
}

#[test]
fn rule_67_a_reset_masks_all_vectors_and_forgets_what_was_pending() {
    let app = App::quick();
    mask(&app, true);
    assert_eq!(interrupts(&app), 0);
    app.machine().reset_function(0, Reset::FunctionLevel);
    assert_eq!(pending(&app), 0);
    let entry = app.machine().bar_read(0, MSIX_BAR, control(&app), 8);
    assert_eq!(entry, MASKED);
}

#[test]
fn entries_are_written_whole_or_in_halves() {
    let app = App::quick();
    let m = app.machine();
    let entry = 7 * ENTRY_SIZE;
    m.bar_write(0, MSIX_BAR, entry, 0x1_fee0_0013, 8);
    assert_eq!(m.bar_read(0, MSIX_BAR, entry, 8), 0x1_fee0_0010);
    m.bar_write(0, MSIX_BAR, entry + 4, 2, 4);
    assert_eq!(m.bar_read(0, MSIX_BAR, entry + 4, 4), 2);
    m.bar_write(0, MSIX_BAR, entry + 8, 0x55, 4);
    m.bar_write(0, MSIX_BAR, entry + 12, 1, 4);
    assert_eq!(m.bar_read(0, MSIX_BAR, entry + 8, 8), MASKED | 0x55);
    // Neither smaller accesses nor what is behind the table does anything.
    m.bar_write(0, MSIX_BAR, entry + 8, 0, 2);
    m.bar_write(0, MSIX_BAR, 65 * ENTRY_SIZE, !0, 8);
    assert_eq!(m.bar_read(0, MSIX_BAR, entry + 8, 8), MASKED | 0x55);
    assert_eq!(m.bar_read(0, MSIX_BAR, 65 * ENTRY_SIZE, 8), 0);
}
