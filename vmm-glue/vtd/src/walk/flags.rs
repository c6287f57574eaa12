// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sets the accessed and dirty flags of a walk (sections 3.6.2, 3.7.2 and 3.10).

use super::want::{ATTEMPTS, Stop};
use crate::context::{FaultCondition, TranslationType};
use crate::memory::Memory;
use crate::mutant::{Mutant, breaks};
use crate::spec::fault::FaultReason as R;
use crate::spec::paging::{FirstStageEntry, SecondStageEntry};

/// An entry that a walk read: host address and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub address: u64,
    pub value: u64,
}

/// Flags to set in an entry.
#[derive(Clone, Copy, Debug)]
struct Update {
    entry: Entry,
    bits: u64,
    first_stage: bool,
}

/// The flags that a walk sets once it is certain to succeed. Flags that are already set are
/// omitted, so most walks have none.
#[derive(Default)]
pub(super) struct Updates(Vec<Update>);

impl Updates {
    fn push(&mut self, entry: Entry, bits: u64, first_stage: bool) {
        let same =
            |u: &&mut Update| u.entry.address == entry.address && u.first_stage == first_stage;
        if let Some(update) = self.0.iter_mut().find(same) {
            update.bits |= bits;
        } else if entry.value & bits != bits {
            self.0.push(Update {
                entry,
                bits,
                first_stage,
            });
        }
    }

    /// Adds flags of a first-stage entry. Returns whether any has to be set.
    pub fn first(&mut self, entry: Entry, bits: u64) -> bool {
        self.push(entry, bits, true);
        entry.value & bits != bits
    }

    /// Adds the accessed flag of a second-stage entry.
    pub fn accessed_second(&mut self, entry: Entry) {
        self.push(entry, SecondStageEntry::A, false);
    }

    /// Adds the dirty flag of a second-stage leaf.
    pub fn dirty_second(&mut self, leaf: Entry) {
        self.push(leaf, SecondStageEntry::A | SecondStageEntry::D, false);
    }

    /// Sets the flags: first those that only mark an entry as accessed.
    pub fn apply(&self, memory: &impl Memory, translation: &TranslationType) -> Result<(), Stop> {
        let list = &self.0;
        if list.is_empty() {
            return Ok(());
        }
        let snooped = match translation {
            TranslationType::First(first) | TranslationType::Nested(first, _) => first.snooped,
            TranslationType::Second(second) => second.snooped,
            TranslationType::PassThrough => true,
        };
        if !snooped && !breaks(Mutant::G03) {
            return Err(FaultCondition::new(if list.iter().any(|u| u.first_stage) {
                R::FirstStageUpdateNotSnooped
            } else {
                R::SecondStageUpdateNotSnooped
            })
            .into());
        }
        let dirties = |u: &Update| {
            let d = if u.first_stage {
                FirstStageEntry::D
            } else {
                SecondStageEntry::D
            };
            u.bits & d != 0
        };
        for dirty in [false, true] {
            for update in list.iter().filter(|u| dirties(u) == dirty) {
                update.apply(memory)?;
            }
        }
        Ok(())
    }
}

impl Update {
    fn apply(&self, memory: &impl Memory) -> Result<(), Stop> {
        let (failed, flags) = if self.first_stage {
            let flags = FirstStageEntry::A | FirstStageEntry::D | FirstStageEntry::EA;
            (R::FirstStageUpdateFailed, flags)
        } else {
            let flags = SecondStageEntry::A | SecondStageEntry::D;
            (R::SecondStageUpdateFailed, flags)
        };
        let mut current = self.entry.value;
        for _ in 0..ATTEMPTS {
            if current & self.bits == self.bits {
                return Ok(());
            }
            let found = memory
                .compare_exchange(self.entry.address, current, current | self.bits)
                .map_err(|_| FaultCondition::new(failed))?;
            if found == current {
                return Ok(());
            }
            if (found ^ current) & !flags != 0 {
                return Err(Stop::Again(failed));
            }
            // Only flags have changed meanwhile: the decision still holds.
            current = found;
        }
        Err(Stop::Again(failed))
    }
}
