// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endpoint and unit together, as a program sees them: copies and page requests.

use crate::measure::{Effort, numbers, time, times};
use crate::report::{Entry, Goal, Report};
use machine::os::{App, Driver, FRAME, Mode, Os, copy, fill};
use machine::{Machine, MachineConfig};
use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;
use svm_abi::descriptor::Descriptor;

const SOURCE: u64 = 0x10_0000_0000;
const DESTINATION: u64 = 0x20_0000_0000;
/// The bytes that each measurement copies.
const AT_ONCE: u64 = 16 << 20;
/// Descriptors that a doorbell rings for.
const AT_A_TIME: usize = 64;
/// The size of the buffers, which together are larger than any cache. They have room for an odd
/// number of measurements: measurements that take turns come by all places.
const BUFFER: u64 = 7 * AT_ONCE;
/// Log2 of the memory that is set aside for each.
const BUFFER_SHIFT: u8 = 27;

pub fn run(effort: Effort, report: &mut Report) {
    copies(effort, report);
    page_requests(effort, report);
}

/// A process on a machine with room for two large buffers and for many descriptors, whose device
/// has a cache for their pages, if these follow each other in memory.
fn app() -> App {
    let mut config = MachineConfig {
        memory: 512 << 20,
        ..MachineConfig::default()
    };
    for function in &mut config.functions {
        function.endpoint.atc_entries = 4096;
    }
    let machine = match Machine::new(&config) {
        Ok(machine) => machine,
        Err(error) => panic!("{error}"),
    };
    let os = Os::boot(&machine, Mode::Scalable);
    App::start_with(&Driver::probe(&os, 0), os.process(), 0, 9)
}

/// Steps until there is nothing to do, where the operating system has nothing to do either.
fn step_until_idle(app: &App) {
    let idle = app.machine().run_until_idle(usize::MAX);
    assert!(idle.is_ok(), "{idle:?}");
}

/// Has descriptors performed, and returns how long the device took from the doorbell on.
fn perform(app: &App, descriptors: &[Descriptor], finish: impl Fn(&App)) -> Duration {
    let mut took = Duration::ZERO;
    for part in descriptors.chunks(AT_A_TIME) {
        let tickets = app.stage(part);
        took += time(|| {
            app.ring();
            finish(app);
        });
        for ticket in tickets {
            let done = app.completion(ticket);
            assert_eq!(done.map(|done| done.error), Some(0));
        }
    }
    took
}

/// How well the caches know what is copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The device's cache has the translations; the data are in no cache of the processor, as those
    /// that come to be copied once.
    Translated,
    /// The device has to ask for every translation as well.
    Nothing,
    /// The same data again and again, where memcpy is at its very best.
    InCache,
}

impl Known {
    const ALL: [Known; 3] = [Known::Translated, Known::Nothing, Known::InCache];

    const fn suffix(self) -> &'static str {
        match self {
            Known::Translated => "",
            Known::Nothing => "_first_touch",
            Known::InCache => "_in_cache",
        }
    }

    /// Makes it so, before a measurement.
    fn prepare(self, app: &App) {
        if self == Known::Nothing {
            for base in [SOURCE, DESTINATION] {
                let invalidated = app.process().invalidate(base, BUFFER);
                assert_eq!(invalidated, Ok(()));
            }
        }
    }

    /// For pages whose frames follow each other.
    const fn goal(self, length: u64) -> Goal {
        Goal::RatioAtLeast(match self {
            Known::Nothing if length <= 64 << 10 => 0.85,
            Known::Translated | Known::Nothing | Known::InCache => 0.9,
        })
    }

    /// For pages whose frames lie about.
    const fn scattered_goal(self) -> Goal {
        Goal::RatioAtLeast(match self {
            Known::Nothing => 0.75,
            Known::Translated | Known::InCache => 0.85,
        })
    }
}

/// Copies of several sizes. They are compared with what the memory of the machine does at the time,
/// which differs from moment to moment: more rounds find its best.
fn copies(effort: Effort, report: &mut Report) {
    let effort = Effort {
        rounds: effort.rounds * 8,
    };
    for known in Known::ALL {
        for (pages, shift) in [("4k", 12), ("2m", 21)] {
            for length in [64u64 << 10, 256 << 10, 1 << 20, 16 << 20] {
                if known == Known::InCache && length > 1 << 20 {
                    continue;
                }
                let name = format!("copy_{}_kib_{pages}_pages{}", length >> 10, known.suffix());
                if report.wants(&name) {
                    copies_of(effort, report, name, shift, length, known);
                }
                if shift == 12 {
                    scattered_copies(effort, report, length, known);
                }
            }
        }
    }
}

/// Copies between pages of 4 KiB whose frames lie about in memory. What a processor could do with
/// them is a memcpy for each page; what that is to one memcpy of as much is shown too.
fn scattered_copies(effort: Effort, report: &mut Report, length: u64, known: Known) {
    let suffix = known.suffix();
    let kib = length >> 10;
    let name = format!("copy_{kib}_kib_scattered_pages{suffix}");
    let bound = format!("memcpy_{kib}_kib_scattered_pages{suffix}");
    if !report.wants_any(&[&name, &bound]) {
        return;
    }
    let app = app();
    // The order of frames that a system has after a while.
    let mut order: Vec<u64> = (0..BUFFER / FRAME).collect();
    for (at, n) in (1..order.len()).rev().zip(numbers(0xdea1)) {
        order.swap(at, n as usize % (at + 1));
    }
    let [from, to] = [SOURCE, DESTINATION].map(|base| {
        let memory = app.os().frames().allocate_range(BUFFER_SHIFT);
        for (page, frame) in order.iter().enumerate() {
            let address = base + page as u64 * FRAME;
            app.process().map_frame(address, 12, memory + frame * FRAME);
        }
        memory
    });
    let ram = app.machine().ram();
    let slice = |address, length: u64| match ram.slice(address, length as usize) {
        Ok(slice) => slice,
        Err(error) => panic!("{error}"),
    };
    let count = (AT_ONCE / length).max(1);
    let offsets = Offsets::new(length, count, known == Known::InCache);
    let [ours, by_page, linear] = times(
        effort,
        (count * length) as usize,
        [
            &mut || {
                known.prepare(&app);
                perform(&app, &offsets.copies(), step_until_idle)
            },
            &mut || {
                time(|| {
                    for offset in offsets.next() {
                        let pages = offset / FRAME..(offset + length) / FRAME;
                        for frame in &order[pages.start as usize..pages.end as usize] {
                            let at = frame * FRAME;
                            slice(from + at, FRAME).copy_to_volatile_slice(slice(to + at, FRAME));
                        }
                    }
                })
            },
            &mut || {
                time(|| {
                    for offset in offsets.next() {
                        let to = slice(to + offset, length);
                        slice(from + offset, length).copy_to_volatile_slice(to);
                    }
                })
            },
        ],
    );
    report.add(Entry::rate(
        name,
        "bytes/s",
        [ours, by_page],
        "memcpy of the same pages, one by one",
        known.scattered_goal(),
    ));
    report.add(Entry::rate(
        bound,
        "bytes/s",
        [by_page, linear],
        "memcpy of as much in one piece",
        Goal::None,
    ));
}

/// Where the copies of a measurement are. Whose turn it is goes on where the other ended, so that
/// neither finds what it left behind; in the cache, all are at the same place.
struct Offsets {
    place: Cell<u64>,
    length: u64,
    count: u64,
    in_cache: bool,
}

impl Offsets {
    fn new(length: u64, count: u64, in_cache: bool) -> Self {
        Offsets {
            place: Cell::new(0),
            length,
            count,
            in_cache,
        }
    }

    fn next(&self) -> impl Iterator<Item = u64> + use<> {
        let (length, first) = (self.length, self.place.get());
        let distance = if self.in_cache { 0 } else { length };
        self.place.set((first + self.count * distance) % BUFFER);
        (0..self.count).map(move |n| (first + n * distance) % BUFFER)
    }

    /// The device's copies at the next offsets.
    fn copies(&self) -> Vec<Descriptor> {
        self.next()
            .map(|offset| copy(SOURCE + offset, DESTINATION + offset, self.length))
            .collect()
    }
}

fn copies_of(
    effort: Effort,
    report: &mut Report,
    name: String,
    shift: u8,
    length: u64,
    known: Known,
) {
    let app = app();
    let [from, to] = [SOURCE, DESTINATION].map(|base| {
        // The frames follow each other, so that there is one buffer for memcpy too.
        let memory = app.os().frames().allocate_range(BUFFER_SHIFT);
        for at in (0..BUFFER).step_by(1 << shift) {
            app.process().map_frame(base + at, shift, memory + at);
        }
        memory
    });
    let ram = app.machine().ram();
    let slice = |address| match ram.slice(address, length as usize) {
        Ok(slice) => slice,
        Err(error) => panic!("{error}"),
    };
    let count = (AT_ONCE / length).max(1);
    let offsets = Offsets::new(length, count, known == Known::InCache);
    let measured = times(
        effort,
        (count * length) as usize,
        [
            &mut || {
                known.prepare(&app);
                perform(&app, &offsets.copies(), step_until_idle)
            },
            &mut || {
                time(|| {
                    for offset in offsets.next() {
                        slice(from + offset).copy_to_volatile_slice(slice(to + offset));
                    }
                })
            },
        ],
    );
    report.add(Entry::rate(
        name,
        "bytes/s",
        measured,
        "memcpy of the same buffers",
        known.goal(length),
    ));
}

/// A page that the device asks for, against a page fault of the process itself.
fn page_requests(effort: Effort, report: &mut Report) {
    const COUNT: u64 = 64;
    let name = "page_request_round_trip";
    if !report.wants(name) {
        return;
    }
    let app = app();
    let base = app.process().map(SOURCE, COUNT * FRAME);
    let pages = || (0..COUNT).map(|page| base + page * FRAME);
    let run = |bring: &dyn Fn(u64)| -> Duration {
        let fills = pages().map(|address| {
            app.process().evict_only(address);
            let invalidated = app.process().invalidate(address, FRAME);
            assert_eq!(invalidated, Ok(()));
            let brought = time(|| bring(address));
            let finish = |app: &App| app.os().settle();
            brought + perform(&app, &[fill(address, 8, address)], finish)
        });
        fills.sum()
    };
    let by_the_process = |address| {
        black_box(app.process().load(address));
    };
    let measured = times(
        effort,
        COUNT as usize,
        [&mut || run(&|_| ()), &mut || run(&by_the_process)],
    );
    report.add(Entry::nanoseconds(
        name,
        measured,
        "the same, with the page brought by a page fault of the process before",
        Goal::None,
    ));
}
