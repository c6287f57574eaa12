// SPDX-License-Identifier: GPL-2.0-or-later
//! The PRI capability (PCIe 10.5.2) of a device of the host, as the guest sees it. VFIO shows the
//! host's own, which is in use there: Stopped reads 0, and software in the guest cannot enable page
//! requests. Here control, status and allocation become the guest's: Stopped follows its Enable.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_int};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::abi::layout::*;
use crate::abi::{qemu, room};
use crate::bql::Bql;
use crate::message;

/// Id of the capability.
const PRI: u16 = 0x13;
/// Offsets in the capability: the control, status and allocation registers, and the end.
const CONTROL: u16 = 4;
const STATUS: u16 = 6;
const CAPACITY: u16 = 8;
const ALLOCATION: u16 = 12;
const END: u16 = 16;
/// The base address registers in configuration space.
const BARS: Range<usize> = 0x10..0x28;
/// Bits of the control register.
const ENABLE: u16 = 1 << 0;
const RESET: u16 = 1 << 1;
/// Bits of the status register.
const STOPPED: u16 = 1 << 8;
const PASID_REQUIRED: u16 = 1 << 15;

/// The type of VFIO's PCI functions, with configuration space that is emulated in part.
const VFIO_PCI: &CStr = c"vfio-pci-device";

/// A capability that is the guest's.
#[derive(Clone, Copy)]
struct Taken {
    offset: u16,
    /// VFIO's own function.
    write: ConfigWrite,
}

/// By the address of the function's object.
static TAKEN: Mutex<BTreeMap<usize, Taken>> = Mutex::new(BTreeMap::new());

fn taken() -> MutexGuard<'static, BTreeMap<usize, Taken>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The configuration space of a function, as QEMU keeps it.
#[derive(Clone, Copy)]
struct Space {
    device: NonNull<PCIDevice>,
    config: NonNull<u8>,
}

impl Space {
    /// # Safety
    ///
    /// The device exists while the value is in use.
    unsafe fn of(device: NonNull<PCIDevice>) -> Option<Space> {
        // SAFETY: the caller's promise; QEMU has allocated its configuration space.
        let config: *mut u8 = unsafe { room::read(device, layout().pci_device.config) };
        let config = NonNull::new(config)?;
        Some(Space { device, config })
    }

    fn word(self, offset: u16) -> u16 {
        // SAFETY: the configuration space of a PCI Express function has 4096 bytes, and all offsets
        // here are below that; it is little-endian, as x86-64 is.
        unsafe { room::read(self.config, offset.into()) }
    }

    fn set_word(self, offset: u16, value: u16) {
        // SAFETY: as above, and nothing accesses it meanwhile, because the BQL is held.
        unsafe { room::write(self.config, offset.into(), value) }
    }

    /// The offset of the capability.
    fn capability(self) -> Option<u16> {
        let mut at = 0x100;
        // More than there can be, for a chain that is a circle.
        for _ in 0..0x1000 / 4 {
            if self.word(at) == PRI {
                return (at <= 0x1000 - END).then_some(at);
            }
            at = self.word(at + 2) >> 4 & !3;
            if at < 0x100 {
                return None;
            }
        }
        None
    }
}

/// Whether a function has the capability.
///
/// # Safety
///
/// The device exists.
pub unsafe fn is_there(_bql: &Bql, device: NonNull<PCIDevice>) -> bool {
    // SAFETY: the caller's promise.
    let space = unsafe { Space::of(device) };
    space.is_some_and(|space| space.capability().is_some())
}

/// Makes the capability the guest's, and returns its offset. None for a function that VFIO does not
/// emulate, or that has no such capability.
///
/// # Safety
///
/// The device exists, and its realization has ended.
pub unsafe fn take(_bql: &Bql, device: NonNull<PCIDevice>) -> Option<u16> {
    let at = assigned()?;
    // SAFETY: the caller's promise; the name is a C string.
    let (space, vfio) = unsafe {
        let vfio = (qemu().object_dynamic_cast)(device.as_ptr().cast(), VFIO_PCI.as_ptr());
        (Space::of(device)?, vfio)
    };
    let offset = space.capability().filter(|_| !vfio.is_null())?;
    // SAFETY: the object is a `VFIOPCIDevice`, whose realization has ended; its emulated bits and
    // writable bits have a byte for each byte of configuration space.
    unsafe {
        let emulated: *mut u8 = room::read(space.device, at.vfio_pci_device.emulated_config_bits);
        let writable: *mut u8 = room::read(space.device, layout().pci_device.wmask);
        let (emulated, writable) = (NonNull::new(emulated)?, NonNull::new(writable)?);
        // VFIO emulates all base address registers.
        let mut bars = [0; BARS.end - BARS.start];
        room::peek(emulated.addr().get() + BARS.start, &mut bars)?;
        if bars.iter().any(|bits| *bits != u8::MAX) {
            message::error("VFIOPCIDevice is not laid out as expected");
            return None;
        }
        let bytes = |range: Range<u16>| range.map(move |byte| usize::from(offset + byte));
        for byte in bytes(CONTROL..CAPACITY).chain(bytes(ALLOCATION..END)) {
            room::write(emulated, byte, u8::MAX);
        }
        room::write(writable, (offset + CONTROL).into(), ENABLE | RESET);
        room::write(writable, (offset + ALLOCATION).into(), u32::MAX);
        space.set_word(offset + CONTROL, 0);
        let status = space.word(offset + STATUS) & PASID_REQUIRED;
        space.set_word(offset + STATUS, status | STOPPED);
        let write: ConfigWrite = room::read(space.device, at.pci_device.config_write);
        let before = taken().insert(space.device.addr().get(), Taken { offset, write });
        debug_assert!(before.is_none());
        let ours: ConfigWrite = config_write;
        room::write(space.device, at.pci_device.config_write, ours);
    }
    Some(offset)
}

/// Gives the capability back to VFIO.
///
/// # Safety
///
/// The device exists.
pub unsafe fn give_back(_bql: &Bql, device: NonNull<PCIDevice>) {
    let was = taken().remove(&device.addr().get());
    if let (Some(was), Some(at)) = (was, assigned()) {
        // SAFETY: the caller's promise; the device has our function there.
        unsafe { room::write(device, at.pci_device.config_write, was.write) }
    }
}

/// `PCIDevice.config_write`.
unsafe extern "C" fn config_write(device: *mut PCIDevice, address: u32, value: u32, length: c_int) {
    let known = taken().get(&device.addr()).copied();
    let (Some(known), Some(device)) = (known, NonNull::new(device)) else {
        return;
    };
    // SAFETY: it is VFIO's function for its own device, with the arguments of this call; the
    // configuration space exists as long as the device.
    let config: *mut u8 = unsafe {
        (known.write)(device.as_ptr(), address, value, length);
        room::read(device, layout().pci_device.config)
    };
    let Some(config) = NonNull::new(config) else {
        return;
    };
    settle(Space { device, config }, known.offset);
}

/// Lets the status follow what was written to the control register.
fn settle(space: Space, offset: u16) {
    let enabled = space.word(offset + CONTROL) & ENABLE != 0;
    // Reset reads 0.
    space.set_word(offset + CONTROL, if enabled { ENABLE } else { 0 });
    let status = space.word(offset + STATUS) & !STOPPED;
    space.set_word(
        offset + STATUS,
        if enabled { status } else { status | STOPPED },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration space with a chain of extended capabilities: ids with their offsets.
    fn space(chain: &[(u16, u16)]) -> Space {
        let config: NonNull<u8> = room::allocate(0x1000);
        let space = Space {
            device: NonNull::dangling(),
            config,
        };
        for (index, (id, at)) in chain.iter().enumerate() {
            space.set_word(*at, *id);
            let next = chain.get(index + 1).map_or(0, |(_, next)| *next);
            space.set_word(at + 2, next << 4 | 1);
        }
        space
    }

    #[test]
    fn the_capability_is_found_by_the_chain() {
        let (ats, serial) = (0xf, 3);
        assert_eq!(space(&[(serial, 0x100)]).capability(), None);
        let last = space(&[(serial, 0x100), (ats, 0x200), (PRI, 0x150)]);
        assert_eq!(last.capability(), Some(0x150));
        // It would reach over the end.
        assert_eq!(space(&[(ats, 0x100), (PRI, 0xffc)]).capability(), None);
        // A chain that is a circle.
        let circle = space(&[(ats, 0x100), (serial, 0x140)]);
        circle.set_word(0x142, 0x100 << 4 | 1);
        assert_eq!(circle.capability(), None);
    }

    #[test]
    fn stopped_follows_enable_and_reset_reads_zero() {
        let (offset, space) = (0x150, space(&[(PRI, 0x100), (PRI, 0x150)]));
        space.set_word(offset + STATUS, PASID_REQUIRED | STOPPED);
        for (written, control, status) in [
            (ENABLE, ENABLE, PASID_REQUIRED),
            (ENABLE | RESET, ENABLE, PASID_REQUIRED),
            (0, 0, PASID_REQUIRED | STOPPED),
            (RESET, 0, PASID_REQUIRED | STOPPED),
        ] {
            space.set_word(offset + CONTROL, written);
            settle(space, offset);
            let found = (space.word(offset + CONTROL), space.word(offset + STATUS));
            assert_eq!(found, (control, status), "{written:#x} was written");
        }
    }
}
