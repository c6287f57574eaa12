// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors for those who submit work themselves: which operation, on which addresses.
//!
//! Making a descriptor is safe, whatever it names; submitting it is not.

use svm_abi::descriptor::{self as abi, Operation, flags};

/// One piece of work.
///
/// Unless said otherwise it sends the context's interrupt when it has completed, and pages that
/// are not present are requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(abi::Descriptor);

impl Descriptor {
    fn new(operation: Operation) -> Self {
        let mut flags = flags::INTERRUPT;
        if operation != Operation::Nop {
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

    /// Writes the 8 bytes of `pattern`, little-endian, over and over.
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

    /// A descriptor of these very words, right or wrong. The completion address is replaced when
    /// it is submitted.
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

/// The number that the device gets for a pointer. The device acts as another thread that makes
/// the pointer anew from the number: the provenance has to be exposed for it.
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
    fn flags_come_and_go() {
        let nop = Descriptor::nop().quiet().fenced();
        assert_eq!(nop.words(0).flags, flags::FENCE);
        assert!(!nop.interrupts());
        let fill = Descriptor::fill(ptr::null_mut(), 8, 0).without_page_requests();
        assert_eq!(fill.words(0).flags, flags::INTERRUPT);
    }
}
