// SPDX-License-Identifier: GPL-2.0-or-later
//! Memory regions with handlers in this library, and accesses to address spaces.

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use nix::libc;

use crate::abi::layout::*;
use crate::abi::{qemu, room};
use crate::bql::Bql;

/// The handler of a region. A write may come from inside a memory access of the same device.
pub trait Mmio: Send + Sync {
    /// Reads `size` bytes, 1 to 8.
    fn read(&self, bql: &Bql, offset: u64, size: u8) -> u64;
    /// Writes `size` bytes, 1 to 8.
    fn write(&self, bql: &Bql, offset: u64, value: u64, size: u8);
}

/// Accesses of any size and alignment reach the handler unchanged: the device has its own rules for
/// them.
static OPS: Constant<MemoryRegionOps> = Constant(MemoryRegionOps {
    read: Some(read),
    write: Some(write),
    read_with_attrs: std::ptr::null(),
    write_with_attrs: std::ptr::null(),
    endianness: DEVICE_LITTLE_ENDIAN,
    valid: MemoryRegionValid {
        min_access_size: 1,
        max_access_size: 8,
        unaligned: true,
        accepts: std::ptr::null(),
    },
    implemented: MemoryRegionImpl {
        min_access_size: 1,
        max_access_size: 8,
        unaligned: true,
    },
});

/// A region with a [`Mmio`] as its handler. It must live as long as its owner.
pub struct IoRegion {
    region: NonNull<MemoryRegion>,
    handler: NonNull<Box<dyn Mmio>>,
}

// SAFETY: only QEMU accesses the region, under its own rules; the handler is Send and Sync.
unsafe impl Send for IoRegion {}

impl IoRegion {
    /// Creates a region of `size` bytes.
    ///
    /// # Safety
    ///
    /// `owner` is null, or an object whose finalization ends before the region is dropped; if it
    /// is null the region is never dropped.
    pub unsafe fn new(
        _bql: &Bql,
        owner: *mut Object,
        name: &CStr,
        size: u64,
        handler: Box<dyn Mmio>,
    ) -> IoRegion {
        // QEMU's own regions are in zeroed objects.
        let region = IoRegion {
            region: room::allocate(layout().memory_region.size),
            handler: NonNull::from(Box::leak(Box::new(handler))),
        };
        // SAFETY: the region has the size and alignment of a memory region and stays where it
        // is; the handler lives as long; QEMU copies the name.
        unsafe {
            (qemu().memory_region_init_io)(
                region.as_ptr(),
                owner,
                &OPS.0,
                region.handler.as_ptr().cast(),
                name.as_ptr(),
                size,
            );
        }
        region
    }

    /// As QEMU takes it.
    pub fn as_ptr(&self) -> *mut MemoryRegion {
        self.region.as_ptr()
    }
}

impl Drop for IoRegion {
    fn drop(&mut self) {
        // SAFETY: both were made by `new`, and QEMU has finalized the region with its
        // owner.
        unsafe {
            room::free(self.region, layout().memory_region.size);
            drop(Box::from_raw(self.handler.as_ptr()));
        }
    }
}

/// `MemoryRegionOps.read`.
unsafe extern "C" fn read(opaque: *mut c_void, offset: u64, size: u32) -> u64 {
    // SAFETY: the opaque pointer is the handler of a region that is being accessed, hence alive;
    // QEMU takes the BQL for regions unless they opt out.
    let (handler, bql) = unsafe { (&*opaque.cast::<Box<dyn Mmio>>(), Bql::held()) };
    handler.read(&bql, offset, size as u8)
}

/// `MemoryRegionOps.write`.
unsafe extern "C" fn write(opaque: *mut c_void, offset: u64, value: u64, size: u32) {
    // SAFETY: as for `read`.
    let (handler, bql) = unsafe { (&*opaque.cast::<Box<dyn Mmio>>(), Bql::held()) };
    handler.write(&bql, offset, value, size as u8);
}

/// An access that nothing answered, or that QEMU refused.
#[derive(Debug)]
pub struct AccessRefused;

/// A piece of guest memory, while it is mapped.
struct Mapped {
    space: Space,
    host: NonNull<c_void>,
    /// Its bytes: at least one, and at most those that were asked for.
    length: u64,
    /// It is mapped for writing.
    write: bool,
    /// The bytes of its front that were written.
    written: u64,
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped like that in this address space, and nobody uses it any more.
        unsafe {
            (qemu().address_space_unmap)(
                self.space.as_ptr(),
                self.host.as_ptr(),
                self.length,
                self.write,
                self.written,
            );
        }
    }
}

/// One of QEMU's address spaces.
#[derive(Clone, Copy)]
pub struct Space(NonNull<AddressSpace>);

// SAFETY: QEMU's address spaces may be accessed from any thread.
unsafe impl Send for Space {}
// SAFETY: as above.
unsafe impl Sync for Space {}

impl Space {
    /// Guest physical memory.
    pub fn system() -> Space {
        // The address of a variable is not null.
        match NonNull::new(qemu().address_space_memory) {
            Some(space) => Space(space),
            None => std::process::abort(),
        }
    }

    /// The address space behind a pointer.
    ///
    /// # Safety
    ///
    /// It exists while the value is used.
    pub unsafe fn new(space: NonNull<AddressSpace>) -> Space {
        Space(space)
    }

    /// As QEMU takes it.
    pub fn as_ptr(self) -> *mut AddressSpace {
        self.0.as_ptr()
    }

    /// Whether it is the address space at a pointer.
    pub fn is(self, other: *const AddressSpace) -> bool {
        self.0.as_ptr().cast_const() == other
    }

    /// Reads.
    pub fn read(self, address: u64, attributes: u32, data: &mut [u8]) -> Result<(), AccessRefused> {
        self.access(address, attributes, data.as_mut_ptr(), data.len(), false)
    }

    /// Writes.
    pub fn write(self, address: u64, attributes: u32, data: &[u8]) -> Result<(), AccessRefused> {
        self.access(
            address,
            attributes,
            data.as_ptr().cast_mut(),
            data.len(),
            true,
        )
    }

    /// Whether QEMU interprets the attribute `MEMORY` correctly: it then refuses an access where
    /// there is no memory because of the attribute, and not because nothing answers.
    pub fn understands_memory(self, _bql: &Bql) -> bool {
        /// An address at which no machine has anything.
        const NOTHING: u64 = u64::MAX - 7;
        let mut data = [0u8; 4];
        // SAFETY: the address space exists, and the buffer is as long as the access.
        let result = unsafe {
            (qemu().address_space_rw)(
                self.0.as_ptr(),
                NOTHING,
                MemTxAttrs::new(MemTxAttrs::MEMORY),
                data.as_mut_ptr().cast(),
                data.len() as u64,
                false,
            )
        };
        result == MEMTX_ACCESS_ERROR
    }

    /// Reads into or writes from `length` bytes at `data`, which must be writable for a read.
    fn access(
        self,
        address: u64,
        attributes: u32,
        data: *mut u8,
        length: usize,
        write: bool,
    ) -> Result<(), AccessRefused> {
        // The processors see the accesses of this device in order, as on a bus.
        fence(Ordering::SeqCst);
        // SAFETY: the address space exists; the two callers above own the buffer, and QEMU
        // writes to it only for a read.
        let result = unsafe {
            (qemu().address_space_rw)(
                self.0.as_ptr(),
                address,
                MemTxAttrs::new(attributes),
                data.cast(),
                length as u64,
                write,
            )
        };
        fence(Ordering::SeqCst);
        if result == MEMTX_OK {
            Ok(())
        } else {
            Err(AccessRefused)
        }
    }

    /// Adds to the number at an address aligned to 8 bytes in one access that is also atomic for
    /// the processors, and returns the old value.
    pub fn fetch_add(
        self,
        _bql: &Bql,
        address: u64,
        attributes: u32,
        addend: u64,
    ) -> Result<u64, AccessRefused> {
        self.atomically(address, attributes, |number| {
            (number.fetch_add(addend, Ordering::SeqCst), true)
        })
    }

    /// Replaces the number at an address aligned to 8 bytes by `new` if it is `current`, in one
    /// access that is also atomic for the processors, and returns the old value.
    pub fn compare_exchange(
        self,
        address: u64,
        attributes: u32,
        current: u64,
        new: u64,
    ) -> Result<u64, AccessRefused> {
        self.atomically(address, attributes, |number| {
            match number.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(found) => (found, true),
                Err(found) => (found, false),
            }
        })
    }

    /// Copies between ranges of guest memory where they lie; the ranges may overlap. Does nothing and
    /// returns `false` if they cannot be accessed like that.
    pub fn copy(self, _bql: &Bql, source: u64, destination: u64, length: u64, flags: u32) -> bool {
        let map = |address, write| {
            self.map(address, length, flags, write)
                .filter(|mapped| mapped.length == length)
        };
        let Some((from, mut to)) = map(source, false).zip(map(destination, true)) else {
            return false;
        };
        // The processors see the accesses of this device in order, as on a bus.
        fence(Ordering::SeqCst);
        // SAFETY: both are guest memory of that many bytes, and mapped. The processors and other
        // devices may access them at the same time: no reference to them exists, and the function
        // is not Rust's.
        unsafe { libc::memmove(to.host.as_ptr(), from.host.as_ptr(), length as usize) };
        fence(Ordering::SeqCst);
        to.written = length;
        true
    }

    /// Works on the number at an address aligned to 8 bytes, which is guest memory. `work` returns
    /// whether it has changed the number. It does not wait for the BQL or any other lock.
    fn atomically<R>(
        self,
        address: u64,
        attributes: u32,
        work: impl FnOnce(&AtomicU64) -> (R, bool),
    ) -> Result<R, AccessRefused> {
        const SIZE: u64 = size_of::<u64>() as u64;
        if address % SIZE != 0 {
            return Err(AccessRefused);
        }
        let mut number = self
            .map(address, SIZE, attributes, true)
            .filter(|mapped| mapped.length == SIZE)
            .filter(|mapped| mapped.host.addr().get() % align_of::<u64>() == 0)
            .ok_or(AccessRefused)?;
        // SAFETY: eight bytes of guest memory, aligned, and mapped. The processors access them at
        // the same time, as atomically as this does. Guest memory is little-endian, as is every host
        // that this library is built for.
        let (result, changed) = work(unsafe { AtomicU64::from_ptr(number.host.as_ptr().cast()) });
        number.written = if changed { SIZE } else { 0 };
        Ok(result)
    }

    /// Maps the front of a range of guest memory; `None` if there is anything else.
    fn map(self, address: u64, length: u64, attributes: u32, write: bool) -> Option<Mapped> {
        let attributes = MemTxAttrs::new(attributes | MemTxAttrs::MEMORY);
        let mut mapped = length;
        // SAFETY: the address space exists; QEMU only writes the length.
        let host = unsafe {
            (qemu().address_space_map)(self.0.as_ptr(), address, &mut mapped, write, attributes)
        };
        let mapped = Mapped {
            space: self,
            host: NonNull::new(host)?,
            length: mapped,
            write,
            written: 0,
        };
        let mut offset = 0;
        // SAFETY: the function only compares the address with those of guest memory. Anything else
        // is a bounce buffer of QEMU, and an access to that is none to what is behind it.
        let region = unsafe { (qemu().memory_region_from_host)(host, &mut offset) };
        (!region.is_null()).then_some(mapped)
    }

    /// Writes 4 bytes as a message, without attributes: in the interrupt address range this is an
    /// interrupt.
    pub fn send_message(self, _bql: &Bql, address: u64, data: u32) {
        // SAFETY: the address space exists; the result is optional.
        unsafe {
            (qemu().address_space_stl_le)(
                self.0.as_ptr(),
                address,
                data,
                MemTxAttrs::new(0),
                std::ptr::null_mut(),
            );
        }
    }
}
