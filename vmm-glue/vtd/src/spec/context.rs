// SPDX-License-Identifier: MIT OR Apache-2.0
//! Context entries (sections 9.3 and 9.4).

use super::capability::{Capability, ExtendedCapability};
use super::layout::layout;
use super::{above, mask};

layout! {
    /// A context entry of legacy mode (section 9.3): 128 bits.
    pub struct ContextEntry([u64; 2]) {
        /// P: Present.
        p, with_p: bool = 0[0];
        /// FPD: Fault Processing Disable; evaluated also when the entry is not present.
        fpd, with_fpd: bool = 0[1];
        /// TT: Translation Type. 0 untranslated requests only, 1 also Device-TLBs, 2 pass-through.
        tt, with_tt: u8 = 0[3:2];
        /// SSPTPTR: Second Stage Page Translation Pointer.
        ssptptr, with_ssptptr: pointer = 0[63:12];
        /// AW: Address Width. 1 is 39 bits, 2 is 48, 3 is 57.
        aw, with_aw: u8 = 1[2:0];
        /// Ignored by hardware.
        ignored, with_ignored: u8 = 1[6:3];
        /// DID: Domain Identifier.
        did, with_did: DomainId = 1[23:8];
    }
}

impl ContextEntry {
    /// The reserved bits that are set, by word.
    pub const fn reserved(&self, host_address_width: u8, cap: Capability) -> [u64; 2] {
        // SSPTPTR is ignored in pass-through entries, and with it the bits above its width.
        let pointer = if self.tt() == 2 {
            0
        } else {
            above(host_address_width)
        };
        [
            self.0[0] & (!Self::FIELDS[0] | pointer),
            self.0[1] & (!Self::FIELDS[1] | mask(23, 8 + cap.domain_id_width())),
        ]
    }
}

layout! {
    /// A scalable-mode context entry (section 9.4): 256 bits.
    pub struct ScalableContextEntry([u64; 4]) {
        /// P: Present.
        p, with_p: bool = 0[0];
        /// FPD: Fault Processing Disable; evaluated also when the entry is not present.
        fpd, with_fpd: bool = 0[1];
        /// DTE: Device-TLB Enable.
        dte, with_dte: bool = 0[2];
        /// PASIDE: PASID Enable.
        paside, with_paside: bool = 0[3];
        /// PRE: Page Request Enable.
        pre, with_pre: bool = 0[4];
        /// PDTS: the PASID directory has 2^(PDTS + 7) entries.
        pdts, with_pdts: u8 = 0[11:9];
        /// PASIDDIRPTR: PASID Directory Pointer.
        pasiddirptr, with_pasiddirptr: pointer = 0[63:12];
        /// RID_PASID: PASID by which requests without one are translated.
        rid_pasid, with_rid_pasid: u32 = 1[19:0];
        /// RID_PRIV: whether requests without PASID are privileged.
        rid_priv, with_rid_priv: bool = 1[20];
    }
}

impl ScalableContextEntry {
    /// One more than the largest PASID that the directory reaches: 64 for each of its entries.
    pub const fn pasid_limit(&self) -> u32 {
        1 << (self.pdts() as u32 + 7 + 6)
    }

    /// The reserved bits that are set, by word.
    pub const fn reserved(&self, host_address_width: u8, ecap: ExtendedCapability) -> [u64; 4] {
        // Bits 5 (HPTE) and 6 (EPTR) belong to capabilities that are never reported.
        let missing = Self::ZERO
            .with_dte(!ecap.dt())
            .with_paside(!ecap.pasid())
            .with_pre(!ecap.prs())
            .with_rid_pasid(if ecap.rps() { 0 } else { 0xf_ffff })
            .with_rid_priv(!ecap.rprivs());
        let low = !Self::FIELDS[0] | missing.0[0] | above(host_address_width);
        let high = !Self::FIELDS[1] | missing.0[1];
        [self.0[0] & low, self.0[1] & high, self.0[2], self.0[3]]
    }
}
