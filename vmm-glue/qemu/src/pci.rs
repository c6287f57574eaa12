// SPDX-License-Identifier: GPL-2.0-or-later
//! QEMU's side of a PCI Express function: configuration space, capabilities and interrupts. Knows
//! nothing of the endpoint.

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

use crate::abi::layout::{self, *};
use crate::abi::qemu;
use crate::abi::room;
use crate::bql::Bql;
use crate::memory::{IoRegion, Space};
use crate::message::ErrorSlot;

/// Offset of the control and status register in the power management capability.
pub const PM_CONTROL: u16 = 4;
/// The power state in that register: 0 for D0, 3 for D3hot.
pub const POWER_STATE: u32 = 3;
/// No_Soft_Reset in that register.
const NO_SOFT_RESET: u32 = 1 << 3;

/// One `PCIDevice`.
#[derive(Clone, Copy)]
pub struct PciDevice(NonNull<PCIDevice>);

// SAFETY: all accesses to the object require a proof of the BQL.
unsafe impl Send for PciDevice {}
// SAFETY: as above.
unsafe impl Sync for PciDevice {}

impl PciDevice {
    /// The device behind a pointer.
    ///
    /// # Safety
    ///
    /// It is an instance of `pci-device`, and is not finalized while the value is in use.
    pub unsafe fn new(device: NonNull<PCIDevice>) -> PciDevice {
        PciDevice(device)
    }

    /// As QEMU takes it.
    pub fn raw(self) -> *mut PCIDevice {
        self.0.as_ptr()
    }

    /// Its base object.
    pub fn object(self) -> *mut Object {
        self.0.as_ptr().cast()
    }

    /// The device's name for users: its id, or its path.
    pub fn name(self, _bql: &Bql) -> String {
        // SAFETY: the object is a device; the string is ours and is freed once.
        unsafe {
            let name = (qemu().qdev_get_human_name)(self.object());
            if name.is_null() {
                return "?".to_owned();
            }
            let text = CStr::from_ptr(name).to_string_lossy().into_owned();
            (qemu().g_free)(name.cast());
            text
        }
    }

    /// Whether it sits on a bus of PCI Express.
    pub fn is_on_express_bus(self, _bql: &Bql) -> bool {
        // SAFETY: a device that is being realized has a parent bus, which is a PCI bus.
        unsafe {
            let bus = (qemu().qdev_get_parent_bus)(self.object());
            !bus.is_null() && (qemu().pci_bus_is_express)(bus)
        }
    }

    /// The 4096 bytes of configuration space.
    fn config(self, bql: &Bql) -> *mut u8 {
        self.bytes(bql, layout::layout().pci_device.config)
    }

    /// The array that a field points to, which has the size of configuration space.
    fn bytes(self, _bql: &Bql, offset: usize) -> *mut u8 {
        // SAFETY: the field lies inside the object; `verify` has compared the object's size and
        // `check_layout` the array.
        unsafe {
            let field = self.raw().cast::<u8>().add(offset);
            field.cast::<*mut u8>().read()
        }
    }

    /// Whether configuration space is at the offset of the layout: it begins with these ids, which
    /// are read-only, followed by the command register, which is writable.
    pub fn check_layout(self, bql: &Bql, vendor: u16, device: u16) -> bool {
        let at = &layout::layout().pci_device;
        if [at.config, at.wmask].iter().any(|field| {
            let bytes = self.bytes(bql, *field);
            bytes.is_null() || bytes.addr() % 8 != 0
        }) {
            return false;
        }
        // SAFETY: both were found to be aligned pointers, at offsets of this layout.
        let writable = unsafe {
            let wmask = self.bytes(bql, at.wmask).cast::<u32>();
            [wmask.read(), wmask.add(1).read() & 7]
        };
        self.read_config_raw(bql, 0) == u32::from(vendor) | u32::from(device) << 16
            && writable == [0, 7]
    }

    /// Whether the fields that the plug-in writes in devices of the host are at the offsets of the
    /// layout: this function's own to write configuration space, and its PRI capability.
    pub fn check_fields(self, _bql: &Bql, write: usize, pri: u16) -> bool {
        let Some(at) = layout::assigned().map(|at| &at.pci_device) else {
            return true;
        };
        // SAFETY: the fields lie inside the object, as for `bytes`.
        let found: (usize, u16) = unsafe {
            (
                room::read(self.0, at.config_write),
                room::read(self.0, at.pri_cap),
            )
        };
        found == (write, pri)
    }

    /// Reads the double word at `offset`, a multiple of 4 below 4096, as QEMU stores it.
    pub fn read_config_raw(self, bql: &Bql, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        // SAFETY: the offset is in configuration space, which only holders of the BQL access.
        unsafe {
            let at = self.config(bql).add(usize::from(offset & 0xffc));
            at.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len());
        }
        u32::from_le_bytes(bytes)
    }

    /// Stores the double word at `offset`, a multiple of 4 below 4096, regardless of which bits
    /// software may write.
    pub fn write_config_raw(self, bql: &Bql, offset: u16, value: u32) {
        let bytes = value.to_le_bytes();
        // SAFETY: as for `read_config_raw`.
        unsafe {
            let at = self.config(bql).add(usize::from(offset & 0xffc));
            at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// A read by software, with QEMU's rules.
    pub fn read_config(self, _bql: &Bql, address: u32, length: c_int) -> u32 {
        // SAFETY: QEMU has checked address and length before it called us.
        unsafe { (qemu().pci_default_read_config)(self.raw(), address, length) }
    }

    /// A write by software, with QEMU's rules; a function level reset happens in here.
    pub fn write_config(self, _bql: &Bql, address: u32, value: u32, length: c_int) {
        // SAFETY: as for `read_config`.
        unsafe {
            (qemu().pci_default_write_config)(self.raw(), address, value, length);
            (qemu().pcie_cap_flr_write_config)(self.raw(), address, value, length);
        }
    }

    /// Adds the power management capability (PCIe 7.5.2), with D0 and D3hot and No_Soft_Reset, and
    /// returns its offset.
    pub fn add_power_management(self, bql: &Bql, error: ErrorSlot) -> Option<u8> {
        // SAFETY: the device is being realized, and QEMU finds room for the capability.
        let offset = unsafe { (qemu().pci_pm_init)(self.raw(), 0, error.as_out()) };
        let offset = u8::try_from(offset).ok()?;
        let at = u16::from(offset);
        // Version 3 in the upper half, after the header.
        let header = self.read_config_raw(bql, at) & 0xffff;
        self.write_config_raw(bql, at, header | 3 << 16);
        self.write_config_raw(bql, at + PM_CONTROL, NO_SOFT_RESET);
        // SAFETY: the capability lies in configuration space; QEMU has aligned it to 4 bytes.
        unsafe {
            let wmask = self.bytes(bql, layout::layout().pci_device.wmask);
            let control = wmask.add(usize::from(at + PM_CONTROL));
            control.write(control.read() | POWER_STATE as u8);
        }
        Some(offset)
    }

    /// Adds the PCI Express capability, with function level reset, and returns its offset.
    pub fn add_express(self, _bql: &Bql) -> Option<u8> {
        // SAFETY: the device is being realized on a bus of PCI Express.
        unsafe {
            let offset = (qemu().pcie_endpoint_cap_init)(self.raw(), 0);
            if offset < 0 {
                return None;
            }
            (qemu().pcie_cap_flr_init)(self.raw());
            u8::try_from(offset).ok()
        }
    }

    /// Undoes [`PciDevice::add_express`].
    pub fn remove_express(self, _bql: &Bql) {
        // SAFETY: the device is being unrealized.
        unsafe { (qemu().pcie_cap_exit)(self.raw()) }
    }

    /// Adds the ATS capability with Page Aligned Request.
    pub fn add_ats(self, _bql: &Bql, offset: u16) {
        // SAFETY: the device is being realized and has the PCI Express capability.
        unsafe { (qemu().pcie_ats_init)(self.raw(), offset, true) }
    }

    /// Adds the page request capability with PRG Response PASID Required.
    pub fn add_pri(self, _bql: &Bql, offset: u16, capacity: u32) {
        // SAFETY: as for `add_ats`.
        unsafe { (qemu().pcie_pri_init)(self.raw(), offset, capacity, true) }
    }

    /// Adds the PASID capability, optionally with requests for execution and in privileged mode.
    pub fn add_pasid(self, _bql: &Bql, offset: u16, width: u8, execute: bool, privileged: bool) {
        // SAFETY: as for `add_ats`; the width is at most 20.
        unsafe { (qemu().pcie_pasid_init)(self.raw(), offset, width, execute, privileged) }
    }

    /// Adds a BAR of 64 bits.
    pub fn add_bar(self, _bql: &Bql, bar: u8, region: &IoRegion) {
        // SAFETY: the device is being realized; the region's size is a power of two, and the
        // region lives as long as the device.
        unsafe { (qemu().pci_register_bar)(self.raw(), c_int::from(bar), BAR_64, region.as_ptr()) }
    }

    /// Adds MSI-X with its own BAR and all vectors in use. False with an error in the slot.
    pub fn add_msix(self, _bql: &Bql, vectors: u16, bar: u8, error: ErrorSlot) -> bool {
        // SAFETY: the device is being realized, and the BAR is free.
        unsafe {
            let vectors = u32::from(vectors);
            if (qemu().msix_init_exclusive_bar)(self.raw(), vectors, bar, error.as_out()) != 0 {
                return false;
            }
            for vector in 0..vectors {
                (qemu().msix_vector_use)(self.raw(), vector);
            }
            true
        }
    }

    /// Undoes [`PciDevice::add_msix`].
    pub fn remove_msix(self, _bql: &Bql) {
        // SAFETY: the device is being unrealized, and has its MSI-X.
        unsafe { (qemu().msix_uninit_exclusive_bar)(self.raw()) }
    }

    /// Sends the message of an existing vector, or leaves it pending.
    pub fn notify_msix(self, _bql: &Bql, vector: u16) {
        // SAFETY: the device is realized.
        unsafe { (qemu().msix_notify)(self.raw(), u32::from(vector)) }
    }

    /// Its current requester id.
    pub fn requester_id(self, _bql: &Bql) -> u16 {
        // SAFETY: the device is realized.
        unsafe { (qemu().pci_requester_id)(self.raw()) }
    }

    /// The address space of the function's memory requests.
    pub fn dma_space(self, _bql: &Bql) -> Space {
        // SAFETY: the device is realized; QEMU never frees the address space of a bus and slot,
        // and there is always one.
        unsafe {
            match NonNull::new((qemu().pci_device_iommu_address_space)(self.raw())) {
                Some(space) => Space::new(space),
                None => Space::system(),
            }
        }
    }
}
