// SPDX-License-Identifier: GPL-2.0-or-later
//! What is changed in requests of QEMU's to the kernel: this library has a function `ioctl` that is found
//! before that of the C library. For that it must be preloaded.

use std::ffi::{c_int, c_ulong, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use iommufd_bindings as uapi;
use nix::libc;

use crate::remedy::page_requests;
use crate::withheld;

/// IOMMU_HWPT_ALLOC.
const HWPT_ALLOC: u32 = 0x3b89;
/// IOMMU_HWPT_INVALIDATE.
pub(crate) const HWPT_INVALIDATE: u32 = 0x3b8d;

/// The C library's function.
type Ioctl = unsafe extern "C" fn(c_int, c_ulong, *mut c_void) -> c_int;

/// `ioctl` of the C library.
fn next_ioctl() -> Option<Ioctl> {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    let mut next = NEXT.load(Ordering::Relaxed);
    if next.is_null() {
        // SAFETY: the name is a C string.
        next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"ioctl".as_ptr()) };
        NEXT.store(next, Ordering::Relaxed);
    }
    // SAFETY: the C library's function takes its third argument as this type does on x86-64.
    (!next.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, Ioctl>(next) })
}

/// `ioctl`, in the place of the C library's.
///
/// # Safety
///
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    let Some(next) = next_ioctl() else {
        nix::errno::Errno::ENOSYS.set();
        return -1;
    };
    // Only the lower half of the number counts.
    if request as u32 == HWPT_ALLOC && !argument.is_null() {
        // SAFETY: the kernel reads this structure there, too.
        let table = unsafe { &mut *argument.cast::<uapi::iommu_hwpt_alloc>() };
        let made = page_requests::alloc(fd, table, |table| {
            // SAFETY: the caller's promise; the structure is as large as the kernel's.
            unsafe { next(fd, request, (&raw mut *table).cast()) }
        });
        if let Some(result) = made {
            return result;
        }
    }
    // The structure says as it is that all of its entries were handled.
    if request as u32 == HWPT_INVALIDATE && withheld::is_on() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe { next(fd, request, argument) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn other_requests_are_passed_on_with_their_results_and_errors() {
        let (read, mut write) = std::io::pipe().unwrap();
        write.write_all(b"seven b").unwrap();
        let mut waiting: c_int = 0;
        let asked = |fd: c_int, request, argument: *mut c_int| {
            // SAFETY: the argument is a number that the kernel may write.
            unsafe { ioctl(fd, request, argument.cast()) }
        };
        assert_eq!(asked(read.as_raw_fd(), libc::FIONREAD, &mut waiting), 0);
        assert_eq!(waiting, 7);
        assert_eq!(asked(-1, libc::FIONREAD, &mut waiting), -1);
        assert_eq!(nix::errno::Errno::last(), nix::errno::Errno::EBADF);
        // Of an iommufd that is not known, the kernel's own answer comes back unchanged.
        let mut table = uapi::iommu_hwpt_alloc {
            size: size_of::<uapi::iommu_hwpt_alloc>() as u32,
            data_type: uapi::iommu_hwpt_data_type_IOMMU_HWPT_DATA_VTD_S1,
            ..Default::default()
        };
        let argument = (&raw mut table).cast();
        // SAFETY: the argument is the structure of the request.
        let result = unsafe { ioctl(read.as_raw_fd(), HWPT_ALLOC.into(), argument) };
        assert_eq!((result, table.flags, table.fault_id), (-1, 0, 0));
    }
}
