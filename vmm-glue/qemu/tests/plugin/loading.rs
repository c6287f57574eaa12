// SPDX-License-Identifier: GPL-2.0-or-later
//! How the library gets into QEMU, what it offers there, and when it refuses.

use std::process::Command;

use serde_json::json;

use crate::client::{Installation, Qemu};

#[test]
fn help_lists_the_device_and_its_properties() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let devices = installation.says(&["-device", "help"]);
    assert!(
        devices.contains("name \"svm-demo\", bus PCI, desc "),
        "{devices}"
    );
    let help = installation.says(&["-device", "svm-demo,help"]);
    for property in [
        "contexts",
        "atc-entries",
        "atc-ways",
        "pri-capacity",
        "pasid-bits",
        "lab",
        "smpwcs",
        "trace",
    ] {
        let line = help
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{property}=")));
        let line = line.unwrap_or_else(|| panic!("no {property} in {help}"));
        assert!(line.contains("(default: "), "{line}");
    }
}

#[test]
fn wrong_properties_are_refused_with_what_is_right() {
    let Some(installation) = Installation::find() else {
        return;
    };
    for (property, complaint) in [
        ("contexts=0", "contexts must be 1 to 256, not 0"),
        ("contexts=257", "contexts must be 1 to 256, not 257"),
        ("atc-entries=3", "atc-entries must be 4 to 65536, not 3"),
        ("atc-entries=1000", "power of two"),
        ("atc-ways=1", "atc-ways must be 2 to 16, not 1"),
        ("atc-ways=3", "power of two"),
        (
            "pri-capacity=0",
            "pri-capacity must be 1 to 4294967295, not 0",
        ),
        ("pasid-bits=0", "pasid-bits must be 1 to 20, not 0"),
        ("pasid-bits=21", "pasid-bits must be 1 to 20, not 21"),
        ("lab=perhaps", "lab"),
        (
            "trace=/nowhere/at/all",
            "cannot create trace file '/nowhere/at/all'",
        ),
        ("colour=blue", "colour"),
    ] {
        let device = format!("svm-demo,{property}");
        let said = installation.says(&["-M", "q35", "-display", "none", "-device", &device]);
        assert!(said.contains(complaint), "{property}: {said}");
    }
}

#[test]
fn the_width_of_pasids_is_that_of_the_iommu_at_most() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let iommu = "intel-iommu,scalable-mode=on,fsts=on,svm=on,device-iotlb=on,pasid-bits=10";
    let said = installation.says(&[
        "-M",
        "q35",
        "-display",
        "none",
        "-device",
        iommu,
        "-device",
        "svm-demo,pasid-bits=11",
    ]);
    assert!(
        said.contains("pasid-bits must be 1 to 10, not 11"),
        "{said}"
    );
}

#[test]
fn a_machine_without_pci_express_is_refused() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let said = installation.says(&["-M", "pc", "-display", "none", "-device", "svm-demo"]);
    assert!(said.contains("needs a bus of PCI Express"), "{said}");
}

#[test]
fn two_devices_need_two_trace_files() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let device = format!(
        "svm-demo,trace={}",
        directory.path().join("t.json").display()
    );
    let said = installation.says(&[
        "-M", "q35", "-display", "none", "-device", &device, "-device", &device,
    ]);
    assert!(said.contains("that of another device"), "{said}");
}

#[test]
fn the_library_works_as_a_plugin_too() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let plugin = installation.plugin().display().to_string();
    let arguments = ["-plugin", &plugin, "-device", "svm-demo,id=x"];
    let mut qemu = Qemu::start(&installation.without_plugin(), &arguments);
    let contexts = qemu.qmp("qom-get", json!({ "path": "x", "property": "contexts" }));
    assert_eq!(contexts, Ok(json!(64)));
    qemu.quit();
}

#[test]
fn properties_do_not_change_when_the_device_is_made() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let mut qemu = Qemu::start(&installation, &["-device", "svm-demo,id=x,contexts=8"]);
    let change = json!({ "path": "x", "property": "contexts", "value": 9 });
    let error = qemu.qmp("qom-set", change).unwrap_err();
    assert!(error.contains("cannot be changed"), "{error}");
    let contexts = qemu.qmp("qom-get", json!({ "path": "x", "property": "contexts" }));
    assert_eq!(contexts, Ok(json!(8)));
    qemu.quit();
}

#[test]
fn a_program_that_is_not_qemu_is_left_alone() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let output = Command::new("true")
        .env("LD_PRELOAD", installation.plugin())
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
}

/// What a QEMU says of the device when one text in its binary is replaced by another of the same
/// length.
fn patched(from: &str, to: &str) -> Option<String> {
    let installation = Installation::find()?;
    let path = &installation.binary();
    let mut bytes = std::fs::read(path).unwrap();
    assert_eq!(from.len(), to.len());
    let needle = [b"\0", from.as_bytes(), b"\0"].concat();
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle);
    let at = at.unwrap_or_else(|| panic!("no '{from}' in {path:?}"));
    bytes[at + 1..at + 1 + to.len()].copy_from_slice(to.as_bytes());
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("qemu-system-patched");
    std::fs::copy(path, &copy).unwrap(); // With its permissions.
    std::fs::write(&copy, bytes).unwrap();
    let other = installation.with_binary(copy);
    Some(other.says(&["-device", "svm-demo,help"]))
}

#[test]
fn a_qemu_that_lacks_a_function_is_refused_with_its_name() {
    let Some(said) = patched("pcie_pasid_init", "pcie_pasid_exit") else {
        return;
    };
    assert!(
        said.contains("it does not export pcie_pasid_init"),
        "{said}"
    );
    assert!(said.contains("Supported is QEMU 11.1"), "{said}");
    assert!(said.contains("Device 'svm-demo' not found"), "{said}");
}

#[test]
fn a_qemu_with_another_layout_is_refused_with_what_differs() {
    let Some(said) = patched("PCI Test Device", "PCI Text Device") else {
        return;
    };
    assert!(
        said.contains("desc in class pci-testdev is \"PCI Text Device\""),
        "{said}"
    );
    assert!(said.contains("expected \"PCI Test Device\""), "{said}");
    assert!(said.contains("Device 'svm-demo' not found"), "{said}");
}
