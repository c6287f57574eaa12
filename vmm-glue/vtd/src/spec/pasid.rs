// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scalable-mode PASID directory and table entries (sections 9.5 and 9.6).

use super::capability::{Capability, ExtendedCapability};
use super::{DomainId, above, bit, field, mask};

/// A scalable-mode PASID directory entry (section 9.5): 64 bits. Its index is PASID\[19:6\].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasidDirectoryEntry(pub u64);

impl PasidDirectoryEntry {
    /// P: Present.
    pub const fn p(&self) -> bool {
        bit(self.0, 0)
    }

    /// FPD: Fault Processing Disable; evaluated also when the entry is not present.
    pub const fn fpd(&self) -> bool {
        bit(self.0, 1)
    }

    /// SMPTBLPTR: Scalable-Mode PASID Table Pointer.
    pub const fn smptblptr(&self) -> u64 {
        self.0 & mask(63, 12)
    }

    /// The reserved bits that are set.
    pub const fn reserved(&self, host_address_width: u8) -> u64 {
        self.0 & (mask(11, 2) | above(host_address_width))
    }
}

/// PGTT: PASID Granular Translation Type (section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pgtt {
    /// 001b: first-stage translation only.
    FirstStage,
    /// 010b: second-stage translation only.
    SecondStage,
    /// 011b: first stage, each access of which goes through the second.
    Nested,
    /// 100b: the output is the input.
    PassThrough,
}

impl Pgtt {
    /// The type of the 3-bit field; none for a reserved value.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Pgtt::FirstStage),
            2 => Some(Pgtt::SecondStage),
            3 => Some(Pgtt::Nested),
            4 => Some(Pgtt::PassThrough),
            _ => None,
        }
    }

    /// Whether the unit has this type of translation.
    pub const fn supported(self, ecap: ExtendedCapability) -> bool {
        match self {
            Pgtt::FirstStage => ecap.fsts(),
            Pgtt::SecondStage => ecap.ssts(),
            Pgtt::Nested => ecap.nest(),
            Pgtt::PassThrough => ecap.pt(),
        }
    }
}

/// A scalable-mode PASID table entry (section 9.6): 512 bits. Its index is PASID\[5:0\].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasidEntry(pub [u64; 8]);

impl PasidEntry {
    /// P: Present.
    pub const fn p(&self) -> bool {
        bit(self.0[0], 0)
    }

    /// FPD: Fault Processing Disable; evaluated also when the entry is not present.
    pub const fn fpd(&self) -> bool {
        bit(self.0[0], 1)
    }

    /// AW: Address Width of the second stage. 1 is 39 bits, 2 is 48, 3 is 57.
    pub const fn aw(&self) -> u8 {
        field(self.0[0], 4, 2) as u8
    }

    /// SSEE: Second Stage Execute Enable (revision 3.4).
    pub const fn ssee(&self) -> bool {
        bit(self.0[0], 5)
    }

    /// PGTT: PASID Granular Translation Type.
    pub const fn pgtt(&self) -> Option<Pgtt> {
        Pgtt::from_bits(field(self.0[0], 8, 6) as u8)
    }

    /// SSADE: Second Stage Access/Dirty bit Enable.
    pub const fn ssade(&self) -> bool {
        bit(self.0[0], 9)
    }

    /// SSPTPTR: Second Stage Page Translation Pointer.
    pub const fn ssptptr(&self) -> u64 {
        self.0[0] & mask(63, 12)
    }

    /// DID: Domain Identifier.
    pub const fn did(&self) -> DomainId {
        DomainId(field(self.0[1], 15, 0) as u16)
    }

    /// PWSNP: Page-walk Snoop.
    pub const fn pwsnp(&self) -> bool {
        bit(self.0[1], 23)
    }

    /// PGSNP: Page Snoop.
    pub const fn pgsnp(&self) -> bool {
        bit(self.0[1], 24)
    }

    /// SRE: Supervisor Request Enable.
    pub const fn sre(&self) -> bool {
        bit(self.0[2], 0)
    }

    /// ERE: Execute Request Enable (revision 3.4).
    pub const fn ere(&self) -> bool {
        bit(self.0[2], 1)
    }

    /// FSPM: First Stage Paging Mode. 0 is 4 levels, 1 is 5 levels.
    pub const fn fspm(&self) -> u8 {
        field(self.0[2], 3, 2) as u8
    }

    /// WPE: Write Protect Enable.
    pub const fn wpe(&self) -> bool {
        bit(self.0[2], 4)
    }

    /// NXE: No-Execute Enable (revision 3.4).
    pub const fn nxe(&self) -> bool {
        bit(self.0[2], 5)
    }

    /// SMEP: Supervisor Mode Execute Prevention (revision 3.4).
    pub const fn smep(&self) -> bool {
        bit(self.0[2], 6)
    }

    /// EAFE: Extended Accessed Flag Enable.
    pub const fn eafe(&self) -> bool {
        bit(self.0[2], 7)
    }

    /// FSPTPTR: First Stage Page Translation Pointer.
    pub const fn fsptptr(&self) -> u64 {
        self.0[2] & mask(63, 12)
    }

    /// The reserved bits that are set, by word. Memory types (MTS) and host permission tables
    /// (HPTS) are never reported, so their fields are reserved.
    ///
    /// Without a second stage, AW is reserved too since revision 4.1. It is let pass here: Linux
    /// writes it into every entry.
    pub const fn reserved(
        &self,
        host_address_width: u8,
        cap: Capability,
        ecap: ExtendedCapability,
    ) -> [u64; 8] {
        let mut w = [
            mask(11, 10),
            mask(63, 25) | mask(22, 16) | mask(15, cap.domain_id_width()),
            mask(11, 8),
            u64::MAX,
            u64::MAX,
            u64::MAX,
            u64::MAX,
            u64::MAX,
        ];
        if !ecap.ers() {
            w[0] |= 1 << 5;
            // Bits 133 and 134 (NXE and SMEP) are ignored since revision 4.1.
            w[2] |= 1 << 1;
        }
        w[0] |= if ecap.ssts() {
            above(host_address_width)
        } else {
            mask(63, 12) | 1 << 9
        };
        if !ecap.ssads() {
            w[0] |= 1 << 9;
        }
        if !ecap.smpwcs() {
            w[1] |= 1 << 23;
        }
        if !ecap.sc() {
            w[1] |= 1 << 24;
        }
        if !ecap.srs() {
            w[2] |= 1;
        }
        if !ecap.eafs() {
            w[2] |= 1 << 7;
        }
        w[2] |= if ecap.fsts() {
            above(host_address_width)
        } else {
            mask(63, 12) | 1 << 4 | mask(3, 2)
        };
        let mut i = 0;
        while i < 8 {
            w[i] &= self.0[i];
            i += 1;
        }
        w
    }
}
