// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a function reaches without asking: for hosts that hand the memory of a function over in
//! advance, to hardware below or to another process (section 6.1, Caching Mode).

use super::Unit;
use crate::context::{self, Context, Fault, Regime, Stages};
use crate::memory::Memory;
use crate::spec::SourceId;
use crate::spec::fault::FaultReason as R;
use crate::spec::mask;
use crate::spec::register::TranslationTableMode;
use crate::walk::{Span, Walker};
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

/// The tables of a function have more entries than a host should read at once, for instance as
/// they contain themselves. Not of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tables of function {requester} have more than {most} entries in this range")]
pub struct TooManyEntries {
    /// The function.
    pub requester: SourceId,
    /// How many entries are read.
    pub most: usize,
}

impl Unit {
    /// The most entries of tables that [`Unit::reach`] reads: 16 GiB in pages of 4 KiB. Not of the
    /// specification.
    pub const MOST_ENTRIES: usize = 1 << 22;

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
        first: u64,
        last: u64,
    ) -> Result<Reach, TooManyEntries> {
        if !self.translation_enabled() {
            return Ok(Reach::Everything);
        }
        let mut pages = Vec::new();
        let Ok((regime, privileged)) = self.regime_now(memory, requester) else {
            return Ok(Reach::Pages(pages));
        };
        if regime.stages == Stages::PassThrough {
            return Ok(Reach::Everything);
        }
        let walker = Walker {
            memory,
            caps: &self.caps,
        };
        let span = Span { first, last };
        let most = Self::MOST_ENTRIES;
        let found = walker.pages(&regime, privileged, span, most, |input, mapping| {
            pages.push(MappedPage {
                input,
                output: mapping.address,
                read: mapping.read,
                write: mapping.write,
            });
        });
        found.map_err(|_| TooManyEntries { requester, most })?;
        Ok(Reach::Pages(pages))
    }

    /// How requests without PASID of a function are translated by the tables in memory, and
    /// whether they have the permissions of privileged mode.
    fn regime_now(
        &self,
        memory: &impl Memory,
        requester: SourceId,
    ) -> Result<(Regime, bool), Fault> {
        self.check_mode(None)?;
        let table = self.rtaddr & mask(63, 12);
        let context = match self.translation_table_mode() {
            TranslationTableMode::Legacy => {
                context::legacy_context(memory, &self.caps, table, requester)?
            }
            _ => context::scalable_context(memory, &self.caps, table, requester)?,
        };
        match context {
            Context::Legacy { regime, .. } => Ok((regime, false)),
            Context::Scalable(c) => {
                let regime = context::pasid_entry(memory, &self.caps, &c, c.rid_pasid)?;
                if c.rid_priv && !regime.supervisor {
                    return Err(Fault::new(R::SupervisorRequestDisabled));
                }
                Ok((regime, c.rid_priv))
            }
        }
    }
}
