// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors for programs that submit work themselves: the operation, and its addresses.
//!
//! Creating a descriptor is safe, whatever its addresses; submitting it is not.

use svm_abi::descriptor::{self as abi, Operation, flags, operand};

/// One piece of work.
///
/// By default it sends the context's interrupt when it has completed, and requests pages that are
/// not present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(abi::Descriptor);

/// A range in the list of [`Descriptor::gather`], in the device's format.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct GatherEntry {
    address: u64,
    length: u64,
}

impl GatherEntry {
    /// `length` bytes from `start` on.
    pub fn new(start: *const u8, length: u64) -> Self {
        GatherEntry {
            address: address(start),
            length,
        }
    }

    /// The entry as stored in memory.
    pub fn to_bytes(&self) -> [u8; abi::gather::ENTRY_SIZE as usize] {
        let mut bytes = [0; abi::gather::ENTRY_SIZE as usize];
        let word = |at: usize| at..at + 8;
        bytes[word(abi::gather::ADDRESS)].copy_from_slice(&self.address.to_le_bytes());
        bytes[word(abi::gather::LENGTH)].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }
}

impl Descriptor {
    fn new(operation: Operation) -> Self {
        let mut flags = flags::INTERRUPT;
        if !matches!(
            operation,
            Operation::Nop | Operation::Drain | Operation::Translate | Operation::CacheControl
        ) {
            flags |= flags::BLOCK_ON_FAULT;
        }
        Descriptor(abi::Descriptor {
            operation: operation as u8,
            flags,
            ..abi::Descriptor::default()
        })
    }

    /// Does nothing.
    pub fn nop() -> Self {
        Self::new(Operation::Nop)
    }

    /// Copies `length` bytes; the ranges may overlap.
    pub fn copy(source: *const u8, destination: *mut u8, length: u64) -> Self {
        let mut this = Self::new(Operation::Copy);
        this.0.source = address(source);
        this.0.destination = address(destination);
        this.0.length = length;
        this
    }

    /// Fills the range with copies of the 8 bytes of `pattern`, little-endian.
    pub fn fill(destination: *mut u8, length: u64, pattern: u64) -> Self {
        let mut this = Self::new(Operation::Fill);
        this.0.destination = address(destination);
        this.0.length = length;
        this.0.operand0 = pattern;
        this
    }

    /// Finds the offset of the first byte that differs; `length` if none does.
    pub fn compare(left: *const u8, right: *const u8, length: u64) -> Self {
        let mut this = Self::new(Operation::Compare);
        this.0.source = address(left);
        this.0.destination = address(right);
        this.0.length = length;
        this
    }

    /// Computes the CRC-32C, continued from `seed` (0 to begin).
    pub fn crc32c(source: *const u8, length: u64, seed: u32) -> Self {
        let mut this = Self::new(Operation::Crc32c);
        this.0.source = address(source);
        this.0.length = length;
        this.0.operand0 = seed.into();
        this
    }

    /// Adds to a number with one atomic access; the result is the number before.
    pub fn fetch_add(number: *mut u64, addend: u64) -> Self {
        let mut this = Self::new(Operation::FetchAdd);
        this.0.destination = address(number.cast_const());
        this.0.operand0 = addend;
        this
    }

    /// Follows a chain of at most `max_nodes` nodes and adds up their values; the offsets of the
    /// pointer to the next node and of the value are in bytes from the start of a node.
    pub fn chase(head: *const u8, next_offset: u64, value_offset: u64, max_nodes: u64) -> Self {
        let mut this = Self::new(Operation::Chase);
        this.0.source = address(head);
        this.0.length = max_nodes;
        this.0.operand0 = next_offset;
        this.0.operand1 = value_offset;
        this
    }

    /// Completes when all earlier descriptors of the context have.
    pub fn drain() -> Self {
        Self::new(Operation::Drain)
    }

    /// Writes `new` to a number if it is `expected`, with one atomic access; the result is the
    /// number before.
    pub fn compare_swap(number: *mut u64, expected: u64, new: u64) -> Self {
        let mut this = Self::new(Operation::CompareSwap);
        this.0.destination = address(number.cast_const());
        this.0.operand0 = expected;
        this.0.operand1 = new;
        this
    }

    /// Copies the ranges of a list of `entries`, one after another, at most `room` bytes; the
    /// result is the number of bytes.
    pub fn gather(list: *const GatherEntry, entries: u64, destination: *mut u8, room: u64) -> Self {
        let mut this = Self::new(Operation::Gather);
        this.0.source = address(list);
        this.0.length = entries;
        this.0.destination = address(destination.cast_const());
        this.0.operand0 = room;
        this
    }

    /// Translates `length` bytes, and requests their absent pages, for reading, or also for
    /// writing.
    pub fn prefetch(start: *const u8, length: u64, write: bool) -> Self {
        let mut this = Self::new(Operation::Prefetch);
        this.0.source = address(start);
        this.0.length = length;
        this.0.operand0 = if write { operand::WRITE } else { 0 };
        this
    }

    /// Asks the IOMMU about the page at an address; the result has the format of
    /// [`svm_abi::descriptor::translation`].
    pub fn translate(page: *const u8, write: bool) -> Self {
        let mut this = Self::new(Operation::Translate);
        this.0.source = address(page);
        this.0.operand0 = if write { operand::WRITE } else { 0 };
        this
    }

    /// Drops the device's cached translations of `length` bytes; the result is the number of
    /// entries.
    pub fn forget(start: *const u8, length: u64) -> Self {
        let mut this = Self::new(Operation::CacheControl);
        this.0.source = address(start);
        this.0.length = length;
        this
    }

    /// Drops all of the device's cached translations for the process; the result is the number of
    /// entries.
    pub fn forget_all() -> Self {
        let mut this = Self::new(Operation::CacheControl);
        this.0.operand0 = operand::ALL;
        this
    }

    /// Performs the `entries` descriptors of an array; see [`crate::Batch`].
    pub fn batch(array: *const u8, entries: u64) -> Self {
        let mut this = Self::new(Operation::Batch);
        this.0.source = address(array);
        this.0.length = entries;
        this
    }

    /// A descriptor of exactly these words, valid or not. Submitting it replaces the completion
    /// address.
    pub fn from_raw(words: abi::Descriptor) -> Self {
        Descriptor(words)
    }

    /// Starts only when all earlier descriptors have completed.
    #[must_use]
    pub fn fenced(mut self) -> Self {
        self.0.flags |= flags::FENCE;
        self
    }

    /// Sends no interrupt: for all but the last of several. Waiting for such a descriptor keeps
    /// the processor busy.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.0.flags &= !flags::INTERRUPT;
        self
    }

    /// Fails at the first page that is not present.
    #[must_use]
    pub fn without_page_requests(mut self) -> Self {
        self.0.flags &= !flags::BLOCK_ON_FAULT;
        self
    }

    /// The words, with the address of the completion record.
    pub(crate) fn words(&self, completion: u64) -> abi::Descriptor {
        abi::Descriptor {
            completion,
            ..self.0
        }
    }

    /// Whether its completion is announced by an interrupt.
    pub(crate) fn interrupts(&self) -> bool {
        self.0.flags & flags::INTERRUPT != 0
    }
}

/// The number that the device gets for a pointer. The device acts like another thread that
/// recreates the pointer from the number, so the provenance has to be exposed.
fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    #[test]
    fn words_are_where_the_operation_wants_them() {
        let at = |address| ptr::without_provenance_mut::<u8>(address);
        let copy = Descriptor::copy(at(0x1000), at(0x2000), 3).words(0x40);
        assert_eq!(copy.operation, Operation::Copy as u8);
        assert_eq!(
            (copy.source, copy.destination, copy.length),
            (0x1000, 0x2000, 3)
        );
        assert_eq!(copy.completion, 0x40);
        assert_eq!(copy.flags, flags::INTERRUPT | flags::BLOCK_ON_FAULT);

        let chase = Descriptor::chase(at(0x3000), 8, 16, 99).words(0);
        assert_eq!((chase.source, chase.length), (0x3000, 99));
        assert_eq!((chase.operand0, chase.operand1), (8, 16));
    }

    #[test]
    fn a_list_to_gather_is_laid_out_as_the_device_reads_it() {
        assert_eq!(size_of::<GatherEntry>() as u64, abi::gather::ENTRY_SIZE);
        let offsets = [
            std::mem::offset_of!(GatherEntry, address),
            std::mem::offset_of!(GatherEntry, length),
        ];
        assert_eq!(offsets, [abi::gather::ADDRESS, abi::gather::LENGTH]);
        let list = ptr::without_provenance::<GatherEntry>(0x1000);
        let to = ptr::without_provenance_mut::<u8>(0x2000);
        let gather = Descriptor::gather(list, 3, to, 100).words(0);
        assert_eq!((gather.source, gather.length), (0x1000, 3));
        assert_eq!((gather.destination, gather.operand0), (0x2000, 100));
    }

    #[test]
    fn flags_come_and_go() {
        let nop = Descriptor::nop().quiet().fenced();
        assert_eq!(nop.words(0).flags, flags::FENCE);
        assert!(!nop.interrupts());
        let fill = Descriptor::fill(ptr::null_mut(), 8, 0).without_page_requests();
        assert_eq!(fill.words(0).flags, flags::INTERRUPT);
    }
}
