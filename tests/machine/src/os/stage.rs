// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page tables, of either stage and any depth (sections 9.7 and 9.8 of the VT-d specification).

use super::board::Board;
use super::frames::Frames;

/// P of a first-stage entry.
pub const P: u64 = 1 << 0;
/// R/W of a first-stage entry.
pub const RW: u64 = 1 << 1;
/// U/S of a first-stage entry.
pub const US: u64 = 1 << 2;
/// A of a first-stage entry.
pub const A: u64 = 1 << 5;
/// D of a first-stage entry.
pub const D: u64 = 1 << 6;
/// PS of an entry of either stage that maps a large page.
pub const PS: u64 = 1 << 7;
/// R of a second-stage entry.
pub const R: u64 = 1 << 0;
/// W of a second-stage entry.
pub const W: u64 = 1 << 1;

/// The address in an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Where the uppermost table lies in memory.
    pub root: u64,
    /// 3, 4 or 5.
    pub levels: u8,
    /// Flags of entries that point to tables.
    pub table: u64,
    /// What is added to the place of a table for the pointer to it: tables of a first stage that
    /// is nested lie at guest-physical addresses.
    pub bias: u64,
}

/// Log2 of what an entry of a level covers.
pub const fn shift(level: u8) -> u8 {
    12 + 9 * (level - 1)
}

/// Offset of the entry of an address in a table of a level.
const fn offset(address: u64, level: u8) -> u64 {
    (address >> shift(level) & 511) * 8
}

/// What the tables say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Where the entry lies in memory.
    pub at: u64,
    /// Its level: 1 for 4 KiB.
    pub level: u8,
    /// The entry.
    pub entry: u64,
}

impl Stage {
    /// Empty tables.
    pub fn new<B: Board + Clone>(frames: &Frames<B>, levels: u8, table: u64, bias: u64) -> Self {
        Stage {
            root: frames.allocate(),
            levels,
            table,
            bias,
        }
    }

    /// Pointer to the uppermost table.
    pub fn pointer(&self) -> u64 {
        self.root + self.bias
    }

    /// Where the entry for an address lies in the table of a level. Tables on the way are made.
    ///
    /// # Panics
    ///
    /// If a large page is in the way.
    pub fn place<B: Board + Clone>(&self, frames: &Frames<B>, address: u64, level: u8) -> u64 {
        let mut table = self.root;
        for at in (level + 1..=self.levels).rev() {
            let place = table + offset(address, at);
            let entry = load(frames, place);
            table = if entry == 0 {
                let next = frames.allocate();
                store(frames, place, (next + self.bias) | self.table);
                next
            } else {
                assert_eq!(entry & PS, 0, "{address:#x} lies in a large page");
                (entry & ADDRESS) - self.bias
            };
        }
        table + offset(address, level)
    }

    /// Writes the entry of an address in the table of a level, and returns what it was.
    pub fn set<B: Board + Clone>(
        &self,
        frames: &Frames<B>,
        address: u64,
        level: u8,
        entry: u64,
    ) -> u64 {
        let place = self.place(frames, address, level);
        swap(frames, place, entry)
    }

    /// Writes the entry that maps an address, whatever its level, and returns what it was.
    pub fn replace<B: Board + Clone>(
        &self,
        frames: &Frames<B>,
        address: u64,
        entry: u64,
    ) -> Option<u64> {
        let leaf = self.find(frames, address)?;
        Some(swap(frames, leaf.at, entry))
    }

    /// Finds the entry that maps an address, if the tables reach that far.
    pub fn find<B: Board + Clone>(&self, frames: &Frames<B>, address: u64) -> Option<Leaf> {
        let mut table = self.root;
        for level in (1..=self.levels).rev() {
            let at = table + offset(address, level);
            let entry = load(frames, at);
            if level == 1 || entry & PS != 0 {
                return (entry != 0).then_some(Leaf { at, level, entry });
            }
            if entry == 0 {
                return None;
            }
            table = (entry & ADDRESS) - self.bias;
        }
        None
    }
}

/// Tables lie in frames of the allocator, which are memory; so nothing here fails.
fn load<B: Board + Clone>(frames: &Frames<B>, at: u64) -> u64 {
    frames.board().load(at).unwrap_or_default()
}

fn store<B: Board + Clone>(frames: &Frames<B>, at: u64, value: u64) {
    let _ = frames.board().store(at, value);
}

fn swap<B: Board + Clone>(frames: &Frames<B>, at: u64, value: u64) -> u64 {
    frames.board().swap(at, value).unwrap_or_default()
}
