// SPDX-License-Identifier: GPL-2.0-or-later
//! The parts of QEMU's IOMMUs: the operations of a PCI bus, regions that translate, the classes of
//! x86 IOMMUs. [`check`] compares them with [`super::layout`] as far as possible.

use std::ffi::{CStr, c_void};

use super::functions::Qemu;
use super::layout::*;
use super::refusal::{Refusal, equal};
use super::verify::{field, sizes, type_of};

/// Compares the sizes of the types from which this library derives its own.
///
/// # Safety
///
/// As for [`super::verify::version_and_layout`], after that has succeeded.
pub unsafe fn check(qemu: &Qemu) -> Result<(), Refusal> {
    let types = [
        (
            c"intel-iommu",
            layout().x86_iommu_class.size,
            layout().intel_iommu.size,
        ),
        (
            c"iommu-memory-region",
            layout().iommu_memory_region_class.size,
            layout().iommu_memory_region.size,
        ),
    ];
    for (name, class_size, instance_size) in types {
        // SAFETY: the caller's promise.
        unsafe { sizes(qemu, name, (class_size, instance_size))? };
    }
    // SAFETY: the caller's promise, and the sizes were compared.
    unsafe {
        functions(qemu)?;
        devices_of_the_host(qemu)
    }
}

/// Compares the sizes of the types of devices of the host.
///
/// # Safety
///
/// As for [`check`].
unsafe fn devices_of_the_host(qemu: &Qemu) -> Result<(), Refusal> {
    let Some(at) = assigned() else { return Ok(()) };
    let sizes = [
        (c"host-iommu-device", at.host_iommu_device.size),
        (
            c"host-iommu-device-iommufd",
            at.host_iommu_device_iommufd.size,
        ),
        (c"iommufd", at.iommufd_backend.size),
        (c"vfio-pci", at.vfio_pci_device.size),
    ];
    for (name, expected) in sizes {
        // SAFETY: types are registered; a class begins with the pointer to its type.
        unsafe {
            let class = (qemu.object_class_by_name)(name.as_ptr());
            // A QEMU may be without VFIO.
            if !class.is_null() {
                let what = format!("the size of {}", name.to_string_lossy());
                equal(what, expected, type_of(class).instance_size)?;
            }
        }
    }
    Ok(())
}

/// Checks which functions QEMU's own IOMMU has, and which it lacks, as far as this is known.
///
/// # Safety
///
/// As for [`check`], after the sizes were compared.
unsafe fn functions(qemu: &Qemu) -> Result<(), Refusal> {
    let (iommu, region) = (
        &layout().x86_iommu_class,
        &layout().iommu_memory_region_class,
    );
    let known: [(&CStr, &[(usize, bool)]); 2] = [
        (
            c"intel-iommu",
            &[(iommu.realize, true), (iommu.int_remap, true)],
        ),
        (
            c"intel-iommu-iommu-memory-region",
            &[
                (region.translate, true),
                (region.notify_flag_changed, true),
                (region.replay, true),
                // Only IOMMUs of other machines have this function.
                (region.get_attr, false),
            ],
        ),
    ];
    for (name, fields) in known {
        let text = name.to_string_lossy();
        // SAFETY: types are registered; the classes have the compared sizes, or inherit from a
        // class that has.
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
