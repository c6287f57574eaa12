// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rule 48: a storm of work, invalidations and page faults, compared with a model of what memory
//! has to hold. A debug build runs a part of the million operations that a release build does.

use machine::os::{App, Driver, FRAME, Layout, Mode, Nesting, Os, Ticket, copy, fill, unblocked};
use machine::{Engines, Machine, MachineConfig};
use svm_abi::completion::{Completion, Error};
use vtd::memory::Memory;

/// Operations of all threads together.
const OPERATIONS: u64 = if cfg!(debug_assertions) {
    20_000
} else {
    1_000_000
};

/// Pages of a process's arena.
const PAGES: u64 = 24;
const ARENA: u64 = 0x7000_0000_0000;
const CANARY: u8 = 0xc3;

/// Numbers that are the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }
}

/// What a descriptor in progress will do to the model.
enum Effect {
    Fill(u64, u64),
    Copy(u64, u64),
    /// It must fail there, and change nothing.
    Fault,
}

/// A process, and what each of its pages has to hold: the same 8 bytes all over.
struct Subject {
    app: App,
    model: Vec<u64>,
    pending: Vec<(Ticket, Effect)>,
    retired: Vec<u64>,
    numbers: Numbers,
    operations: u64,
    faults: u64,
    label: String,
}

impl Subject {
    fn new(driver: &Driver, context: u16, layout: Layout, seed: u64) -> Self {
        let app = App::start(driver, driver.os().process_with(layout), context);
        app.process().map_absent(ARENA, PAGES * FRAME);
        Subject {
            label: format!("function {} context {context}", driver.function()),
            app,
            model: vec![0; PAGES as usize],
            pending: Vec::new(),
            retired: Vec::new(),
            numbers: Numbers(seed | 1),
            operations: 0,
            faults: 0,
        }
    }

    fn address(page: u64) -> u64 {
        ARENA + page * FRAME
    }

    /// One operation of software.
    fn operate(&mut self) {
        self.operations += 1;
        let page = self.numbers.below(PAGES);
        let other = self.numbers.below(PAGES);
        let value = self.numbers.next();
        match self.numbers.below(16) {
            0..=4 => self.submit(
                fill(Self::address(page), FRAME, value),
                Effect::Fill(page, value),
            ),
            5..=8 => self.submit(
                copy(Self::address(page), Self::address(other), FRAME),
                Effect::Copy(page, other),
            ),
            // Memory that is not the process's.
            9 => self.submit(fill(Self::address(PAGES + page), 8, value), Effect::Fault),
            // Pages come and go while the device is at work.
            10 | 11 => self.app.process().evict(Self::address(page)).unwrap(),
            12 | 13 => self.migrate(page),
            14 => self
                .app
                .process()
                .invalidate(Self::address(page), (other + 1) * FRAME)
                .unwrap(),
            _ => self.finish(),
        }
        if self.pending.len() == 32 {
            self.finish();
        }
    }

    fn submit(&mut self, descriptor: svm_abi::descriptor::Descriptor, effect: Effect) {
        let descriptor = match effect {
            Effect::Fault if self.numbers.below(2) == 0 => unblocked(descriptor),
            _ => descriptor,
        };
        let ticket = self.app.submit(descriptor);
        self.pending.push((ticket, effect));
    }

    fn migrate(&mut self, page: u64) {
        let old = self.app.process().migrate(Self::address(page)).unwrap();
        let ram = self.app.machine().ram();
        ram.fill(old, FRAME as usize, CANARY).unwrap();
        self.retired.push(old);
        if self.retired.len() == 16 {
            self.check_canaries();
        }
    }

    fn check_canaries(&mut self) {
        let mut bytes = [0; FRAME as usize];
        for frame in self.retired.drain(..) {
            self.app.machine().ram().read(frame, &mut bytes).unwrap();
            let alive = bytes.iter().all(|byte| *byte == CANARY);
            assert!(alive, "{}, operation {}", self.label, self.operations);
            self.app.os().frames().free(frame);
        }
    }

    /// Waits for all that was submitted, and compares memory with the model.
    fn finish(&mut self) {
        for (ticket, effect) in std::mem::take(&mut self.pending) {
            let Some(Completion { error, .. }) = self.app.wait(ticket) else {
                panic!(
                    "{}, operation {}: it never ends",
                    self.label, self.operations
                );
            };
            match effect {
                Effect::Fill(page, value) => self.model[page as usize] = value,
                Effect::Copy(from, to) => self.model[to as usize] = self.model[from as usize],
                Effect::Fault => {
                    assert!(
                        error == Error::PageFault as u8 || error == Error::NotPresent as u8,
                        "{error}"
                    );
                    self.faults += 1;
                    continue;
                }
            }
            assert_eq!(error, 0, "{}, operation {}", self.label, self.operations);
        }
        for (page, value) in self.model.iter().enumerate() {
            let data = self
                .app
                .process()
                .read(Self::address(page as u64), FRAME as usize);
            let right = data.chunks(8).all(|word| word == value.to_le_bytes());
            assert!(
                right,
                "{}, operation {}, page {page}",
                self.label, self.operations
            );
        }
    }

    fn end(mut self) {
        self.finish();
        self.check_canaries();
        assert!(self.faults > 0);
        drop(self.app.exit().unwrap());
    }
}

/// Two units, three endpoints, and processes of every layout.
fn subjects(seed: u64) -> (Machine, Os, Vec<Subject>) {
    let mut config = MachineConfig::with_functions(3);
    config.memory = 256 << 20;
    config.units.push(machine::unit());
    config.functions[2].unit = 1;
    config.functions[1].endpoint.atc_entries = 16;
    config.functions[2].endpoint.pri_capacity = 2;
    let machine = Machine::new(&config).unwrap();
    let os = Os::boot(&machine, Mode::Scalable);
    let drivers = [0, 1, 2].map(|function| Driver::probe(&os, function));
    let layouts = [
        Layout::default(),
        Layout {
            five_levels: true,
            nested: None,
        },
        Layout {
            five_levels: false,
            nested: Some(Nesting::Small),
        },
    ];
    let subjects = (0..6u64)
        .map(|n| {
            let driver = &drivers[n as usize % 3];
            let layout = layouts[(n as usize + n as usize / 3) % 3];
            Subject::new(driver, n as u16 / 3, layout, seed.wrapping_mul(n + 77))
        })
        .collect();
    (machine, os, subjects)
}

#[test]
fn rule_48_a_storm_in_one_thread() {
    let (_, os, mut subjects) = subjects(0x1234_5678_9abc_def1);
    let count = subjects.len() as u64;
    for n in 0..OPERATIONS / 2 {
        subjects[(n % count) as usize].operate();
        // Some work is done between, so that invalidations meet work at all its stages.
        for _ in 0..n % 4 {
            os.progress();
        }
    }
    for subject in subjects {
        subject.end();
    }
    assert_eq!(os.faults(0).len() + os.faults(1).len(), 0);
}

#[test]
fn rule_48_a_storm_with_engines_and_many_threads_of_software() {
    let (machine, os, subjects) = subjects(0x0fed_cba9_8765_4321);
    let _engines = Engines::start(&machine, 2);
    let share = OPERATIONS / 2 / subjects.len() as u64;
    std::thread::scope(|scope| {
        for mut subject in subjects {
            scope.spawn(move || {
                for _ in 0..share {
                    subject.operate();
                }
                subject.end();
            });
        }
    });
    assert_eq!(os.faults(0).len() + os.faults(1).len(), 0);
}
