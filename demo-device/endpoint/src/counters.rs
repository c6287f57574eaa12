// SPDX-License-Identifier: MIT OR Apache-2.0
//! A block of counters, as the registers show it.

pub(crate) use svm_abi::counters::index;
use svm_abi::counters::{BLOCK_SIZE, COUNT};

/// The counters of the device or of one context.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters([u64; COUNT]);

impl Counters {
    /// Adds to a counter. The counters wrap.
    pub fn add(&mut self, index: usize, more: u64) {
        self.0[index] = self.0[index].wrapping_add(more);
    }

    /// The counter at an offset of the block.
    pub fn read(&self, offset: u64) -> u64 {
        if offset < BLOCK_SIZE {
            self.0[offset as usize / 8]
        } else {
            0
        }
    }
}
