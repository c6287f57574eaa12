// SPDX-License-Identifier: GPL-2.0-or-later
//! The address space of each function below the unit, as QEMU's memory regions:
//!
//! * a region that the unit translates, or system memory itself while translation is off;
//! * on top of it the interrupt address range.
//!
//! They are created when QEMU first asks for them, and are never freed. They belong to no device:
//! QEMU blocks a device's accesses to its own regions while one of them is being accessed, but a
//! function may send an interrupt during a write to a register of the unit.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pcie_ats::AlignedRange;

use super::copies::{Dirty, Span};
use super::function::Function;
use super::interrupts;
use super::space::Kept;
use super::translation;
use super::unit::LockedUnit;
use crate::abi::layout::*;
use crate::abi::{qemu, room};
use crate::bql::Bql;

impl Kept {
    /// Creates the regions and the address space.
    fn initialize(self, bql: &Bql, translating: bool) {
        let (base, size) = interrupts::RANGE;
        // SAFETY: everything is in rooms of the right size and alignment that are never freed, and
        // is initialized once; QEMU copies the names. The interrupt region's opaque pointer is this
        // structure, as its functions expect.
        unsafe {
            let owner = std::ptr::null_mut();
            (qemu().memory_region_init)(self.root(), owner, c"svm-vtd-root".as_ptr(), u64::MAX);
            (qemu().memory_region_init_iommu)(
                self.iommu().cast(),
                layout().iommu_memory_region.size,
                translation::REGION_TYPE.as_ptr(),
                owner,
                c"svm-vtd-dma".as_ptr(),
                u64::MAX,
            );
            (qemu().memory_region_init_alias)(
                self.system(),
                owner,
                c"svm-vtd-system".as_ptr(),
                (qemu().get_system_memory)(),
                0,
                u64::MAX,
            );
            (qemu().memory_region_init_io)(
                self.interrupts(),
                owner,
                &interrupts::OPS.0,
                self.place().as_ptr().cast(),
                c"svm-vtd-interrupts".as_ptr(),
                size,
            );
            let add = qemu().memory_region_add_subregion_overlap;
            add(self.root(), 0, self.iommu(), 0);
            add(self.root(), 0, self.system(), 0);
            add(self.root(), base, self.interrupts(), 1);
            self.translate(bql, translating);
            (qemu().address_space_init)(self.space(), self.root(), c"svm-vtd".as_ptr());
        }
    }
}

/// All address spaces.
#[derive(Default)]
pub struct Spaces(Mutex<Vec<(Function, Kept)>>);

impl Spaces {
    /// The address space of a function; creates it if there is none. If the kernel of the host
    /// translates the function, it is system memory, whatever the unit does: QEMU asks for it anew
    /// for each device that comes to the place of one that has gone.
    pub fn get(
        &self,
        bql: &Bql,
        unit: &'static LockedUnit,
        function: Function,
        handed_down: bool,
    ) -> *mut AddressSpace {
        let known = self.lock().iter().find(|(f, _)| *f == function).copied();
        if let Some((_, kept)) = known {
            if kept.get().handed_down.swap(handed_down, Ordering::Relaxed) != handed_down {
                kept.translate(bql, unit.is_translating());
            }
            return kept.space();
        }
        let kept = Kept::new(function, unit);
        kept.get().handed_down.store(handed_down, Ordering::Relaxed);
        kept.initialize(bql, unit.is_translating());
        self.lock().push((function, kept));
        kept.space()
    }

    /// Whether QEMU's structures fit into their rooms.
    pub fn are_intact(&self) -> bool {
        let intact = |kept: &Kept| {
            let space = kept.get();
            let region = |region| {
                // SAFETY: `Kept::new` has allocated it with this size.
                unsafe { room::is_intact(region, layout().memory_region.size) }
            };
            // SAFETY: as above.
            region(space.system)
                && region(space.interrupts)
                && region(space.root)
                && unsafe { room::is_intact(space.space, layout().address_space.size) }
        };
        self.all().iter().all(intact)
    }

    /// The region of the first address space.
    pub fn first_region(&self) -> Option<NonNull<c_void>> {
        NonNull::new(self.all().first()?.iommu().cast())
    }

    /// Handles a switch of translation.
    pub fn translate(&self, bql: &Bql, on: bool) {
        let all = self.all();
        // SAFETY: the BQL is held, and the transaction is ended below.
        unsafe { (qemu().memory_region_transaction_begin)() };
        for kept in &all {
            kept.get().watched.show(false);
            kept.translate(bql, on);
        }
        // SAFETY: the transaction was begun above.
        unsafe { (qemu().memory_region_transaction_commit)() };
        self.review(bql);
    }

    /// Tells clients with translations that these are no longer valid. `kind` is the flag of the
    /// notifiers for it; a device-TLB invalidation also gives the function.
    pub fn unmap(&self, bql: &Bql, kind: u32, requester: Option<u16>, range: AlignedRange) {
        for kept in self.all() {
            // Only the bus of an existing function may be queried.
            let concerned = kept.first_notifier(bql).is_some()
                && requester.is_none_or(|r| r == kept.get().function.requester());
            if concerned {
                kept.unmap(bql, kind, range);
            }
        }
    }

    /// Brings copies up to date after invalidations, for functions of the invalidated domains.
    pub fn refresh(&self, bql: &Bql, dirty: &Dirty) {
        if dirty.is_all() {
            return self.review(bql);
        }
        for kept in self.all() {
            let watched = &kept.get().watched;
            if watched.is_copied() {
                for span in dirty.of(watched.domain()) {
                    kept.refresh(bql, span);
                }
            }
        }
    }

    /// Handles a change of the translation of functions.
    pub fn review(&self, bql: &Bql) {
        for kept in self.all() {
            let watched = &kept.get().watched;
            if watched.is_copied() || watched.is_shown() {
                kept.refresh(bql, Span::ALL);
            }
        }
    }

    /// All of them.
    fn all(&self) -> Vec<Kept> {
        self.lock().iter().map(|(_, kept)| *kept).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Function, Kept)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
