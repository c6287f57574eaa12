// SPDX-License-Identifier: MIT OR Apache-2.0
//! A prediction that is wrong, or was right before, permits nothing.

use super::super::way_prediction;
use super::{Access, AlignedRange, Atc, Cached, Scope, Space, cached, hit, pasid, range, space};

/// Two ranges, of different sizes or spaces, for which the same place is predicted.
fn predicted_alike(other: impl Fn(u64) -> (Space, AlignedRange)) -> (Space, AlignedRange) {
    let of = |(space, range): (Space, AlignedRange)| {
        way_prediction::place(space, range.base() >> range.shift())
    };
    let one = of((space(1), range(0x1000, 12)));
    let alike = (1..1 << 20).map(other).find(|other| of(*other) == one);
    alike.unwrap()
}

#[test]
fn a_wrong_prediction_is_noticed() {
    let page = |address, output| cached(address, 12, output, true);
    let others = [
        predicted_alike(|n| (space(1), range(0x1000 + (n << 12), 12))),
        predicted_alike(|n| (space(1), range(n << 21, 21))),
        predicted_alike(|n| (space(1 + n as u32), range(0x1000, 12))),
        (Space::new(pasid(1), true), range(0x1000, 12)),
    ];
    for (space_of_other, range_of_other) in others {
        let mut atc = Atc::new(64, 4);
        let first = range_of_other.base();
        for _ in 0..2 {
            atc.insert(space(1), &page(0x1000, 0xa000));
            let found = hit(&mut atc, space_of_other, first, Access::Read);
            assert_eq!(found, None);
            let other = Cached {
                range: range_of_other,
                ..page(0, 1 << 30)
            };
            atc.insert(space_of_other, &other);
            for _ in 0..2 {
                let found = hit(&mut atc, space_of_other, first, Access::Read);
                assert_eq!(found, Some(1 << 30));
                let found = hit(&mut atc, space(1), 0x1000, Access::Read);
                assert_eq!(found, Some(0xa000));
            }
            assert_eq!(atc.clear(), 2);
        }
    }
}

#[test]
fn rule_37_what_is_removed_is_predicted_no_more() {
    // One set: what comes next takes the place of what was removed.
    let fill = |atc: &mut Atc| {
        atc.insert(space(1), &cached(0x1000, 12, 0xa000, true));
        let found = hit(atc, space(1), 0x1000, Access::Write);
        assert_eq!(found, Some(0xa000));
    };
    type Removal = fn(&mut Atc);
    let kinds: [(&str, Removal); 8] = [
        ("its page", |atc| {
            atc.invalidate(Scope::One(pasid(1)), range(0x1000, 12));
        }),
        ("a range", |atc| {
            atc.invalidate(Scope::One(pasid(1)), range(0, 21));
        }),
        ("a PASID", |atc| {
            atc.invalidate(Scope::One(pasid(1)), AlignedRange::ALL);
        }),
        ("everywhere", |atc| {
            atc.invalidate(Scope::Every, range(0x1000, 12));
        }),
        ("everything", |atc| {
            atc.clear();
        }),
        ("by the program", |atc| {
            atc.forget_between(pasid(1), 0x1800, 0x1801);
        }),
        ("joined", |atc| {
            atc.forget_exactly(space(1), range(0x1000, 12));
        }),
        ("evicted", |atc| {
            for page in 0..4 {
                atc.insert(space(2), &cached(page << 12, 12, 0xb000, true));
            }
        }),
    ];
    for (kind, remove) in kinds {
        for next in [None, Some(0x2000), Some(0x1000)] {
            let mut atc = Atc::new(4, 4);
            fill(&mut atc);
            remove(&mut atc);
            // A page of another process, which has the same address at last.
            if let Some(address) = next {
                atc.insert(space(3), &cached(address, 12, 0xc000, true));
            }
            for access in [Access::Read, Access::Write] {
                let found = hit(&mut atc, space(1), 0x1000, access);
                assert_eq!(found, None, "{kind}, then {next:x?}");
            }
            let mut pages = 0;
            atc.lookup_pages(space(1), 0x1000, 0x2000, Access::Read, |_| pages += 1);
            assert_eq!(pages, 0, "{kind}, then {next:x?}");
        }
    }
}

#[test]
fn rule_18_a_predicted_entry_that_has_lost_a_permission_does_not_answer() {
    let mut atc = Atc::new(64, 4);
    atc.insert(space(1), &cached(0x1000, 12, 0xa000, true));
    assert!(hit(&mut atc, space(1), 0x1000, Access::Write).is_some());
    atc.insert(space(1), &cached(0x1000, 12, 0xa000, false));
    for access in [Access::Write, Access::ReadWrite] {
        assert_eq!(hit(&mut atc, space(1), 0x1000, access), None);
    }
    assert!(hit(&mut atc, space(1), 0x1000, Access::Read).is_some());
}

#[test]
fn the_largest_cache_finds_all_of_its_entries() {
    // More places than a prediction can name.
    let mut atc = Atc::new(65_536, 2);
    let pages: Vec<u64> = (0..65_536).map(|n| n << 12).collect();
    for page in &pages {
        atc.insert(space(1), &cached(*page, 12, page << 1, true));
    }
    let found = |page: &&u64| match hit(&mut atc, space(1), **page, Access::Read) {
        Some(output) => {
            assert_eq!(output, **page << 1);
            true
        }
        None => false,
    };
    assert_eq!(pages.iter().filter(found).count() as u32, atc.len());
}

#[test]
fn ranges_in_a_row_have_places_in_a_row_whatever_their_size() {
    for shift in [12, 16, 18, 21] {
        let first = 0x7f12_3456_0000_0000;
        let places: Vec<_> = (0..256)
            .map(|n| way_prediction::place(space(1), (first >> shift) + n))
            .collect();
        // The space changes the order within a line, and some places are left out.
        let near = |pair: &&[usize]| pair[0].abs_diff(pair[1]) < 32;
        let rows = places.windows(2).filter(near).count();
        assert!(rows > 230, "{rows} of size {shift}");
    }
}
