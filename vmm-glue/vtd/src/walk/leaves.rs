// SPDX-License-Identifier: MIT OR Apache-2.0
//! All pages that tables map in a range of input addresses (sections 3.6 to 3.8), for hosts that
//! keep a copy of them.
//!
//! This module only searches tables for entries that might map something. A walk, as for any
//! request, decides what such an entry maps, and for which requests: the rules are not implemented
//! twice.

use super::flags::Updates;
use super::want::{Mapping, Walker, Want};
use crate::context::{FirstStageTables, Regime, SecondStageTables, TranslationType};
use crate::memory::Memory;
use crate::spec::paging::{FirstStageEntry, SecondStageEntry, entry_address, level_shift};
use pcie_ats::AlignedRange;

/// The limit of one search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Entries that may still be read, present or not.
    pub reads: usize,
    /// Number of entries that were present.
    pub present: usize,
}

/// The search has ended early: this is the first address that it has not examined.
struct Ended(u64);

/// Addresses from the first to the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub first: u64,
    pub last: u64,
}

impl Span {
    const fn overlaps(self, range: AlignedRange) -> bool {
        range.base() <= self.last && range.last() >= self.first
    }
}

/// The tables of a stage.
struct Tables<'a> {
    root: u64,
    levels: u8,
    /// First stage: addresses are canonical.
    first: bool,
    /// The stage that translates the tables' own addresses.
    second: Option<&'a SecondStageTables>,
}

/// An entry that may map a page.
struct Leaf {
    /// Its input addresses.
    input: AlignedRange,
    /// Its output, as far as the entry defines it.
    output: u64,
}

/// Handles such an entry.
type Visit<'a> = dyn FnMut(Leaf, &mut Budget) -> Result<(), Ended> + 'a;

impl<'a> Tables<'a> {
    /// The tables of a first stage, which may be nested in a second.
    const fn of_first(first: &FirstStageTables, second: Option<&'a SecondStageTables>) -> Self {
        Tables {
            root: first.table,
            levels: first.levels,
            first: true,
            second,
        }
    }

    /// The tables of a second stage.
    const fn of_second(second: &SecondStageTables) -> Self {
        Tables {
            root: second.table,
            levels: second.levels,
            first: false,
            second: None,
        }
    }

    /// The input addresses of an entry of `level`; `offset` is the number that the indices form.
    fn input(&self, offset: u64, level: u8) -> AlignedRange {
        let unused = 64 - level_shift(self.levels) as u32 - 9;
        let address = if self.first {
            ((offset << unused) as i64 >> unused) as u64
        } else {
            offset
        };
        AlignedRange::containing(address, level_shift(level)).unwrap_or(AlignedRange::page(address))
    }
}

impl<M: Memory> Walker<'_, M> {
    /// Calls `visit` for each page of a range that requests of this privilege may reach. Sets its
    /// flags as a translation request does, because the unit does not see the later accesses: A,
    /// and D if writes are permitted. If the budget is used up, returns the address at which the
    /// rest begins.
    pub fn pages(
        &self,
        regime: &Regime,
        privileged: bool,
        span: Span,
        budget: &mut Budget,
        mut visit: impl FnMut(AlignedRange, Mapping),
    ) -> Option<u64> {
        let want = Want::translation(false, privileged);
        let mut page = |input: AlignedRange| {
            let found = self.translate(regime, input.base(), &want);
            if let Some(mapping) = found.ok().filter(|m| m.read || m.write) {
                visit(input, mapping);
            }
        };
        let tables = match &regime.translation {
            TranslationType::PassThrough => return None,
            TranslationType::First(first) => Tables::of_first(first, None),
            TranslationType::Second(second) => Tables::of_second(second),
            TranslationType::Nested(first, second) => Tables::of_first(first, Some(second)),
        };
        let ended = self.leaves(&tables, span, budget, &mut |leaf: Leaf, budget| {
            let Some(second) = tables.second else {
                page(leaf.input);
                return Ok(());
            };
            let shift = leaf.input.shift();
            let Ok(middle) = AlignedRange::containing(leaf.output, shift) else {
                return Ok(());
            };
            // The part of it in the span: a leaf may be larger.
            let from = span.first.max(leaf.input.base()) - leaf.input.base();
            let to = span.last.min(leaf.input.last()) - leaf.input.base();
            let part = Span {
                first: middle.base() + from,
                last: middle.base() + to,
            };
            let below = self.leaves(&Tables::of_second(second), part, budget, &mut |below, _| {
                let offset = below.input.base().max(middle.base()) - middle.base();
                let shift = shift.min(below.input.shift());
                if let Ok(input) = AlignedRange::containing(leaf.input.base() + offset, shift) {
                    page(input);
                }
                Ok(())
            });
            below.map_err(|Ended(at)| {
                Ended(leaf.input.base() + (at.max(part.first) - middle.base()))
            })
        });
        ended.err().map(|Ended(at)| at.max(span.first))
    }

    /// Calls `visit` for the entries of a stage that may map pages of a range, in order.
    fn leaves(
        &self,
        tables: &Tables<'_>,
        span: Span,
        budget: &mut Budget,
        visit: &mut Visit<'_>,
    ) -> Result<(), Ended> {
        self.descend(tables, (tables.root, tables.levels), 0, span, budget, visit)
    }

    fn descend(
        &self,
        tables: &Tables<'_>,
        (table, level): (u64, u8),
        offset: u64,
        span: Span,
        budget: &mut Budget,
        visit: &mut Visit<'_>,
    ) -> Result<(), Ended> {
        for index in 0..512 {
            let offset = offset | index << level_shift(level);
            let input = tables.input(offset, level);
            if !span.overlaps(input) {
                continue;
            }
            let reads = budget.reads.checked_sub(1);
            budget.reads = reads.ok_or(Ended(input.base()))?;
            let Some(value) = self.peek(tables, entry_address(table, offset, level)) else {
                continue;
            };
            let (maps, leaf, next) = if tables.first {
                let entry = FirstStageEntry(value);
                (entry.p(), entry.is_leaf(level), entry.addr())
            } else {
                let entry = SecondStageEntry(value);
                let grants = entry.r() || entry.w() || entry.x();
                (grants, entry.is_leaf(level), entry.addr())
            };
            if !maps {
                continue;
            }
            budget.present += 1;
            if leaf {
                let output = next;
                visit(Leaf { input, output }, budget)?;
            } else {
                self.descend(tables, (next, level - 1), offset, span, budget, visit)?;
            }
        }
        Ok(())
    }

    /// Reads an entry without side effects. None if it cannot be read.
    fn peek(&self, tables: &Tables<'_>, address: u64) -> Option<u64> {
        let place = self.place(tables.second, address, false, &mut Updates::default());
        self.memory.read_u64(place.ok()?.address).ok()
    }
}
