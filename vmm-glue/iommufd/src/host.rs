// SPDX-License-Identifier: MIT OR Apache-2.0
//! Iommufds with their devices and fault queues, and the trait on them.

use crate::abi::{self, size_of_u32};
use crate::memory::Memory;
use crate::sys;
use host_iommu::host::{
    DeviceId, Errno, Fault, FaultQueueId, FaultResponse, FirstStage, HardwareInfo, HostError,
    HostIommu, HostResult, HwptId, Invalidation, IoasId, Mapping, NestedFlags, Operation,
    ParentFlags, Partial,
};
use host_iommu::invalidations::checked;
use iommufd_bindings as uapi;
use pcie_ats::Pasid;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use vfio_bindings::bindings::vfio;

/// How many page requests are read at once. A group that is larger than what is read would never be
/// given: it has as many as a device sends with one index.
const FAULTS: usize = 1024;

/// The IOMMU of this host.
///
/// The fields are dropped in this order: fault queues and devices hold their iommufd.
#[derive(Debug, Default)]
pub struct Host {
    queues: BTreeMap<FaultQueueId, File>,
    devices: BTreeMap<DeviceId, File>,
    iommufds: BTreeMap<u32, File>,
    next: u32,
    memory: Memory,
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::Io, Errno::from_number)
}

fn failed(operation: Operation) -> impl Fn(io::Error) -> HostError {
    move |error| HostError {
        operation,
        errno: errno(&error),
    }
}

impl Host {
    /// No iommufd is open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Memory that devices may reach.
    pub const fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Opens an iommufd: `/dev/iommu`.
    ///
    /// # Errors
    ///
    /// The kernel has none (ENOENT), or this process may not (EACCES).
    pub fn open(&mut self, path: &Path) -> io::Result<u32> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(self.insert(file))
    }

    /// Takes an iommufd that somebody else has opened.
    pub fn insert(&mut self, iommufd: File) -> u32 {
        self.next += 1;
        self.iommufds.insert(self.next, iommufd);
        self.next
    }

    /// Binds a device, by its file in `/dev/vfio/devices`, to an iommufd.
    ///
    /// # Errors
    ///
    /// What the kernel says: EINVAL for a device that is bound, ENOENT for an iommufd that is not.
    pub fn bind(&mut self, iommufd: u32, device: File) -> io::Result<DeviceId> {
        let file = self.iommufds.get(&iommufd);
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let id = sys::bind(&device, file)?;
        let id = DeviceId { iommufd, id };
        self.devices.insert(id, device);
        Ok(id)
    }

    /// Takes a device that somebody else has bound to the iommufd, with the id that the kernel gave.
    pub fn adopt(&mut self, iommufd: u32, id: u32, device: File) -> DeviceId {
        let id = DeviceId { iommufd, id };
        self.devices.insert(id, device);
        id
    }

    /// Closes an iommufd, with its devices and fault queues. The kernel frees its objects if nobody
    /// else has it open.
    pub fn close(&mut self, iommufd: u32) {
        self.queues.retain(|queue, _| queue.iommufd != iommufd);
        self.devices.retain(|device, _| device.iommufd != iommufd);
        self.iommufds.remove(&iommufd);
    }

    /// Unbinds a device: what is attached to it is detached. Its file is closed unless the caller
    /// keeps it.
    pub fn unbind(&mut self, device: DeviceId) -> Option<File> {
        self.devices.remove(&device)
    }

    /// The file of a device, for its regions and interrupts.
    pub fn device_file(&self, device: DeviceId) -> Option<&File> {
        self.devices.get(&device)
    }

    /// Resets a device.
    ///
    /// # Errors
    ///
    /// ENOTTY: the device has no reset. ENOENT: it is not bound.
    pub fn reset(&self, device: DeviceId) -> io::Result<()> {
        let file = self.devices.get(&device);
        sys::reset(file.ok_or(io::ErrorKind::NotFound)?)
    }

    /// Where a region of a device lies in its file: its BARs are 0 to 5, configuration space is 7.
    ///
    /// # Errors
    ///
    /// EINVAL: it has no such region. ENOENT: it is not bound.
    pub fn region(&self, device: DeviceId, index: u32) -> io::Result<Range<u64>> {
        let file = self.devices.get(&device);
        let mut argument = vfio::vfio_region_info {
            argsz: size_of_u32::<vfio::vfio_region_info>(),
            index,
            ..Default::default()
        };
        sys::region_info(file.ok_or(io::ErrorKind::NotFound)?, &mut argument)?;
        Ok(argument.offset..argument.offset + argument.size)
    }

    /// What becomes readable when page requests wait in a fault queue.
    pub fn fault_queue_fd(&self, queue: FaultQueueId) -> Option<BorrowedFd<'_>> {
        self.queues.get(&queue).map(File::as_fd)
    }

    /// Closes the file of a fault queue, before it is freed. A thread that polls the file keeps it
    /// open until it returns, and the queue cannot be freed before that (EBUSY).
    pub fn close_fault_queue(&mut self, queue: FaultQueueId) {
        self.queues.remove(&queue);
    }

    fn iommufd(&self, operation: Operation, iommufd: u32) -> HostResult<&File> {
        self.iommufds.get(&iommufd).ok_or(HostError {
            operation,
            errno: Errno::NoEntry,
        })
    }

    fn file(&self, operation: Operation, device: DeviceId) -> HostResult<&File> {
        self.devices.get(&device).ok_or(HostError {
            operation,
            errno: Errno::NoEntry,
        })
    }

    /// Objects of two iommufds cannot be used together: their numbers mean other things there.
    fn together(operation: Operation, one: u32, other: u32) -> HostResult<()> {
        match one == other {
            true => Ok(()),
            false => Err(HostError {
                operation,
                errno: Errno::NoEntry,
            }),
        }
    }

    fn destroy(&self, operation: Operation, iommufd: u32, id: u32) -> HostResult<()> {
        let file = self.iommufd(operation, iommufd)?;
        let size = size_of_u32::<uapi::iommu_destroy>();
        let mut argument = uapi::iommu_destroy { size, id };
        sys::destroy(file, &mut argument).map_err(failed(operation))
    }

    /// Attaches, or replaces: the kernel does what there is to do.
    fn put(
        &mut self,
        operation: Operation,
        device: DeviceId,
        pasid: Option<Pasid>,
        hwpt: HwptId,
    ) -> HostResult<()> {
        Self::together(operation, device.iommufd, hwpt.iommufd)?;
        let file = self.file(operation, device)?;
        let mut argument = abi::attach(hwpt.id, pasid);
        sys::attach(file, &mut argument).map_err(failed(operation))
    }
}

impl HostIommu for Host {
    fn hardware_info(&mut self, device: DeviceId) -> HostResult<HardwareInfo> {
        let operation = Operation::HardwareInfo;
        let file = self.iommufd(operation, device.iommufd)?;
        let info = sys::hw_info(file, device.id).map_err(failed(operation))?;
        let (kind, pasids) = (info.kind, info.max_pasid_log2);
        Ok(abi::hardware_info(
            kind,
            &info.data,
            info.capabilities,
            pasids,
        ))
    }

    fn alloc_ioas(&mut self, iommufd: u32) -> HostResult<IoasId> {
        let operation = Operation::AllocIoas;
        let file = self.iommufd(operation, iommufd)?;
        let mut argument = uapi::iommu_ioas_alloc {
            size: size_of_u32::<uapi::iommu_ioas_alloc>(),
            ..Default::default()
        };
        sys::ioas_alloc(file, &mut argument).map_err(failed(operation))?;
        let id = argument.out_ioas_id;
        Ok(IoasId { iommufd, id })
    }

    fn free_ioas(&mut self, ioas: IoasId) -> HostResult<()> {
        self.destroy(Operation::FreeIoas, ioas.iommufd, ioas.id)
    }

    /// [`Mapping::host`] is an address of this process, in memory that was given
    /// ([`Memory::give`]); EFAULT otherwise.
    fn map(&mut self, ioas: IoasId, mapping: &Mapping) -> HostResult<()> {
        let operation = Operation::Map;
        let file = self.iommufd(operation, ioas.iommufd)?;
        if !self.memory.has(mapping.host, mapping.length) {
            return Err(HostError {
                operation,
                errno: Errno::Fault,
            });
        }
        let mut argument = abi::map(ioas.id, mapping);
        // SAFETY: by the contract of `Memory::give`, devices may reach the memory.
        unsafe { sys::ioas_map(file, &mut argument) }.map_err(failed(operation))
    }

    fn unmap(&mut self, ioas: IoasId, iova: u64, length: u64) -> HostResult<()> {
        let operation = Operation::Unmap;
        let file = self.iommufd(operation, ioas.iommufd)?;
        let mut argument = uapi::iommu_ioas_unmap {
            size: size_of_u32::<uapi::iommu_ioas_unmap>(),
            ioas_id: ioas.id,
            iova,
            length,
        };
        sys::ioas_unmap(file, &mut argument).map_err(failed(operation))
    }

    fn alloc_parent(
        &mut self,
        device: DeviceId,
        ioas: IoasId,
        flags: ParentFlags,
    ) -> HostResult<HwptId> {
        let operation = Operation::AllocParent;
        Self::together(operation, device.iommufd, ioas.iommufd)?;
        let file = self.iommufd(operation, device.iommufd)?;
        let argument = abi::alloc_parent(device.id, ioas.id, flags);
        let id = sys::hwpt_alloc(file, argument, None).map_err(failed(operation))?;
        let iommufd = device.iommufd;
        Ok(HwptId { iommufd, id })
    }

    fn alloc_nested(
        &mut self,
        device: DeviceId,
        parent: HwptId,
        stage: &FirstStage,
        flags: NestedFlags,
    ) -> HostResult<HwptId> {
        let operation = Operation::AllocNested;
        Self::together(operation, device.iommufd, parent.iommufd)?;
        if let Some(queue) = flags.fault_queue {
            Self::together(operation, device.iommufd, queue.iommufd)?;
        }
        let file = self.iommufd(operation, device.iommufd)?;
        let argument = abi::alloc_nested(device.id, parent.id, flags);
        let data = abi::first_stage(stage);
        let id = sys::hwpt_alloc(file, argument, Some(&data)).map_err(failed(operation))?;
        let iommufd = device.iommufd;
        Ok(HwptId { iommufd, id })
    }

    fn free_hwpt(&mut self, hwpt: HwptId) -> HostResult<()> {
        self.destroy(Operation::FreeHwpt, hwpt.iommufd, hwpt.id)
    }

    fn attach(&mut self, device: DeviceId, pasid: Option<Pasid>, hwpt: HwptId) -> HostResult<()> {
        self.put(Operation::Attach, device, pasid, hwpt)
    }

    fn replace(&mut self, device: DeviceId, pasid: Option<Pasid>, hwpt: HwptId) -> HostResult<()> {
        self.put(Operation::Replace, device, pasid, hwpt)
    }

    fn detach(&mut self, device: DeviceId, pasid: Option<Pasid>) -> HostResult<()> {
        let operation = Operation::Detach;
        let file = self.file(operation, device)?;
        let mut argument = abi::detach(pasid);
        sys::detach(file, &mut argument).map_err(failed(operation))
    }

    fn invalidate(&mut self, hwpt: HwptId, entries: &[Invalidation]) -> Result<(), Partial> {
        let (operation, total) = (Operation::Invalidate, entries.len());
        let file = self.iommufd(operation, hwpt.iommufd);
        let file = file.map_err(|error| Partial {
            done: 0,
            total,
            error,
        })?;
        let raw: Vec<_> = entries.iter().map(abi::invalidation).collect();
        let (done, result) = sys::invalidate(file, hwpt.id, &raw);
        // An ioctl that was refused as a whole has left the number as it was.
        let done = match &result {
            Err(_) if done as usize == total => 0,
            _ => done as usize,
        };
        checked(done, total, result.err().map(|error| errno(&error)))
    }

    fn alloc_fault_queue(&mut self, iommufd: u32) -> HostResult<FaultQueueId> {
        let operation = Operation::AllocFaultQueue;
        let file = self.iommufd(operation, iommufd)?;
        let (id, queue) = sys::fault_queue_alloc(file).map_err(failed(operation))?;
        let id = FaultQueueId { iommufd, id };
        self.queues.insert(id, queue);
        Ok(id)
    }

    /// The file goes first: the kernel does not free a queue whose file is open.
    fn free_fault_queue(&mut self, queue: FaultQueueId) -> HostResult<()> {
        // Its file refers to it.
        self.close_fault_queue(queue);
        self.destroy(Operation::FreeFaultQueue, queue.iommufd, queue.id)
    }

    fn read_faults(&mut self, queue: FaultQueueId) -> HostResult<Vec<Fault>> {
        let operation = Operation::ReadFaults;
        let mut file = self.queues.get(&queue).ok_or(HostError {
            operation,
            errno: Errno::NoEntry,
        })?;
        let (mut all, mut bytes) = (Vec::new(), vec![0; FAULTS * abi::FAULT_SIZE]);
        loop {
            let length = match file.read(&mut bytes) {
                Ok(0) => return Ok(all),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(all),
                // What was read is not lost.
                Err(_) if !all.is_empty() => return Ok(all),
                Err(error) => return Err(failed(operation)(error)),
            };
            let faults = abi::faults(&bytes[..length]).map_err(|_| HostError {
                operation,
                errno: Errno::Io,
            })?;
            all.extend(faults);
        }
    }

    /// One response at a time: kernels before 7.1 return a wrong number of bytes for several.
    fn respond(&mut self, queue: FaultQueueId, responses: &[FaultResponse]) -> Result<(), Partial> {
        let (operation, total) = (Operation::Respond, responses.len());
        let partial = |done| move |error| Partial { done, total, error };
        let file = self.queues.get(&queue).ok_or(HostError {
            operation,
            errno: Errno::NoEntry,
        });
        let mut file = file.map_err(partial(0))?;
        for (done, response) in responses.iter().enumerate() {
            let bytes = abi::response(response);
            let written = loop {
                match file.write(&bytes) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            match written {
                Ok(length) if length == bytes.len() => {}
                Ok(_) => {
                    let errno = Errno::Io;
                    return Err(partial(done)(HostError { operation, errno }));
                }
                Err(error) => return Err(partial(done)(failed(operation)(error))),
            }
        }
        Ok(())
    }

    fn set_dirty_tracking(&mut self, hwpt: HwptId, on: bool) -> HostResult<()> {
        let operation = Operation::SetDirtyTracking;
        let file = self.iommufd(operation, hwpt.iommufd)?;
        let mut argument = uapi::iommu_hwpt_set_dirty_tracking {
            size: size_of_u32::<uapi::iommu_hwpt_set_dirty_tracking>(),
            flags: match on {
                true => {
                    uapi::iommufd_hwpt_set_dirty_tracking_flags_IOMMU_HWPT_DIRTY_TRACKING_ENABLE
                }
                false => 0,
            },
            hwpt_id: hwpt.id,
            __reserved: 0,
        };
        sys::set_dirty_tracking(file, &mut argument).map_err(failed(operation))
    }

    fn read_dirty(
        &mut self,
        hwpt: HwptId,
        iova: u64,
        length: u64,
        page_size: u64,
    ) -> HostResult<Vec<u64>> {
        let operation = Operation::ReadDirty;
        let file = self.iommufd(operation, hwpt.iommufd)?;
        if page_size == 0 {
            return Err(HostError {
                operation,
                errno: Errno::Invalid,
            });
        }
        let pages = length.div_ceil(page_size);
        let mut bits = vec![0; pages.div_ceil(64) as usize];
        sys::dirty_bitmap(file, hwpt.id, iova, length, page_size, &mut bits)
            .map_err(failed(operation))?;
        Ok(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host_iommu::host::FaultCode;
    use nix::fcntl::OFlag;

    /// A host with a file that is no iommufd.
    fn host() -> (Host, u32) {
        let mut host = Host::new();
        let iommufd = host.open(Path::new("/dev/null")).unwrap();
        (host, iommufd)
    }

    #[test]
    fn what_the_kernel_says_is_told_with_the_operation() {
        let (mut host, iommufd) = host();
        let error = host.alloc_ioas(iommufd).unwrap_err();
        let expected = (Operation::AllocIoas, Errno::from_number(25));
        assert_eq!((error.operation, error.errno), expected);
        let hwpt = HwptId { iommufd, id: 1 };
        let partial = host.invalidate(hwpt, &[Invalidation::All; 3]).unwrap_err();
        assert_eq!((partial.done, partial.total), (0, 3));
        let missing = host.open(Path::new("/nowhere/iommu")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn objects_of_two_iommufds_do_not_meet() {
        let (mut host, first) = host();
        let second = host.open(Path::new("/dev/null")).unwrap();
        let device = DeviceId {
            iommufd: first,
            id: 1,
        };
        let ioas = IoasId {
            iommufd: second,
            id: 1,
        };
        let flags = ParentFlags::default();
        let error = host.alloc_parent(device, ioas, flags).unwrap_err();
        assert_eq!(error.errno, Errno::NoEntry);
    }

    #[test]
    fn only_memory_that_was_given_is_mapped() {
        let (mut host, iommufd) = host();
        let ioas = IoasId { iommufd, id: 1 };
        let mapping = Mapping {
            iova: 0,
            host: 0x1000,
            length: 0x1000,
            writable: true,
        };
        let error = host.map(ioas, &mapping).unwrap_err();
        assert_eq!(error.errno, Errno::Fault);
    }

    #[test]
    fn page_requests_and_responses_go_through_the_queues_file() {
        let (mut host, iommufd) = host();
        let queue = FaultQueueId { iommufd, id: 1 };
        // Pipes stand for the file: one to read from, one to write to.
        let (requests, kernel) = nix::unistd::pipe2(OFlag::O_NONBLOCK).unwrap();
        host.queues.insert(queue, File::from(requests));
        assert_eq!(host.read_faults(queue), Ok(vec![]));
        let request: Vec<u8> = [3u32, 5, 77, 1, 1, 0, 0x1000, 0, 0, 42]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let mut kernel = File::from(kernel);
        kernel
            .write_all(&[request.clone(), request].concat())
            .unwrap();
        let faults = host.read_faults(queue).unwrap();
        let first = (faults[0].device, faults[0].cookie, faults[0].last);
        assert_eq!((faults.len(), first), (2, (5, 42, true)));
        let (mut kernel, responses) = {
            let (kernel, responses) = nix::unistd::pipe2(OFlag::O_NONBLOCK).unwrap();
            (File::from(kernel), File::from(responses))
        };
        host.queues.insert(queue, responses);
        let code = FaultCode::Invalid;
        let all = [1, 2].map(|cookie| FaultResponse { cookie, code });
        host.respond(queue, &all).unwrap();
        let mut bytes = [0; 16];
        kernel.read_exact(&mut bytes).unwrap();
        let cookies = [0, 8].map(|at| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()));
        assert_eq!(cookies, [1, 2]);
        // A queue that is gone takes nothing.
        drop(kernel);
        let partial = host.respond(queue, &all).unwrap_err();
        assert_eq!((partial.done, partial.total), (0, 2));
        let unknown = FaultQueueId { iommufd, id: 2 };
        assert_eq!(host.read_faults(unknown).unwrap_err().errno, Errno::NoEntry);
    }
}
