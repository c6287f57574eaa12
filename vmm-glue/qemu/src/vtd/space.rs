// SPDX-License-Identifier: GPL-2.0-or-later
//! The address space of a function below the unit: QEMU's regions, and their data.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use super::function::Function;
use super::unit::LockedUnit;
use super::watched::Watched;
use crate::abi::layout::*;
use crate::abi::{qemu, room};
use crate::bql::Bql;

/// The data of the address space of a function. In memory it follows the region that the unit
/// translates, because QEMU passes the address of that region.
pub struct FunctionSpace {
    pub(super) system: NonNull<MemoryRegion>,
    pub(super) interrupts: NonNull<MemoryRegion>,
    pub(super) root: NonNull<MemoryRegion>,
    pub(super) space: NonNull<AddressSpace>,
    /// Its owner.
    pub function: Function,
    /// The unit that translates it.
    pub unit: &'static LockedUnit,
    /// The clients that keep a copy of it.
    pub watched: Watched,
    /// The host's kernel translates it: it is system memory here.
    pub handed_down: AtomicBool,
}

/// Its offset from the beginning of the region.
fn behind_region() -> usize {
    const { assert!(align_of::<FunctionSpace>() <= 16) };
    room::rounded(layout().iommu_memory_region.size)
}

/// An address space that is never freed, identified by the region that the unit translates. QEMU
/// uses the rooms by its own rules.
#[derive(Clone, Copy)]
pub(super) struct Kept(NonNull<MemoryRegion>);

// SAFETY: everything that is read from it, except the rooms, is constant.
unsafe impl Send for Kept {}

impl Kept {
    /// Creates one, with zeroed rooms.
    pub(super) fn new(function: Function, unit: &'static LockedUnit) -> Kept {
        let size = behind_region() + size_of::<FunctionSpace>();
        let kept = Kept(room::allocate(size));
        let region_size = layout().memory_region.size;
        let space = FunctionSpace {
            system: room::allocate(region_size),
            interrupts: room::allocate(region_size),
            root: room::allocate(region_size),
            space: room::allocate(layout().address_space.size),
            function,
            unit,
            watched: Watched::default(),
            handed_down: AtomicBool::new(false),
        };
        // SAFETY: there is room for it after the region, aligned to 16 bytes.
        unsafe { kept.place().write(space) };
        kept
    }

    /// The place of the structure.
    pub(super) fn place(self) -> NonNull<FunctionSpace> {
        // SAFETY: it lies in the allocation of `new`.
        unsafe { self.0.cast::<u8>().add(behind_region()).cast() }
    }

    pub(super) fn iommu(self) -> *mut MemoryRegion {
        self.0.as_ptr()
    }

    pub(super) fn system(self) -> *mut MemoryRegion {
        self.get().system.as_ptr()
    }

    pub(super) fn interrupts(self) -> *mut MemoryRegion {
        self.get().interrupts.as_ptr()
    }

    pub(super) fn root(self) -> *mut MemoryRegion {
        self.get().root.as_ptr()
    }

    pub(super) fn space(self) -> *mut AddressSpace {
        self.get().space.as_ptr()
    }

    /// The structure, without QEMU's rooms.
    pub(super) fn get(self) -> &'static FunctionSpace {
        // SAFETY: it is never freed, and `new` has filled it in.
        unsafe { self.place().as_ref() }
    }

    /// The address space of a region.
    ///
    /// # Safety
    ///
    /// The region belongs to an address space of the unit.
    pub(super) unsafe fn of_region(region: NonNull<c_void>) -> Kept {
        Kept(region.cast())
    }

    /// Enables the region that the unit translates, or system memory.
    pub(super) fn translate(self, _bql: &Bql, on: bool) {
        let on = on && !self.get().handed_down.load(Ordering::Relaxed);
        // SAFETY: both regions are initialized; they change under the BQL, and in one transaction.
        unsafe {
            (qemu().memory_region_transaction_begin)();
            (qemu().memory_region_set_enabled)(self.system(), !on);
            (qemu().memory_region_set_enabled)(self.iommu(), on);
            (qemu().memory_region_transaction_commit)();
        }
    }
}

/// The address space whose interrupt region has this opaque pointer.
///
/// # Safety
///
/// The pointer belongs to a region of an address space of the unit.
pub unsafe fn of_opaque<'a>(opaque: *mut c_void) -> &'a FunctionSpace {
    // SAFETY: the caller's promise; the rooms are never read through the reference.
    unsafe { &*opaque.cast::<FunctionSpace>() }
}
