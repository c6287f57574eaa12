// SPDX-License-Identifier: MIT OR Apache-2.0
//! First-stage translation (section 3.6), alone or nested in the second (section 3.8).

use super::flags::{Entry, Updates};
use super::want::{Mapping, Read, Stop, Walker, Want, Write, check};
use crate::context::{FaultCondition, FirstStageTables, Regime, SecondStageTables};
use crate::memory::Memory;
use crate::mutant::{Mutant, breaks};
use crate::spec::descriptor::Wrong;
use crate::spec::fault::FaultReason as R;
use crate::spec::mask;
use crate::spec::paging::{FirstStageEntry, entry_address, level_shift};

/// Whether all bits above a width equal the highest bit within it.
fn canonical(address: u64, bits: u32) -> bool {
    let high = address as i64 >> (bits - 1);
    high == 0 || high == -1 || breaks(Mutant::Rule27)
}

/// The address of an entry of the first stage.
pub(super) struct EntryAddress {
    /// Host address.
    pub(super) address: u64,
    /// Its flags may be set (it is writable).
    writable: bool,
}

/// What the entries of a walk permit so far.
#[derive(Clone, Copy, Debug)]
struct Rights {
    user: bool,
    write: bool,
    execute_disabled: bool,
}

impl Rights {
    const ALL: Rights = Rights {
        user: true,
        write: true,
        execute_disabled: false,
    };

    /// The remaining rights with another entry.
    fn with(self, stage: &FirstStageTables, entry: FirstStageEntry) -> Rights {
        Rights {
            user: self.user & entry.us(),
            write: self.write & entry.rw(),
            execute_disabled: self.execute_disabled | (stage.nxe && entry.xd()),
        }
    }

    /// The mapping of an address by a leaf, with the remaining rights.
    fn mapping(
        self,
        stage: &FirstStageTables,
        want: &Want,
        leaf: FirstStageEntry,
        level: u8,
        address: u64,
    ) -> Mapping {
        let offset = (1u64 << level_shift(level)) - 1;
        Mapping {
            address: leaf.addr() & !offset | address & offset,
            shift: level_shift(level),
            read: true,
            write: self.write || want.privileged && !stage.wpe,
            execute: !(self.execute_disabled || want.privileged && stage.smep && self.user),
            snoop: false,
            dirty: leaf.0 & FirstStageEntry::D != 0,
        }
    }
}

/// The flags that every entry of a walk gets.
const fn used(stage: &FirstStageTables) -> u64 {
    if stage.eafe {
        FirstStageEntry::A | FirstStageEntry::EA
    } else {
        FirstStageEntry::A
    }
}

/// A table of 4 KiB leaves, with the rights of the entries on the path to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafTable {
    table: u64,
    rights: Rights,
}

impl<M: Memory> Walker<'_, M> {
    /// The table whose entry maps an address, if all entries on the path have their flags set,
    /// because the table was used before. Also none for anything else that needs a full walk. Not
    /// for nested translation.
    pub fn leaf_table(
        &self,
        stage: &FirstStageTables,
        address: u64,
        want: &Want,
    ) -> Option<LeafTable> {
        if !canonical(address, 12 + 9 * stage.levels as u32) {
            return None;
        }
        let (haw, fs1gp) = (self.caps.host_address_width(), self.caps.cap().fs1gp());
        let (mut table, mut rights) = (stage.table, Rights::ALL);
        for level in (2..=stage.levels).rev() {
            let value = self.memory.read_u64(entry_address(table, address, level));
            let entry = FirstStageEntry(value.ok()?);
            let used = used(stage);
            let good = entry.p() && entry.reserved(level, haw, fs1gp) == 0;
            if !good || entry.is_leaf(level) || entry.0 & used != used {
                return None;
            }
            (table, rights) = (entry.addr(), rights.with(stage, entry));
        }
        (want.privileged || rights.user).then_some(LeafTable { table, rights })
    }

    /// Translates an address with the table of its leaf. None if there is any complication: then a
    /// walk from the top gives the reason.
    pub fn in_leaf_table(
        &self,
        regime: &Regime,
        stage: &FirstStageTables,
        leaves: &LeafTable,
        address: u64,
        want: &Want,
    ) -> Option<Mapping> {
        let (haw, fs1gp) = (self.caps.host_address_width(), self.caps.cap().fs1gp());
        let place = entry_address(leaves.table, address, 1);
        let value = self.memory.read_u64(place).ok()?;
        let entry = FirstStageEntry(value);
        if !entry.p() || entry.reserved(1, haw, fs1gp) != 0 {
            return None;
        }
        let rights = leaves.rights.with(stage, entry);
        let mut mapping = rights.mapping(stage, want, entry, 1, address);
        let allowed = (want.privileged || rights.user) && check(true, &mapping, want).is_ok();
        if !allowed || mapping.meets_interrupts(want.whole_page) {
            return None;
        }
        let mut flags = used(stage);
        if mapping.write && want.write != Write::No {
            flags |= FirstStageEntry::D;
            mapping.dirty = true;
        }
        if value & flags != flags {
            let mut updates = Updates::default();
            let address = place;
            updates.first(Entry { address, value }, flags);
            updates.apply(self.memory, &regime.translation).ok()?;
        }
        mapping.snoop |= regime.page_snoop;
        Some(mapping)
    }

    /// Walks the first stage, through `second` if there is one.
    pub(super) fn first(
        &self,
        stage: &FirstStageTables,
        second: Option<&SecondStageTables>,
        address: u64,
        want: &Want,
        updates: &mut Updates,
    ) -> Result<Mapping, Stop> {
        if !canonical(address, 12 + 9 * stage.levels as u32) {
            return Err(FaultCondition::new(R::NotCanonical).into());
        }
        let (haw, fs1gp) = (self.caps.host_address_width(), self.caps.cap().fs1gp());
        let used = used(stage);
        let (mut table, mut level) = (stage.table, stage.levels);
        let mut rights = Rights::ALL;
        let mut blocked = false;
        loop {
            let top = level == stage.levels;
            let place = self.place(second, entry_address(table, address, level), top, updates)?;
            let value = self.memory.read_u64(place.address).map_err(|_| {
                FaultCondition::new(if top {
                    R::FirstStageTableAccess
                } else {
                    R::FirstStageEntryAccess
                })
            })?;
            let entry = FirstStageEntry(value);
            if !entry.p() {
                return Err(FaultCondition::new(R::FirstStageEntryNotPresent).into());
            }
            let fs1gp = fs1gp || breaks(Mutant::Rule79);
            if let Some(wrong) = Wrong::reserved(&[entry.reserved(level, haw, fs1gp)]) {
                return Err(FaultCondition::new(R::FirstStageEntryReserved)
                    .of(wrong)
                    .into());
            }
            if second.is_some_and(|s| entry.addr() & mask(63, s.bits.into()) != 0) {
                return Err(FaultCondition::new(R::FirstStageEntryBeyondMgaw).into());
            }
            rights = rights.with(stage, entry);
            let privileged = want.privileged && !breaks(Mutant::G05);
            if !privileged && !rights.user {
                return Err(FaultCondition::new(R::SupervisorPage).into());
            }
            let entry_read = Entry {
                address: place.address,
                value,
            };
            if !entry.is_leaf(level) {
                // The walk sets the flags if it succeeds; whether they can be set is known only
                // later.
                blocked |= updates.first(entry_read, used) && !place.writable;
                (table, level) = (entry.addr(), level - 1);
                continue;
            }
            let mut mapping = rights.mapping(stage, want, entry, level, address);
            let page = match second {
                Some(second) => Some(self.page(second, &mut mapping, want, updates)?),
                None => None,
            };
            check(true, &mapping, want)?;
            let mut flags = used;
            let unmarked = want.write == Write::IfPermitted && breaks(Mutant::S26);
            let written = want.write != Write::No && !unmarked;
            if (mapping.write || breaks(Mutant::Rule26)) && written {
                flags |= FirstStageEntry::D;
                mapping.dirty = true;
                if let (Some(leaf), Some(second)) = (page, second) {
                    if second.ssade {
                        updates.dirty_second(leaf);
                    }
                }
            }
            blocked |= updates.first(entry_read, flags) && !place.writable;
            if blocked {
                return Err(FaultCondition::new(R::NestedEntryWrite).into());
            }
            return Ok(mapping);
        }
    }

    /// The host address of a first-stage entry: its address, or the second stage's translation of
    /// it.
    pub(super) fn place(
        &self,
        second: Option<&SecondStageTables>,
        address: u64,
        top: bool,
        updates: &mut Updates,
    ) -> Result<EntryAddress, FaultCondition> {
        let Some(second) = second else {
            return Ok(EntryAddress {
                address,
                writable: true,
            });
        };
        let want = Want {
            read: Read::Required,
            write: Write::No,
            execute: false,
            privileged: false,
            whole_page: false,
        };
        let found = self.second(second, address, &want, updates)?;
        let m = &found.mapping;
        // If accessed and dirty flags are enabled, reading a table counts as writing it.
        if !m.read || second.ssade && !m.write {
            return Err(FaultCondition::new(if top {
                R::NestedTableRead
            } else {
                R::NestedEntryRead
            }));
        }
        if second.ssade {
            updates.dirty_second(found.leaf);
        }
        Ok(EntryAddress {
            address: m.address,
            writable: m.write,
        })
    }

    /// Translates the page of a first-stage mapping by the second stage. Returns the entry that
    /// maps it there.
    fn page(
        &self,
        second: &SecondStageTables,
        mapping: &mut Mapping,
        want: &Want,
        updates: &mut Updates,
    ) -> Result<Entry, FaultCondition> {
        let found = self.second(second, mapping.address, want, updates)?;
        let m = &found.mapping;
        mapping.address = m.address;
        mapping.shift = mapping.shift.min(m.shift);
        mapping.read &= m.read;
        mapping.write &= m.write;
        mapping.execute &= m.execute;
        mapping.snoop |= m.snoop;
        mapping.dirty &= m.dirty;
        Ok(found.leaf)
    }
}
