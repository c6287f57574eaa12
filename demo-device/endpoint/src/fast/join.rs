// SPDX-License-Identifier: MIT OR Apache-2.0
//! Joins translations of neighbours into one entry of the cache.

use crate::atc::{Atc, Cached, Space};
use crate::device::Device;
use pcie_ats::{AlignedRange, MAX_TRANSLATIONS, PAGE_SHIFT, Pasid};

/// Log2 of the total size of a completion's translations.
const COMPLETION: u8 = PAGE_SHIFT + MAX_TRANSLATIONS.trailing_zeros() as u8;
/// Number of completions, each joined into one translation, that can be joined again.
const JOINED: usize = 4;
/// Log2 of their total size.
const MEDIUM: u8 = COMPLETION + JOINED.trailing_zeros() as u8;
/// Log2 of the size to which the cache joins neighbours: a large page of a processor, a size that
/// is often in use anyway.
const LARGE: u8 = 21;
/// Number of entries that are joined.
const PARTS: usize = 1 << (LARGE - MEDIUM);

impl Device {
    /// Stores the joined translations of a round's completions in the cache: for each completion
    /// its one equivalent translation, or one for several completions. A `wanted` translation may
    /// evict any entry.
    pub(crate) fn keep_wide(
        &mut self,
        member: usize,
        pasid: Option<Pasid>,
        time: u64,
        wide: &mut [Option<Cached>],
        wanted: AlignedRange,
    ) {
        // This brings neighbours together if requests for two pieces alternated.
        wide.sort_unstable_by_key(|answer| answer.map(|answer| answer.range.base()));
        let mut wide = &*wide;
        while let [next, rest @ ..] = wide {
            let several = wide.get(..JOINED).and_then(|some| joined(some, COMPLETION));
            let all = several.filter(|all| !self.overtaken(member, all.range));
            wide = match all {
                Some(_) => &wide[JOINED..],
                None => rest,
            };
            if let Some(answer) = all.or(*next) {
                let limit = match answer.range.contains(wanted.base()) {
                    true => u64::MAX,
                    false => time,
                };
                self.keep_one(member, pasid, limit, &answer);
            }
            if let Some(all) = all {
                let space = self.space_of(pasid, self.contexts[member].privileged());
                grow(&mut self.atc, space, all.range.base());
            }
        }
    }
}

/// Joins the entries that fill the range of 2^[`LARGE`] bytes around an address, if they can be one
/// translation.
fn grow(atc: &mut Atc, space: Space, address: u64) {
    let begin = address >> LARGE << LARGE;
    let mut parts = [None; PARTS];
    for (n, part) in (0..).zip(&mut parts) {
        let range = AlignedRange::containing(begin + (n << MEDIUM), MEDIUM);
        *part = range.ok().and_then(|range| atc.get(space, range));
        if part.is_none() {
            return;
        }
    }
    let all = joined(&parts, MEDIUM).filter(|all| !all.untranslated_only);
    if let Some(all) = all {
        for part in parts.iter().flatten() {
            atc.forget_exactly(space, part.range);
        }
        // It begins where one of them did, so there is room.
        atc.insert_over(space, &all, u64::MAX);
    }
}

/// The one translation that is equivalent to several, if there is one. They must be a power of two
/// of pages of 2^`shift` bytes, contiguous also in memory, with the same permissions, and aligned
/// to their total size.
pub(crate) fn joined(answers: &[Option<Cached>], shift: u8) -> Option<Cached> {
    let together = shift + answers.len().trailing_zeros() as u8;
    let first = (*answers.first()?)?;
    let range = AlignedRange::containing(first.range.base(), together).ok()?;
    let output = AlignedRange::containing(first.output, together).ok()?;
    let begins = range.base() == first.range.base() && output.base() == first.output;
    let mut offset = 0;
    let follows = |answer: &Option<Cached>| {
        let expected = Cached {
            range: AlignedRange::containing(range.base() + offset, shift).unwrap_or(range),
            output: first.output + offset,
            ..first
        };
        offset += 1 << shift;
        *answer == Some(expected)
    };
    (begins && answers.iter().all(follows)).then_some(Cached { range, ..first })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::atc::Scope;

    #[test]
    fn what_can_be_one_translation_is_joined_and_nothing_else() {
        let page = |n: u64| Cached {
            range: AlignedRange::page(0x7_0000 + (n << PAGE_SHIFT)),
            output: 0x3_0000 + (n << PAGE_SHIFT),
            read: true,
            write: true,
            untranslated_only: false,
        };
        let all: [_; MAX_TRANSLATIONS] = std::array::from_fn(|n| Some(page(n as u64)));
        let whole = AlignedRange::containing(0x7_0000, 16).unwrap();
        let expected = Cached {
            range: whole,
            ..page(0)
        };
        assert_eq!(joined(&all, PAGE_SHIFT), Some(expected));
        for n in 0..MAX_TRANSLATIONS {
            let mut other = all;
            other[n] = None;
            assert_eq!(joined(&other, PAGE_SHIFT), None, "{n} is missing");
            let changes: [fn(&mut Cached); 5] = [
                |c| c.output += 0x10_0000,
                |c| c.read = false,
                |c| c.write = false,
                |c| c.untranslated_only = true,
                |c| c.range = AlignedRange::containing(c.range.base(), 13).unwrap(),
            ];
            for (number, change) in changes.into_iter().enumerate() {
                other = all;
                other[n].as_mut().map(change);
                assert_eq!(joined(&other, PAGE_SHIFT), None, "change {number} of {n}");
            }
        }
        let shifted = |by: u64| {
            all.map(|c| {
                c.map(|c| Cached {
                    output: c.output + by,
                    ..c
                })
            })
        };
        assert_eq!(joined(&shifted(0x1000), PAGE_SHIFT), None);
        assert!(joined(&shifted(0x1_0000), PAGE_SHIFT).is_some());
        let elsewhere = all.map(|c| {
            c.map(|c| Cached {
                range: AlignedRange::page(c.range.base() + 0x1000),
                ..c
            })
        });
        assert_eq!(joined(&elsewhere, PAGE_SHIFT), None);
    }

    #[test]
    fn neighbours_that_fill_a_larger_range_become_one_entry() {
        let pasid = Pasid::new(1).ok();
        let space = Space::new(pasid, false);
        let cached = |n: u64, change: u64| Cached {
            range: AlignedRange::containing(0x40_0000 + (n << 18), 18).unwrap(),
            output: 0x80_0000 + (n << 18) + change,
            read: true,
            write: true,
            untranslated_only: false,
        };
        let joined = |missing: Option<u64>, moved: Option<u64>, narrow: Option<u64>| {
            let mut atc = Atc::new(64, 4);
            for n in (0..8).filter(|n| Some(*n) != missing) {
                let change = if Some(n) == moved { 1 << 18 } else { 0 };
                let mut one = cached(n, change);
                one.write = Some(n) != narrow;
                atc.insert(space, &one);
            }
            grow(&mut atc, space, 0x4b_0000);
            let hit = atc.lookup(space, 0x5f_fff8, Access::Read);
            let size = hit.map(|hit| hit.last - hit.first + 1);
            // An invalidation of a page removes the entry that contains it.
            let dropped = atc.invalidate(Scope::One(pasid), AlignedRange::page(0x5f_f000));
            assert_eq!(dropped, u32::from(size.is_some()));
            assert_eq!(atc.lookup(space, 0x5f_fff8, Access::Read), None);
            let left = atc.lookup(space, 0x40_0000, Access::Read);
            (size, hit.map(|hit| hit.output), left.is_some())
        };
        let last = Some(0x9f_fff8);
        assert_eq!(joined(None, None, None), (Some(1 << 21), last, false));
        for n in 0..7 {
            let small = (Some(1 << 18), last, n != 0);
            assert_eq!(joined(Some(n), None, None), small, "{n} is missing");
            let small = (Some(1 << 18), last, true);
            assert_eq!(joined(None, Some(n), None), small, "{n} is elsewhere");
            assert_eq!(joined(None, None, Some(n)), small, "{n} is read-only");
        }
    }
}
