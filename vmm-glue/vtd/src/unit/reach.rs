// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a function reaches without asking: for hosts that hand the memory of a function over in
//! advance, to hardware below or to another process (section 6.1, Caching Mode).

use super::Unit;
use crate::context::{self, CheckedContext, FaultCondition, Regime, TranslationType};
use crate::memory::Memory;
use crate::spec::fault::FaultReason as R;
use crate::spec::{DomainId, SourceId};
use crate::walk::{Budget, Span, Walker};
use pcie_ats::AlignedRange;

/// What the requests without PASID of a function reach, by the tables as they are now (sections
/// 3.4 to 3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of memory, each address at itself: remapping is off (TES, section 11.4.4.2), or the
    /// function is passed through (section 3.9).
    Everything,
    /// These pages, in the order of the tables. None if requests of the function are blocked.
    Pages(Vec<MappedPage>),
}

/// A page of input addresses, and where it is mapped (sections 3.6 to 3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedPage {
    /// The input addresses.
    pub input: AlignedRange,
    /// Host address of the first byte.
    pub output: u64,
    /// Reads are permitted.
    pub read: bool,
    /// Writes are permitted; the dirty flag is set for them (sections 3.6.2 and 3.7.2).
    pub write: bool,
}

/// A part of what a function reaches: [`Unit::reach_part`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachPart {
    /// What it reaches from the first address to the one before `next`.
    pub reach: Reach,
    /// The domain by which its translations are invalidated. None if requests of the function are
    /// blocked, or not translated: then what it reaches changes with its context or PASID entry.
    pub domain: Option<DomainId>,
    /// Where the next part begins. None if this is the last one.
    pub next: Option<u64>,
    /// How many entries of tables were present.
    pub entries: usize,
}

/// The tables of a function have more entries than a host should read at once, for instance as
/// they contain themselves. Not of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tables of function {requester} have more than {most} present entries in this range")]
pub struct TooManyEntries {
    /// The function.
    pub requester: SourceId,
    /// How many present entries are read.
    pub most: usize,
}

impl Unit {
    /// The most present entries of tables that [`Unit::reach`] reads: those of 16 GiB in pages of
    /// 4 KiB, and their tables. Not of the specification.
    pub const MOST_ENTRIES: usize = (1 << 22) + (1 << 16);

    /// The least number of reads for [`Unit::reach_part`]: a way through the tables of two stages.
    const LEAST_READS: usize = 64;

    /// What the requests without PASID of a function reach from address `first` to `last`: the
    /// pages of which any part lies there.
    ///
    /// A host that copies mappings asks again what was invalidated ([`crate::Invalidated`]). With
    /// Caching Mode (section 6.1), software invalidates also what it has added. Tables are read
    /// from memory, caches are left alone, and no fault is recorded. Flags are set in advance, for
    /// the accesses will not be seen: A, and D where writes are permitted.
    pub fn reach(
        &self,
        memory: &impl Memory,
        requester: SourceId,
        mut first: u64,
        last: u64,
    ) -> Result<Reach, TooManyEntries> {
        const READS: usize = 1 << 20;
        let (mut all, mut entries, most) = (Vec::new(), 0, Self::MOST_ENTRIES);
        loop {
            let part = self.reach_part(memory, requester, first, last, READS);
            let Reach::Pages(mut pages) = part.reach else {
                return Ok(Reach::Everything);
            };
            all.append(&mut pages);
            entries += part.entries;
            if entries > most {
                return Err(TooManyEntries { requester, most });
            }
            match part.next {
                Some(next) => first = next,
                None => return Ok(Reach::Pages(all)),
            }
        }
    }

    /// As [`Unit::reach`], for a host that lets others have the unit from time to time: about
    /// `reads` entries of tables are read, present or not, and at least as many as one address
    /// needs. Tables may change between two parts, as they may between two walks.
    pub fn reach_part(
        &self,
        memory: &impl Memory,
        requester: SourceId,
        first: u64,
        last: u64,
        reads: usize,
    ) -> ReachPart {
        let whole = |reach| ReachPart {
            reach,
            domain: None,
            next: None,
            entries: 0,
        };
        if !self.translation_enabled() {
            return whole(Reach::Everything);
        }
        let Ok((regime, privileged)) = self.regime_now(memory, requester) else {
            return whole(Reach::Pages(Vec::new()));
        };
        if regime.translation == TranslationType::PassThrough {
            return whole(Reach::Everything);
        }
        let walker = Walker {
            memory,
            caps: &self.caps,
        };
        let mut budget = Budget {
            reads: reads.max(Self::LEAST_READS),
            present: 0,
        };
        let (span, mut pages) = (Span { first, last }, Vec::new());
        let next = walker.pages(&regime, privileged, span, &mut budget, |input, mapping| {
            pages.push(MappedPage {
                input,
                output: mapping.address,
                read: mapping.read,
                write: mapping.write,
            });
        });
        ReachPart {
            reach: Reach::Pages(pages),
            domain: Some(self.domain(regime.domain.0)),
            next,
            entries: budget.present,
        }
    }

    /// How requests without PASID of a function are translated by the tables in memory, and
    /// whether they have the permissions of privileged mode.
    fn regime_now(
        &self,
        memory: &impl Memory,
        requester: SourceId,
    ) -> Result<(Regime, bool), FaultCondition> {
        self.check_mode(None)?;
        match self.context_in_memory(memory, requester)? {
            CheckedContext::Legacy { regime, .. } => Ok((regime, false)),
            CheckedContext::Scalable(c) => {
                let regime = context::pasid_entry(memory, &self.caps, &c, c.rid_pasid)?;
                if c.rid_priv && !regime.supervisor {
                    return Err(FaultCondition::new(R::SupervisorRequestDisabled));
                }
                Ok((regime, c.rid_priv))
            }
        }
    }
}
