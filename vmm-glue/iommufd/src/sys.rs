// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ioctls of `/dev/iommu` and of VFIO's devices. The only file that passes addresses to the
//! kernel.

use iommufd_bindings as uapi;
use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use vfio_bindings::bindings::vfio;

/// The type of all these ioctls; their numbers have neither size nor direction.
const TYPE: u32 = b';' as u32;

/// `_IO(type, number)`.
const fn number(nr: u32) -> libc::c_ulong {
    (TYPE << 8 | nr) as libc::c_ulong
}

/// The first ioctl of VFIO.
const VFIO_BASE: u32 = 100;

/// A structure that an ioctl reads and writes.
///
/// # Safety
///
/// The structure has the layout that the kernel expects of the ioctl with this number, its first
/// field is its size and set, and it has no address of memory but for those that [`call`]'s caller
/// vouches for.
unsafe trait Argument {
    /// The number of the ioctl.
    const NUMBER: libc::c_ulong;
}

/// Declares the argument of each ioctl.
macro_rules! arguments {
    ($($argument:ty = $number:expr;)*) => {$(
        // SAFETY: the layouts are generated from the kernel's headers, and the numbers are theirs.
        unsafe impl Argument for $argument {
            const NUMBER: libc::c_ulong = number($number);
        }
    )*};
}

arguments! {
    uapi::iommu_destroy = 0x80;
    uapi::iommu_ioas_alloc = 0x81;
    uapi::iommu_ioas_map = 0x85;
    uapi::iommu_ioas_unmap = 0x86;
    uapi::iommu_hwpt_alloc = 0x89;
    uapi::iommu_hw_info = 0x8a;
    uapi::iommu_hwpt_set_dirty_tracking = 0x8b;
    uapi::iommu_hwpt_get_dirty_bitmap = 0x8c;
    uapi::iommu_hwpt_invalidate = 0x8d;
    uapi::iommu_fault_alloc = 0x8e;
    vfio::vfio_region_info = VFIO_BASE + 8;
    vfio::vfio_device_bind_iommufd = VFIO_BASE + 18;
    vfio::vfio_device_attach_iommufd_pt = VFIO_BASE + 19;
    vfio::vfio_device_detach_iommufd_pt = VFIO_BASE + 20;
}

/// Makes an ioctl. Returns what the kernel returned.
///
/// # Safety
///
/// Addresses in the argument are those of memory that the kernel may read and write as the ioctl
/// says, during the call; of a mapping, that devices may until it is unmapped.
unsafe fn call<A: Argument>(file: &File, argument: &mut A) -> io::Result<i32> {
    // SAFETY: the argument is one of this ioctl, by the trait's contract; its addresses are good,
    // by this function's.
    let got = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            A::NUMBER as _,
            std::ptr::from_mut(argument),
        )
    };
    match got {
        ..0 => Err(io::Error::last_os_error()),
        got => Ok(got),
    }
}

/// Declares ioctls whose arguments have no address.
macro_rules! calls {
    ($($(#[$doc:meta])+ $name:ident($argument:ty);)*) => {$(
        $(#[$doc])+
        pub fn $name(file: &File, argument: &mut $argument) -> io::Result<()> {
            // SAFETY: the argument has no address.
            unsafe { call(file, argument) }.map(drop)
        }
    )*};
}

calls! {
    /// IOMMU_DESTROY.
    destroy(uapi::iommu_destroy);
    /// IOMMU_IOAS_ALLOC.
    ioas_alloc(uapi::iommu_ioas_alloc);
    /// IOMMU_IOAS_UNMAP.
    ioas_unmap(uapi::iommu_ioas_unmap);
    /// IOMMU_HWPT_SET_DIRTY_TRACKING.
    set_dirty_tracking(uapi::iommu_hwpt_set_dirty_tracking);
    /// VFIO_DEVICE_GET_REGION_INFO.
    region_info(vfio::vfio_region_info);
    /// VFIO_DEVICE_ATTACH_IOMMUFD_PT.
    attach(vfio::vfio_device_attach_iommufd_pt);
    /// VFIO_DEVICE_DETACH_IOMMUFD_PT.
    detach(vfio::vfio_device_detach_iommufd_pt);
}

/// VFIO_DEVICE_RESET.
pub fn reset(device: &File) -> io::Result<()> {
    // SAFETY: the ioctl has no argument.
    match unsafe { libc::ioctl(device.as_raw_fd(), number(VFIO_BASE + 11) as _) } {
        ..0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// VFIO_DEVICE_BIND_IOMMUFD. Returns the id of the device.
pub fn bind(device: &File, iommufd: &File) -> io::Result<u32> {
    let mut argument = vfio::vfio_device_bind_iommufd {
        // Without the token, which older kernels do not know.
        argsz: std::mem::offset_of!(vfio::vfio_device_bind_iommufd, token_uuid_ptr) as u32,
        flags: 0,
        iommufd: iommufd.as_raw_fd(),
        ..Default::default()
    };
    // SAFETY: the argument has no address that is used.
    unsafe { call(device, &mut argument) }?;
    Ok(argument.out_devid)
}

/// IOMMU_IOAS_MAP.
///
/// # Safety
///
/// Devices may reach the memory until it is unmapped.
pub unsafe fn ioas_map(file: &File, argument: &mut uapi::iommu_ioas_map) -> io::Result<()> {
    // SAFETY: by this function's contract.
    unsafe { call(file, argument) }.map(drop)
}

/// IOMMU_HWPT_ALLOC, with the data of a first stage if there are any. Returns the id.
pub fn hwpt_alloc(
    file: &File,
    mut argument: uapi::iommu_hwpt_alloc,
    data: Option<&uapi::iommu_hwpt_vtd_s1>,
) -> io::Result<u32> {
    argument.data_len = data.map_or(0, |_| size_of::<uapi::iommu_hwpt_vtd_s1>() as u32);
    argument.data_uptr = data.map_or(0, |data| std::ptr::from_ref(data) as u64);
    // SAFETY: the kernel reads as many bytes as `data` has, during the call.
    unsafe { call(file, &mut argument) }?;
    Ok(argument.out_hwpt_id)
}

/// What IOMMU_GET_HW_INFO says.
pub struct HwInfo {
    /// The kind of IOMMU.
    pub kind: u32,
    /// What it says of itself, if it is one of VT-d.
    pub data: uapi::iommu_hw_info_vtd,
    /// `out_capabilities`.
    pub capabilities: u64,
    /// `out_max_pasid_log2`.
    pub max_pasid_log2: u8,
}

/// IOMMU_GET_HW_INFO.
pub fn hw_info(file: &File, device: u32) -> io::Result<HwInfo> {
    let mut data = uapi::iommu_hw_info_vtd::default();
    // SAFETY: all of its fields are integers, for which zero is a value.
    let mut argument: uapi::iommu_hw_info = unsafe { std::mem::zeroed() };
    argument.size = size_of::<uapi::iommu_hw_info>() as u32;
    argument.dev_id = device;
    argument.data_len = size_of::<uapi::iommu_hw_info_vtd>() as u32;
    argument.data_uptr = std::ptr::from_mut(&mut data) as u64;
    // SAFETY: the kernel writes as many bytes as `data` has, during the call.
    unsafe { call(file, &mut argument) }?;
    Ok(HwInfo {
        // SAFETY: both fields of the union are the same integer.
        kind: unsafe { argument.__bindgen_anon_1.out_data_type },
        data,
        capabilities: argument.out_capabilities,
        max_pasid_log2: argument.out_max_pasid_log2,
    })
}

/// IOMMU_HWPT_INVALIDATE. Returns how many entries the kernel says that it has done, and how the
/// call ended.
pub fn invalidate(
    file: &File,
    hwpt: u32,
    entries: &[uapi::iommu_hwpt_vtd_s1_invalidate],
) -> (u32, io::Result<()>) {
    let mut argument = uapi::iommu_hwpt_invalidate {
        size: size_of::<uapi::iommu_hwpt_invalidate>() as u32,
        hwpt_id: hwpt,
        data_uptr: entries.as_ptr() as u64,
        data_type: uapi::iommu_hwpt_invalidate_data_type_IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
        entry_len: size_of::<uapi::iommu_hwpt_vtd_s1_invalidate>() as u32,
        entry_num: entries.len() as u32,
        __reserved: 0,
    };
    // SAFETY: the kernel reads as many entries as there are, during the call.
    let got = unsafe { call(file, &mut argument) };
    (argument.entry_num, got.map(drop))
}

/// IOMMU_FAULT_QUEUE_ALLOC. Returns the id and the file.
pub fn fault_queue_alloc(file: &File) -> io::Result<(u32, File)> {
    let mut argument = uapi::iommu_fault_alloc {
        size: size_of::<uapi::iommu_fault_alloc>() as u32,
        ..Default::default()
    };
    // SAFETY: the argument has no address.
    unsafe { call(file, &mut argument) }?;
    // SAFETY: the kernel has opened the file for this process, and nobody else has it.
    let queue = unsafe { File::from_raw_fd(argument.out_fault_fd as i32) };
    Ok((argument.out_fault_id, queue))
}

/// IOMMU_HWPT_GET_DIRTY_BITMAP: sets the bits of pages that were written to.
pub fn dirty_bitmap(
    file: &File,
    hwpt: u32,
    iova: u64,
    length: u64,
    page_size: u64,
    bits: &mut [u64],
) -> io::Result<()> {
    // The kernel writes a bit for each page: there has to be room for them.
    if page_size == 0 || length.div_ceil(page_size) > bits.len() as u64 * 64 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut argument = uapi::iommu_hwpt_get_dirty_bitmap {
        size: size_of::<uapi::iommu_hwpt_get_dirty_bitmap>() as u32,
        hwpt_id: hwpt,
        flags: 0,
        __reserved: 0,
        iova,
        length,
        page_size,
        data: bits.as_mut_ptr() as u64,
    };
    // SAFETY: there is room for a bit of each page.
    unsafe { call(file, &mut argument) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        let base = uapi::IOMMUFD_CMD_DESTROY;
        assert_eq!(number(base), 0x3b80);
        let numbers = [
            (
                <uapi::iommu_destroy as Argument>::NUMBER,
                uapi::IOMMUFD_CMD_DESTROY,
            ),
            (
                <uapi::iommu_ioas_alloc as Argument>::NUMBER,
                uapi::IOMMUFD_CMD_IOAS_ALLOC,
            ),
            (
                <uapi::iommu_ioas_map as Argument>::NUMBER,
                uapi::IOMMUFD_CMD_IOAS_MAP,
            ),
            (
                <uapi::iommu_ioas_unmap as Argument>::NUMBER,
                uapi::IOMMUFD_CMD_IOAS_UNMAP,
            ),
            (
                <uapi::iommu_hwpt_alloc as Argument>::NUMBER,
                uapi::IOMMUFD_CMD_HWPT_ALLOC,
            ),
            (
                <uapi::iommu_hw_info as Argument>::NUMBER,
                uapi::IOMMUFD_CMD_GET_HW_INFO,
            ),
            (
                <uapi::iommu_hwpt_set_dirty_tracking as Argument>::NUMBER,
                uapi::IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING,
            ),
            (
                <uapi::iommu_hwpt_get_dirty_bitmap as Argument>::NUMBER,
                uapi::IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP,
            ),
            (
                <uapi::iommu_hwpt_invalidate as Argument>::NUMBER,
                uapi::IOMMUFD_CMD_HWPT_INVALIDATE,
            ),
            (
                <uapi::iommu_fault_alloc as Argument>::NUMBER,
                uapi::IOMMUFD_CMD_FAULT_QUEUE_ALLOC,
            ),
        ];
        for (got, expected) in numbers {
            assert_eq!(got, number(expected), "{expected:#x}");
        }
        // VFIO's own: 118, 119 and 120 of the type 3Bh.
        let bind = <vfio::vfio_device_bind_iommufd as Argument>::NUMBER;
        let attach = <vfio::vfio_device_attach_iommufd_pt as Argument>::NUMBER;
        let detach = <vfio::vfio_device_detach_iommufd_pt as Argument>::NUMBER;
        assert_eq!([bind, attach, detach], [0x3b76, 0x3b77, 0x3b78]);
    }

    #[test]
    fn a_file_that_is_no_iommufd_refuses_them() {
        let file = File::open("/dev/null").unwrap();
        let errno = |result: io::Result<()>| result.unwrap_err().raw_os_error();
        let mut argument = uapi::iommu_ioas_alloc::default();
        assert_eq!(errno(ioas_alloc(&file, &mut argument)), Some(libc::ENOTTY));
        let got = hwpt_alloc(&file, uapi::iommu_hwpt_alloc::default(), None);
        assert_eq!(errno(got.map(drop)), Some(libc::ENOTTY));
        let (done, got) = invalidate(&file, 1, &[]);
        assert_eq!((done, errno(got)), (0, Some(libc::ENOTTY)));
        let mut bits = [0];
        let short = dirty_bitmap(&file, 1, 0, 65 << 12, 4096, &mut bits);
        assert_eq!(errno(short), Some(libc::EINVAL));
        let enough = dirty_bitmap(&file, 1, 0, 64 << 12, 4096, &mut bits);
        assert_eq!(errno(enough), Some(libc::ENOTTY));
    }
}
