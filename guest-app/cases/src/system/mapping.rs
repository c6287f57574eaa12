// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mappings of every kind: of files, of huge pages, with any protection, movable and changeable.
//! The processor reads and writes them only by atomic accesses, or lets the kernel do so, so that
//! the device may access them at the same time.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Context;
use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use svmctl::region::{PAGE, Region};

/// Readable and writable.
pub const BOTH: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// Memory of whole pages that process and device may access at the same time.
pub trait Memory {
    /// Address of the byte at `offset`.
    fn at(&self, offset: usize) -> *mut u8;

    /// Length in bytes.
    fn len(&self) -> usize;

    /// Whether it has no page.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads by the processor. Ends the process if the memory is not readable.
    fn read(&self, range: Range<usize>) -> Vec<u8>;

    /// Writes by the processor. Ends the process if the memory is not writable.
    fn write(&self, offset: usize, data: &[u8]);

    /// Address of the byte at `offset` as a number.
    fn address(&self, offset: usize) -> u64 {
        self.at(offset).expose_provenance() as u64
    }
}

impl Memory for Region {
    fn at(&self, offset: usize) -> *mut u8 {
        Region::at(self, offset)
    }

    fn len(&self) -> usize {
        Region::len(self)
    }

    fn read(&self, range: Range<usize>) -> Vec<u8> {
        Region::read(self, range)
    }

    fn write(&self, offset: usize, data: &[u8]) {
        Region::write(self, offset, data);
    }
}

/// A mapping.
///
/// # Invariants
///
/// `base` is the start of `len` bytes of address space, aligned to a page, that this value alone
/// has mapped and unmaps. No reference to them other than to atomics exists while a method runs,
/// and none when it has returned.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: the mapping is the value's own, and every access to its bytes is atomic, or the kernel's.
unsafe impl Send for Mapping {}
// SAFETY: as above; what changes the mapping itself is as harmless to accesses as a signal.
unsafe impl Sync for Mapping {}

fn length(len: usize) -> io::Result<NonZeroUsize> {
    len.checked_next_multiple_of(PAGE)
        .and_then(NonZeroUsize::new)
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl Mapping {
    /// Private anonymous memory, with further flags such as `MAP_HUGETLB`.
    ///
    /// # Errors
    ///
    /// Those of `mmap`.
    pub fn anonymous(len: usize, protection: ProtFlags, flags: MapFlags) -> io::Result<Mapping> {
        let len = length(len)?;
        let flags = flags | MapFlags::MAP_PRIVATE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { mmap_anonymous(None, len, protection, flags) }?;
        Ok(Mapping {
            base: base.cast(),
            len,
        })
    }

    /// The same at an address where nothing is mapped.
    ///
    /// # Errors
    ///
    /// Those of `mmap`: `EEXIST` if something is.
    pub fn at_address(
        address: usize,
        len: usize,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> io::Result<Mapping> {
        let len = length(len)?;
        let flags = flags | MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
        let address = NonZeroUsize::new(address);
        // SAFETY: with MAP_FIXED_NOREPLACE the new mapping replaces nothing.
        let base = unsafe { mmap_anonymous(address, len, protection, flags) }?;
        Ok(Mapping {
            base: base.cast(),
            len,
        })
    }

    /// The first `len` bytes of a file, `MAP_SHARED` or `MAP_PRIVATE`.
    ///
    /// # Errors
    ///
    /// Those of `mmap`.
    pub fn file(
        file: impl AsFd,
        len: usize,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> io::Result<Mapping> {
        let len = length(len)?;
        // SAFETY: as in `anonymous`. Changes of the file by others are as harmless as those by the
        // device.
        let base = unsafe { mmap(None, len, protection, flags, file, 0) }?;
        Ok(Mapping {
            base: base.cast(),
            len,
        })
    }

    /// Takes over pages that the kernel has added to a mapping of this process, such as those of a
    /// grown stack.
    ///
    /// # Safety
    ///
    /// No other code unmaps them or refers to them.
    pub unsafe fn adopt(address: usize, len: usize) -> io::Result<Mapping> {
        let base = NonNull::new(std::ptr::with_exposed_provenance_mut(address));
        Ok(Mapping {
            base: base.ok_or(io::ErrorKind::InvalidInput)?,
            len: length(len)?,
        })
    }

    fn part(&self, range: &Range<usize>) -> NonNull<u8> {
        assert!(
            range.start <= range.end && range.end <= self.len.get(),
            "range {range:#x?} beyond the mapping's {:#x}",
            self.len
        );
        // SAFETY: the offset is within the mapping.
        unsafe { self.base.add(range.start) }
    }

    fn bytes(&self, range: &Range<usize>) -> &[AtomicU8] {
        let start = self.part(range);
        let _ = start.as_ptr().expose_provenance();
        // SAFETY: the range is mapped while `self` lives. An access that its protection, or its
        // file, does not permit ends the process by a signal and does nothing else.
        unsafe { std::slice::from_raw_parts(start.as_ptr().cast(), range.len()) }
    }

    /// Changes the protection of whole pages.
    ///
    /// # Errors
    ///
    /// Those of `mprotect`.
    pub fn protect(&self, range: Range<usize>, protection: ProtFlags) -> io::Result<()> {
        let start = self.part(&range);
        // SAFETY: the range is the value's own.
        Ok(unsafe { mprotect(start.cast(), range.len(), protection) }?)
    }

    /// Gives the kernel advice by its number.
    ///
    /// # Errors
    ///
    /// Those of `madvise`.
    pub fn advise(&self, range: Range<usize>, advice: i32) -> io::Result<()> {
        let start = self.part(&range);
        // SAFETY: the range is the value's own. Advice changes only the bytes, as another thread
        // could, and which accesses end the process.
        let result = unsafe { libc::madvise(start.as_ptr().cast(), range.len(), advice) };
        Errno::result(result)?;
        Ok(())
    }

    /// Makes the mapping longer or shorter; it may move.
    ///
    /// # Errors
    ///
    /// Those of `mremap`; the mapping is gone then.
    pub fn remap(self, len: usize) -> io::Result<Mapping> {
        let new = length(len)?;
        let (base, old) = (self.base, self.len);
        // The kernel unmaps the old one.
        std::mem::forget(self);
        let flags = libc::MREMAP_MAYMOVE;
        // SAFETY: the old range was the value's own, and is given up.
        let moved = unsafe { libc::mremap(base.as_ptr().cast(), old.get(), new.get(), flags) };
        if moved == libc::MAP_FAILED {
            let error = Errno::last();
            // SAFETY: the range is still mapped, and no value owns it any more.
            let _ = unsafe { munmap(base.cast(), old.get()) };
            return Err(error.into());
        }
        let base = NonNull::new(moved.cast()).ok_or(io::ErrorKind::Other)?;
        Ok(Mapping { base, len: new })
    }

    /// Lets the kernel read here for the process; `EFAULT` where the process could not.
    ///
    /// # Errors
    ///
    /// Those of `process_vm_readv`.
    pub fn try_read(&self, range: Range<usize>) -> Result<Vec<u8>, Errno> {
        let mut data = vec![0; range.len()];
        let remote = RemoteIoVec {
            base: self.part(&range).as_ptr().expose_provenance(),
            len: range.len(),
        };
        let mut local = [IoSliceMut::new(&mut data)];
        let read = process_vm_readv(Pid::this(), &mut local, &[remote])?;
        (read == range.len()).then_some(data).ok_or(Errno::EFAULT)
    }
}

impl Mapping {
    /// Lets the kernel write here for the process; `EFAULT` where the process could not.
    ///
    /// # Errors
    ///
    /// Those of `process_vm_writev`.
    pub fn try_write(&self, offset: usize, data: &[u8]) -> Result<(), Errno> {
        let remote = RemoteIoVec {
            base: self
                .part(&(offset..offset + data.len()))
                .as_ptr()
                .expose_provenance(),
            len: data.len(),
        };
        let written = process_vm_writev(Pid::this(), &[IoSlice::new(data)], &[remote])?;
        (written == data.len()).then_some(()).ok_or(Errno::EFAULT)
    }

    /// Reads a 64-bit register in a mapping of a device.
    pub fn read_register(&self, offset: usize) -> u64 {
        let at = self.part(&(offset..offset + 8)).cast::<u64>();
        assert!(offset % 8 == 0, "a register at {offset:#x}");
        // SAFETY: the register is within the mapping and aligned.
        unsafe { at.read_volatile() }
    }

    /// Writes a 64-bit register in a mapping of a device.
    ///
    /// # Safety
    ///
    /// The caller permits the device's reaction to the write.
    pub unsafe fn write_register(&self, offset: usize, value: u64) {
        let at = self.part(&(offset..offset + 8)).cast::<u64>();
        assert!(offset % 8 == 0, "a register at {offset:#x}");
        // SAFETY: the register is within the mapping and aligned; the caller vouches for the rest.
        unsafe { at.write_volatile(value) }
    }
}

impl Memory for Mapping {
    fn at(&self, offset: usize) -> *mut u8 {
        self.part(&(offset..offset)).as_ptr()
    }

    fn len(&self) -> usize {
        self.len.get()
    }

    fn read(&self, range: Range<usize>) -> Vec<u8> {
        let load = |byte: &AtomicU8| byte.load(Ordering::Relaxed);
        self.bytes(&range).iter().map(load).collect()
    }

    fn write(&self, offset: usize, data: &[u8]) {
        for (to, from) in self.bytes(&(offset..offset + data.len())).iter().zip(data) {
            to.store(*from, Ordering::Relaxed);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is the value's own. The code that gave its address to the device has
        // waited for the device, or maps nothing there until it has.
        let result = unsafe { munmap(self.base.cast(), self.len.get()) };
        debug_assert!(result.is_ok(), "munmap of an own mapping: {result:?}");
    }
}

/// A setting of the kernel that is restored when dropped.
#[derive(Debug)]
pub struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    /// Changes a setting.
    ///
    /// # Errors
    ///
    /// There is no such setting, or it does not accept the value.
    pub fn change(path: impl AsRef<Path>, value: &str) -> anyhow::Result<Setting> {
        let path = path.as_ref().to_owned();
        let name = || path.display().to_string();
        let before = fs::read_to_string(&path).with_context(name)?;
        fs::write(&path, value).with_context(name)?;
        Ok(Setting { before, path })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // If the setting cannot be restored, the next case that needs another value fails.
        let _ = fs::write(&self.path, self.before.trim());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_moves_with_its_contents() {
        let mapping = Mapping::anonymous(PAGE, BOTH, MapFlags::empty()).unwrap();
        mapping.write(PAGE - 2, &[1, 2]);
        let mapping = mapping.remap(64 * PAGE).unwrap();
        assert_eq!(mapping.len(), 64 * PAGE);
        assert_eq!(mapping.read(PAGE - 3..PAGE + 1), [0, 1, 2, 0]);
    }

    #[test]
    fn what_is_not_readable_is_an_error_to_the_kernel() {
        let mapping = Mapping::anonymous(2 * PAGE, BOTH, MapFlags::empty()).unwrap();
        mapping.write(PAGE, &[7]);
        mapping.protect(0..PAGE, ProtFlags::PROT_NONE).unwrap();
        assert_eq!(mapping.try_read(0..1), Err(Errno::EFAULT));
        assert_eq!(mapping.try_read(PAGE..PAGE + 1), Ok(vec![7]));
    }

    #[test]
    fn a_setting_is_put_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "old\n").unwrap();
        let setting = Setting::change(file.path(), "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        drop(setting);
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    }
}
