// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tables say of the address spaces of a function: for hosts that put an address space
//! into an IOMMU below, where another unit walks the same tables (sections 3.4 and 9.1 to 9.6).

use super::Unit;
use crate::context::{
    self, CheckedContext, FaultCondition, FirstStageTables, ScalableContext, TranslationType,
};
use crate::memory::{Memory, read_words};
use crate::mutant::{Mutant, breaks};
use crate::spec::fault::FaultReason;
use crate::spec::pasid::{PasidDirectoryEntry, PasidEntry};
use crate::spec::register::TranslationTableMode;
use crate::spec::{DomainId, SourceId};
use pcie_ats::Pasid;

/// An address space of a function, as its tables describe it (section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressSpace {
    /// DID.
    pub domain: DomainId,
    /// By which stages addresses are translated.
    pub translation: AddressTranslation,
}

/// By which stages the addresses of an address space are translated (PGTT, or TT of legacy mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressTranslation {
    /// By the first stage alone.
    FirstStage(FirstStageTable),
    /// By the second stage alone.
    SecondStage,
    /// By both.
    Nested(FirstStageTable),
    /// By none: the output is the input.
    PassThrough,
}

/// The first stage of an address space (section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FirstStageTable {
    /// FSPTPTR: address of the table of the highest level.
    pub table: u64,
    /// FSPM: 4 or 5 levels.
    pub levels: u8,
    /// SRE: supervisor requests are permitted.
    pub supervisor_requests: bool,
    /// WPE: supervisor requests respect read-only pages.
    pub write_protect: bool,
    /// EAFE: the extended-accessed flag is set.
    pub extended_accessed: bool,
}

/// Some of the PASIDs of a function: [`Unit::pasids`] (section 9.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentPasids {
    /// PASIDs whose entry is present, from small to great.
    pub pasids: Vec<Pasid>,
    /// Where to go on; none at the end.
    pub next: Option<u32>,
}

/// How many PASIDs a directory entry has (section 9.5).
const PER_DIRECTORY_ENTRY: u32 = 64;

impl Unit {
    /// How the requests of a function are translated by the tables in memory, without PASID or with
    /// one, or why they are blocked (table 30). Remapping counts as on; caches are left alone, and
    /// no fault is recorded.
    pub fn address_space(
        &self,
        memory: &impl Memory,
        requester: SourceId,
        pasid: Option<Pasid>,
    ) -> Result<AddressSpace, FaultReason> {
        self.describe(memory, requester, pasid)
            .map_err(|fault| fault.reason)
    }

    fn describe(
        &self,
        memory: &impl Memory,
        requester: SourceId,
        pasid: Option<Pasid>,
    ) -> Result<AddressSpace, FaultCondition> {
        self.check_mode(pasid)?;
        let regime = match self.context_in_memory(memory, requester)? {
            CheckedContext::Legacy { regime, .. } => regime,
            CheckedContext::Scalable(context) => {
                let number = match pasid {
                    None => context.rid_pasid,
                    Some(pasid) => {
                        if !breaks(Mutant::PasidEnable) {
                            self.check_pasid(&context, pasid)?;
                        }
                        pasid.get()
                    }
                };
                context::pasid_entry(memory, &self.caps, &context, number)?
            }
        };
        let first = |tables: &FirstStageTables| FirstStageTable {
            table: tables.table,
            levels: tables.levels,
            supervisor_requests: regime.supervisor,
            write_protect: tables.wpe,
            extended_accessed: tables.eafe,
        };
        Ok(AddressSpace {
            domain: self.domain(regime.domain.0),
            translation: match &regime.translation {
                TranslationType::First(tables) => AddressTranslation::FirstStage(first(tables)),
                TranslationType::Second(_) => AddressTranslation::SecondStage,
                TranslationType::Nested(tables, _) => AddressTranslation::Nested(first(tables)),
                TranslationType::PassThrough => AddressTranslation::PassThrough,
            },
        })
    }

    /// RID_PASID: by which entry of the PASID table requests without PASID of a function are
    /// translated (section 9.4). None if they are blocked before that, or in legacy mode.
    pub fn rid_pasid(&self, memory: &impl Memory, requester: SourceId) -> Option<Pasid> {
        self.check_mode(None).ok()?;
        match self.context_in_memory(memory, requester).ok()? {
            CheckedContext::Scalable(context) => Pasid::new(context.rid_pasid).ok(),
            CheckedContext::Legacy { .. } => None,
        }
    }

    /// The PASIDs of a function from `first` on, below `limit`, whose table entry has its present
    /// bit set: as many as are found with about `reads` reads of entries, and at least one way
    /// through a directory entry. What their entries say, and whether they are valid,
    /// [`Unit::address_space`] tells. RID_PASID is left out: it is no PASID that a request can
    /// have. None if requests with PASID are blocked (sections 3.4.3, 9.4 and 9.5).
    pub fn pasids(
        &self,
        memory: &impl Memory,
        requester: SourceId,
        first: u32,
        limit: u32,
        reads: usize,
    ) -> PresentPasids {
        let mut found = PresentPasids {
            pasids: Vec::new(),
            next: None,
        };
        let Ok(context) = self.pasid_context(memory, requester) else {
            return found;
        };
        let width = u32::from(self.ecap().pasid_width());
        let limit = limit.min(context.pasid_limit).min(1 << width);
        let (mut at, mut left) = (first, reads.max(1 + PER_DIRECTORY_ENTRY as usize));
        while at < limit {
            if left == 0 {
                found.next = Some(at);
                return found;
            }
            left -= 1;
            let end = (at / PER_DIRECTORY_ENTRY + 1) * PER_DIRECTORY_ENTRY;
            let place = context.directory + u64::from(at / PER_DIRECTORY_ENTRY) * 8;
            let directory = memory.read_u64(place).map(PasidDirectoryEntry);
            let Some(directory) = directory.ok().filter(PasidDirectoryEntry::p) else {
                // A directory entry that is not present has no PASIDs.
                at = end;
                continue;
            };
            while at < end.min(limit) {
                if left == 0 {
                    found.next = Some(at);
                    return found;
                }
                left -= 1;
                let place = directory.smptblptr() | u64::from(at % PER_DIRECTORY_ENTRY) << 6;
                let present = read_words(memory, place).is_ok_and(|words| PasidEntry(words).p());
                if let (true, Ok(pasid)) = (present && at != context.rid_pasid, Pasid::new(at)) {
                    found.pasids.push(pasid);
                }
                at += 1;
            }
        }
        found
    }

    /// The context entry of a function whose requests may have a PASID.
    fn pasid_context(
        &self,
        memory: &impl Memory,
        requester: SourceId,
    ) -> Result<ScalableContext, FaultCondition> {
        self.check_mode(None)?;
        match self.context_in_memory(memory, requester)? {
            CheckedContext::Scalable(context) if context.paside => Ok(context),
            _ => Err(FaultCondition::new(FaultReason::PasidDisabled)),
        }
    }

    /// The context entry of a function as it is in memory, whatever is cached.
    pub(super) fn context_in_memory(
        &self,
        memory: &impl Memory,
        requester: SourceId,
    ) -> Result<CheckedContext, FaultCondition> {
        let table = self.rtaddr.rta();
        match self.translation_table_mode() {
            TranslationTableMode::Legacy => {
                context::legacy_context(memory, &self.caps, table, requester)
            }
            _ => context::scalable_context(memory, &self.caps, table, requester),
        }
    }
}
