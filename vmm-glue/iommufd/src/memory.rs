// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that devices may reach. A mapping of the trait names addresses of this process; those
//! that a program has not given here are refused, so that nothing else can be mapped for a device.

use std::collections::BTreeMap;

/// The memory that was given.
#[derive(Debug, Default)]
pub struct Memory {
    /// First address and bytes.
    ranges: BTreeMap<u64, u64>,
}

impl Memory {
    /// No memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives memory of this process to devices.
    ///
    /// # Safety
    ///
    /// As long as any part of it is mapped for a device, the memory is valid, nothing that Rust
    /// takes for unchanging or its own alone lies in it, and what devices write there is expected.
    pub unsafe fn give(&mut self, address: *mut u8, length: usize) {
        self.ranges.insert(address as u64, length as u64);
    }

    /// Takes memory back. What is mapped of it stays mapped.
    pub fn take(&mut self, address: *mut u8) {
        self.ranges.remove(&(address as u64));
    }

    /// Whether a range lies in memory that was given at once.
    pub fn has(&self, address: u64, length: u64) -> bool {
        let Some(end) = address.checked_add(length) else {
            return false;
        };
        let before = self.ranges.range(..=address).next_back();
        before.is_some_and(|(first, bytes)| end <= first + bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_lies_in_one_piece_of_memory_or_not() {
        let mut memory = Memory::new();
        // SAFETY: nothing is mapped here.
        unsafe {
            memory.give(0x10_0000 as *mut u8, 0x3000);
            memory.give(0x20_0000 as *mut u8, 0x1000);
        }
        let inside = [
            (0x10_0000, 0x3000),
            (0x10_1000, 0x1000),
            (0x20_0000, 0x1000),
        ];
        assert!(
            inside
                .iter()
                .all(|(address, length)| memory.has(*address, *length))
        );
        for (address, length) in [
            (0xf_f000, 0x2000),
            (0x10_2000, 0x2000),
            (0x10_3000, 0x1000),
            (0x20_0000, u64::MAX),
            (0, 0x1000),
        ] {
            assert!(!memory.has(address, length), "{address:#x}");
        }
        memory.take(0x20_0000 as *mut u8);
        assert!(!memory.has(0x20_0000, 0x1000));
    }
}
