// SPDX-License-Identifier: MIT OR Apache-2.0
//! Naturally aligned power-of-two ranges, and their address encoding, which translation completions
//! and invalidation requests share (PCIe 10.2.3.2 and 10.3.1, "S field").

use crate::{OutOfRange, PAGE_SHIFT};

/// A naturally aligned range of 2^n bytes, n from 12 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlignedRange {
    base: u64,
    shift: u8,
}

impl AlignedRange {
    /// All addresses.
    pub const ALL: AlignedRange = AlignedRange { base: 0, shift: 64 };

    /// The range of 2^`shift` bytes that contains `address`.
    pub const fn containing(address: u64, shift: u8) -> Result<Self, OutOfRange> {
        if shift < PAGE_SHIFT || shift > 64 {
            return Err(OutOfRange {
                field: "log2 of a range",
                value: shift as u64,
                max: 64,
            });
        }
        Ok(AlignedRange {
            base: address & !mask(shift),
            shift,
        })
    }

    /// The page of 4 KiB that contains `address`.
    pub const fn page(address: u64) -> Self {
        AlignedRange {
            base: address & !mask(PAGE_SHIFT),
            shift: PAGE_SHIFT,
        }
    }

    /// The range that a 64-bit word with an address in 63:12 and an S bit encodes: without S one
    /// page; with S, the lowest zero bit of the address from bit 12 on gives the size, and no zero
    /// bit below 63 means all addresses.
    pub const fn decode(word: u64, s: bool) -> Self {
        if !s {
            return Self::page(word);
        }
        let ones = (word >> PAGE_SHIFT | 1 << 52).trailing_ones() as u8;
        let shift = PAGE_SHIFT + ones + 1;
        if shift >= 64 {
            return Self::ALL;
        }
        AlignedRange {
            base: word & !mask(shift),
            shift,
        }
    }

    /// The address bits 63:12 and the S bit that encode the range.
    pub const fn encode(self) -> (u64, bool) {
        if self.shift == PAGE_SHIFT {
            return (self.base, false);
        }
        // The zero after the ones is the bit of the size.
        let ones = mask(self.shift - 1) & !mask(PAGE_SHIFT);
        (self.base | ones, true)
    }

    /// First address.
    pub const fn base(self) -> u64 {
        self.base
    }

    /// Last address.
    pub const fn last(self) -> u64 {
        self.base | mask(self.shift)
    }

    /// Log2 of the number of bytes.
    pub const fn shift(self) -> u8 {
        self.shift
    }

    /// Whether the address lies in the range.
    pub const fn contains(self, address: u64) -> bool {
        address & !mask(self.shift) == self.base
    }

    /// Whether the two have an address in common.
    pub const fn overlaps(self, other: AlignedRange) -> bool {
        // Aligned powers of two are nested or disjoint.
        if self.shift >= other.shift {
            self.contains(other.base)
        } else {
            other.contains(self.base)
        }
    }
}

/// The low `shift` bits, also for 64.
const fn mask(shift: u8) -> u64 {
    if shift >= 64 {
        u64::MAX
    } else {
        (1 << shift) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_sizes_of_the_specification() {
        for (word, s, shift) in [
            (0x1234_5000, false, 12),
            (0x1234_4000, true, 13),
            (0x1234_5000 & !0x3000 | 0x1000, true, 14),
            (0x4000_0000 | 0xf_f000, true, 21),
            (0x1_0000_0000 | 0x1fff_f000, true, 30),
        ] {
            assert_eq!(AlignedRange::decode(word, s).shift(), shift, "{word:#x}");
        }
        assert_eq!(
            AlignedRange::decode(0x7fff_ffff_ffff_f000, true),
            AlignedRange::ALL
        );
        assert_eq!(
            AlignedRange::decode(0xffff_ffff_ffff_f000, true),
            AlignedRange::ALL
        );
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(address: u64, shift in 12u8..=63) {
            let range = AlignedRange::containing(address, shift).unwrap();
            let (word, s) = range.encode();
            prop_assert_eq!(AlignedRange::decode(word, s), range);
        }

        #[test]
        fn overlap_is_a_common_address(a: u64, b: u64, x in 12u8..=64, y in 12u8..=64) {
            let (p, q) = (AlignedRange::containing(a, x).unwrap(), AlignedRange::containing(b, y).unwrap());
            let common = p.base() <= q.last() && q.base() <= p.last();
            prop_assert_eq!(p.overlaps(q), common);
        }
    }
}
