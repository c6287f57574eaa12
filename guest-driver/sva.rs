// SPDX-License-Identifier: GPL-2.0-only

//! Shared virtual addressing (SVA): bonds between a device and the address space of a process.
//!
//! A bonded device accesses the memory of the process through the same page tables as the CPU, with
//! the virtual addresses of the process, in transactions with the PASID of the bond.
//!
//! This module knows nothing of the driver that it is part of. It is meant to become the module
//! `iommu::sva` of the kernel crate, next to `iommu::pgtable`. There, [`Bond::bind`] can call
//! `dev.as_raw()`, which is private to the crate, instead of a cast.
//!
//! C header: [`include/linux/iommu.h`](srctree/include/linux/iommu.h)

use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    bindings,
    device::{
        Bound,
        Device, //
    },
    devres::Devres,
    error::from_err_ptr,
    mm::{
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::aref::ARef, //
};

#[cfg(not(CONFIG_IOMMU_SVA))]
compile_error!("this kernel has no shared virtual addressing: it needs CONFIG_IOMMU_SVA=y");

/// `IOMMU_PASID_INVALID`, a macro with a cast, which has no binding.
const INVALID_PASID: u32 = !0;

// It has no binding: the kernel crate does not read its header.
#[allow(improper_ctypes)]
unsafe extern "C" {
    /// Waits for the page requests of a device that are being handled; an error means that there
    /// can be none, because the device has no queue for them.
    fn iopf_queue_flush_dev(dev: *mut bindings::device) -> core::ffi::c_int;
}

/// A bond between a device and an address space. Dropping it ends the bond.
///
/// It exists only within a [`Devres`], see [`Bond::bind`]: so it ends at the latest when the device
/// is unbound from its driver, even if its owner leaks it.
///
/// Several bonds between the same device and the same address space may exist; they share one
/// PASID, and the device keeps its access until the last of them is dropped.
///
/// A bond does not keep the address space populated: when its last user is gone, the IOMMU driver
/// detaches the page tables from the device, and its accesses fail. The PASID itself stays reserved
/// until the bond is dropped.
///
/// Before a bond is dropped, the driver must have made the device stop all transactions with the
/// bond's PASID, and must have waited for the responses to its page requests. Otherwise they hit an
/// empty or, worse, a reused PASID. This does not affect the kernel's memory safety, because the
/// IOMMU still checks the accesses, but it affects the processes.
///
/// # Invariants
///
/// - `handle` was returned by `iommu_sva_bind_device()`, for a device that stays bound to its
///   driver while `self` exists.
/// - `dev` is that device.
/// - `self` owns one reference to it, that is, one call of `iommu_sva_unbind_device()`.
///
/// # Examples
///
/// ```ignore
/// fn pasid_of_current(dev: &Device<Bound>) -> Result<u32> {
///     let task = current!();
///     let bond = sva::Bond::bind(dev, task.mm().ok_or(EINVAL)?)?;
///
///     bond.access(dev)?.pasid().ok_or(ENODEV)
/// }
/// ```
pub(crate) struct Bond {
    handle: NonNull<bindings::iommu_sva>,
    /// The device that `handle` is for.
    dev: NonNull<bindings::device>,
    /// The address space; holds the structure, not the memory.
    mm: ARef<Mm>,
}

// SAFETY: `iommu_sva_unbind_device()` takes a mutex and works on the handle, the device and the
// address space that the handle refers to, never on the task that calls it; and so does
// `iommu_sva_get_pasid()`, which only reads.
unsafe impl Send for Bond {}

// SAFETY: The only method on `&Bond` that uses the handle is `pasid()`, and
// `iommu_sva_get_pasid()` may be called by any number of tasks at the same time.
unsafe impl Sync for Bond {}

impl Bond {
    /// Bonds `dev` with `mm`. The bond ends when the result is dropped, or when `dev` is unbound
    /// from its driver, whichever comes first.
    ///
    /// Must be called from process context; may sleep and takes `mm`'s mmap lock.
    ///
    /// # Errors
    ///
    /// Those of the IOMMU driver, among them:
    ///
    /// - `ENODEV`, `EINVAL`, `EOPNOTSUPP`: this device or this IOMMU cannot share address spaces.
    /// - `ENOSPC`: no PASID is left, or the device has none.
    /// - `EOVERFLOW`: the PASID of `mm` is too large for the device.
    /// - `EBUSY`: the page tables of `mm` are in a format that devices cannot use.
    /// - `ENOMEM`: there is no memory for the bond; then nothing was bonded.
    pub(crate) fn bind(dev: &Device<Bound>, mm: &MmWithUser) -> Result<Devres<Self>> {
        // The bond is created in place, after everything that can fail: this never ends a bond.
        Devres::new(
            dev,
            pin_init::pin_init_scope(move || Ok(Self::new(dev, mm))),
        )
    }

    /// Bonds `dev` with `mm`. The result must not outlive the binding of `dev` to its driver.
    fn new(dev: &Device<Bound>, mm: &MmWithUser) -> Result<Self> {
        // `Device` is a transparent wrapper of `struct device`.
        let raw: *mut bindings::device = ptr::from_ref(dev).cast_mut().cast();

        // SAFETY:
        // - `raw` is a valid `struct device`, bound to a driver during the lifetime of `dev`, so
        //   its IOMMU group cannot go away during the call.
        // - `mm` proves that `mm_users` is not zero, and stays so during the call.
        let handle = from_err_ptr(unsafe { bindings::iommu_sva_bind_device(raw, mm.as_raw()) })?;
        let mm: &Mm = mm;

        Ok(Self {
            // INVARIANT: `handle` was just returned for `dev`, with one reference. The only caller
            // puts it into a `Devres` of `dev`.
            handle: NonNull::new(handle).ok_or(ENODEV)?,
            dev: NonNull::new(raw).ok_or(ENODEV)?,
            mm: mm.into(),
        })
    }

    /// The PASID (20 bits) with which the device accesses the address space; `None` if the kernel
    /// has none for it.
    pub(crate) fn pasid(&self) -> Option<u32> {
        // SAFETY: By the type invariants, the handle is valid.
        let pasid = unsafe { bindings::iommu_sva_get_pasid(self.handle.as_ptr()) };

        (pasid != INVALID_PASID).then_some(pasid)
    }
}

impl Drop for Bond {
    fn drop(&mut self) {
        // The end of the address space tears down the entry of the PASID, too, and the IOMMU driver
        // of Linux 7.2 and 7.3 warns if both happen at the same time
        // (`intel_pasid_tear_down_entry()`). So keep the address space alive during the call; or,
        // if it has no users any more, wait for running MMU notifiers, which do the teardown. They
        // may not have begun yet: README.md explains this remaining gap.
        let user = self.mm.mmget_not_zero().map(MmWithUser::into_mmput_async);
        if user.is_none() {
            // SAFETY: The function only requires a context that may sleep, like the end of a bond
            // itself.
            unsafe { bindings::mmu_notifier_synchronize() };
            // The notifier has torn the entry down without FPD, and so the IOMMU driver of Linux
            // 7.3 does not see it: `iommu_sva_unbind_device()` then returns without waiting for the
            // page requests that are being handled, and frees what their worker still reads. That
            // worker may even have dropped the last reference to the address space.
            //
            // SAFETY: By the type invariants, `dev` is a bound device with an IOMMU.
            unsafe { iopf_queue_flush_dev(self.dev.as_ptr()) };
        }

        // SAFETY: By the type invariants, the handle is valid and this call releases the reference
        // that `self` owns; the handle is not used afterwards. The device that the handle points to
        // is still bound, by the invariants, too.
        unsafe { bindings::iommu_sva_unbind_device(self.handle.as_ptr()) };
    }
}
