// SPDX-License-Identifier: MIT OR Apache-2.0
//! Second-stage translation (section 3.7).

use super::flags::{Entry, Updates};
use super::want::{Mapping, Walker, Want, Write};
use crate::context::{FaultCondition, SecondStageTables};
use crate::memory::Memory;
use crate::spec::descriptor::Wrong;
use crate::spec::fault::FaultReason as R;
use crate::spec::paging::{SecondStageEntry, entry_address, level_shift};

/// The result of a second-stage walk.
pub(super) struct FoundPage {
    /// The translation, with the permissions of the tables.
    pub mapping: Mapping,
    /// The entry that maps the page.
    pub leaf: Entry,
}

impl<M: Memory> Walker<'_, M> {
    /// Walks the second stage. It checks that there is some permission, but not that it suffices
    /// for the request. `want` decides the fault if nothing is permitted in legacy mode.
    pub(super) fn second(
        &self,
        stage: &SecondStageTables,
        address: u64,
        want: &Want,
        updates: &mut Updates,
    ) -> Result<FoundPage, FaultCondition> {
        let reason = |legacy, scalable| if stage.scalable { scalable } else { legacy };
        if address >> stage.bits != 0 {
            return Err(FaultCondition::new(reason(
                R::AddressBeyondMgaw,
                R::AddressBeyondSecondStage,
            )));
        }
        let nothing = if want.write == Write::Required {
            R::Write
        } else {
            R::Read
        };
        let (haw, large, sc) = (
            self.caps.host_address_width(),
            self.caps.cap().sslps(),
            self.caps.ecap().sc(),
        );
        let (mut table, mut level) = (stage.table, stage.levels);
        let (mut read, mut write, mut execute) = (true, true, true);
        loop {
            let at = entry_address(table, address, level);
            let value = self.memory.read_u64(at).map_err(|_| {
                FaultCondition::new(if level == stage.levels {
                    reason(R::ContextEntryInvalid, R::SecondStageTableAccess)
                } else {
                    reason(R::SecondStageEntryAccess, R::ScalableSecondStageEntryAccess)
                })
            })?;
            let entry = SecondStageEntry(value);
            if !(entry.r() || entry.w() || stage.ssee && entry.x()) {
                return Err(FaultCondition::new(reason(
                    nothing,
                    R::SecondStageNoPermission,
                )));
            }
            if let Some(wrong) = Wrong::reserved(&[entry.reserved(level, haw, large, sc)]) {
                let reason = reason(
                    R::SecondStageEntryReserved,
                    R::ScalableSecondStageEntryReserved,
                );
                return Err(FaultCondition::new(reason).of(wrong));
            }
            read &= entry.r();
            write &= entry.w();
            execute &= entry.x() || !stage.ssee;
            if !(read || write) {
                return Err(FaultCondition::new(reason(
                    nothing,
                    R::SecondStageNoPermission,
                )));
            }
            let leaf = Entry { address: at, value };
            if stage.ssade {
                updates.accessed_second(leaf);
            }
            if entry.is_leaf(level) {
                let offset = (1u64 << level_shift(level)) - 1;
                return Ok(FoundPage {
                    mapping: Mapping {
                        address: entry.addr() & !offset | address & offset,
                        shift: level_shift(level),
                        read,
                        write,
                        execute,
                        snoop: sc && entry.snp(),
                        dirty: !stage.ssade || value & SecondStageEntry::D != 0,
                    },
                    leaf,
                });
            }
            table = entry.addr();
            level -= 1;
        }
    }
}
