// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that process and device share without a borrow: anonymous pages that the program accesses
//! only atomically, so that the device may write them at any time.
//!
//! The queue's own ring is such a region. This module knows nothing of devices; it is one of the
//! few that need `unsafe`, for the system calls that map memory.

use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};

/// Size of a page in bytes: the project supports x86-64 only.
pub const PAGE: usize = 4096;

/// Advice to the kernel that changes no bytes, or changes them like another thread could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Drops the contents: the next access reads zero.
    DontNeed,
    /// Writes the pages to swap.
    PageOut,
    /// Prefers huge pages.
    HugePage,
    /// Avoids huge pages.
    NoHugePage,
    /// A child of the process finds zeros here.
    WipeOnFork,
}

impl From<Advice> for MmapAdvise {
    fn from(advice: Advice) -> Self {
        match advice {
            Advice::DontNeed => MmapAdvise::MADV_DONTNEED,
            Advice::PageOut => MmapAdvise::MADV_PAGEOUT,
            Advice::HugePage => MmapAdvise::MADV_HUGEPAGE,
            Advice::NoHugePage => MmapAdvise::MADV_NOHUGEPAGE,
            Advice::WipeOnFork => MmapAdvise::MADV_WIPEONFORK,
        }
    }
}

/// A private anonymous mapping of whole pages.
///
/// # Invariants
///
/// `base` is the start of `len` mapped bytes, aligned to a page, that only this value unmaps. They
/// are always readable, and writable outside of `read_only`. There are no references to them other
/// than to atomics.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: NonZeroUsize,
    read_only: Range<usize>,
}

// SAFETY: the region owns its mapping, and every access to the bytes is atomic.
unsafe impl Send for Region {}
// SAFETY: as above; functions that change the mapping itself take `&mut self` or `self`.
unsafe impl Sync for Region {}

impl Region {
    /// Maps at least `len` bytes, rounded up to whole pages, which read as zero and are not present
    /// before their first access.
    ///
    /// # Errors
    ///
    /// Those of `mmap`; `EINVAL` for a length of 0.
    pub fn new(len: usize) -> io::Result<Region> {
        let len = len
            .checked_next_multiple_of(PAGE)
            .and_then(NonZeroUsize::new)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
        let base = unsafe {
            mmap_anonymous(
                None,
                len,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE,
            )
        }?;
        Ok(Region {
            base: base.cast(),
            len,
            read_only: 0..0,
        })
    }

    /// Maps `len` bytes, rounded up to whole pages, at `address`.
    ///
    /// # Errors
    ///
    /// Those of `mmap`: `EEXIST` if something is mapped there, `EINVAL` if the address is not of
    /// a page.
    pub fn at_address(address: usize, len: usize) -> io::Result<Region> {
        let (Some(address), Some(len)) = (
            NonZeroUsize::new(address),
            len.checked_next_multiple_of(PAGE)
                .and_then(NonZeroUsize::new),
        ) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: with MAP_FIXED_NOREPLACE the new mapping replaces nothing.
        let base = unsafe {
            mmap_anonymous(
                Some(address),
                len,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE,
            )
        }?;
        Ok(Region {
            base: base.cast(),
            len,
            read_only: 0..0,
        })
    }

    /// Maps `len` bytes that begin at a multiple of `align`, a power of two of whole pages.
    ///
    /// # Errors
    ///
    /// As [`Region::new`].
    pub fn aligned(len: usize, align: usize) -> io::Result<Region> {
        assert!(
            align.is_power_of_two() && align >= PAGE,
            "alignment {align:#x} of a region"
        );
        let mut wide = Region::new(len.checked_add(align).ok_or(io::ErrorKind::InvalidInput)?)?;
        let start = wide.base.addr().get();
        let skip = start.next_multiple_of(align) - start;
        let mut region = if skip == 0 {
            wide
        } else {
            wide.split_off(skip)
        };
        let len = len.next_multiple_of(PAGE);
        if region.len() > len {
            drop(region.split_off(len));
        }
        Ok(region)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// Whether the length is 0, which it never is.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Address of the byte at `offset`, for descriptors.
    ///
    /// # Panics
    ///
    /// If the offset is beyond the end.
    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(
            offset <= self.len(),
            "offset {offset:#x} beyond the region's {:#x}",
            self.len()
        );
        // The provenance is exposed because the device accesses the memory by its address.
        let _ = self.base.as_ptr().expose_provenance();
        // SAFETY: the offset is within the mapping, or one past its end.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Address of the byte at `offset` as a number.
    ///
    /// # Panics
    ///
    /// If the offset is beyond the end.
    pub fn address(&self, offset: usize) -> u64 {
        self.at(offset).addr() as u64
    }

    /// The region as 64-bit numbers.
    ///
    /// # Panics
    ///
    /// If a part is read-only: a store to it would end the process.
    pub fn words(&self) -> &[AtomicU64] {
        assert!(
            self.read_only.is_empty(),
            "a part of the region is read-only"
        );
        let _ = self.base.as_ptr().expose_provenance();
        // SAFETY: the mapping is `len` readable and writable bytes, aligned to a page, a multiple
        // of 8, and lives as long as `self`; all accesses to it are atomic.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.len() / 8) }
    }

    fn bytes(&self, range: Range<usize>) -> &[AtomicU8] {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "range {range:#x?} beyond the region's {:#x}",
            self.len()
        );
        let start = self.at(range.start);
        // SAFETY: the range is readable memory that lives as long as `self`. The only function that
        // stores through the result checks that the memory is writable.
        unsafe { std::slice::from_raw_parts(start.cast(), range.len()) }
    }

    /// A copy of the bytes in `range`.
    ///
    /// # Panics
    ///
    /// If the range is beyond the end.
    pub fn read(&self, range: Range<usize>) -> Vec<u8> {
        let load = |byte: &AtomicU8| byte.load(Ordering::Relaxed);
        self.bytes(range).iter().map(load).collect()
    }

    /// Writes `data` from `offset` on.
    ///
    /// # Panics
    ///
    /// If the range is beyond the end or overlaps a read-only part.
    pub fn write(&self, offset: usize, data: &[u8]) {
        let range = offset..offset + data.len();
        assert!(
            range.end <= self.read_only.start || self.read_only.end <= range.start,
            "range {range:#x?} is read-only"
        );
        for (to, from) in self.bytes(range).iter().zip(data) {
            to.store(*from, Ordering::Relaxed);
        }
    }

    /// Gives the kernel advice about the whole region.
    ///
    /// # Errors
    ///
    /// Those of `madvise`: `EINVAL` if the kernel was built without the feature.
    pub fn advise(&self, advice: Advice) -> io::Result<()> {
        // SAFETY: the mapping is ours. The advice at most sets bytes to zero, like another thread
        // could: all accesses are atomic.
        unsafe { madvise(self.base.cast(), self.len(), advice.into()) }?;
        Ok(())
    }

    /// Makes the pages in `range` read-only and all others writable.
    ///
    /// # Errors
    ///
    /// Those of `mprotect`: `EINVAL` if the range is not of whole pages.
    ///
    /// # Panics
    ///
    /// If the range is beyond the end.
    pub fn set_read_only(&mut self, range: Range<usize>) -> io::Result<()> {
        assert!(
            range.end <= self.len(),
            "range {range:#x?} beyond the region"
        );
        let all = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the mapping is ours and stays readable.
        unsafe { mprotect(self.base.cast(), self.len(), all) }?;
        self.read_only = 0..0;
        if !range.is_empty() {
            let start = NonNull::new(self.at(range.start)).ok_or(io::ErrorKind::InvalidInput)?;
            // SAFETY: the range is within the mapping, which stays readable; `&mut self` ensures
            // that there are no references to its atomics, and later stores are checked.
            unsafe { mprotect(start.cast(), range.len(), ProtFlags::PROT_READ) }?;
            self.read_only = range;
        }
        Ok(())
    }

    /// Splits the region in two at `offset`, a multiple of the page size.
    ///
    /// # Panics
    ///
    /// If the offset is not inside the region, or a part is read-only.
    pub fn split_off(&mut self, offset: usize) -> Region {
        assert!(
            self.read_only.is_empty(),
            "a part of the region is read-only"
        );
        assert!(
            offset % PAGE == 0,
            "offset {offset:#x} is not of whole pages"
        );
        let base = NonNull::new(self.at(offset)).filter(|_| offset < self.len());
        let (Some(base), Some(front), Some(back)) = (
            base,
            NonZeroUsize::new(offset),
            NonZeroUsize::new(self.len().saturating_sub(offset)),
        ) else {
            panic!(
                "offset {offset:#x} is not inside the region's {:#x}",
                self.len()
            );
        };
        self.len = front;
        Region {
            base,
            len: back,
            read_only: 0..0,
        }
    }

    /// Unmaps the pages, and maps new ones at the same addresses, which read as zero. In between an
    /// access faults, and nobody else can get the addresses.
    ///
    /// # Errors
    ///
    /// Those of `mmap`; the region is gone then.
    pub fn map_anew(mut self) -> io::Result<Region> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED | MapFlags::MAP_NORESERVE;
        let all = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        for protection in [ProtFlags::PROT_NONE, all] {
            // SAFETY: the new mapping replaces our own, to which no references exist, since the
            // region is owned here.
            unsafe { mmap_anonymous(Some(self.base.addr()), self.len, protection, flags) }?;
        }
        self.read_only = 0..0;
        Ok(self)
    }

    /// Unmaps the region and returns its address.
    pub fn unmap(self) -> u64 {
        self.address(0)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more. The code that passed its
        // address to a device guarantees that the device is done with it.
        let result = unsafe { munmap(self.base.cast(), self.len()) };
        debug_assert!(result.is_ok(), "munmap of an own mapping: {result:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_starts_as_zeros_and_keeps_what_is_written() {
        let region = Region::new(PAGE + 1).unwrap();
        assert_eq!(region.len(), 2 * PAGE);
        assert_eq!(region.read(PAGE - 2..PAGE + 2), [0; 4]);
        region.write(PAGE - 2, &[1, 2, 3, 4]);
        assert_eq!(region.read(PAGE - 3..PAGE + 3), [0, 1, 2, 3, 4, 0]);
    }

    #[test]
    fn an_aligned_region_is_aligned_and_no_longer_than_asked_for() {
        let region = Region::aligned(3 * PAGE, 1 << 21).unwrap();
        assert_eq!(region.address(0) % (1 << 21), 0);
        assert_eq!(region.len(), 3 * PAGE);
        region.write(3 * PAGE - 1, &[7]);
    }

    #[test]
    fn discarded_pages_read_as_zero() {
        let region = Region::new(PAGE).unwrap();
        region.write(0, b"gone");
        region.advise(Advice::DontNeed).unwrap();
        assert_eq!(region.read(0..4), [0; 4]);
    }

    #[test]
    fn pages_that_are_mapped_anew_read_as_zero_at_their_old_place() {
        let mut region = Region::new(2 * PAGE).unwrap();
        region.write(0, b"gone");
        region.set_read_only(PAGE..2 * PAGE).unwrap();
        let address = region.address(0);
        let region = region.map_anew().unwrap();
        assert_eq!((region.address(0), region.len()), (address, 2 * PAGE));
        assert_eq!(region.read(0..4), [0; 4]);
        region.write(2 * PAGE - 1, &[1]);
    }

    #[test]
    #[should_panic(expected = "read-only")]
    fn a_store_to_a_read_only_part_is_refused() {
        let mut region = Region::new(2 * PAGE).unwrap();
        region.set_read_only(PAGE..2 * PAGE).unwrap();
        region.write(PAGE, &[1]);
    }

    #[test]
    fn the_other_part_stays_writable() {
        let mut region = Region::new(2 * PAGE).unwrap();
        region.set_read_only(PAGE..2 * PAGE).unwrap();
        region.write(PAGE - 1, &[1]);
        region.set_read_only(0..0).unwrap();
        region.write(PAGE, &[2]);
        assert_eq!(region.read(PAGE - 1..PAGE + 1), [1, 2]);
    }

    #[test]
    fn split_parts_are_neighbours() {
        let mut front = Region::new(3 * PAGE).unwrap();
        let back = front.split_off(PAGE);
        assert_eq!(front.address(PAGE), back.address(0));
        assert_eq!((front.len(), back.len()), (PAGE, 2 * PAGE));
    }

    #[test]
    fn a_fixed_address_replaces_nothing() {
        let region = Region::new(PAGE).unwrap();
        let address = region.address(0) as usize;
        let error = Region::at_address(address, PAGE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        let low = 0x2a5a_0000_0000;
        assert_eq!(
            Region::at_address(low, PAGE).unwrap().address(0),
            low as u64
        );
    }

    #[test]
    fn a_length_of_zero_is_refused() {
        assert!(Region::new(0).is_err());
        assert!(Region::new(usize::MAX).is_err());
    }
}
