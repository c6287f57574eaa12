// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scalable-mode PASID directory and table entries (sections 9.5 and 9.6).

use super::capability::{Capability, ExtendedCapability};
use super::layout::layout;
use super::{above, mask};

layout! {
    /// A scalable-mode PASID directory entry (section 9.5): 64 bits. Its index is PASID\[19:6\].
    pub struct PasidDirectoryEntry(u64) {
        /// P: Present.
        p, with_p: bool = 0[0];
        /// FPD: Fault Processing Disable; evaluated also when the entry is not present.
        fpd, with_fpd: bool = 0[1];
        /// SMPTBLPTR: Scalable-Mode PASID Table Pointer.
        smptblptr, with_smptblptr: pointer = 0[63:12];
    }
}

impl PasidDirectoryEntry {
    /// The reserved bits that are set.
    pub const fn reserved(&self, host_address_width: u8) -> u64 {
        self.0 & (!Self::FIELDS[0] | above(host_address_width))
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

    /// The 3-bit field.
    pub const fn bits(self) -> u8 {
        match self {
            Pgtt::FirstStage => 1,
            Pgtt::SecondStage => 2,
            Pgtt::Nested => 3,
            Pgtt::PassThrough => 4,
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

layout! {
    /// A scalable-mode PASID table entry (section 9.6): 512 bits. Its index is PASID\[5:0\].
    pub struct PasidEntry([u64; 8]) {
        /// P: Present.
        p, with_p: bool = 0[0];
        /// FPD: Fault Processing Disable; evaluated also when the entry is not present.
        fpd, with_fpd: bool = 0[1];
        /// AW: Address Width of the second stage. 1 is 39 bits, 2 is 48, 3 is 57.
        aw, with_aw: u8 = 0[4:2];
        /// SSEE: Second Stage Execute Enable (revision 3.4).
        ssee, with_ssee: bool = 0[5];
        /// The bits of PGTT.
        pgtt_bits, with_pgtt_bits: u8 = 0[8:6];
        /// SSADE: Second Stage Access/Dirty bit Enable.
        ssade, with_ssade: bool = 0[9];
        /// SSPTPTR: Second Stage Page Translation Pointer.
        ssptptr, with_ssptptr: pointer = 0[63:12];
        /// DID: Domain Identifier.
        did, with_did: DomainId = 1[15:0];
        /// PWSNP: Page-walk Snoop.
        pwsnp, with_pwsnp: bool = 1[23];
        /// PGSNP: Page Snoop.
        pgsnp, with_pgsnp: bool = 1[24];
        /// SRE: Supervisor Request Enable.
        sre, with_sre: bool = 2[0];
        /// ERE: Execute Request Enable (revision 3.4).
        ere, with_ere: bool = 2[1];
        /// FSPM: First Stage Paging Mode. 0 is 4 levels, 1 is 5 levels.
        fspm, with_fspm: u8 = 2[3:2];
        /// WPE: Write Protect Enable.
        wpe, with_wpe: bool = 2[4];
        /// NXE: No-Execute Enable (revision 3.4).
        nxe, with_nxe: bool = 2[5];
        /// SMEP: Supervisor Mode Execute Prevention (revision 3.4).
        smep, with_smep: bool = 2[6];
        /// EAFE: Extended Accessed Flag Enable.
        eafe, with_eafe: bool = 2[7];
        /// FSPTPTR: First Stage Page Translation Pointer.
        fsptptr, with_fsptptr: pointer = 2[63:12];
    }
}

impl PasidEntry {
    /// PGTT: PASID Granular Translation Type.
    pub const fn pgtt(&self) -> Option<Pgtt> {
        Pgtt::from_bits(self.pgtt_bits())
    }

    /// The same with [`Self::pgtt`] set.
    #[must_use]
    pub const fn with_pgtt(self, pgtt: Pgtt) -> Self {
        self.with_pgtt_bits(pgtt.bits())
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
        let missing = Self::ZERO
            .with_ssee(!ecap.ers())
            // Bits 133 and 134 (NXE and SMEP) are ignored since revision 4.1.
            .with_ere(!ecap.ers())
            .with_ssade(!ecap.ssts() || !ecap.ssads())
            .with_pwsnp(!ecap.smpwcs())
            .with_pgsnp(!ecap.sc())
            .with_sre(!ecap.srs())
            .with_eafe(!ecap.eafs())
            .with_wpe(!ecap.fsts())
            .with_fspm(if ecap.fsts() { 0 } else { 3 });
        let mut w = [0; 8];
        let mut i = 0;
        while i < 8 {
            w[i] = !Self::FIELDS[i] | missing.0[i];
            i += 1;
        }
        w[0] |= pointer_bits(ecap.ssts(), host_address_width);
        w[1] |= mask(15, cap.domain_id_width());
        w[2] |= pointer_bits(ecap.fsts(), host_address_width);
        let mut i = 0;
        while i < 8 {
            w[i] &= self.0[i];
            i += 1;
        }
        w
    }
}

/// The bits of a pointer that are reserved: all of it where the unit has not its stage.
const fn pointer_bits(is_there: bool, host_address_width: u8) -> u64 {
    match is_there {
        true => above(host_address_width),
        false => mask(63, 12),
    }
}

#[cfg(test)]
mod tests {
    use super::super::DomainId;
    use super::*;

    #[test]
    fn the_fields_of_an_entry_are_where_the_figure_has_them() {
        let entry = PasidEntry::ZERO
            .with_p(true)
            .with_aw(2)
            .with_pgtt(Pgtt::Nested)
            .with_ssade(true)
            .with_ssptptr(0x1234_5000)
            .with_did(DomainId(0xabcd))
            .with_pwsnp(true)
            .with_fspm(1)
            .with_wpe(true)
            .with_eafe(true)
            .with_fsptptr(0x7_6543_2000);
        let words = [0x1234_52c9, 0x80_abcd, 0x7_6543_2094, 0, 0, 0, 0, 0];
        assert_eq!(entry.0, words);
        let fields = [0xffff_ffff_ffff_f3ff, 0x180_ffff, 0xffff_ffff_ffff_f0ff];
        assert_eq!(PasidEntry::FIELDS[..3], fields);
        assert_eq!(PasidDirectoryEntry::FIELDS, [0xffff_ffff_ffff_f003]);
    }
}
