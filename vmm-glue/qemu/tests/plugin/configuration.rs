// SPDX-License-Identifier: GPL-2.0-or-later
//! Configuration space and BARs as software sees them.

use pcie_ats::capability::{ATS_ID, PASID_ID, PRI_ID};
use svm_abi::completion::{Error, status};
use svm_abi::{ids, registers};
use svm_endpoint::config_space::{ATS, PASID, PRI};

use crate::client::{Installation, Qemu};
use crate::context::{self, Context, SOURCE, fill, map_new};
use crate::machine::{DEVICE, IOMMU, Machine};

#[test]
fn ids_and_capabilities_are_where_they_are_said_to_be() {
    let Some(mut machine) = Machine::with("") else {
        return;
    };
    let id = u32::from(ids::VENDOR_ID) | u32::from(ids::DEVICE_ID) << 16;
    assert_eq!(machine.config_read(DEVICE, 0), id);
    let class = u32::from(ids::CLASS) << 16 | u32::from(ids::REVISION_ID);
    assert_eq!(machine.config_read(DEVICE, 8), class);
    let extended = machine.extended_capabilities(DEVICE);
    assert_eq!(extended.get(&ATS_ID), Some(&ATS));
    assert_eq!(extended.get(&PRI_ID), Some(&PRI));
    assert_eq!(extended.get(&PASID_ID), Some(&PASID));
    let msix = machine.capability(DEVICE, 0x11);
    // Table size less one: 64 contexts and vector 0.
    assert_eq!(machine.config_read(DEVICE, msix) >> 16 & 0x7ff, 64);
    let express = machine.capability(DEVICE, 0x10);
    assert_ne!(
        machine.config_read(DEVICE, express + 4) & 1 << 28,
        0,
        "no function level reset"
    );
    // Interrupt Pin: none, so INTx is never used.
    assert_eq!(machine.config_read(DEVICE, 0x3c) >> 8 & 0xff, 0);
    machine.qemu.quit();
}

#[test]
fn properties_reach_the_registers() {
    let properties = ",contexts=3,atc-entries=16,pri-capacity=9,pasid-bits=7,lab=on";
    let Some(mut machine) = Machine::with(properties) else {
        return;
    };
    let bars = machine.enable_bars(DEVICE);
    let ident = machine
        .qemu
        .readq(bars.registers + registers::device::IDENT);
    assert_eq!(
        ident,
        u64::from(ids::IDENT_MAGIC) << 32 | u64::from(ids::ABI_VERSION)
    );
    let capabilities = machine
        .qemu
        .readq(bars.registers + registers::device::CAPABILITIES);
    assert_eq!(registers::capabilities::contexts(capabilities), 3);
    assert_eq!(registers::capabilities::vectors(capabilities), 4);
    assert_ne!(capabilities & registers::capabilities::LABORATORY, 0);
    let resources = machine
        .qemu
        .readq(bars.registers + registers::device::RESOURCES);
    assert_eq!(resources, 9 << 32 | 16);
    assert_eq!(machine.config_read(DEVICE, PASID + 4) >> 8 & 31, 7);
    assert_eq!(machine.config_read(DEVICE, PRI + 8), 9);
    machine.qemu.quit();
}

#[test]
fn registers_take_halves_and_ignore_other_sizes() {
    let Some(mut machine) = Machine::with("") else {
        return;
    };
    let bars = machine.enable_bars(DEVICE);
    let ring = bars.registers + registers::context_block(1) + registers::context::RING;
    machine.qemu.writeq(ring, 0x1122_3344_5566_7780);
    assert_eq!(machine.qemu.readl(ring + 4), 0x1122_3344);
    machine.qemu.writel(ring + 4, 0x55);
    assert_eq!(machine.qemu.readq(ring), 0x55_5566_7780);
    machine.qemu.writew(ring, 0xffff);
    assert_eq!(machine.qemu.readq(ring), 0x55_5566_7780);
    machine.qemu.quit();
}

#[test]
fn a_write_of_a_part_of_a_register_changes_that_part_only() {
    let Some(mut machine) = Machine::with("") else {
        return;
    };
    let ats = |machine: &mut Machine| machine.config_read(DEVICE, ATS + 4) >> 16;
    machine.config_write8(DEVICE, ATS + 6, 3);
    assert_eq!(ats(&mut machine), 3);
    machine.config_write16(DEVICE, PASID + 6, 1);
    assert_eq!(machine.config_read(DEVICE, PASID + 4) >> 16, 1);
    assert_ne!(machine.config_read(DEVICE, PASID + 4) & 0x1f00, 0);
    machine.config_write8(DEVICE, PRI + 12, 7);
    machine.config_write8(DEVICE, PRI + 4, 1);
    assert_eq!(machine.config_read(DEVICE, PRI + 4), 1 << 31 | 1);
    assert_eq!(machine.config_read(DEVICE, PRI + 12), 7);
    // The enable bit alone: STU stays.
    machine.config_write8(DEVICE, ATS + 7, 0x80);
    assert_eq!(ats(&mut machine), 1 << 15 | 3);
    machine.config_write8(DEVICE, ATS + 7, 0);
    assert_eq!(ats(&mut machine), 3);
    // Control and status at once: status bits that are not set stay so.
    machine.config_write(DEVICE, PRI + 4, 0);
    assert_eq!(machine.config_read(DEVICE, PRI + 4), 1 << 31 | 1 << 24);
    let power = machine.capability(DEVICE, 0x01) + 4;
    let before = machine.config_read(DEVICE, power);
    machine.config_write8(DEVICE, power, 3);
    assert_eq!(machine.config_read(DEVICE, power), before | 3);
    machine.config_write8(DEVICE, power, 0);
    assert_eq!(machine.config_read(DEVICE, power), before);
    machine.qemu.quit();
}

#[test]
fn page_request_control_follows_its_rules() {
    let Some(mut machine) = Machine::with(",pri-capacity=8") else {
        return;
    };
    let control = |machine: &mut Machine| machine.config_read(DEVICE, PRI + 4);
    // Stopped, and PRG Response PASID Required.
    assert_eq!(control(&mut machine), 1 << 31 | 1 << 24);
    machine.config_write(DEVICE, PRI + 12, 1000);
    assert_eq!(
        machine.config_read(DEVICE, PRI + 12),
        8,
        "the allocation exceeds the capacity"
    );
    machine.config_write16(DEVICE, PRI + 4, 1);
    assert_eq!(control(&mut machine), 1 << 31 | 1);
    machine.config_write(DEVICE, PRI + 12, 1);
    assert_eq!(
        machine.config_read(DEVICE, PRI + 12),
        8,
        "the allocation changed while enabled"
    );
    machine.config_write16(DEVICE, PRI + 4, 0);
    assert_eq!(
        control(&mut machine),
        1 << 31 | 1 << 24,
        "nothing is outstanding: stopped"
    );
    machine.qemu.quit();
}

#[test]
fn pasid_and_the_translation_unit_are_fixed_while_ats_is_on() {
    let Some(mut machine) = Machine::with("") else {
        return;
    };
    machine.config_write16(DEVICE, PASID + 6, 1);
    machine.config_write16(DEVICE, ATS + 6, 1 << 15 | 2);
    machine.config_write16(DEVICE, PASID + 6, 0);
    assert_eq!(machine.config_read(DEVICE, PASID + 4) >> 16, 1);
    machine.config_write16(DEVICE, ATS + 6, 1 << 15 | 5);
    assert_eq!(machine.config_read(DEVICE, ATS + 4) >> 16, 1 << 15 | 2);
    machine.config_write16(DEVICE, ATS + 6, 0);
    machine.config_write16(DEVICE, PASID + 6, 0);
    assert_eq!(machine.config_read(DEVICE, PASID + 4) >> 16, 0);
    machine.qemu.quit();
}

/// VT-d answers in pages of 4 KiB, whatever STU is. What is smaller than the smallest translation
/// unit is no answer (PCIe 10.2.3), and so software has to leave STU at 0.
#[test]
fn with_another_smallest_translation_unit_pages_of_4_kib_are_refused() {
    let Some(mut machine) = Machine::with("") else {
        return;
    };
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    machine.config_write16(DEVICE, ATS + 6, 0);
    // Units of 8 KiB.
    machine.config_write16(DEVICE, ATS + 6, 1 << 15 | 1);
    machine.enable_vtd(&[DEVICE]);
    machine.add_pasid(context::PASID);
    // The device reads its ring all the same: it lies in one page of 2 MiB.
    let mut context = Context::start_large(&mut machine, bars, 1, context::PASID);
    // The first page of a unit, which an answer of 4 KiB is for.
    assert_eq!(SOURCE & 0x1fff, 0);
    let frame = map_new(&mut machine, SOURCE);
    let record = context.run(&mut machine, fill(SOURCE, 0x1000, u64::MAX));
    assert_eq!(
        (record.status, Error::from_u8(record.error)),
        (status::FAILURE, Some(Error::CompleterAbort)),
        "{record:?}"
    );
    assert_eq!(
        (record.fault_address, record.bytes_done),
        (SOURCE, 0),
        "{record:?}"
    );
    assert_eq!(machine.qemu.read(frame, 0x1000), [0; 0x1000]);
    context.stop(&mut machine);
    machine.config_write16(DEVICE, ATS + 6, 0);
    machine.config_write16(DEVICE, ATS + 6, 1 << 15);
    let mut context = Context::start_large(&mut machine, bars, 1, context::PASID);
    context.succeed(&mut machine, fill(SOURCE, 0x1000, u64::MAX));
    assert_eq!(machine.qemu.read(frame, 0x1000), [0xff; 0x1000]);
    machine.qemu.quit();
}

#[test]
fn a_function_level_reset_disables_everything() {
    let Some(mut machine) = Machine::with("") else {
        return;
    };
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    let function = bars.registers + registers::device::FUNCTION;
    assert_eq!(machine.qemu.readq(function), 0xf);
    let ring = bars.registers + registers::context_block(1) + registers::context::RING;
    machine.qemu.writeq(ring, 0x1000);
    machine.reset_function(DEVICE);
    assert_eq!(machine.config_read(DEVICE, ATS + 4) >> 31, 0);
    assert_eq!(machine.config_read(DEVICE, PRI + 4), 1 << 31 | 1 << 24);
    assert_eq!(machine.config_read(DEVICE, PRI + 12), 0);
    assert_eq!(machine.config_read(DEVICE, PASID + 4) >> 16, 0);
    assert_eq!(machine.config_read(DEVICE, 4) & 7, 0);
    let bars = machine.enable_bars(DEVICE);
    let function = bars.registers + registers::device::FUNCTION;
    assert_eq!(
        machine.qemu.readq(function),
        registers::function::BUS_MASTER
    );
    let ring = bars.registers + registers::context_block(1) + registers::context::RING;
    assert_eq!(machine.qemu.readq(ring), 0);
    machine.qemu.quit();
}

#[test]
fn a_system_reset_disables_everything() {
    let Some(mut machine) = Machine::with("") else {
        return;
    };
    machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    machine
        .qemu
        .qmp("system_reset", serde_json::json!({}))
        .unwrap();
    machine.qemu.wait_event("RESET");
    let mut machine = Machine::from(machine.qemu);
    assert_eq!(machine.config_read(DEVICE, ATS + 4) >> 31, 0);
    assert_eq!(machine.config_read(DEVICE, PRI + 4), 1 << 31 | 1 << 24);
    assert_eq!(machine.config_read(DEVICE, PASID + 4) >> 16, 0);
    machine.qemu.quit();
}

/// Bit 48 of the vIOMMU's extended capabilities, as 8 bytes and as 4.
fn smpwcs(qemu: &mut Qemu) -> (bool, bool) {
    let (quad, upper) = (qemu.readq(0xfed9_0010), qemu.readl(0xfed9_0014));
    (quad >> 48 & 1 != 0, upper >> 16 & 1 != 0)
}

#[test]
fn smpwcs_is_reported_unless_switched_off() {
    let Some(installation) = Installation::find() else {
        return;
    };
    for (arguments, expected) in [
        (&["-device", IOMMU, "-device", "svm-demo"][..], true),
        (&["-device", IOMMU, "-device", "svm-demo,smpwcs=off"], false),
        (&["-device", IOMMU], false),
        (
            &["-device", "intel-iommu,intremap=off", "-device", "svm-demo"],
            false,
        ),
        // The order on the command line does not matter.
        (&["-device", "svm-demo", "-device", IOMMU], true),
    ] {
        let mut qemu = Qemu::start(&installation, arguments);
        assert_eq!(smpwcs(&mut qemu), (expected, expected), "{arguments:?}");
        qemu.quit();
    }
}

#[test]
fn smpwcs_changes_no_other_bit() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let ecap = |device| {
        let mut qemu = Qemu::start(&installation, &["-device", IOMMU, "-device", device]);
        let ecap = qemu.readq(0xfed9_0010);
        qemu.quit();
        ecap
    };
    assert_eq!(ecap("svm-demo") ^ ecap("svm-demo,smpwcs=off"), 1 << 48);
}
