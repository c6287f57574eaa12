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

use crate::config::Capabilities;
use crate::context::{Fault, Regime, Stages};
use crate::memory::Memory;
use crate::mutant::{Mutant, breaks};
use crate::request::Access;
use crate::spec::fault::FaultReason as R;
use crate::spec::interrupt::{RANGE_BASE, RANGE_LAST, in_range};
pub(crate) use first_stage::LeafTable;
use flags::Updates;
pub(crate) use leaves::{Budget, Span};

/// Whether a request needs write permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// It does not write.
    No,
    /// It fails without.
    Required,
    /// It takes it where it is given (a translation request).
    IfPermitted,
}

/// Whether a request needs read permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// It does not read, or takes what there is (a translation request).
    No,
    /// It fails without.
    Required,
    /// It needs read or write permission (a zero-length read).
    OrWrite,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// Read permission.
    pub read: Read,
    /// Write permission.
    pub write: Write,
    /// Execute permission.
    pub execute: bool,
    /// The permissions of privileged mode.
    pub privileged: bool,
    /// It uses the whole page, not one address in it (a translation request).
    pub whole_page: bool,
}

impl Want {
    /// What a memory request needs. `zlr` is CAP_REG.ZLR.
    pub const fn access(access: Access, execute: bool, privileged: bool, zlr: bool) -> Self {
        let (read, write) = match access {
            Access::ZeroLengthRead if zlr => (Read::OrWrite, Write::No),
            Access::Read | Access::ZeroLengthRead => (Read::Required, Write::No),
            Access::Write => (Read::No, Write::Required),
            Access::Atomic => (Read::Required, Write::Required),
        };
        Want {
            read,
            write,
            execute,
            privileged,
            whole_page: false,
        }
    }

    /// What a translation request takes.
    pub const fn translation(no_write: bool, privileged: bool) -> Self {
        Want {
            read: Read::No,
            write: if no_write {
                Write::No
            } else {
                Write::IfPermitted
            },
            execute: false,
            privileged,
            whole_page: true,
        }
    }
}

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Output address for the input address.
    pub address: u64,
    /// Log2 of the bytes of the page, in which output goes with input.
    pub shift: u8,
    /// Reads are permitted.
    pub read: bool,
    /// Writes are permitted.
    pub write: bool,
    /// Execution is permitted.
    pub execute: bool,
    /// Accesses snoop processor caches.
    pub snoop: bool,
    /// Writes need no flag to be set any more.
    pub dirty: bool,
}

impl Mapping {
    /// Whether the output lies in the interrupt address range (section 3.15).
    pub const fn meets_interrupts(&self, whole_page: bool) -> bool {
        if whole_page {
            let first = self.address & !self.offset();
            first <= RANGE_LAST && first | self.offset() >= RANGE_BASE
        } else {
            in_range(self.address)
        }
    }

    /// The bits of an address that select a byte in the page.
    pub const fn offset(&self) -> u64 {
        (1 << self.shift) - 1
    }
}

/// What walks have in common.
pub(crate) struct Walker<'a, M> {
    pub memory: &'a M,
    pub caps: &'a Capabilities,
}

/// A walk has to start again, or fails.
enum Stop {
    /// An entry changed under the walk.
    Again(R),
    /// A fault condition.
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

/// How often a walk starts again before it gives up. Processors would have to change an entry of
/// this very walk, between its being read and its being updated, as often as that.
const ATTEMPTS: usize = 1000;

impl<M: Memory> Walker<'_, M> {
    /// Translates an address, sets the flags that go with it, and says what is permitted.
    pub fn translate(&self, regime: &Regime, address: u64, want: &Want) -> Result<Mapping, Fault> {
        let mut last = R::FirstStageUpdateFailed;
        for _ in 0..ATTEMPTS {
            match self.attempt(regime, address, want) {
                Ok(mapping) => return Ok(mapping),
                Err(Stop::Again(reason)) => last = reason,
                Err(Stop::Fault(fault)) => return Err(fault.with_fpd(regime.fpd)),
            }
        }
        Err(Fault::new(last).with_fpd(regime.fpd))
    }

    fn attempt(&self, regime: &Regime, address: u64, want: &Want) -> Result<Mapping, Stop> {
        let mut updates = Updates::default();
        let mut mapping = match &regime.stages {
            Stages::PassThrough => self.pass_through(regime, address)?,
            Stages::First(first) => self.first(first, None, address, want, &mut updates)?,
            Stages::Nested(first, second) => {
                self.first(first, Some(second), address, want, &mut updates)?
            }
            Stages::Second(second) => {
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
            return Err(Fault::new(if regime.scalable {
                R::ScalableInterruptAddress
            } else {
                R::InterruptAddress
            })
            .into());
        }
        updates.apply(self.memory, &regime.stages)?;
        mapping.snoop |= regime.page_snoop && !breaks(Mutant::G13);
        Ok(mapping)
    }

    /// Pass-through (section 3.9): the widest page that goes through unchanged.
    fn pass_through(&self, regime: &Regime, address: u64) -> Result<Mapping, Fault> {
        if !self.caps.holds(address) {
            return Err(Fault::new(if regime.scalable {
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

/// Checks what the stages together permit.
fn check(scalable: bool, mapping: &Mapping, want: &Want) -> Result<(), Fault> {
    let fault = |reason| Err(Fault::new(reason));
    if want.write == Write::Required && !mapping.write {
        return fault(if scalable { R::ScalableWrite } else { R::Write });
    }
    let read = match want.read {
        Read::No => true,
        Read::Required => mapping.read,
        Read::OrWrite => mapping.read || mapping.write,
    };
    if !read {
        return fault(if scalable { R::ScalableRead } else { R::Read });
    }
    if want.execute && !mapping.execute {
        return fault(R::NoExecute);
    }
    Ok(())
}
