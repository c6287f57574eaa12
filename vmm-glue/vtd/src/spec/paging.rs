// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paging entries of the first and the second stage (sections 9.7 and 9.8).
//!
//! Levels are counted from the leaf tables: 1 is a page table, 2 a page directory, 3 a
//! page-directory-pointer table, 4 a PML4 table and 5 a PML5 table.

use super::layout::layout;
use super::{above_in_entry, mask};

/// Log2 of the bytes that an entry of a level covers: 12, 21, 30, 39 or 48.
pub const fn level_shift(level: u8) -> u8 {
    12 + 9 * (level - 1)
}

/// Address of the entry for `address` in the table of `level` at `table`.
pub const fn entry_address(table: u64, address: u64, level: u8) -> u64 {
    table | (address >> level_shift(level) & 511) << 3
}

layout! {
    /// A first-stage paging entry (section 9.7).
    pub struct FirstStageEntry(u64) {
        /// P: Present.
        p, with_p: bool = 0[0];
        /// R/W: writes are permitted.
        rw, with_rw: bool = 0[1];
        /// U/S: user-level requests are permitted.
        us, with_us: bool = 0[2];
        /// A: Accessed.
        a, with_a: bool = 0[5];
        /// D: Dirty, of an entry that maps a page.
        d, with_d: bool = 0[6];
        /// PS: Page Size: an entry of level 2 or 3 maps a page.
        ps, with_ps: bool = 0[7];
        /// EA: Extended Accessed.
        ea, with_ea: bool = 0[10];
        /// ADDR: the address of the next table, or of a page of 4 KiB.
        addr, with_addr: pointer = 0[51:12];
        /// XD: execution is not permitted (revision 3.4; needs NXE).
        xd, with_xd: bool = 0[63];
    }
}

impl FirstStageEntry {
    /// The accessed flag.
    pub const A: u64 = Self::ZERO.with_a(true).0;
    /// The dirty flag.
    pub const D: u64 = Self::ZERO.with_d(true).0;
    /// The extended-accessed flag.
    pub const EA: u64 = Self::ZERO.with_ea(true).0;

    /// Whether an entry of `level` maps a page.
    pub const fn is_leaf(&self, level: u8) -> bool {
        level == 1 || level <= 3 && self.ps()
    }

    /// The reserved bits that are set in a present entry of `level` (section 3.6). `fs1gp` says
    /// whether pages of 1 GiB exist. Bit 63 is ignored where it is not XD.
    pub const fn reserved(&self, level: u8, host_address_width: u8, fs1gp: bool) -> u64 {
        const PS: u64 = FirstStageEntry::ZERO.with_ps(true).0;
        let mut r = above_in_entry(host_address_width);
        match level {
            4 | 5 => r |= PS,
            3 if !fs1gp => r |= PS,
            3 if self.ps() => r |= mask(29, 13),
            2 if self.ps() => r |= mask(20, 13),
            _ => {}
        }
        self.0 & r
    }
}

layout! {
    /// A second-stage paging entry (section 9.8).
    pub struct SecondStageEntry(u64) {
        /// R: Read.
        r, with_r: bool = 0[0];
        /// W: Write.
        w, with_w: bool = 0[1];
        /// X: Execute (revision 3.4; needs SSEE).
        x, with_x: bool = 0[2];
        /// PS: Page Size: an entry of level 2 or 3 maps a page.
        ps, with_ps: bool = 0[7];
        /// A: Accessed.
        a, with_a: bool = 0[8];
        /// D: Dirty, of an entry that maps a page.
        d, with_d: bool = 0[9];
        /// SNP: accesses to the page snoop processor caches.
        snp, with_snp: bool = 0[11];
        /// ADDR: the address of the next table, or of a page of 4 KiB.
        addr, with_addr: pointer = 0[51:12];
        /// IW: reserved unless I/O read and write bits are in use, which this unit lacks.
        iw, with_iw: bool = 0[62];
    }
}

impl SecondStageEntry {
    /// The accessed flag.
    pub const A: u64 = Self::ZERO.with_a(true).0;
    /// The dirty flag.
    pub const D: u64 = Self::ZERO.with_d(true).0;

    /// Whether an entry of `level` maps a page.
    pub const fn is_leaf(&self, level: u8) -> bool {
        level == 1 || level <= 3 && self.ps()
    }

    /// The reserved bits that are set in an entry of `level` that grants something (section 3.7).
    /// `large` is SSLPS: bit 0 for 2 MiB, bit 1 for 1 GiB; `sc` is Snoop Control.
    pub const fn reserved(&self, level: u8, host_address_width: u8, large: u8, sc: bool) -> u64 {
        const PS: u64 = SecondStageEntry::ZERO.with_ps(true).0;
        let mut r = above_in_entry(host_address_width) | Self::ZERO.with_iw(true).0;
        match level {
            4 | 5 => r |= PS,
            3 if large & 2 == 0 => r |= PS,
            2 if large & 1 == 0 => r |= PS,
            3 if self.ps() => r |= mask(29, 12),
            2 if self.ps() => r |= mask(20, 12),
            _ => {}
        }
        if !self.is_leaf(level) || !sc {
            r |= Self::ZERO.with_snp(true).0;
        }
        self.0 & r
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_selected_by_nine_bits_of_the_address() {
        let address = 0x1ff << 39 | 3 << 30 | 5 << 21 | 7 << 12;
        let at = [(1, 7), (2, 5), (3, 3), (4, 511)];
        for (level, index) in at {
            assert_eq!(entry_address(0x1000, address, level), 0x1000 + index * 8);
        }
    }

    #[test]
    fn reserved_bits_of_first_stage_entries() {
        let reserved = |bits: u64, level| FirstStageEntry(bits).reserved(level, 46, true);
        for level in 1..=5 {
            assert_ne!(reserved(1 << 46, level), 0);
            assert_ne!(reserved(1 << 51, level), 0);
            assert_eq!(reserved(mask(63, 52) | mask(6, 0) | 0xf00, level), 0);
        }
        assert_ne!(reserved(1 << 7, 5), 0);
        assert_ne!(reserved(1 << 7, 4), 0);
        assert_eq!(reserved(1 << 7, 3), 0);
        assert_ne!(FirstStageEntry(1 << 7).reserved(3, 46, false), 0);
        // Bit 12 of a large page is PAT.
        assert_eq!(reserved(1 << 7 | 1 << 12, 2), 0);
        assert_ne!(reserved(1 << 7 | 1 << 13, 2), 0);
        assert_ne!(reserved(1 << 7 | 1 << 20, 2), 0);
        assert_eq!(reserved(1 << 7 | 1 << 21, 2), 0);
        assert_ne!(reserved(1 << 7 | 1 << 29, 3), 0);
        assert_eq!(reserved(1 << 7 | 1 << 30, 3), 0);
        assert_eq!(reserved(1 << 13, 2), 0);
    }

    #[test]
    fn reserved_bits_of_second_stage_entries() {
        let reserved = |bits: u64, level| SecondStageEntry(bits).reserved(level, 46, 3, true);
        for level in 1..=5 {
            assert_ne!(reserved(1 << 46, level), 0);
            assert_ne!(reserved(1 << 62, level), 0);
            assert_eq!(reserved(1 << 63 | mask(61, 52) | 0x77f, level), 0);
        }
        assert_ne!(reserved(1 << 7, 5), 0);
        assert_ne!(reserved(1 << 7, 4), 0);
        assert_eq!(reserved(1 << 7, 1), 0);
        assert_ne!(reserved(1 << 7 | 1 << 12, 2), 0);
        assert_ne!(reserved(1 << 7 | 1 << 29, 3), 0);
        assert_ne!(SecondStageEntry(1 << 7).reserved(3, 46, 1, true), 0);
        assert_ne!(SecondStageEntry(1 << 7).reserved(2, 46, 0, true), 0);
        // SNP belongs to leaves, and to units that have snoop control.
        assert_eq!(reserved(1 << 11, 1), 0);
        assert_ne!(reserved(1 << 11, 2), 0);
        assert_eq!(reserved(1 << 11 | 1 << 7, 2), 0);
        assert_ne!(SecondStageEntry(1 << 11).reserved(1, 46, 3, false), 0);
    }
}
