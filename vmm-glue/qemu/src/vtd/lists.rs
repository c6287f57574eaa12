// SPDX-License-Identifier: GPL-2.0-or-later
//! Checks the offset of a region's list of notifiers: it lets QEMU add two to the list of a region,
//! and looks for them there.

use std::ffi::c_void;
use std::ptr::NonNull;

use crate::abi::layout::*;
use crate::abi::{qemu, room};
use crate::bql::Bql;

/// Compares the list of one of our regions, which has no notifiers yet.
///
/// # Errors
///
/// The list, or the link of its elements, is at another offset.
pub fn check(_bql: &Bql, region: NonNull<c_void>) -> Result<(), String> {
    let notifiers = [IOMMUNotifier::allocate(), IOMMUNotifier::allocate()];
    let result = notifiers.iter().try_for_each(|notifier| {
        // SAFETY: the region exists, and the notifier is new, and exists until it is removed from
        // the list.
        unsafe {
            IOMMUNotifier::fill(*notifier, Some(unheard), std::ptr::null_mut());
            room::write(*notifier, layout().iommu_notifier.flags, NOTIFIER_UNMAP);
            let mut error = std::ptr::null_mut();
            let register = qemu().memory_region_register_iommu_notifier;
            if register(region.as_ptr().cast(), notifier.as_ptr(), &mut error) == 0 {
                return Ok(());
            }
            (qemu().error_free)(error);
            Err("a region cannot be watched".to_owned())
        }
    });
    let [first, second] = notifiers;
    // SAFETY: both notifiers and the region are as large as in the layout. The pointers are
    // compared only after all notifiers were added, and never followed.
    let result = result.and_then(|()| unsafe {
        let head: *mut IOMMUNotifier = room::read(region, layout().iommu_memory_region.notifiers);
        if head != second.as_ptr() {
            return Err("IOMMUMemoryRegion is not laid out as expected".to_owned());
        }
        if IOMMUNotifier::next(second) != Some(first) {
            return Err("IOMMUNotifier is not laid out as expected".to_owned());
        }
        Ok(())
    });
    if result.is_ok() {
        for notifier in notifiers {
            // SAFETY: it is in the list, and not used afterwards.
            unsafe {
                let unregister = qemu().memory_region_unregister_iommu_notifier;
                unregister(region.as_ptr().cast(), notifier.as_ptr());
                IOMMUNotifier::free(notifier);
            }
        }
    }
    // Otherwise they stay in the list, and QEMU ends.
    result
}

/// A notifier without any effect.
unsafe extern "C" fn unheard(_notifier: *mut IOMMUNotifier, _entry: *mut IOMMUTLBEntry) {}
