// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values that are nearly right.

use crate::world::{ARENA, FORBIDDEN, LARGE_PAGES, MEMORY, PAGES, POOL, World};
use pcie_ats::{AlignedRange, Pasid, Prgi};
use vtd::spec::SourceId;

impl World {
    /// A frame of the operating system.
    pub fn frame(&mut self) -> u64 {
        POOL + self.draw.below((self.pool_end - POOL) / 4096) * 4096
    }

    /// An address that is likely to mean something.
    pub fn address(&mut self) -> u64 {
        let offset = self.draw.below(4096);
        let page = self.draw.below(PAGES + 2) * 4096;
        match self.draw.below(16) {
            0..=5 => ARENA + page + offset,
            6 => 0x40_0000 + page + offset,
            7 => self.draw.one(&LARGE_PAGES) + self.draw.below(2 << 20),
            8..=10 => self.frame() + offset,
            11 => 0x6000_0000_0000 + self.draw.below(4) * 0x8_0000 + offset,
            12 => 0xfee0_0000 + self.draw.below(1 << 20),
            13 => self.draw.one(&[
                0,
                0x7fff_ffff_f000,
                0x8000_0000_0000,
                0xffff_8000_0000_0000,
                0xff_ffff_ffff_f000,
                u64::MAX - 4095,
                1 << 45,
                1 << 52,
            ]),
            14 => (1 << self.draw.below(64)) + offset,
            _ if self.tame => MEMORY + self.draw.below(1 << 30),
            _ => self.draw.word() >> self.draw.below(40),
        }
    }

    /// An address, as far as it cannot be one of the forbidden part.
    pub fn tame_address(&mut self) -> u64 {
        let address = self.address();
        let near = (FORBIDDEN - 0x2_0000..MEMORY).contains(&address);
        if self.tame && near { 0 } else { address }
    }

    /// A word that may stand in a table: in a tame case, a pointer to a frame with any flags that
    /// do not make it a large page.
    pub fn entry(&mut self) -> u64 {
        if !self.tame && self.draw.once_in(4) {
            return self.draw.word();
        }
        let flags = self.draw.below(1 << 12) & !(1 << 7);
        match self.draw.below(8) {
            0 => 0,
            1 => flags,
            2 => self.frame() | flags | 1 << 63,
            _ => self.frame() | flags & self.draw.one(&[0x67, 0xfff, 0x7, 0x1f]),
        }
    }

    pub fn pasid(&mut self) -> Option<Pasid> {
        let any = self.draw.below(1 << 20) as u32;
        match self.draw.below(8) {
            0 => None,
            1 => Pasid::new(any).ok(),
            2 => Pasid::new(0).ok(),
            _ if self.pasids.is_empty() => Pasid::new(any & 15).ok(),
            _ => Some(self.draw.one(&self.pasids)),
        }
    }

    pub fn some_pasid(&mut self) -> Pasid {
        match self.pasid().or(Pasid::new(1).ok()) {
            Some(pasid) => pasid,
            None => unreachable!("1 is a PASID"),
        }
    }

    pub fn function(&mut self) -> usize {
        self.draw.below(self.machine.functions() as u64) as usize
    }

    pub fn requester(&mut self) -> SourceId {
        if self.draw.once_in(10) {
            return SourceId(self.draw.word() as u16);
        }
        let function = self.function();
        self.machine.requester(function)
    }

    pub fn range(&mut self) -> AlignedRange {
        let shift = self.draw.one(&[12, 12, 12, 13, 15, 21, 30, 39, 47, 63, 64]);
        let address = self.address();
        AlignedRange::containing(address, shift).unwrap_or(AlignedRange::ALL)
    }

    pub fn prgi(&mut self) -> Prgi {
        let index = match self.draw.once_in(4) {
            true => self.draw.below(512),
            false => self.draw.below(8),
        };
        match Prgi::new(index as u16) {
            Ok(prgi) => prgi,
            Err(error) => unreachable!("{error}"),
        }
    }
}
