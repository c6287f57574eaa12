// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a device of the host can be assigned to a virtual unit, and what the unit asks of the
//! host for it. All of it are questions about capabilities: nothing is changed here.

use crate::host::{Errno, HardwareInfo, VtdInfo, device_capability};
use crate::mutant::{Mutant, breaks};
use vtd::config::{Config, FirstStage, Stages};

/// What a user knows of a device of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// It was opened through an iommufd, which says this of it; none for the back end that has no
    /// iommufd.
    pub iommufd: Option<HardwareInfo>,
    /// In the guest there is a PCI bridge above it that is no root port: then its requests have
    /// another requester.
    pub behind_bridge: bool,
}

/// Why a device is not assigned: what is missing, and what to do. Words that other programs look
/// for are QEMU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Incompatible {
    /// Shadowing needs to be told of what the guest adds.
    #[error("Device assignment is not allowed without enabling caching-mode=on for Intel IOMMU.")]
    NoCachingMode,
    /// Shadowed mappings have no snoop bit.
    #[error(
        "a device that the host maps memory for needs snoop-control=off: the host refuses \
             mappings that enforce snooping, and the guest would set them up too late to be told"
    )]
    SnoopControl,
    /// The first stage cannot be handed down without an iommufd.
    #[error("Need IOMMUFD backend when fsts=on")]
    NoIommufd,
    /// The device has another requester than its own.
    #[error(
        "the device is behind a PCI bridge, which sends its requests in its own name; put it \
             below a root port or on the root bus, or use fsts=off"
    )]
    BehindBridge,
    /// The host's IOMMU is another one.
    #[error("the host's IOMMU of this device is not a VT-d unit; use fsts=off")]
    NotVtd,
    /// ECAP_REG.NEST of the host.
    #[error("the host's unit cannot nest a first stage (ECAP_REG.NEST is 0); use fsts=off")]
    NoNesting,
    /// ECAP_REG.SSTS of the host.
    #[error(
        "the host's unit has no second stage in scalable mode (ECAP_REG.SSTS is 0), in which \
             the guest's first stage would be nested; use fsts=off"
    )]
    NoSecondStage,
    /// The guest could use second stages.
    #[error(
        "the virtual unit offers second stages (ssts=on), which the host's unit would not walk; \
             use ssts=off"
    )]
    SecondStageOffered,
    /// CAP_REG.FS1GP of the host.
    #[error(
        "the virtual unit offers pages of 1 GiB, which the host's does not have (CAP_REG.FS1GP \
             is 0); use fs1gp=off"
    )]
    NoOneGibPages,
    /// CAP_REG.FS5LP of the host.
    #[error(
        "the virtual unit offers 5-level first stages, which the host's does not have \
             (CAP_REG.FS5LP is 0); use fs5lp=off"
    )]
    NoFiveLevels,
    /// ECAP_REG.EAFS of the host.
    #[error(
        "the virtual unit offers the extended-accessed flag, which the host's does not have \
             (ECAP_REG.EAFS is 0); use fsts=off"
    )]
    NoExtendedAccessed,
    /// ECAP_REG.SRS of the host.
    #[error(
        "the virtual unit offers supervisor requests, which the host's does not have \
             (ECAP_REG.SRS is 0); use fsts=off"
    )]
    NoSupervisorRequests,
    /// ECAP_REG.PSS of the host.
    #[error(
        "the virtual unit offers PASIDs of {unit} bits, the host's has {host}; use pasid-bits={host}"
    )]
    PasidWidth {
        /// Bits of the virtual unit.
        unit: u8,
        /// Bits of the host's, 0 without PASIDs.
        host: u8,
    },
    /// CAP_REG.MGAW of the host.
    #[error(
        "the virtual unit has addresses of {unit} bits, the host's reaches {host}; use a \
             smaller aw-bits"
    )]
    AddressWidth {
        /// Bits of the virtual unit.
        unit: u8,
        /// Bits of the host's.
        host: u8,
    },
}

/// The first stage that a unit offers, if it does.
fn offered(unit: &Config) -> Option<FirstStage> {
    match unit.scalable?.stages {
        Stages::First(first) | Stages::Both { first, .. } => Some(first),
        Stages::Second => None,
    }
}

/// Whether a device can be assigned to a unit: with a first stage, which is handed down, or without
/// one, when the host keeps a copy of what the guest maps. The first reason is told.
pub fn check(unit: &Config, device: &HostDevice) -> Result<(), Incompatible> {
    let Some(first) = offered(unit) else {
        return check_shadowing(unit);
    };
    let Some(info) = device.iommufd else {
        return Err(Incompatible::NoIommufd);
    };
    if device.behind_bridge && !breaks(Mutant::N4_43) {
        return Err(Incompatible::BehindBridge);
    }
    let vtd = info.vtd.ok_or(Incompatible::NotVtd)?;
    check_unit(unit, first, &vtd)
}

/// The conditions for copies of the guest's mappings.
fn check_shadowing(unit: &Config) -> Result<(), Incompatible> {
    if !unit.caching_mode && !breaks(Mutant::N3_27) {
        return Err(Incompatible::NoCachingMode);
    }
    if unit.snoop_control {
        return Err(Incompatible::SnoopControl);
    }
    Ok(())
}

/// The conditions for handing first stages down to a unit of the host.
fn check_unit(unit: &Config, first: FirstStage, host: &VtdInfo) -> Result<(), Incompatible> {
    let (cap, ecap) = (host.cap, host.ecap);
    let scalable = unit.scalable.as_ref();
    let second = matches!(scalable.map(|s| s.stages), Some(Stages::Both { .. }));
    let supervisor = scalable.is_some_and(|s| s.supervisor_requests);
    let missing = [
        (ecap.nest() || breaks(Mutant::N4_9), Incompatible::NoNesting),
        (ecap.ssts(), Incompatible::NoSecondStage),
        (!second, Incompatible::SecondStageOffered),
        (
            !first.one_gib_pages || cap.fs1gp(),
            Incompatible::NoOneGibPages,
        ),
        (
            !first.five_levels || cap.fs5lp(),
            Incompatible::NoFiveLevels,
        ),
        (
            !first.extended_accessed || ecap.eafs(),
            Incompatible::NoExtendedAccessed,
        ),
        (
            !supervisor || ecap.srs(),
            Incompatible::NoSupervisorRequests,
        ),
    ];
    if let Some((_, reason)) = missing.into_iter().find(|(has, _)| !has) {
        return Err(reason);
    }
    let bits = scalable
        .and_then(|s| s.pasids)
        .map_or(0, |p| p.width.bits());
    if bits > ecap.pasid_width() {
        return Err(Incompatible::PasidWidth {
            unit: bits,
            host: ecap.pasid_width(),
        });
    }
    if unit.host_address_width > cap.mgaw() {
        return Err(Incompatible::AddressWidth {
            unit: unit.host_address_width,
            host: cap.mgaw(),
        });
    }
    Ok(())
}

/// What a virtual unit asks of those that assign devices to it (bits of `get_viommu_flags`).
pub mod unit_flag {
    /// The page table that a device has first is made as a parent for nested ones.
    pub const WANT_NESTING_PARENT: u64 = 1 << 0;
    /// The unit translates requests with PASID.
    pub const PASID_SUPPORTED: u64 = 1 << 1;
    /// The parent can track dirty pages.
    pub const WANT_NESTING_DIRTY_TRACKING: u64 = 1 << 2;
    /// Page tables are made so that they can be attached to PASIDs.
    pub const WANT_PASID_ATTACH: u64 = 1 << 3;
}

/// The flags of a unit, of [`unit_flag`].
pub fn unit_flags(unit: &Config) -> u64 {
    let mut flags = 0;
    let pasids = unit.scalable.is_some_and(|s| s.pasids.is_some());
    if pasids {
        flags |= unit_flag::PASID_SUPPORTED;
    }
    if offered(unit).is_some() && !breaks(Mutant::N4_40) {
        flags |= unit_flag::WANT_NESTING_PARENT | unit_flag::WANT_NESTING_DIRTY_TRACKING;
        if pasids {
            flags |= unit_flag::WANT_PASID_ATTACH;
        }
    }
    flags
}

/// Whether mappings that are read-only must be left out of a parent: with erratum 772415, they
/// could be written to through a nested page table.
pub fn bypasses_read_only(info: &HardwareInfo) -> bool {
    let vtd = info.vtd.filter(|_| !breaks(Mutant::N4_41));
    vtd.is_some_and(|vtd| vtd.flags & VtdInfo::ERRATUM_772415_SPR17 != 0)
}

/// Whether the parent of a device can track dirty pages.
pub fn tracks_dirty(info: &HardwareInfo) -> bool {
    info.capabilities & device_capability::DIRTY_TRACKING != 0 && !breaks(Mutant::N4_49)
}

/// A capability of a device of the host, by its number in the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// 0: the kind of IOMMU; 1 is VT-d.
    IommuType,
    /// 1: bits of an address.
    AwBits,
    /// 2: nesting.
    Nesting,
    /// 3: first-stage pages of 1 GiB.
    Fs1gp,
    /// 4: errata.
    Errata,
}

impl Cap {
    /// The capability of a number.
    ///
    /// # Errors
    ///
    /// EINVAL: there is none with this number.
    pub const fn from_number(number: u32) -> Result<Self, Errno> {
        Ok(match number {
            0 => Cap::IommuType,
            1 => Cap::AwBits,
            2 => Cap::Nesting,
            3 => Cap::Fs1gp,
            4 => Cap::Errata,
            _ => return Err(Errno::Invalid),
        })
    }
}

/// A capability of a device of the host.
///
/// # Errors
///
/// EOPNOTSUPP without an iommufd; EINVAL if the IOMMU is not one of VT-d.
pub fn capability(device: &HostDevice, cap: Cap) -> Result<u64, Errno> {
    let info = device.iommufd.ok_or(Errno::NotSupported)?;
    let vtd = info.vtd.ok_or(Errno::Invalid)?;
    Ok(match cap {
        Cap::IommuType => 1,
        Cap::AwBits => vtd.cap.mgaw().into(),
        Cap::Nesting if breaks(Mutant::N4_6) => vtd.ecap.fsts().into(),
        Cap::Nesting => vtd.ecap.nest().into(),
        Cap::Fs1gp => vtd.cap.fs1gp().into(),
        Cap::Errata => (vtd.flags & VtdInfo::ERRATUM_772415_SPR17).into(),
    })
}

/// How many PASIDs of a device can be bound: those below the number that both the unit and the
/// device have. 0 if page tables of it cannot be attached to PASIDs.
pub fn pasid_limit(unit: &Config, info: &HardwareInfo) -> u32 {
    let bits = unit
        .scalable
        .and_then(|s| s.pasids)
        .map_or(0, |p| p.width.bits());
    let host = info.vtd.map_or(0, |vtd| vtd.ecap.pasid_width());
    let device = match breaks(Mutant::N4_45) {
        true => host,
        false => info.max_pasid_log2.min(host),
    };
    match bits.min(device) {
        0 => 0,
        bits => 1 << bits,
    }
}

/// Bytes of a PASID capability.
const PASID_CAPABILITY: u16 = 8;
/// Bytes of configuration space.
const CONFIGURATION: u16 = 0x1000;

/// A PASID capability cannot be made for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoPasidCapability {
    /// The offset is not one of an extended capability.
    #[error("the PASID capability cannot be at {0:#x}: give a multiple of 4 from 0x100 to 0xff8")]
    Offset(u16),
    /// Something is there.
    #[error(
        "the PASID capability at {offset:#x} would lie over {over:#x}; choose another \
             x-vpasid-cap-offset"
    )]
    Overlaps {
        /// Where it would be.
        offset: u16,
        /// The capability that is there.
        over: u16,
    },
}

/// Where a guest finds the PASID capability that the kernel hides of a device: at the offset that a
/// user gives, else in the last 8 bytes of configuration space. None if the unit or the device has
/// no PASIDs. `capabilities` are the offsets and sizes of those that are there.
pub fn pasid_capability(
    unit: &Config,
    info: &HardwareInfo,
    offset: Option<u16>,
    capabilities: &[(u16, u16)],
) -> Result<Option<u16>, NoPasidCapability> {
    if pasid_limit(unit, info) == 0 {
        return Ok(None);
    }
    let at = offset.unwrap_or(match breaks(Mutant::N4_48) {
        true => CONFIGURATION - 2 * PASID_CAPABILITY,
        false => CONFIGURATION - PASID_CAPABILITY,
    });
    let extended = 0x100..=CONFIGURATION - PASID_CAPABILITY;
    if !extended.contains(&at) || at % 4 != 0 {
        return Err(NoPasidCapability::Offset(at));
    }
    let meets = |(other, size): &&(u16, u16)| at < other + size && *other < at + PASID_CAPABILITY;
    match capabilities.iter().find(meets) {
        Some((over, _)) => Err(NoPasidCapability::Overlaps {
            offset: at,
            over: *over,
        }),
        None => Ok(Some(at)),
    }
}
