// SPDX-License-Identifier: GPL-2.0-or-later
//! What QEMU's IOMMUs are made of: the operations of a PCI bus, regions that translate, the
//! classes of x86 IOMMUs. As [`super::layout`], and checked as far as it can be seen by
//! [`check`].

use std::ffi::{CStr, c_int, c_void};

use super::functions::Qemu;
use super::layout::*;
use super::verify::{Refusal, equal, field};

/// `PCIIOMMUOps`. A null entry is one that the IOMMU does not have.
#[repr(C)]
pub struct PCIIOMMUOps {
    pub supports_address_space: *const c_void,
    pub get_address_space:
        unsafe extern "C" fn(*mut BusState, *mut c_void, c_int) -> *mut AddressSpace,
    pub set_iommu_device: *const c_void,
    pub unset_iommu_device: *const c_void,
    pub get_viommu_flags: *const c_void,
    pub get_host_iommu_quirks: *const c_void,
    pub get_iotlb_info: unsafe extern "C" fn(*mut c_void, *mut u8, *mut u32),
    pub init_iotlb_notifier: unsafe extern "C" fn(
        *mut BusState,
        *mut c_void,
        c_int,
        *mut IOMMUNotifier,
        Option<IommuNotify>,
        *mut c_void,
    ),
    pub register_iotlb_notifier:
        unsafe extern "C" fn(*mut BusState, *mut c_void, c_int, u32, *mut IOMMUNotifier),
    pub unregister_iotlb_notifier:
        unsafe extern "C" fn(*mut BusState, *mut c_void, c_int, u32, *mut IOMMUNotifier),
    pub ats_request_translation: AtsRequestTranslation,
    pub pri_register_notifier:
        unsafe extern "C" fn(*mut BusState, *mut c_void, c_int, u32, *mut IOMMUPRINotifier),
    pub pri_unregister_notifier: unsafe extern "C" fn(*mut BusState, *mut c_void, c_int, u32),
    pub pri_request_page: PriRequestPage,
    pub get_msi_direct_gpa: *const c_void,
}
assert_layout!(PCIIOMMUOps: 120, get_address_space = 8, get_iotlb_info = 48,
    init_iotlb_notifier = 56, ats_request_translation = 80, pri_register_notifier = 88,
    pri_request_page = 104, get_msi_direct_gpa = 112);

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

/// Offsets in `PCIBus`.
pub mod pci_bus {
    /// `PCIBus.iommu_ops`.
    pub const IOMMU_OPS: usize = 128;
    /// `PCIBus.iommu_opaque`.
    pub const IOMMU_OPAQUE: usize = 136;
}

/// Offsets in `IOMMUMemoryRegion`, which begins with its `MemoryRegion`; aligned to 16 bytes.
pub mod iommu_memory_region {
    /// Size of the instance.
    pub const SIZE: usize = 288;
    /// `IOMMUMemoryRegion.iommu_notify`: the first notifier of a list that is linked by
    /// `IOMMUNotifier.node`.
    pub const NOTIFIERS: usize = 272;
}

/// Offsets in `IOMMUMemoryRegionClass`.
pub mod iommu_memory_region_class {
    /// Size of the class.
    pub const SIZE: usize = 152;
    /// `translate`: region, address, `IOMMUAccessFlags`, index; returns an `IOMMUTLBEntry`.
    pub const TRANSLATE: usize = 96;
    /// `notify_flag_changed`: region, old flags, new flags, error.
    pub const NOTIFY_FLAG_CHANGED: usize = 112;
    /// `replay`: region, notifier.
    pub const REPLAY: usize = 120;
    /// `attrs_to_index`: region, attributes.
    pub const ATTRS_TO_INDEX: usize = 136;
    /// `num_indexes`: region.
    pub const NUM_INDEXES: usize = 144;
}

/// Offsets in the classes of x86 IOMMUs, which begin with `DeviceClass`.
pub mod x86_iommu_class {
    /// Size of `X86IOMMUClass`.
    pub const SIZE: usize = 208;
    /// `X86IOMMUClass.int_remap`: device, message, remapped message, requester id.
    pub const INT_REMAP: usize = 200;
}

/// Size of the object that `intel-iommu` is; ours is one of those.
pub const INTEL_IOMMU_SIZE: usize = 6400;
/// Size of `AddressSpace`.
pub const ADDRESS_SPACE_SIZE: usize = 160;
/// Offset of `ioapic_as`, a pointer, in `X86MachineState`.
pub const MACHINE_IOAPIC_AS: usize = 1072;

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
assert_layout!(MSIMessage: 16, data = 8);

/// `X86_IOMMU_SID_INVALID`: a message whose requester is not known.
pub const SID_INVALID: u16 = 0xffff;
/// `QEMU_CLOCK_VIRTUAL`: stands still while the machine does.
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
assert_layout!(ResettablePhases: 24, hold = 8, exit = 16);

/// Compares the sizes of the types that are derived from.
///
/// # Safety
///
/// As for [`super::verify::version_and_layout`], after that has succeeded.
pub unsafe fn check(qemu: &Qemu) -> Result<(), Refusal> {
    let sizes = [
        (c"intel-iommu", x86_iommu_class::SIZE, INTEL_IOMMU_SIZE),
        (
            c"iommu-memory-region",
            iommu_memory_region_class::SIZE,
            iommu_memory_region::SIZE,
        ),
    ];
    for (name, class_size, instance_size) in sizes {
        // SAFETY: types are registered; a class begins with the pointer to its type.
        let found = unsafe {
            let class = (qemu.object_class_by_name)(name.as_ptr());
            if class.is_null() {
                return Err(Refusal::MissingType(name.to_string_lossy().into_owned()));
            }
            let found: &TypeImpl = &**class.cast::<*const TypeImpl>();
            (found.class_size, found.instance_size)
        };
        let what = format!("the size of {} and its class", name.to_string_lossy());
        equal(what, (class_size, instance_size), found)?;
    }
    // SAFETY: the caller's promise, and the sizes were compared.
    unsafe { functions(qemu) }
}

/// Compares which functions QEMU's own IOMMU has and which it has not, as far as they are known.
///
/// # Safety
///
/// As for [`check`], after the sizes were compared.
unsafe fn functions(qemu: &Qemu) -> Result<(), Refusal> {
    use iommu_memory_region_class as region;
    /// `X86IOMMUClass.realize`.
    const REALIZE: usize = 192;
    /// `IOMMUMemoryRegionClass.get_attr`, which only IOMMUs of other machines have.
    const GET_ATTR: usize = 128;
    let known: [(&CStr, &[(usize, bool)]); 2] = [
        (
            c"intel-iommu",
            &[(REALIZE, true), (x86_iommu_class::INT_REMAP, true)],
        ),
        (
            c"intel-iommu-iommu-memory-region",
            &[
                (region::TRANSLATE, true),
                (region::NOTIFY_FLAG_CHANGED, true),
                (region::REPLAY, true),
                (GET_ATTR, false),
            ],
        ),
    ];
    for (name, fields) in known {
        let text = name.to_string_lossy();
        // SAFETY: types are registered; the classes have the sizes that were compared, or inherit
        // from one that has.
        unsafe {
            let class = (qemu.object_class_by_name)(name.as_ptr());
            if class.is_null() {
                return Err(Refusal::MissingType(text.into_owned()));
            }
            for (offset, expected) in fields {
                let found = !field::<*const c_void>(class, *offset).is_null();
                let what = format!("whether class {text} has a function at {offset}");
                equal(what, *expected, found)?;
            }
        }
    }
    Ok(())
}
