// SPDX-License-Identifier: MIT OR Apache-2.0
//! The IOMMU of a host, as a virtual unit needs it: a trait with the objects of iommufd and their
//! rules. It knows no ioctl and no file: an implementation does.
//!
//! Words are those of Linux: an *IOAS* is an I/O address space, to which memory is mapped; an
//! *HWPT* is a page table of the hardware, either a *parent* (second stage, made of an IOAS) or
//! *nested* (first stage of the guest within a parent); a *fault queue* has the page requests of
//! devices.

use pcie_ats::Pasid;
use vtd::spec::capability::{Capability, ExtendedCapability};

/// Declares the ids of objects. Objects of different iommufds cannot be used together.
macro_rules! ids {
    ($($(#[$doc:meta])+ $name:ident;)*) => {$(
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            /// The iommufd that has it: a number that the host gave.
            pub iommufd: u32,
            /// Its id there.
            pub id: u32,
        }
    )*};
}

ids! {
    /// A device that is bound to an iommufd.
    DeviceId;
    /// An I/O address space.
    IoasId;
    /// A page table of the hardware.
    HwptId;
    /// A fault queue.
    FaultQueueId;
}

/// An error number of the host, as Linux names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Errno {
    /// ENOENT, 2: there is no such object.
    NoEntry,
    /// EIO, 5: it did not do what it says.
    Io,
    /// EAGAIN, 11: not now.
    Again,
    /// ENOMEM, 12: no memory left.
    NoMemory,
    /// EACCES, 13: it belongs to somebody else.
    Access,
    /// EFAULT, 14: an address is not memory.
    Fault,
    /// EBUSY, 16: it is in use.
    Busy,
    /// EEXIST, 17: there is one already.
    Exists,
    /// ENODEV, 19: the device cannot do it.
    NoDevice,
    /// EINVAL, 22: an argument is not valid.
    Invalid,
    /// ENOSPC, 28: nothing left.
    NoSpace,
    /// ERANGE, 34: not aligned to its size.
    Range,
    /// EOPNOTSUPP, 95: the hardware or the kernel cannot do it.
    NotSupported,
    /// Any other.
    Other(i32),
}

impl Errno {
    /// The number.
    pub const fn number(self) -> i32 {
        match self {
            Errno::NoEntry => 2,
            Errno::Io => 5,
            Errno::Again => 11,
            Errno::NoMemory => 12,
            Errno::Access => 13,
            Errno::Fault => 14,
            Errno::Busy => 16,
            Errno::Exists => 17,
            Errno::NoDevice => 19,
            Errno::Invalid => 22,
            Errno::NoSpace => 28,
            Errno::Range => 34,
            Errno::NotSupported => 95,
            Errno::Other(number) => number,
        }
    }

    /// The error of a number.
    pub const fn from_number(number: i32) -> Self {
        match number {
            2 => Errno::NoEntry,
            5 => Errno::Io,
            11 => Errno::Again,
            12 => Errno::NoMemory,
            13 => Errno::Access,
            14 => Errno::Fault,
            16 => Errno::Busy,
            17 => Errno::Exists,
            19 => Errno::NoDevice,
            22 => Errno::Invalid,
            28 => Errno::NoSpace,
            34 => Errno::Range,
            95 => Errno::NotSupported,
            other => Errno::Other(other),
        }
    }
}

/// What the host was asked for, in error messages and in injected failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`HostIommu::hardware_info`].
    HardwareInfo,
    /// [`HostIommu::alloc_ioas`].
    AllocIoas,
    /// [`HostIommu::free_ioas`].
    FreeIoas,
    /// [`HostIommu::map`].
    Map,
    /// [`HostIommu::unmap`].
    Unmap,
    /// [`HostIommu::alloc_parent`].
    AllocParent,
    /// [`HostIommu::alloc_nested`].
    AllocNested,
    /// [`HostIommu::free_hwpt`].
    FreeHwpt,
    /// [`HostIommu::attach`].
    Attach,
    /// [`HostIommu::replace`].
    Replace,
    /// [`HostIommu::detach`].
    Detach,
    /// [`HostIommu::invalidate`].
    Invalidate,
    /// [`HostIommu::alloc_fault_queue`].
    AllocFaultQueue,
    /// [`HostIommu::free_fault_queue`].
    FreeFaultQueue,
    /// [`HostIommu::read_faults`].
    ReadFaults,
    /// [`HostIommu::respond`].
    Respond,
    /// [`HostIommu::set_dirty_tracking`].
    SetDirtyTracking,
    /// [`HostIommu::read_dirty`].
    ReadDirty,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Operation::HardwareInfo => "reading the capabilities of a device's IOMMU",
            Operation::AllocIoas => "making an I/O address space",
            Operation::FreeIoas => "freeing an I/O address space",
            Operation::Map => "mapping memory",
            Operation::Unmap => "unmapping memory",
            Operation::AllocParent => "making a parent page table",
            Operation::AllocNested => "making a nested page table",
            Operation::FreeHwpt => "freeing a page table",
            Operation::Attach => "attaching a page table to a device",
            Operation::Replace => "replacing the page table of a device",
            Operation::Detach => "detaching the page table of a device",
            Operation::Invalidate => "invalidating translations",
            Operation::AllocFaultQueue => "making a fault queue",
            Operation::FreeFaultQueue => "freeing a fault queue",
            Operation::ReadFaults => "reading page requests",
            Operation::Respond => "answering page requests",
            Operation::SetDirtyTracking => "switching dirty tracking",
            Operation::ReadDirty => "reading dirty pages",
        })
    }
}

/// The host refused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} failed: error {} ({errno:?})", .errno.number())]
pub struct HostError {
    /// What was asked for.
    pub operation: Operation,
    /// Why not.
    pub errno: Errno,
}

/// Some entries of a list were carried out, and then one failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}; {done} of {total} entries were done")]
pub struct Partial {
    /// How many were carried out.
    pub done: usize,
    /// How many there were.
    pub total: usize,
    /// Why the next one was not.
    pub error: HostError,
}

/// Bits of what a host says of a device (`out_capabilities` of IOMMU_GET_HW_INFO).
pub mod device_capability {
    /// Dirty pages can be tracked.
    pub const DIRTY_TRACKING: u64 = 1 << 0;
    /// Requests with PASID may ask to execute.
    pub const PASID_EXECUTE: u64 = 1 << 1;
    /// Requests with PASID may be privileged.
    pub const PASID_PRIVILEGED: u64 = 1 << 2;
    /// ATS cannot be used.
    pub const ATS_NOT_SUPPORTED: u64 = 1 << 3;
}

/// What the host says of the VT-d unit above a device (`iommu_hw_info_vtd`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VtdInfo {
    /// `flags`.
    pub flags: u32,
    /// CAP_REG.
    pub cap: Capability,
    /// ECAP_REG.
    pub ecap: ExtendedCapability,
}

impl VtdInfo {
    /// Bit of `flags`: erratum 772415. A mapping that is read-only in a parent can be written to
    /// through a nested page table.
    pub const ERRATUM_772415_SPR17: u32 = 1 << 0;
}

/// What a host says of a device and the IOMMU above it (IOMMU_GET_HW_INFO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwareInfo {
    /// The unit; none if it is not one of VT-d.
    pub vtd: Option<VtdInfo>,
    /// Bits of [`device_capability`].
    pub capabilities: u64,
    /// Log2 of the number of PASIDs that the device can have; 0 for none.
    pub max_pasid_log2: u8,
}

/// Memory that is mapped to an I/O address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Guest physical address of the first byte, a multiple of 4 KiB.
    pub iova: u64,
    /// Where it lies in the host: an address that the implementation understands.
    pub host: u64,
    /// Bytes, a multiple of 4 KiB.
    pub length: u64,
    /// Writes are permitted.
    pub writable: bool,
}

/// How a parent page table is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParentFlags {
    /// Dirty pages can be tracked (IOMMU_HWPT_ALLOC_DIRTY_TRACKING).
    pub dirty_tracking: bool,
    /// It can be attached to a PASID, and to a device that has PASIDs attached
    /// (IOMMU_HWPT_ALLOC_PASID).
    pub pasid: bool,
}

/// How a nested page table is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NestedFlags {
    /// It can be attached to a PASID, and to a device that has PASIDs attached
    /// (IOMMU_HWPT_ALLOC_PASID).
    pub pasid: bool,
    /// Where page requests go (IOMMU_HWPT_FAULT_ID_VALID).
    pub fault_queue: Option<FaultQueueId>,
}

/// A first stage of a guest (`iommu_hwpt_vtd_s1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FirstStage {
    /// Guest physical address of the table of the highest level.
    pub table: u64,
    /// Width of input addresses in bits: 48 or 57.
    pub address_width: u32,
    /// SRE.
    pub supervisor_requests: bool,
    /// EAFE.
    pub extended_accessed: bool,
    /// WPE.
    pub write_protect: bool,
}

/// What translations of a nested page table are invalidated (`iommu_hwpt_vtd_s1_invalidate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invalidation {
    /// All of them: `addr` 0 and `npages` all ones.
    All,
    /// Those of some pages.
    Pages {
        /// Input address of the first page, a multiple of 4 KiB.
        address: u64,
        /// How many pages of 4 KiB.
        pages: u64,
        /// Only leaf entries have changed.
        leaf_only: bool,
    },
}

/// A page request (`iommu_hwpt_pgfault`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The device, by its id in the iommufd of the queue.
    pub device: u32,
    /// PASID; none for requests without one.
    pub pasid: Option<Pasid>,
    /// The index of the group, as the device chose it.
    pub group: u32,
    /// The last one of its group.
    pub last: bool,
    /// It wants to read.
    pub read: bool,
    /// It wants to write.
    pub write: bool,
    /// It wants to execute.
    pub execute: bool,
    /// It is privileged.
    pub privileged: bool,
    /// Input address of the page.
    pub address: u64,
    /// By what the group is answered: all requests of a group have the same.
    pub cookie: u32,
}

/// How a group is answered: the host knows these two codes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultCode {
    /// The pages are there.
    Success,
    /// A page does not exist, or may not be accessed as asked.
    Invalid,
}

/// The answer to a group (`iommu_hwpt_page_response`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FaultResponse {
    /// That of the group.
    pub cookie: u32,
    /// The answer.
    pub code: FaultCode,
}

/// What the host does is known when a method returns. Each error is one of [`HostError`].
pub type HostResult<T> = Result<T, HostError>;

/// The IOMMU of a host, with its devices: one or several iommufds.
///
/// A device that is bound has no page table until one is attached. What is attached without PASID
/// and for each PASID are different things. When a method fails, nothing has changed, but for those
/// that return [`Partial`].
pub trait HostIommu {
    /// What the hardware of a device can do.
    fn hardware_info(&mut self, device: DeviceId) -> HostResult<HardwareInfo>;

    /// Makes an empty I/O address space.
    fn alloc_ioas(&mut self, iommufd: u32) -> HostResult<IoasId>;

    /// Frees an I/O address space that no page table uses.
    fn free_ioas(&mut self, ioas: IoasId) -> HostResult<()>;

    /// Maps memory.
    fn map(&mut self, ioas: IoasId, mapping: &Mapping) -> HostResult<()>;

    /// Unmaps memory: whole mappings.
    fn unmap(&mut self, ioas: IoasId, iova: u64, length: u64) -> HostResult<()>;

    /// Makes a second-stage page table of an I/O address space, in which others can be nested.
    fn alloc_parent(
        &mut self,
        device: DeviceId,
        ioas: IoasId,
        flags: ParentFlags,
    ) -> HostResult<HwptId>;

    /// Makes a nested page table. Whether the hardware can walk it is found when it is attached.
    fn alloc_nested(
        &mut self,
        device: DeviceId,
        parent: HwptId,
        stage: &FirstStage,
        flags: NestedFlags,
    ) -> HostResult<HwptId>;

    /// Frees a page table that is attached to nothing, and in which none is nested.
    fn free_hwpt(&mut self, hwpt: HwptId) -> HostResult<()>;

    /// Attaches a page table where there is none.
    fn attach(&mut self, device: DeviceId, pasid: Option<Pasid>, hwpt: HwptId) -> HostResult<()>;

    /// Attaches a page table in the place of another one, without a time at which there is none.
    fn replace(&mut self, device: DeviceId, pasid: Option<Pasid>, hwpt: HwptId) -> HostResult<()>;

    /// Detaches a page table. Page requests that are not answered are answered with invalid.
    fn detach(&mut self, device: DeviceId, pasid: Option<Pasid>) -> HostResult<()>;

    /// Invalidates translations of a nested page table, for all devices and PASIDs that have it,
    /// in their Device-TLBs too. Entries are carried out in order, up to the first that fails.
    fn invalidate(&mut self, hwpt: HwptId, entries: &[Invalidation]) -> Result<(), Partial>;

    /// Makes a fault queue.
    fn alloc_fault_queue(&mut self, iommufd: u32) -> HostResult<FaultQueueId>;

    /// Frees a fault queue that no page table uses.
    fn free_fault_queue(&mut self, queue: FaultQueueId) -> HostResult<()>;

    /// Takes the page requests that wait in a queue, in whole groups; none if none wait.
    fn read_faults(&mut self, queue: FaultQueueId) -> HostResult<Vec<Fault>>;

    /// Answers groups, in order, up to the first that fails.
    fn respond(&mut self, queue: FaultQueueId, responses: &[FaultResponse]) -> Result<(), Partial>;

    /// Begins or ends to track which pages of a parent are written to.
    fn set_dirty_tracking(&mut self, hwpt: HwptId, on: bool) -> HostResult<()>;

    /// Which pages of a parent were written to since the last call: a bit for each page of
    /// `page_size` bytes from `iova` on, in little-endian order.
    fn read_dirty(
        &mut self,
        hwpt: HwptId,
        iova: u64,
        length: u64,
        page_size: u64,
    ) -> HostResult<Vec<u64>>;
}
