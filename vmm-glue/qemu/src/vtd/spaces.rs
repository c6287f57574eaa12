// SPDX-License-Identifier: GPL-2.0-or-later
//! The address space of each function below the unit, as QEMU's memory regions:
//!
//! * a region that the unit translates, or system memory itself while translation is off;
//! * on top of it the interrupt address range.
//!
//! They are made when QEMU first asks for them, and stay. They belong to no device: QEMU keeps a
//! device from accesses to its own regions while one of them is being accessed, but an interrupt
//! of a function may well come while a register of the unit is written.

use std::ffi::c_void;
use std::ptr::NonNull;
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
    /// Makes the regions and the address space.
    fn initialize(self, bql: &Bql, translating: bool) {
        let (base, size) = interrupts::RANGE;
        // SAFETY: all of it lies in rooms of the right size and alignment that are never freed,
        // and is initialized once; QEMU copies the names. The interrupt region's opaque pointer
        // is this structure, which is what its functions expect.
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
    /// The address space of a function, made if there is none.
    pub fn get(
        &self,
        bql: &Bql,
        unit: &'static LockedUnit,
        function: Function,
    ) -> *mut AddressSpace {
        let known = self.lock().iter().find(|(f, _)| *f == function).copied();
        if let Some((_, kept)) = known {
            return kept.space();
        }
        let kept = Kept::new(function, unit);
        kept.initialize(bql, unit.is_translating());
        self.lock().push((function, kept));
        kept.space()
    }

    /// Whether QEMU's structures have the sizes that they were given.
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

    /// The region of the first of them.
    pub fn first_region(&self) -> Option<NonNull<c_void>> {
        NonNull::new(self.all().first()?.iommu().cast())
    }

    /// Translation was switched on or off.
    pub fn translate(&self, bql: &Bql, on: bool) {
        let all = self.all();
        // SAFETY: the BQL is held, and the transaction is ended below.
        unsafe { (qemu().memory_region_transaction_begin)() };
        for kept in &all {
            kept.get().watched.show(false);
            kept.translate(bql, on);
        }
        // SAFETY: begun above.
        unsafe { (qemu().memory_region_transaction_commit)() };
        self.review(bql);
    }

    /// Tells clients with translations that these are not valid any more. `kind` is the flag of
    /// the notifiers that want to know; of a device-TLB invalidation the function is given.
    pub fn unmap(&self, bql: &Bql, kind: u32, requester: Option<u16>, range: AlignedRange) {
        for kept in self.all() {
            // Only of a function that is there can the bus be asked.
            let concerned = kept.first_notifier(bql).is_some()
                && requester.is_none_or(|r| r == kept.get().function.requester());
            if concerned {
                kept.unmap(bql, kind, range);
            }
        }
    }

    /// Brings copies up to date with what was invalidated: those of functions of the domains that
    /// were.
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

    /// How functions are translated has changed.
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
