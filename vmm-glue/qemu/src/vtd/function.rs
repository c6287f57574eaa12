// SPDX-License-Identifier: GPL-2.0-or-later
//! The functions below the unit, as QEMU names them.

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

use vtd::spec::SourceId;

use crate::abi::layout::*;
use crate::abi::qemu;
use crate::bql::Bql;

/// The requester id of the I/O APIC in the DMAR table of QEMU's machines.
const IOAPIC: u16 = 0xff00;

/// A function, by its location. The number of its bus may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// On a PCI bus.
    Pci {
        /// The bus.
        bus: Bus,
        /// Device and function number.
        devfn: u8,
    },
    /// The I/O APIC.
    IoApic,
}

/// A PCI bus of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bus(NonNull<BusState>);

// SAFETY: the pointer is used only to read the bus's number, which any thread may do.
unsafe impl Send for Bus {}
// SAFETY: as above.
unsafe impl Sync for Bus {}

impl Bus {
    /// The bus behind a pointer.
    ///
    /// # Safety
    ///
    /// It is a `PCIBus` that exists while functions on it are in use.
    pub unsafe fn new(bus: NonNull<BusState>) -> Bus {
        Bus(bus)
    }

    /// Whether the bus has a function.
    pub fn has(self, _bql: &Bql, requester: u16) -> bool {
        // SAFETY: the bus exists, and does not change under the BQL.
        let device = unsafe {
            (qemu().pci_find_device)(
                self.0.as_ptr(),
                c_int::from(requester >> 8),
                requester as u8,
            )
        };
        !device.is_null()
    }

    /// The device of the machine at a place of this bus.
    pub fn device(self, _bql: &Bql, devfn: u8) -> Option<NonNull<PCIDevice>> {
        // SAFETY: the bus exists, and does not change under the BQL.
        let device = unsafe {
            let number = (qemu().pci_bus_num)(self.0.as_ptr());
            (qemu().pci_find_device)(self.0.as_ptr(), number, devfn)
        };
        NonNull::new(device)
    }

    /// Whether another bus still exists, below this one or this one itself: the number of an
    /// unplugged bus must not be read.
    pub fn reaches(self, _bql: &Bql, other: Bus) -> bool {
        // SAFETY: this bus exists, and the buses below it do not change under the BQL; the other
        // pointer is only compared.
        let is = |number| unsafe {
            (qemu().pci_find_bus_nr)(self.0.as_ptr(), number) == other.0.as_ptr()
        };
        (0..=0xff).any(is)
    }
}

impl Function {
    /// The function for QEMU's bus and device/function number.
    ///
    /// # Safety
    ///
    /// As for [`Bus::new`].
    pub unsafe fn new(bus: *mut BusState, devfn: c_int) -> Option<Function> {
        Some(Function::Pci {
            // SAFETY: the caller's promise.
            bus: unsafe { Bus::new(NonNull::new(bus)?) },
            devfn: devfn as u8,
        })
    }

    /// The device at its place.
    pub fn device(self, bql: &Bql) -> Option<NonNull<PCIDevice>> {
        match self {
            Function::Pci { bus, devfn } => bus.device(bql, devfn),
            Function::IoApic => None,
        }
    }

    /// Whether that is of a type.
    pub fn is(self, bql: &Bql, name: &CStr) -> bool {
        self.device(bql).is_some_and(|device| {
            let object = device.as_ptr().cast();
            // SAFETY: the device exists, and the name is a C string.
            unsafe { !(qemu().object_dynamic_cast)(object, name.as_ptr()).is_null() }
        })
    }

    /// Its current requester id.
    pub fn requester(self) -> u16 {
        match self {
            // SAFETY: the bus exists.
            Function::Pci { bus, devfn } => unsafe {
                let number = (qemu().pci_bus_num)(bus.0.as_ptr());
                (number as u16) << 8 | u16::from(devfn)
            },
            Function::IoApic => IOAPIC,
        }
    }

    /// The same as the unit's type.
    pub fn source_id(self) -> SourceId {
        SourceId(self.requester())
    }
}
