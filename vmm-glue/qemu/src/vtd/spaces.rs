// SPDX-License-Identifier: GPL-2.0-or-later
//! The address space of each function below the unit, as QEMU's memory regions:
//!
//! * a region that the unit translates, or system memory itself while translation is off;
//! * on top of it the interrupt address range.
//!
//! They are made when QEMU first asks for them, and stay. They belong to no device: QEMU keeps a
//! device from accesses to its own regions while one of them is being accessed, but an interrupt
//! of a function may well come while a register of the unit is written.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pcie_ats::AlignedRange;
use vtd::spec::SourceId;

use super::clients::invalidated;
use super::host::Host;
use super::interrupts;
use super::translation;
use crate::abi::iommu::*;
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

/// Room for one of QEMU's objects.
#[repr(C, align(16))]
struct Room<const SIZE: usize>(MaybeUninit<[u8; SIZE]>);

impl<const SIZE: usize> Room<SIZE> {
    /// QEMU's own objects begin as zeroes.
    const fn zeroed() -> Self {
        Room(MaybeUninit::zeroed())
    }
}

/// An address space with its regions. QEMU gives back the address of `iommu`, which is the first
/// field.
#[repr(C)]
pub struct FunctionSpace {
    iommu: Room<{ iommu_memory_region::SIZE }>,
    system: Room<MEMORY_REGION_SIZE>,
    interrupts: Room<MEMORY_REGION_SIZE>,
    root: Room<MEMORY_REGION_SIZE>,
    space: Room<ADDRESS_SPACE_SIZE>,
    /// Whose it is.
    pub function: Function,
    /// Who translates it.
    pub host: &'static Host,
}

/// One that is never freed, and whose rooms QEMU uses by its own rules.
#[derive(Clone, Copy)]
struct Kept(NonNull<FunctionSpace>);

// SAFETY: what is read of it besides the rooms is constant.
unsafe impl Send for Kept {}

impl Kept {
    /// A field's address.
    fn field<T>(self, offset: usize) -> *mut T {
        // SAFETY: the callers give offsets of fields of this type.
        unsafe { self.0.as_ptr().cast::<u8>().add(offset).cast() }
    }

    fn iommu(self) -> *mut MemoryRegion {
        self.field(std::mem::offset_of!(FunctionSpace, iommu))
    }

    fn system(self) -> *mut MemoryRegion {
        self.field(std::mem::offset_of!(FunctionSpace, system))
    }

    fn interrupts(self) -> *mut MemoryRegion {
        self.field(std::mem::offset_of!(FunctionSpace, interrupts))
    }

    fn root(self) -> *mut MemoryRegion {
        self.field(std::mem::offset_of!(FunctionSpace, root))
    }

    fn space(self) -> *mut AddressSpace {
        self.field(std::mem::offset_of!(FunctionSpace, space))
    }

    /// Shows what the unit translates, or system memory.
    fn translate(self, _bql: &Bql, on: bool) {
        // SAFETY: both regions are initialized, and regions change under the BQL.
        unsafe {
            (qemu().memory_region_set_enabled)(self.system(), !on);
            (qemu().memory_region_set_enabled)(self.iommu(), on);
        }
    }

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
                iommu_memory_region::SIZE,
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
                self.0.as_ptr().cast(),
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
    pub fn get(&self, bql: &Bql, host: &'static Host, function: Function) -> *mut AddressSpace {
        let known = self.lock().iter().find(|(f, _)| *f == function).copied();
        if let Some((_, kept)) = known {
            return kept.space();
        }
        let kept = Kept(NonNull::from(Box::leak(Box::new(FunctionSpace {
            iommu: Room::zeroed(),
            system: Room::zeroed(),
            interrupts: Room::zeroed(),
            root: Room::zeroed(),
            space: Room::zeroed(),
            function,
            host,
        }))));
        kept.initialize(bql, host.is_translating());
        self.lock().push((function, kept));
        kept.space()
    }

    /// Translation was switched on or off.
    pub fn translate(&self, bql: &Bql, on: bool) {
        let all = self.all();
        // SAFETY: the BQL is held, and the transaction is ended below.
        unsafe { (qemu().memory_region_transaction_begin)() };
        for kept in all {
            kept.translate(bql, on);
        }
        // SAFETY: begun above.
        unsafe { (qemu().memory_region_transaction_commit)() };
    }

    /// Tells those who watch a region, as vhost does, that translations are not valid any more.
    /// `kind` is the flag of the notifiers that want to know; of a device-TLB invalidation the
    /// function is given.
    pub fn unmap(&self, bql: &Bql, kind: u32, requester: Option<u16>, range: AlignedRange) {
        let watched: Vec<_> = self
            .lock()
            .iter()
            .filter(|(_, kept)| kept.first_notifier(bql).is_some())
            .copied()
            .collect();
        for (function, kept) in watched {
            // Only of a function that is there can the bus be asked.
            if requester.is_none_or(|requester| requester == function.requester()) {
                kept.unmap(bql, kind, range);
            }
        }
    }

    fn all(&self) -> Vec<Kept> {
        self.lock().iter().map(|(_, kept)| *kept).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Function, Kept)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The first of those who watch the region.
    fn first_notifier(self, _bql: &Bql) -> Option<NonNull<IOMMUNotifier>> {
        // SAFETY: the field lies in the initialized region, and changes under the BQL only.
        unsafe {
            let head = self
                .iommu()
                .cast::<u8>()
                .add(iommu_memory_region::NOTIFIERS);
            NonNull::new(head.cast::<*mut IOMMUNotifier>().read())
        }
    }

    /// Tells them of a range.
    fn unmap(self, bql: &Bql, kind: u32, range: AlignedRange) {
        let mut next = self.first_notifier(bql);
        while let Some(notifier) = next {
            // SAFETY: the list changes under the BQL only, and what is in it exists. A notifier
            // may remove itself, so the next is read before it is called.
            unsafe {
                let found = notifier.as_ref();
                next = NonNull::new(found.node[0].cast());
                let first = range.base().max(found.start);
                let last = range.last().min(found.end);
                if found.flags & kind == 0 || first > last {
                    continue;
                }
                let mut entry = IOMMUTLBEntry {
                    iova: first,
                    addr_mask: last - first,
                    ..invalidated(range, NO_PASID)
                };
                if let Some(notify) = found.notify {
                    notify(notifier.as_ptr(), &mut entry);
                }
            }
        }
    }
}

/// The address space whose interrupt region has this opaque pointer.
///
/// # Safety
///
/// The pointer is that of a region made by [`Spaces::get`].
pub unsafe fn of_opaque<'a>(opaque: *mut c_void) -> &'a FunctionSpace {
    // SAFETY: the caller's promise; the rooms are never read through the reference.
    unsafe { &*opaque.cast::<FunctionSpace>() }
}
