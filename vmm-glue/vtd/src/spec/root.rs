// SPDX-License-Identifier: MIT OR Apache-2.0
//! Root entries (sections 9.1 and 9.2).

use super::above;
use super::layout::layout;

layout! {
    /// A root entry of legacy mode (section 9.1): 128 bits.
    pub struct RootEntry([u64; 2]) {
        /// P: Present.
        p, with_p: bool = 0[0];
        /// CTP: Context-table Pointer.
        ctp, with_ctp: pointer = 0[63:12];
    }
}

impl RootEntry {
    /// The reserved bits that are set, by word.
    pub const fn reserved(&self, host_address_width: u8) -> [u64; 2] {
        let low = !Self::FIELDS[0] | above(host_address_width);
        [self.0[0] & low, self.0[1]]
    }
}

layout! {
    /// One half of a scalable-mode root entry (section 9.2): the lower one serves devices 0 to 15
    /// of a bus, the upper one devices 16 to 31.
    pub struct ScalableRootHalf(u64) {
        /// LP or UP: Present.
        p, with_p: bool = 0[0];
        /// LCTP or UCTP: Context Table Pointer.
        ctp, with_ctp: pointer = 0[63:12];
    }
}

impl ScalableRootHalf {
    /// The reserved bits that are set.
    pub const fn reserved(&self, host_address_width: u8) -> u64 {
        self.0 & (!Self::FIELDS[0] | above(host_address_width))
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
            assert_eq!(low.reserved(46) == [0; 2], named, "bit {n}");
            assert_ne!(high.reserved(46), [0; 2], "bit {}", 64 + n);
            assert_eq!(ScalableRootHalf(1 << n).reserved(46) == 0, named, "bit {n}");
        }
    }
}
