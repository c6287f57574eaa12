// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invalidations: what the host has to forget, and what becomes of failures.

use crate::bench::*;
use host_iommu::host::{Errno, HwptId, Invalidation, Operation};
use host_iommu::invalidations::{checked, invalidate_cache, iotlb_invalidated};
use host_iommu::mock::Call;
use pcie_ats::AlignedRange;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use vtd::spec::descriptor::{IotlbScope, PasidScope, QueueError};
use vtd::spec::{DomainId, SourceId};
use vtd::{AddressTranslation, FirstStageTable};

fn range(address: u64, shift: u8) -> AlignedRange {
    AlignedRange::containing(address, shift).unwrap()
}

fn pages(domain: u16, number: u32, range: AlignedRange) -> IotlbScope {
    IotlbScope::PasidPages(DomainId(domain), pasid(number), range)
}

/// PASIDs 1 and 2 in domain 1, 3 and requests without PASID in domain 2, 4 passed through.
fn bench() -> Bench {
    let mut b = Bench::new();
    for (number, domain) in [(1, 1), (2, 1), (3, 2), (0, 2)] {
        let table = 0x1_0000 + (u64::from(number) << 12);
        b.tables.set(SID, number, space(domain, table));
    }
    b.tables
        .set(SID, 4, with(1, AddressTranslation::PassThrough));
    assert!(b.pasid_cache(PasidScope::Global).is_complete());
    b
}

/// What is told to the host: the number of the entry, and what.
fn told(b: &mut Bench, scope: IotlbScope, leaf_only: bool) -> Vec<(u64, Invalidation)> {
    b.host.calls.clear();
    iotlb_invalidated(&mut b.host, &b.bindings, scope, leaf_only).unwrap();
    let table = |hwpt| (b.host.stage(hwpt).unwrap().table - 0x1_0000) >> 12;
    let entry = |call: &Call| match call {
        Call::Invalidate(hwpt, what) => (table(*hwpt), *what),
        other => panic!("{other:?}"),
    };
    let mut all: Vec<_> = b.host.calls.iter().map(entry).collect();
    all.sort_by_key(|(number, _)| *number);
    all
}

#[test]
pub(crate) fn n4_1_a_partial_failure_says_how_many_were_done() {
    let mut b = bench();
    let hwpt = b.bindings.page_table((SID, Some(pasid(1)))).unwrap();
    b.host.fail(Operation::Invalidate, 2, Errno::NoMemory);
    let all = [Invalidation::All; 5];
    let partial = invalidate_cache(&mut b.host, hwpt, &all).unwrap_err();
    assert_eq!((partial.done, partial.total), (2, 5));
    assert_eq!(partial.error.errno, Errno::NoMemory);
    let text = partial.to_string();
    assert!(text.ends_with("2 of 5 entries were done"), "{text}");
    assert!(invalidate_cache(&mut b.host, hwpt, &all).is_ok());
    // A host that says that it has succeeded, and has done fewer, has failed.
    assert!(checked(5, 5, None).is_ok());
    assert_eq!(checked(4, 5, None).unwrap_err().error.errno, Errno::Io);
    let partial = checked(3, 5, Some(Errno::Invalid)).unwrap_err();
    assert_eq!((partial.done, partial.error.errno), (3, Errno::Invalid));
}

#[test]
pub(crate) fn n4_26_page_tables_of_domain_and_pasid_are_invalidated() {
    let mut b = bench();
    let all = Invalidation::All;
    let one = IotlbScope::Pasid(DomainId(1), pasid(2));
    assert_eq!(told(&mut b, one, false), [(2, all)]);
    // PASID 0 is RID_PASID.
    let rid = IotlbScope::Pasid(DomainId(2), pasid(0));
    assert_eq!(told(&mut b, rid, false), [(0, all)]);
    let other_domain = IotlbScope::Pasid(DomainId(2), pasid(2));
    assert_eq!(told(&mut b, other_domain, false), []);
    let domain = IotlbScope::Domain(DomainId(2));
    assert_eq!(told(&mut b, domain, false), [(0, all), (3, all)]);
    // Pages of a domain are those of second stages; of first stages, all go.
    let of_domain = IotlbScope::DomainPages(DomainId(1), range(0x5000, 12));
    assert_eq!(told(&mut b, of_domain, true), [(1, all), (2, all)]);
    let everything = [(0, all), (1, all), (2, all), (3, all)];
    assert_eq!(told(&mut b, IotlbScope::Global, false), everything);
    let some = |address, pages| Invalidation::Pages {
        address,
        pages,
        leaf_only: false,
    };
    let scope = pages(1, 1, range(0x40_0000, 14));
    assert_eq!(told(&mut b, scope, false), [(1, some(0x40_0000, 4))]);
    let high = range(0xffff_8000_0000_0000, 12);
    let scope = pages(1, 1, high);
    assert_eq!(told(&mut b, scope, false), [(1, some(high.base(), 1))]);
}

#[test]
pub(crate) fn ranges_of_any_size_are_told_and_what_is_too_large_is_all() {
    let mut b = bench();
    for shift in 12..=64 {
        let got = told(&mut b, pages(1, 1, range(0, shift)), false);
        let expected = match shift {
            12..48 => Invalidation::Pages {
                address: 0,
                pages: 1 << (shift - 12),
                leaf_only: false,
            },
            _ => Invalidation::All,
        };
        assert_eq!(got, [(1, expected)], "2^{shift} bytes");
    }
    // With five levels, there are more addresses.
    let five = FirstStageTable {
        levels: 5,
        ..first_stage(0x1_1000)
    };
    b.tables
        .set(SID, 1, with(1, AddressTranslation::FirstStage(five)));
    b.pasid_cache(PasidScope::Global);
    let got = told(&mut b, pages(1, 1, range(0, 56)), false);
    assert!(matches!(got[0].1, Invalidation::Pages { pages, .. } if pages == 1 << 44));
    let got = told(&mut b, pages(1, 1, range(0, 57)), false);
    assert_eq!(got, [(1, Invalidation::All)]);
}

#[test]
pub(crate) fn the_leaf_hint_is_passed_on() {
    let mut b = bench();
    for leaf in [false, true] {
        let got = told(&mut b, pages(1, 1, range(0x1000, 12)), leaf);
        let expected = Invalidation::Pages {
            address: 0x1000,
            pages: 1,
            leaf_only: leaf,
        };
        assert_eq!(got, [(1, expected)]);
    }
}

#[test]
fn a_page_table_that_is_shared_is_told_once() {
    let mut b = Bench::new();
    let other = SourceId(0x0200);
    b.assign(other);
    for of in [SID, other] {
        b.tables.set(of, 1, space(1, 0x1_1000));
    }
    b.pasid_cache(PasidScope::Global);
    let domain = IotlbScope::Domain(DomainId(1));
    assert_eq!(told(&mut b, domain, false), [(1, Invalidation::All)]);
}

#[test]
pub(crate) fn what_fails_is_tried_as_a_whole() {
    let mut b = bench();
    b.host.fail(Operation::Invalidate, 0, Errno::NoMemory);
    b.host.calls.clear();
    let scope = pages(1, 1, range(0x1000, 12));
    let done = iotlb_invalidated(&mut b.host, &b.bindings, scope, true);
    assert_eq!(done, Ok(()));
    let hwpt = b.bindings.page_table((SID, Some(pasid(1)))).unwrap();
    assert_eq!(b.host.calls, [Call::Invalidate(hwpt, Invalidation::All)]);
}

#[test]
pub(crate) fn what_fails_again_fails_the_descriptor_and_not_the_others() {
    let mut b = bench();
    b.host.calls.clear();
    for _ in 0..2 {
        b.host.fail(Operation::Invalidate, 0, Errno::NoMemory);
    }
    let scope = IotlbScope::Global;
    let failed = iotlb_invalidated(&mut b.host, &b.bindings, scope, false).unwrap_err();
    assert_eq!((failed.total, failed.errors.len()), (4, 1));
    assert_eq!(b.host.calls.len(), 3, "the others were told");
    assert_eq!(failed.queue_error(), QueueError::NoInformation);
    let text = failed.to_string();
    assert!(
        text.starts_with("1 of 4 page tables were not invalidated; "),
        "{text}"
    );
}

/// Pages that a host may have translations of.
const CACHED: [u64; 9] = [
    0,
    0x1000,
    0x3000,
    0x20_0000,
    0x3fff_f000,
    0x4000_0000,
    0x7fff_ffff_f000,
    0xff_ffff_ffff_f000,
    0xffff_8000_0000_0000,
];

const OTHER: SourceId = SourceId(0x0200);

/// An address space: whether it is one of the other device, its PASID table entry, domain, and
/// table, of which the last has five levels.
type Space = (bool, u32, u16, u64);

/// The second table has five levels.
fn width(table: u64) -> u8 {
    if table == 2 { 57 } else { 48 }
}

fn with_spaces(spaces: &[Space]) -> Bench {
    let mut b = Bench::new();
    b.assign(OTHER);
    for (other, number, domain, table) in spaces {
        let stage = FirstStageTable {
            levels: (width(*table) - 12) / 9,
            ..first_stage(table << 12)
        };
        let translation = match table {
            0 => AddressTranslation::PassThrough,
            _ => AddressTranslation::FirstStage(stage),
        };
        let of = if *other { OTHER } else { SID };
        b.tables.set(of, *number, with(*domain, translation));
    }
    assert!(b.pasid_cache(PasidScope::Global).is_complete());
    b
}

/// Which of the pages a scope selects of an address space with a first stage. What covers all of
/// its addresses is all, and pages of a domain are all that went through a first stage.
fn selected(scope: IotlbScope, (_, number, domain, table): Space) -> Option<BTreeSet<u64>> {
    let all = || CACHED.into_iter().collect();
    let is = |did: DomainId| did.0 == domain;
    match scope {
        IotlbScope::Global => Some(all()),
        IotlbScope::Domain(did) | IotlbScope::DomainPages(did, _) => is(did).then(all),
        IotlbScope::Pasid(did, pasid) => (is(did) && pasid.get() == number).then(all),
        IotlbScope::PasidPages(did, pasid, range) => {
            let size = 1u128 << range.shift();
            let first = u128::from(range.base());
            let inside = |page: &u64| (first..first + size).contains(&u128::from(*page));
            let some = CACHED.into_iter().filter(inside).collect();
            let pages = if range.shift() >= width(table) {
                all()
            } else {
                some
            };
            (is(did) && pasid.get() == number).then_some(pages)
        }
    }
}

fn scopes() -> impl Strategy<Value = IotlbScope> {
    let did = || (1u16..4).prop_map(DomainId);
    let number = || (0u32..4).prop_map(pasid);
    let pages = || {
        let at = proptest::sample::select(&CACHED[..]);
        (at, 12u8..=64).prop_map(|(at, shift)| range(at, shift))
    };
    prop_oneof![
        1 => Just(IotlbScope::Global),
        1 => did().prop_map(IotlbScope::Domain),
        1 => (did(), pages()).prop_map(|(did, range)| IotlbScope::DomainPages(did, range)),
        1 => (did(), number()).prop_map(|(did, of)| IotlbScope::Pasid(did, of)),
        4 => (did(), number(), pages()).prop_map(|(d, n, range)| IotlbScope::PasidPages(d, n, range)),
    ]
}

/// The host forgets exactly what the guest has invalidated, of every page table that somebody uses
/// whom the scope selects. Where it fails, it forgets everything, and where it fails again the
/// descriptor has failed, and the other page tables have not.
#[test]
pub(crate) fn the_host_forgets_what_the_guest_has_invalidated() {
    let space = (any::<bool>(), 0u32..4, 1u16..3, 0u64..4);
    let spaces = proptest::collection::vec(space, 0..8);
    let works = proptest::collection::vec(prop_oneof![3 => Just(true), 1 => Just(false)], 0..8);
    holds(
        600,
        (spaces, scopes(), any::<bool>(), works),
        |(spaces, scope, leaf, works)| {
            let mut b = with_spaces(&spaces);
            // The last entry of a place counts.
            let entries: BTreeMap<_, _> = spaces.iter().map(|s| ((s.0, s.1), *s)).collect();
            let mut wanted: BTreeMap<HwptId, BTreeSet<u64>> = BTreeMap::new();
            for ((other, number), space) in entries.into_iter().filter(|(_, space)| space.3 != 0) {
                let of = if other { OTHER } else { SID };
                let key = Some(pasid(number)).filter(|_| number != 0);
                let hwpt = b.bindings.page_table((of, key)).unwrap();
                if let Some(pages) = selected(scope, space) {
                    wanted.entry(hwpt).or_default().extend(pages);
                }
            }
            let mut ok = 0;
            for works in &works {
                ok = match works {
                    true => ok + 1,
                    false => {
                        b.host.fail(Operation::Invalidate, ok, Errno::NoMemory);
                        0
                    }
                };
            }
            b.host.calls.clear();
            let done = iotlb_invalidated(&mut b.host, &b.bindings, scope, leaf);
            // What it has forgotten.
            let mut forgotten: BTreeMap<HwptId, BTreeSet<u64>> = BTreeMap::new();
            for call in &b.host.calls {
                let Call::Invalidate(hwpt, what) = *call else {
                    return Err(TestCaseError::fail(format!("{call:?}")));
                };
                let gone = |page: &u64| match what {
                    Invalidation::All => true,
                    Invalidation::Pages { address, pages, .. } => {
                        let first = u128::from(address);
                        let end = first + u128::from(pages) * 4096;
                        (first..end).contains(&u128::from(*page))
                    }
                };
                if let Invalidation::Pages { leaf_only, .. } = what {
                    prop_assert_eq!(leaf_only, leaf);
                }
                prop_assert!(!forgotten.contains_key(&hwpt), "it is told twice");
                forgotten.insert(hwpt, CACHED.into_iter().filter(gone).collect());
            }
            // Each page table takes one of the host's answers, or two. Those behind the last work.
            let mut answers = works.iter().copied().chain(std::iter::repeat(true));
            let mut next = || answers.next().unwrap();
            let (mut exact, mut whole, mut failed) = (0, 0, 0);
            for _ in &wanted {
                if next() {
                    exact += 1;
                } else if next() {
                    whole += 1;
                } else {
                    failed += 1;
                }
            }
            let all: BTreeSet<u64> = CACHED.into_iter().collect();
            let mut beyond = 0;
            for (hwpt, pages) in &forgotten {
                let Some(wanted) = wanted.get(hwpt) else {
                    return Err(TestCaseError::fail(
                        "a page table was told that nobody uses there",
                    ));
                };
                if pages != wanted {
                    prop_assert_eq!(pages, &all);
                    beyond += 1;
                }
            }
            prop_assert!(
                beyond <= whole,
                "{beyond} as a whole, {whole} have failed before"
            );
            prop_assert_eq!(forgotten.len(), exact + whole);
            match done {
                Ok(()) => prop_assert_eq!(failed, 0),
                Err(error) => {
                    prop_assert_eq!((error.errors.len(), error.total), (failed, wanted.len()));
                    prop_assert!(failed > 0 && error.errors.iter().all(|e| e.done == 0));
                    prop_assert_eq!(error.queue_error(), QueueError::NoInformation);
                }
            }
            Ok(())
        },
    );
}
