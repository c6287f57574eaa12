// SPDX-License-Identifier: GPL-2.0-or-later
//! A processor that runs, with each accelerator that there is: what the device writes through the
//! unit, it reads, and the device's interrupts reach it by their remapping table entries. In the
//! other tests nobody is there to be interrupted.
//!
//! With KVM the guest's memory is seen through KVM's own copy of QEMU's memory map, and interrupts go
//! to the kernel's local APIC.

use std::fs::OpenOptions;

use svm_abi::completion::status;

use crate::client::{Installation, Qemu, skip};
use crate::context::{Context, copy};
use crate::machine::{DEVICE, Machine};
use crate::svm_vtd::{forbid_interrupts, interrupt, remap_interrupts};

const PASID: u32 = 0x123;
const SOURCE: u64 = 0x7f00_1020_0000;
const DESTINATION: u64 = 0x7f00_1020_3000;

/// Where the program counts its rounds.
const ROUNDS: u64 = 0x5000;
/// Where it counts the interrupts.
const INTERRUPTS: u64 = 0x5004;
/// What it found in [`FRAME`] when the last one came.
const SEEN: u64 = 0x5008;
/// The frame that the device writes to: a program in real mode reaches the first MiB.
const FRAME: u64 = 0x6000;

/// Size of the firmware.
const ROM: usize = 0x1_0000;
/// Offset of the handler of vector 0x41 in it.
const HANDLER: usize = 0x100;
/// Offset of the first instruction of a processor.
const RESET: usize = 0xfff0;

/// Counts rounds for ever, with the local APIC switched on.
const PROGRAM: &[u8] = &[
    0xfa, // cli
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0x8e, 0xd0, // mov ss, ax
    0xbc, 0x00, 0x70, // mov sp, 0x7000
    0xc7, 0x06, 0x04, 0x01, 0x00, 0x01, // mov word [4 * 0x41], HANDLER
    0xc7, 0x06, 0x06, 0x01, 0x00, 0xf0, // mov word [4 * 0x41 + 2], 0xf000
    0x66, 0xb9, 0x1b, 0x00, 0x00, 0x00, // mov ecx, IA32_APIC_BASE
    0x0f, 0x32, // rdmsr
    0x66, 0x0d, 0x00, 0x0c, 0x00, 0x00, // or eax, 0xc00: x2APIC
    0x0f, 0x30, // wrmsr
    0x66, 0xb9, 0x0f, 0x08, 0x00, 0x00, // mov ecx, IA32_X2APIC_SIVR
    0x66, 0xb8, 0xff, 0x01, 0x00, 0x00, // mov eax, 0x1ff: enabled
    0x66, 0x31, 0xd2, // xor edx, edx
    0x0f, 0x30, // wrmsr
    0xfb, // sti
    0x66, 0xff, 0x06, 0x00, 0x50, // again: inc dword [ROUNDS]
    0xeb, 0xf9, // jmp again
];

/// Takes a look, counts, and ends the interrupt.
const SERVICE: &[u8] = &[
    0x66, 0xa1, 0x00, 0x60, // mov eax, [FRAME]
    0x66, 0xa3, 0x08, 0x50, // mov [SEEN], eax
    0x66, 0xff, 0x06, 0x04, 0x50, // inc dword [INTERRUPTS]
    0x66, 0xb9, 0x0b, 0x08, 0x00, 0x00, // mov ecx, IA32_X2APIC_EOI
    0x66, 0x31, 0xc0, // xor eax, eax
    0x66, 0x31, 0xd2, // xor edx, edx
    0x0f, 0x30, // wrmsr
    0xcf, // iret
];

/// The firmware with the program.
fn firmware() -> Vec<u8> {
    let mut rom = vec![0xf4; ROM]; // hlt
    let start = [0xea, 0x00, 0x00, 0x00, 0xf0]; // jmp 0xf000:0
    for (at, code) in [(0, PROGRAM), (HANDLER, SERVICE), (RESET, &start)] {
        rom[at..at + code.len()].copy_from_slice(code);
    }
    rom
}

/// Sees that a processor gets data and interrupts.
fn serves_a_processor(installation: &Installation, accelerator: &str) {
    let directory = tempfile::tempdir().unwrap();
    let rom = directory.path().join("firmware");
    std::fs::write(&rom, firmware()).unwrap();
    let arguments = [
        "-M",
        "kernel-irqchip=split",
        "-cpu",
        "max",
        "-bios",
        rom.to_str().unwrap(),
        "-device",
        "svm-vtd,intremap=on",
        "-device",
        "svm-demo,addr=4.0",
    ];
    let qemu = Qemu::start_running(installation, accelerator, &arguments);
    let mut machine = Machine::from(qemu);
    machine
        .qemu
        .until("the processor", |qemu| qemu.readl(ROUNDS) > 1000);
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    machine.enable_vtd(&[DEVICE]);
    machine.add_pasid(PASID);
    let mut context = Context::start(&mut machine, bars, 1, PASID);
    remap_interrupts(&mut machine, DEVICE.sid());
    let source = machine.page();
    machine.map(PASID, SOURCE, source, true);
    machine.map(PASID, DESTINATION, FRAME, true);
    for number in 1..=3u32 {
        let data = 0x600d_0000 | number;
        machine.qemu.writel(source, data);
        let record = context.run(&mut machine, copy(SOURCE, DESTINATION, 4));
        assert_eq!(record.status, status::SUCCESS, "{record:?}");
        interrupt(&mut machine, DEVICE, &mut context, 0);
        machine.qemu.until("the processor's interrupt", |qemu| {
            qemu.readl(INTERRUPTS) == number
        });
        assert_eq!(machine.qemu.readl(SEEN), data);
    }
    // An entry that is gone interrupts nobody.
    forbid_interrupts(&mut machine);
    interrupt(&mut machine, DEVICE, &mut context, 0);
    let rounds = machine.qemu.readl(ROUNDS);
    machine.qemu.until("more rounds", |qemu| {
        qemu.readl(ROUNDS).wrapping_sub(rounds) > 1000
    });
    assert_eq!(machine.qemu.readl(INTERRUPTS), 3);
    machine.qemu.quit();
}

#[test]
fn a_translated_processor_gets_data_and_interrupts() {
    if let Some(installation) = Installation::find() {
        serves_a_processor(&installation, "tcg");
    }
}

#[test]
fn a_processor_of_kvm_gets_data_and_interrupts() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    match kvm {
        Ok(_) => serves_a_processor(&installation, "kvm"),
        Err(error) => skip(&format!("/dev/kvm cannot be opened: {error}")),
    }
}
