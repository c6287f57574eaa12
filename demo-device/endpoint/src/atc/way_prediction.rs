// SPDX-License-Identifier: MIT OR Apache-2.0
//! Predicts where the entry of an address is, so that most look-ups compare one entry and search no
//! set. A prediction only says where to look first: the entry there is compared in full, and if it
//! is another one, the sets are searched. So nothing has to be kept up to date when an entry is
//! removed or its place is given to another one.

use super::entry::{REGION, SET, STEP, Space};
use pcie_ats::PAGE_SHIFT;

/// Number of predicted places: sixteen for each entry of a cache of usual size, so that few addresses
/// share one.
const PLACES: usize = 1 << 14;
/// Number of predicted sizes.
const SIZES: usize = 1 << 14;

/// What was found lately.
#[derive(Debug)]
pub(super) struct Prediction {
    /// For each hash of a first address and its space, the index of the entry. One that does not fit
    /// is cut off, and predicts wrongly.
    places: Box<[u16; PLACES]>,
    /// For each hash of a region and a space, log2 of the size of the entry that was found there
    /// last: most regions have one size.
    sizes: Box<[u8; SIZES]>,
}

impl Prediction {
    /// Predicts pages, all at the same place.
    pub fn new() -> Self {
        Prediction {
            places: Box::new([0; PLACES]),
            sizes: Box::new([PAGE_SHIFT; SIZES]),
        }
    }

    /// Log2 of the size to look an address up with, less than 64.
    #[inline(always)]
    pub fn shift(&self, space: Space, address: u64) -> u32 {
        u32::from(self.sizes[region(space, address)] & 63)
    }

    /// The index that the entry of a range probably has: the one of this number among ranges of its
    /// size.
    #[inline(always)]
    pub fn index(&self, space: Space, number: u64) -> usize {
        self.places[place(space, number)].into()
    }

    /// Notes the index of an entry. The range of all addresses has no place.
    #[inline(always)]
    pub fn stored(&mut self, space: Space, first: u64, shift: u32, index: usize) {
        self.places[place(space, first >> (shift & 63))] = index as u16;
    }

    /// Notes what was found for an address. The range of all addresses has no size of its own.
    #[inline]
    pub fn found(&mut self, space: Space, address: u64, first: u64, shift: u32, index: usize) {
        self.sizes[region(space, address)] = shift as u8;
        self.stored(space, first, shift, index);
    }
}

/// The place of the prediction for a range. Ranges of one size that follow each other share lines of
/// the processor's caches, whatever the size.
#[inline(always)]
pub(super) const fn place(space: Space, number: u64) -> usize {
    let hash = number.wrapping_mul(STEP) >> (SET - PAGE_SHIFT as u32);
    (hash ^ space.0 as u64) as usize % PLACES
}

/// The place of the predicted size for the region of an address.
#[inline(always)]
const fn region(space: Space, address: u64) -> usize {
    (address >> REGION ^ space.0 as u64) as usize % SIZES
}
