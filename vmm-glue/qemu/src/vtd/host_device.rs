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
    /// Reads an object. `vfio` is the function, if it is one of VFIO's.
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
        vfio: Option<NonNull<PCIDevice>>,
    ) -> std::io::Result<HostDevice> {
        // SAFETY: the caller's promise.
        unsafe {
            let aliased: (*mut BusState, c_int) = (
                room::read(device, at.host_iommu_device.aliased_bus),
                room::read(device, at.host_iommu_device.aliased_devfn),
            );
            let by_iommufd =
                (qemu().object_dynamic_cast)(device.as_ptr().cast(), BY_IOMMUFD.as_ptr());
            let iommufd = match (NonNull::new(by_iommufd), vfio) {
                (Some(_), Some(vfio)) => Some(IommufdDevice::read(at, device, vfio)?),
                _ => None,
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
    /// It is a `HostIOMMUDeviceIOMMUFD` of this `VFIOPCIDevice`.
    unsafe fn read(
        at: &AssignedLayout,
        device: NonNull<HostIOMMUDevice>,
        vfio: NonNull<PCIDevice>,
    ) -> std::io::Result<Self> {
        let (of, function) = (&at.host_iommu_device_iommufd, &at.vfio_pci_device);
        let strange = || std::io::Error::other("VFIOPCIDevice is not laid out as expected");
        // SAFETY: the caller's promise; both files are open as long as the device is set.
        unsafe {
            let (backend, id): (*mut IOMMUFDBackend, u32) =
                (room::read(device, of.iommufd), room::read(device, of.devid));
            // Both have them, so that one shows whether the other is where it should be.
            let same = backend == room::read(vfio, function.iommufd)
                && id == room::read::<_, u32>(vfio, function.devid);
            let backend = NonNull::new(backend).filter(|_| same).ok_or_else(strange)?;
            Ok(IommufdDevice {
                backend: backend.addr().get(),
                iommufd: duplicate(room::read(backend, at.iommufd_backend.fd), "/dev/iommu")?,
                file: duplicate(room::read(vfio, function.fd), "/dev/vfio/devices/")?,
                id,
                parent: room::read(device, of.hwpt_id),
            })
        }
    }
}

/// A file of our own for one that QEMU has open, if it is what it should be.
///
/// # Safety
///
/// The number is that of an open file, unless there is none with it.
unsafe fn duplicate(number: c_int, expected: &str) -> std::io::Result<File> {
    let path = std::fs::read_link(format!("/proc/self/fd/{number}"))?;
    if !path.to_string_lossy().starts_with(expected) {
        let found = path.display();
        let reason = format!("{found} is open in the place of {expected}");
        return Err(std::io::Error::other(reason));
    }
    // SAFETY: the caller's promise.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned().map(File::from)
}
