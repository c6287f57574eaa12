// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device file without the library's checks: wrong system calls, wrong doorbells, wrong
//! addresses. This module must not be able to harm the program itself, whatever it does to the
//! driver.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::ensure;
use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use svmctl::abi::completion::{self, Completion};
use svmctl::abi::descriptor::{self, Descriptor, Operation, flags};
use svmctl::abi::registers::status;
use svmctl::abi::{doorbell, ioctl};
use svmctl::device::{CharDevice, DeviceFile};
use svmctl::region::{PAGE, Region};

use nix::libc;

/// An address where nothing is ever mapped, aligned to a page.
pub const NOWHERE: u64 = PAGE as u64;

/// An open device file and nothing more.
#[derive(Debug)]
pub struct RawFile(File);

impl RawFile {
    /// Opens the device, without `O_NONBLOCK`.
    ///
    /// # Errors
    ///
    /// Those of `open`.
    pub fn open(path: &Path) -> io::Result<RawFile> {
        Ok(RawFile(
            OpenOptions::new().read(true).write(true).open(path)?,
        ))
    }

    /// Calls `ioctl` with a request and an argument.
    ///
    /// # Errors
    ///
    /// The driver's error.
    ///
    /// # Safety
    ///
    /// The request has no argument, or the argument is an address that the driver may access or
    /// cannot access.
    pub unsafe fn ioctl(&self, request: libc::c_ulong, argument: u64) -> Result<(), Errno> {
        // SAFETY: the caller vouches for it.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, argument) };
        Errno::result(result).map(drop)
    }

    /// Requests the information.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn info(&self) -> Result<ioctl::Info, Errno> {
        let mut info = ioctl::Info::default();
        let address = (&raw mut info).expose_provenance() as u64;
        // SAFETY: the address is that of an `Info`, which the driver writes.
        unsafe { self.ioctl(INFO, address) }?;
        Ok(info)
    }

    /// Sets up a queue.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn queue_setup(&self, queue: &ioctl::Queue) -> Result<(), Errno> {
        let address = (&raw const *queue).expose_provenance() as u64;
        // SAFETY: the address is that of a `Queue`, which the driver reads. Without a doorbell the
        // device does not use the ring.
        unsafe { self.ioctl(QUEUE_SETUP, address) }
    }

    /// Stops the queue.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn queue_stop(&self) -> Result<(), Errno> {
        // SAFETY: the request has no argument.
        unsafe { self.ioctl(QUEUE_STOP, 0) }
    }

    /// Attaches an eventfd.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn eventfd(&self, eventfd: &ioctl::Eventfd) -> Result<(), Errno> {
        let address = (&raw const *eventfd).expose_provenance() as u64;
        // SAFETY: the address is that of an `Eventfd`, which the driver reads.
        unsafe { self.ioctl(EVENTFD, address) }
    }

    /// Sets the interrupt moderation.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn moderation(&self, moderation: &ioctl::Moderation) -> Result<(), Errno> {
        let address = (&raw const *moderation).expose_provenance() as u64;
        // SAFETY: the address is that of a `Moderation`, which the driver reads.
        unsafe { self.ioctl(MODERATION, address) }
    }

    /// Maps the file and immediately unmaps it.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn try_map(
        &self,
        length: usize,
        protection: ProtFlags,
        flags: MapFlags,
        offset: i64,
    ) -> Result<(), Errno> {
        let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing, and is
        // never accessed.
        let address = unsafe { mmap(None, length, protection, flags, &self.0, offset) }?;
        // SAFETY: the mapping was created above, and no other code uses it.
        unsafe { munmap(address, length.get()) }
    }

    /// Reads up to `length` bytes.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn read(&self, length: usize) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; length];
        let read = nix::unistd::read(&self.0, &mut buffer)?;
        buffer.truncate(read);
        Ok(buffer)
    }
}

impl AsFd for RawFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<RawFile> for OwnedFd {
    fn from(file: RawFile) -> OwnedFd {
        file.0.into()
    }
}

impl From<OwnedFd> for RawFile {
    fn from(file: OwnedFd) -> RawFile {
        RawFile(file.into())
    }
}

/// Checks that this process can only poll and close a file that another address space has opened.
///
/// # Errors
///
/// It can do more.
pub fn expect_no_right(file: &RawFile) -> anyhow::Result<()> {
    let queue = ioctl::Queue {
        ring: NOWHERE,
        ..ioctl::Queue::default()
    };
    expect_errno("INFO", file.info(), Errno::EPERM)?;
    expect_errno("QUEUE_SETUP", file.queue_setup(&queue), Errno::EPERM)?;
    expect_errno("QUEUE_STOP", file.queue_stop(), Errno::EPERM)?;
    expect_errno("read", file.read(8), Errno::EPERM)?;
    let (both, shared) = (
        ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        MapFlags::MAP_SHARED,
    );
    let map = file.try_map(ioctl::DOORBELL_SIZE, both, shared, 0);
    expect_errno("mmap", map, Errno::EPERM)?;
    poll_fd(file.0.as_fd(), PollTimeout::ZERO)?;
    Ok(())
}

/// Numbers of the requests.
pub const INFO: libc::c_ulong = nix::request_code_none!(ioctl::TYPE, ioctl::INFO);
/// As above.
pub const QUEUE_SETUP: libc::c_ulong = nix::request_code_none!(ioctl::TYPE, ioctl::QUEUE_SETUP);
const EVENTFD: libc::c_ulong = nix::request_code_none!(ioctl::TYPE, ioctl::EVENTFD);
const MODERATION: libc::c_ulong = nix::request_code_none!(ioctl::TYPE, ioctl::MODERATION);
/// As above.
pub const QUEUE_STOP: libc::c_ulong = nix::request_code_none!(ioctl::TYPE, ioctl::QUEUE_STOP);

/// Checks that a call failed with this error.
///
/// # Errors
///
/// It did not.
pub fn expect_errno<T: std::fmt::Debug>(
    what: &str,
    result: Result<T, Errno>,
    expected: Errno,
) -> anyhow::Result<()> {
    match result {
        Err(error) if error == expected => Ok(()),
        other => anyhow::bail!("{what}: {other:?}, {expected:?} was expected"),
    }
}

/// A queue whose doorbell and descriptors the test controls. Its memory is a region, and the device
/// accesses other memory only if a descriptor refers to it.
#[derive(Debug)]
pub struct RawQueue {
    /// Closed before the memory is unmapped.
    file: CharDevice,
    memory: Region,
    ring: u64,
    log2: u32,
    submitted: u64,
}

/// Offset of the records in the memory.
const RECORDS: usize = 16 * PAGE;

impl RawQueue {
    /// Opens the device and starts a ring of `1 << log2` descriptors, at most 1024.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn start(device: &Path, log2: u32) -> anyhow::Result<RawQueue> {
        ensure!(
            descriptor::SIZE << log2 <= RECORDS,
            "a ring of 2^{log2} is too large"
        );
        let memory = Region::new(2 * RECORDS)?;
        let mut queue = RawQueue {
            file: CharDevice::open(device)?,
            ring: memory.address(0),
            memory,
            log2,
            submitted: 0,
        };
        queue.set_up()?;
        Ok(queue)
    }

    /// Opens the device and starts a ring at an address, which need not be mapped.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn start_at(device: &Path, ring: u64, log2: u32) -> anyhow::Result<RawQueue> {
        let mut queue = RawQueue {
            file: CharDevice::open(device)?,
            ring,
            memory: Region::new(2 * RECORDS)?,
            log2,
            submitted: 0,
        };
        queue.set_up()?;
        Ok(queue)
    }

    /// Starts the stopped context.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn set_up(&mut self) -> io::Result<()> {
        let queue = ioctl::Queue {
            ring: self.ring,
            ring_log2: self.log2,
            ..ioctl::Queue::default()
        };
        self.submitted = 0;
        // Removes the records of an earlier start.
        self.memory.write(RECORDS, &[0; RECORDS]);
        // SAFETY: the ring is in the region, which is accessed atomically and unmapped after the
        // file is closed; or it is at an unmapped address.
        unsafe { self.file.queue_setup(&queue) }
    }

    /// Stops the context.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn stop(&mut self) -> io::Result<()> {
        self.file.queue_stop()
    }

    /// Stops the context and starts it again.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop()?;
        Ok(self.set_up()?)
    }

    /// Sets the eventfd that the context's interrupts signal, or removes it.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn set_eventfd(&self, eventfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.file.set_eventfd(eventfd)
    }

    /// Sets how many completions raise an interrupt.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn set_moderation(&self, moderation: &ioctl::Moderation) -> io::Result<()> {
        self.file.set_moderation(moderation)
    }

    /// Address of completion record `n`.
    pub fn record_address(&self, n: u64) -> u64 {
        self.memory.address(RECORDS) + n * completion::SIZE as u64
    }

    /// Only writes a descriptor to its place.
    ///
    /// # Safety
    ///
    /// Until the queue is dropped, the device may perform the descriptor.
    pub unsafe fn write(&self, number: u64, words: &Descriptor) {
        let place = (number & ((1 << self.log2) - 1)) as usize;
        self.memory
            .write(place * descriptor::SIZE, &words.to_bytes());
    }

    /// Writes the doorbell.
    pub fn ring_to(&mut self, tail: u64) {
        std::sync::atomic::fence(Ordering::SeqCst);
        // SAFETY: the caller of `write` has promised for each descriptor in the ring that the
        // device may perform it. Places without a written descriptor hold zeros, which do nothing.
        unsafe { self.file.write_tail(tail) };
    }

    /// Submits the next descriptor.
    ///
    /// # Safety
    ///
    /// As [`RawQueue::write`].
    pub unsafe fn submit(&mut self, words: &Descriptor) {
        // SAFETY: the caller vouches for it.
        unsafe { self.write(self.submitted, words) };
        self.submitted += 1;
        self.ring_to(self.submitted);
    }

    /// Fills each page of `memory` with a separate descriptor, each with a record and an interrupt,
    /// without waiting for any. The ring must have room for them.
    ///
    /// # Safety
    ///
    /// Until the queue is closed, the memory stays mapped, or is unmapped with nothing mapped in
    /// its place.
    pub unsafe fn fill_pages(&mut self, memory: &Region, value: u64) {
        for offset in (0..memory.len()).step_by(PAGE) {
            let place = self.submitted & ((1 << self.log2) - 1);
            let words = Descriptor {
                operation: Operation::Fill as u8,
                flags: flags::BLOCK_ON_FAULT | flags::INTERRUPT,
                completion: self.record_address(place),
                destination: memory.address(offset),
                length: PAGE as u64,
                operand0: value,
                ..Descriptor::default()
            };
            // SAFETY: the caller vouches for the memory; the record belongs to the queue.
            unsafe { self.submit(&words) };
        }
    }

    /// Waits until the first `count` records are written.
    ///
    /// # Errors
    ///
    /// Nothing happened for a minute, or the context has stopped or is gone.
    pub fn wait_records(&self, count: u64) -> anyhow::Result<Vec<Completion>> {
        loop {
            let records: Vec<_> = (0..count).filter_map(|n| self.record(n)).collect();
            if records.len() as u64 == count {
                return Ok(records);
            }
            let events = self.poll()?;
            ensure!(
                events.contains(PollFlags::POLLIN),
                "{} of {count} records came, then {events:?}",
                records.len()
            );
            self.read()?;
        }
    }

    /// Record `n`, if it was written.
    pub fn record(&self, n: u64) -> Option<Completion> {
        let start = RECORDS + n as usize * completion::SIZE;
        // The status first: everything read after it is at least as new.
        let status = self.memory.words()[start / 8].load(Ordering::Acquire) as u8;
        let bytes = self.memory.read(start..start + completion::SIZE);
        let record = Completion::from_bytes(&bytes.try_into().ok()?);
        (status != completion::status::PENDING).then_some(record)
    }

    /// Sleeps until the file reports events, and returns them.
    ///
    /// # Errors
    ///
    /// Nothing happened within a minute.
    pub fn poll(&self) -> anyhow::Result<PollFlags> {
        let events = poll_fd(self.file.interrupts(), PollTimeout::from(60_000u16))?;
        ensure!(!events.is_empty(), "poll: nothing came within a minute");
        Ok(events)
    }

    /// The file's current events.
    ///
    /// # Errors
    ///
    /// Those of `poll`.
    pub fn poll_now(&self) -> anyhow::Result<PollFlags> {
        poll_fd(self.file.interrupts(), PollTimeout::ZERO)
    }

    /// Takes the number of interrupts.
    ///
    /// # Errors
    ///
    /// The driver's error.
    pub fn read(&self) -> Result<u64, Errno> {
        let mut count = [0; 8];
        nix::unistd::read(self.file.interrupts(), &mut count)?;
        Ok(u64::from_ne_bytes(count))
    }

    /// State and error of the context, from its `STATUS`.
    pub fn state(&self) -> (u8, u8) {
        let value = self.file.read_doorbell(doorbell::STATUS);
        (status::state(value), status::error(value))
    }

    /// A register of the doorbell page.
    pub fn register(&self, offset: u64) -> u64 {
        self.file.read_doorbell(offset)
    }

    /// Another mapping of the doorbell page.
    ///
    /// # Errors
    ///
    /// Those of `mmap`.
    pub fn doorbell_page(&self) -> io::Result<MmapRaw> {
        MmapOptions::new()
            .len(ioctl::DOORBELL_SIZE)
            .map_raw(self.as_fd().as_raw_fd())
    }

    /// Writes a value to all registers of the doorbell page but `TAIL`, through a separate mapping.
    ///
    /// # Errors
    ///
    /// Those of `mmap`.
    pub fn write_others(&self, value: u64) -> io::Result<()> {
        let page = self.doorbell_page()?;
        for offset in (0..ioctl::DOORBELL_SIZE).step_by(8) {
            if offset as u64 != doorbell::TAIL {
                let register = page.as_mut_ptr().wrapping_add(offset);
                // SAFETY: the register is within the mapped page, and aligned. It is not the one
                // that makes the device work.
                unsafe { register.cast::<u64>().write_volatile(value) };
            }
        }
        Ok(())
    }

    /// A counter of the context.
    pub fn counter(&self, index: usize) -> u64 {
        self.register(doorbell::COUNTERS + 8 * index as u64)
    }
}

fn poll_fd(fd: BorrowedFd<'_>, timeout: PollTimeout) -> anyhow::Result<PollFlags> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, timeout)?;
    Ok(fds[0].revents().unwrap_or(PollFlags::empty()))
}

impl AsFd for RawQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.interrupts()
    }
}
