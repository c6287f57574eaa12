// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes an access of a BAR: the register, and the half of it. Knows no values.

use svm_abi::counters::BLOCK_SIZE;
use svm_abi::doorbell;
use svm_abi::ids::{DOORBELLS_BAR, REGISTERS_BAR};
use svm_abi::registers::{CONTEXT_COUNTERS, CONTEXT_STRIDE, CONTEXTS, DEVICE_COUNTERS, LABORATORY};

/// A register of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    /// Of the device: an offset in [`svm_abi::registers::device`].
    Device(u64),
    /// A counter of the device: its offset in the block.
    DeviceCounter(u64),
    /// Of the laboratory: an offset in [`svm_abi::registers::laboratory`].
    Laboratory(u64),
    /// Of a context: its number, and an offset in [`svm_abi::registers::context`].
    Context(usize, u64),
    /// A counter of a context: the context's number, and the offset in the block.
    ContextCounter(usize, u64),
    /// Of a doorbell page: the context's number, and an offset in [`svm_abi::doorbell`].
    Doorbell(usize, u64),
}

/// The part of a register that an access reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All 64 bits.
    Whole,
    /// Bits 31:0.
    Low,
    /// Bits 63:32.
    High,
}

impl Part {
    /// The part of a register's value.
    pub fn extract(self, value: u64) -> u64 {
        match self {
            Part::Whole => value,
            Part::Low => value & 0xffff_ffff,
            Part::High => value >> 32,
        }
    }

    /// The register's value after a write of the part.
    pub fn merge(self, old: u64, part: u64) -> u64 {
        const LOW: u64 = 0xffff_ffff;
        match self {
            Part::Whole => part,
            Part::Low => old & !LOW | part & LOW,
            Part::High => old & LOW | part << 32,
        }
    }
}

/// Finds the register of an access; none if the size or alignment is not supported.
pub(crate) fn decode(bar: u8, offset: u64, size: u8, contexts: usize) -> Option<(Register, Part)> {
    let part = match (size, offset % 8) {
        (8, 0) => Part::Whole,
        (4, 0) => Part::Low,
        (4, 4) => Part::High,
        _ => return None,
    };
    let at = offset & !7;
    let register = match bar {
        REGISTERS_BAR => register(at),
        DOORBELLS_BAR => doorbell(at),
        _ => None,
    }?;
    match register {
        Register::Context(n, _) | Register::ContextCounter(n, _) | Register::Doorbell(n, _)
            if n >= contexts =>
        {
            None
        }
        _ => Some((register, part)),
    }
}

/// The register at an offset of the register BAR.
fn register(at: u64) -> Option<Register> {
    if at >= CONTEXTS {
        let n = ((at - CONTEXTS) / CONTEXT_STRIDE) as usize;
        let at = at % CONTEXT_STRIDE;
        return Some(match counter(at, CONTEXT_COUNTERS) {
            Some(at) => Register::ContextCounter(n, at),
            None => Register::Context(n, at),
        });
    }
    if at >= LABORATORY {
        return Some(Register::Laboratory(at - LABORATORY));
    }
    Some(match counter(at, DEVICE_COUNTERS) {
        Some(at) => Register::DeviceCounter(at),
        None => Register::Device(at),
    })
}

/// The register at an offset of the doorbell BAR.
fn doorbell(at: u64) -> Option<Register> {
    let n = (at / doorbell::PAGE_SIZE) as usize;
    let at = at % doorbell::PAGE_SIZE;
    Some(match counter(at, doorbell::COUNTERS) {
        Some(at) => Register::ContextCounter(n, at),
        None => Register::Doorbell(n, at),
    })
}

/// The offset in a counter block, if the block contains the address.
fn counter(at: u64, block: u64) -> Option<u64> {
    at.checked_sub(block).filter(|at| *at < BLOCK_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use svm_abi::registers::{context, context_block, device, laboratory};

    #[test]
    fn offsets_mean_the_registers_of_the_reference() {
        let at = |bar, offset| decode(bar, offset, 8, 64).map(|(register, _)| register);
        assert_eq!(at(0, 0x08), Some(Register::Device(device::CAPABILITIES)));
        assert_eq!(at(0, 0x110), Some(Register::DeviceCounter(0x10)));
        assert_eq!(at(0, 0x170), Some(Register::Device(0x170)));
        assert_eq!(
            at(0, 0x818),
            Some(Register::Laboratory(laboratory::COMMAND))
        );
        assert_eq!(
            at(0, context_block(63) + 0x18),
            Some(Register::Context(63, context::RING))
        );
        assert_eq!(
            at(0, context_block(3) + 0x88),
            Some(Register::ContextCounter(3, 8))
        );
        assert_eq!(at(0, context_block(64)), None);
        assert_eq!(at(2, 0x5008), Some(Register::Doorbell(5, doorbell::HEAD)));
        assert_eq!(at(2, 0x5080), Some(Register::ContextCounter(5, 0)));
        assert_eq!(at(2, 0x4_0000), None);
        assert_eq!(at(4, 0), None);
        assert_eq!(at(0, !7), None);
    }

    #[test]
    fn accesses_are_aligned_wholes_and_halves() {
        let part = |offset, size| decode(0, offset, size, 64).map(|(_, part)| part);
        assert_eq!(part(0, 8), Some(Part::Whole));
        assert_eq!(part(0, 4), Some(Part::Low));
        assert_eq!(part(4, 4), Some(Part::High));
        for (offset, size) in [(0, 1), (0, 2), (4, 8), (2, 4), (6, 4), (1, 8), (0, 16)] {
            assert_eq!(part(offset, size), None, "{size} bytes at {offset}");
        }
        assert_eq!(Part::High.merge(0x1_0000_0002, 7), 0x7_0000_0002);
        assert_eq!(Part::Low.merge(0x1_0000_0002, 7), 0x1_0000_0007);
        assert_eq!(Part::High.extract(0x1_0000_0002), 1);
    }
}
