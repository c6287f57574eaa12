// SPDX-License-Identifier: MIT OR Apache-2.0
//! The endpoint's address translation cache, against hash tables.

use crate::chained::Chained;
use crate::measure::{Effort, Times, numbers, time, times};
use crate::report::{Entry, Goal, Report};
use pcie_ats::{AlignedRange, Pasid};
use std::collections::HashMap;
use std::hint::black_box;
use svm_endpoint::translation_cache::{Access, Atc, Cached, Scope, Space};

const ENTRIES: u32 = 1024;
const WAYS: u32 = 4;
const LOOKUPS: usize = 1 << 15;
/// Addresses in a range one after the other, as a device goes through a page: 16 of 256 bytes.
const RUN: usize = 16;
const SHIFTS: [u8; 3] = [12, 21, 30];
const SPACES: u64 = 8;

/// The published demonstrations' way to cache translations, written anew for this comparison.
const PEER: &str = "a chained hash table for each size, two allocations an entry, scans";

/// Translations of three sizes in several address spaces; as many as the cache has room for.
fn translations() -> Vec<(Space, Cached)> {
    let mut next = numbers(0x5eed);
    let mut draw = move || next.next().unwrap_or_default();
    (0..ENTRIES as usize)
        .map(|n| {
            let shift = SHIFTS[n % 3];
            let pasid = Pasid::new((draw() % SPACES) as u32 + 1).ok();
            let address = draw() & ((1 << 46) - 1);
            let output = (draw() & ((1 << 45) - 1)) >> shift << shift;
            let range = AlignedRange::containing(address, shift).unwrap_or(AlignedRange::ALL);
            let cached = Cached {
                range,
                output,
                read: true,
                write: true,
                untranslated_only: false,
            };
            (Space::new(pasid, false), cached)
        })
        .collect()
}

/// The cache that one would write first: a table, and a probe for each size.
type Table = HashMap<(Space, u8, u64), u64>;

fn probe(table: &Table, space: Space, address: u64) -> Option<u64> {
    SHIFTS.iter().find_map(|shift| {
        let output = table.get(&(space, *shift, address >> shift))?;
        Some(output | address & ((1 << shift) - 1))
    })
}

pub fn run(effort: Effort, report: &mut Report) {
    if !report.wants_any(&[
        "atc_lookup_hit_speedup_in_runs",
        "atc_lookup_hit_in_runs",
        "atc_lookup_hit_peer_in_runs",
        "atc_insert",
        "atc_insert_peer",
        "atc_insert_and_invalidate_peer",
    ]) {
        return;
    }
    let all = translations();
    let mut atc = Atc::new(ENTRIES, WAYS);
    for (space, cached) in &all {
        atc.insert_over(*space, cached, u64::MAX);
    }
    // Sets overflow before all are full; what was driven out is put in no table.
    let present: Vec<_> = all
        .iter()
        .filter(|(space, cached)| {
            let hit = atc.lookup(*space, cached.range.base(), Access::Read);
            hit.is_some_and(|hit| hit.output == cached.output)
        })
        .collect();
    let table: Table = present
        .iter()
        .map(|(space, cached)| {
            let shift = cached.range.shift();
            let key = (*space, shift, cached.range.base() >> shift);
            (key, cached.output)
        })
        .collect();
    for (suffix, run) in [("", 1), ("_in_runs", RUN)] {
        let [ours, direct, probes, chains] = lookups(effort, &mut atc, &table, &present, run);
        report.add(Entry::nanoseconds(
            format!("atc_lookup_hit{suffix}"),
            [ours, direct],
            "a table that is indexed directly, of which the size of the page is known",
            Goal::RatioAtMost(1.6),
        ));
        report.add(Entry::nanoseconds(
            format!("atc_lookup_hit_speedup{suffix}"),
            [ours, probes],
            "three probes of a HashMap",
            Goal::SpeedupAtLeast(4.0),
        ));
        report.add(Entry::nanoseconds(
            format!("atc_lookup_hit_peer{suffix}"),
            [ours, chains],
            PEER,
            Goal::None,
        ));
    }
    insert(effort, report, &all);
    invalidate(effort, report, &all);
}

/// Looks up addresses in the ranges of entries that are drawn one by one, `run` addresses in each:
/// 1 is the worst there is, because nothing foretells which size an address has.
fn lookups(
    effort: Effort,
    atc: &mut Atc,
    table: &Table,
    present: &[&(Space, Cached)],
    run: usize,
) -> [Times; 4] {
    let mut entry = 0;
    let mut entries = Vec::with_capacity(LOOKUPS);
    let queries: Vec<(Space, u64)> = numbers(0xfeed)
        .take(LOOKUPS)
        .enumerate()
        .map(|(at, n)| {
            if at % run == 0 {
                entry = n as usize % present.len();
            }
            entries.push(entry);
            let (space, cached) = present[entry];
            let offset = (n >> 12) & (cached.range.last() - cached.range.base());
            (*space, cached.range.base() + offset)
        })
        .collect();
    let mut chained = Chained::new(ENTRIES as usize);
    for (space, cached) in present {
        chained.insert(*space, cached);
    }
    for (space, address) in &queries {
        let hit = atc.lookup(*space, *address, Access::Read);
        let hit = hit.map(|hit| hit.output);
        assert!(
            hit == probe(table, *space, *address) && hit == chained.lookup(*space, *address),
            "the caches disagree about {address:#x}"
        );
    }
    let direct: Vec<Direct> = present
        .iter()
        .map(|(_, cached)| Direct::new(cached))
        .collect();
    times(
        effort,
        LOOKUPS,
        [
            &mut || {
                time(|| {
                    let hits = queries
                        .iter()
                        .filter_map(|(space, address)| atc.lookup(*space, *address, Access::Read));
                    black_box(hits.fold(0, |sum: u64, hit| sum.wrapping_add(hit.output)));
                })
            },
            &mut || {
                time(|| {
                    let hits = queries
                        .iter()
                        .zip(&entries)
                        .filter_map(|((_, address), entry)| direct[*entry].translate(*address));
                    black_box(hits.fold(0, |sum: u64, output| sum.wrapping_add(output)));
                })
            },
            &mut || {
                time(|| {
                    let hits = queries
                        .iter()
                        .filter_map(|(space, address)| probe(table, *space, *address));
                    black_box(hits.fold(0, |sum: u64, output| sum.wrapping_add(output)));
                })
            },
            &mut || {
                time(|| {
                    let hits = queries
                        .iter()
                        .filter_map(|(space, address)| chained.lookup(*space, *address));
                    black_box(hits.fold(0, |sum: u64, output| sum.wrapping_add(output)));
                })
            },
        ],
    )
}

/// What remains of a look-up if nothing has to be searched: the entry is read at a known place, its
/// range compared, and the address put together.
struct Direct {
    base: u64,
    mask: u64,
    output: u64,
}

impl Direct {
    fn new(cached: &Cached) -> Self {
        Direct {
            base: cached.range.base(),
            mask: cached.range.last() - cached.range.base(),
            output: cached.output,
        }
    }

    fn translate(&self, address: u64) -> Option<u64> {
        (address & !self.mask == self.base).then_some(self.output | address & self.mask)
    }
}

/// Insertion into a full cache, which has to make room; the table forgets the oldest.
fn insert(effort: Effort, report: &mut Report, all: &[(Space, Cached)]) {
    let fresh: Vec<(Space, Cached)> = numbers(0xbeef)
        .take(LOOKUPS)
        .map(|n| {
            let (space, cached) = all[n as usize % all.len()];
            let shift = cached.range.shift();
            let address = (n >> 4) & ((1 << 46) - 1);
            let range = AlignedRange::containing(address, shift).unwrap_or(AlignedRange::ALL);
            (space, Cached { range, ..cached })
        })
        .collect();
    let mut atc = Atc::new(ENTRIES, WAYS);
    let mut table = Table::new();
    let mut order = std::collections::VecDeque::new();
    let mut chained = Chained::new(ENTRIES as usize);
    let [ours, table_times, chains] = times(
        effort,
        LOOKUPS,
        [
            &mut || {
                time(|| {
                    for (space, cached) in &fresh {
                        black_box(atc.insert_over(*space, cached, u64::MAX));
                    }
                })
            },
            &mut || {
                time(|| {
                    for (space, cached) in &fresh {
                        let shift = cached.range.shift();
                        let key = (*space, shift, cached.range.base() >> shift);
                        if order.len() == ENTRIES as usize {
                            if let Some(oldest) = order.pop_front() {
                                table.remove(&oldest);
                            }
                        }
                        table.insert(key, cached.output);
                        order.push_back(key);
                    }
                })
            },
            &mut || {
                time(|| {
                    for (space, cached) in &fresh {
                        chained.insert(*space, cached);
                    }
                })
            },
        ],
    );
    report.add(Entry::nanoseconds(
        "atc_insert",
        [ours, table_times],
        "a HashMap that forgets the oldest",
        Goal::None,
    ));
    report.add(Entry::nanoseconds(
        "atc_insert_peer",
        [ours, chains],
        PEER,
        Goal::None,
    ));
}

/// A translation comes into the full cache, and its page is invalidated: what a system does that
/// maps, uses and unmaps page after page.
fn invalidate(effort: Effort, report: &mut Report, all: &[(Space, Cached)]) {
    /// Fewer than of the others: the peer goes through everything each time.
    const PAGES: usize = 256;
    let mut atc = Atc::new(ENTRIES, WAYS);
    let mut chained = Chained::new(ENTRIES as usize);
    for (space, cached) in all {
        atc.insert_over(*space, cached, u64::MAX);
        chained.insert(*space, cached);
    }
    let pages: Vec<(Pasid, Cached)> = numbers(0xace)
        .take(PAGES)
        .filter_map(|n| {
            let range = AlignedRange::containing(n & ((1 << 46) - 1), 12).ok()?;
            let pasid = Pasid::new((n % SPACES) as u32 + 1).ok()?;
            let (_, cached) = all[0];
            Some((pasid, Cached { range, ..cached }))
        })
        .collect();
    let measured = times(
        effort,
        PAGES,
        [
            &mut || {
                time(|| {
                    for (pasid, cached) in &pages {
                        atc.insert_over(Space::new(Some(*pasid), false), cached, u64::MAX);
                        black_box(atc.invalidate(Scope::One(Some(*pasid)), cached.range));
                    }
                })
            },
            &mut || {
                time(|| {
                    for (pasid, cached) in &pages {
                        let space = Space::new(Some(*pasid), false);
                        chained.insert(space, cached);
                        chained.invalidate(space, cached.range);
                    }
                })
            },
        ],
    );
    report.add(Entry::nanoseconds(
        "atc_insert_and_invalidate_peer",
        measured,
        PEER,
        Goal::None,
    ));
}
