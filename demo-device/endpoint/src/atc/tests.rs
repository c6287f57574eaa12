// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cache alone, and compared with a list of the inserted translations.

mod prediction;

use super::*;
use crate::testing::Numbers;
use crate::testing::failure::caught;
use pcie_ats::Pasid;
use proptest::prelude::*;

fn pasid(n: u32) -> Option<Pasid> {
    Some(Pasid::new(n).unwrap())
}

fn space(n: u32) -> Space {
    Space::new(pasid(n), false)
}

fn range(address: u64, shift: u8) -> AlignedRange {
    AlignedRange::containing(address, shift).unwrap()
}

fn cached(address: u64, shift: u8, output: u64, write: bool) -> Cached {
    Cached {
        range: range(address, shift),
        output,
        read: true,
        write,
        untranslated_only: false,
    }
}

fn hit(atc: &mut Atc, space: Space, address: u64, access: Access) -> Option<u64> {
    atc.lookup(space, address, access).map(|hit| hit.output)
}

#[test]
fn entries_of_several_sizes_stand_side_by_side() {
    let mut atc = Atc::new(64, 4);
    atc.insert(space(1), &cached(0x1000, 12, 0xa000, true));
    atc.insert(space(1), &cached(0x20_0000, 21, 0x40_0000, true));
    atc.insert(space(1), &cached(0x4000_0000, 30, 0x8000_0000, true));
    atc.insert(space(1), &cached(0x1_0000_0000, 16, 0xc_0000, true));
    assert_eq!(hit(&mut atc, space(1), 0x1234, Access::Read), Some(0xa234));
    assert_eq!(
        hit(&mut atc, space(1), 0x2f_ffff, Access::Write),
        Some(0x4f_ffff)
    );
    assert_eq!(
        hit(&mut atc, space(1), 0x7fff_ffff, Access::Read),
        Some(0xbfff_ffff)
    );
    assert_eq!(
        hit(&mut atc, space(1), 0x1_0000_ffff, Access::Read),
        Some(0xc_ffff)
    );
    assert_eq!(hit(&mut atc, space(1), 0x1_0001_0000, Access::Read), None);
    assert_eq!(hit(&mut atc, space(1), 0x2000, Access::Read), None);
}

#[test]
fn rule_18_an_entry_without_write_permission_does_not_answer_a_write() {
    let mut atc = Atc::new(64, 4);
    atc.insert(space(1), &cached(0x1000, 12, 0xa000, false));
    assert_eq!(hit(&mut atc, space(1), 0x1000, Access::Write), None);
    assert_eq!(hit(&mut atc, space(1), 0x1000, Access::ReadWrite), None);
    assert_eq!(hit(&mut atc, space(1), 0x1000, Access::Read), Some(0xa000));
    // The larger entry has the permission that the smaller one lacks.
    atc.insert(space(1), &cached(0, 21, 0x20_0000, true));
    assert_eq!(
        hit(&mut atc, space(1), 0x1000, Access::Write),
        Some(0x20_1000)
    );
}

#[test]
fn rule_20_modes_and_pasids_are_spaces_of_their_own() {
    let mut atc = Atc::new(64, 4);
    atc.insert(
        Space::new(pasid(1), true),
        &cached(0x1000, 12, 0xa000, true),
    );
    atc.insert(Space::new(None, false), &cached(0x1000, 12, 0xb000, true));
    assert_eq!(hit(&mut atc, space(1), 0x1000, Access::Read), None);
    assert_eq!(hit(&mut atc, space(0), 0x1000, Access::Read), None);
    assert_eq!(atc.invalidate(Scope::One(None), AlignedRange::ALL), 1);
    assert_eq!(atc.invalidate(Scope::One(pasid(1)), range(0x1000, 12)), 1);
    assert_eq!(atc.len(), 0);
}

#[test]
fn rule_36_an_invalidation_is_for_one_pasid_or_for_all() {
    let mut atc = Atc::new(64, 4);
    let fill = |atc: &mut Atc| {
        for n in 1..=3 {
            atc.insert(space(n), &cached(0x1000, 12, 0xa000, true));
            atc.insert(space(n), &cached(0x2000, 12, 0xb000, true));
        }
    };
    fill(&mut atc);
    assert_eq!(atc.invalidate(Scope::One(pasid(2)), range(0x1000, 12)), 1);
    assert_eq!(atc.invalidate(Scope::One(pasid(2)), range(0x1000, 12)), 0);
    assert_eq!(atc.invalidate(Scope::Every, range(0x1000, 12)), 2);
    assert_eq!(atc.invalidate(Scope::One(pasid(3)), AlignedRange::ALL), 1);
    assert_eq!(atc.len(), 2);
    assert_eq!(atc.clear(), 2);
    assert_eq!(atc.len(), 0);
}

#[test]
fn rule_37_a_4k_invalidation_drops_the_2m_entry() {
    let mut atc = Atc::new(64, 4);
    atc.insert(space(1), &cached(0x20_0000, 21, 0x40_0000, true));
    atc.insert(space(1), &cached(0x4000_0000, 30, 0, true));
    assert_eq!(
        atc.invalidate(Scope::One(pasid(1)), range(0x3f_f000, 12)),
        1
    );
    assert_eq!(hit(&mut atc, space(1), 0x20_0000, Access::Read), None);
    assert_eq!(
        atc.invalidate(Scope::One(pasid(1)), range(0x5000_0000, 12)),
        1
    );
    assert_eq!(atc.len(), 0);
}

#[test]
fn rule_37_a_large_invalidation_drops_the_small_entries_in_it_and_no_others() {
    let mut atc = Atc::new(256, 4);
    for page in 0..64 {
        atc.insert(space(1), &cached(page << 12, 12, page << 12, true));
    }
    let before = atc.len();
    // By probing, then by walking the list.
    assert_eq!(atc.invalidate(Scope::One(pasid(1)), range(0x4000, 14)), 4);
    assert_eq!(
        atc.invalidate(Scope::One(pasid(1)), range(0x2_0000, 17)),
        32
    );
    assert_eq!(atc.len(), before - 36);
    assert!(hit(&mut atc, space(1), 0x1_f000, Access::Read).is_some());
    assert!(hit(&mut atc, space(1), 0x2_0000, Access::Read).is_none());
}

#[test]
fn a_full_set_gives_up_what_was_used_longest_ago() {
    let mut atc = Atc::new(4, 4);
    for page in 0..4 {
        assert_eq!(atc.insert(space(1), &cached(page << 12, 12, 0, true)), None);
    }
    assert!(hit(&mut atc, space(1), 0, Access::Read).is_some());
    let evicted = atc.insert(space(1), &cached(0x9000, 12, 0, true));
    assert_eq!(evicted, Some((space(1), range(0x1000, 12))));
    // The same range again replaces its own entry.
    assert_eq!(
        atc.insert(space(1), &cached(0x9000, 12, 0x7000, true)),
        None
    );
    assert_eq!(hit(&mut atc, space(1), 0x9000, Access::Read), Some(0x7000));
    assert_eq!(atc.len(), 4);
}

#[test]
fn what_was_used_since_a_certain_time_can_be_protected() {
    let mut atc = Atc::new(4, 4);
    for page in 0..4 {
        atc.insert(space(1), &cached(page << 12, 12, 0, true));
    }
    let time = atc.tick();
    for page in 0..4 {
        assert!(hit(&mut atc, space(1), page << 12, Access::Read).is_some());
    }
    assert_eq!(
        atc.insert_over(space(1), &cached(0x9000, 12, 0, true), time),
        None
    );
    assert_eq!(hit(&mut atc, space(1), 0x9000, Access::Read), None);
    let time = atc.tick();
    assert!(
        atc.insert_over(space(1), &cached(0x9000, 12, 0, true), time)
            .is_some()
    );
    assert!(hit(&mut atc, space(1), 0x9000, Access::Read).is_some());
}

#[test]
fn the_whole_address_space_can_be_one_entry() {
    let mut atc = Atc::new(16, 4);
    atc.insert(space(1), &cached(0, 64, 0, true));
    assert_eq!(hit(&mut atc, space(1), !0, Access::Read), Some(!0));
    assert_eq!(atc.invalidate(Scope::One(pasid(1)), range(!0, 12)), 1);
}

#[test]
fn the_number_of_ways_says_how_many_entries_of_a_set_stand_side_by_side() {
    for ways in [1, 2, 4, 8, 16] {
        // One set.
        let mut atc = Atc::new(ways, ways);
        for page in 0..u64::from(ways) {
            let new = cached(page << 12, 12, (page + 1) << 20, true);
            assert_eq!(atc.insert(space(1), &new), None, "{ways}");
        }
        for page in 0..u64::from(ways) {
            let found = hit(&mut atc, space(1), page << 12 | 8, Access::Write);
            assert_eq!(found, Some((page + 1) << 20 | 8), "{ways}");
        }
        let evicted = atc.insert(space(1), &cached(0x80_0000, 12, 0, true));
        assert_eq!(evicted, Some((space(1), range(0, 12))), "{ways}");
        assert_eq!(atc.len(), ways);
        assert_eq!(atc.clear(), ways);
    }
}

#[test]
fn a_fingerprint_like_that_of_a_free_entry_is_no_obstacle() {
    let zero = |page: &u64| {
        let first = page << 12;
        Atc::place(Atc::salt(space(1), first), first).print == 0
    };
    let page = (1..1 << 20).find(zero).unwrap();
    let mut atc = Atc::new(64, 4);
    assert_eq!(hit(&mut atc, space(1), page << 12, Access::Read), None);
    atc.insert(space(1), &cached(0x1000, 12, 0xa000, true));
    assert_eq!(hit(&mut atc, space(1), page << 12, Access::Read), None);
    atc.insert(space(1), &cached(page << 12, 12, 0xb000, true));
    let found = hit(&mut atc, space(1), page << 12 | 5, Access::Read);
    assert_eq!(found, Some(0xb005));
    assert_eq!(
        atc.invalidate(Scope::One(pasid(1)), range(page << 12, 12)),
        1
    );
    assert_eq!(hit(&mut atc, space(1), page << 12, Access::Read), None);
    // Nor does the page's free entry hide the larger one, also if a set has fewer entries than a
    // word has fingerprints.
    for ways in [1, 2, 4] {
        let mut atc = Atc::new(64, ways);
        atc.insert(space(1), &cached(0x1000, 12, 0xa000, true));
        atc.insert(space(1), &cached(page << 12, 21, 1 << 30, true));
        let found = hit(&mut atc, space(1), page << 12, Access::Read);
        assert_eq!(found, Some(1 << 30 | (page << 12 & 0x1f_ffff)), "{ways}");
    }
}

#[test]
fn rule_20_a_space_with_the_same_fingerprint_is_another() {
    let print = |space| Atc::place(Atc::salt(space, 0x1000), 0x1000).print;
    let same = |n: &u32| print(space(*n)) == print(space(1));
    let other = (2..1 << 20).find(same).map(space).unwrap();
    // One set.
    let mut atc = Atc::new(4, 4);
    atc.insert(space(1), &cached(0x1000, 12, 0xa000, true));
    // Twice, because the first one could leave a hint.
    for _ in 0..2 {
        assert_eq!(hit(&mut atc, other, 0x1000, Access::Read), None);
        let found = hit(&mut atc, space(1), 0x1000, Access::Read);
        assert_eq!(found, Some(0xa000));
    }
    atc.insert(other, &cached(0x1000, 12, 0xb000, true));
    let found = hit(&mut atc, other, 0x1000, Access::Read);
    assert_eq!((found, atc.len()), (Some(0xb000), 2));
}

#[test]
fn pages_in_a_row_are_in_sets_in_a_row() {
    // As many as there are sets, wherever they begin: hardly any meet in a set.
    for (n, shift) in [(1, 12), (2, 16), (3, 18), (4, 21)] {
        let mut atc = Atc::new(1024, 4);
        let sets: Vec<u64> = (0..256)
            .map(|page| {
                let first = 0x7f12_3456_0000_0000 + (page << shift);
                atc.insert(space(n), &cached(first, shift, 0, true));
                Atc::place(Atc::salt(space(n), first), first).set as u64 % 256
            })
            .collect();
        assert!(atc.len() > 250, "{} of size {shift}", atc.len());
        let in_a_row = |pair: &&[u64]| (pair[1] + 256 - pair[0]) % 256 == 1;
        let rows = sets.windows(2).filter(in_a_row).count();
        assert!(shift != 12 || rows > 245, "{rows} in a row");
    }
}

#[test]
fn pages_are_looked_up_one_after_another() {
    let mut atc = Atc::new(256, 4);
    // Across the end of a region.
    let begin = (5 << 30) - 0x4000;
    for page in (0..8).filter(|page| *page != 7) {
        let new = cached(begin + (page << 12), 12, page << 20, page != 2);
        atc.insert(space(1), &new);
    }
    let mut found = |number, first: u64, end: u64, access| {
        let mut outputs = Vec::new();
        atc.lookup_pages(space(number), begin + first, begin + end, access, |hit| {
            outputs.push(hit.output >> 20);
        });
        outputs
    };
    assert_eq!(found(1, 0, 0x3000, Access::Read), [0, 1, 2]);
    // The last one only begins before the end.
    assert_eq!(found(1, 0x1000, 0x3001, Access::Read), [1, 2, 3]);
    assert_eq!(found(1, 0, 0x3000, Access::Write), [0, 1]);
    assert_eq!(found(2, 0, 0x3000, Access::Read), []);
    // Not beyond what is missing.
    assert_eq!(found(1, 0x2000, 0x9000, Access::Read), [2, 3, 4, 5, 6]);
    // A place within a page is left to others.
    assert_eq!(found(1, 0x8, 0x3000, Access::Read), []);
}

#[test]
fn pages_in_a_row_use_most_of_the_cache() {
    let mut atc = Atc::new(1024, 4);
    for n in 1..=8 {
        for page in 0..128 {
            atc.insert(
                space(n),
                &cached(0x7f00_0000_0000 + (page << 12), 12, 0, true),
            );
        }
    }
    assert!(atc.len() > 800, "{}", atc.len());
}

/// The model's record of one translation.
type Known = (Space, Cached);

#[derive(Clone, Copy, Debug)]
enum Op {
    /// Inserts a translation of an address, with log2 of its size, permissions to read and write,
    /// and whether it is for untranslated requests only.
    Insert(Space, u64, u8, [bool; 3]),
    Lookup(Space, u64, Access),
    Invalidate(Scope, u64, u8),
    /// A process's request to forget a range, from the first to the last address.
    Forget(u32, u64, u64),
    Clear,
}

/// A fault of the cache, to check that the comparison detects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InjectedFault {
    None,
    /// Rule 37.
    OnlyTheSameSize,
    /// Rule 36.
    EveryPasid,
    /// Rule 20: an entry of one mode is found in the other.
    EveryMode,
    /// Rule 18.
    AnyPermission,
    /// Rule 47.
    Nothing,
}

/// The cache, and a list of the translations that were inserted and not dropped.
struct Pair {
    atc: Atc,
    model: Vec<Known>,
    fault: InjectedFault,
    /// Number of inserted translations: each has its own memory.
    kept: u64,
}

/// Whether a scope covers a space.
fn covers(scope: Scope, space: Space) -> bool {
    match scope {
        Scope::Every => true,
        Scope::One(pasid) => [false, true]
            .map(|mode| Space::new(pasid, mode))
            .contains(&space),
    }
}

/// Whether a translation permits an access.
fn permits(cached: &Cached, access: Access) -> bool {
    (cached.read || !access.reads()) && (cached.write || !access.writes())
}

impl Pair {
    fn new(entries_log2: u32, ways_log2: u32, fault: InjectedFault) -> Self {
        Pair {
            atc: Atc::new(1 << entries_log2, 1 << ways_log2.min(entries_log2)),
            model: Vec::new(),
            fault,
            kept: 0,
        }
    }

    /// Applies an operation to both and compares.
    fn apply(&mut self, op: Op) {
        match op {
            Op::Insert(space, address, shift, [read, write, untranslated_only]) => {
                self.kept += 1;
                let new = Cached {
                    range: range(address, shift),
                    output: self.kept << 36,
                    read,
                    write: write || self.fault == InjectedFault::AnyPermission,
                    untranslated_only,
                };
                let evicted = self.atc.insert(space, &new);
                self.model
                    .retain(|(s, old)| (*s, old.range) != (space, new.range));
                if let Some(gone) = evicted {
                    let before = self.model.len();
                    self.model.retain(|(s, old)| (*s, old.range) != gone);
                    assert_eq!(self.model.len(), before - 1);
                }
                self.model.push((space, Cached { write, ..new }));
            }
            Op::Lookup(space, address, access) => {
                let told = match self.fault {
                    InjectedFault::EveryMode => Space::new(pasid(1), true),
                    _ => space,
                };
                self.compare_pages(told, space, address & !0xfff, access);
                let fits = |(s, c): &&Known| {
                    *s == space && c.range.contains(address) && permits(c, access)
                };
                match self.atc.lookup(told, address, access) {
                    Some(hit) => {
                        let known = self.model.iter().filter(fits).any(|(_, c)| {
                            (hit.first, hit.last) == (c.range.base(), c.range.last())
                                && hit.output == c.output + (address - c.range.base())
                                && hit.untranslated_only == c.untranslated_only
                        });
                        assert!(known, "unknown {hit:x?}");
                    }
                    None => assert_eq!(self.model.iter().find(fits), None),
                }
            }
            Op::Invalidate(scope, address, shift) => {
                let r = range(address, shift);
                let gone = self.drop_from_model(|s, c| covers(scope, s) && c.overlaps(r));
                let count = match (self.fault, scope) {
                    (InjectedFault::EveryPasid, _) => self.atc.invalidate(Scope::Every, r),
                    (InjectedFault::OnlyTheSameSize, Scope::One(pasid)) => {
                        self.atc.forget_exactly(Space::new(pasid, false), r)
                    }
                    (InjectedFault::Nothing, _) => gone,
                    _ => self.atc.invalidate(scope, r),
                };
                assert_eq!(count, gone);
            }
            Op::Forget(number, first, last) => {
                let scope = Scope::One(pasid(number));
                let from = first & !0xfff;
                let meets = |r: AlignedRange| r.base() <= last && from <= r.last();
                let gone = self.drop_from_model(|s, c| covers(scope, s) && meets(c));
                assert_eq!(self.atc.forget_between(pasid(number), first, last), gone);
            }
            Op::Clear => {
                let gone = self.drop_from_model(|_, _| true);
                assert_eq!(self.atc.clear(), gone);
            }
        }
        assert_eq!(self.atc.len() as usize, self.model.len());
    }

    /// Compares what is found of the pages from one on.
    fn compare_pages(&mut self, told: Space, space: Space, first: u64, access: Access) {
        const PAGES: u64 = 6;
        let end = first.saturating_add(PAGES << 12);
        let mut next = first;
        self.atc.lookup_pages(told, first, end, access, |hit| {
            let known = self.model.iter().find(|(s, c)| {
                *s == space && c.range == range(next, 12) && permits(c, access) && next < end
            });
            let found = known.map(|(_, c)| (c.output, c.untranslated_only));
            assert_eq!((hit.first, hit.last), (next, next | 0xfff));
            assert_eq!(
                found,
                Some((hit.output, hit.untranslated_only)),
                "{next:#x}"
            );
            next = next.saturating_add(1 << 12);
        });
    }

    /// Drops the translations for which a condition holds, and returns their number.
    fn drop_from_model(&mut self, condition: impl Fn(Space, AlignedRange) -> bool) -> u32 {
        let before = self.model.len();
        self.model.retain(|(s, c)| !condition(*s, c.range));
        (before - self.model.len()) as u32
    }
}

fn any_space() -> impl Strategy<Value = Space> {
    (proptest::option::weighted(0.9, 1u32..4), any::<bool>())
        .prop_map(|(p, mode)| Space::new(p.and_then(pasid), mode))
}

fn address() -> impl Strategy<Value = u64> {
    // Few distinct values, so that ranges overlap.
    (0u64..4, 0u64..4, 0u64..8).prop_map(|(g, m, k)| g << 30 | m << 21 | k << 12)
}

fn op() -> impl Strategy<Value = Op> {
    let shift = prop_oneof![Just(12u8), Just(13), Just(16), Just(21), Just(30)];
    let any_shift = prop_oneof![shift.clone(), 12u8..=64];
    let access = prop_oneof![
        Just(Access::Read),
        Just(Access::Write),
        Just(Access::ReadWrite)
    ];
    let scope = proptest::option::weighted(0.8, proptest::option::weighted(0.9, 1u32..4))
        .prop_map(|s| s.map_or(Scope::Every, |p| Scope::One(p.and_then(pasid))));
    prop_oneof![
        30 => (any_space(), address(), shift, any::<[bool; 3]>())
            .prop_map(|(p, a, s, bits)| Op::Insert(p, a, s, bits)),
        40 => (any_space(), address(), access).prop_map(|(p, a, x)| Op::Lookup(p, a, x)),
        20 => (scope, address(), any_shift).prop_map(|(p, a, s)| Op::Invalidate(p, a, s)),
        4 => (1u32..4, address(), 0u64..1 << 24).prop_map(|(p, a, n)| Op::Forget(p, a, a + n)),
        1 => Just(Op::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_cache_agrees_with_a_list_of_what_it_was_told(
        entries_log2 in 2u32..8,
        ways_log2 in 0u32..=4,
        ops in prop::collection::vec(op(), 1..300),
    ) {
        let mut pair = Pair::new(entries_log2, ways_log2, InjectedFault::None);
        for op in ops {
            pair.apply(op);
        }
    }
}

/// Caches from the smallest to one that rarely evicts, as log2 of entries and ways.
const GEOMETRIES: [(u32, u32); 4] = [(2, 1), (5, 2), (6, 4), (8, 2)];

/// Compares random operations, which are the same in every run.
fn compare_with_the_list(operations: u64, (entries, ways): (u32, u32), fault: InjectedFault) {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d ^ u64::from(entries) << 32);
    let mut next = |below| numbers.below(below);
    let mut pair = Pair::new(entries, ways, fault);
    for _ in 0..operations {
        let address = next(4) << 30 | next(4) << 21 | next(8) << 12;
        let number = match next(10) {
            0 => None,
            n => pasid(1 + n as u32 % 3),
        };
        let space = Space::new(number, next(4) == 0);
        let shift = [12, 13, 16, 21, 30][next(5) as usize];
        let access = [Access::Read, Access::Write, Access::ReadWrite][next(3) as usize];
        pair.apply(match next(180) {
            0..60 => {
                let bits = [next(8) != 0, next(2) == 0, next(8) == 0];
                Op::Insert(space, address, shift, bits)
            }
            60..140 => Op::Lookup(space, address | next(4096), access),
            140..155 => Op::Invalidate(Scope::One(number), address, 12 + next(53) as u8),
            155..170 => Op::Invalidate(Scope::One(number), address, shift),
            // Rarer, or nothing would be left in the cache.
            170 => Op::Invalidate(Scope::Every, address, 12 + next(53) as u8),
            171..175 => Op::Invalidate(Scope::Every, address, 12),
            175..179 => {
                let last = address + (next(1 << 24) >> next(12));
                Op::Forget(1 + next(3) as u32, address | next(4096), last | 0xfff)
            }
            _ if next(20) == 0 => Op::Clear,
            _ => Op::Lookup(space, !address, access),
        });
    }
}

#[test]
fn the_cache_agrees_with_the_list_for_a_million_operations() {
    for geometry in GEOMETRIES {
        compare_with_the_list(250_000, geometry, InjectedFault::None);
    }
}

#[test]
fn the_list_notices_a_cache_that_does_something_wrong() {
    for fault in [
        InjectedFault::OnlyTheSameSize,
        InjectedFault::EveryPasid,
        InjectedFault::EveryMode,
        InjectedFault::AnyPermission,
        InjectedFault::Nothing,
    ] {
        let wrong = || compare_with_the_list(10_000, GEOMETRIES[1], fault);
        let sources = [("/atc/tests.rs", include_str!("tests.rs"))];
        assert_eq!(caught(wrong, &sources, &["apply"]), Ok(()), "{fault:?}");
    }
}
