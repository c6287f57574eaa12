// SPDX-License-Identifier: GPL-2.0-or-later
//! The class of the regions that the unit translates: an access of a function becomes a request to
//! the unit.
//!
//! QEMU calls these functions from any thread, with or without the BQL, inside an RCU read section.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;

use vtd::{Access, Blocked, Request};

use super::guest_memory::GuestMemory;
use super::space::{FunctionSpace, Kept};
use crate::abi::functions;
use crate::abi::layout::*;
use crate::bql::Bql;
use crate::memory::Space;
use crate::message::{self, ErrorSlot};
use crate::qom::Class;

/// Name of the class.
pub const REGION_TYPE: &CStr = c"svm-vtd-memory-region";

/// Indices of the region, by the address type of a request.
const UNTRANSLATED: c_int = 0;
const TRANSLATED: c_int = 1;

/// All translated addresses within 1 MiB have the same result: either all of them are in the
/// interrupt address range or none, and the unit has no protected memory.
const ALIKE: u64 = 0xf_ffff;

/// Registers the class.
pub fn register() {
    let info = TypeInfo {
        name: REGION_TYPE.as_ptr(),
        parent: c"iommu-memory-region".as_ptr(),
        instance_size: 0,
        instance_align: 0,
        instance_init: None,
        instance_post_init: None,
        instance_finalize: None,
        is_abstract: false,
        class_size: 0,
        class_init: Some(class_init),
        class_base_init: None,
        class_data: std::ptr::null(),
        interfaces: std::ptr::null(),
    };
    // SAFETY: QEMU copies the structure; everything that it points to is static.
    unsafe { (functions::qemu().type_register_static)(&info) };
}

/// `TypeInfo.class_init`.
unsafe extern "C" fn class_init(class: *mut ObjectClass, _data: *const c_void) {
    let at = &layout().iommu_memory_region_class;
    let Some(class) = NonNull::new(class) else {
        return;
    };
    // SAFETY: the class inherits from `iommu-memory-region`, whose size was compared; the functions
    // have the declared types.
    unsafe {
        let mut class = Class::new(class);
        class.write(at.translate, translate as *const c_void);
        class.write(at.notify_flag_changed, notify_flag_changed as *const c_void);
        class.write(at.replay, replay as *const c_void);
        class.write(at.attrs_to_index, attrs_to_index as *const c_void);
        class.write(at.num_indexes, num_indexes as *const c_void);
    }
}

/// `translate`: `flags` are [`perm`]'s.
unsafe extern "C" fn translate(
    region: *mut c_void,
    address: u64,
    flags: c_int,
    index: c_int,
) -> IOMMUTLBEntry {
    let Some(region) = NonNull::new(region) else {
        return blocked(address);
    };
    // SAFETY: all regions of this class belong to address spaces of the unit.
    let space = unsafe { Kept::of_region(region) }.get();
    let access = match flags as u32 & (perm::READ | perm::WRITE) {
        both if both == perm::READ | perm::WRITE => Access::Atomic,
        perm::WRITE => Access::Write,
        _ => Access::Read,
    };
    if index == TRANSLATED {
        translated(space, address, access)
    } else {
        untranslated(space, address, access)
    }
}

/// The result of a request with an untranslated address.
fn untranslated(space: &FunctionSpace, address: u64, access: Access) -> IOMMUTLBEntry {
    let request = Request {
        requester: space.function.source_id(),
        pasid: None,
        address,
        access,
        execute: false,
        privileged: false,
    };
    let result = space
        .unit
        .with(|unit, effects| unit.translate(&GuestMemory, &request, effects));
    let found = match result {
        Ok(found) => found,
        Err(reason) => {
            refused(space, access, address, &reason);
            return blocked(address);
        }
    };
    let mask = found.page.last() - found.page.base();
    let allowed = |is: bool, bit| if is { bit } else { 0 };
    IOMMUTLBEntry {
        iova: address & !mask,
        translated_addr: found.address & !mask,
        addr_mask: mask,
        perm: allowed(found.read, perm::READ) | allowed(found.write, perm::WRITE),
        ..blocked(address)
    }
}

/// The result of a request with a translated address: permitted or blocked.
fn translated(space: &FunctionSpace, address: u64, access: Access) -> IOMMUTLBEntry {
    let requester = space.function.source_id();
    let result = space.unit.with(|unit, effects| {
        unit.translated_request(&GuestMemory, requester, None, address, access, effects)
    });
    if let Err(reason) = result {
        refused(space, access, address, &reason);
        return blocked(address);
    }
    IOMMUTLBEntry {
        iova: address & !ALIKE,
        translated_addr: address & !ALIKE,
        addr_mask: ALIKE,
        perm: perm::READ | perm::WRITE,
        ..blocked(address)
    }
}

/// Logs a refused request as a guest error.
fn refused(space: &FunctionSpace, access: Access, address: u64, reason: &Blocked) {
    let of = space.function.source_id();
    message::guest_error(&format!(
        "svm-vtd: {access:?} of {of} at {address:#x}: {reason}"
    ));
}

/// A page without permission.
fn blocked(address: u64) -> IOMMUTLBEntry {
    const PAGE: u64 = pcie_ats::PAGE_SIZE - 1;
    IOMMUTLBEntry {
        target_as: Space::system().as_ptr(),
        iova: address & !PAGE,
        translated_addr: 0,
        addr_mask: PAGE,
        perm: 0,
        pasid: NO_PASID,
    }
}

/// `notify_flag_changed`: whether clients can watch a region with these flags.
unsafe extern "C" fn notify_flag_changed(
    region: *mut c_void,
    _old: c_int,
    new: c_int,
    error: ErrorOut,
) -> c_int {
    let Some(region) = NonNull::new(region) else {
        return -nix::libc::EINVAL;
    };
    // SAFETY: all regions of this class belong to address spaces of the unit; the slot is QEMU's.
    let (kept, slot) = unsafe { (Kept::of_region(region), ErrorSlot::new(error)) };
    match kept.watch(new as u32) {
        Ok(()) => 0,
        Err(reason) => {
            slot.set(reason);
            -nix::libc::ENOTSUP
        }
    }
}

/// `replay`: tells a client with a new copy of all mappings.
unsafe extern "C" fn replay(region: *mut c_void, notifier: *mut IOMMUNotifier) {
    let (Some(region), Some(notifier)) = (NonNull::new(region), NonNull::new(notifier)) else {
        return;
    };
    // SAFETY: as for `notify_flag_changed`; QEMU replays with the BQL held, for a notifier that
    // is in the region's list.
    let (kept, bql) = unsafe { (Kept::of_region(region), Bql::held()) };
    kept.replay(&bql, notifier);
}

/// `attrs_to_index`.
unsafe extern "C" fn attrs_to_index(_region: *mut c_void, attributes: MemTxAttrs) -> c_int {
    if attributes.is_translated() {
        TRANSLATED
    } else {
        UNTRANSLATED
    }
}

/// `num_indexes`.
unsafe extern "C" fn num_indexes(_region: *mut c_void) -> c_int {
    2
}
