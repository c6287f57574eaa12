// SPDX-License-Identifier: GPL-2.0-or-later
//! A device of the host that QEMU assigns to the machine (`HostIOMMUDevice`): its files and numbers
//! in the kernel.

use std::ffi::{CStr, c_int};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use qemu_layout::interface::assigned::AssignedLayout;

use crate::abi::layout::*;
use crate::abi::{qemu, room};
use crate::bql::Bql;

/// The type of devices that VFIO has opened through an iommufd.
const BY_IOMMUFD: &CStr = c"host-iommu-device-iommufd-vfio";

/// A device that was opened through an iommufd.
pub struct IommufdDevice {
    /// QEMU's object of the iommufd, to tell which devices share one.
    pub backend: usize,
    /// The iommufd.
    pub iommufd: File,
    /// The device's file.
    pub file: File,
    /// The device's id in the iommufd.
    pub id: u32,
    /// The id of the page table that VFIO has attached to it.
    pub parent: u32,
}

/// What QEMU says of a device of the host.
pub struct HostDevice {
    /// It was opened through an iommufd.
    pub iommufd: Option<IommufdDevice>,
    /// A bridge sends its requests with another requester id.
    pub behind_bridge: bool,
}

impl HostDevice {
    /// Reads an object.
    ///
    /// # Errors
    ///
    /// Its files cannot be duplicated.
    ///
    /// # Safety
    ///
    /// It is a `HostIOMMUDevice` that QEMU sets for the function, and the layout is that of this
    /// process.
    pub unsafe fn read(
        _bql: &Bql,
        at: &AssignedLayout,
        device: NonNull<HostIOMMUDevice>,
        function: (*mut BusState, c_int),
    ) -> std::io::Result<HostDevice> {
        // SAFETY: the caller's promise; an object of this type has an iommufd, and VFIO is its
        // agent.
        unsafe {
            let aliased: (*mut BusState, c_int) = (
                room::read(device, at.host_iommu_device.aliased_bus),
                room::read(device, at.host_iommu_device.aliased_devfn),
            );
            let by_iommufd =
                (qemu().object_dynamic_cast)(device.as_ptr().cast(), BY_IOMMUFD.as_ptr());
            let iommufd = match NonNull::new(by_iommufd) {
                Some(_) => IommufdDevice::read(at, device)?,
                None => None,
            };
            Ok(HostDevice {
                iommufd,
                behind_bridge: aliased != function,
            })
        }
    }
}

impl IommufdDevice {
    /// # Safety
    ///
    /// It is a `HostIOMMUDeviceIOMMUFD` of VFIO.
    unsafe fn read(
        at: &AssignedLayout,
        device: NonNull<HostIOMMUDevice>,
    ) -> std::io::Result<Option<Self>> {
        let of = &at.host_iommu_device_iommufd;
        // SAFETY: the caller's promise; both files are open as long as the device is set.
        unsafe {
            let backend: *mut IOMMUFDBackend = room::read(device, of.iommufd);
            let agent: *mut VFIODevice = room::read(device, at.host_iommu_device.agent);
            let (Some(backend), Some(agent)) = (NonNull::new(backend), NonNull::new(agent)) else {
                return Ok(None);
            };
            Ok(Some(IommufdDevice {
                backend: backend.addr().get(),
                iommufd: duplicate(room::read(backend, at.iommufd_backend.fd))?,
                file: duplicate(room::read(agent, at.vfio_device.fd))?,
                id: room::read(device, of.devid),
                parent: room::read(device, of.hwpt_id),
            }))
        }
    }
}

/// A file of our own for one that QEMU has open.
///
/// # Safety
///
/// The number is that of an open file, unless it is negative.
unsafe fn duplicate(number: c_int) -> std::io::Result<File> {
    if number < 0 {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    // SAFETY: the caller's promise.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned().map(File::from)
}
