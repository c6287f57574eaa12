// SPDX-License-Identifier: GPL-2.0-or-later
//! Raw requests of the laboratory, one kind each: what QEMU makes of them.

use svm_abi::completion::Error;
use svm_abi::registers::attributes::{
    EXECUTE, GROUP_SHIFT, LAST, NO_WRITE, PASID_PRESENT, PRIVILEGED, READ, WRITE,
};
use svm_abi::registers::command::{
    PAGE_REQUEST, TRANSLATE, TRANSLATED_READ, TRANSLATED_WRITE, UNTRANSLATED_READ,
};
use svm_abi::registers::{LABORATORY, laboratory as register};

use crate::machine::{Bars, DEVICE, Machine, is_svm_vtd};

pub const PASID: u32 = 0x42;
pub const ADDRESS: u64 = 0x7f12_3456_7000;

/// States.
const BUSY: u64 = 1;
const DONE: u64 = 2;
const FAILED: u64 = 3;

/// The laboratory of a machine with one PASID.
pub struct Laboratory {
    pub machine: Machine,
    base: u64,
}

impl Laboratory {
    fn open() -> Option<Laboratory> {
        Laboratory::with("")
    }

    /// The laboratory of a device with these properties.
    pub fn with(properties: &str) -> Option<Laboratory> {
        Some(Laboratory::of(Machine::with(&format!(
            ",lab=on{properties}"
        ))?))
    }

    /// The laboratory of the device of a machine.
    pub fn of(mut machine: Machine) -> Laboratory {
        let bars = machine.enable_bars(DEVICE);
        machine.enable_ats(DEVICE);
        machine.enable_vtd(&[DEVICE]);
        machine.add_pasid(PASID);
        Laboratory::at(machine, bars)
    }

    /// The laboratory of a device that has its BARs.
    pub fn at(machine: Machine, bars: Bars) -> Laboratory {
        let base = bars.registers + LABORATORY;
        Laboratory { machine, base }
    }

    fn read(&mut self, register: u64) -> u64 {
        self.machine.qemu.readq(self.base + register)
    }

    fn write(&mut self, register: u64, value: u64) {
        self.machine.qemu.writeq(self.base + register, value);
    }

    /// Gives a command.
    fn begin(&mut self, command: u64, address: u64, attributes: u64) {
        self.write(register::STATE, 0);
        self.write(register::ADDRESS, address);
        self.write(register::ATTRIBUTES, attributes);
        self.write(register::COMMAND, command);
    }

    /// Waits for the end of a command: the state, and the reason of a failure.
    fn end(&mut self) -> (u64, Option<Error>) {
        let at = self.base + register::STATE;
        self.machine
            .qemu
            .until("the laboratory", |qemu| qemu.readq(at) & 0xff > BUSY);
        let state = self.read(register::STATE);
        (state & 0xff, Error::from_u8((state >> 8) as u8))
    }

    /// Gives a command and waits for its end.
    fn run(&mut self, command: u64, address: u64, attributes: u64) -> (u64, Option<Error>) {
        self.begin(command, address, attributes);
        self.end()
    }

    /// The frame of a page that may be read and written, if it is one.
    pub fn translate(&mut self, address: u64) -> Option<u64> {
        assert_eq!(self.run(TRANSLATE, address, pasid(PASID)), (DONE, None));
        let (frame, _, read, write) = self.translation();
        (read && write).then_some(frame)
    }

    /// Whether a translation request of the PASID is answered with a permission.
    pub fn is_translated(&mut self, address: u64) -> bool {
        let (state, _) = self.run(TRANSLATE, address, pasid(PASID));
        let (_, _, read, write) = self.translation();
        state == DONE && (read || write)
    }

    /// Makes the device read an address, without a PASID, where nothing is mapped.
    pub fn read_in_vain(&mut self, address: u64) {
        let result = self.run(UNTRANSLATED_READ, address, 0);
        assert_eq!(result, (FAILED, Some(Error::MemoryAccess)));
    }

    /// Makes the device request a page, and answers.
    pub fn request_page(&mut self) {
        self.begin(PAGE_REQUEST, ADDRESS, pasid(PASID) | READ | LAST);
        let request = self.machine.wait_page_request();
        self.machine.respond(&request, 0);
        assert_eq!(self.end(), (DONE, None));
    }

    /// The translation of the last request: address, log2 of its size, read and write.
    fn translation(&mut self) -> (u64, u64, bool, bool) {
        let completion = self.read(register::COMPLETION);
        let bit = |n: u32| completion >> n & 1 != 0;
        (
            self.read(register::TRANSLATED),
            completion & 0xff,
            bit(8),
            bit(9),
        )
    }
}

fn pasid(pasid: u32) -> u64 {
    PASID_PRESENT | u64::from(pasid)
}

#[test]
fn a_translation_request_is_answered_from_the_tables_of_its_pasid() {
    let Some(mut laboratory) = Laboratory::open() else {
        return;
    };
    let frame = laboratory.machine.page();
    laboratory.machine.map(PASID, ADDRESS, frame, true);
    laboratory
        .machine
        .map(PASID, ADDRESS + 0x1000, frame, false);
    assert_eq!(
        laboratory.run(TRANSLATE, ADDRESS, pasid(PASID)),
        (DONE, None)
    );
    assert_eq!(laboratory.translation(), (frame, 12, true, true));
    assert_eq!(
        laboratory.run(TRANSLATE, ADDRESS + 0x1000, pasid(PASID) | NO_WRITE),
        (DONE, None)
    );
    assert_eq!(laboratory.translation(), (frame, 12, true, false));
    for (address, space) in [(ADDRESS + 0x2000, PASID), (ADDRESS, PASID + 1)] {
        assert_eq!(
            laboratory.run(TRANSLATE, address, pasid(space)),
            (DONE, None)
        );
        let (_, _, read, write) = laboratory.translation();
        assert!(
            !read && !write,
            "{address:#x} of PASID {space:#x} is mapped"
        );
    }
    laboratory.machine.qemu.quit();
}

/// To the specification, the interrupt address range means nothing to a request with a PASID
/// (VT-d 3.15). QEMU's own unit refuses it.
#[test]
fn the_interrupt_range_of_a_pasid_is_translated_by_svm_vtd_and_refused_by_intel_iommu() {
    let Some(mut laboratory) = Laboratory::open() else {
        return;
    };
    let frame = laboratory.machine.page();
    for address in [0xfedf_f000, 0xfee0_0000, 0xfeef_f000, 0xfef0_0000] {
        laboratory.machine.map(PASID, address, frame, true);
        let result = laboratory.run(TRANSLATE, address, pasid(PASID));
        let inside = (0xfee0_0000..0xfef0_0000).contains(&address);
        if inside && !is_svm_vtd() {
            let refused = (FAILED, Some(Error::CompleterAbort));
            assert_eq!(result, refused, "{address:#x}");
        } else {
            assert_eq!(result, (DONE, None), "{address:#x}");
            let translated = (frame, 12, true, true);
            assert_eq!(laboratory.translation(), translated, "{address:#x}");
        }
    }
    laboratory.machine.qemu.quit();
}

#[test]
fn the_last_page_of_the_address_space_is_not_mapped() {
    let Some(mut laboratory) = Laboratory::open() else {
        return;
    };
    let top = 0xffff_ffff_ffff_f000;
    assert_eq!(laboratory.run(TRANSLATE, top, pasid(PASID)), (DONE, None));
    let (_, size, read, write) = laboratory.translation();
    assert_eq!((size, read, write), (12, false, false));
    laboratory.machine.qemu.quit();
}

#[test]
fn requests_for_execution_and_in_privileged_mode_are_sent_where_the_device_offers_them() {
    let Some(mut laboratory) = Laboratory::open() else {
        return;
    };
    for bit in [EXECUTE, PRIVILEGED] {
        let result = laboratory.run(TRANSLATE, ADDRESS, pasid(PASID) | bit);
        assert_eq!(result, (FAILED, Some(Error::NotPresent)));
    }
    laboratory.machine.qemu.quit();

    let Some(mut laboratory) = Laboratory::with(",execute=on,privileged=on") else {
        return;
    };
    let frame = laboratory.machine.page();
    laboratory.machine.map(PASID, ADDRESS, frame, true);
    for bits in [EXECUTE, PRIVILEGED, EXECUTE | PRIVILEGED] {
        let result = laboratory.run(TRANSLATE, ADDRESS, pasid(PASID) | bits);
        assert_eq!(result, (DONE, None), "{bits:#x}");
        let shown = laboratory.read(register::COMPLETION);
        assert_eq!(
            shown >> 11 & 1 != 0,
            bits & PRIVILEGED != 0,
            "{bits:#x}: {shown:#x}"
        );
        // Nobody says that execution is permitted: QEMU's unit takes the question and has no
        // answer, and the entry of the PASID lacks ERE.
        assert_eq!(shown >> 10 & 1, 0, "{bits:#x}: {shown:#x}");
        // Rule 25: a unit without SRS answers privileged requests, and permits them nothing.
        let (_, _, read, write) = laboratory.translation();
        // The entry lacks ERE, which QEMU's unit does not look at.
        let executes = bits & EXECUTE != 0 && is_svm_vtd();
        let permitted = bits & PRIVILEGED == 0 && !executes;
        assert_eq!(
            (read, write),
            (permitted, permitted),
            "{bits:#x}: {shown:#x}"
        );
        let translated = laboratory.read(register::TRANSLATED);
        assert_eq!(translated == frame, permitted, "{bits:#x}");
    }
    laboratory.machine.qemu.quit();
}

#[test]
fn translated_accesses_reach_memory_and_untranslated_ones_do_not() {
    let Some(mut laboratory) = Laboratory::open() else {
        return;
    };
    let frame = laboratory.machine.page();
    laboratory.machine.map(PASID, ADDRESS, frame, true);
    laboratory.write(register::DATA, 0x1234_5678_9abc_def0);
    assert_eq!(laboratory.run(TRANSLATED_WRITE, frame + 8, 0), (DONE, None));
    assert_eq!(
        laboratory.machine.qemu.readq(frame + 8),
        0x1234_5678_9abc_def0
    );
    laboratory.machine.qemu.writeq(frame, 99);
    assert_eq!(laboratory.run(TRANSLATED_READ, frame, 0), (DONE, None));
    assert_eq!(laboratory.read(register::DATA), 99);
    // Without PASID there is no mapping; with one, QEMU has no such request.
    for attributes in [0, pasid(PASID)] {
        let result = laboratory.run(UNTRANSLATED_READ, ADDRESS, attributes);
        assert_eq!(result, (FAILED, Some(Error::MemoryAccess)));
    }
    laboratory.machine.qemu.quit();
}

#[test]
fn a_page_request_waits_for_the_response_to_its_group() {
    let Some(mut laboratory) = Laboratory::open() else {
        return;
    };
    let group = 0x1a5;
    let attributes = pasid(PASID) | READ | WRITE | LAST | group << GROUP_SHIFT;
    laboratory.begin(PAGE_REQUEST, ADDRESS, attributes);
    let request = laboratory.machine.wait_page_request();
    assert_eq!((request.pasid, request.address), (PASID, ADDRESS));
    assert_eq!(u64::from(request.prgi), group);
    assert!(request.read && request.write && request.last);
    assert_eq!(laboratory.read(register::STATE) & 0xff, BUSY);
    laboratory.machine.respond(&request, 0);
    assert_eq!(laboratory.end(), (DONE, None));
    laboratory.machine.qemu.quit();
}
