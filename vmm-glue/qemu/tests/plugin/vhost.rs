// SPDX-License-Identifier: GPL-2.0-or-later
//! Devices that ask QEMU for translations and keep them, as vhost does: they give them up when the
//! guest invalidates them, be it in the IOTLB or, if they have a device-TLB to the guest, in that.
//! QEMU's own unit is the reference.

use crate::client::{Installation, Qemu, setting, skip};
use crate::legacy::{Legacy, R, W};
use crate::machine::{Address, Machine};
use crate::vhost_backend::Backend;

const PORT: Address = Address { bus: 0, slot: 3 };
/// The device, which is one of PCI Express only below a port.
const DEVICE: Address = Address { bus: 1, slot: 0 };
/// Another function that is there: the LPC bridge.
const OTHER: Address = Address { bus: 0, slot: 31 };
/// An address of the device at which the machine has no memory.
const IOVA: u64 = 0x40_0000_0000;
/// The device's address of the queue.
const QUEUE: u64 = 0x50_0000_0000;
/// Where the device's registers are.
const BAR: u64 = 0xe000_0000;

/// Registers of the common configuration of a virtio device (virtio 1.2, 4.1.4.3).
mod common {
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const STATUS: u64 = 0x14;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
}

/// A machine with the device at work, translated by tables of legacy mode. None if machines do not
/// run.
fn at_work(installation: &Installation, iommu: &str, ats: bool) -> Option<Legacy<Backend>> {
    if setting("SVM_QTEST_ACCEL").is_some() {
        skip("a virtio device is at work in machines that run only");
        return None;
    }
    let backend = Backend::new();
    let chardev = backend.chardev();
    let device = format!(
        "vhost-user-rng-pci,chardev=backend,bus=rp0,iommu_platform=on,ats={}",
        if ats { "on" } else { "off" }
    );
    let mut machine = Machine::from(Qemu::start(
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
            "-chardev",
            &chardev,
            "-device",
            &device,
        ],
    ));
    machine.open_root_port(PORT);
    let mut l = Legacy::new(machine, DEVICE, backend);
    if ats {
        // TT: translation requests are allowed.
        let context = l.context;
        let entry = l.machine.qemu.readq(context);
        l.machine.qemu.writeq(context, entry | 1 << 2);
        let extended = l.machine.extended_capabilities(DEVICE);
        l.machine
            .config_write16(DEVICE, extended[&0xf] + 6, 1 << 15);
    }
    let queue = l.machine.pages(2);
    for n in 0..2 {
        l.map(1, QUEUE + n * 0x1000, (queue + n * 0x1000) | R | W);
    }
    l.switch(true);
    start(&mut l.machine);
    Some(l)
}

/// Does what a driver does until the device works.
fn start(machine: &mut Machine) {
    // The common configuration: capability 9 of type 1; its BAR and its offset there.
    let mut at = machine.config_read(DEVICE, 0x34) as u16 & 0xff;
    loop {
        assert_ne!(at, 0, "no common configuration");
        let header = machine.config_read(DEVICE, at);
        if header & 0xff == 9 && header >> 24 == 1 {
            break;
        }
        at = (header >> 8 & 0xff) as u16;
    }
    let bar = machine.config_read(DEVICE, at + 4) as u16 & 0xff;
    let offset = machine.config_read(DEVICE, at + 8);
    machine.config_write(DEVICE, 0x10 + 4 * bar, BAR as u32);
    machine.config_write(DEVICE, 0x14 + 4 * bar, 0);
    machine.config_write16(DEVICE, 4, 0x6);
    let common = BAR + u64::from(offset);
    let qemu = &mut machine.qemu;
    // Acknowledge, driver.
    qemu.writeb(common + common::STATUS, 3);
    // VIRTIO_F_VERSION_1 and VIRTIO_F_ACCESS_PLATFORM.
    for (select, features) in [(0, 0), (1, 3)] {
        qemu.writel(common + common::DRIVER_FEATURE_SELECT, select);
        qemu.writel(common + common::DRIVER_FEATURE, features);
    }
    qemu.writeb(common + common::STATUS, 0xb);
    for (register, address) in [
        (common::QUEUE_DESC, QUEUE),
        (common::QUEUE_DRIVER, QUEUE + 0x800),
        (common::QUEUE_DEVICE, QUEUE + 0x1000),
    ] {
        qemu.writel(common + register, address as u32);
        qemu.writel(common + register + 4, (address >> 32) as u32);
    }
    qemu.writew(common + common::QUEUE_ENABLE, 1);
    qemu.writeb(common + common::STATUS, 0xf);
}

impl Legacy<Backend> {
    /// Maps the address to a new frame; the device writes there, and keeps the translation.
    fn write_to_new(&mut self, address: u64) {
        let frame = self.machine.page();
        self.map(1, address, frame | R | W);
        self.device.write(address, b"from the back end");
        assert_eq!(self.machine.qemu.read(frame, 17), b"from the back end");
        assert!(self.device.has(address));
    }
}

#[test]
fn a_translation_is_given_up_when_the_iotlb_is_invalidated() {
    let Some(installation) = Installation::find() else {
        return;
    };
    for unit in ["svm-vtd", "intel-iommu", "svm-vtd,device-iotlb=off"] {
        let Some(mut l) = at_work(&installation, unit, false) else {
            return;
        };
        // QEMU itself asks for where the device tells of used buffers.
        assert!(l.device.has(QUEUE + 0x1000));
        l.write_to_new(IOVA);
        l.write_to_new(IOVA + 0x10_0000);
        l.map(1, IOVA, 0);
        l.invalidate_pages(IOVA, 0);
        assert!(!l.device.has(IOVA), "{unit}");
        assert!(l.device.has(IOVA + 0x10_0000), "{unit}");
        l.write_to_new(IOVA);
        l.invalidate_domain();
        assert!(
            !l.device.has(IOVA) && !l.device.has(IOVA + 0x10_0000),
            "{unit}"
        );
        l.write_to_new(IOVA);
        // IOTLB, global.
        l.submit(0x2 | 1 << 4, 0);
        assert!(!l.device.has(IOVA), "{unit}");
        l.machine.qemu.quit();
    }
}

#[test]
fn a_device_with_a_device_tlb_gives_up_what_is_invalidated_there() {
    let Some(installation) = Installation::find() else {
        return;
    };
    for unit in ["svm-vtd", "intel-iommu,device-iotlb=on"] {
        let Some(mut l) = at_work(&installation, unit, true) else {
            return;
        };
        l.write_to_new(IOVA);
        l.write_to_new(IOVA + 0x10_0000);
        // The IOTLB is another matter, and so is the device-TLB of another function.
        l.invalidate_pages(IOVA, 0);
        assert!(l.device.has(IOVA), "{unit}");
        l.submit(0x3 | OTHER.sid() << 32, IOVA);
        assert!(l.device.has(IOVA), "{unit}");
        l.submit(0x3 | DEVICE.sid() << 32, IOVA);
        assert!(!l.device.has(IOVA), "{unit}");
        assert!(l.device.has(IOVA + 0x10_0000), "{unit}");
        // All addresses: S, and no zero below bit 63.
        l.submit(0x3 | DEVICE.sid() << 32, 0x7fff_ffff_ffff_f001);
        assert!(!l.device.has(IOVA + 0x10_0000), "{unit}");
        l.machine.qemu.quit();
    }
}
