// SPDX-License-Identifier: MIT OR Apache-2.0
//! Binding a guest's PASIDs one by one: `iommu_sva_bind_gpasid()` and `iommu_sva_unbind_gpasid()`,
//! as Linux had them until iommufd came, in terms of what has come after: a nested page table that
//! is attached to a PASID.

use crate::host::{DeviceId, Errno, FirstStage, HardwareInfo, HostIommu, HwptId, NestedFlags};
use crate::ids::IdSpaces;
use crate::mutant::{Mutant, breaks};
use pcie_ats::Pasid;
use std::collections::BTreeMap;

/// Bits of the VT-d flags.
pub mod vtd_flag {
    /// SRE: supervisor requests.
    pub const SRE: u64 = 1;
    /// EAFE: extended accessed flag.
    pub const EAFE: u64 = 2;
    /// PCD: page-level cache disable.
    pub const PCD: u64 = 4;
    /// PWT: page-level write through.
    pub const PWT: u64 = 8;
    /// EMTE: extended memory type enable.
    pub const EMTE: u64 = 16;
    /// CD: cache disable.
    pub const CD: u64 = 32;
    /// WPE: write protect.
    pub const WPE: u64 = 64;
    /// All that there are.
    pub const ALL: u64 = 127;
    /// Those of memory types, which a nested page table of iommufd does not have.
    pub const MEMORY_TYPE: u64 = PCD | PWT | EMTE | CD;
}

/// Format of the data: VT-d.
pub const FORMAT_VTD: u32 = 1;
/// Version of the data.
pub const VERSION: u32 = 1;
/// Flag: the guest's PASID is given.
pub const GPASID_VALID: u64 = 1;

/// What is bound (`struct iommu_gpasid_bind_data`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindData {
    /// [`VERSION`].
    pub version: u32,
    /// [`FORMAT_VTD`].
    pub format: u32,
    /// Width of input addresses in bits.
    pub address_width: u32,
    /// [`GPASID_VALID`].
    pub flags: u64,
    /// The guest's table of the highest level: a guest physical address.
    pub table: u64,
    /// PASID of the host.
    pub hpasid: u64,
    /// PASID of the guest.
    pub gpasid: u64,
    /// Bits of [`vtd_flag`].
    pub vtd_flags: u64,
}

/// A device to which PASIDs are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it is in the host.
    pub id: DeviceId,
    /// The page table of the domain in which the guest's are nested.
    pub parent: HwptId,
    /// It is one of PCI.
    pub pci: bool,
    /// What its hardware can do.
    pub info: HardwareInfo,
}

/// What a host's PASID stands for, as the data of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The guest's PASID, if it was given: it may be another number.
    pub gpasid: Option<Pasid>,
}

/// Bits of a PASID table that a device must have.
const PASID_BITS: u8 = 20;

/// The bindings of a guest.
#[derive(Debug, Default)]
pub struct GuestPasids {
    bound: BTreeMap<(DeviceId, Pasid), HwptId>,
}

impl GuestPasids {
    /// Nothing is bound.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks what can be told without the host.
    fn check(device: &Device, data: &BindData) -> Result<(FirstStage, Pasid), Errno> {
        let unknown = data.version != VERSION
            || data.format != FORMAT_VTD
            || data.flags & !GPASID_VALID != 0
            || data.vtd_flags & !vtd_flag::ALL != 0;
        if unknown && !breaks(Mutant::N1_41) {
            return Err(Errno::Invalid);
        }
        if !device.pci {
            return Err(Errno::NotSupported);
        }
        let vtd = device.info.vtd.ok_or(Errno::NotSupported)?;
        let hpasid = u32::try_from(data.hpasid)
            .ok()
            .and_then(|n| Pasid::new(n).ok());
        let hpasid = hpasid
            .filter(|pasid| pasid.get() != 0)
            .ok_or(Errno::Invalid)?;
        let has = |bit| data.vtd_flags & bit != 0;
        let width = match data.address_width {
            48 => true,
            57 => vtd.cap.fs5lp(),
            _ => false,
        };
        let possible = device.info.max_pasid_log2 >= PASID_BITS
            && width
            && (!has(vtd_flag::SRE) || vtd.ecap.srs())
            && (!has(vtd_flag::EAFE) || vtd.ecap.eafs());
        if !possible && !breaks(Mutant::N1_42) {
            return Err(Errno::Invalid);
        }
        if has(vtd_flag::MEMORY_TYPE) {
            return Err(Errno::NotSupported);
        }
        let stage = FirstStage {
            table: data.table,
            address_width: data.address_width,
            supervisor_requests: has(vtd_flag::SRE),
            extended_accessed: has(vtd_flag::EAFE),
            write_protect: has(vtd_flag::WPE) != breaks(Mutant::N1_43),
        };
        Ok((stage, hpasid))
    }

    /// Binds a guest's address space to a PASID of the host, for one device: a nested page table is
    /// made and attached. The PASID is one of `ids`, which its owner allocated; what it stands for
    /// is recorded there. If anything fails, all is as it was.
    ///
    /// # Errors
    ///
    /// EINVAL: data that are not valid, or that the hardware cannot do. EOPNOTSUPP: the device is
    /// not one of PCI or not below a unit of VT-d, or memory types are asked for. EBUSY: the PASID
    /// is bound to this device. ENOENT: the PASID is not allocated. Others are the host's.
    pub fn bind(
        &mut self,
        host: &mut impl HostIommu,
        ids: &mut IdSpaces<Option<Bound>>,
        device: &Device,
        data: &BindData,
    ) -> Result<(), Errno> {
        let (stage, hpasid) = Self::check(device, data)?;
        let key = (device.id, hpasid);
        if self.bound.contains_key(&key) {
            return Err(Errno::Busy);
        }
        let gpasid = match data.flags & GPASID_VALID != 0 && !breaks(Mutant::N1_45) {
            true => {
                let number = u32::try_from(data.gpasid).map_err(|_| Errno::Invalid)?;
                Some(Pasid::new(number).map_err(|_| Errno::Invalid)?)
            }
            false => None,
        };
        let others = self.has_other(hpasid, device.id);
        if others && breaks(Mutant::N1_44) {
            return Err(Errno::Busy);
        }
        let bound = Some(Bound { gpasid });
        let before = ids
            .set_data(hpasid.get(), bound)
            .map_err(|_| Errno::NoEntry)?;
        let flags = NestedFlags {
            pasid: true,
            fault_queue: None,
        };
        let made = host
            .alloc_nested(device.id, device.parent, &stage, flags)
            .and_then(|hwpt| match host.attach(device.id, Some(hpasid), hwpt) {
                Ok(()) => Ok(hwpt),
                Err(error) => {
                    // The first error is the one to tell.
                    let _ = host.free_hwpt(hwpt);
                    Err(error)
                }
            });
        match made {
            Ok(hwpt) => {
                self.bound.insert(key, hwpt);
                Ok(())
            }
            Err(error) => {
                let data = if others { before } else { None };
                if !breaks(Mutant::N1_46) {
                    let _ = ids.set_data(hpasid.get(), data);
                }
                Err(error.errno)
            }
        }
    }

    /// Takes the binding of a PASID to a device away. The host invalidates what is cached, and
    /// answers page requests that are left. The PASID stays allocated: its owner frees it.
    ///
    /// # Errors
    ///
    /// ENOENT: it is not bound. Others are the host's; then it stays bound.
    pub fn unbind(
        &mut self,
        host: &mut impl HostIommu,
        ids: &mut IdSpaces<Option<Bound>>,
        device: DeviceId,
        hpasid: Pasid,
    ) -> Result<(), Errno> {
        let key = (device, hpasid);
        let hwpt = *self.bound.get(&key).ok_or(Errno::NoEntry)?;
        if breaks(Mutant::N1_40) {
            self.bound.remove(&key);
            return Ok(());
        }
        let detached = host.detach(device, Some(hpasid));
        detached.map_err(|error| error.errno)?;
        self.bound.remove(&key);
        if !self.has_other(hpasid, device) {
            // Nobody has it any more.
            let _ = ids.set_data(hpasid.get(), None);
            if breaks(Mutant::N1_47) {
                let _ = ids.free(hpasid.get());
            }
        }
        host.free_hwpt(hwpt).map_err(|error| error.errno)
    }

    /// Whether a PASID is bound to another device.
    fn has_other(&self, hpasid: Pasid, device: DeviceId) -> bool {
        let mut keys = self.bound.keys();
        keys.any(|(of, pasid)| *pasid == hpasid && *of != device)
    }
}
