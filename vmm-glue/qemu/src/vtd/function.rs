// SPDX-License-Identifier: GPL-2.0-or-later
//! The functions below the unit, as QEMU names them.

use std::ffi::c_int;
use std::ptr::NonNull;

use vtd::spec::SourceId;

use crate::abi::layout::*;
use crate::abi::qemu;
use crate::bql::Bql;

/// The requester id of the I/O APIC, as the DMAR table of QEMU's machines has it.
const IOAPIC: u16 = 0xff00;

/// A function, by where it sits. The number of its bus may change.
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

// SAFETY: the pointer is used to read the bus's number, which any thread may do.
unsafe impl Send for Bus {}
// SAFETY: as above.
unsafe impl Sync for Bus {}

impl Bus {
    /// The bus behind a pointer.
    ///
    /// # Safety
    ///
    /// It is a `PCIBus` that exists while functions on it are used.
    pub unsafe fn new(bus: NonNull<BusState>) -> Bus {
        Bus(bus)
    }

    /// Whether a function is there.
    pub fn has(self, _bql: &Bql, requester: u16) -> bool {
        // SAFETY: the bus exists, and the BQL keeps it as it is.
        let device = unsafe {
            (qemu().pci_find_device)(
                self.0.as_ptr(),
                c_int::from(requester >> 8),
                requester as u8,
            )
        };
        !device.is_null()
    }

    /// Whether another bus is still there, below this one or this one itself: one that was
    /// unplugged must not be asked for its number.
    pub fn reaches(self, _bql: &Bql, other: Bus) -> bool {
        // SAFETY: this bus exists, and the BQL keeps what is below it; the other is only compared.
        let is = |number| unsafe {
            (qemu().pci_find_bus_nr)(self.0.as_ptr(), number) == other.0.as_ptr()
        };
        (0..=0xff).any(is)
    }
}

impl Function {
    /// The function that QEMU means by a bus and a number.
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

    /// Its requester id, at present.
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

    /// The same as the unit has it.
    pub fn source_id(self) -> SourceId {
        SourceId(self.requester())
    }
}
