// SPDX-License-Identifier: GPL-2.0-or-later
//! Structures and constants of QEMU on x86-64.
//!
//! The table of [`layout`] has everything that differs between series or builds: sizes and offsets
//! of the structures whose fields are accessed through [`super::room`]. The structures that this
//! file declares are passed to QEMU directly; [`fixed`] compares them with the table. Unused fields
//! exist only if they keep others at their offsets.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

use qemu_layout::interface::assigned::AssignedLayout;
use qemu_layout::interface::emulated::EmulatedLayout;
use qemu_layout::{Kind, Layout, Table};

use super::refusal::{Refusal, equal};
use super::room;

static LAYOUT: OnceLock<Layout> = OnceLock::new();

/// Sizes and offsets in the running process.
pub fn layout() -> &'static Layout {
    LAYOUT.get_or_init(|| match Layout::new(&Table::builtin()) {
        Ok(layout) => layout,
        // A test of its crate checks it.
        Err(_) => std::process::abort(),
    })
}

static ASSIGNED: OnceLock<Option<AssignedLayout>> = OnceLock::new();

/// Sizes and offsets of VFIO and iommufd. None if this QEMU has not what is needed for devices that
/// are assigned from the host.
pub fn assigned() -> Option<&'static AssignedLayout> {
    let builtin = || AssignedLayout::new(&Table::builtin()).ok();
    ASSIGNED.get_or_init(builtin).as_ref()
}

static EMULATED: OnceLock<Option<EmulatedLayout>> = OnceLock::new();

/// Sizes and offsets of emulated processors. None if this QEMU has none.
pub fn emulated() -> Option<&'static EmulatedLayout> {
    let builtin = || EmulatedLayout::new(&Table::builtin()).ok();
    EMULATED.get_or_init(builtin).as_ref()
}

/// Sizes and offsets of all parts.
pub struct Layouts {
    /// What is always there.
    pub all: Layout,
    /// VFIO and iommufd.
    pub assigned: Option<AssignedLayout>,
    /// Emulated processors.
    pub emulated: Option<EmulatedLayout>,
}

/// Sets them for the whole library, before their first use.
pub fn set(layouts: Layouts) {
    // A second one belongs to the same process.
    let _ = LAYOUT.set(layouts.all);
    let _ = ASSIGNED.set(layouts.assigned);
    let _ = EMULATED.set(layouts.emulated);
}

/// Declares types that are used only by address.
macro_rules! opaque {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        $($(#[doc = $doc])+
        #[repr(C)]
        pub struct $name {
            _private: [u8; 0],
        })+
    };
}

opaque! {
    /// `Object`, the base of every instance; also its `DeviceState`.
    Object;
    /// `ObjectClass`, the base of every class.
    ObjectClass;
    /// `PCIDevice`.
    PCIDevice;
    /// `MemoryRegion`.
    MemoryRegion;
    /// `AddressSpace`.
    AddressSpace;
    /// `Visitor`: one reading or writing of a property.
    Visitor;
    /// `Error`.
    Error;
    /// `ObjectProperty`.
    ObjectProperty;
    /// `QEMUTimerListGroup`.
    QEMUTimerListGroup;
    /// `BusState`, also `PCIBus`.
    BusState;
    /// `VMChangeStateEntry`.
    VMChangeStateEntry;
    /// `IOMMUNotifier`.
    IOMMUNotifier;
    /// `QEMUTimer`.
    QEMUTimer;
    /// `VMStateDescription`.
    VMStateDescription;
    /// `PCIIOMMUOps`.
    PCIIOMMUOps;
    /// `HostIOMMUDevice`.
    HostIOMMUDevice;
    /// `IOMMUFDBackend`.
    IOMMUFDBackend;
}

/// The place in which a function stores its `Error`.
pub type ErrorOut = *mut *mut Error;

/// `InterfaceInfo`.
#[repr(C)]
pub struct InterfaceInfo {
    pub type_name: *const c_char,
}

/// `TypeInfo`.
#[repr(C)]
pub struct TypeInfo {
    pub name: *const c_char,
    pub parent: *const c_char,
    pub instance_size: usize,
    pub instance_align: usize,
    pub instance_init: Option<unsafe extern "C" fn(*mut Object)>,
    pub instance_post_init: Option<unsafe extern "C" fn(*mut Object)>,
    pub instance_finalize: Option<unsafe extern "C" fn(*mut Object)>,
    pub is_abstract: bool,
    pub class_size: usize,
    pub class_init: Option<unsafe extern "C" fn(*mut ObjectClass, *const c_void)>,
    pub class_base_init: Option<unsafe extern "C" fn(*mut ObjectClass, *const c_void)>,
    pub class_data: *const c_void,
    pub interfaces: *const InterfaceInfo,
}

/// `DEVICE_CATEGORY_MISC`, a bit number of `DeviceClass.categories`.
pub const DEVICE_CATEGORY_MISC: u32 = 7;
/// `DEVICE_CATEGORY_NETWORK`.
pub const DEVICE_CATEGORY_NETWORK: u32 = 3;
/// The values of `MODULE_INIT_QOM`: up to QEMU 10.2, and later.
const MODULE_INIT_QOM: [u64; 2] = [3, 4];
/// `PCI_BASE_ADDRESS_MEM_TYPE_64`, for `pci_register_bar`.
pub const BAR_64: u8 = 4;
/// `PCI_NO_PASID`.
pub const NO_PASID: u32 = u32::MAX;
/// `QEMU_CLOCK_REALTIME`.
pub const CLOCK_REALTIME: c_int = 0;
/// `SCALE_US`: nanoseconds in the unit of a timer.
pub const SCALE_US: c_int = 1_000;
/// `MEMTX_OK`.
pub const MEMTX_OK: u32 = 0;
/// `MEMTX_ACCESS_ERROR`.
pub const MEMTX_ACCESS_ERROR: u32 = 4;

/// `MemTxAttrs`: eight bytes, with bit fields.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct MemTxAttrs(u64);

impl MemTxAttrs {
    /// `memory`: only random access memory may answer.
    pub const MEMORY: u32 = 1;
    /// `address_type`: the address is translated.
    pub const TRANSLATED: u32 = 2;

    /// Attributes with some of the two above.
    pub fn new(flags: u32) -> Self {
        let at = &layout().mem_tx_attrs;
        let bit = |is: bool, bit: u32| u64::from(is) << bit;
        MemTxAttrs(
            bit(flags & Self::MEMORY != 0, at.memory.bit)
                | bit(flags & Self::TRANSLATED != 0, at.address_type.bit)
                | bit(flags == 0, at.unspecified as u32 * 8),
        )
    }

    /// Whether they mark the address as translated.
    pub fn is_translated(self) -> bool {
        self.0 >> layout().mem_tx_attrs.address_type.bit & 1 != 0 && !self.is_unspecified()
    }

    /// Whether the request has no attributes.
    pub fn is_unspecified(self) -> bool {
        (self.0 >> (layout().mem_tx_attrs.unspecified * 8)) as u8 != 0
    }

    /// `requester_id`.
    pub fn requester_id(self) -> u16 {
        (self.0 >> layout().mem_tx_attrs.requester_id.bit) as u16
    }
}

/// `MemoryRegionOps.valid`.
#[repr(C)]
pub struct MemoryRegionValid {
    pub min_access_size: u32,
    pub max_access_size: u32,
    pub unaligned: bool,
    pub accepts: *const c_void,
}

/// `MemoryRegionOps.impl`.
#[repr(C)]
pub struct MemoryRegionImpl {
    pub min_access_size: u32,
    pub max_access_size: u32,
    pub unaligned: bool,
}

/// `MemoryRegionOps`.
#[repr(C)]
pub struct MemoryRegionOps {
    pub read: Option<unsafe extern "C" fn(*mut c_void, u64, u32) -> u64>,
    pub write: Option<unsafe extern "C" fn(*mut c_void, u64, u64, u32)>,
    pub read_with_attrs: *const c_void,
    pub write_with_attrs: *const c_void,
    pub endianness: c_int,
    pub valid: MemoryRegionValid,
    pub implemented: MemoryRegionImpl,
}
/// `DEVICE_LITTLE_ENDIAN`.
pub const DEVICE_LITTLE_ENDIAN: c_int = 2;

/// `IOMMUTLBEntry`: a translation, or an invalidated range.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IOMMUTLBEntry {
    pub target_as: *mut AddressSpace,
    pub iova: u64,
    pub translated_addr: u64,
    pub addr_mask: u64,
    pub perm: u32,
    pub pasid: u32,
}

/// Bits of `IOMMUTLBEntry.perm` (`IOMMUAccessFlags`).
pub mod perm {
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 2;
    pub const EXECUTE: u32 = 4;
    pub const PRIVILEGED: u32 = 8;
    pub const GLOBAL: u32 = 16;
    pub const UNTRANSLATED_ONLY: u32 = 32;
}

impl IOMMUNotifier {
    /// Allocates a zeroed one.
    pub fn allocate() -> NonNull<IOMMUNotifier> {
        room::allocate(layout().iommu_notifier.size)
    }

    /// Frees one of [`IOMMUNotifier::allocate`].
    ///
    /// # Safety
    ///
    /// It is not used any more.
    pub unsafe fn free(notifier: NonNull<IOMMUNotifier>) {
        // SAFETY: the caller's promise.
        unsafe { room::free(notifier, layout().iommu_notifier.size) }
    }

    /// Whether QEMU has written nothing beyond the end of one of [`IOMMUNotifier::allocate`].
    ///
    /// # Safety
    ///
    /// It came from there.
    pub unsafe fn is_intact(notifier: NonNull<IOMMUNotifier>) -> bool {
        // SAFETY: the caller's promise.
        unsafe { room::is_intact(notifier, layout().iommu_notifier.size) }
    }

    /// Fills in an unregistered notifier: it receives device-TLB invalidations of all addresses.
    ///
    /// # Safety
    ///
    /// It is writable.
    pub unsafe fn fill(
        notifier: NonNull<IOMMUNotifier>,
        notify: Option<IommuNotify>,
        opaque: *mut c_void,
    ) {
        let at = &layout().iommu_notifier;
        // SAFETY: the caller's promise; the offsets are those of its fields.
        unsafe {
            room::write(notifier, at.notify, notify);
            room::write(notifier, at.flags, NOTIFIER_DEVIOTLB_UNMAP);
            room::write(notifier, at.start, 0u64);
            room::write(notifier, at.end, u64::MAX);
            room::write::<_, c_int>(notifier, at.iommu_idx, 0);
            room::write(notifier, at.opaque, opaque);
        }
    }

    /// The function to call.
    ///
    /// # Safety
    ///
    /// It exists. The same holds for all functions below.
    pub unsafe fn notify(notifier: NonNull<IOMMUNotifier>) -> Option<IommuNotify> {
        // SAFETY: the caller's promise.
        unsafe { room::read(notifier, layout().iommu_notifier.notify) }
    }

    /// The events that it receives.
    ///
    /// # Safety
    ///
    /// It exists.
    pub unsafe fn flags(notifier: NonNull<IOMMUNotifier>) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { room::read(notifier, layout().iommu_notifier.flags) }
    }

    /// The first and last address of its events.
    ///
    /// # Safety
    ///
    /// It exists.
    pub unsafe fn window(notifier: NonNull<IOMMUNotifier>) -> (u64, u64) {
        let at = &layout().iommu_notifier;
        // SAFETY: the caller's promise.
        unsafe { (room::read(notifier, at.start), room::read(notifier, at.end)) }
    }

    /// The opaque pointer of its owner.
    ///
    /// # Safety
    ///
    /// It exists.
    pub unsafe fn opaque(notifier: NonNull<IOMMUNotifier>) -> *mut c_void {
        // SAFETY: the caller's promise.
        unsafe { room::read(notifier, layout().iommu_notifier.opaque) }
    }

    /// The next in its list.
    ///
    /// # Safety
    ///
    /// It exists, and the list does not change meanwhile.
    pub unsafe fn next(notifier: NonNull<IOMMUNotifier>) -> Option<NonNull<IOMMUNotifier>> {
        // SAFETY: the caller's promise.
        NonNull::new(unsafe { room::read(notifier, layout().iommu_notifier.next) })
    }
}

/// `IOMMUNotify`.
pub type IommuNotify = unsafe extern "C" fn(*mut IOMMUNotifier, *mut IOMMUTLBEntry);
/// `IOMMU_NOTIFIER_DEVIOTLB_UNMAP`.
pub const NOTIFIER_DEVIOTLB_UNMAP: u32 = 4;

/// `IOMMUPRIResponse`.
#[repr(C)]
pub struct IOMMUPRIResponse {
    pub response_code: u32,
    pub prgi: u16,
}
/// Values of `IOMMUPRIResponse.response_code`.
pub mod pri_response {
    pub const SUCCESS: u32 = 0;
    pub const INVALID_REQUEST: u32 = 1;
}

/// `IOMMUPRINotifier`.
#[repr(C)]
pub struct IOMMUPRINotifier {
    pub notify: unsafe extern "C" fn(*mut IOMMUPRINotifier, *mut IOMMUPRIResponse),
}

/// `Notifier`.
#[repr(C)]
pub struct Notifier {
    pub notify: unsafe extern "C" fn(*mut Notifier, *mut c_void),
    pub node: [*mut c_void; 2],
}

/// A `VMStateDescription` for a device whose state cannot be saved: QEMU refuses migration and
/// snapshots, and names the device. It is never freed.
pub fn unmigratable(name: &'static CStr) -> *const VMStateDescription {
    let at = &layout().vmstate_description;
    let description: NonNull<VMStateDescription> = room::constant(at.size);
    // SAFETY: the room is as large as the structure, and not shared yet.
    unsafe {
        room::write(description, at.name, name.as_ptr());
        room::write(description, at.unmigratable, true);
    }
    description.as_ptr()
}

/// `LOG_GUEST_ERROR`, a bit of `qemu_loglevel`.
pub const LOG_GUEST_ERROR: c_int = 1 << 11;

/// `VersionTriple` of the QAPI.
#[repr(C)]
pub struct VersionTriple {
    pub major: i64,
    pub minor: i64,
    pub micro: i64,
}

/// `VersionInfo` of the QAPI.
#[repr(C)]
pub struct VersionInfo {
    pub qemu: *const VersionTriple,
    pub package: *const c_char,
}

/// `IOMMU_NOTIFIER_UNMAP`.
pub const NOTIFIER_UNMAP: u32 = 1;
/// `IOMMU_NOTIFIER_MAP`.
pub const NOTIFIER_MAP: u32 = 2;

/// `MSIMessage`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MSIMessage {
    pub address: u64,
    pub data: u32,
}

/// `X86_IOMMU_SID_INVALID`: a message whose requester is not known.
pub const SID_INVALID: u16 = 0xffff;
/// `QEMU_CLOCK_VIRTUAL`: stops while the machine is stopped.
pub const CLOCK_VIRTUAL: c_int = 1;
/// `MEMTX_ERROR`.
pub const MEMTX_ERROR: u32 = 1;
/// Response Failure, in `IOMMUPRIResponse.response_code`.
pub const PRI_RESPONSE_FAILURE: u32 = 2;

/// `ResettableExitPhase`.
pub type ResettableExit = unsafe extern "C" fn(*mut Object, c_int);

/// `ResettablePhases`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ResettablePhases {
    pub enter: Option<unsafe extern "C" fn(*mut Object, c_int)>,
    pub hold: Option<unsafe extern "C" fn(*mut Object, c_int)>,
    pub exit: Option<ResettableExit>,
}

/// `PCIIOMMUOps.get_address_space`: bus, opaque, devfn.
pub type GetAddressSpace =
    unsafe extern "C" fn(*mut BusState, *mut c_void, c_int) -> *mut AddressSpace;

/// `IOHandler`.
pub type IoHandler = unsafe extern "C" fn(*mut c_void);

/// `PCIConfigWriteFunc`: device, address, value, length.
pub type ConfigWrite = unsafe extern "C" fn(*mut PCIDevice, u32, u32, c_int);

/// `PCIIOMMUOps.ats_request_translation`: bus, opaque, devfn, PASID, privileged, execute, address,
/// length, no write, results, their number, and how many of them lack a permission.
pub type AtsRequestTranslation = unsafe extern "C" fn(
    *mut BusState,
    *mut c_void,
    c_int,
    u32,
    bool,
    bool,
    u64,
    usize,
    bool,
    *mut IOMMUTLBEntry,
    usize,
    *mut u32,
) -> isize;

/// `PCIIOMMUOps.pri_request_page`: bus, opaque, devfn, PASID, privileged, execute, address, last in
/// group, group, read, write.
pub type PriRequestPage = unsafe extern "C" fn(
    *mut BusState,
    *mut c_void,
    c_int,
    u32,
    bool,
    bool,
    u64,
    bool,
    u16,
    bool,
    bool,
) -> c_int;

/// A structure that QEMU reads and that is never written after its creation.
#[repr(transparent)]
pub struct Constant<T>(pub T);
// SAFETY: the value is never written, and everything that it points to is constant, too: this crate
// creates it only from literals.
unsafe impl<T> Sync for Constant<T> {}

/// Compares structures that are passed directly with the table: size, and each field by its name.
macro_rules! fixed {
    ($($type:ty = $structure:ident { $($member:ident = $($field:ident).+;)* })+) => {
        /// Compares the structures that this file declares with those of the process.
        ///
        /// # Errors
        ///
        /// The first difference.
        pub fn fixed(layout: &Layout) -> Result<(), Refusal> {
            $(
                let name = stringify!($type);
                let found = layout.$structure.size;
                equal(format!("the size of {name}"), size_of::<$type>(), found)?;
                $(
                    let what = format!("the offset of {} in {name}", stringify!($($field).+));
                    let expected = std::mem::offset_of!($type, $($field).+);
                    equal(what, expected, layout.$structure.$member)?;
                )*
            )+
            Ok(())
        }
    };
}

fixed! {
    TypeInfo = type_info {
        name = name; parent = parent; instance_size = instance_size;
        instance_align = instance_align; instance_init = instance_init;
        instance_post_init = instance_post_init; instance_finalize = instance_finalize;
        is_abstract = is_abstract; class_size = class_size; class_init = class_init;
        class_base_init = class_base_init; class_data = class_data; interfaces = interfaces;
    }
    InterfaceInfo = interface_info { type_name = type_name; }
    ResettablePhases = resettable_phases { enter = enter; hold = hold; exit = exit; }
    VersionInfo = version_info { qemu = qemu; package = package; }
    VersionTriple = version_triple { major = major; minor = minor; micro = micro; }
    Notifier = notifier { notify = notify; node = node; }
    MSIMessage = msi_message { address = address; data = data; }
    MemoryRegionOps = memory_region_ops {
        read = read; write = write; read_with_attrs = read_with_attrs;
        write_with_attrs = write_with_attrs; endianness = endianness;
        valid_min_access_size = valid.min_access_size;
        valid_max_access_size = valid.max_access_size; valid_unaligned = valid.unaligned;
        valid_accepts = valid.accepts; impl_min_access_size = implemented.min_access_size;
        impl_max_access_size = implemented.max_access_size;
        impl_unaligned = implemented.unaligned;
    }
    MemTxAttrs = mem_tx_attrs {}
    IOMMUTLBEntry = iommu_tlb_entry {
        target_as = target_as; iova = iova; translated_addr = translated_addr;
        addr_mask = addr_mask; perm = perm; pasid = pasid;
    }
    IOMMUPRINotifier = iommu_pri_notifier { notify = notify; }
    IOMMUPRIResponse = iommu_pri_response { response_code = response_code; prgi = prgi; }
}

/// Constants of this library that are enumerators of QEMU's.
const VALUES: [(&str, u64); 16] = [
    ("DEVICE_CATEGORY_MISC", DEVICE_CATEGORY_MISC as u64),
    ("DEVICE_LITTLE_ENDIAN", DEVICE_LITTLE_ENDIAN as u64),
    ("IOMMU_EXEC", perm::EXECUTE as u64),
    ("IOMMU_GLOBAL", perm::GLOBAL as u64),
    (
        "IOMMU_NOTIFIER_DEVIOTLB_UNMAP",
        NOTIFIER_DEVIOTLB_UNMAP as u64,
    ),
    ("IOMMU_NOTIFIER_MAP", NOTIFIER_MAP as u64),
    ("IOMMU_NOTIFIER_UNMAP", NOTIFIER_UNMAP as u64),
    ("IOMMU_PRI_RESP_FAILURE", PRI_RESPONSE_FAILURE as u64),
    (
        "IOMMU_PRI_RESP_INVALID_REQUEST",
        pri_response::INVALID_REQUEST as u64,
    ),
    ("IOMMU_PRI_RESP_SUCCESS", pri_response::SUCCESS as u64),
    ("IOMMU_PRIV", perm::PRIVILEGED as u64),
    ("IOMMU_RO", perm::READ as u64),
    ("IOMMU_UNTRANSLATED_ONLY", perm::UNTRANSLATED_ONLY as u64),
    ("IOMMU_WO", perm::WRITE as u64),
    ("QEMU_CLOCK_REALTIME", CLOCK_REALTIME as u64),
    ("QEMU_CLOCK_VIRTUAL", CLOCK_VIRTUAL as u64),
];

/// Compares the enumerators. Returns `MODULE_INIT_QOM`, which differs between series.
///
/// # Errors
///
/// The first with an unknown value.
pub fn values(table: &Table) -> Result<c_int, Refusal> {
    let value = |name: &str| {
        let value = table.get(Kind::Value, name).map(|(value, _)| value);
        value.map_or("none".to_owned(), |value| value.to_string())
    };
    for (name, expected) in VALUES {
        equal(name.to_owned(), expected.to_string(), value(name))?;
    }
    let found = value("MODULE_INIT_QOM");
    let known = MODULE_INIT_QOM
        .iter()
        .find(|known| known.to_string() == found);
    match known {
        Some(known) => Ok(*known as c_int),
        None => Err(Refusal::Layout {
            what: "MODULE_INIT_QOM".to_owned(),
            expected: MODULE_INIT_QOM.map(|known| known.to_string()).join(" or "),
            found,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_enumerators_are_compared() {
        let mut names: Vec<_> = VALUES.iter().map(|(name, _)| *name).collect();
        names.push("MODULE_INIT_QOM");
        names.sort_unstable();
        let mut expected = qemu_layout::interface::VALUES.to_vec();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }

    #[test]
    fn the_builtin_table_is_that_of_the_structures_here() {
        let table = Table::builtin();
        fixed(layout()).unwrap();
        assert_eq!(values(&table).unwrap(), 4);
    }

    #[test]
    fn attributes_are_where_the_table_says() {
        let at = layout().mem_tx_attrs;
        assert!(MemTxAttrs::new(0).is_unspecified());
        let both = MemTxAttrs::new(MemTxAttrs::MEMORY | MemTxAttrs::TRANSLATED);
        assert!(both.is_translated() && !both.is_unspecified());
        assert_eq!(both.0, 1 << at.memory.bit | 1 << at.address_type.bit);
        let requester = MemTxAttrs(0x1234 << at.requester_id.bit);
        assert_eq!(requester.requester_id(), 0x1234);
        assert!(!requester.is_translated());
    }
}
