// SPDX-License-Identifier: MIT OR Apache-2.0
//! Context entries (sections 9.3 and 9.4).

use super::capability::{Capability, ExtendedCapability};
use super::{DomainId, above, bit, field, mask};

/// A context entry of legacy mode (section 9.3): 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextEntry(pub [u64; 2]);

impl ContextEntry {
    /// P: Present.
    pub const fn p(&self) -> bool {
        bit(self.0[0], 0)
    }

    /// FPD: Fault Processing Disable; evaluated also when the entry is not present.
    pub const fn fpd(&self) -> bool {
        bit(self.0[0], 1)
    }

    /// TT: Translation Type. 0 untranslated requests only, 1 also Device-TLBs, 2 pass-through.
    pub const fn tt(&self) -> u8 {
        field(self.0[0], 3, 2) as u8
    }

    /// SSPTPTR: Second Stage Page Translation Pointer.
    pub const fn ssptptr(&self) -> u64 {
        self.0[0] & mask(63, 12)
    }

    /// AW: Address Width. 1 is 39 bits, 2 is 48, 3 is 57.
    pub const fn aw(&self) -> u8 {
        field(self.0[1], 2, 0) as u8
    }

    /// DID: Domain Identifier.
    pub const fn did(&self) -> DomainId {
        DomainId(field(self.0[1], 23, 8) as u16)
    }

    /// The reserved bits that are set, by word.
    pub const fn reserved(&self, host_address_width: u8, cap: Capability) -> [u64; 2] {
        // SSPTPTR is ignored in pass-through entries, and with it the bits above its width.
        let pointer = if self.tt() == 2 {
            0
        } else {
            above(host_address_width)
        };
        [
            self.0[0] & (mask(11, 4) | pointer),
            self.0[1] & (mask(63, 24) | mask(23, 8 + cap.domain_id_width()) | mask(7, 7)),
        ]
    }
}

/// A scalable-mode context entry (section 9.4): 256 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalableContextEntry(pub [u64; 4]);

impl ScalableContextEntry {
    /// P: Present.
    pub const fn p(&self) -> bool {
        bit(self.0[0], 0)
    }

    /// FPD: Fault Processing Disable; evaluated also when the entry is not present.
    pub const fn fpd(&self) -> bool {
        bit(self.0[0], 1)
    }

    /// DTE: Device-TLB Enable.
    pub const fn dte(&self) -> bool {
        bit(self.0[0], 2)
    }

    /// PASIDE: PASID Enable.
    pub const fn paside(&self) -> bool {
        bit(self.0[0], 3)
    }

    /// PRE: Page Request Enable.
    pub const fn pre(&self) -> bool {
        bit(self.0[0], 4)
    }

    /// PDTS: the PASID directory has 2^(PDTS + 7) entries.
    pub const fn pdts(&self) -> u8 {
        field(self.0[0], 11, 9) as u8
    }

    /// PASIDDIRPTR: PASID Directory Pointer.
    pub const fn pasiddirptr(&self) -> u64 {
        self.0[0] & mask(63, 12)
    }

    /// RID_PASID: PASID by which requests without one are translated.
    pub const fn rid_pasid(&self) -> u32 {
        field(self.0[1], 19, 0) as u32
    }

    /// RID_PRIV: whether requests without PASID are privileged.
    pub const fn rid_priv(&self) -> bool {
        bit(self.0[1], 20)
    }

    /// One more than the largest PASID that the directory reaches: 64 for each of its entries.
    pub const fn pasid_limit(&self) -> u32 {
        1 << (self.pdts() as u32 + 7 + 6)
    }

    /// The reserved bits that are set, by word.
    pub const fn reserved(&self, host_address_width: u8, ecap: ExtendedCapability) -> [u64; 4] {
        // Bits 5 (HPTE) and 6 (EPTR) belong to capabilities that are never reported.
        let mut low = mask(8, 5) | above(host_address_width);
        if !ecap.dt() {
            low |= 1 << 2;
        }
        if !ecap.pasid() {
            low |= 1 << 3;
        }
        if !ecap.prs() {
            low |= 1 << 4;
        }
        let mut high = mask(63, 21);
        if !ecap.rps() {
            high |= mask(19, 0);
        }
        if !ecap.rprivs() {
            high |= 1 << 20;
        }
        [self.0[0] & low, self.0[1] & high, self.0[2], self.0[3]]
    }
}
