// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translations of neighbours that become one entry of the cache.

use crate::atc::Cached;
use crate::device::Device;
use crate::dma::MAX_TRANSLATIONS;
use pcie_ats::{AlignedRange, PAGE_SHIFT, Pasid};

/// Log2 of the size to which neighbours grow together in the cache: a large page of a processor, of
/// which there are often some anyway.
const LARGE: u32 = 21;
/// How many completions that each are one translation are one translation again, if they can be.
const JOINED: usize = 4;

impl Device {
    /// Puts what is left of the completions of a round into the cache: of each the one translation
    /// that says the same as all, or of several one again. What is `wanted` may drive out any.
    pub(crate) fn keep_wide(
        &mut self,
        member: usize,
        pasid: Option<Pasid>,
        time: u64,
        wide: &mut [Option<Cached>],
        wanted: AlignedRange,
    ) {
        const SHIFT: u8 = PAGE_SHIFT + MAX_TRANSLATIONS.trailing_zeros() as u8;
        // Neighbours of two ends that took turns stand together then.
        wide.sort_unstable_by_key(|answer| answer.map(|answer| answer.range.base()));
        let mut wide = &*wide;
        while let [next, rest @ ..] = wide {
            let several = wide.get(..JOINED).and_then(|some| joined(some, SHIFT));
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
                let small = all.range.shift().into();
                self.atc.join(space, all.range.base(), small, LARGE);
            }
        }
    }
}

/// The one translation that says the same as several, if there is one: they are a power of two of
/// pages of 2^`shift` bytes, one behind the other in memory as well, all with the same permissions,
/// and begin where a page of their size together can begin.
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
}
