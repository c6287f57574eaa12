// SPDX-License-Identifier: GPL-2.0-or-later
//! The number of the bus that a function is on. Software gives it to the bus by its bridge and may
//! give it another one; the function is another requester then.

use svm_abi::completion::status;
use svm_abi::{counters, registers};
use svm_endpoint::config_space::ATS;

use crate::client::{Installation, Qemu, remapped_interrupts};
use crate::context::{Context, DESTINATION, fill};
use crate::laboratory::{ADDRESS, Laboratory, PASID};
use crate::machine::{Address, Bars, Machine};
use crate::msix::Msix;
use crate::svm_vtd::{interrupt, remap_interrupts};

const PORT: Address = Address { bus: 0, slot: 3 };
/// The function before its bus has another number, and after that.
const BEFORE: Address = Address { bus: 1, slot: 0 };
const AFTER: Address = Address { bus: 5, slot: 0 };

const BEHIND_PORT: [&str; 4] = [
    "-device",
    "pcie-root-port,id=rp0,addr=3.0,chassis=1",
    "-device",
    "svm-demo,bus=rp0,lab=on",
];

/// Enables the device behind the port, and translation for it and one PASID.
fn enable(machine: &mut Machine) -> Bars {
    machine.open_root_port(PORT);
    let bars = machine.enable_bars(BEFORE);
    machine.enable_ats(BEFORE);
    machine.enable_vtd(&[BEFORE]);
    machine.add_pasid(PASID);
    bars
}

/// A machine with the device behind a port, enabled.
fn behind_port() -> Option<(Machine, Bars)> {
    let installation = Installation::find()?;
    let mut machine = Machine::new(&installation, &BEHIND_PORT);
    let bars = enable(&mut machine);
    Some((machine, bars))
}

/// Gives the bus its other number. The device has no translations meanwhile: ATS is off.
fn renumber(machine: &mut Machine) {
    machine.config_write16(BEFORE, ATS + 6, 0);
    machine.number_bus(PORT, AFTER.bus);
    assert_eq!(machine.config_read(BEFORE, 0), u32::MAX);
    machine.config_write16(AFTER, ATS + 6, 1 << 15);
}

#[test]
fn a_fault_is_recorded_with_the_number_that_the_bus_has_then() {
    let Some((machine, bars)) = behind_port() else {
        return;
    };
    let mut laboratory = Laboratory::at(machine, bars);
    for bus in [1, 5, 0x81, 1] {
        laboratory.machine.number_bus(PORT, bus);
        assert_eq!(laboratory.machine.take_fault(), None);
        laboratory.read_in_vain(ADDRESS);
        let fault = laboratory.machine.take_fault();
        let requester = Address { bus, slot: 0 }.sid();
        assert_eq!(fault.map(|(_, requester)| requester), Some(requester));
    }
    laboratory.machine.qemu.quit();
}

#[test]
fn a_bus_is_translated_by_the_context_entries_of_its_present_number() {
    let Some((mut machine, bars)) = behind_port() else {
        return;
    };
    let frame = machine.page();
    machine.map(PASID, ADDRESS, frame, true);
    let mut laboratory = Laboratory::at(machine, bars);
    assert_eq!(laboratory.translate(ADDRESS), Some(frame));
    renumber(&mut laboratory.machine);
    laboratory.machine.invalidate_all();
    assert!(!laboratory.is_translated(ADDRESS));
    let machine = &mut laboratory.machine;
    machine.move_context_entries(BEFORE.bus, AFTER.bus);
    assert_eq!(laboratory.translate(ADDRESS), Some(frame));
    laboratory.machine.qemu.quit();
}

#[test]
fn a_function_with_another_requester_id_gets_invalidations_responses_and_interrupts() {
    let Some((mut machine, bars)) = behind_port() else {
        return;
    };
    let mut context = Context::start(&mut machine, bars, 1, PASID);
    let (old, new) = (machine.page(), machine.page());
    machine.map(PASID, DESTINATION, old, true);
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x11));
    assert_eq!(machine.qemu.readq(old), 0x11);
    context.stop(&mut machine);
    renumber(&mut machine);
    machine.move_context_entries(BEFORE.bus, AFTER.bus);
    let mut context = Context::start(&mut machine, bars, 1, PASID);
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x22));
    assert_eq!(machine.qemu.readq(old), 0x22);

    machine.map(PASID, DESTINATION, new, true);
    let invalidations = counters::index::INVALIDATIONS as u64;
    let invalidations = bars.registers + registers::DEVICE_COUNTERS + 8 * invalidations;
    let before = machine.qemu.readq(invalidations);
    machine.invalidate(AFTER, PASID, DESTINATION);
    assert_eq!(machine.qemu.readq(invalidations), before + 1);
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x33));
    assert_eq!(
        (machine.qemu.readq(old), machine.qemu.readq(new)),
        (0x22, 0x33)
    );

    let missing = DESTINATION + 0x1000;
    let number = context.submit(&mut machine, fill(missing, 8, 0x44));
    let request = machine.wait_page_request();
    assert_eq!((request.sid, request.address), (AFTER.sid(), missing));
    machine.map(PASID, missing, old, true);
    machine.respond(&request, 0);
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    assert_eq!(machine.qemu.readq(old), 0x44);

    let msix = Msix::enable(&mut machine, AFTER, &context);
    msix.interrupt(&mut machine, &mut context);
    assert_eq!(msix.state(&mut machine), (true, false));
    assert_eq!(machine.take_fault(), None);
    machine.qemu.quit();
}

/// An entry of the interrupt remapping table is for one requester.
#[test]
fn an_interrupt_is_validated_with_the_number_that_the_bus_has_then() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let unit = ["-device", "svm-vtd,intremap=on"];
    let arguments = [&unit[..], &BEHIND_PORT, remapped_interrupts()].concat();
    let mut machine = Machine::from(Qemu::start(&installation, &arguments));
    let bars = enable(&mut machine);
    let mut context = Context::start(&mut machine, bars, 1, PASID);
    remap_interrupts(&mut machine, AFTER.sid());
    interrupt(&mut machine, BEFORE, &mut context, 0);
    // Reason 0x26: the source is another one.
    assert_eq!(machine.take_fault(), Some((0x26, BEFORE.sid())));
    context.stop(&mut machine);
    renumber(&mut machine);
    machine.move_context_entries(BEFORE.bus, AFTER.bus);
    let mut context = Context::start(&mut machine, bars, 1, PASID);
    interrupt(&mut machine, AFTER, &mut context, 0);
    assert_eq!(machine.take_fault(), None);
    machine.qemu.quit();
}
