// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address spaces of every kind: 4 and 5 levels, nested, large pages, and the second stage of
//! requests without a PASID in both modes.

use crate::end_to_end::pattern;
use machine::os::{App, Domain, Driver, Layout, Mode, Nesting, Os, copy, crc32c, fill};
use machine::{Machine, MachineConfig};
use svm_abi::completion::Error;
use svm_abi::registers::laboratory;
use vtd::spec::fault::FaultReason;

fn layouts() -> Vec<Layout> {
    let mut layouts = Vec::new();
    for five_levels in [false, true] {
        for nested in [None, Some(Nesting::Small), Some(Nesting::Large)] {
            layouts.push(Layout {
                five_levels,
                nested,
            });
        }
    }
    layouts
}

#[test]
fn every_layout_copies_faults_and_migrates() {
    for layout in layouts() {
        let app = App::on(&MachineConfig::default(), layout);
        let from = app.process().map(0x7fff_0000_0000, 0x2_0000);
        let to = app.process().map_absent(0x1234_5670_0000, 0x2_0000);
        let data = pattern(0x2_0000, 4);
        app.process().write(from, &data);
        assert_eq!(app.perform(copy(from, to, 0x2_0000)).error, 0, "{layout:?}");
        assert_eq!(app.process().read(to, 0x2_0000), data, "{layout:?}");
        for page in [from, to + 0x1_f000] {
            let old = app.process().migrate(page).unwrap();
            app.machine().ram().fill(old, 4096, 0xee).unwrap();
        }
        assert_eq!(app.perform(copy(to, from, 0x2_0000)).error, 0, "{layout:?}");
        assert_eq!(app.process().read(from, 0x2_0000), data, "{layout:?}");
        assert_eq!(app.os().faults(0), [], "{layout:?}");
    }
}

#[test]
fn five_levels_reach_what_four_do_not() {
    let high = 0x00ab_cdef_0000_0000;
    let five = Layout {
        five_levels: true,
        nested: None,
    };
    let app = App::on(&MachineConfig::default(), five);
    app.process().map(high, 0x1000);
    assert_eq!(app.perform(fill(high, 0x1000, 6)).error, 0);
    assert_eq!(app.process().load(high), 6);
    let app = App::quick();
    let done = app.perform(fill(high, 8, 6));
    assert_ne!(done.error, 0);
}

#[test]
fn large_pages_are_translated_at_once() {
    use svm_abi::counters::index;
    let config = MachineConfig {
        memory: 1 << 31,
        ..MachineConfig::default()
    };
    for (shift, address) in [(21, 0x4000_0000u64), (30, 0x80_0000_0000)] {
        let app = App::on(&config, Layout::default());
        app.process().map_large(address, shift);
        let length = 1 << 20;
        assert_eq!(app.perform(fill(address + 0x1000, length, 3)).error, 0);
        // One translation for the ring, one for the records, and one for all the rest.
        assert_eq!(app.counter(index::TRANSLATION_REQUESTS), 3, "shift {shift}");
        assert_eq!(app.process().load(address + 0x1000 + length - 8), 3);
    }
}

#[test]
fn a_hole_in_the_second_stage_is_not_software_s_page_fault() {
    let nested = Layout {
        five_levels: false,
        nested: Some(Nesting::Small),
    };
    let app = App::on(&MachineConfig::default(), nested);
    let page = app.process().map(0x10_0000, 0x1000);
    let second = *app.process().second_stage().unwrap();
    let guest_physical = app.process().frame(page) + app.process().first_stage().bias;
    let entry = second
        .replace(app.os().frames(), guest_physical, 0)
        .unwrap();
    // The page is present in the first stage, so that bringing it again does not help.
    let done = app.perform(crc32c(page, 8));
    assert_eq!(done.error, Error::RetriesExhausted as u8);
    second.set(app.os().frames(), guest_physical, 1, entry);
    assert_eq!(app.perform(crc32c(page, 8)).error, 0);
}

/// A laboratory that sends a raw request and returns its state, reason and data.
fn experiment(driver: &Driver, command: u64, address: u64, attributes: u64, data: u64) -> [u64; 3] {
    driver.set_laboratory(laboratory::ADDRESS, address);
    driver.set_laboratory(laboratory::ATTRIBUTES, attributes);
    driver.set_laboratory(laboratory::DATA, data);
    driver.set_laboratory(laboratory::COMMAND, command);
    driver.os().settle();
    let state = driver.laboratory(laboratory::STATE);
    let data = driver.laboratory(laboratory::DATA);
    driver.set_laboratory(laboratory::STATE, 0);
    [state & 0xff, state >> 8, data]
}

const TRANSLATE: u64 = 1;
const READ: u64 = 3;
const WRITE: u64 = 4;
const READ_TRANSLATED: u64 = 5;
const DONE: u64 = 2;
const REFUSED: u64 = 3;

fn laboratory(mode: Mode) -> (Machine, Os, Driver) {
    let mut config = MachineConfig::default();
    config.functions[0].endpoint.laboratory = true;
    let machine = Machine::new(&config).unwrap();
    let os = Os::boot(&machine, mode);
    let driver = Driver::probe(&os, 0);
    (machine, os, driver)
}

#[test]
fn requests_without_a_pasid_go_through_the_second_stage_in_both_modes() {
    for mode in [Mode::Legacy, Mode::Scalable] {
        let (machine, os, driver) = laboratory(mode);
        let domain = Domain::attach(&os, 0);
        let frame = os.frames().allocate();
        domain.map(0x1234_5000, 12, frame, true);
        let written = experiment(&driver, WRITE, 0x1234_5008, 0, 0x55);
        assert_eq!(written[0], DONE, "{mode:?}");
        assert_eq!(machine.ram().load(frame + 8), Ok(0x55), "{mode:?}");
        assert_eq!(
            experiment(&driver, READ, 0x1234_5008, 0, 0),
            [DONE, 0, 0x55]
        );

        // A translation request, and a translated request with its answer.
        assert_eq!(experiment(&driver, TRANSLATE, 0x1234_5000, 0, 0)[0], DONE);
        let translated = driver.laboratory(laboratory::TRANSLATED);
        assert_eq!(translated, frame, "{mode:?}");
        let read = experiment(&driver, READ_TRANSLATED, frame + 8, 0, 0);
        assert_eq!(read, [DONE, 0, 0x55], "{mode:?}");

        // Gone is gone, also from the caches.
        domain.unmap(0x1234_5000).unwrap();
        assert_eq!(experiment(&driver, READ, 0x1234_5008, 0, 0)[0], REFUSED);
        let faults = os.faults(0);
        assert_eq!(faults.len(), 1, "{mode:?}: {faults:?}");
        assert_eq!(faults[0].sid, machine.requester(0));
        assert_eq!(faults[0].fi, 0x1234_5000);
    }
}

#[test]
fn read_only_pages_of_a_domain_refuse_writes() {
    for mode in [Mode::Legacy, Mode::Scalable] {
        let (_, os, driver) = laboratory(mode);
        let domain = Domain::attach(&os, 0);
        domain.map(0x4000_0000, 21, os.frames().allocate_range(21), false);
        assert_eq!(experiment(&driver, READ, 0x4012_3000, 0, 0)[0], DONE);
        assert_eq!(experiment(&driver, WRITE, 0x4012_3000, 0, 0)[0], REFUSED);
        let reasons: Vec<_> = os.faults(0).iter().map(|fault| fault.fr).collect();
        let expected = match mode {
            Mode::Legacy => FaultReason::Write,
            Mode::Scalable => FaultReason::ScalableWrite,
        };
        assert_eq!(reasons, [expected], "{mode:?}");
    }
}

#[test]
fn in_legacy_mode_there_are_no_pasids() {
    let (_, os, driver) = laboratory(Mode::Legacy);
    let _domain = Domain::attach(&os, 0);
    let with_pasid = 1 << 31 | 5;
    assert_eq!(experiment(&driver, READ, 0x1000, with_pasid, 0)[0], REFUSED);
    let reasons: Vec<_> = os.faults(0).iter().map(|fault| fault.fr).collect();
    assert_eq!(reasons, [FaultReason::RequestWithPasidInLegacyMode]);
}
