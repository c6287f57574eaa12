// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device's counters for a context, and the difference between two moments.

use std::collections::BTreeMap;

use svm_abi::counters::{COUNT, COUNTERS};

/// The counters of one context at one moment, or the change between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters([u64; COUNT]);

impl Counters {
    /// Reads each counter with `read`, which gets its position in the block.
    pub fn read(read: impl Fn(usize) -> u64) -> Self {
        Counters(std::array::from_fn(read))
    }

    /// The counter at a position of [`svm_abi::counters::index`]; 0 beyond the block.
    pub fn get(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// The change since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Counters) -> Counters {
        Counters(std::array::from_fn(|n| {
            self.0[n].wrapping_sub(earlier.0[n])
        }))
    }

    /// The sum of two changes.
    #[must_use]
    pub fn plus(&self, other: &Counters) -> Counters {
        Counters(std::array::from_fn(|n| self.0[n].wrapping_add(other.0[n])))
    }

    /// Every counter by its name.
    pub fn to_map(&self) -> BTreeMap<String, u64> {
        let entry = |c: &svm_abi::counters::Counter| (c.key.to_owned(), self.get(c.index));
        COUNTERS.iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use svm_abi::counters::index;

    #[test]
    fn a_difference_survives_the_wrap_of_a_counter() {
        let before = Counters::read(|_| u64::MAX);
        let after = Counters::read(|n| n as u64);
        assert_eq!(after.since(&before).get(index::DESCRIPTORS), 1);
        assert_eq!(after.since(&before).get(index::INTERRUPTS), 14);
    }

    #[test]
    fn the_map_has_every_counter() {
        let map = Counters::read(|n| n as u64).to_map();
        assert_eq!(map.len(), COUNT);
        assert_eq!(map["page_requests"], index::PAGE_REQUESTS as u64);
    }
}
