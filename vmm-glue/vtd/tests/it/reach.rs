// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory that a function can reach, for hosts that copy mappings: the same as by its
//! translation requests, with the same flags set.

use crate::bench::{
    A, Bench, CONTEXT_GLOBAL, D, P, PS, R, RW, SID, SS_A, SS_D, US, USER, W, legacy_entry, nested,
    pass_through, second_stage,
};
use vtd::config::{Pasids, Scalable};
use vtd::spec::DomainId;
use vtd::spec::register::global;
use vtd::{Access, MappedPage, Reach, Unit};

/// The pages that the usual function reaches, as `(input, log2 of size, output, read, write)`.
fn reach(b: &Bench, first: u64, last: u64) -> Vec<(u64, u8, u64, bool, bool)> {
    match b.unit.reach(&b.ram, SID, first, last).unwrap() {
        Reach::Pages(pages) => pages.iter().map(tuple).collect(),
        Reach::Everything => panic!("everything"),
    }
}

fn tuple(page: &MappedPage) -> (u64, u8, u64, bool, bool) {
    let (base, shift) = (page.input.base(), page.input.shift());
    (base, shift, page.output, page.read, page.write)
}

#[test]
fn with_remapping_off_and_passed_through_it_is_everything() {
    let mut b = Bench::legacy(|_| {});
    b.legacy_context(SID, legacy_entry(2, 0).with_did(DomainId(7)).0);
    let all = |b: &Bench| b.unit.reach(&b.ram, SID, 0, u64::MAX).unwrap();
    assert_eq!(all(&b), Reach::Everything);
    b.legacy_context(SID, legacy_entry(0, 0).with_did(DomainId(7)).0);
    assert_eq!(all(&b), Reach::Pages(vec![]));
    b.uncommand(global::TE);
    assert_eq!(all(&b), Reach::Everything);
    let mut b = Bench::new();
    b.pasid(SID, 0, pass_through(1));
    assert_eq!(all(&b), Reach::Everything);
}

#[test]
fn pages_of_all_sizes_are_found_with_their_permissions_and_flags() {
    let mut b = Bench::new();
    let root = b.page();
    let mut entry = second_stage(root, 1);
    entry[0] |= 1 << 9; // SSADE.
    b.pasid(SID, 0, entry);
    let small = b.map_second(root, 0x7000, 0x12_3000, R | W);
    let read_only = b.map_second(root, 0x8000, 0x12_4000, R);
    b.map(root, 4, 2, 0x4020_0000, 0x60_0000 | PS | R | W, R | W);
    b.map(root, 4, 3, 0x80_0000_0000, 0x1_0000_0000 | PS | W, R | W);
    let all = [
        (0x7000, 12, 0x12_3000, true, true),
        (0x8000, 12, 0x12_4000, true, false),
        (0x4020_0000, 21, 0x60_0000, true, true),
        (0x80_0000_0000, 30, 0x1_0000_0000, false, true),
    ];
    // Flags are set only for the requested pages.
    assert_eq!(reach(&b, 0x7fff, 0x7fff), all[..1]);
    assert_eq!(b.ram.get(small) & (SS_A | SS_D), SS_A | SS_D);
    assert_eq!(b.ram.get(read_only) & (SS_A | SS_D), 0);
    assert_eq!(reach(&b, 0, u64::MAX), all);
    assert_eq!(b.ram.get(read_only) & (SS_A | SS_D), SS_A);
    // A part of a page yields the whole page.
    assert_eq!(reach(&b, 0x402f_0000, 0x402f_0fff), all[2..3]);
    assert_eq!(reach(&b, 0x8000, 0x401f_ffff), all[1..2]);
    assert!(b.faults().is_empty());
}

#[test]
fn a_page_of_the_first_stage_is_cut_as_the_second_stage_has_it() {
    let mut b = Bench::new();
    let (first, second) = (0x20_0000, b.page());
    b.pasid(SID, 0, nested(first, second, 1));
    // The tables of the first stage: themselves.
    b.map(second, 4, 2, 0x20_0000, 0x20_0000 | PS | R | W, R | W);
    let (middle, low) = (0x20_1000, 0x20_2000);
    b.ram.set(first + 256 * 8, middle | USER);
    b.ram.set(middle, low | USER);
    let leaf = low + 8;
    b.ram.set(leaf, 0x60_0000 | PS | USER);
    // The second stage maps two pages of the 2 MiB that the first stage maps there.
    b.map_second(second, 0x60_3000, 0x777_0000, R | W);
    b.map_second(second, 0x60_9000, 0x888_0000, R);
    let base = 0xffff_8000_0020_0000;
    assert_eq!(
        reach(&b, 0, u64::MAX),
        [
            (base + 0x3000, 12, 0x777_0000, true, true),
            (base + 0x9000, 12, 0x888_0000, true, false),
        ]
    );
    assert_eq!(b.ram.get(leaf) & (A | D), A | D);
    // A page of the second stage that is larger than that of the first.
    b.ram.set(low + 16, b.ram.get(low + 8));
    let pages = 0x20_3000;
    b.ram.set(low + 24, pages | USER);
    b.ram.set(pages + 5 * 8, 0x20_0000 | 0x7000 | P | RW | US);
    assert_eq!(
        reach(&b, base + 0x40_0000, u64::MAX),
        [(base + 0x40_5000, 12, 0x20_7000, true, true)]
    );
}

#[test]
fn the_tables_count_and_not_what_is_cached_of_them() {
    let mut b = Bench::legacy(|config| config.caching_mode = true);
    let root = b.page();
    b.legacy_context(SID, legacy_entry(0, root).with_did(DomainId(7)).0);
    let entry = b.map_second(root, 0x7000, 0x12_3000, R | W);
    assert_eq!(b.goes(0x7000, Access::Read), Ok(0x12_3000));
    b.ram.set(entry, 0x45_6000 | R);
    assert_eq!(b.goes(0x7000, Access::Read), Ok(0x12_3000));
    assert_eq!(
        reach(&b, 0, u64::MAX),
        [(0x7000, 12, 0x45_6000, true, false)]
    );
    b.legacy_context(SID, [0, 0]);
    assert_eq!(reach(&b, 0, u64::MAX), []);
    // The search does not change the caches.
    assert_eq!(b.goes(0x7000, Access::Read), Ok(0x12_3000));
    assert!(b.submit_and_wait(&[CONTEXT_GLOBAL]));
    assert_eq!(b.goes(0x7000, Access::Read), Err(2));
}

#[test]
fn supervisor_pages_are_reached_by_rid_priv_only() {
    let mut b = Bench::scalable(|config| {
        if let Some(scalable) = &mut config.scalable {
            *scalable = Scalable {
                supervisor_requests: true,
                pasids: Some(Pasids {
                    execute_requests: false,
                    ..scalable.pasids.unwrap()
                }),
                ..*scalable
            };
        }
    });
    let root = b.page();
    let mut entry = crate::bench::first_stage(root, 1);
    b.pasid(SID, 0, entry);
    b.map_first(root, 0x7000, 0x12_3000, P | RW);
    assert_eq!(reach(&b, 0, u64::MAX), []);
    let context = b.context_at(SID);
    b.ram.set(context + 8, 1 << 20); // RID_PRIV
    assert_eq!(reach(&b, 0, u64::MAX), []);
    entry[2] |= 1; // SRE
    b.pasid(SID, 0, entry);
    assert_eq!(
        reach(&b, 0, u64::MAX),
        [(0x7000, 12, 0x12_3000, true, true)]
    );
}

#[test]
fn tables_that_contain_themselves_are_given_up() {
    let mut b = Bench::legacy(|_| {});
    let root = b.page();
    b.legacy_context(SID, legacy_entry(0, root).with_did(DomainId(7)).0);
    for index in 0..512 {
        b.ram.set(root + index * 8, root | R | W);
    }
    let error = b.unit.reach(&b.ram, SID, 0, u64::MAX).unwrap_err();
    assert_eq!((error.requester, error.most), (SID, Unit::MOST_ENTRIES));
    // A part of it can be read.
    assert_eq!(reach(&b, 0x7000, 0x7fff), [(0x7000, 12, root, true, true)]);
}

/// A legacy function with second-stage tables; their root.
fn copied() -> (Bench, u64) {
    let mut b = Bench::legacy(|config| config.caching_mode = true);
    let root = b.page();
    b.legacy_context(SID, legacy_entry(0, root).with_did(DomainId(7)).0);
    (b, root)
}

/// The number of absent entries does not matter: each of these pages has its own table.
#[test]
fn scattered_pages_are_found_however_many_entries_between_them_are_absent() {
    const PAGES: u64 = 8193;
    let (mut b, root) = copied();
    for n in 0..PAGES {
        b.map_second(root, n << 21, 0x10_0000_0000 + (n << 12), R | W);
    }
    let pages = reach(&b, 0, u64::MAX);
    assert_eq!(pages.len() as u64, PAGES);
    for (n, page) in (0..).zip(pages) {
        assert_eq!(page, (n << 21, 12, 0x10_0000_0000 + (n << 12), true, true));
    }
}

/// All leaf tables are the same one, which the search does not know.
#[test]
fn sixteen_gib_of_small_pages_are_found() {
    const TABLES: u64 = 16 << 9;
    let (mut b, root) = copied();
    let leaves = b.page();
    for n in 0..512 {
        b.ram.set(leaves + 8 * n, (0x1000_0000 + (n << 12)) | R | W);
    }
    for n in 0..TABLES {
        b.map(root, 4, 2, n << 21, leaves | R | W, R | W);
    }
    let (mut first, mut found, mut parts) = (0, 0, 0);
    loop {
        let part = b.unit.reach_part(&b.ram, SID, first, u64::MAX, 1 << 16);
        let Reach::Pages(pages) = part.reach else {
            panic!("everything")
        };
        for page in pages {
            assert_eq!(page.input.base(), found << 12);
            assert_eq!(page.output, 0x1000_0000 + ((found % 512) << 12));
            found += 1;
        }
        parts += 1;
        assert_eq!(part.domain.map(|d| d.0), Some(7));
        match part.next {
            Some(next) => first = next,
            None => break,
        }
    }
    assert_eq!(found, TABLES << 9);
    assert!(parts > 60, "{parts} parts");
}

/// Reading in parts of any size gives the same result as reading at once.
#[test]
fn parts_make_up_the_whole_also_of_nested_tables() {
    let (mut b, root) = copied();
    for n in [0, 1, 5, 511, 512, 0x1_2345, 0x7f_ffff] {
        b.map_second(root, n << 12, 0x5_0000_0000 + (n << 12), R | W);
    }
    b.map(root, 4, 2, 0x4020_0000, 0x60_0000 | PS | R | W, R | W);
    b.map(root, 4, 3, 0x80_0000_0000, 0x1_0000_0000 | PS | R, R | W);
    let mut nesting = Bench::new();
    let (first, second) = (0x20_0000, nesting.page());
    nesting.pasid(SID, 0, nested(first, second, 1));
    nesting.map(second, 4, 2, 0x20_0000, 0x20_0000 | PS | R | W, R | W);
    let (middle, low) = (0x20_1000, 0x20_2000);
    for at in [first, first + 256 * 8] {
        nesting.ram.set(at, middle | USER);
    }
    nesting.ram.set(middle, low | USER);
    nesting.ram.set(low + 8, 0x60_0000 | PS | USER);
    nesting.ram.set(low + 24, 0x60_0000 | PS | USER);
    for n in (0..512).step_by(3) {
        nesting.map_second(second, 0x60_0000 + (n << 12), 0x700_0000 + (n << 12), R | W);
    }
    for b in [&b, &nesting] {
        let whole = reach(b, 0, u64::MAX);
        assert!(whole.len() > 8);
        for reads in [0, 64, 65, 100, 513, 4000] {
            let (mut from, mut pages, mut parts) = (0, Vec::new(), 0);
            loop {
                let part = b.unit.reach_part(&b.ram, SID, from, u64::MAX, reads);
                let Reach::Pages(some) = part.reach else {
                    panic!("everything")
                };
                for page in some {
                    // A page that crosses the beginning of a part would be returned twice.
                    assert!(page.input.base() >= from, "{reads}");
                    assert!(part.next.is_none_or(|next| page.input.last() < next));
                    pages.push(tuple(&page));
                }
                parts += 1;
                match part.next {
                    Some(next) if next > from => from = next,
                    Some(next) => panic!("{reads}: no way on from {next:#x}"),
                    None => break,
                }
            }
            assert_eq!(pages, whole, "{reads}");
            assert!(reads > 100 || parts > 5, "{reads}: {parts}");
        }
    }
}
