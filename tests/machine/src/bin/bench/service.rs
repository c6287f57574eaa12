// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the endpoint serves several at once: the share of each, the end of what is cancelled,
//! interrupts, and what it costs that somebody could look on.

use crate::measure::{Effort, Times, time, times};
use crate::report::{Entry, Goal, Report};
use machine::os::{App, Driver, Mode, Os, copy, nop};
use machine::{Engines, Machine, MachineConfig};
use pcie_ats::{MemoryRequest, RootPort};
use std::hint::black_box;
use std::time::{Duration, Instant};
use svm_abi::counters::index;
use svm_abi::descriptor::{Descriptor, flags};
use svm_abi::registers::{context, control, moderation, status};
use vtd::Access;
use vtd::memory::Memory;

const SOURCE: u64 = 0x10_0000_0000;
const DESTINATION: u64 = 0x20_0000_0000;
/// Log2 of the size of the memory behind both.
const BUFFER_SHIFT: u8 = 21;
const BUFFER: u64 = 1 << BUFFER_SHIFT;
/// What the largest copy moves.
const LARGEST: u64 = 4 << 30;

pub fn run(effort: Effort, report: &mut Report) {
    fairness(effort, report);
    cancellation(effort, report);
    interrupts(effort, report);
    observer(effort, report);
}

/// A machine with an operating system.
fn boot() -> Os {
    match Machine::new(&MachineConfig::default()) {
        Ok(machine) => Os::boot(&machine, Mode::Scalable),
        Err(error) => panic!("{error}"),
    }
}

/// A process at a context, with `length` bytes at source and at destination: the same pages of 2
/// MiB again and again.
fn app(os: &Os, context: u16, length: u64) -> App {
    let app = App::start_with(&Driver::probe(os, 0), os.process(), context, 9);
    for base in [SOURCE, DESTINATION] {
        let frames = os.frames().allocate_range(BUFFER_SHIFT);
        for at in (0..length).step_by(BUFFER as usize) {
            app.process().map_frame(base + at, BUFFER_SHIFT, frames);
        }
    }
    app
}

/// A context that never has more than one descriptor to do, beside one that has a million. Both
/// copy 64 KiB with each.
fn fairness(effort: Effort, report: &mut Report) {
    const LENGTH: u64 = 64 << 10;
    const STEPS: u32 = 4096;
    let names = ["fairness_bytes_between_turns", "fairness_latency"];
    if !report.wants_any(&names) {
        return;
    }
    let os = boot();
    let (small, large) = (app(&os, 0, BUFFER), app(&os, 1, BUFFER));
    let one = copy(SOURCE, DESTINATION, LENGTH);
    let many = vec![one; 256];
    // As much as the ring holds, again and again.
    let refill = |app: &App| {
        let todo = app.driver().register(app.context(), context::TAIL)
            - app.driver().register(app.context(), context::HEAD);
        if todo < 256 {
            app.submit_all(&many);
        }
    };
    let moved = |app: &App| app.counter(index::BYTES_WRITTEN);
    let mut shares = Vec::new();
    let round = |busy: bool| -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..STEPS / 64 {
            let begin = Instant::now();
            let ticket = small.submit(one);
            while small.completion(ticket).is_none() {
                os.machine().step();
            }
            took += begin.elapsed();
            if busy {
                refill(&large);
            }
        }
        took
    };
    let measured = times(
        effort,
        (STEPS / 64) as usize,
        [
            &mut || {
                refill(&large);
                let before = [moved(&small), moved(&large)];
                let took = round(true);
                let mine = (moved(&small) - before[0]) as f64;
                let theirs = (moved(&large) - before[1]) as f64;
                shares.push((mine / (LENGTH + 32) as f64, theirs));
                took
            },
            &mut || {
                // What the large one has left is done first.
                os.settle();
                round(false)
            },
        ],
    );
    let theirs: f64 = shares.iter().map(|(_, theirs)| theirs).sum();
    let turns: f64 = shares.iter().map(|(mine, _)| mine).sum();
    report.add(Entry {
        name: names[0].into(),
        value: theirs / turns,
        unit: "bytes",
        baseline: (64 << 10) as f64,
        against: "what a turn beside others moves; value: what the large context moves in between",
        goal: Goal::RatioAtMost(1.5),
        times: None,
    });
    report.add(Entry::nanoseconds(
        names[1],
        measured,
        "the same descriptor of 64 KiB while nobody else works",
        Goal::RatioAtMost(2.5),
    ));
}

/// From the order to stop to the state DISABLED, in the middle of a copy of 4 GiB that a thread is
/// at.
fn cancellation(effort: Effort, report: &mut Report) {
    let name = "cancel_4_gib_copy";
    if !report.wants(name) {
        return;
    }
    let os = boot();
    let app = app(&os, 0, LARGEST);
    let driver = app.driver();
    let state = || status::state(app.status());
    let largest = copy(SOURCE, DESTINATION, LARGEST);
    let measured = times(
        effort,
        1,
        [
            &mut || {
                let _engines = Engines::start(os.machine(), 1);
                let ticket = app.submit(largest);
                let before = app.counter(index::BYTES_WRITTEN);
                while app.counter(index::BYTES_WRITTEN) < before + (1 << 20) {
                    std::hint::spin_loop();
                }
                let took = time(|| {
                    driver.set_register(app.context(), context::CONTROL, control::STOP);
                    while state() != status::DISABLED {
                        std::hint::spin_loop();
                    }
                });
                assert_eq!(app.completion(ticket), None, "it ended by itself");
                app.restart();
                took
            },
            &mut || {
                let _ = app.submit(largest);
                // The first step reads the ring.
                os.machine().step();
                let took = time(|| {
                    os.machine().step();
                });
                driver.set_register(app.context(), context::CONTROL, control::STOP);
                assert_eq!(state(), status::DISABLED);
                app.restart();
                took
            },
        ],
    );
    report.add(Entry::nanoseconds(
        name,
        measured,
        "one step of the copy, which moves 256 KiB",
        Goal::None,
    ));
}

/// Descriptors that do nothing but end with an interrupt.
fn interrupts(effort: Effort, report: &mut Report) {
    const COUNT: usize = 4096;
    let names = [
        "descriptors",
        "descriptors_copying_64_bytes",
        "interrupts",
        "interrupts_moderated_by_64",
    ];
    if !report.wants_any(&names) {
        return;
    }
    let os = boot();
    let app = app(&os, 0, BUFFER);
    let frame = app.process().frame(SOURCE);
    let quiet = vec![nop(); 512];
    let small = vec![copy(SOURCE, DESTINATION, 64); 512];
    let loud = vec![
        Descriptor {
            flags: nop().flags | flags::INTERRUPT,
            ..nop()
        };
        512
    ];
    let perform = |descriptors: &[Descriptor], moderated: u16| {
        let value = moderation::encode(moderated, 0);
        app.driver()
            .set_register(app.context(), context::MODERATION, value);
        let before = os.machine().interrupts().count();
        let mut took = Duration::ZERO;
        for _ in 0..COUNT / descriptors.len() {
            app.stage(descriptors);
            took += time(|| {
                app.ring();
                os.settle();
            });
        }
        let sent = os.machine().interrupts().count() - before;
        os.machine().interrupts().take();
        (took, sent)
    };
    let [plain, copies, each, few, by_hand] = times(
        effort,
        COUNT,
        [
            &mut || perform(&quiet, 0).0,
            &mut || perform(&small, 0).0,
            &mut || {
                let (took, sent) = perform(&loud, 0);
                assert_eq!(sent, COUNT as u64, "one for each");
                took
            },
            &mut || {
                let (took, sent) = perform(&loud, 64);
                assert_eq!(sent, COUNT as u64 / 64, "one for 64");
                took
            },
            &mut || read_and_record(&os, frame, COUNT),
        ],
    );
    let mut add = |name: &str, ours: Times, theirs: Times, against| {
        let entry = Entry::rate(name, "descriptors/s", [ours, theirs], against, Goal::None);
        report.add(entry);
    };
    let against = "a read of 64 bytes and a write of 32 by hand, which is what each has to do";
    add(names[0], plain, by_hand, against);
    let against = "descriptors that copy nothing";
    add(names[1], copies, plain, against);
    let against = "the same descriptors without interrupt";
    add(names[2], each, plain, against);
    add(names[3], few, plain, against);
}

/// What a descriptor cannot do without: it is read, and its completion record is written.
fn read_and_record(os: &Os, frame: u64, count: usize) -> Duration {
    let ram = os.machine().ram();
    let mut descriptor = [0; 64];
    let mut record = [0; 32];
    time(|| {
        for n in 0..count as u64 {
            let at = frame + n % 512 * 64;
            assert_eq!(ram.read(at, &mut descriptor), Ok(()));
            record[0] = descriptor[0];
            assert_eq!(ram.write(at + BUFFER / 2, &record), Ok(()));
        }
        black_box(&record);
    })
}

/// A read through the port while no observer is there, against the same check and the same read
/// by hand, where no place for one is.
fn observer(effort: Effort, report: &mut Report) {
    const COUNT: usize = 1 << 14;
    const LENGTH: usize = 64;
    let name = "port_read_observer_off";
    if !report.wants(name) {
        return;
    }
    let os = boot();
    let machine = os.machine();
    let app = app(&os, 0, BUFFER);
    let frame = app.process().frame(SOURCE);
    let (port, requester) = (machine.port(0), machine.requester(0));
    let places = || (0..COUNT as u64).map(|n| frame + n * LENGTH as u64 % BUFFER);
    let mut data = [0; LENGTH];
    let mut other = [0; LENGTH];
    let measured = times(
        effort,
        COUNT,
        [
            &mut || {
                time(|| {
                    for address in places() {
                        let read = port.read(&MemoryRequest::translated(address), &mut data);
                        assert_eq!(read, Ok(()));
                    }
                    black_box(&data);
                })
            },
            &mut || {
                time(|| {
                    for address in places() {
                        let checked = machine.with_unit(0, |unit, ram, fx| {
                            let read = Access::Read;
                            unit.translated_request(ram, requester, None, address, read, fx)
                        });
                        assert_eq!(checked, Ok(()));
                        assert_eq!(machine.ram().read(address, &mut other), Ok(()));
                    }
                    black_box(&other);
                })
            },
        ],
    );
    report.add(Entry::nanoseconds(
        name,
        measured,
        "check and read by hand, without a place for an observer",
        Goal::RatioAtMost(2.0),
    ));
}
