// SPDX-License-Identifier: GPL-2.0-or-later
//! The mappings of a function that clients with a copy know, and the changes to announce to them.
//! This module knows nothing of QEMU.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use pcie_ats::{AlignedRange, PAGE_SHIFT};
use vtd::MappedPage;
use vtd::spec::DomainId;

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

    /// The smallest span that contains both.
    fn hull(self, range: AlignedRange) -> Span {
        Span {
            first: self.first.min(range.base()),
            last: self.last.max(range.last()),
        }
    }

    /// The intersection of both, as few aligned ranges.
    pub fn pieces(self, range: AlignedRange) -> Vec<AlignedRange> {
        let (mut first, last) = (self.first.max(range.base()), self.last.min(range.last()));
        let mut pieces = Vec::new();
        while first <= last {
            let fits = |shift: &u8| {
                let piece = AlignedRange::containing(first, *shift);
                piece.is_ok_and(|p| p.base() == first && p.last() <= last)
            };
            let Some(shift) = (PAGE_SHIFT..=64).rev().find(fits) else {
                // Less than a page is left, or not the beginning of a page.
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
    /// Pages that are no longer mapped, or mapped differently.
    pub unmapped: Vec<MappedPage>,
    /// Newly mapped pages.
    pub mapped: Vec<MappedPage>,
}

/// The announced pages, by their first address. They do not overlap.
#[derive(Debug, Default)]
pub struct Copies(BTreeMap<u64, MappedPage>);

impl Copies {
    /// All of them.
    pub fn pages(&self) -> impl Iterator<Item = &MappedPage> {
        self.0.values()
    }

    /// The pages that overlap a span.
    fn within(&self, span: Span) -> impl Iterator<Item = &MappedPage> {
        let before = self.0.range(..=span.last).rev();
        before
            .map(|(_, page)| page)
            .take_while(move |page| page.input.last() >= span.first)
    }

    /// The smallest span around an address that contains all its pages completely, both announced
    /// pages and the current one: a page changes as a whole.
    fn whole(&self, address: u64, now: Option<AlignedRange>) -> Span {
        let one = Span {
            first: address,
            last: address,
        };
        let with_now = now.into_iter().fold(one, Span::hull);
        let old = self.within(with_now).map(|page| page.input);
        old.fold(with_now, Span::hull)
    }

    /// Replaces the pages of a span. Unmaps announced pages that extend beyond it.
    fn replace(&mut self, span: Span, now: Vec<MappedPage>) -> Changes {
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

    /// Removes the pages of this list that no longer exist, or have changed.
    fn forget(&mut self, gone: Vec<MappedPage>) -> Changes {
        for page in &gone {
            self.0.remove(&page.input.base());
        }
        Changes {
            unmapped: gone,
            mapped: Vec::new(),
        }
    }

    /// Removes all pages: no client keeps a copy any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A part of the reachable pages from an address on.
#[derive(Debug, Default)]
pub struct Part {
    /// Its pages, in order.
    pub pages: Vec<MappedPage>,
    /// Where the next part begins, if there is one.
    pub next: Option<u64>,
    /// Number of entries that were read for it.
    pub entries: usize,
}

/// The result of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// The copies match the tables.
    All,
    /// There is more than may be copied. The existing copies match.
    Some,
    /// There is nothing to copy: the function reaches everything.
    Everything,
}

/// Brings the copies of a span up to date. `reach` reads the current pages, a part at a time; None
/// if the function reaches everything. `tell` is called for each change, without a lock. After
/// `most` entries have been read, no new page is copied.
pub fn update(
    copies: &Mutex<Copies>,
    span: Span,
    most: usize,
    mut reach: impl FnMut(Span) -> Option<Part>,
    mut tell: impl FnMut(&Changes),
) -> Updated {
    let lock = || copies.lock().unwrap_or_else(PoisonError::into_inner);
    let mut whole = span;
    for address in [span.first, span.last] {
        let one = Span {
            first: address,
            last: address,
        };
        let Some(part) = reach(one) else {
            return Updated::Everything;
        };
        let now = part.pages.first().map(|page| page.input);
        let edge = lock().whole(address, now);
        whole.first = whole.first.min(edge.first);
        whole.last = whole.last.max(edge.last);
    }
    let mut entries = 0;
    loop {
        let Some(part) = reach(whole) else {
            return Updated::Everything;
        };
        entries += part.entries;
        let last = part.next.map_or(whole.last, |next| next - 1);
        let done = Span { last, ..whole };
        let changes = lock().replace(done, part.pages);
        tell(&changes);
        match part.next {
            None => return Updated::All,
            Some(next) => whole.first = next,
        }
        if entries > most {
            break;
        }
    }
    let old: Vec<MappedPage> = lock().within(whole).copied().collect();
    let mut gone = Vec::new();
    for page in old {
        let Some(part) = reach(Span::of(page.input)) else {
            return Updated::Everything;
        };
        if part.pages != [page] {
            gone.push(page);
        }
    }
    let changes = lock().forget(gone);
    tell(&changes);
    Updated::Some
}

/// The invalidations since the last update of the copies.
#[derive(Debug, Default)]
pub struct Dirty {
    /// How functions are translated has changed.
    functions: bool,
    /// Addresses of a domain, or of all.
    spans: Vec<(Option<DomainId>, Span)>,
}

impl Dirty {
    /// How functions are translated has changed.
    pub fn functions(&mut self) {
        self.functions = true;
    }

    /// Notes invalidated translations, of a domain or of all.
    pub fn translations(&mut self, domain: Option<DomainId>, span: Span) {
        self.spans.push((domain, span));
    }

    /// Whether everything has to be read again.
    pub fn is_all(&self) -> bool {
        self.functions
    }

    /// Whether there are no invalidations.
    pub fn is_empty(&self) -> bool {
        !self.functions && self.spans.is_empty()
    }

    /// The invalidated addresses of a domain, without overlaps.
    pub fn of(&self, domain: Option<DomainId>) -> Vec<Span> {
        let concerned = |(of, _): &&(Option<DomainId>, Span)| of.is_none() || *of == domain;
        let mut spans: Vec<Span> = self
            .spans
            .iter()
            .filter(concerned)
            .map(|(_, s)| *s)
            .collect();
        spans.sort_unstable_by_key(|span| span.first);
        let mut merged: Vec<Span> = Vec::new();
        for span in spans {
            match merged.last_mut() {
                Some(before) if before.last.checked_add(1).is_none_or(|n| span.first <= n) => {
                    before.last = before.last.max(span.last);
                }
                _ => merged.push(span),
            }
        }
        merged
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
        assert_eq!(copies.whole(0x21_0000, None), span(0x20_0000, 0x3f_ffff));
        // The other way round: the page is now part of a larger one.
        let larger = page(0x4000_0000, 30, 0x8000_0000).input;
        let next = copies.whole(0x4001_0000, Some(larger));
        assert_eq!(next, span(0x4000_0000, 0x7fff_ffff));
        let changes = copies.replace(span(0x20_0000, 0x3f_ffff), vec![page(0x20_0000, 12, 0)]);
        assert_eq!(changes.unmapped, [large]);
    }

    /// The pages of the tables; one part contains at most `reads` of them.
    #[derive(Default)]
    struct Tables {
        pages: BTreeMap<u64, MappedPage>,
        reads: usize,
    }

    impl Tables {
        /// Maps a page and removes all overlapping ones.
        fn map(&mut self, new: MappedPage) {
            self.pages.retain(|_, page| {
                page.input.last() < new.input.base() || page.input.base() > new.input.last()
            });
            self.pages.insert(new.input.base(), new);
        }

        fn reach(&self, span: Span) -> Option<Part> {
            let mut within = self
                .pages
                .values()
                .filter(|page| page.input.last() >= span.first && page.input.base() <= span.last);
            let pages: Vec<_> = within.by_ref().take(self.reads).copied().collect();
            let next = within.next().map(|page| page.input.base());
            let entries = pages.len();
            Some(Part {
                pages,
                next,
                entries,
            })
        }
    }

    /// A sequence of numbers that look random.
    fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        }
    }

    /// For any sequence of changes: after an update of a span the copies match the tables there,
    /// and a client that received all changes has the same pages.
    #[test]
    fn after_any_sequence_the_copies_are_what_the_tables_have() {
        for seed in 0..200 {
            let mut random = numbers(seed);
            let copies = Mutex::new(Copies::default());
            let mut tables = Tables {
                reads: 1 + random(5) as usize,
                ..Tables::default()
            };
            let mut told = BTreeMap::new();
            for _ in 0..60 {
                let shift = [12, 12, 13, 15, 16][random(5) as usize];
                let changed = page(random(64) << 12, shift, random(8) << 20);
                match random(3) {
                    0 => tables.pages.retain(|_, p| {
                        p.input.last() < changed.input.base()
                            || p.input.base() > changed.input.last()
                    }),
                    _ => tables.map(changed),
                }
                // Half of the changes are announced with a page, the others with all addresses.
                let span = match random(2) {
                    0 => Span::of(changed.input),
                    _ => Span::ALL,
                };
                let tell = |changes: &Changes| {
                    for page in &changes.unmapped {
                        assert_eq!(told.remove(&page.input.base()), Some(*page));
                    }
                    for page in &changes.mapped {
                        assert_eq!(told.insert(page.input.base(), *page), None);
                    }
                };
                let updated = update(&copies, span, usize::MAX, |s| tables.reach(s), tell);
                assert_eq!(updated, Updated::All);
                assert_eq!(told, tables.pages, "seed {seed}");
                assert_eq!(copies.lock().unwrap().0, told, "seed {seed}");
            }
        }
    }

    /// A client of the copies.
    #[derive(Default)]
    struct Client(BTreeMap<u64, MappedPage>);

    impl Client {
        /// Checks the changes: no page is unmapped that the client does not have, or mapped over
        /// one that it has.
        fn told(&mut self, changes: &Changes) {
            for page in &changes.unmapped {
                assert_eq!(self.0.remove(&page.input.base()), Some(*page));
            }
            for page in &changes.mapped {
                assert_eq!(self.0.insert(page.input.base(), *page), None);
            }
        }
    }

    /// A 2 MiB page becomes a table of small ones, one of them absent, and one is invalidated. The
    /// update ends at each of its reads in turn, because the function now reaches everything, or
    /// because no more may be copied. The copies always match what the client was told, so that a
    /// following update of all addresses makes both match the tables.
    #[test]
    fn an_update_that_ends_half_way_is_repaired_by_the_next() {
        const READS: usize = 20;
        let invalidated = Span::of(page(0x20_3000, 12, 0).input);
        let mut ends = [0; 2];
        for (how, end) in (0..30).flat_map(|end| [(0, end), (1, end)]) {
            let copies = Mutex::new(Copies::default());
            let mut client = Client::default();
            let mut tables = Tables {
                reads: READS,
                ..Tables::default()
            };
            let everything = |tables: &Tables, client: &mut Client| {
                let (reach, tell) = (|s| tables.reach(s), |c: &Changes| client.told(c));
                assert_eq!(
                    update(&copies, Span::ALL, usize::MAX, reach, tell),
                    Updated::All
                );
            };
            tables.map(page(0x20_0000, 21, 0x4000_0000));
            everything(&tables, &mut client);
            tables.pages.clear();
            for n in (0..512).filter(|n| *n != 7) {
                tables.map(page(0x20_0000 + (n << 12), 12, 0x8000_0000 + (n << 20)));
            }
            let mut reads = 0;
            let reach = |span| {
                reads += 1;
                let gone = how == 0 && reads > end;
                if gone { None } else { tables.reach(span) }
            };
            let most = if how == 0 { usize::MAX } else { end * READS };
            let ended = update(&copies, invalidated, most, reach, |c| client.told(c));
            ends[how] += usize::from(ended != Updated::All);
            let noted = copies.lock().unwrap().0.clone();
            assert!(
                client.0 == noted,
                "{ended:?} at {end}: the client has {} pages, {} are noted",
                client.0.len(),
                noted.len()
            );
            everything(&tables, &mut client);
            assert!(client.0 == tables.pages, "{ended:?} at {end}");
        }
        assert!(ends.iter().all(|ended| *ended > 10), "{ends:?}");
    }

    #[test]
    fn what_is_too_much_leaves_the_copies_that_are_still_there() {
        let copies = Mutex::new(Copies::default());
        let mut tables = Tables {
            reads: 10,
            ..Tables::default()
        };
        for n in 0..100 {
            tables.map(page(n << 12, 12, n << 20));
        }
        let run =
            |tables: &Tables, most| update(&copies, Span::ALL, most, |s| tables.reach(s), |_| {});
        assert_eq!(run(&tables, 1000), Updated::All);
        // The last page is removed, the one before has changed, and others are new.
        tables.pages.remove(&(99 << 12));
        tables.map(page(98 << 12, 12, 5));
        tables.map(page(200 << 12, 12, 5));
        assert_eq!(run(&tables, 50), Updated::Some);
        let kept: Vec<u64> = copies
            .lock()
            .unwrap()
            .pages()
            .map(|p| p.input.base() >> 12)
            .collect();
        assert_eq!(kept, (0..98).collect::<Vec<u64>>());
        assert_eq!(run(&tables, 1000), Updated::All);
        assert_eq!(copies.lock().unwrap().0, tables.pages);
    }

    #[test]
    fn dirty_spans_are_merged_and_those_of_other_domains_left_out() {
        let mut dirty = Dirty::default();
        assert!(dirty.is_empty());
        dirty.translations(Some(DomainId(1)), span(0x3000, 0x3fff));
        dirty.translations(Some(DomainId(1)), span(0x1000, 0x1fff));
        dirty.translations(Some(DomainId(1)), span(0x2000, 0x2fff));
        dirty.translations(Some(DomainId(2)), span(0x8000, 0x8fff));
        let (one, both) = (span(0x1000, 0x3fff), span(0x8000, 0x8fff));
        assert_eq!(dirty.of(Some(DomainId(1))), [one]);
        assert_eq!(dirty.of(Some(DomainId(2))), [both]);
        assert_eq!(dirty.of(None), []);
        dirty.translations(None, Span::ALL);
        assert_eq!(dirty.of(Some(DomainId(3))), [Span::ALL]);
        assert!(!dirty.is_all() && !dirty.is_empty());
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
        // The last page of the address space: QEMU's regions end one byte before its end.
        assert_eq!(all(span(0, u64::MAX - 1), !0xfff, 12), []);
    }
}
