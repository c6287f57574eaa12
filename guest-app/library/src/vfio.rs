// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drives the device from user space through VFIO, without its kernel module: ATS without PASID.
//!
//! The device then works in its own address space. The program maps memory into it at the addresses
//! that the memory has in the program, so pointers to mapped memory are valid for both. The device
//! requests no pages; an access to memory that is not mapped fails with `NotPresent`.
//!
//! One of the few modules that need `unsafe`: it writes doorbells and maps memory for the device.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};
use pci_driver::backends::vfio::VfioPciDevice;
use pci_driver::device::PciDevice;
use pci_driver::regions::{MappedOwningPciRegion, PciRegion, Permissions};
use svm_abi::ioctl::{Info, Queue};
use svm_abi::registers::{self, CONTEXT_COUNTERS, capabilities, context, control, device};
use svm_abi::registers::{pasid, status, vector};
use svm_abi::{counters, doorbell, ids};

use crate::batch::Batch;
use crate::device::DeviceFile;
use crate::region::{PAGE, Region};
use crate::ring::Ring;

/// Reads of the state before a context that does not stop is an error. It has no page requests to
/// wait for: the device only finishes the access in progress.
const STOP_ATTEMPTS: u32 = 1_000_000;

/// Why driving the device through VFIO failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The function cannot be opened.
    #[error(
        "cannot open {} through VFIO: {cause}\nCheck, in this order:\n  \
         - the function is bound to vfio-pci: `svmctl vfio --bind` does that;\n  \
         - /dev/vfio exists: `modprobe vfio-pci`, and `modprobe vfio_iommu_type1`;\n  \
         - interrupts are remapped, or vfio_iommu_type1 has `allow_unsafe_interrupts=1`;\n  \
         - no other program has the group open.",
        path.display()
    )]
    Open {
        /// The function in sysfs.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is another device.
    #[error("{} is no svm-demo device: IDENT is {ident:#x}", path.display())]
    Ident {
        /// The function in sysfs.
        path: PathBuf,
        /// The register.
        ident: u64,
    },
    /// The device speaks another version of the interface.
    #[error("the device has version {}.{} of the interface, which has no contexts without PASID: \
             1.2 or later is needed", found >> 8, found & 0xff)]
    Version {
        /// Version of the device.
        found: u64,
    },
    /// Memory cannot be mapped for the device.
    #[error("cannot map {length:#x} bytes at {address:#x} for the device: {cause}")]
    Map {
        /// The address.
        address: u64,
        /// The length.
        length: usize,
        /// What the system said.
        cause: io::Error,
    },
    /// Another system call failed.
    #[error("{action}: {cause}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
}

fn system(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |cause| Error::System { action, cause }
}

/// The function, opened exclusively through VFIO.
#[derive(Debug)]
pub struct Function {
    device: VfioPciDevice,
    registers: MappedOwningPciRegion,
    doorbells: MappedOwningPciRegion,
    interrupts: EventFd,
}

impl Function {
    /// Opens the function whose directory in sysfs is `path`, resets it and lets it be bus master.
    ///
    /// # Errors
    ///
    /// [`Error::Open`], [`Error::Ident`], [`Error::Version`], [`Error::System`].
    pub fn open(path: &Path) -> Result<Arc<Function>, Error> {
        let open = |cause| Error::Open {
            path: path.to_owned(),
            cause,
        };
        let device = VfioPciDevice::open(path).map_err(open)?;
        device
            .reset()
            .map_err(system("cannot reset the function"))?;
        let command = device.config().command();
        command
            .memory_space_enable()
            .write(true)
            .and_then(|()| command.bus_master_enable().write(true))
            .map_err(system("cannot write the command register"))?;
        let map = |bar: u8| {
            let region = device
                .bar(bar.into())
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            region.map(.., Permissions::ReadWrite)
        };
        let registers = map(ids::REGISTERS_BAR).map_err(system("cannot map the registers"))?;
        let doorbells = map(ids::DOORBELLS_BAR).map_err(system("cannot map the doorbells"))?;
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let interrupts = EventFd::from_value_and_flags(0, flags)
            .map_err(|errno| system("eventfd")(errno.into()))?;
        device
            .interrupts()
            .msi_x()
            .enable(&[interrupts.as_raw_fd()])
            .map_err(system("cannot enable MSI-X"))?;
        let function = Function {
            device,
            registers,
            doorbells,
            interrupts,
        };
        let ident = function.read(device::IDENT);
        let version = ident & 0xffff;
        if ident >> 32 != u64::from(ids::IDENT_MAGIC) {
            return Err(Error::Ident {
                path: path.to_owned(),
                ident,
            });
        }
        if version >> 8 != u64::from(ids::ABI_VERSION >> 8) || version & 0xff < 2 {
            return Err(Error::Version { found: version });
        }
        Ok(Arc::new(function))
    }

    /// Maps a region for the device, at its address in this process.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], for instance if the IOMMU does not support the address.
    pub fn map(self: &Arc<Self>, region: &Arc<Region>, access: Access) -> Result<Mapping, Error> {
        self.map_range(region.address(0), region.len(), access)?;
        Ok(Mapping {
            function: self.clone(),
            memory: region.clone(),
        })
    }

    /// Maps the descriptors and records of a batch, which the device reads and writes.
    ///
    /// # Errors
    ///
    /// As [`Function::map`].
    pub fn map_batch(self: &Arc<Self>, batch: &Batch) -> Result<Mapping, Error> {
        self.map(batch.memory().region(), Access::ReadWrite)
    }

    fn map_range(&self, address: u64, length: usize, access: Access) -> Result<(), Error> {
        let error = |cause| Error::Map {
            address,
            length,
            cause,
        };
        let iommu = self.device.iommu();
        let end = address + length as u64;
        let ranges = iommu.valid_iova_ranges();
        if !ranges
            .iter()
            .any(|range| range.start <= address && end - 1 <= range.end)
        {
            let text = format!("the IOMMU has the addresses {ranges:x?}");
            return Err(error(io::Error::new(io::ErrorKind::AddrNotAvailable, text)));
        }
        let start = std::ptr::with_exposed_provenance::<u8>(address as usize);
        let permissions = match access {
            Access::Read => Permissions::Read,
            Access::ReadWrite => Permissions::ReadWrite,
        };
        // SAFETY: the range consists of mapped pages that are accessed only atomically; the kernel
        // keeps the pages until they are unmapped for the device, whatever happens to the program's
        // mapping.
        unsafe { iommu.map(address, length, start, permissions) }.map_err(error)
    }

    fn unmap_range(&self, address: u64, length: usize) -> io::Result<()> {
        self.device.iommu().unmap(address, length)
    }

    /// A context of the device; request each only once.
    pub fn context(self: &Arc<Self>, number: u16) -> FunctionContext {
        FunctionContext {
            function: self.clone(),
            number,
            ring: None,
        }
    }

    /// Reads a register of BAR 0, in two halves.
    fn read(&self, offset: u64) -> u64 {
        let half = |offset| self.registers.read_le_u32(offset).unwrap_or(u32::MAX);
        u64::from(half(offset)) | u64::from(half(offset + 4)) << 32
    }

    /// Writes a register of BAR 0, in two halves, which the device supports.
    fn write(&self, offset: u64, value: u64) -> io::Result<()> {
        self.registers
            .write_le_u32(offset + 4, (value >> 32) as u32)?;
        self.registers.write_le_u32(offset, value as u32)
    }
}

/// What the device may do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    ReadWrite,
}

/// A region that the device can access until this is dropped.
#[derive(Debug)]
pub struct Mapping {
    function: Arc<Function>,
    memory: Arc<Region>,
}

impl Mapping {
    /// The region.
    pub fn region(&self) -> &Region {
        &self.memory
    }

    /// The region, to keep it longer than the mapping.
    pub fn shared(&self) -> Arc<Region> {
        self.memory.clone()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (address, length) = (self.memory.address(0), self.memory.len());
        // If unmapping fails, the device keeps its access, and the kernel keeps the pages.
        if let Err(error) = self.function.unmap_range(address, length) {
            eprintln!("cannot unmap {length:#x} bytes at {address:#x}: {error}");
        }
    }
}

/// A context of the function, for a queue.
#[derive(Debug)]
pub struct FunctionContext {
    function: Arc<Function>,
    number: u16,
    /// Address and length of the ring's memory, once it was mapped.
    ring: Option<(u64, usize)>,
}

impl FunctionContext {
    fn register(&self, offset: u64) -> u64 {
        registers::context_block(self.number) + offset
    }

    fn state(&self) -> u8 {
        status::state(self.function.read(self.register(context::STATUS)))
    }
}

// SAFETY: the device fulfils the contract by its specification; after STOP the code waits until the
// context is DISABLED, and the kernel keeps every mapped page until it is unmapped.
unsafe impl DeviceFile for FunctionContext {
    fn info(&self) -> io::Result<Info> {
        let read = |offset| self.function.read(offset);
        let capabilities = read(device::CAPABILITIES);
        let resources = read(device::RESOURCES);
        Ok(Info {
            device_version: read(device::IDENT) as u32 & 0xffff,
            context: self.number.into(),
            pasid: 0,
            contexts: capabilities::contexts(capabilities).into(),
            ring_log2_max: capabilities::ring_log2(capabilities).into(),
            transfer_log2_max: capabilities::transfer_log2(capabilities).into(),
            operations: read(device::OPERATIONS),
            atc_entries: resources as u32,
            page_requests: (resources >> 32) as u32,
            batch_log2_max: capabilities::batch_log2(capabilities).into(),
            ..Info::default()
        })
    }

    unsafe fn queue_setup(&mut self, queue: &Queue) -> io::Result<()> {
        let length = Ring::bytes(1 << queue.ring_log2).next_multiple_of(PAGE);
        if self.ring != Some((queue.ring, length)) {
            let map = self
                .function
                .map_range(queue.ring, length, Access::ReadWrite);
            map.map_err(io::Error::other)?;
            self.ring = Some((queue.ring, length));
        }
        let write = |offset, value| self.function.write(self.register(offset), value);
        write(context::PASID, pasid::NONE)?;
        write(context::RING, queue.ring)?;
        write(context::RING_LOG2, queue.ring_log2.into())?;
        // All contexts share the first vector.
        write(context::VECTOR, vector::ENABLE)?;
        write(context::CONTROL, control::START)?;
        let value = self.function.read(self.register(context::STATUS));
        if status::state(value) != status::ENABLED {
            let why = crate::Halt(status::error(value));
            return Err(io::Error::other(format!(
                "the context does not start: {why}"
            )));
        }
        Ok(())
    }

    fn queue_stop(&mut self) -> io::Result<()> {
        let stop = self.register(context::CONTROL);
        self.function.write(stop, control::STOP)?;
        for _ in 0..STOP_ATTEMPTS {
            if self.state() == status::DISABLED {
                return Ok(());
            }
            std::thread::yield_now();
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn read_doorbell(&self, offset: u64) -> u64 {
        let counters = doorbell::COUNTERS..doorbell::COUNTERS + counters::BLOCK_SIZE;
        let register = match offset {
            doorbell::TAIL => context::TAIL,
            doorbell::HEAD => context::HEAD,
            doorbell::STATUS => context::STATUS,
            offset if counters.contains(&offset) => offset - doorbell::COUNTERS + CONTEXT_COUNTERS,
            _ => return 0,
        };
        self.function.read(self.register(register))
    }

    unsafe fn write_tail(&self, tail: u64) {
        let page = u64::from(self.number) * doorbell::PAGE_SIZE;
        let register = (page + doorbell::TAIL) as usize;
        assert!(
            register + 8 <= self.function.doorbells.len(),
            "context {}",
            self.number
        );
        let pointer = self.function.doorbells.as_mut_ptr().wrapping_add(register);
        // SAFETY: the register is within the mapped BAR, aligned, and written by one access of 8
        // bytes, as the device requires; the caller is responsible for the effects of the write.
        unsafe { pointer.cast::<u64>().write_volatile(tail) }
    }

    fn interrupts(&self) -> BorrowedFd<'_> {
        self.function.interrupts.as_fd()
    }
}

impl Drop for FunctionContext {
    fn drop(&mut self) {
        if let Some((address, length)) = self.ring {
            // The queue has already stopped the context.
            if let Err(error) = self.function.unmap_range(address, length) {
                eprintln!("cannot unmap the ring at {address:#x}: {error}");
            }
        }
    }
}
