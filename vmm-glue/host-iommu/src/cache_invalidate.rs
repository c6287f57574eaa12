// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cache invalidation that a guest's host passes down: `struct iommu_cache_invalidate_info`, as
//! Linux had it until iommufd came, with its validity matrix and its rules of sizes. What is left
//! of it is [`Invalidation`], which [`to_host`] makes of a request.

use crate::host::{Errno, Invalidation};
use crate::mutant::{Mutant, breaks};
use pcie_ats::Pasid;

/// Bits of the caches that a request names.
pub mod cache {
    /// The IOTLB.
    pub const IOTLB: u8 = 1;
    /// The Device-TLB.
    pub const DEV_IOTLB: u8 = 2;
    /// The PASID cache.
    pub const PASID: u8 = 4;
}

/// Bits of `flags` of what a request selects.
pub mod flag {
    /// The PASID is given.
    pub const PASID: u32 = 1;
    /// A tag of the architecture is given.
    pub const ARCHID: u32 = 2;
    /// Only leaf entries have changed.
    pub const LEAF: u32 = 4;
}

/// The version of the interface.
pub const VERSION: u32 = 1;

/// What a request selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Granularity 0: a domain.
    Domain,
    /// Granularity 1: a PASID.
    Pasid(Option<Pasid>),
    /// Granularity 2: addresses.
    Address {
        /// PASID, if it is given.
        pasid: Option<Pasid>,
        /// Only leaf entries have changed.
        leaf_only: bool,
        /// The first address.
        address: u64,
        /// Bytes of a granule.
        granule_size: u64,
        /// How many granules.
        granules: u64,
    },
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bits of [`cache`].
    pub caches: u8,
    /// What it selects.
    pub selection: Selection,
}

/// Bytes of the structure: 16, and 40 of the larger alternative.
const SIZE: usize = 56;

fn word32(bytes: &[u8; SIZE], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn word64(bytes: &[u8; SIZE], at: usize) -> u64 {
    u64::from(word32(bytes, at)) | u64::from(word32(bytes, at + 4)) << 32
}

impl Request {
    /// The request of a structure: `argsz`, `version` (32 bits each), `cache`, `granularity` (8
    /// bits each), 6 bytes of padding; then `flags`, `archid` (32 bits each), `pasid`, and for
    /// addresses `addr`, `granule_size` and `nb_granules` (64 bits each).
    ///
    /// # Errors
    ///
    /// EINVAL: a version, a cache, a granularity or a flag that there is not, a PASID of more than
    /// 20 bits, a size that is too small, or padding that is not zero.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Errno> {
        let mut whole = [0; SIZE];
        let given = bytes.len().min(SIZE);
        whole[..given].copy_from_slice(&bytes[..given]);
        let (argsz, version) = (word32(&whole, 0), word32(&whole, 4));
        let (caches, granularity) = (whole[8], whole[9]);
        let needed = match granularity {
            0 => 16,
            1 => 32,
            _ => SIZE,
        };
        let fits = argsz as usize >= needed && bytes.len() >= needed;
        let known = caches & !(cache::IOTLB | cache::DEV_IOTLB | cache::PASID) == 0;
        let padding = whole[10..16].iter().all(|byte| *byte == 0);
        if !fits || version != VERSION && !breaks(Mutant::N1_30) || !known || !padding {
            return Err(Errno::Invalid);
        }
        let flags = word32(&whole, 16);
        let pasid = |allowed: u32| {
            if flags & !allowed != 0 {
                return Err(Errno::Invalid);
            }
            match flags & flag::PASID != 0 {
                true => {
                    let number = u32::try_from(word64(&whole, 24)).map_err(|_| Errno::Invalid)?;
                    Pasid::new(number).map(Some).map_err(|_| Errno::Invalid)
                }
                false => Ok(None),
            }
        };
        let selection = match granularity {
            0 => Selection::Domain,
            1 => Selection::Pasid(pasid(flag::PASID | flag::ARCHID)?),
            2 => Selection::Address {
                pasid: pasid(flag::PASID | flag::ARCHID | flag::LEAF)?,
                leaf_only: match breaks(Mutant::N1_31) {
                    true => flags & flag::ARCHID != 0,
                    false => flags & flag::LEAF != 0,
                },
                address: word64(&whole, 32),
                granule_size: word64(&whole, 40),
                granules: word64(&whole, 48),
            },
            _ => return Err(Errno::Invalid),
        };
        Ok(Request { caches, selection })
    }
}

/// What the host's unit is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// PASID-based IOTLB invalidation (VT-d 6.5.2.4).
    Iotlb {
        /// PASID.
        pasid: Pasid,
        /// G: 2 for all of a PASID, 3 for pages.
        granularity: u8,
        /// The first address.
        address: u64,
        /// AM: log2 of the number of pages.
        order: u8,
        /// IH.
        leaf_only: bool,
    },
    /// PASID-based Device-TLB invalidation (VT-d 6.5.2.6).
    DeviceTlb {
        /// PASID.
        pasid: Pasid,
        /// The first address.
        address: u64,
        /// Log2 of the number of pages; 52 for all.
        order: u8,
    },
}

/// The order of a range of all addresses: 2^52 pages.
pub const ALL: u8 = 52;

/// For what a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The device is one of PCI.
    pub pci: bool,
    /// Its unit is in scalable mode.
    pub scalable: bool,
    /// ATS is enabled in the device.
    pub ats: bool,
}

/// Log2 of the number of pages of 4 KiB that hold a number of granules: at least one page.
///
/// # Errors
///
/// ERANGE: the address is not a multiple of that size, or the size is beyond 64 bits.
pub fn order(address: u64, granule_size: u64, granules: u64) -> Result<u8, Errno> {
    let bytes = granule_size.checked_mul(granules).ok_or(Errno::Range)?;
    let pages = bytes.div_ceil(4096).max(1);
    let order = match breaks(Mutant::N1_34) {
        true => pages.ilog2(),
        false => pages.next_power_of_two().ilog2(),
    } as u8;
    match address & ((4096u64 << order) - 1) {
        0 => Ok(order),
        _ => Err(Errno::Range),
    }
}

/// Whether a cache can be invalidated by what is selected.
const fn is_valid(cache: u8, selection: &Selection) -> bool {
    match selection {
        Selection::Domain => cache & cache::DEV_IOTLB == 0,
        Selection::Pasid(_) => true,
        Selection::Address { .. } => cache & cache::PASID == 0,
    }
}

/// What the host's unit is asked for. The IOTLB cannot be invalidated by domain. The PASID cache is
/// not passed on: the host invalidates it when it binds. If ATS is enabled, what goes in the IOTLB
/// goes in the Device-TLB too: a guest whose unit is in caching mode may not ask for it.
///
/// # Errors
///
/// EINVAL: a cache with a selection that it does not go with, or a PASID that is missing. ENODEV:
/// the device is not one of PCI, or its unit not in scalable mode. ERANGE: see [`order`].
pub fn pass_down(request: &Request, target: &Target) -> Result<Vec<Flush>, Errno> {
    if (!target.pci || !target.scalable) && !breaks(Mutant::N1_37) {
        return Err(Errno::NoDevice);
    }
    let valid = (0..3)
        .map(|n| 1 << n)
        .filter(|bit| request.caches & bit != 0)
        .all(|bit| is_valid(bit, &request.selection));
    if !valid && !breaks(Mutant::N1_32) || request.caches == 0 {
        return Err(Errno::Invalid);
    }
    let iotlb = request.caches & cache::IOTLB != 0;
    let device =
        target.ats && (request.caches & cache::DEV_IOTLB != 0 || iotlb && !breaks(Mutant::N1_35));
    let mut flushes = Vec::new();
    let (pasid, address, order, granularity, leaf_only) = match request.selection {
        Selection::Domain if iotlb => return Err(Errno::Invalid),
        Selection::Domain => return Ok(flushes),
        Selection::Pasid(pasid) => (pasid, 0, ALL, 2, false),
        Selection::Address {
            pasid,
            leaf_only,
            address,
            granule_size,
            granules,
        } => {
            let order = order(address, granule_size, granules)?;
            (pasid, address, order, 3, leaf_only)
        }
    };
    let pasid = pasid.ok_or(Errno::Invalid)?;
    if iotlb {
        flushes.push(Flush::Iotlb {
            pasid,
            granularity: if breaks(Mutant::N1_33) {
                3
            } else {
                granularity
            },
            address,
            order,
            leaf_only,
        });
    }
    if device {
        flushes.push(Flush::DeviceTlb {
            pasid,
            address,
            order: if breaks(Mutant::N1_36) { 0 } else { order },
        });
    }
    Ok(flushes)
}

/// The same in the interface that has come after: the host knows which PASIDs have the page table,
/// and invalidates the Device-TLB too. None for what is not passed on.
///
/// # Errors
///
/// As [`pass_down`].
pub fn to_host(request: &Request, target: &Target) -> Result<Option<Invalidation>, Errno> {
    let flushes = pass_down(request, target)?;
    Ok(flushes.first().map(|flush| match *flush {
        Flush::Iotlb { order: ALL, .. } | Flush::DeviceTlb { order: ALL, .. } => Invalidation::All,
        Flush::Iotlb {
            address,
            order,
            leaf_only,
            ..
        } => Invalidation::Pages {
            address,
            pages: 1 << order,
            leaf_only,
        },
        Flush::DeviceTlb { address, order, .. } => Invalidation::Pages {
            address,
            pages: 1 << order,
            leaf_only: false,
        },
    }))
}

/// How an entry of the PASID table changes, in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It was not present, and is.
    ToPresent,
    /// It was present, and is not.
    ToAbsent,
}

/// Which caches a guest invalidates when an entry of the PASID table changes, as bits of [`cache`]:
/// nothing is cached of an entry that was not present, unless the unit is in caching mode, which
/// has to be told once; a Device-TLB never has anything of it.
pub fn guest_flushes(caching_mode: bool, change: Change) -> u8 {
    match change {
        Change::ToAbsent => cache::PASID | cache::IOTLB | cache::DEV_IOTLB,
        Change::ToPresent if caching_mode && breaks(Mutant::N1_38) => {
            cache::PASID | cache::IOTLB | cache::DEV_IOTLB
        }
        Change::ToPresent if caching_mode => cache::PASID | cache::IOTLB,
        Change::ToPresent => 0,
    }
}
