// SPDX-License-Identifier: GPL-2.0-or-later
//! Structures, offsets and constants of QEMU 11.1 on x86-64. Fields that nobody here uses are
//! there only where they keep others in their places.

use std::ffi::{c_char, c_int, c_void};

/// Declares types of which only the address is known.
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
}

/// Where a function stores its `Error`.
pub type ErrorOut = *mut *mut Error;

/// Checks the size of a structure and the offsets of its fields at compile time.
macro_rules! assert_layout {
    ($type:ty: $size:literal $(, $field:ident = $offset:literal)*) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $(assert!(std::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}
pub(super) use assert_layout;

/// `InterfaceInfo`.
#[repr(C)]
pub struct InterfaceInfo {
    pub type_name: *const c_char,
}
assert_layout!(InterfaceInfo: 8, type_name = 0);

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
assert_layout!(TypeInfo: 104, parent = 8, instance_size = 16, instance_init = 32,
    instance_finalize = 48, is_abstract = 56, class_size = 64, class_init = 72, interfaces = 96);

/// The beginning of `TypeImpl`, which the first word of an `ObjectClass` points to.
#[repr(C)]
pub struct TypeImpl {
    pub name: *const c_char,
    pub class_size: usize,
    pub instance_size: usize,
}
assert_layout!(TypeImpl: 24, name = 0, class_size = 8, instance_size = 16);

/// Offsets in `PCIDeviceClass`, which begins with `DeviceClass`.
pub mod pci_device_class {
    /// Size of the class.
    pub const SIZE: usize = 248;
    /// `DeviceClass.categories`, a bitmap of 64 bits.
    pub const CATEGORIES: usize = 96;
    /// `DeviceClass.desc`, a C string.
    pub const DESC: usize = 112;
    /// `DeviceClass.vmsd`, a `VMStateDescription`.
    pub const VMSD: usize = 168;
    /// `PCIDeviceClass.realize`.
    pub const REALIZE: usize = 184;
    /// `PCIDeviceClass.exit`.
    pub const EXIT: usize = 192;
    /// `PCIDeviceClass.config_read`.
    pub const CONFIG_READ: usize = 200;
    /// `PCIDeviceClass.config_write`.
    pub const CONFIG_WRITE: usize = 208;
    /// `PCIDeviceClass.vendor_id`, 16 bits.
    pub const VENDOR_ID: usize = 216;
    /// `PCIDeviceClass.device_id`, 16 bits.
    pub const DEVICE_ID: usize = 218;
    /// `PCIDeviceClass.revision`, 8 bits.
    pub const REVISION: usize = 220;
    /// `PCIDeviceClass.class_id`, 16 bits.
    pub const CLASS_ID: usize = 222;
}

/// Offsets in `PCIDevice`.
pub mod pci_device {
    /// Size of the instance.
    pub const SIZE: usize = 2768;
    /// `PCIDevice.config`, the pointer to 4096 bytes of configuration space.
    pub const CONFIG: usize = 168;
    /// `PCIDevice.wmask`, the pointer to as many bytes that say which bits software may write.
    pub const WMASK: usize = 184;
}

/// Size of `MemoryRegion`; it is aligned to 16 bytes.
pub const MEMORY_REGION_SIZE: usize = 272;

/// `DEVICE_CATEGORY_MISC`, a bit number of `DeviceClass.categories`.
pub const DEVICE_CATEGORY_MISC: u32 = 7;
/// `MODULE_INIT_QOM`.
pub const MODULE_INIT_QOM: c_int = 4;
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

/// `MemTxAttrs`, whose first word is a bit field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MemTxAttrs {
    pub bits: u32,
    pub unspecified: bool,
    pub reserved1: u8,
    pub reserved2: u16,
}
assert_layout!(MemTxAttrs: 8, bits = 0, unspecified = 4);

impl MemTxAttrs {
    /// Where `requester_id`, of 16 bits, begins.
    pub const REQUESTER_ID: u32 = 6;
    /// `memory`: only random access memory may answer.
    pub const MEMORY: u32 = 1 << 4;
    /// `address_type`: the address is translated.
    pub const TRANSLATED: u32 = 1 << 30;

    /// Attributes with these bits.
    pub const fn new(bits: u32) -> Self {
        MemTxAttrs {
            bits,
            unspecified: bits == 0,
            reserved1: 0,
            reserved2: 0,
        }
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
assert_layout!(MemoryRegionValid: 24, unaligned = 8, accepts = 16);

/// `MemoryRegionOps.impl`.
#[repr(C)]
pub struct MemoryRegionImpl {
    pub min_access_size: u32,
    pub max_access_size: u32,
    pub unaligned: bool,
}
assert_layout!(MemoryRegionImpl: 12, unaligned = 8);

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
assert_layout!(MemoryRegionOps: 80, write = 8, endianness = 32, valid = 40, implemented = 64);
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
assert_layout!(IOMMUTLBEntry: 40, iova = 8, translated_addr = 16, addr_mask = 24, perm = 32,
    pasid = 36);

/// Bits of `IOMMUTLBEntry.perm` (`IOMMUAccessFlags`).
pub mod perm {
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 2;
    pub const EXECUTE: u32 = 4;
    pub const PRIVILEGED: u32 = 8;
    pub const GLOBAL: u32 = 16;
    pub const UNTRANSLATED_ONLY: u32 = 32;
}

/// `IOMMUNotifier`.
#[repr(C)]
pub struct IOMMUNotifier {
    pub notify: Option<IommuNotify>,
    pub flags: u32,
    pub start: u64,
    pub end: u64,
    pub iommu_idx: c_int,
    pub opaque: *mut c_void,
    pub node: [*mut c_void; 2],
}
assert_layout!(IOMMUNotifier: 64, flags = 8, start = 16, end = 24, iommu_idx = 32, opaque = 40,
    node = 48);
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
assert_layout!(IOMMUPRIResponse: 8, prgi = 4);
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
assert_layout!(IOMMUPRINotifier: 8);

/// `Notifier`.
#[repr(C)]
pub struct Notifier {
    pub notify: unsafe extern "C" fn(*mut Notifier, *mut c_void),
    pub node: [*mut c_void; 2],
}
assert_layout!(Notifier: 24, node = 8);

/// `QEMUTimer`.
#[repr(C)]
pub struct QEMUTimer {
    pub expire_time: i64,
    pub timer_list: *mut c_void,
    pub callback: Option<unsafe extern "C" fn(*mut c_void)>,
    pub opaque: *mut c_void,
    pub next: *mut c_void,
    pub attributes: c_int,
    pub scale: c_int,
}
assert_layout!(QEMUTimer: 48, callback = 16, opaque = 24, scale = 44);

/// `VMStateDescription`, of which a device that cannot be migrated needs only its first fields.
#[repr(C)]
pub struct VMStateDescription {
    pub name: *const c_char,
    pub unmigratable: bool,
    pub version_id: c_int,
    pub minimum_version_id: c_int,
    pub priority: c_int,
    pub functions: [*const c_void; 9],
    pub fields: *const c_void,
    pub subsections: *const c_void,
}
assert_layout!(VMStateDescription: 112, unmigratable = 8, version_id = 12,
    minimum_version_id = 16, priority = 20, fields = 96, subsections = 104);

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
assert_layout!(VersionInfo: 16, package = 8);

/// A structure that QEMU reads and that nobody writes after its making.
#[repr(transparent)]
pub struct Constant<T>(pub T);
// SAFETY: the value is never written, and all that it points to is constant as well: it is only
// made from literals in this crate.
unsafe impl<T> Sync for Constant<T> {}
