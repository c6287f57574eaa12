// SPDX-License-Identifier: MIT OR Apache-2.0
//! Caching and invalidation: an invalidation removes everything that it selects, and with small
//! selections nothing else.

use crate::bench::*;
use crate::reference::{Ask, Facts, Kind, read};
use proptest::prelude::*;
use vtd::memory::{Memory, MemoryError};
use vtd::spec::fault::FaultReason;
use vtd::spec::register::{global, offset};
use vtd::spec::{DomainId, SourceId};
use vtd::{Access, Request};

/// A second function.
const OTHER: SourceId = SourceId(0x0110);

/// A cached translation: function, PASID, domain, address. PASID 0 stands for requests without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cached {
    sid: SourceId,
    pasid: u32,
    domain: u16,
    address: u64,
}

/// Functions with address spaces of all kinds, each with two pages of 4 KiB and one of 2 MiB. All
/// of them are cached, and then every entry is changed.
struct Kinds {
    b: Bench,
    all: Vec<Cached>,
    old: Vec<u64>,
    new: Vec<u64>,
}

const PAGES: [u64; 3] = [0x1000, 0x2000, 0x60_0000];

impl Kinds {
    fn new() -> Self {
        let mut b = Bench::new();
        let mut all = Vec::new();
        let mut entries = Vec::new();
        let identity = b.page();
        for page in (0x10_0000..0x20_0000u64).step_by(0x1000) {
            b.map_second(identity, page, page, R | W);
        }
        b.map(identity, 4, 3, 0x4000_0000, 0x4000_0000 | R | W | PS, R | W);
        for (sid, pasid, domain, kind) in [
            (SID, 0, 3, 2),
            (SID, 5, 1, 1),
            (SID, 6, 1, 1),
            (SID, 7, 4, 3),
            (OTHER, 0, 3, 2),
            (OTHER, 5, 1, 1),
            (OTHER, 8, 5, 2),
        ] {
            let table = b.page();
            for (n, address) in PAGES.into_iter().enumerate() {
                // Different pages for each address space.
                let page = 0x4000_0000 + ((all.len() as u64) << 22) + ((n as u64) << 12);
                let page = if n == 2 { page >> 21 << 21 } else { page };
                let (level, ps) = if n == 2 { (2, PS) } else { (1, 0) };
                let (flags, above) = if kind == 2 {
                    (R | W, R | W)
                } else {
                    (USER | A | D, USER | A)
                };
                entries.push(b.map(table, 4, level, address, page | flags | ps, above));
                all.push(Cached {
                    sid,
                    pasid,
                    domain,
                    address,
                });
            }
            let entry = match kind {
                1 => first_stage(table, domain),
                2 => second_stage(table, domain),
                _ => nested(table, identity, domain),
            };
            b.pasid(sid, pasid, entry);
        }
        let mut kinds = Kinds {
            b,
            all,
            old: Vec::new(),
            new: Vec::new(),
        };
        kinds.old = kinds.answers();
        for entry in entries {
            kinds.b.ram.set(entry, kinds.b.ram.get(entry) ^ 1 << 29);
        }
        assert_eq!(kinds.answers(), kinds.old, "nothing was cached");
        kinds.new = kinds.old.iter().map(|page| page ^ 1 << 29).collect();
        kinds
    }

    fn answers(&mut self) -> Vec<u64> {
        let all = self.all.clone();
        all.iter().map(|c| self.answer(c)).collect()
    }

    fn answer(&mut self, cached: &Cached) -> u64 {
        let pasid = (cached.pasid != 0).then_some(cached.pasid);
        let request = Request {
            requester: cached.sid,
            ..request(pasid, cached.address, Access::Read)
        };
        outcome(self.b.ask(&request)).expect("a page that is mapped")
    }

    /// Submits a descriptor and compares the answers afterwards: translations that `selected`
    /// matches come from the current tables, the others are as before.
    fn check(descriptor: [u64; 2], selected: impl Fn(&Cached) -> bool) {
        let mut kinds = Kinds::new();
        assert!(kinds.b.submit_and_wait(&[descriptor]), "{descriptor:x?}");
        for (n, cached) in kinds.all.clone().iter().enumerate() {
            let now = kinds.answer(cached);
            let expected = if selected(cached) {
                kinds.new[n]
            } else {
                kinds.old[n]
            };
            assert_eq!(now, expected, "{cached:x?} after {descriptor:x?}");
        }
    }
}

/// The domains of address spaces that go through the first stage.
fn first_stage_domain(domain: u16) -> bool {
    matches!(domain, 1 | 4)
}

#[test]
fn a_global_iotlb_invalidation_takes_all() {
    Kinds::check(IOTLB_GLOBAL, |_| true);
}

#[test]
fn a_domain_iotlb_invalidation_takes_the_domain() {
    for domain in [1, 3, 4, 5, 9] {
        Kinds::check(domain_all(domain), |c| c.domain == domain);
    }
}

#[test]
fn a_page_selective_iotlb_invalidation_takes_second_stage_pages_and_all_of_the_first_stage() {
    for domain in [1, 3, 4, 5] {
        for address in [0x1000, 0x60_0000, 0x7f_f000] {
            Kinds::check(domain_pages(domain, address, 0), |c| {
                let page = c.address == address || c.address == 0x60_0000 && address >> 21 == 3;
                c.domain == domain && (first_stage_domain(domain) || page)
            });
        }
    }
    // Two pages, by mask.
    Kinds::check(domain_pages(3, 0x2000, 1), |c| {
        c.domain == 3 && c.address == 0x2000
    });
    Kinds::check(domain_pages(3, 0x0000, 2), |c| {
        c.domain == 3 && c.address < 0x4000
    });
}

#[test]
fn a_pasid_iotlb_invalidation_takes_the_pasid_in_its_domain() {
    for (domain, pasid) in [(1, 5), (1, 6), (4, 7), (5, 8), (3, 0), (3, 5)] {
        Kinds::check(pasid_all(domain, pasid), |c| {
            (c.domain, c.pasid) == (domain, pasid)
        });
    }
}

#[test]
fn a_page_selective_pasid_iotlb_invalidation_takes_the_pages() {
    for (domain, pasid) in [(1, 5), (4, 7)] {
        for address in [0x1000, 0x60_0000, 0x7f_f000] {
            Kinds::check(pasid_pages(domain, pasid, address, 0), |c| {
                let page = c.address == address || c.address == 0x60_0000 && address >> 21 == 3;
                (c.domain, c.pasid) == (domain, pasid) && page
            });
        }
        Kinds::check(pasid_pages(domain, pasid, 0, 63), |c| {
            (c.domain, c.pasid) == (domain, pasid)
        });
    }
}

#[test]
fn context_and_pasid_cache_invalidations_reach_what_was_derived_from_them() {
    Kinds::check(PASID_GLOBAL, |_| true);
    Kinds::check(pasid_domain(1), |c| c.domain == 1);
    Kinds::check(pasid_entry(1, 5), |c| (c.domain, c.pasid) == (1, 5));
    Kinds::check(CONTEXT_GLOBAL, |_| true);
    // Scalable mode: the domain is ignored.
    Kinds::check(context_domain(99), |_| true);
    Kinds::check(context_device(SID, 99), |c| c.sid == SID);
}

#[test]
fn an_invalidation_of_other_things_takes_nothing() {
    Kinds::check(domain_pages(3, 0x9000, 0), |_| false);
    Kinds::check(pasid_pages(1, 5, 0x9000, 0), |_| false);
    Kinds::check(pasid_all(2, 5), |_| false);
    Kinds::check([0x04, 0], |_| false);
}

#[test]
fn srtp_empties_the_caches() {
    let mut kinds = Kinds::new();
    kinds.b.command(global::SRTP);
    assert_eq!(kinds.answers(), kinds.new);
}

#[test]
fn a_pasid_entry_and_a_context_entry_stay_in_use_until_they_are_invalidated() {
    let mut b = Bench::new();
    let (one, two) = (b.page(), b.page());
    b.map_first(one, 0x1000, 0x800_0000, USER);
    b.map_first(two, 0x1000, 0x900_0000, USER);
    b.map_first(one, 0x2000, 0x800_1000, USER);
    b.map_first(two, 0x2000, 0x900_1000, USER);
    b.pasid(SID, 5, first_stage(one, 1));
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Ok(0x800_0000));
    b.pasid(SID, 5, first_stage(two, 1));
    // A page that was never requested is found through the cached entry.
    assert_eq!(b.goes_pasid(5, 0x2000, Access::Read), Ok(0x800_1000));
    assert!(b.submit_and_wait(&[pasid_entry(1, 5), pasid_all(1, 5)]));
    assert_eq!(b.goes_pasid(5, 0x2000, Access::Read), Ok(0x900_1000));
    let context = b.context_at(SID);
    b.ram.set(context, 0);
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Ok(0x900_0000));
    assert!(b.submit_and_wait(&[context_device(SID, 1)]));
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Err(0x41));
}

#[test]
fn what_is_cached_for_a_request_grants_nothing_that_another_is_refused() {
    let mut b = Bench::new();
    let table = b.page();
    b.map_first(table, 0x1000, 0x800_0000, USER | A | D);
    // RID_PASID is 0.
    for pasid in [0, 5] {
        b.pasid(SID, pasid, first_stage(table, 1));
    }
    let ask = |b: &mut Bench, pasid, privileged, execute| {
        outcome(b.ask(&Request {
            privileged,
            execute,
            ..request(pasid, 0x1000, Access::Read)
        }))
    };
    for _ in 0..2 {
        assert_eq!(ask(&mut b, None, false, false), Ok(0x800_0000));
        let refused = FaultReason::PasidIsRidPasid.code();
        assert_eq!(ask(&mut b, Some(0), false, false), Err(refused));
        assert_eq!(ask(&mut b, Some(5), false, false), Ok(0x800_0000));
        let refused = FaultReason::SupervisorRequestDisabled.code();
        assert_eq!(ask(&mut b, Some(5), true, false), Err(refused));
        let refused = FaultReason::ExecuteRequestDisabled.code();
        assert_eq!(ask(&mut b, Some(5), false, true), Err(refused));
    }
}

#[test]
fn what_is_not_present_is_not_cached() {
    let mut b = Bench::new();
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Err(0x39));
    let table = b.page();
    b.pasid(SID, 5, first_stage(table, 1));
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Err(0x71));
    let entry = b.map_first(table, 0x1000, 0x800_0000, P | US);
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Ok(0x800_0000));
    // Added permission needs no invalidation either: the unit looks it up again.
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Write), Err(0x85));
    b.ram.set(entry, b.ram.get(entry) | RW);
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Write), Ok(0x800_0000));
}

#[test]
fn legacy_mode_caches_and_invalidates_by_domain() {
    let mut b = Bench::legacy(|_| {});
    let table = b.page();
    let entry = b.map_second(table, 0x1000, 0x800_0000, R | W);
    b.legacy_context(SID, legacy_entry(0, table).with_did(DomainId(7)).0);
    assert_eq!(b.goes(0x1000, Access::Read), Ok(0x800_0000));
    b.ram.set(entry, 0x900_0000 | R | W);
    let at = b.legacy_context_at(SID);
    for (descriptor, now) in [
        (domain_pages(8, 0x1000, 0), 0x800_0000),
        (domain_pages(7, 0x2000, 0), 0x800_0000),
        (domain_pages(7, 0x1000, 0), 0x900_0000),
    ] {
        assert!(b.submit_and_wait(&[descriptor]));
        assert_eq!(b.goes(0x1000, Access::Read), Ok(now));
    }
    b.ram.set(at, 0);
    for (descriptor, now) in [
        (context_device(SID, 8), Ok(0x900_0000)),
        (context_device(OTHER, 7), Ok(0x900_0000)),
        (context_domain(8), Ok(0x900_0000)),
        (context_domain(7), Err(2)),
    ] {
        assert!(b.submit_and_wait(&[descriptor]));
        assert_eq!(b.goes(0x1000, Access::Read), now, "{descriptor:x?}");
    }
}

#[test]
fn registers_invalidate_in_legacy_mode_without_the_queue() {
    let mut b = Bench::legacy(|_| {});
    let table = b.page();
    let entry = b.map_second(table, 0x1000, 0x800_0000, R | W);
    b.legacy_context(SID, legacy_entry(0, table).with_did(DomainId(7)).0);
    assert_eq!(b.goes(0x1000, Access::Read), Ok(0x800_0000));
    b.ram.set(entry, 0x900_0000 | R | W);
    // With the queue enabled, it is an incorrect request.
    b.write(offset::IOTLB, 1 << 63 | 1 << 60);
    assert_eq!(b.read(offset::IOTLB), 1 << 60);
    assert_eq!(b.goes(0x1000, Access::Read), Ok(0x800_0000));
    b.uncommand(global::QIE);
    b.write(offset::IVA, 0x1000);
    b.write(offset::IOTLB, 1 << 63 | 3 << 60 | 7 << 32);
    assert_eq!(b.read(offset::IOTLB), 3 << 60 | 3 << 57 | 7 << 32);
    assert_eq!(b.goes(0x1000, Access::Read), Ok(0x900_0000));
    // An address mask beyond MAMV is refused.
    b.write(offset::IVA, 19);
    b.write(offset::IOTLB, 1 << 63 | 3 << 60 | 7 << 32);
    assert_eq!(b.read(offset::IOTLB) >> 57 & 3, 0);
    let at = b.legacy_context_at(SID);
    b.ram.set(at, 0);
    b.write(offset::CCMD, 1 << 63 | 3 << 61 | u64::from(SID.0) << 16 | 7);
    assert_eq!(b.read(offset::CCMD) >> 59, 0b01111);
    assert_eq!(b.goes(0x1000, Access::Read), Err(2));
    b.write(offset::CCMD, 1 << 63);
    assert_eq!(b.read(offset::CCMD) >> 59 & 3, 0);
}

#[test]
fn registers_do_not_invalidate_in_scalable_mode() {
    let mut b = Bench::new();
    b.uncommand(global::QIE);
    b.write(offset::CCMD, 1 << 63 | 1 << 61);
    assert_eq!(b.read(offset::CCMD) >> 59 & 0b10011, 0);
    b.write(offset::IOTLB, 1 << 63 | 1 << 60);
    assert_eq!(b.read(offset::IOTLB) >> 57 & 0b1000011, 0);
}

/// Checks that there is no cliff: the IOTLB answers for as many pages as it is designed for, in one
/// address space or in many.
#[test]
fn sixty_five_thousand_pages_and_four_thousand_pasids_stay_cached() {
    let mut b = Bench::new();
    let table = b.page();
    b.pasid(SID, 0, second_stage(table, 1));
    let pages = 65_536u64;
    for page in 0..pages {
        b.map_second(table, page << 12, page << 12, R | W);
    }
    for _ in 0..2 {
        for page in 0..pages {
            assert!(b.goes(page << 12, Access::Read).is_ok());
        }
    }
    let c = *b.unit.counters();
    assert!(c.iotlb_hits > pages * 99 / 100, "{c:?}");

    let mut b = Bench::new();
    let table = b.page();
    b.map_first(table, 0x1000, 0x800_0000, USER);
    for pasid in 1..=4096 {
        b.pasid(SID, pasid, first_stage(table, 1));
    }
    for _ in 0..2 {
        for pasid in 1..=4096 {
            assert!(b.goes_pasid(pasid, 0x1000, Access::Read).is_ok());
        }
    }
    let c = *b.unit.counters();
    assert!(c.iotlb_hits > 4090, "{c:?}");
}

/// Memory as three caches may see it: context tables, PASID tables and paging structures from
/// different times.
struct Mixed<'a> {
    context: &'a Ram,
    pasid: &'a Ram,
    paging: &'a Ram,
    /// Last page of the context tables, and of the PASID tables.
    ends: [u64; 2],
}

impl Memory for Mixed<'_> {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        let ram = if address < self.ends[0] {
            self.context
        } else if address < self.ends[1] {
            self.pasid
        } else {
            self.paging
        };
        ram.read(address, data)
    }

    fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryError> {
        Err(MemoryError { address })
    }

    fn compare_exchange(&self, address: u64, _: u64, _: u64) -> Result<u64, MemoryError> {
        Err(MemoryError { address })
    }
}

/// A step of software, or of a device.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Changes a leaf: table, page, and new value.
    Leaf(usize, u64, u8),
    /// Gives a PASID the other table, or none.
    Pasid(usize, u8),
    /// Gives the function the other PASID directory, or none.
    Context(u8),
    /// Submits a descriptor.
    Invalidate(u8, usize, u64),
    /// Accesses a page with a PASID.
    Access(usize, u64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0usize..6, 0u64..3, 0u8..4).prop_map(|(t, p, k)| Step::Leaf(t, p, k)),
        1 => (0usize..3, 0u8..5).prop_map(|(p, k)| Step::Pasid(p, k)),
        1 => (0u8..6).prop_map(Step::Context),
        2 => (0u8..10, 0usize..3, 0u64..3).prop_map(|(k, p, a)| Step::Invalidate(k, p, a)),
        5 => (0usize..3, 0u64..3, any::<bool>()).prop_map(|(p, a, w)| Step::Access(p, a, w)),
    ]
}

/// PASIDs of the property below, with their domains: first stage, second stage, nested. The second
/// one stands for requests without PASID.
const SPACES: [(u32, u16); 3] = [(5, 1), (0, 3), (7, 4)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// For random sequences of changes, descriptors and accesses, each answer is one that the
    /// tables gave at some time since the last invalidation that selected it. This holds for each
    /// cache separately.
    #[test]
    fn no_cache_answers_what_was_invalidated(steps in proptest::collection::vec(step(), 1..40)) {
        let mut b = Bench::new();
        // Context tables first, then PASID tables, then the rest, so that they can be
        // distinguished.
        let context = b.context_at(SID);
        let pasids_from = b.page();
        let directories = [pasids_from, b.page()];
        let tables = [b.page(), b.page()];
        let paging_from = b.page();
        for (directory, table) in directories.into_iter().zip(tables) {
            b.ram.set(directory, table | 1);
        }
        b.ram.set(context, directories[0] | 0x21d);
        let identity = b.page();
        for page in (0x10_0000..0x18_0000u64).step_by(0x1000) {
            b.map_second(identity, page, page, R | W);
        }
        b.map(identity, 4, 3, 0, R | W | PS | 0x4000_0000, R | W);
        let second = b.page();
        for page in (0x10_0000..0x18_0000u64).step_by(0x1000) {
            b.map_second(second, page, page, R | W);
        }
        for page in 0..128u64 {
            b.map_second(second, 0x800_0000 + (page << 12), 0x900_0000 + (page << 12), R | W);
        }
        // Two tables for each address space.
        let roots: [u64; 6] = std::array::from_fn(|_| b.page());
        let mut leaves = [[0; 3]; 6];
        for (n, root) in roots.into_iter().enumerate() {
            let (flags, above) = if n / 2 == 1 { (R | W, R | W) } else { (USER | A | D, USER | A) };
            for page in 0..3 {
                let to = 0x800_0000 + (n as u64 * 3 + page) * 0x1000;
                leaves[n][page as usize] = b.map(root, 4, 1, page << 12, to | flags, above);
            }
        }
        let entry = |space: usize, which: usize| {
            let root = roots[space * 2 + which];
            match space {
                0 => first_stage(root, 1),
                1 => second_stage(root, 3),
                _ => nested(root, second, 4),
            }
        };
        for table in tables {
            for (space, (pasid, _)) in SPACES.into_iter().enumerate() {
                // The directories begin with different tables.
                let which = usize::from(table == tables[1]);
                b.store(table + u64::from(pasid) * 64, &entry(space, which));
            }
        }
        let facts = Facts {
            cap: b.unit.capabilities().cap().0,
            ecap: b.unit.capabilities().ecap().0,
            haw: HAW.into(),
            rtaddr: ROOT | 1 << 10,
        };

        // Memory after each change, and the oldest of these states from which each cache may
        // answer.
        let mut history = vec![b.ram.clone()];
        let mut since_context = 0;
        let mut since_pasid = [0; 3];
        let mut since_iotlb = [[0; 3]; 3];
        let mut target = 20u64;
        for step in steps {
            let now = history.len() - 1;
            match step {
                Step::Leaf(table, page, kind) => {
                    target = (target + 1) % 128;
                    let second = table / 2 == 1;
                    let value = match (kind, second) {
                        (0, _) => 0,
                        (1, false) => P | US | A | D,
                        (1, true) => R,
                        (_, false) => USER | A | D,
                        (_, true) => R | W,
                    };
                    let to = if value == 0 { 0 } else { 0x800_0000 + (target << 12) };
                    b.ram.set(leaves[table][page as usize], to | value);
                    history.push(b.ram.clone());
                }
                Step::Pasid(space, kind) => {
                    let words = match kind {
                        0 => [0; 8],
                        k => entry(space, usize::from(k % 2)),
                    };
                    for table in tables {
                        b.store(table + u64::from(SPACES[space].0) * 64, &words);
                    }
                    history.push(b.ram.clone());
                }
                Step::Context(kind) => {
                    let value = match kind {
                        0 => 0,
                        k => directories[usize::from(k % 2)] | 0x21d,
                    };
                    b.ram.set(context, value);
                    history.push(b.ram.clone());
                }
                Step::Invalidate(kind, space, page) => {
                    let (pasid, domain) = SPACES[space];
                    let all = |since: &mut [[usize; 3]; 3], space: usize| since[space] = [now; 3];
                    let descriptor = match kind {
                        0 => {
                            since_context = now;
                            CONTEXT_GLOBAL
                        }
                        1 => {
                            since_context = now;
                            context_device(SID, domain)
                        }
                        2 => {
                            since_pasid = [now; 3];
                            PASID_GLOBAL
                        }
                        3 => {
                            since_pasid[space] = now;
                            pasid_domain(domain)
                        }
                        4 => {
                            since_pasid[space] = now;
                            pasid_entry(domain, pasid)
                        }
                        5 => {
                            since_iotlb = [[now; 3]; 3];
                            IOTLB_GLOBAL
                        }
                        6 => {
                            all(&mut since_iotlb, space);
                            domain_all(domain)
                        }
                        7 => {
                            if space == 1 {
                                since_iotlb[space][page as usize] = now;
                            } else {
                                all(&mut since_iotlb, space);
                            }
                            domain_pages(domain, page << 12, 0)
                        }
                        8 => {
                            all(&mut since_iotlb, space);
                            pasid_all(domain, pasid)
                        }
                        _ => {
                            // This one does not select second-stage entries.
                            if space != 1 {
                                since_iotlb[space][page as usize] = now;
                            }
                            pasid_pages(domain, pasid, page << 12, 0)
                        }
                    };
                    prop_assert!(b.submit_and_wait(&[descriptor]));
                }
                Step::Access(space, page, write) => {
                    let (pasid, _) = SPACES[space];
                    let pasid = (pasid != 0).then_some(pasid);
                    let access = if write { Access::Write } else { Access::Read };
                    let got = outcome(b.ask(&request(pasid, page << 12, access)));
                    b.codes();
                    let ask = Ask {
                        sid: SID.0,
                        pasid,
                        address: page << 12,
                        kind: if write { Kind::Write } else { Kind::Read },
                        execute: false,
                        privileged: false,
                    };
                    let may = (since_context..=now).any(|context| {
                        (since_pasid[space]..=now).any(|pasid| {
                            (since_iotlb[space][page as usize]..=now).any(|paging| {
                                let mixed = Mixed {
                                    context: &history[context],
                                    pasid: &history[pasid],
                                    paging: &history[paging],
                                    ends: [pasids_from, paging_from],
                                };
                                let expected = read(&mixed, &facts, &ask);
                                expected.map(|g| g.address).map_err(|f| f.code) == got
                            })
                        })
                    });
                    prop_assert!(may, "{:x?} to {:x?} was never so since {} {:?} {:?}",
                        got, step, since_context, since_pasid, since_iotlb);
                }
            }
        }
    }
}

/// The context entry now points to another directory. A device-selective invalidation of the
/// context cache alone makes the new entry take effect, and nothing from the old one is used.
#[test]
fn a_new_context_entry_brings_its_own_pasid_tables() {
    let mut b = Bench::new();
    let (old, new) = (b.page(), b.page());
    b.map_first(old, 0x1000, 0x800_0000, USER);
    b.map_first(new, 0x1000, 0x900_0000, USER);
    b.pasid(SID, 5, first_stage(old, 1));
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Ok(0x800_0000));
    let at = b.context_at(SID);
    let low = b.ram.get(at);
    b.ram.set(at, 0);
    b.context(SID);
    b.ram.set(at, b.ram.get(at) & !0xfff | low & 0xfff);
    b.pasid(SID, 5, first_stage(new, 1));
    b.submit(&[context_device(SID, 0)]);
    assert_eq!(b.goes_pasid(5, 0x1000, Access::Read), Ok(0x900_0000));
}

/// A second stage that permits only to write.
#[test]
fn a_page_that_may_only_be_written_grants_no_read() {
    let mut b = Bench::new();
    let table = b.page();
    b.map_second(table, 0x1000, 0x800_0000, W);
    b.pasid(SID, 0, second_stage(table, 1));
    let ask = |b: &mut Bench, no_write| {
        let request = pcie_ats::TranslationRequest {
            address: 0x1000,
            pages: 1,
            pasid: None,
            privileged: false,
            execute: false,
            no_write,
        };
        let mut found = [pcie_ats::Translation::from_word(0)];
        let got = b
            .unit
            .translation_request(&b.ram, SID, &request, &mut found, &mut b.fx);
        assert_eq!(got, Ok(1));
        (found[0].read, found[0].write)
    };
    for _ in 0..2 {
        assert_eq!(ask(&mut b, false), (false, true));
        assert_eq!(ask(&mut b, true), (false, false));
        assert_eq!(b.codes(), []);
        assert!(b.goes(0x1000, Access::Write).is_ok());
        assert_eq!(b.goes(0x1000, Access::Read), Err(0x86));
        assert_eq!(b.codes(), [0x86]);
    }
}
