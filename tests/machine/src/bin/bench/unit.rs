// SPDX-License-Identifier: MIT OR Apache-2.0
//! The remapping unit: translation and invalidation, against doing the same by hand.

use crate::measure::{Effort, Times, numbers, time, times};
use crate::report::{Entry, Goal, Report};
use anyhow::Result;
use machine::os::{
    IOTLB_GLOBAL, Layout, Mode, Nesting, Os, Process, Words, iotlb_pasid, iotlb_pasid_pages,
};
use machine::{Machine, MachineConfig, Ram};
use pcie_ats::{AlignedRange, Pasid};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vtd::{Access, Request};

pub const QUERIES: usize = 1 << 14;
/// Where processes have their pages.
const BASE: u64 = 0x7f12_3400_0000;

/// How fast translations of a working set of a size may at least be, compared with the next
/// smaller one. What makes them slower is the host's caches; a cache of the unit that is emptied
/// or that fills up costs a factor of ten and more.
const NO_CLIFF: f64 = 0.4;
/// And compared with the smallest one.
const IN_ALL: f64 = 0.6;

/// A machine of one unit and an endpoint.
pub fn boot(change: impl FnOnce(&mut MachineConfig)) -> Result<Os> {
    let mut config = MachineConfig {
        memory: 512 << 20,
        ..MachineConfig::default()
    };
    change(&mut config);
    Ok(Os::boot(&Machine::new(&config)?, Mode::Scalable))
}

/// A process that the function is bound to, with a number of pages, all of one frame.
pub fn process(os: &Os, layout: Layout, pages: u64) -> Process {
    let process = os.process_with(layout);
    process.bind(0);
    let frame = os.frames().allocate();
    for page in 0..pages {
        process.map_frame(BASE + page * 4096, 12, frame);
    }
    process
}

/// Reads of pages of processes, in no order.
pub fn queries(machine: &Machine, processes: &[Process], pages: u64) -> Vec<Request> {
    numbers(0xabc)
        .take(QUERIES)
        .map(|n| Request {
            requester: machine.requester(0),
            pasid: Some(processes[(n >> 32) as usize % processes.len()].pasid()),
            address: BASE + n % pages * 4096 + (n >> 20 & 0xff8),
            access: Access::Read,
            execute: false,
            privileged: false,
        })
        .collect()
}

/// Translates all.
pub fn translate(machine: &Machine, queries: &[Request]) {
    machine.with_unit(0, |unit, ram, fx| {
        for request in queries {
            let translated = unit.translate(ram, request, fx);
            debug_assert!(translated.is_ok());
            let _ = black_box(translated);
        }
    });
}

fn counters(machine: &Machine) -> vtd::Counters {
    machine.with_unit(0, |unit, _, _| *unit.counters())
}

/// Makes the unit know every page.
pub fn warm(machine: &Machine, processes: &[Process], pages: u64) {
    let one = queries(machine, processes, pages)[0];
    let all: Vec<Request> = processes
        .iter()
        .flat_map(|process| {
            (0..pages).map(|page| Request {
                pasid: Some(process.pasid()),
                address: BASE + page * 4096,
                ..one
            })
        })
        .collect();
    translate(machine, &all);
}

pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    hit(effort, report)?;
    misses(effort, report)?;
    working_sets(effort, report)?;
    pasids(effort, report)?;
    invalidations(effort, report)
}

/// Translations a second.
fn rate(name: &str, ours: Times, theirs: Times, against: &'static str, goal: Goal) -> Entry {
    Entry::rate(name, "translations/s", [ours, theirs], against, goal)
}

/// A hash table of pages, and the look-ups that are compared with the unit's.
struct Table(HashMap<(Option<Pasid>, u64), u64>);

impl Table {
    fn new(queries: &[Request]) -> Self {
        let pages = queries
            .iter()
            .map(|q| ((q.pasid, q.address >> 12), q.address));
        Table(pages.collect())
    }

    fn time(&self, queries: &[Request]) -> Duration {
        time(|| {
            for q in queries {
                black_box(self.0.get(&(q.pasid, q.address >> 12)));
            }
        })
    }
}

const AGAINST_TABLE: &str = "one probe of a HashMap";

fn hit(effort: Effort, report: &mut Report) -> Result<()> {
    if !report.wants("translation_iotlb_hit") {
        return Ok(());
    }
    let os = boot(|_| {})?;
    let machine = os.machine();
    let processes = [process(&os, Layout::default(), 512)];
    let queries = queries(machine, &processes, 512);
    let table = Table::new(&queries);
    warm(machine, &processes, 512);
    let [ours, theirs] = times(
        effort,
        QUERIES,
        [&mut || time(|| translate(machine, &queries)), &mut || {
            table.time(&queries)
        }],
    );
    let name = "translation_iotlb_hit";
    report.add(rate(name, ours, theirs, AGAINST_TABLE, Goal::None));
    Ok(())
}

/// The plainest walk there is: no checks, no flags, no permissions.
fn walk(ram: &Ram, root: u64, address: u64, host: impl Fn(u64) -> u64) -> u64 {
    let mut table = root;
    for level in (1..=4).rev() {
        let at = host(table) + (address >> (3 + 9 * level) & 511) * 8;
        table = ram.load(at).unwrap_or_default() & 0x000f_ffff_ffff_f000;
    }
    host(table) + (address & 0xfff)
}

fn misses(effort: Effort, report: &mut Report) -> Result<()> {
    let nested = Layout {
        five_levels: false,
        nested: Some(Nesting::Small),
    };
    for (name, layout) in [
        ("translation_miss_4_levels", Layout::default()),
        ("translation_miss_nested", nested),
    ] {
        if !report.wants(name) {
            continue;
        }
        // So small an IOTLB that pages in no order are hardly ever there.
        let os = boot(|config| config.units[0].caches.iotlb = 8)?;
        let machine = os.machine();
        let processes = [process(&os, layout, 4096)];
        let queries = queries(machine, &processes, 4096);
        let before = counters(machine);
        translate(machine, &queries);
        let walks = counters(machine).page_walks - before.page_walks;
        assert!(walks as usize > QUERIES * 98 / 100, "{walks} walks only");
        let ram = machine.ram();
        let first = processes[0].first_stage().pointer();
        let second = processes[0].second_stage().map(|stage| stage.root);
        let [ours, theirs] = times(
            effort,
            QUERIES,
            [&mut || time(|| translate(machine, &queries)), &mut || {
                time(|| {
                    for q in &queries {
                        black_box(match second {
                            None => walk(ram, first, q.address, |address| address),
                            Some(second) => walk(ram, first, q.address, |address| {
                                walk(ram, second, address, |address| address)
                            }),
                        });
                    }
                })
            }],
        );
        let against = "a walk by hand, without any check";
        report.add(rate(name, ours, theirs, against, Goal::None));
    }
    Ok(())
}

fn working_sets(effort: Effort, report: &mut Report) -> Result<()> {
    const SIZES: [u64; 6] = [64, 256, 1024, 4096, 16384, 65536];
    let grown = Grown {
        name: |pages| format!("translation_{pages}_pages"),
        numbers: SIZES,
        next: "the next smaller number of cached pages",
        all: "64 cached pages",
    };
    let share = "iotlb_hit_share_65536_pages";
    if !grown.wanted(report) && !report.wants(share) {
        return Ok(());
    }
    let os = boot(|_| {})?;
    let machine = os.machine();
    let processes = [process(&os, Layout::default(), SIZES[5])];
    let sets = SIZES.map(|pages| queries(machine, &processes, pages));
    warm(machine, &processes, SIZES[5]);
    let before = counters(machine);
    grown.measure(effort, report, machine, &sets);
    let after = counters(machine);
    let hits = (after.iotlb_hits - before.iotlb_hits) as f64;
    let walks = (after.page_walks - before.page_walks) as f64;
    report.add(Entry {
        name: share.into(),
        value: hits / (hits + walks),
        unit: "share",
        baseline: 1.0,
        against: "no miss at all",
        goal: Goal::RatioAtLeast(0.99),
        times: None,
    });
    Ok(())
}

fn pasids(effort: Effort, report: &mut Report) -> Result<()> {
    const COUNTS: [u64; 5] = [1, 8, 64, 512, 4096];
    const PAGES: u64 = 16;
    let grown = Grown {
        name: |count| format!("translation_{count}_pasids"),
        numbers: COUNTS,
        next: "the next smaller number of PASIDs",
        all: "one PASID",
    };
    if !grown.wanted(report) {
        return Ok(());
    }
    let os = boot(|_| {})?;
    let machine = os.machine();
    let processes: Vec<Process> = (0..COUNTS[4])
        .map(|_| process(&os, Layout::default(), PAGES))
        .collect();
    let sets = COUNTS.map(|count| queries(machine, &processes[..count as usize], PAGES));
    warm(machine, &processes, PAGES);
    grown.measure(effort, report, machine, &sets);
    Ok(())
}

/// Translations as something grows: each number is compared with the next smaller one, where a
/// cliff would be, and the largest with the smallest, where all that is lost adds up.
struct Grown<const N: usize> {
    name: fn(u64) -> String,
    numbers: [u64; N],
    next: &'static str,
    all: &'static str,
}

impl<const N: usize> Grown<N> {
    fn whole(&self) -> String {
        let [smallest, largest] = [self.numbers[0], self.numbers[N - 1]];
        format!("{}_against_{smallest}", (self.name)(largest))
    }

    fn wanted(&self, report: &Report) -> bool {
        report.wants(&self.whole()) || self.numbers.iter().any(|n| report.wants(&(self.name)(*n)))
    }

    /// Measures translations of queries for each number, all in turns.
    fn measure(
        &self,
        effort: Effort,
        report: &mut Report,
        machine: &Machine,
        sets: &[Vec<Request>; N],
    ) {
        let table = Table::new(&sets[0]);
        let [by_hand] = times(effort, QUERIES, [&mut || table.time(&sets[0])]);
        let mut work = sets
            .each_ref()
            .map(|queries| move || time(|| translate(machine, queries)));
        let rates = times(
            effort,
            QUERIES,
            work.each_mut()
                .map(|work| work as &mut dyn FnMut() -> Duration),
        );
        for (n, number) in self.numbers.into_iter().enumerate() {
            let (smaller, against, goal) = match n {
                0 => (by_hand, AGAINST_TABLE, Goal::None),
                _ => (rates[n - 1], self.next, Goal::RatioAtLeast(NO_CLIFF)),
            };
            report.add(rate(&(self.name)(number), rates[n], smaller, against, goal));
        }
        let goal = Goal::RatioAtLeast(IN_ALL);
        report.add(rate(&self.whole(), rates[N - 1], rates[0], self.all, goal));
    }
}

/// The largest of the processor's caches is smaller, in words of 64 bits.
const BEYOND_CACHES: usize = 8 << 20;

/// An invalidation has to take away what it selects, however much is cached. The smallest number of
/// pages is compared with what a structure can at best cost, the others with the smallest.
///
/// To have many pages cached, the unit has to translate them, which pushes its other data out of
/// the processor's caches. So there are rows, too, before which these caches are emptied each time:
/// what still grows there is work of the unit.
fn invalidations(effort: Effort, report: &mut Report) -> Result<()> {
    const SIZES: [u64; 4] = [64, 1024, 16384, 65536];
    const ENDS: [u64; 2] = [SIZES[0], SIZES[3]];
    for kind in ["page", "pasid", "global"] {
        invalidations_of(effort, report, kind, &SIZES, false)?;
        invalidations_of(effort, report, kind, &ENDS, true)?;
    }
    Ok(())
}

/// Invalidations of a kind at several numbers of cached pages, with the processor's caches emptied
/// before each if `cold`.
fn invalidations_of(
    effort: Effort,
    report: &mut Report,
    kind: &str,
    sizes: &[u64],
    cold: bool,
) -> Result<()> {
    const BATCH: usize = 64;
    let suffix = if cold { "_cold" } else { "" };
    let others = vec![1u64; if cold { BEYOND_CACHES } else { 0 }];
    let mut fewest: Option<Times> = None;
    for &pages in sizes {
        let name = format!("invalidation_{kind}_{pages}_cached{suffix}");
        if !report.wants(&name) {
            continue;
        }
        let os = boot(|_| {})?;
        let machine = os.machine();
        // The neighbour's translations stay, or go with the others.
        let processes = [(); 2].map(|()| process(&os, Layout::default(), pages / 2));
        let (did, pasid) = (processes[0].domain(), processes[0].pasid());
        let page = |n: u64| {
            let page = AlignedRange::page(BASE + n % (pages / 2) * 4096);
            iotlb_pasid_pages(did, pasid, page)
        };
        let descriptors: Vec<Words> = match kind {
            "page" => (0..BATCH as u64).map(|n| page(n * 37)).collect(),
            "pasid" => vec![iotlb_pasid(did, pasid)],
            _ => vec![IOTLB_GLOBAL],
        };
        let prepare = || {
            warm(machine, &processes, pages / 2);
            black_box(others.iter().step_by(8).sum::<u64>());
        };
        let queue = os.queue(0);
        let mut invalidate = || {
            prepare();
            time(|| {
                for words in &descriptors {
                    black_box(queue.try_submit_only(&[*words]));
                }
            })
        };
        let (measured, against, goal) = if let Some(fewest) = fewest {
            let [cost] = times(effort, descriptors.len(), [&mut invalidate]);
            let against = "the same with the fewest pages cached";
            ([cost, fewest], against, Goal::RatioAtMost(2.0))
        } else {
            let generation = AtomicU64::new(0);
            let mut store = || {
                prepare();
                time(|| {
                    for n in 0..descriptors.len() as u64 {
                        generation.store(n, Ordering::SeqCst);
                    }
                })
            };
            let measured = times(effort, descriptors.len(), [&mut invalidate, &mut store]);
            (measured, "one store, seen by all", Goal::None)
        };
        fewest.get_or_insert(measured[0]);
        report.add(Entry::nanoseconds(name, measured, against, goal));
    }
    Ok(())
}
