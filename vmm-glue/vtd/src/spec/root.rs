// SPDX-License-Identifier: MIT OR Apache-2.0
//! Root entries (sections 9.1 and 9.2).

use super::{above, bit, mask};

/// A root entry of legacy mode (section 9.1): 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootEntry(pub [u64; 2]);

impl RootEntry {
    /// P: Present.
    pub const fn p(&self) -> bool {
        bit(self.0[0], 0)
    }

    /// CTP: Context-table Pointer.
    pub const fn ctp(&self) -> u64 {
        self.0[0] & mask(63, 12)
    }

    /// The reserved bits that are set.
    pub const fn reserved(&self, host_address_width: u8) -> u64 {
        self.0[1] | self.0[0] & (mask(11, 1) | above(host_address_width))
    }
}

/// One half of a scalable-mode root entry (section 9.2): the lower one serves devices 0 to 15 of
/// a bus, the upper one devices 16 to 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalableRootHalf(pub u64);

impl ScalableRootHalf {
    /// LP or UP: Present.
    pub const fn p(&self) -> bool {
        bit(self.0, 0)
    }

    /// LCTP or UCTP: Context Table Pointer.
    pub const fn ctp(&self) -> u64 {
        self.0 & mask(63, 12)
    }

    /// The reserved bits that are set.
    pub const fn reserved(&self, host_address_width: u8) -> u64 {
        self.0 & (mask(11, 1) | above(host_address_width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_a_root_entry_is_a_field_or_reserved() {
        for n in 0..64 {
            let (low, high) = (RootEntry([1 << n, 0]), RootEntry([0, 1 << n]));
            let named = n == 0 || (12..46).contains(&n);
            assert_eq!(low.reserved(46) == 0, named, "bit {n}");
            assert_ne!(high.reserved(46), 0, "bit {}", 64 + n);
            assert_eq!(ScalableRootHalf(1 << n).reserved(46) == 0, named, "bit {n}");
        }
    }
}
