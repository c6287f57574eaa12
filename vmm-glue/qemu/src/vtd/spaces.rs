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
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vtd::spec::SourceId;

use super::host::Host;
use super::interrupts;
use super::translation;
use super::watchers::Watched;
use crate::abi::layout::*;
use crate::abi::{qemu, room};
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

/// What belongs to the address space of a function. In memory it stands behind the region that the
/// unit translates, because QEMU gives back the address of that.
pub struct FunctionSpace {
    system: NonNull<MemoryRegion>,
    interrupts: NonNull<MemoryRegion>,
    root: NonNull<MemoryRegion>,
    space: NonNull<AddressSpace>,
    /// Whose it is.
    pub function: Function,
    /// The unit that translates it.
    pub host: &'static Host,
    /// The clients that keep a copy of it.
    pub watched: Watched,
}

/// Where it begins, behind the beginning of the region.
fn behind_region() -> usize {
    const { assert!(align_of::<FunctionSpace>() <= 16) };
    room::rounded(layout().iommu_memory_region.size)
}

/// One that is never freed, by the region that the unit translates. QEMU uses the rooms by its own
/// rules.
#[derive(Clone, Copy)]
pub(super) struct Kept(NonNull<MemoryRegion>);

// SAFETY: what is read of it besides the rooms is constant.
unsafe impl Send for Kept {}

impl Kept {
    /// Makes one, with rooms of zeroes.
    fn new(function: Function, host: &'static Host) -> Kept {
        let size = behind_region() + size_of::<FunctionSpace>();
        let kept = Kept(room::allocate(size));
        let region_size = layout().memory_region.size;
        let space = FunctionSpace {
            system: room::allocate(region_size),
            interrupts: room::allocate(region_size),
            root: room::allocate(region_size),
            space: room::allocate(layout().address_space.size),
            function,
            host,
            watched: Watched::default(),
        };
        // SAFETY: there is room for it behind the region, aligned to 16 bytes.
        unsafe { kept.place().write(space) };
        kept
    }

    /// Where the structure is.
    fn place(self) -> NonNull<FunctionSpace> {
        // SAFETY: it lies in what `new` has allocated.
        unsafe { self.0.cast::<u8>().add(behind_region()).cast() }
    }

    pub(super) fn iommu(self) -> *mut MemoryRegion {
        self.0.as_ptr()
    }

    fn system(self) -> *mut MemoryRegion {
        self.get().system.as_ptr()
    }

    fn interrupts(self) -> *mut MemoryRegion {
        self.get().interrupts.as_ptr()
    }

    fn root(self) -> *mut MemoryRegion {
        self.get().root.as_ptr()
    }

    fn space(self) -> *mut AddressSpace {
        self.get().space.as_ptr()
    }

    /// What is no room of QEMU's.
    pub(super) fn get(self) -> &'static FunctionSpace {
        // SAFETY: it is never freed, and `new` has filled it in.
        unsafe { self.place().as_ref() }
    }

    /// The one of this region.
    ///
    /// # Safety
    ///
    /// The region is one made by [`Spaces::get`].
    pub(super) unsafe fn of_region(region: NonNull<c_void>) -> Kept {
        Kept(region.cast())
    }

    /// Shows what the unit translates, or system memory.
    pub(super) fn translate(self, _bql: &Bql, on: bool) {
        // SAFETY: both regions are initialized, and regions change under the BQL, both in one
        // transaction.
        unsafe {
            (qemu().memory_region_transaction_begin)();
            (qemu().memory_region_set_enabled)(self.system(), !on);
            (qemu().memory_region_set_enabled)(self.iommu(), on);
            (qemu().memory_region_transaction_commit)();
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
    pub fn get(&self, bql: &Bql, host: &'static Host, function: Function) -> *mut AddressSpace {
        let known = self.lock().iter().find(|(f, _)| *f == function).copied();
        if let Some((_, kept)) = known {
            return kept.space();
        }
        let kept = Kept::new(function, host);
        kept.initialize(bql, host.is_translating());
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
        self.all().first().map(|kept| kept.0.cast())
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

    /// All of them.
    pub(super) fn all(&self) -> Vec<Kept> {
        self.lock().iter().map(|(_, kept)| *kept).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Function, Kept)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
