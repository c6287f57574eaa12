// SPDX-License-Identifier: MIT OR Apache-2.0
//! From an input address to an output address: the page walks of sections 3.6 to 3.9.
//!
//! A walk first reads all entries and decides whether the request is allowed; only then does it
//! set accessed and dirty flags, by compare-and-swap. If an entry has changed meanwhile, the walk
//! starts again, so that a flag is never set in an entry that the decision did not see, and never
//! for a request that fails.

mod first_stage;
mod flags;
mod leaves;
mod second_stage;
mod want;

use crate::context::{FaultCondition, Regime, TranslationType};
use crate::memory::Memory;
use crate::mutant::{Mutant, breaks};
use crate::spec::fault::FaultReason as R;
use crate::spec::interrupt::RANGE_BASE;
pub(crate) use first_stage::LeafTable;
use flags::Updates;
pub(crate) use leaves::{Budget, Span};
use want::{ATTEMPTS, Stop, check};
pub(crate) use want::{Mapping, Read, Walker, Want, Write};

impl<M: Memory> Walker<'_, M> {
    /// Translates an address, sets the flags for the access, and returns the permissions.
    pub fn translate(
        &self,
        regime: &Regime,
        address: u64,
        want: &Want,
    ) -> Result<Mapping, FaultCondition> {
        let mut last = R::FirstStageUpdateFailed;
        for _ in 0..ATTEMPTS {
            match self.attempt(regime, address, want) {
                Ok(mapping) => return Ok(mapping),
                Err(Stop::Again(reason)) => last = reason,
                Err(Stop::Fault(fault)) => return Err(fault.with_fpd(regime.fpd)),
            }
        }
        Err(FaultCondition::new(last).with_fpd(regime.fpd))
    }

    fn attempt(&self, regime: &Regime, address: u64, want: &Want) -> Result<Mapping, Stop> {
        let mut updates = Updates::default();
        let mut mapping = match &regime.translation {
            TranslationType::PassThrough => self.pass_through(regime, address)?,
            TranslationType::First(first) => {
                self.first(first, None, address, want, &mut updates)?
            }
            TranslationType::Nested(first, second) => {
                self.first(first, Some(second), address, want, &mut updates)?
            }
            TranslationType::Second(second) => {
                let found = self.second(second, address, want, &mut updates)?;
                let leaf = found.leaf;
                let mut m = found.mapping;
                check(regime.scalable, &m, want)?;
                if second.ssade && m.write && want.write != Write::No {
                    updates.dirty_second(leaf);
                    m.dirty = true;
                }
                m
            }
        };
        if mapping.meets_interrupts(want.whole_page) {
            return Err(FaultCondition::new(if regime.scalable {
                R::ScalableInterruptAddress
            } else {
                R::InterruptAddress
            })
            .into());
        }
        updates.apply(self.memory, &regime.translation)?;
        mapping.snoop |= regime.page_snoop && !breaks(Mutant::G13);
        Ok(mapping)
    }

    /// Pass-through (section 3.9): the largest page that is passed unchanged.
    fn pass_through(&self, regime: &Regime, address: u64) -> Result<Mapping, FaultCondition> {
        if !self.caps.holds(address) {
            return Err(FaultCondition::new(if regime.scalable {
                R::AddressBeyondHost
            } else {
                R::AddressBeyondMgaw
            }));
        }
        let holds_interrupts = |shift: u8| address >> shift == RANGE_BASE >> shift;
        let shift = [30, 21, 12].into_iter().find(|s| !holds_interrupts(*s));
        Ok(Mapping {
            address,
            shift: shift.unwrap_or(12),
            read: true,
            write: true,
            execute: true,
            snoop: regime.page_snoop,
            dirty: true,
        })
    }
}
