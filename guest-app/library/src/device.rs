// SPDX-License-Identifier: MIT OR Apache-2.0
//! The open device file: its ioctls and its doorbell page. Of the modules that need `unsafe`, this
//! one makes the system calls; it knows nothing of rings and tickets.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use svm_abi::{doorbell, ioctl};

use crate::region::{Advice, PAGE, Region};

/// Number of attempts to stop a context before a time-out is an error.
const STOP_ATTEMPTS: u32 = 10;

/// What the queue needs from an open device file.
///
/// [`CharDevice`] is the real one; [`crate::model::Model`] does the same in software.
///
/// # Safety
///
/// The queue frees memory, and returns borrowed memory, based on these guarantees of an
/// implementation:
///
/// * the device accesses memory only for descriptors between the doorbell's tail and the head;
/// * once it has written a completion record, the operation is over;
/// * once [`queue_stop`](DeviceFile::queue_stop) has returned `Ok`, or any method has failed with
///   `ENODEV`, the device accesses no memory for this context until `queue_setup`.
pub unsafe trait DeviceFile: Send {
    /// The device's properties. Errors as the ioctl `INFO`.
    fn info(&self) -> io::Result<ioctl::Info>;

    /// Starts the context on a ring. Errors as the ioctl `QUEUE_SETUP`.
    ///
    /// # Safety
    ///
    /// The ring is memory that stays mapped until the queue is stopped, and that is changed only by
    /// atomic accesses.
    unsafe fn queue_setup(&mut self, queue: &ioctl::Queue) -> io::Result<()>;

    /// Stops the context. Errors as the ioctl `QUEUE_STOP`.
    fn queue_stop(&mut self) -> io::Result<()>;

    /// Reads the 64-bit register at `offset` of the doorbell page.
    fn read_doorbell(&self, offset: u64) -> u64;

    /// Writes the tail.
    ///
    /// # Safety
    ///
    /// The descriptors up to the tail contain no address of memory that the device must not access.
    unsafe fn write_tail(&self, tail: u64);

    /// Sets or removes the eventfd to signal at the context's interrupts. Errors as the ioctl
    /// `EVENTFD`; `EOPNOTSUPP` if not supported.
    fn set_eventfd(&self, _eventfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        Err(Errno::EOPNOTSUPP.into())
    }

    /// Sets the number of completions for one interrupt. Errors as the ioctl `MODERATION`;
    /// `EOPNOTSUPP` if not supported.
    fn set_moderation(&self, _moderation: &ioctl::Moderation) -> io::Result<()> {
        Err(Errno::EOPNOTSUPP.into())
    }

    /// The descriptor to read, without blocking, and to poll for the number of interrupts.
    fn interrupts(&self) -> BorrowedFd<'_>;
}

/// The system calls by their numbers.
mod call {
    use svm_abi::ioctl::{
        EVENTFD, Eventfd, INFO, Info, MODERATION, Moderation, QUEUE_SETUP, QUEUE_STOP, Queue, TYPE,
    };

    // The size is in the structures, and not in the numbers.
    nix::ioctl_read_bad!(info, nix::request_code_none!(TYPE, INFO), Info);
    nix::ioctl_write_ptr_bad!(
        queue_setup,
        nix::request_code_none!(TYPE, QUEUE_SETUP),
        Queue
    );
    nix::ioctl_none!(queue_stop, TYPE, QUEUE_STOP);
    nix::ioctl_write_ptr_bad!(eventfd, nix::request_code_none!(TYPE, EVENTFD), Eventfd);
    nix::ioctl_write_ptr_bad!(
        moderation,
        nix::request_code_none!(TYPE, MODERATION),
        Moderation
    );
}

/// The mapping of a doorbell page, which belongs to the process that created it.
///
/// A child of `fork` does not inherit the page, and may have anything else at its address.
#[derive(Debug)]
struct DoorbellPage {
    page: ManuallyDrop<MmapRaw>,
    /// A word that is 1 in the process that created the mapping, and 0 in its children.
    mark: Region,
}

impl DoorbellPage {
    fn map(file: &File) -> io::Result<Self> {
        let mark = Region::new(PAGE)?;
        mark.advise(Advice::WipeOnFork)?;
        mark.words()[0].store(1, Ordering::Relaxed);
        let page = MmapOptions::new().len(ioctl::DOORBELL_SIZE).map_raw(file)?;
        Ok(DoorbellPage {
            page: ManuallyDrop::new(page),
            mark,
        })
    }

    fn is_ours(&self) -> bool {
        self.mark.words()[0].load(Ordering::Relaxed) != 0
    }
}

impl Drop for DoorbellPage {
    fn drop(&mut self) {
        if self.is_ours() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.page) };
        }
    }
}

/// An open `/dev/svmN` with its doorbell page mapped.
#[derive(Debug)]
pub struct CharDevice {
    /// Unmapped before the file is closed.
    doorbell: DoorbellPage,
    file: File,
}

impl CharDevice {
    /// Opens the file and maps the doorbell page.
    ///
    /// # Errors
    ///
    /// Those of the driver's `open` and `mmap`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)?;
        // The first ioctl comes before the mapping: it fails with ENOTTY for a file that is not a
        // device.
        info(&file)?;
        let doorbell = DoorbellPage::map(&file)?;
        Ok(CharDevice { doorbell, file })
    }
}

fn info(file: &File) -> io::Result<ioctl::Info> {
    let mut info = ioctl::Info::default();
    // SAFETY: the kernel writes an `Info`, for which `info` is valid memory.
    unsafe { call::info(file.as_raw_fd(), &mut info) }?;
    Ok(info)
}

// SAFETY: the device fulfils the contract by its specification (a completion record is written
// last, STOP waits for the accesses in progress), and the driver by waiting for STOP; when a device
// is removed, its driver ends the bond before any call returns ENODEV.
unsafe impl DeviceFile for CharDevice {
    fn info(&self) -> io::Result<ioctl::Info> {
        info(&self.file)
    }

    unsafe fn queue_setup(&mut self, queue: &ioctl::Queue) -> io::Result<()> {
        // SAFETY: the kernel reads a `Queue`; the caller guarantees the requirements on the ring.
        unsafe { call::queue_setup(self.file.as_raw_fd(), queue) }?;
        Ok(())
    }

    fn queue_stop(&mut self) -> io::Result<()> {
        let mut patience = STOP_ATTEMPTS;
        loop {
            // SAFETY: the ioctl has no argument and writes no memory of the process.
            match unsafe { call::queue_stop(self.file.as_raw_fd()) } {
                Err(Errno::EINTR) => {}
                // The driver has waited for a response to a page request, and none came.
                Err(Errno::ETIMEDOUT) if patience > 0 => patience -= 1,
                other => return Ok(other.map(drop)?),
            }
        }
    }

    fn read_doorbell(&self, offset: u64) -> u64 {
        assert!(
            offset % 8 == 0 && offset < doorbell::PAGE_SIZE,
            "doorbell offset {offset:#x}"
        );
        // SAFETY: the offset is within the mapped page and aligned for a `u64`. The access is
        // volatile because the page contains device registers, not memory.
        unsafe {
            self.doorbell
                .page
                .as_ptr()
                .add(offset as usize)
                .cast::<u64>()
                .read_volatile()
        }
    }

    unsafe fn write_tail(&self, tail: u64) {
        let page = self.doorbell.page.as_mut_ptr();
        let register = page.wrapping_add(doorbell::TAIL as usize);
        // SAFETY: the register is within the mapped page, aligned, and written by one access of 8
        // bytes, as the device requires; the caller is responsible for the effects of the write.
        unsafe { register.cast::<u64>().write_volatile(tail) }
    }

    fn set_eventfd(&self, eventfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let argument = ioctl::Eventfd {
            fd: eventfd.map_or(-1, |eventfd| eventfd.as_raw_fd()),
            ..ioctl::Eventfd::default()
        };
        // SAFETY: the kernel reads an `Eventfd`, and takes its own reference to the file.
        unsafe { call::eventfd(self.file.as_raw_fd(), &argument) }?;
        Ok(())
    }

    fn set_moderation(&self, moderation: &ioctl::Moderation) -> io::Result<()> {
        // SAFETY: the kernel reads a `Moderation`.
        unsafe { call::moderation(self.file.as_raw_fd(), moderation) }?;
        Ok(())
    }

    fn interrupts(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::mman::{MmapAdvise, madvise};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    use std::ptr::NonNull;

    /// A file that stands in for the driver.
    fn file() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(ioctl::DOORBELL_SIZE as u64).unwrap();
        file
    }

    /// Like the driver's mapping: a child has a hole in its place.
    fn page(file: &File) -> DoorbellPage {
        let page = DoorbellPage::map(file).unwrap();
        let start = NonNull::new(page.page.as_mut_ptr()).unwrap();
        // SAFETY: the advice changes nothing in this process.
        unsafe { madvise(start.cast(), PAGE, MmapAdvise::MADV_DONTFORK) }.unwrap();
        page
    }

    /// Has a child of one thread do something that allocates nothing, and requires what it says.
    /// Nothing else is mapped in the child meanwhile, unlike in this process with its other tests.
    fn in_a_child(succeeds: impl FnOnce() -> bool) {
        // SAFETY: the child allocates nothing and ends by `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let status = i32::from(!succeeds());
                // SAFETY: ends the process without running the parent's exit handlers.
                unsafe { nix::libc::_exit(status) }
            }
            ForkResult::Parent { child } => {
                let ended = waitpid(child, None).unwrap();
                assert_eq!(ended, WaitStatus::Exited(child, 0));
            }
        }
    }

    #[test]
    fn a_child_that_drops_a_queue_keeps_what_it_has_at_the_address_of_the_doorbell() {
        let page = page(&file());
        let address = page.page.as_ptr().addr();
        in_a_child(|| match Region::at_address(address, PAGE) {
            Ok(own) => {
                drop(page);
                // With the page gone, this access would be a SIGSEGV.
                own.write(8, &[7]);
                own.read(8..9) == [7]
            }
            Err(_) => false,
        });
    }

    #[test]
    fn the_process_that_mapped_the_doorbell_unmaps_it() {
        let file = file();
        in_a_child(|| {
            let page = page(&file);
            let address = page.page.as_ptr().addr();
            let taken = Region::at_address(address, PAGE).is_err();
            drop(page);
            taken && Region::at_address(address, PAGE).is_ok()
        });
    }
}
