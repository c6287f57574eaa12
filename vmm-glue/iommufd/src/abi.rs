// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the words of the trait to the structures of `linux/iommufd.h` and `linux/vfio.h`, and back.
//! Nothing here calls the kernel.

use host_iommu::host::{
    Fault, FaultCode, FaultResponse, FirstStage, HardwareInfo, Invalidation, Mapping, NestedFlags,
    ParentFlags, VtdInfo,
};
use iommufd_bindings as uapi;
use pcie_ats::Pasid;
use vfio_bindings::bindings::vfio;
use vtd::spec::capability::{Capability, ExtendedCapability};

/// The size of a structure, as its first field has it.
pub(crate) fn size_of_u32<T>() -> u32 {
    size_of::<T>() as u32
}

/// `iommu_hwpt_vtd_s1`.
pub fn first_stage(stage: &FirstStage) -> uapi::iommu_hwpt_vtd_s1 {
    let mut flags = 0;
    if stage.supervisor_requests {
        flags |= uapi::iommu_hwpt_vtd_s1_flags_IOMMU_VTD_S1_SRE;
    }
    if stage.extended_accessed {
        flags |= uapi::iommu_hwpt_vtd_s1_flags_IOMMU_VTD_S1_EAFE;
    }
    if stage.write_protect {
        flags |= uapi::iommu_hwpt_vtd_s1_flags_IOMMU_VTD_S1_WPE;
    }
    uapi::iommu_hwpt_vtd_s1 {
        flags: flags.into(),
        pgtbl_addr: stage.table,
        addr_width: stage.address_width,
        __reserved: 0,
    }
}

/// `iommu_hwpt_alloc` of a parent.
pub fn alloc_parent(device: u32, ioas: u32, flags: ParentFlags) -> uapi::iommu_hwpt_alloc {
    let mut bits = uapi::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_NEST_PARENT;
    if flags.dirty_tracking {
        bits |= uapi::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
    }
    if flags.pasid {
        bits |= uapi::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_PASID;
    }
    uapi::iommu_hwpt_alloc {
        size: size_of_u32::<uapi::iommu_hwpt_alloc>(),
        flags: bits,
        dev_id: device,
        pt_id: ioas,
        data_type: uapi::iommu_hwpt_data_type_IOMMU_HWPT_DATA_NONE,
        ..Default::default()
    }
}

/// `iommu_hwpt_alloc` of a nested page table; the address of its data is filled in when the ioctl
/// is made.
pub fn alloc_nested(device: u32, parent: u32, flags: NestedFlags) -> uapi::iommu_hwpt_alloc {
    let mut bits = 0;
    if flags.pasid {
        bits |= uapi::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_PASID;
    }
    if flags.fault_queue.is_some() {
        bits |= uapi::iommufd_hwpt_alloc_flags_IOMMU_HWPT_FAULT_ID_VALID;
    }
    uapi::iommu_hwpt_alloc {
        size: size_of_u32::<uapi::iommu_hwpt_alloc>(),
        flags: bits,
        dev_id: device,
        pt_id: parent,
        data_type: uapi::iommu_hwpt_data_type_IOMMU_HWPT_DATA_VTD_S1,
        data_len: size_of_u32::<uapi::iommu_hwpt_vtd_s1>(),
        fault_id: flags.fault_queue.map_or(0, |queue| queue.id),
        ..Default::default()
    }
}

/// `iommu_ioas_map` at a fixed address.
pub fn map(ioas: u32, mapping: &Mapping) -> uapi::iommu_ioas_map {
    let mut flags = uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
        | uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE;
    if mapping.writable {
        flags |= uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE;
    }
    uapi::iommu_ioas_map {
        size: size_of_u32::<uapi::iommu_ioas_map>(),
        flags,
        ioas_id: ioas,
        __reserved: 0,
        user_va: mapping.host,
        length: mapping.length,
        iova: mapping.iova,
    }
}

/// `iommu_hwpt_vtd_s1_invalidate`.
pub fn invalidation(entry: &Invalidation) -> uapi::iommu_hwpt_vtd_s1_invalidate {
    let (addr, npages, leaf_only) = match *entry {
        Invalidation::All => (0, u64::MAX, false),
        Invalidation::Pages {
            address,
            pages,
            leaf_only,
        } => (address, pages, leaf_only),
    };
    uapi::iommu_hwpt_vtd_s1_invalidate {
        addr,
        npages,
        flags: match leaf_only {
            true => uapi::iommu_hwpt_vtd_s1_invalidate_flags_IOMMU_VTD_INV_FLAGS_LEAF,
            false => 0,
        },
        __reserved: 0,
    }
}

/// `vfio_device_attach_iommufd_pt`.
pub fn attach(hwpt: u32, pasid: Option<Pasid>) -> vfio::vfio_device_attach_iommufd_pt {
    vfio::vfio_device_attach_iommufd_pt {
        argsz: size_of_u32::<vfio::vfio_device_attach_iommufd_pt>(),
        flags: pasid.map_or(0, |_| vfio::VFIO_DEVICE_ATTACH_PASID),
        pt_id: hwpt,
        pasid: pasid.map_or(0, Pasid::get),
    }
}

/// `vfio_device_detach_iommufd_pt`.
pub fn detach(pasid: Option<Pasid>) -> vfio::vfio_device_detach_iommufd_pt {
    vfio::vfio_device_detach_iommufd_pt {
        argsz: size_of_u32::<vfio::vfio_device_detach_iommufd_pt>(),
        flags: pasid.map_or(0, |_| vfio::VFIO_DEVICE_DETACH_PASID),
        pasid: pasid.map_or(0, Pasid::get),
    }
}

/// What a device's IOMMU can do: `data` is that of a unit of VT-d if `kind` says so.
pub fn hardware_info(
    kind: u32,
    data: &uapi::iommu_hw_info_vtd,
    capabilities: u64,
    max_pasid_log2: u8,
) -> HardwareInfo {
    let is_vtd = kind == uapi::iommu_hw_info_type_IOMMU_HW_INFO_TYPE_INTEL_VTD;
    HardwareInfo {
        vtd: is_vtd.then_some(VtdInfo {
            flags: data.flags,
            cap: Capability(data.cap_reg),
            ecap: ExtendedCapability(data.ecap_reg),
        }),
        capabilities,
        max_pasid_log2,
    }
}

/// Bytes of a page request in a fault queue.
pub const FAULT_SIZE: usize = size_of::<uapi::iommu_hwpt_pgfault>();

/// Something that a fault queue gave is no page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The bytes are not those of whole page requests.
    #[error("{0} bytes are no number of page requests")]
    Length(usize),
    /// A PASID has more than 20 bits.
    #[error("the PASID {0:#x} has more than 20 bits")]
    Pasid(u32),
}

/// The page requests that bytes of a fault queue have. Bits of `flags` and `perm` that are not
/// known are passed over: the kernel sets some.
pub fn faults(bytes: &[u8]) -> Result<Vec<Fault>, FaultError> {
    let chunks = bytes.chunks_exact(FAULT_SIZE);
    if !chunks.remainder().is_empty() {
        return Err(FaultError::Length(bytes.len()));
    }
    chunks.map(fault).collect()
}

fn fault(bytes: &[u8]) -> Result<Fault, FaultError> {
    use std::mem::offset_of;
    use uapi::iommu_hwpt_pgfault as F;
    let word32 = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[at..at + 4]);
        u32::from_ne_bytes(word)
    };
    let word64 = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    let (flags, perm) = (word32(offset_of!(F, flags)), word32(offset_of!(F, perm)));
    let has = |bit: u32| flags & bit != 0;
    let permits = |bit: u32| perm & bit != 0;
    let number = word32(offset_of!(F, pasid));
    let pasid = match has(uapi::iommu_hwpt_pgfault_flags_IOMMU_PGFAULT_FLAGS_PASID_VALID) {
        true => Some(Pasid::new(number).map_err(|_| FaultError::Pasid(number))?),
        false => None,
    };
    Ok(Fault {
        device: word32(offset_of!(F, dev_id)),
        pasid,
        group: word32(offset_of!(F, grpid)),
        last: has(uapi::iommu_hwpt_pgfault_flags_IOMMU_PGFAULT_FLAGS_LAST_PAGE),
        read: permits(uapi::iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_READ),
        write: permits(uapi::iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_WRITE),
        execute: permits(uapi::iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_EXEC),
        privileged: permits(uapi::iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_PRIV),
        address: word64(offset_of!(F, addr)),
        cookie: word32(offset_of!(F, cookie)),
    })
}

/// `iommu_hwpt_page_response`, as it is written to a fault queue.
pub fn response(response: &FaultResponse) -> [u8; 8] {
    let code = match response.code {
        FaultCode::Success => uapi::iommufd_page_response_code_IOMMUFD_PAGE_RESP_SUCCESS,
        FaultCode::Invalid => uapi::iommufd_page_response_code_IOMMUFD_PAGE_RESP_INVALID,
    };
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&response.cookie.to_ne_bytes());
    bytes[4..].copy_from_slice(&code.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use host_iommu::host::FaultQueueId;

    const STAGE: FirstStage = FirstStage {
        table: 0x12_3456_7000,
        address_width: 57,
        supervisor_requests: false,
        extended_accessed: false,
        write_protect: false,
    };

    #[test]
    fn first_stages_have_their_flags() {
        assert_eq!(size_of::<uapi::iommu_hwpt_vtd_s1>(), 24);
        let plain = first_stage(&STAGE);
        assert_eq!((plain.pgtbl_addr, plain.addr_width), (0x12_3456_7000, 57));
        assert_eq!((plain.flags, plain.__reserved), (0, 0));
        let sre = FirstStage {
            supervisor_requests: true,
            ..STAGE
        };
        let eafe = FirstStage {
            extended_accessed: true,
            ..STAGE
        };
        let wpe = FirstStage {
            write_protect: true,
            ..STAGE
        };
        assert_eq!([sre, eafe, wpe].map(|s| first_stage(&s).flags), [1, 2, 4]);
    }

    #[test]
    fn page_tables_have_their_flags_and_types() {
        assert_eq!(size_of::<uapi::iommu_hwpt_alloc>(), 48);
        let flags = |dirty_tracking, pasid| {
            let flags = ParentFlags {
                dirty_tracking,
                pasid,
            };
            alloc_parent(5, 6, flags)
        };
        let parent = flags(false, false);
        assert_eq!((parent.size, parent.dev_id, parent.pt_id), (48, 5, 6));
        assert_eq!((parent.flags, parent.data_type, parent.data_len), (1, 0, 0));
        assert_eq!((flags(true, false).flags, flags(false, true).flags), (3, 9));
        let flags = |pasid, queue: bool| {
            let id = FaultQueueId { iommufd: 1, id: 9 };
            let fault_queue = queue.then_some(id);
            alloc_nested(5, 7, NestedFlags { pasid, fault_queue })
        };
        let nested = flags(false, false);
        assert_eq!(
            (nested.flags, nested.data_type, nested.data_len),
            (0, 1, 24)
        );
        assert_eq!((nested.dev_id, nested.pt_id, nested.fault_id), (5, 7, 0));
        let all = flags(true, true);
        assert_eq!((all.flags, all.fault_id), (12, 9));
    }

    #[test]
    fn mappings_are_at_their_address() {
        let mapping = Mapping {
            iova: 0x1_0000_0000,
            host: 0x7f00_0000_0000,
            length: 0x2000,
            writable: false,
        };
        let read_only = map(3, &mapping);
        assert_eq!((read_only.flags, read_only.ioas_id), (5, 3));
        let of = (read_only.iova, read_only.user_va, read_only.length);
        assert_eq!(of, (mapping.iova, mapping.host, mapping.length));
        let writable = Mapping {
            writable: true,
            ..mapping
        };
        assert_eq!(map(3, &writable).flags, 7);
    }

    #[test]
    fn everything_is_all_ones_from_zero() {
        assert_eq!(size_of::<uapi::iommu_hwpt_vtd_s1_invalidate>(), 24);
        let all = invalidation(&Invalidation::All);
        assert_eq!((all.addr, all.npages, all.flags), (0, u64::MAX, 0));
        let some = invalidation(&Invalidation::Pages {
            address: 0x5000,
            pages: 3,
            leaf_only: true,
        });
        assert_eq!((some.addr, some.npages, some.flags), (0x5000, 3, 1));
    }

    #[test]
    fn a_pasid_is_given_with_its_flag() {
        let of = |pasid: Option<u32>| pasid.map(|n| Pasid::new(n).unwrap());
        let without = attach(7, None);
        assert_eq!((without.argsz, without.flags, without.pt_id), (16, 0, 7));
        let with = attach(7, of(Some(300_000)));
        assert_eq!((with.flags, with.pasid), (1, 300_000));
        let (without, with) = (detach(None), detach(of(Some(5))));
        assert_eq!((without.argsz, without.flags), (12, 0));
        assert_eq!((with.flags, with.pasid), (1, 5));
    }

    #[test]
    fn another_iommu_has_no_capabilities_of_vtd() {
        let data = uapi::iommu_hw_info_vtd {
            flags: 1,
            __reserved: 0,
            cap_reg: 0x1234,
            ecap_reg: 1 << 26,
        };
        let vtd = hardware_info(1, &data, 9, 20);
        assert!(
            vtd.vtd
                .is_some_and(|vtd| vtd.ecap.nest() && vtd.cap.0 == 0x1234)
        );
        assert_eq!((vtd.capabilities, vtd.max_pasid_log2), (9, 20));
        assert_eq!(hardware_info(2, &data, 9, 20).vtd, None);
        assert_eq!(hardware_info(0, &data, 0, 0).vtd, None);
    }

    /// A page request as the kernel writes it.
    fn bytes(words: [u32; 10]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn page_requests_are_read_field_by_field() {
        assert_eq!(FAULT_SIZE, 40);
        // flags, dev_id, pasid, grpid, perm, reserved, addr, addr, length, cookie. Bit 2 of the
        // flags is not known, and set all the same.
        let first = bytes([5, 3, 77, 0, 2, 0, 0x1000, 0x7f00, 0, 42]);
        let second = bytes([2, 4, 99, 511, 13, 0, 0x2000, 0, 0, 43]);
        let all = faults(&[first.clone(), second].concat()).unwrap();
        let expected = Fault {
            device: 3,
            pasid: Pasid::new(77).ok(),
            group: 0,
            last: false,
            read: false,
            write: true,
            execute: false,
            privileged: false,
            address: 0x7f00_0000_1000,
            cookie: 42,
        };
        assert_eq!(all[0], expected);
        let other = all[1];
        assert_eq!((other.device, other.pasid, other.group), (4, None, 511));
        assert!(other.last && other.read && !other.write && other.execute && other.privileged);
        assert_eq!(faults(&first[..39]), Err(FaultError::Length(39)));
        let wide = bytes([1, 3, 1 << 20, 0, 2, 0, 0, 0, 0, 42]);
        assert_eq!(faults(&wide), Err(FaultError::Pasid(1 << 20)));
        assert_eq!(faults(&[]), Ok(vec![]));
    }

    #[test]
    fn responses_are_cookie_and_code() {
        let of = |code| response(&FaultResponse { cookie: 42, code });
        let words = |bytes: [u8; 8]| {
            let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            [word(0), word(4)]
        };
        assert_eq!(words(of(FaultCode::Success)), [42, 0]);
        assert_eq!(words(of(FaultCode::Invalid)), [42, 1]);
    }
}
