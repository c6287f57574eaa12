// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries of the cache and their keys: the first address of the range with its size, and the
//! address space.

use pcie_ats::{AlignedRange, PAGE_SHIFT, Pasid};

/// Log2 of the size of a region. The sets of its pages follow each other.
pub(super) const REGION: u32 = 30;
/// What an address is multiplied by to select a set, by the bits from [`SET`] on. The next page is
/// in the next set. One of about a hundred is skipped: otherwise, addresses at a distance of a power
/// of two would share few sets.
pub(super) const STEP: u64 = (1 << (SET - 12)) + 10_125;
/// The lowest bit of a product that selects a set.
pub(super) const SET: u32 = 32;

/// An address space as the cache distinguishes it: a PASID or none, and the mode, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Space(pub(super) u32);

impl Space {
    /// The space of requests with these attributes.
    pub fn new(pasid: Option<Pasid>, privileged: bool) -> Self {
        let tag = pasid.map_or(1 << 21, |pasid| pasid.get() | 1 << 22);
        // No space is 0: 0 marks a free entry. Multiplied by an odd number, different spaces stay
        // different, and their low bits become a hash.
        Space((tag | u32::from(privileged) << 20).wrapping_mul(0x9e37_79b1))
    }
}

/// The address spaces that an invalidation applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The spaces of one PASID, or those without a PASID.
    One(Option<Pasid>),
    /// All.
    Every,
}

/// A translation as the cache stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The untranslated range.
    pub range: AlignedRange,
    /// First address of the translated range.
    pub output: u64,
    /// Reads are permitted.
    pub read: bool,
    /// Writes are permitted.
    pub write: bool,
    /// To be reached by untranslated requests only.
    pub untranslated_only: bool,
}

/// The result of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// First untranslated address of the entry.
    pub first: u64,
    /// Last untranslated address of the entry.
    pub last: u64,
    /// Translated address of the address that was looked up.
    pub output: u64,
    /// To be reached by untranslated requests only.
    pub untranslated_only: bool,
}

/// Bit of an entry that only untranslated requests may access, next to the bits of [`Access`].
pub(super) const UNTRANSLATED_ONLY: u32 = 1 << 2;

/// One entry. Half a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(super) struct Entry {
    /// First untranslated address, with log2 of the size in the low bits; 0 if free.
    pub(super) tag: u64,
    /// First translated address.
    pub(super) output: u64,
    /// The time of its last use.
    pub(super) used: u64,
    /// Its [`Space`]; 0 if free.
    pub(super) space: u32,
    /// Permissions and [`UNTRANSLATED_ONLY`].
    pub(super) bits: u32,
}

/// An entry that is free.
pub(super) const FREE: Entry = Entry {
    tag: 0,
    output: 0,
    used: 0,
    space: 0,
    bits: 0,
};

/// The low `shift` bits, 1 to 64.
#[inline]
pub(super) const fn low_bits(shift: u32) -> u64 {
    // Two shifts, because a shift by 64 does not exist and a branch would cost more.
    !(u64::MAX << (shift - 1) << 1)
}

/// A bit, if a condition holds.
#[inline]
pub(super) const fn bit(condition: bool, bit: u32) -> u32 {
    if condition { bit } else { 0 }
}

/// The tag of the entry of 2^`shift` bytes that contains an address.
#[inline]
pub(super) const fn tag(address: u64, shift: u32) -> u64 {
    address & !low_bits(shift) | shift as u64
}

/// The tag of the entry that contains an address, and whose size has this mask.
#[inline]
pub(super) const fn tag_of(address: u64, mask: u64) -> u64 {
    // The mask of all addresses is 0, which has 64 zeros.
    address & mask | mask.trailing_zeros() as u64
}

/// The first address of the range of a tag.
#[inline]
pub(super) const fn first_of(tag: u64) -> u64 {
    tag & !low_bits(PAGE_SHIFT as u32)
}

impl Entry {
    #[inline]
    pub(super) const fn shift(&self) -> u32 {
        self.tag as u32 & 0x7f
    }

    #[inline]
    pub(super) const fn first(&self) -> u64 {
        first_of(self.tag)
    }

    #[inline]
    pub(super) const fn last(&self) -> u64 {
        self.first() | low_bits(self.shift())
    }

    /// Whether it covers the address and has the needed permissions.
    #[inline(always)]
    pub(super) const fn answers(&self, space: Space, address: u64, need: u32) -> bool {
        self.space == space.0
            && (address ^ self.tag) & !low_bits(self.shift()) == 0
            && self.bits & need == need
    }

    #[inline]
    pub(super) const fn overlaps(&self, range: AlignedRange) -> bool {
        self.first() <= range.last() && range.base() <= self.last()
    }
}
