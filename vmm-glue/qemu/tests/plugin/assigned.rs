// SPDX-License-Identifier: GPL-2.0-or-later
//! Devices outside of QEMU, for which it copies the guest's mappings: what the guest maps, they
//! reach; what it unmaps, they reach no more when the invalidation is complete. In legacy mode
//! QEMU's own unit is the reference: both do the same.

use serde_json::{Value, json};

use crate::client::{Installation, Qemu};
use crate::hotplug::unplug;
use crate::legacy::{DOMAIN, LARGE, Legacy, R, W};
use crate::machine::{Address, Machine};
use crate::outside::{Announced, Outside};
use crate::unit::RTADDR;

const DEVICE: Address = Address { bus: 0, slot: 5 };
const PORT: Address = Address { bus: 0, slot: 3 };
/// An address of the device at which the machine has no memory.
const IOVA: u64 = 0x40_0000_0000;

/// A machine whose memory can be shared, with a device outside.
fn machine(installation: &Installation, iommu: &str) -> (Machine, Outside) {
    let outside = Outside::new();
    let device = outside.device(DEVICE.slot);
    let machine = Machine::from(Qemu::start(
        installation,
        &[
            "-object",
            "memory-backend-memfd,id=ram,size=512M,share=on",
            "-M",
            "memory-backend=ram",
            "-device",
            iommu,
            "-device",
            "pcie-root-port,id=rp0,addr=3.0,chassis=1",
            "-device",
            &device,
        ],
    ));
    (machine, outside)
}

/// The same with tables of legacy mode, which map nothing.
fn translated(installation: &Installation, iommu: &str) -> Legacy<Outside> {
    let (machine, outside) = machine(installation, iommu);
    Legacy::new(machine, DEVICE, outside)
}

impl Legacy<Outside> {
    /// The device writes to an address of its own, and that arrives in a frame. The other way
    /// round too.
    fn reaches(&mut self, address: u64, frame: u64) {
        self.machine.qemu.write(frame, b"from the machine");
        let read = self.device.read(address, 16);
        assert_eq!(
            read.as_deref(),
            Some(&b"from the machine"[..]),
            "{address:#x}"
        );
        assert!(
            self.device.write(address, b"from the device!"),
            "{address:#x}"
        );
        assert_eq!(self.machine.qemu.read(frame, 16), b"from the device!");
    }

    /// The device does not reach an address.
    fn is_cut_off(&self, address: u64) {
        assert_eq!(self.device.read(address, 16), None, "{address:#x}");
        assert!(!self.device.write(address, b"by no means"), "{address:#x}");
    }
}

/// The unit, and the reference, with what devices outside need.
const UNITS: [&str; 2] = [
    "svm-vtd,caching-mode=on,snoop-control=off",
    "intel-iommu,caching-mode=on,snoop-control=off",
];

/// Runs a test with each unit.
fn with_each(test: impl Fn(Legacy<Outside>)) {
    let Some(installation) = Installation::find() else {
        return;
    };
    for unit in UNITS {
        // Of a test that fails, the last unit is what it failed on.
        println!("{unit}");
        test(translated(&installation, unit));
    }
}

#[test]
fn what_is_mapped_is_reached_and_what_is_unmapped_is_not() {
    with_each(|mut l| {
        let frame = l.machine.page();
        l.reaches(frame, frame);
        l.switch(true);
        // Translation cuts it off from what it does not map.
        l.is_cut_off(frame);
        l.is_cut_off(IOVA);
        l.map(1, IOVA, frame | R | W);
        l.is_cut_off(IOVA);
        l.invalidate_pages(IOVA, 0);
        l.reaches(IOVA, frame);
        l.is_cut_off(IOVA + 0x1000);
        // Another frame, without unmapping the first.
        let other = l.machine.page();
        l.map(1, IOVA, other | R | W);
        l.invalidate_pages(IOVA, 0);
        l.reaches(IOVA, other);
        l.map(1, IOVA, other | R);
        l.invalidate_pages(IOVA, 0);
        assert!(l.device.read(IOVA, 16).is_some());
        assert!(!l.device.write(IOVA, b"not permitted"));
        l.map(1, IOVA, 0);
        l.invalidate_pages(IOVA, 0);
        l.is_cut_off(IOVA);
        l.machine.qemu.quit();
    });
}

/// A transfer across the border of two pages is two requests. Each goes by its own page.
#[test]
fn a_transfer_across_two_pages_goes_by_the_mapping_of_each() {
    with_each(|mut l| {
        l.switch(true);
        // Not one behind the other in memory.
        let frames = l.machine.pages(3);
        let (first, second) = (frames + 0x2000, frames);
        let data: Vec<u8> = (0..0x2000u32).map(|n| (n % 251) as u8).collect();
        l.machine.qemu.write(first, &data[..0x1000]);
        l.machine.qemu.write(second, &data[0x1000..]);
        l.map(1, IOVA, first | R | W);
        l.map(1, IOVA + 0x1000, second | R | W);
        l.invalidate_pages(IOVA, 1);
        for (begin, length) in [(0xffc, 8), (0x800, 0x1800)] {
            let read = l.device.read_by_pages(IOVA + begin, length);
            let end = begin + length;
            assert_eq!(read, data[begin as usize..end as usize], "{begin:#x}");
        }
        l.map(1, IOVA + 0x1000, 0);
        l.invalidate_pages(IOVA + 0x1000, 0);
        for (begin, length) in [(0xffc, 8), (0x800, 0x1800)] {
            // The part in the second page does not arrive; the other does.
            let read = l.device.read_by_pages(IOVA + begin, length);
            assert_eq!(read, data[begin as usize..0x1000], "{begin:#x}");
        }
        l.is_cut_off(IOVA + 0x1000);
        l.reaches(IOVA, first);
        l.machine.qemu.quit();
    });
}

/// The pages of a table that takes the place of a large page: the one that it lacks, and the one
/// that is invalidated.
const PAGES: u64 = 512;
const ABSENT: u64 = 7;
const INVALIDATED: u64 = 3;
const LARGE_PAGE: u64 = IOVA + 0x20_0000;
const LARGE_FRAME: u64 = 0x1800_0000;

/// Replaces a large page by a table of small ones and invalidates one of them. Returns what the
/// device is told then.
fn replace_large_page(l: &mut Legacy<Outside>) -> Vec<Announced> {
    l.switch(true);
    l.map(2, LARGE_PAGE, LARGE_FRAME | R | W | LARGE);
    l.invalidate_pages(LARGE_PAGE, 9);
    let absent = ABSENT * 0x1000;
    l.reaches(LARGE_PAGE + absent, LARGE_FRAME + absent);
    let before = l.device.told().len();
    // Nobody looks at the table before the invalidation.
    l.map(2, LARGE_PAGE, 0);
    for at in present() {
        l.map(1, LARGE_PAGE + at, (LARGE_FRAME + at) | R | W);
    }
    l.invalidate_pages(LARGE_PAGE + INVALIDATED * 0x1000, 0);
    l.device.told().split_off(before)
}

/// Where the small pages are in the large one.
fn present() -> impl Iterator<Item = u64> {
    let pages = (0..PAGES).filter(|page| *page != ABSENT);
    pages.map(|page| page * 0x1000)
}

/// An invalidation of one page takes the large page that it was in as a whole (VT-d 6.5.2.3).
#[test]
fn a_large_page_is_replaced_by_small_ones_by_an_invalidation_of_one() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let mut l = translated(&installation, UNITS[0]);
    let told = replace_large_page(&mut l);
    assert_eq!(
        told.first(),
        Some(&Announced::Unmap(LARGE_PAGE, PAGES * 0x1000))
    );
    let mut mapped: Vec<u64> = Vec::new();
    for told in &told[1..] {
        let Announced::Map(address, size) = *told else {
            panic!("{told:x?}");
        };
        mapped.extend((address..address + size).step_by(0x1000));
    }
    mapped.sort_unstable();
    let expected: Vec<u64> = present().map(|at| LARGE_PAGE + at).collect();
    assert_eq!(mapped, expected);
    l.is_cut_off(LARGE_PAGE + ABSENT * 0x1000);
    for page in [0, INVALIDATED, ABSENT + 1, PAGES - 1] {
        let at = page * 0x1000;
        l.reaches(LARGE_PAGE + at, LARGE_FRAME + at);
    }
    l.machine.qemu.quit();
}

/// If this fails, QEMU's unit has been mended, and the test before is for both.
#[test]
fn deviation_of_intel_iommu_a_large_page_that_is_replaced_is_kept_but_for_the_page_invalidated() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let mut l = translated(&installation, UNITS[1]);
    let told = replace_large_page(&mut l);
    let page = LARGE_PAGE + INVALIDATED * 0x1000;
    assert_eq!(
        told,
        [Announced::Unmap(page, 0x1000), Announced::Map(page, 0x1000)]
    );
    let absent = ABSENT * 0x1000;
    l.reaches(LARGE_PAGE + absent, LARGE_FRAME + absent);
    l.machine.qemu.quit();
}

#[test]
fn several_pages_at_once_and_large_ones() {
    with_each(|mut l| {
        l.switch(true);
        let frames = l.machine.pages(4);
        for n in 0..4 {
            l.map(1, IOVA + n * 0x1000, (frames + (3 - n) * 0x1000) | R | W);
        }
        l.invalidate_pages(IOVA, 2);
        for n in 0..4 {
            l.reaches(IOVA + n * 0x1000, frames + (3 - n) * 0x1000);
        }
        let (large, memory) = (IOVA + 0x20_0000, 0x1800_0000);
        l.map(2, large, memory | R | W | LARGE);
        l.invalidate_domain();
        l.reaches(large + 0x1f_f000, memory + 0x1f_f000);
        // What has not changed is still there, and only what is invalidated goes.
        l.reaches(IOVA, frames + 0x3000);
        for n in 0..4 {
            l.map(1, IOVA + n * 0x1000, 0);
        }
        l.invalidate_pages(IOVA + 0x2000, 1);
        l.is_cut_off(IOVA + 0x2000);
        l.is_cut_off(IOVA + 0x3000);
        l.invalidate_domain();
        l.is_cut_off(IOVA);
        l.reaches(large, memory);
        // All of it goes when one page of it is invalidated.
        l.map(2, large, 0);
        l.invalidate_pages(large, 9);
        l.is_cut_off(large);
        l.is_cut_off(large + 0x1f_f000);
        l.machine.qemu.quit();
    });
}

#[test]
fn mappings_that_are_there_before_translation_are_replayed() {
    with_each(|mut l| {
        let (frame, other) = (l.machine.page(), l.machine.page());
        l.map(1, IOVA, frame | R | W);
        l.map(1, 0x1000, other | R | W);
        l.switch(true);
        l.reaches(IOVA, frame);
        l.reaches(0x1000, other);
        l.is_cut_off(frame);
        l.switch(false);
        l.is_cut_off(IOVA);
        l.reaches(frame, frame);
        l.switch(true);
        l.reaches(IOVA, frame);
        l.machine.qemu.qmp("system_reset", json!({})).unwrap();
        l.machine.qemu.wait_event("RESET");
        // Memory as it is, at its own addresses.
        l.is_cut_off(IOVA);
        l.reaches(frame, frame);
        l.machine.qemu.quit();
    });
}

#[test]
fn a_new_context_entry_changes_everything() {
    with_each(|mut l| {
        let frame = l.machine.page();
        l.map(1, IOVA, frame | R | W);
        l.switch(true);
        l.reaches(IOVA, frame);
        // Passed through: system memory itself, as often as it is asked for.
        for _ in 0..2 {
            l.passed_through();
            l.invalidate_context();
            l.is_cut_off(IOVA);
            l.reaches(frame, frame);
            l.translated();
            l.invalidate_context();
            l.reaches(IOVA, frame);
            l.is_cut_off(frame);
        }
        let empty = l.machine.page();
        l.second_stage = empty;
        l.translated();
        l.invalidate_context();
        l.is_cut_off(IOVA);
        l.machine.qemu.quit();
    });
}

#[test]
fn the_first_stage_of_scalable_mode_is_copied_too() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let (mut machine, outside) = machine(&installation, UNITS[0]);
    machine.enable_vtd(&[DEVICE]);
    let frame = machine.page();
    // Requests without PASID have PASID 0 (RID_PASID).
    machine.map(0, IOVA, frame, true);
    machine.invalidate_iotlb(0, IOVA);
    assert!(outside.write(IOVA, b"by the first stage"));
    assert_eq!(machine.qemu.read(frame, 18), b"by the first stage");
    machine.retire_pasid(DEVICE, 0);
    assert_eq!(outside.read(IOVA, 16), None);
    machine.qemu.quit();
}

#[test]
fn a_device_that_is_plugged_in_hears_of_what_there_is() {
    let Some(installation) = Installation::find() else {
        return;
    };
    for (unit, pass) in [(0, false), (0, true), (1, false), (1, true)] {
        let mut l = translated(&installation, UNITS[unit]);
        l.machine.open_root_port(PORT);
        // The tables of the port's bus: those of the first one.
        let (root, context) = (l.machine.qemu.readq(RTADDR), l.machine.page());
        let (table, frame) = (l.second_stage, l.machine.page());
        let qemu = &mut l.machine.qemu;
        qemu.writeq(root + 16, context | 1);
        qemu.writeq(context + 8, 2 | DOMAIN << 8);
        qemu.writeq(context, if pass { 1 | 2 << 2 } else { table | 1 });
        l.map(1, IOVA, frame | R | W);
        l.switch(true);
        for _ in 0..2 {
            let late = Outside::new();
            let mut device: Value = serde_json::from_str(&late.device(0)).unwrap();
            device["id"] = json!("late");
            device["bus"] = json!("rp0");
            l.machine.qemu.qmp("device_add", device).unwrap();
            let (reached, not) = if pass { (frame, IOVA) } else { (IOVA, frame) };
            // The main loop may have the last word.
            l.machine
                .qemu
                .until("its memory", |_| late.write(reached, b"plugged in"));
            assert_eq!(l.machine.qemu.read(frame, 10), b"plugged in");
            assert_eq!(late.read(not, 10), None);
            unplug(&mut l.machine, "late");
            // No client is left to hear of it.
            l.invalidate_context();
        }
        l.machine.qemu.quit();
    }
}

#[test]
fn nothing_is_told_twice() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let mut l = translated(&installation, UNITS[0]);
    l.switch(true);
    let frame = l.machine.page();
    l.map(1, IOVA, frame | R | W);
    l.invalidate_pages(IOVA, 0);
    let before = l.device.counts();
    for _ in 0..3 {
        l.invalidate_pages(IOVA, 0);
        l.invalidate_domain();
        l.invalidate_context();
    }
    assert_eq!(l.device.counts(), before);
    l.map(1, IOVA, 0);
    l.invalidate_domain();
    assert_eq!(l.device.counts(), (before.0, before.1 + 1));
    l.machine.qemu.quit();
}

#[test]
fn without_what_it_needs_a_device_outside_is_refused() {
    let Some(installation) = Installation::find() else {
        return;
    };
    for (properties, advice) in [
        ("snoop-control=off", "add caching-mode=on"),
        ("caching-mode=on", "add snoop-control=off"),
    ] {
        let port = "pcie-root-port,id=rp0,addr=3.0,chassis=1";
        let unit = format!("svm-vtd,{properties}");
        let arguments = ["-device", &unit, "-device", port];
        let mut machine = Machine::from(Qemu::start(&installation, &arguments));
        machine.open_root_port(PORT);
        machine.enable_vtd(&[Address { bus: 1, slot: 0 }]);
        let outside = Outside::new();
        let mut device: Value = serde_json::from_str(&outside.device(0)).unwrap();
        device["bus"] = json!("rp0");
        let reason = machine.qemu.qmp("device_add", device).unwrap_err();
        assert!(reason.contains(advice), "{properties}: {reason}");
        machine.qemu.quit();
    }
}

#[test]
fn a_machine_does_not_start_with_a_device_outside_that_it_cannot_serve() {
    let Some(installation) = Installation::find() else {
        return;
    };
    for (properties, advice) in [
        ("", "add caching-mode=on,snoop-control=off to svm-vtd"),
        (",snoop-control=off", "add caching-mode=on to svm-vtd"),
        (",caching-mode=on", "add snoop-control=off to svm-vtd"),
    ] {
        let unit = format!("svm-vtd{properties}");
        // In either order.
        for unit_first in [true, false] {
            let outside = Outside::new();
            let mut devices = [unit.clone(), outside.device(DEVICE.slot)];
            if !unit_first {
                devices.reverse();
            }
            let said = installation.says(&[
                "-object",
                "memory-backend-memfd,id=ram,size=512M,share=on",
                "-M",
                "q35,memory-backend=ram",
                "-m",
                "512",
                "-nodefaults",
                "-display",
                "none",
                "-accel",
                "qtest",
                "-device",
                &devices[0],
                "-device",
                &devices[1],
            ]);
            assert!(said.contains(advice), "{unit} {unit_first}: {said}");
            assert!(said.contains("vfio-user-pci"), "{said}");
        }
    }
}
