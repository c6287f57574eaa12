// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endpoint and unit together, as a program sees them: copies and page requests.

use crate::measure::{Effort, best, time};
use crate::report::{Entry, Goal, Report};
use machine::MachineConfig;
use machine::os::{App, FRAME, Layout, copy, fill};
use std::time::Duration;
use svm_abi::descriptor::Descriptor;

const SOURCE: u64 = 0x10_0000_0000;
const DESTINATION: u64 = 0x20_0000_0000;
/// The size of the buffers.
const BUFFER: u64 = 64 << 20;
/// The bytes that each measurement copies.
const AT_ONCE: u64 = 16 << 20;

pub fn run(effort: Effort, report: &mut Report) {
    copies(effort, report);
    page_requests(effort, report);
}

/// A process on a machine with room for two large buffers.
fn app() -> App {
    let config = MachineConfig {
        memory: 512 << 20,
        ..MachineConfig::default()
    };
    App::on(&config, Layout::default())
}

/// Submits descriptors and steps until all are over.
fn perform(app: &App, descriptors: &[Descriptor]) {
    for part in descriptors.chunks(32) {
        for ticket in app.submit_all(part) {
            let done = app.wait(ticket);
            assert_eq!(done.map(|done| done.error), Some(0));
        }
    }
}

fn copies(effort: Effort, report: &mut Report) {
    for (pages, shift) in [("4k", 12), ("2m", 21)] {
        for length in [64u64 << 10, 256 << 10, 1 << 20, 16 << 20] {
            let name = format!("copy_{}_kib_{pages}_pages", length >> 10);
            if !report.wants(&name) {
                continue;
            }
            let app = app();
            let [from, to] = [SOURCE, DESTINATION].map(|base| {
                // The frames follow each other, so that there is one buffer for memcpy too.
                let memory = app.os().frames().allocate_range(26);
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
            // The same buffers again and again: what is compared is the way, not the host's memory.
            let count = (AT_ONCE / length).max(1) as usize;
            let descriptors = vec![copy(SOURCE, DESTINATION, length); count];
            let [ours, theirs] = best(
                effort,
                count * length as usize,
                [&mut || time(|| perform(&app, &descriptors)), &mut || {
                    time(|| {
                        for _ in 0..count {
                            slice(from).copy_to_volatile_slice(slice(to));
                        }
                    })
                }],
            );
            report.add(Entry {
                name,
                value: 1.0 / ours,
                unit: "bytes/s",
                baseline: 1.0 / theirs,
                against: "memcpy of the same buffers",
                goal: Goal::RatioAtLeast(0.9),
            });
        }
    }
}

fn page_requests(effort: Effort, report: &mut Report) {
    const COUNT: u64 = 64;
    let name = "page_request_round_trip";
    if !report.wants(name) {
        return;
    }
    let app = app();
    let base = app.process().map(SOURCE, COUNT * FRAME);
    let touch = |page| fill(base + page * FRAME, 8, page);
    let run = |absent: bool| -> Duration {
        let mut took = Duration::ZERO;
        for page in 0..COUNT {
            // Invalidated in either case, so that both need a translation.
            app.process().evict_only(base + page * FRAME);
            if !absent {
                app.process().load(base + page * FRAME);
            }
            let invalidated = app.process().invalidate(base + page * FRAME, FRAME);
            assert_eq!(invalidated, Ok(()));
            took += time(|| perform(&app, &[touch(page)]));
        }
        took
    };
    let [ours, theirs] = best(
        effort,
        COUNT as usize,
        [&mut || run(true), &mut || run(false)],
    );
    report.add(Entry {
        name: name.into(),
        value: (ours - theirs) * 1e9,
        unit: "ns",
        baseline: theirs * 1e9,
        against: "the whole descriptor when the page is present",
        goal: Goal::None,
    });
}
