// SPDX-License-Identifier: MIT OR Apache-2.0
//! Process address space identifiers (PCIe 6.20).

use crate::OutOfRange;

/// A process address space identifier: 20 bits (PCIe 6.20.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pasid(u32);

impl Pasid {
    /// The largest value.
    pub const MAX: u32 = 0xf_ffff;

    /// The PASID of a number.
    pub const fn new(value: u32) -> Result<Self, OutOfRange> {
        if value > Self::MAX {
            return Err(OutOfRange {
                field: "PASID",
                value: value as u64,
                max: Self::MAX as u64,
            });
        }
        Ok(Pasid(value))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Max PASID Width: how many bits of a PASID a function uses, 1 to 20 (PCIe 7.8.9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasidWidth(u8);

impl PasidWidth {
    /// All 20 bits.
    pub const MAX: PasidWidth = PasidWidth(20);

    /// The width of a number of bits, which is at least 1.
    pub const fn new(bits: u8) -> Result<Self, OutOfRange> {
        if bits == 0 || bits > 20 {
            return Err(OutOfRange {
                field: "PASID width",
                value: bits as u64,
                max: 20,
            });
        }
        Ok(PasidWidth(bits))
    }

    /// Number of bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether a function of this width may use the PASID.
    pub const fn holds(self, pasid: Pasid) -> bool {
        pasid.get() < 1 << self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasid_has_twenty_bits() {
        assert_eq!(Pasid::new(0xf_ffff).map(Pasid::get), Ok(0xf_ffff));
        assert!(Pasid::new(0x10_0000).is_err());
    }

    #[test]
    fn a_width_bounds_the_pasids() {
        let width = PasidWidth::new(8).unwrap();
        assert!(width.holds(Pasid::new(255).unwrap()));
        assert!(!width.holds(Pasid::new(256).unwrap()));
        assert!(PasidWidth::new(0).is_err());
        assert!(PasidWidth::new(21).is_err());
    }
}
