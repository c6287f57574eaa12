// SPDX-License-Identifier: GPL-2.0-or-later
//! Where QEMU's own unit is more lenient than the specification: `svm-vtd` is so too, unless it is
//! strict. What is refused is told in QEMU's log.

use crate::client::{Installation, Qemu, setting, skip};
use crate::machine::Machine;
use crate::unit::{CAP, FSTS, GCMD, GSTS, IQA, IQERCD, IQH, IQT, IRTA, RTADDR, VTD};

/// Invalidation Queue Error, in FSTS.
const IQE: u32 = 1 << 4;

/// A machine with this unit, and where QEMU writes its log of guest errors.
fn with(unit: &str) -> Option<(Machine, tempfile::TempDir)> {
    let installation = Installation::find()?;
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let log = log.to_str().unwrap();
    let arguments = ["-device", unit, "-d", "guest_errors", "-D", log];
    let qemu = Qemu::start(&installation, &arguments);
    Some((Machine::from(qemu), directory))
}

/// Ends QEMU and returns its log.
fn log(machine: Machine, directory: &tempfile::TempDir) -> String {
    machine.qemu.quit();
    std::fs::read_to_string(directory.path().join("log")).unwrap_or_default()
}

/// Scalable mode, and a queue of 128-bit descriptors that begins with an invalidation and a wait.
fn narrow_queue(machine: &mut Machine) -> u64 {
    let (root, queue, status) = (machine.page(), machine.page(), machine.page());
    let qemu = &mut machine.qemu;
    qemu.writeq(RTADDR, root | 1 << 10);
    qemu.writel(GCMD, 1 << 30);
    qemu.writeq(IQA, queue);
    qemu.writel(GCMD, 1 << 26);
    // IOTLB, global; wait with a status write.
    for (n, word) in [0x2 | 1 << 4, 0, 0x5 | 1 << 5 | 7 << 32, status]
        .into_iter()
        .enumerate()
    {
        qemu.writeq(queue + 8 * n as u64, word);
    }
    qemu.writeq(IQT, 32);
    status
}

#[test]
fn narrow_descriptors_in_scalable_mode_are_taken_unless_the_unit_is_strict() {
    for unit in [
        "svm-vtd",
        "svm-vtd,strict=off",
        "intel-iommu,scalable-mode=on,fsts=on",
    ] {
        let Some((mut machine, directory)) = with(unit) else {
            return;
        };
        let status = narrow_queue(&mut machine);
        machine
            .qemu
            .until("the wait", |qemu| qemu.readl(status) == 7);
        assert_eq!(
            (machine.qemu.readl(FSTS), machine.qemu.readq(IQH)),
            (0, 32),
            "{unit}"
        );
        assert_eq!(log(machine, &directory), "", "{unit}");
    }
    let Some((mut machine, directory)) = with("svm-vtd,strict=on") else {
        return;
    };
    let status = narrow_queue(&mut machine);
    assert_eq!(machine.qemu.readl(FSTS), IQE);
    // IQEI 5: the width of descriptors does not go with the mode.
    assert_eq!(machine.qemu.readq(IQERCD) & 0xf, 5);
    assert_eq!(
        (machine.qemu.readl(status), machine.qemu.readq(IQH)),
        (0, 0)
    );
    let said = log(machine, &directory);
    assert!(
        said.contains("svm-vtd: the invalidation queue stopped at offset 0x0"),
        "{said}"
    );
    assert!(said.contains("(IQEI 5)"), "{said}");
}

/// The reason and the requester of the first fault record, if there is one.
fn fault(machine: &mut Machine) -> Option<(u64, u64)> {
    let records = VTD + (machine.qemu.readq(CAP) >> 24 & 0x3ff) * 16;
    let high = machine.qemu.readq(records + 8);
    (high >> 63 != 0).then_some((high >> 32 & 0xff, high & 0xffff))
}

/// Makes the I/O APIC send an interrupt by this entry of the remapping table, which demands the id
/// of a function. Returns the fault.
fn io_apic(machine: &mut Machine, index: u64) -> Option<(u64, u64)> {
    const IOAPIC: u64 = 0xfec0_0000;
    let table = machine.page();
    let qemu = &mut machine.qemu;
    // Present, vector 0x41; the requester is validated in full.
    qemu.writeq(table, 1 | 0x41 << 16);
    qemu.writeq(table + 8, 0x10 | 1 << 18);
    qemu.writeq(IRTA, table | 7);
    qemu.writel(GCMD, 1 << 24);
    qemu.writel(GCMD, 1 << 25);
    assert_ne!(qemu.readl(GSTS) & 1 << 25, 0);
    // Redirection entry 5 in remappable format: vector, edge, not masked; format and index.
    let entry = 0x41 | 1 << 48 | (index & 0x7fff) << 49;
    for (register, value) in [(0x1b, (entry >> 32) as u32), (0x1a, entry as u32)] {
        qemu.writel(IOAPIC, register);
        qemu.writel(IOAPIC + 0x10, value);
    }
    for level in [0, 1] {
        qemu.set_irq("/machine/q35/ioapic", 5, level);
    }
    fault(machine)
}

#[test]
fn the_io_apic_is_validated_by_a_strict_unit_only() {
    if setting("SVM_QTEST_ACCEL").is_some() {
        // QEMU gives its messages to KVM as routes, which the kernel follows.
        return skip("the I/O APIC of a machine of KVM is not in QEMU's hands");
    }
    for (properties, index, expected) in [
        ("", 0, None),
        (",strict=on", 0, Some((0x26, 0xff00))),
        // Both refuse what is not there. A sender that is not validated is not named.
        ("", 3, Some((0x22, 0))),
        (",strict=on", 3, Some((0x22, 0xff00))),
    ] {
        let unit = format!("svm-vtd,intremap=on{properties}");
        let Some((mut machine, directory)) = with(&unit) else {
            return;
        };
        let found = io_apic(&mut machine, index);
        let said = log(machine, &directory);
        assert_eq!(found, expected, "{unit} {index}: {said}");
        assert_eq!(
            said.contains("interrupt request"),
            expected.is_some(),
            "{unit}: {said}"
        );
    }
}
