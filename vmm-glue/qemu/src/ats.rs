// SPDX-License-Identifier: GPL-2.0-or-later
//! The requests of a function that QEMU's vIOMMU answers: for translations and for pages, and the
//! notifiers of invalidations and page responses.

use std::ffi::c_int;

use crate::abi::layout::*;
use crate::abi::qemu;
use crate::bql::Bql;
use crate::pci::PciDevice;

/// Error number of a request that is not permitted now (`EPERM`).
const EPERM: i64 = 1;
/// Error number of a failed access (`EIO`).
const EIO: i64 = 5;
/// Error number of a missing vIOMMU (`ENODEV`).
const ENODEV: i64 = 19;
/// Error number of a full queue (`ENOSPC`).
const ENOSPC: i64 = 28;

/// Why QEMU refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The function or the vIOMMU does not permit it now.
    NotPermitted,
    /// There is no vIOMMU.
    NoIommu,
    /// The page request queue is full.
    QueueFull,
    /// An access to memory failed.
    Access,
    /// The request is malformed, or for a PASID that does not exist.
    Invalid,
}

impl RequestError {
    /// The error for a negative error number.
    fn from_errno(result: i64) -> RequestError {
        match -result {
            EPERM => RequestError::NotPermitted,
            EIO => RequestError::Access,
            ENODEV => RequestError::NoIommu,
            ENOSPC => RequestError::QueueFull,
            _ => RequestError::Invalid,
        }
    }
}

/// A page request as QEMU takes it.
pub struct PageQuery {
    /// PASID, or [`NO_PASID`].
    pub pasid: u32,
    /// Privileged mode.
    pub privileged: bool,
    /// Execute.
    pub execute: bool,
    /// Page.
    pub address: u64,
    /// Last in group.
    pub last: bool,
    /// Group.
    pub prgi: u16,
    /// Read.
    pub read: bool,
    /// Write.
    pub write: bool,
}

/// A translation request as QEMU takes it.
pub struct TranslationQuery {
    /// PASID, or [`NO_PASID`].
    pub pasid: u32,
    /// Privileged mode.
    pub privileged: bool,
    /// Execute.
    pub execute: bool,
    /// First address.
    pub address: u64,
    /// Bytes.
    pub length: usize,
    /// No write permission is needed.
    pub no_write: bool,
}

impl PciDevice {
    /// Sends a translation request; returns the number of entries, which may be 0.
    pub fn translate(
        self,
        _bql: &Bql,
        query: &TranslationQuery,
        entries: &mut [IOMMUTLBEntry],
    ) -> Result<usize, RequestError> {
        let mut failed = 0;
        // SAFETY: the device is realized; the buffer has the given length.
        let result = unsafe {
            (qemu().pci_ats_request_translation)(
                self.raw(),
                query.pasid,
                query.privileged,
                query.execute,
                query.address,
                query.length,
                query.no_write,
                entries.as_mut_ptr(),
                entries.len(),
                &mut failed,
            )
        };
        match usize::try_from(result) {
            Ok(count) => Ok(count.min(entries.len())),
            Err(_) => Err(RequestError::from_errno(result as i64)),
        }
    }

    /// Sends a page request.
    pub fn request_page(self, _bql: &Bql, query: &PageQuery) -> Result<(), RequestError> {
        // SAFETY: the device is realized.
        let result = unsafe {
            (qemu().pci_pri_request_page)(
                self.raw(),
                query.pasid,
                query.privileged,
                query.execute,
                query.address,
                query.last,
                query.prgi,
                query.read,
                query.write,
            )
        };
        check(result)
    }

    /// Fills in a notifier of invalidations, before its registration.
    ///
    /// # Safety
    ///
    /// The notifier is writable and not registered.
    pub unsafe fn init_iotlb_notifier(
        self,
        _bql: &Bql,
        notifier: *mut IOMMUNotifier,
        notify: IommuNotify,
        opaque: *mut std::ffi::c_void,
    ) -> Result<(), RequestError> {
        // SAFETY: the caller's promise.
        check(unsafe {
            (qemu().pci_iommu_init_iotlb_notifier)(self.raw(), notifier, notify, opaque)
        })
    }

    /// Registers a notifier of invalidations.
    ///
    /// # Safety
    ///
    /// The notifier is filled in, and does not move until it is unregistered.
    pub unsafe fn register_iotlb_notifier(
        self,
        _bql: &Bql,
        pasid: u32,
        notifier: *mut IOMMUNotifier,
    ) -> Result<(), RequestError> {
        // SAFETY: the caller's promise.
        check(unsafe { (qemu().pci_iommu_register_iotlb_notifier)(self.raw(), pasid, notifier) })
    }

    /// Unregisters a notifier of invalidations.
    ///
    /// # Safety
    ///
    /// The notifier is registered for this PASID.
    pub unsafe fn unregister_iotlb_notifier(
        self,
        _bql: &Bql,
        pasid: u32,
        notifier: *mut IOMMUNotifier,
    ) -> Result<(), RequestError> {
        // SAFETY: the caller's promise.
        check(unsafe { (qemu().pci_iommu_unregister_iotlb_notifier)(self.raw(), pasid, notifier) })
    }

    /// Registers the notifier of page responses.
    ///
    /// # Safety
    ///
    /// The notifier does not move until it is unregistered.
    pub unsafe fn register_pri_notifier(
        self,
        _bql: &Bql,
        pasid: u32,
        notifier: *mut IOMMUPRINotifier,
    ) -> Result<(), RequestError> {
        // SAFETY: the caller's promise.
        check(unsafe { (qemu().pci_pri_register_notifier)(self.raw(), pasid, notifier) })
    }

    /// Unregisters the notifier of page responses, if there is one.
    pub fn unregister_pri_notifier(self, _bql: &Bql, pasid: u32) {
        // SAFETY: the device exists.
        unsafe { (qemu().pci_pri_unregister_notifier)(self.raw(), pasid) }
    }
}

/// The result of a function that returns 0 or a negative error number.
fn check(result: c_int) -> Result<(), RequestError> {
    if result < 0 {
        Err(RequestError::from_errno(result.into()))
    } else {
        Ok(())
    }
}
