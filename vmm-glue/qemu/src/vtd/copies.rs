// SPDX-License-Identifier: GPL-2.0-or-later
//! What those who keep a copy of a function's mappings have been told of, and what to tell them
//! when it has changed. This module knows nothing of QEMU.

use std::collections::BTreeMap;

use pcie_ats::{AlignedRange, PAGE_SHIFT};
use vtd::MappedPage;

/// Addresses, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Span {
    /// All of them.
    pub const ALL: Span = Span {
        first: 0,
        last: u64::MAX,
    };

    /// The addresses of a range.
    pub fn of(range: AlignedRange) -> Span {
        Span {
            first: range.base(),
            last: range.last(),
        }
    }

    /// What contains both.
    fn hull(self, range: AlignedRange) -> Span {
        Span {
            first: self.first.min(range.base()),
            last: self.last.max(range.last()),
        }
    }

    /// What both have, as few aligned ranges.
    pub fn pieces(self, range: AlignedRange) -> Vec<AlignedRange> {
        let (mut first, last) = (self.first.max(range.base()), self.last.min(range.last()));
        let mut pieces = Vec::new();
        while first <= last {
            let fits = |shift: &u8| {
                let piece = AlignedRange::containing(first, *shift);
                piece.is_ok_and(|p| p.base() == first && p.last() <= last)
            };
            let Some(shift) = (PAGE_SHIFT..=64).rev().find(fits) else {
                // Less than a page is left, or not the beginning of one.
                break;
            };
            let Ok(piece) = AlignedRange::containing(first, shift) else {
                break;
            };
            pieces.push(piece);
            match piece.last().checked_add(1) {
                Some(next) => first = next,
                None => break,
            }
        }
        pieces
    }
}

/// What has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Pages that are mapped no more, or otherwise.
    pub unmapped: Vec<MappedPage>,
    /// Pages that are mapped since.
    pub mapped: Vec<MappedPage>,
}

/// The pages that were told of, by their first address. They have no address in common.
#[derive(Debug, Default)]
pub struct Copies(BTreeMap<u64, MappedPage>);

impl Copies {
    /// All of them.
    pub fn pages(&self) -> impl Iterator<Item = &MappedPage> {
        self.0.values()
    }

    /// Those that lie in a span, be it in part.
    fn within(&self, span: Span) -> impl Iterator<Item = &MappedPage> {
        let before = self.0.range(..=span.last).rev();
        before
            .map(|(_, page)| page)
            .take_while(move |page| page.input.last() >= span.first)
    }

    /// The addresses that are to be looked at together with a span, given the pages that are there
    /// now: a page changes as a whole.
    pub fn together(&self, span: Span, now: &[MappedPage]) -> Span {
        let old = self.within(span).map(|page| page.input);
        let all = old.chain(now.iter().map(|page| page.input));
        all.fold(span, Span::hull)
    }

    /// The pages of a span are these from now on. The span is one that [`Copies::together`] leaves
    /// as it is.
    pub fn replace(&mut self, span: Span, now: Vec<MappedPage>) -> Changes {
        let now: BTreeMap<u64, MappedPage> = now.into_iter().map(|p| (p.input.base(), p)).collect();
        let old = self.within(span).copied();
        let unmapped: Vec<_> = old
            .filter(|page| now.get(&page.input.base()) != Some(page))
            .collect();
        for page in &unmapped {
            self.0.remove(&page.input.base());
        }
        let mut mapped = Vec::new();
        for (base, page) in now {
            if self.0.insert(base, page).is_none() {
                mapped.push(page);
            }
        }
        Changes { unmapped, mapped }
    }

    /// Nobody keeps a copy any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(input: u64, shift: u8, output: u64) -> MappedPage {
        MappedPage {
            input: AlignedRange::containing(input, shift).unwrap(),
            output,
            read: true,
            write: true,
        }
    }

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    #[test]
    fn what_is_as_before_is_not_told_again() {
        let mut copies = Copies::default();
        let (a, b) = (page(0x1000, 12, 0x5000), page(0x2000, 12, 0x6000));
        let first = copies.replace(Span::ALL, vec![a, b]);
        assert_eq!((first.unmapped, first.mapped), (vec![], vec![a, b]));
        assert_eq!(copies.replace(Span::ALL, vec![a, b]), Changes::default());
        let moved = page(0x2000, 12, 0x7000);
        let changes = copies.replace(span(0x2000, 0x2fff), vec![moved]);
        assert_eq!((changes.unmapped, changes.mapped), (vec![b], vec![moved]));
        let gone = copies.replace(Span::ALL, vec![]);
        assert_eq!((gone.unmapped.len(), gone.mapped.len()), (2, 0));
        assert_eq!(copies.pages().count(), 0);
    }

    #[test]
    fn a_large_page_changes_as_a_whole() {
        let mut copies = Copies::default();
        let large = page(0x20_0000, 21, 0x4000_0000);
        copies.replace(Span::ALL, vec![large]);
        // A page of it was invalidated.
        let part = span(0x21_0000, 0x21_0fff);
        assert_eq!(copies.together(part, &[]), span(0x20_0000, 0x3f_ffff));
        // And the other way round: the part is now part of something larger.
        let larger = page(0x4000_0000, 30, 0x8000_0000);
        let next = copies.together(span(0x4001_0000, 0x4001_0fff), &[larger]);
        assert_eq!(next, span(0x4000_0000, 0x7fff_ffff));
        assert_eq!(copies.together(next, &[larger]), next);
        let changes = copies.replace(span(0x20_0000, 0x3f_ffff), vec![page(0x20_0000, 12, 0)]);
        assert_eq!(changes.unmapped, [large]);
    }

    #[test]
    fn pieces_are_aligned_and_cover_what_both_have() {
        let all = |s: Span, base, shift| -> Vec<(u64, u8)> {
            let range = AlignedRange::containing(base, shift).unwrap();
            let pieces = s.pieces(range);
            pieces.iter().map(|p| (p.base(), p.shift())).collect()
        };
        assert_eq!(all(Span::ALL, 0x20_0000, 21), [(0x20_0000, 21)]);
        assert_eq!(all(Span::ALL, 0, 64), [(0, 64)]);
        assert_eq!(
            all(span(0x3000, 0x8fff), 0x0, 16),
            [(0x3000, 12), (0x4000, 14), (0x8000, 12)]
        );
        assert_eq!(all(span(0x3000, 0x8fff), 0x10_0000, 16), []);
        // The last page of all: QEMU's regions end one byte before it does.
        assert_eq!(all(span(0, u64::MAX - 1), !0xfff, 12), []);
    }
}
