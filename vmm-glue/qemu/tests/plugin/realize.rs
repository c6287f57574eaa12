// SPDX-License-Identifier: GPL-2.0-or-later
//! Devices that cannot be made: QEMU goes on as if nobody had asked for them, or ends with the
//! reason; and devices that are made before the vIOMMU is.

use serde_json::json;
use svm_abi::completion::status;

use crate::client::{Installation, Qemu};
use crate::context::{Context, PASID, SOURCE, copy};
use crate::laboratory::{ADDRESS, Laboratory};
use crate::machine::{Address, DEVICE, IOMMU, Machine, is_svm_vtd};

/// The steps of a realization that may fail, in their order.
const STEPS: [&str; 7] = [
    "layout", "trace", "timers", "msix", "express", "power", "thread",
];

/// QEMU with freed memory overwritten, so that a use of it shows.
fn sensitive() -> Option<Installation> {
    Some(Installation::find()?.with_variable("MALLOC_PERTURB_", "165"))
}

#[test]
fn a_machine_does_not_start_with_a_device_that_fails_at_any_step() {
    let Some(installation) = sensitive() else {
        return;
    };
    for step in STEPS {
        let device = format!("svm-demo,x-fail-realize={step}");
        let arguments = ["-M", "q35", "-display", "none", "-accel", "qtest"];
        let said = installation.says(&[&arguments[..], &["-device", &device]].concat());
        let expected = format!("{device}: x-fail-realize={step}: the device is not made");
        // Nothing but the reason.
        assert_eq!(said.trim_end().lines().count(), 1, "{step}: {said}");
        assert!(said.contains(&expected), "{step}: {said}");
    }
}

#[test]
fn a_running_machine_survives_a_device_that_fails_at_any_step() {
    let Some(installation) = sensitive() else {
        return;
    };
    let port = "pcie-root-port,id=rp0,addr=3.0,chassis=1";
    let mut machine = Machine::new(&installation, &["-device", port]);
    machine.open_root_port(Address { bus: 0, slot: 3 });
    let plugged = Address { bus: 1, slot: 0 };
    machine.enable_vtd(&[plugged]);
    for step in STEPS {
        let device = json!({
            "driver": "svm-demo", "id": "plugged", "bus": "rp0", "x-fail-realize": step,
        });
        for _ in 0..2 {
            let reason = machine.qemu.qmp("device_add", device.clone()).unwrap_err();
            assert!(reason.contains(step), "{step}: {reason}");
            assert_eq!(machine.config_read(plugged, 0), u32::MAX, "{step}");
        }
        // What is freed is used when regions are looked through.
        let tree = json!({ "command-line": "info mtree" });
        let regions = machine.qemu.qmp("human-monitor-command", tree).unwrap();
        let regions = regions.as_str().unwrap();
        assert!(!regions.contains("svm-demo-registers"), "{step}: {regions}");
    }
    let device = json!({ "driver": "svm-demo", "id": "plugged", "bus": "rp0" });
    machine.qemu.qmp("device_add", device).unwrap();
    let bars = machine.enable_bars(plugged);
    machine.enable_ats(plugged);
    machine.add_pasid(PASID);
    let mut context = Context::start(&mut machine, bars, 1, PASID);
    let frame = machine.page();
    machine.map(PASID, SOURCE, frame, true);
    machine.qemu.write(frame, b"in the end");
    let record = context.run(&mut machine, copy(SOURCE, SOURCE + 0x800, 10));
    assert_eq!(record.status, status::SUCCESS, "{record:?}");
    assert_eq!(machine.qemu.read(frame + 0x800, 10), b"in the end");
    machine.qemu.quit();
}

#[test]
fn an_unknown_step_is_refused_with_the_known_ones() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let device = ["-M", "q35", "-device", "svm-demo,x-fail-realize=all"];
    let said = installation.says(&device);
    assert!(said.contains(&STEPS.join(", ")), "{said}");
}

#[test]
fn a_device_before_the_unit_is_kept_from_absent_pasids_too() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let unit = if is_svm_vtd() { "svm-vtd" } else { IOMMU };
    let arguments = ["-device", "svm-demo,addr=4.0,lab=on", "-device", unit];
    let machine = Machine::from(Qemu::start(&installation, &arguments));
    let mut laboratory = Laboratory::of(machine);
    let pasid = crate::laboratory::PASID;
    let old = laboratory.machine.page();
    laboratory.machine.map(pasid, ADDRESS, old, true);
    assert_eq!(laboratory.translate(ADDRESS), Some(old));
    laboratory.machine.retire_pasid(DEVICE, pasid);
    assert_eq!(laboratory.translate(ADDRESS), None);
    laboratory.machine.reuse_pasid(pasid);
    let new = laboratory.machine.page();
    laboratory.machine.map(pasid, ADDRESS, new, true);
    assert_eq!(laboratory.translate(ADDRESS), Some(new));
    laboratory.machine.qemu.quit();
}

#[test]
fn pasids_that_are_too_wide_are_refused_in_either_order() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let unit = "svm-vtd,pasid-bits=8";
    let arguments = ["-M", "q35", "-display", "none", "-accel", "qtest"];
    for (first, second, advice) in [
        (unit, "svm-demo,pasid-bits=9", "must be 1 to 8, not 9"),
        (
            "svm-demo,pasid-bits=9",
            unit,
            "give the device pasid-bits=8",
        ),
        ("svm-demo", unit, "put the vIOMMU before it"),
    ] {
        let devices = ["-device", first, "-device", second];
        let said = installation.says(&[&arguments[..], &devices].concat());
        assert!(said.contains(advice), "{first} {second}: {said}");
    }
    for devices in [["svm-demo", unit], [unit, "svm-demo"]] {
        let narrow = devices.map(|d| d.replace("svm-demo", "svm-demo,pasid-bits=8"));
        Qemu::start(
            &installation,
            &["-device", &narrow[0], "-device", &narrow[1]],
        )
        .quit();
    }
}

#[test]
fn addresses_of_57_bits_are_translated_where_the_first_stage_has_five_levels() {
    let Some(installation) = Installation::find() else {
        return;
    };
    /// Beyond 48 bits.
    const HIGH: u64 = 1 << 50;
    for (properties, expected) in [("", true), (",fs5lp=off", false)] {
        let unit = format!("svm-vtd{properties}");
        let arguments = ["-device", &unit, "-device", "svm-demo,addr=4.0"];
        let mut machine = Machine::from(Qemu::start(&installation, &arguments));
        let bars = machine.enable_bars(DEVICE);
        machine.enable_ats(DEVICE);
        machine.enable_vtd(&[DEVICE]);
        machine.add_pasid(PASID);
        if expected {
            machine.five_levels(PASID, &[0, HIGH]);
        }
        let mut context = Context::start(&mut machine, bars, 1, PASID);
        let frame = machine.page();
        machine.map(PASID, SOURCE, frame, true);
        machine.qemu.write(frame, b"far above");
        let record = context.run(
            &mut machine,
            copy(HIGH | SOURCE, HIGH | (SOURCE + 0x100), 9),
        );
        let done = record.status == status::SUCCESS;
        assert_eq!(done, expected, "{properties}: {record:?}");
        if expected {
            assert_eq!(machine.qemu.read(frame + 0x100, 9), b"far above");
        }
        machine.qemu.quit();
    }
}
