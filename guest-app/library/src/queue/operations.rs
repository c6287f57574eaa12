// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operations as safe methods: they borrow memory, submit, and wait.
//!
//! Each `unsafe` block relies on the same argument: the memory is borrowed for longer than the
//! call, shared if the device reads it and mutable (or atomic) if the device writes it, and
//! [`Queue::execute`] returns only when the device is done with it.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use svm_abi::descriptor::gather;

use super::Queue;
use crate::descriptor::{Descriptor, GatherEntry};
use crate::error::Error;

impl Queue {
    /// Most bytes of one descriptor.
    fn longest(&self) -> usize {
        1usize
            .checked_shl(self.info().transfer_log2_max)
            .unwrap_or(usize::MAX)
    }

    /// Does nothing: a round trip to the device.
    ///
    /// # Errors
    ///
    /// Those of [`Queue::push`] and [`Queue::wait`], [`Error::TimedOut`], [`Error::Failed`]; the
    /// same applies to the operations below.
    pub fn nop(&mut self) -> Result<(), Error> {
        // SAFETY: the operation reaches no memory but its record.
        unsafe { self.execute(&Descriptor::nop()) }.map(drop)
    }

    /// Copies `source` to `destination` of the same length.
    ///
    /// # Errors
    ///
    /// As [`Queue::nop`]; [`Error::Argument`] if the lengths differ. If it fails, a part may have
    /// been copied.
    pub fn copy(&mut self, source: &[u8], destination: &mut [u8]) -> Result<(), Error> {
        if source.len() != destination.len() {
            return Err(Error::Argument("source and destination differ in length"));
        }
        let longest = self.longest();
        for (from, to) in source.chunks(longest).zip(destination.chunks_mut(longest)) {
            let copy = Descriptor::copy(from.as_ptr(), to.as_mut_ptr(), from.len() as u64);
            // SAFETY: `from` and `to` are borrowed during the call.
            unsafe { self.execute(&copy) }?;
        }
        Ok(())
    }

    /// Copies the range `source` to offset `destination`, within one buffer; the two may overlap.
    ///
    /// # Errors
    ///
    /// As [`Queue::copy`]; [`Error::Argument`] if a range is not within the buffer.
    pub fn copy_within(
        &mut self,
        buffer: &mut [u8],
        source: Range<usize>,
        destination: usize,
    ) -> Result<(), Error> {
        let fits = |start: usize| {
            start
                .checked_add(source.len())
                .is_some_and(|n| n <= buffer.len())
        };
        if source.start > source.end || !fits(source.start) || !fits(destination) {
            return Err(Error::Argument("a range is not within the buffer"));
        }
        let longest = self.longest();
        let mut starts: Vec<usize> = (0..source.len()).step_by(longest).collect();
        if destination > source.start {
            // A piece may overwrite only bytes that earlier pieces have copied.
            starts.reverse();
        }
        for start in starts {
            let len = longest.min(source.len() - start);
            let base = buffer.as_mut_ptr();
            let from = base.wrapping_add(source.start + start);
            let to = base.wrapping_add(destination + start);
            // SAFETY: both ranges are within `buffer`, which is borrowed during the call.
            unsafe { self.execute(&Descriptor::copy(from, to, len as u64)) }?;
        }
        Ok(())
    }

    /// Fills the buffer with copies of the 8 bytes of `pattern`, little-endian.
    ///
    /// # Errors
    ///
    /// As [`Queue::copy`].
    pub fn fill(&mut self, destination: &mut [u8], pattern: u64) -> Result<(), Error> {
        // The longest transfer is a multiple of 8: each piece begins with the whole pattern.
        for to in destination.chunks_mut(self.longest()) {
            let fill = Descriptor::fill(to.as_mut_ptr(), to.len() as u64, pattern);
            // SAFETY: `to` is borrowed during the call.
            unsafe { self.execute(&fill) }?;
        }
        Ok(())
    }

    /// Finds the first byte that differs; `None` if all are equal.
    ///
    /// # Errors
    ///
    /// As [`Queue::nop`]; [`Error::Argument`] if the lengths differ.
    pub fn compare(&mut self, left: &[u8], right: &[u8]) -> Result<Option<usize>, Error> {
        if left.len() != right.len() {
            return Err(Error::Argument("the slices differ in length"));
        }
        let longest = self.longest();
        for (n, (l, r)) in left.chunks(longest).zip(right.chunks(longest)).enumerate() {
            let compare = Descriptor::compare(l.as_ptr(), r.as_ptr(), l.len() as u64);
            // SAFETY: `l` and `r` are borrowed during the call, and only read.
            let same = unsafe { self.execute(&compare) }?.result as usize;
            if same < l.len() {
                return Ok(Some(n * longest + same));
            }
        }
        Ok(None)
    }

    /// Computes the CRC-32C (Castagnoli), continued from `seed` (0 to begin).
    ///
    /// # Errors
    ///
    /// As [`Queue::nop`].
    pub fn crc32c(&mut self, data: &[u8], seed: u32) -> Result<u32, Error> {
        let mut checksum = seed;
        for piece in data.chunks(self.longest()) {
            let crc = Descriptor::crc32c(piece.as_ptr(), piece.len() as u64, checksum);
            // SAFETY: `piece` is borrowed during the call, and only read.
            checksum = unsafe { self.execute(&crc) }?.result as u32;
        }
        Ok(checksum)
    }

    /// Adds to a number with one atomic access and returns the number before. Processors may
    /// change the number at the same time.
    ///
    /// # Errors
    ///
    /// As [`Queue::nop`].
    pub fn fetch_add(&mut self, number: &AtomicU64, addend: u64) -> Result<u64, Error> {
        let add = Descriptor::fetch_add(number.as_ptr(), addend);
        // SAFETY: `number` is borrowed during the call. Other code may change it atomically.
        unsafe { self.execute(&add) }.map(|record| record.result)
    }

    /// Writes `new` to a number if it is `expected`, with one atomic access, and returns the
    /// number before. Processors may change the number at the same time.
    ///
    /// # Errors
    ///
    /// As [`Queue::nop`].
    pub fn compare_swap(
        &mut self,
        number: &AtomicU64,
        expected: u64,
        new: u64,
    ) -> Result<u64, Error> {
        let swap = Descriptor::compare_swap(number.as_ptr(), expected, new);
        // SAFETY: `number` is borrowed during the call. Other code may change it atomically.
        unsafe { self.execute(&swap) }.map(|record| record.result)
    }

    /// Copies slices, one after another, to the front of `destination`, and returns the number of
    /// bytes.
    ///
    /// # Errors
    ///
    /// As [`Queue::nop`]; [`Error::Argument`] if they do not fit, or are more than 65536.
    pub fn gather(&mut self, sources: &[&[u8]], destination: &mut [u8]) -> Result<usize, Error> {
        let total: usize = sources.iter().map(|source| source.len()).sum();
        let room = destination.len().min(self.longest());
        if total > room || sources.len() as u64 > gather::MAX_ENTRIES {
            return Err(Error::Argument("the sources do not fit"));
        }
        let list: Vec<GatherEntry> = sources
            .iter()
            .map(|source| GatherEntry::new(source.as_ptr(), source.len() as u64))
            .collect();
        let (entries, to) = (list.len() as u64, destination.as_mut_ptr());
        let gather = Descriptor::gather(list.as_ptr(), entries, to, room as u64);
        // SAFETY: list and sources are borrowed during the call and only read, the destination is
        // borrowed mutably.
        let record = unsafe { self.execute(&gather) }?;
        Ok(record.result as usize)
    }

    /// Makes the device request and translate the pages of a slice, for reading.
    ///
    /// # Errors
    ///
    /// As [`Queue::nop`].
    pub fn prefetch(&mut self, data: &[u8]) -> Result<(), Error> {
        for piece in data.chunks(self.longest()) {
            let prefetch = Descriptor::prefetch(piece.as_ptr(), piece.len() as u64, false);
            // SAFETY: the operation moves no data.
            unsafe { self.execute(&prefetch) }?;
        }
        Ok(())
    }

    /// Makes the device request and translate the pages of a slice, for reading and writing.
    ///
    /// # Errors
    ///
    /// As [`Queue::nop`].
    pub fn prefetch_mut(&mut self, data: &mut [u8]) -> Result<(), Error> {
        for piece in data.chunks_mut(self.longest()) {
            let prefetch = Descriptor::prefetch(piece.as_mut_ptr(), piece.len() as u64, true);
            // SAFETY: the operation moves no data.
            unsafe { self.execute(&prefetch) }?;
        }
        Ok(())
    }

    /// The IOMMU's answer for the page at an address: see [`svm_abi::descriptor::translation`].
    ///
    /// # Errors
    ///
    /// As [`Queue::nop`].
    pub fn translate<T>(&mut self, pointer: *const T, write: bool) -> Result<u64, Error> {
        let translate = Descriptor::translate(pointer.cast(), write);
        // SAFETY: the operation reaches no memory but its record.
        unsafe { self.execute(&translate) }.map(|record| record.result)
    }

    /// Drops all of the device's cached translations for the process, and returns the number of
    /// entries.
    ///
    /// # Errors
    ///
    /// As [`Queue::nop`].
    pub fn forget_all(&mut self) -> Result<u64, Error> {
        // SAFETY: the operation reaches no memory but its record.
        unsafe { self.execute(&Descriptor::forget_all()) }.map(|record| record.result)
    }

    /// Follows a chain of nodes of type `N` from `head` to a null pointer and returns the sum of
    /// their values, wrapping, and the number of nodes. See [`Descriptor::chase`].
    ///
    /// # Errors
    ///
    /// As [`Queue::nop`].
    ///
    /// # Safety
    ///
    /// Each node of the chain is readable and does not change during the call, or only by atomic
    /// accesses.
    pub unsafe fn chase<N>(
        &mut self,
        head: *const N,
        next_offset: usize,
        value_offset: usize,
        max_nodes: u64,
    ) -> Result<(u64, u64), Error> {
        let (next, value) = (next_offset as u64, value_offset as u64);
        let chase = Descriptor::chase(head.cast(), next, value, max_nodes);
        // SAFETY: the operation only reads, and the caller guarantees the nodes.
        let record = unsafe { self.execute(&chase) }?;
        Ok((record.result, record.bytes_done))
    }
}
