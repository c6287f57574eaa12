// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rule 48: a storm of work, invalidations, pages on the move and page faults, compared with a
//! model of what memory has to hold. What fails says the seed; `SVM_SEED` chooses another one.

use crate::failure::{SourceLine, Watch, caught};
use machine::os::{
    App, Behaviour, Driver, FRAME, Layout, Migration, Mode, Nesting, Os, Process, QueueFault,
    Ticket, copy, device_tlb_pasid, fill, unblocked,
};
use machine::{Engines, Machine, MachineConfig, Moment};
use pcie_ats::{AlignedRange, MemoryAddressType};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use svm_abi::completion::{Completion, Error};
use svm_abi::registers::laboratory;
use svm_endpoint::Mutant;
use vtd::memory::Memory;

/// Operations of all threads together.
const OPERATIONS: u64 = 1_000_000;
/// Operations in one thread, which are the same ones for the same seed.
const ALONE: u64 = 200_000;
/// Operations in which a mutant must be caught.
const MUTANT: u64 = 20_000;
/// Where the numbers begin, if nothing else is asked for.
const SEED: u64 = 48;

/// Pages of a process's arena.
const PAGES: u64 = 24;
const ARENA: u64 = 0x7000_0000_0000;
const CANARY: u8 = 0xc3;

/// Pages of 4 KiB in a row and in frames in a row, 2 MiB in all: a function's cache makes one
/// translation of them.
const ROW: u64 = ARENA + (1 << 30);
const ROW_SHIFT: u8 = 21;
const ROW_BYTES: u64 = 1 << ROW_SHIFT;
const ROW_PAGES: u64 = ROW_BYTES / FRAME;
/// How many operations of its process there are for one on the row.
const ROW_RARELY: u64 = 512;

/// Numbers that are the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn new(seed: u64, stream: u64) -> Self {
        Numbers((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (stream + 1) << 40 | 1)
    }

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

/// Says on failure where the numbers began.
struct Seed(u64);

impl Seed {
    fn chosen() -> Self {
        match std::env::var("SVM_SEED") {
            Ok(text) => Seed(text.parse().expect("SVM_SEED is a decimal number")),
            Err(_) => Seed(SEED),
        }
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the storm began with SVM_SEED={}", self.0);
        }
    }
}

/// What software and the hook at a function's requests know of a process in common.
struct Arena {
    process: Process,
    /// Where the entry of its first page lies.
    entries: u64,
    moving: Mutex<Vec<Migration>>,
    /// Frames that nobody may touch any more.
    retired: Mutex<Vec<u64>>,
}

impl Arena {
    fn address(page: u64) -> u64 {
        ARENA + page * FRAME
    }

    /// Software looks at an entry before it changes it: what writes too far may have met the page
    /// tables as well as data.
    fn check_tables(&self, page: u64) {
        let stage = self.process.first_stage();
        let leaf = stage.find(self.process.os().frames(), Self::address(page));
        let right = leaf.is_none_or(|leaf| leaf.at == self.entries + page * 8);
        assert!(right, "page {page}: the page tables are not what they were");
    }

    /// Begins to move pages, unless one of them is on the move.
    fn begin(&self, page: u64, count: u64) {
        self.check_tables(page);
        let migration = self
            .process
            .begin_migration(Self::address(page), count * FRAME);
        self.moving.lock().unwrap().extend(migration);
    }

    /// Ends the migrations that are ready: from here on the old frames belong to somebody else.
    fn end_ready(&self) {
        if !self.moving.lock().unwrap().is_empty() {
            self.check_tables(0);
        }
        let mut moving = self.moving.lock().unwrap();
        let (ready, rest) = std::mem::take(&mut *moving)
            .into_iter()
            .partition::<Vec<_>, _>(Migration::is_ready);
        *moving = rest;
        for frame in ready.into_iter().flat_map(Migration::end) {
            let ram = self.process.os().machine().ram();
            ram.fill(frame, FRAME as usize, CANARY).unwrap();
            self.retired.lock().unwrap().push(frame);
        }
    }

    /// The page of the arena that a request is for.
    fn page_of(&self, moment: &Moment) -> Option<u64> {
        let within = |address: u64| {
            (ARENA..ARENA + PAGES * FRAME)
                .contains(&address)
                .then(|| (address - ARENA) / FRAME)
        };
        match moment {
            Moment::Answer(request) if request.pasid == Some(self.process.pasid()) => {
                within(request.address)
            }
            Moment::Access(request) if request.address_type == MemoryAddressType::Translated => {
                let frame = request.address & !(FRAME - 1);
                (0..PAGES).find(|page| self.process.frame(Self::address(*page)) == frame)
            }
            _ => None,
        }
    }

    /// The kernel moves the very page that a request is under way for, and invalidates more of it.
    fn interfere(&self, page: u64, machine: &Machine, function: usize, twice: bool) {
        self.begin(page, 1);
        if twice {
            let os = self.process.os();
            let range = AlignedRange::page(Self::address(page));
            let words = device_tlb_pasid(machine.requester(function), self.process.pasid(), range);
            let _ = os.queue(machine.unit_of(function)).try_submit(&[words]);
        }
        self.end_ready();
    }
}

/// What a descriptor in progress will do to a number of pages of the model.
enum Effect {
    Fill(u64, u64, u64),
    Copy(u64, u64, u64),
    /// It must fail there, and change nothing.
    Fault,
}

/// The frames of a row of pages: where they are, and where one of them is for a while.
struct Row {
    home: u64,
    away: u64,
    /// How often the row was one translation.
    joined: u64,
}

/// A process, and what each of its pages has to hold: the same 8 bytes all over.
struct Subject {
    app: App,
    arena: Arc<Arena>,
    /// Arenas of processes that nobody else cares for meanwhile.
    wards: Vec<Arc<Arena>>,
    /// A storm that has failed already: nothing more is waited for.
    over: Arc<AtomicBool>,
    model: Vec<u64>,
    pending: Vec<(Ticket, Effect)>,
    numbers: Numbers,
    operations: u64,
    faults: u64,
    label: String,
    /// One of them has a row of pages.
    row: Option<Row>,
}

impl Subject {
    fn new(driver: &Driver, context: u16, layout: Layout, numbers: Numbers) -> Self {
        let app = App::start(driver, driver.os().process_with(layout), context);
        app.process().map_absent(ARENA, PAGES * FRAME);
        let stage = app.process().first_stage();
        let entries = stage.place(driver.os().frames(), ARENA, 1);
        Subject {
            label: format!("function {} context {context}", driver.function()),
            arena: Arc::new(Arena {
                process: app.process().clone(),
                entries,
                moving: Mutex::default(),
                retired: Mutex::default(),
            }),
            wards: Vec::new(),
            over: Arc::default(),
            app,
            model: vec![0; PAGES as usize],
            pending: Vec::new(),
            numbers,
            operations: 0,
            faults: 0,
            row: None,
        }
    }

    /// Gives the process a row of pages.
    fn add_row(&mut self) {
        let frames = self.app.os().frames();
        let [home, away] = [(); 2].map(|()| frames.allocate_range(ROW_SHIFT));
        for offset in (0..ROW_BYTES).step_by(FRAME as usize) {
            self.app
                .process()
                .map_frame(ROW + offset, 12, home + offset);
        }
        self.row = Some(Row {
            home,
            away,
            joined: 0,
        });
    }

    /// One operation of software on the row: it is written to as a whole, so that it becomes one
    /// translation, and a second time while one of its pages moves away and back.
    fn work_on_row(&mut self, row: &mut Row) {
        let process = self.app.process().clone();
        let machine = self.app.machine().clone();
        let offset = self.numbers.below(ROW_PAGES) * FRAME;
        let value = self.numbers.next();
        let is_written = |subject: &Self, ticket: Ticket| {
            let error = subject.wait(ticket).error;
            assert_eq!(
                error, 0,
                "{}, operation {}",
                subject.label, subject.operations
            );
        };
        self.completed(process.invalidate(ROW, ROW_BYTES));
        is_written(self, self.app.submit(fill(ROW, ROW_BYTES, !value)));
        let endpoint = machine.endpoint(self.app.driver().function());
        row.joined += u64::from(endpoint.cached(ROW_SHIFT));
        if self.numbers.below(2) == 0 {
            // The page moves while the translations are asked for, and not when they are one.
            self.completed(process.invalidate(ROW, ROW_BYTES));
        }
        let ticket = self.app.submit(fill(ROW, ROW_BYTES, value));
        let moved = process.migrate_to(ROW + offset, row.away + offset);
        self.completed(moved.map(drop));
        machine
            .ram()
            .fill(row.home + offset, FRAME as usize, CANARY)
            .unwrap();
        is_written(self, ticket);
        is_written(self, self.app.submit(fill(ROW + offset, FRAME, value)));
        let data = process.read(ROW, ROW_BYTES as usize);
        let right = data.chunks(8).all(|word| word == value.to_le_bytes());
        assert!(
            right,
            "{}, operation {}: the row",
            self.label, self.operations
        );
        let mut bytes = [0; FRAME as usize];
        machine.ram().read(row.home + offset, &mut bytes).unwrap();
        let alive = bytes.iter().all(|byte| *byte == CANARY);
        assert!(
            alive,
            "{}, operation {}: the row",
            self.label, self.operations
        );
        let moved = process.migrate_to(ROW + offset, row.home + offset);
        self.completed(moved.map(drop));
    }

    /// An invalidation has come to an end, with this result.
    fn completed(&self, result: Result<(), QueueFault>) {
        assert_eq!(
            result,
            Ok(()),
            "{}, operation {}: an invalidation",
            self.label,
            self.operations
        );
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// One operation of software.
    fn operate(&mut self) {
        self.operations += 1;
        self.arena.end_ready();
        if let Some(mut row) = self.row.take() {
            if self.numbers.below(ROW_RARELY) == 0 {
                self.work_on_row(&mut row);
            }
            self.row = Some(row);
        }
        let page = self.numbers.below(PAGES);
        let other = self.numbers.below(PAGES);
        let value = self.numbers.next();
        let address = Arena::address(page);
        let most = 1 + self.numbers.below(4);
        let count = most.min(PAGES - page.max(other));
        let length = count * FRAME;
        match self.numbers.below(32) {
            0..=9 => self.submit(
                fill(address, length, value),
                Effect::Fill(page, count, value),
            ),
            10..=17 => self.submit(
                copy(address, Arena::address(other), length),
                Effect::Copy(page, other, count),
            ),
            // Memory that is not the process's.
            18 | 19 => self.submit(fill(Arena::address(PAGES + page), 8, value), Effect::Fault),
            // Pages come and go while the device is at work.
            20..=23 => {
                self.arena.check_tables(page);
                self.completed(self.app.process().evict(address));
            }
            24..=27 => self.arena.begin(page, count),
            28 | 29 => {
                let scope = (other + 1) * FRAME;
                self.completed(self.app.process().invalidate(address, scope));
            }
            30 => {
                let behaviour = [Behaviour::Serve, Behaviour::Reorder][value as usize % 2];
                self.app.os().set_behaviour(behaviour);
            }
            _ => self.finish(),
        }
        if self.pending.len() == 32 {
            self.finish();
        }
        if self.arena.retired.lock().unwrap().len() >= 16 {
            self.check_canaries();
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

    fn check_canaries(&mut self) {
        let mut bytes = [0; FRAME as usize];
        for frame in self.arena.retired.lock().unwrap().drain(..) {
            self.app.machine().ram().read(frame, &mut bytes).unwrap();
            let alive = bytes.iter().all(|byte| *byte == CANARY);
            assert!(alive, "{}, operation {}", self.label, self.operations);
            self.app.os().frames().free(frame);
        }
    }

    /// Waits for a descriptor. Pages that are on the move arrive meanwhile: it may need them, or
    /// credits that others have as long as theirs are away.
    fn wait(&self, ticket: Ticket) -> Completion {
        self.app.os().wait_until(|| {
            self.arena.end_ready();
            self.wards.iter().for_each(|ward| ward.end_ready());
            self.app.completion(ticket).is_some() || self.is_over()
        });
        match self.app.completion(ticket) {
            Some(completion) => completion,
            None => panic!(
                "{}, operation {}: it never ends",
                self.label, self.operations
            ),
        }
    }

    /// Waits for all that was submitted, and compares memory with the model.
    fn finish(&mut self) {
        for (ticket, effect) in std::mem::take(&mut self.pending) {
            let error = self.wait(ticket).error;
            match effect {
                Effect::Fill(page, count, value) => {
                    self.model[page as usize..][..count as usize].fill(value);
                }
                Effect::Copy(from, to, count) => {
                    let from = from as usize;
                    self.model
                        .copy_within(from..from + count as usize, to as usize);
                }
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
            let address = Arena::address(page as u64);
            let data = self.app.process().read(address, FRAME as usize);
            let right = data.chunks(8).all(|word| word == value.to_le_bytes());
            assert!(
                right,
                "{}, operation {}, page {page}",
                self.label, self.operations
            );
        }
    }

    /// Ends everything. Returns how many descriptors failed as they had to, and how often the row
    /// of pages was one translation.
    fn end(mut self) -> [u64; 2] {
        self.finish();
        let arrived = self.app.os().wait_until(|| {
            self.arena.end_ready();
            self.arena.moving.lock().unwrap().is_empty() || self.is_over()
        });
        assert!(arrived, "{}: a page never arrives", self.label);
        self.check_canaries();
        let ends = [self.faults, self.row.as_ref().map_or(0, |row| row.joined)];
        let ended = self.app.exit().map(drop);
        assert_eq!(ended, Ok(()), "{}: it does not end", self.label);
        ends
    }
}

/// Two units, three endpoints, and processes of every layout.
struct Storm {
    machine: Machine,
    os: Os,
    subjects: Vec<Subject>,
}

impl Storm {
    fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut config = MachineConfig::with_functions(3);
        config.memory = 256 << 20;
        config.units.push(machine::unit());
        config.functions[2].unit = 1;
        config.functions[1].endpoint.atc_entries = 16;
        config.functions[2].endpoint.pri_capacity = 2;
        for function in &mut config.functions {
            function.endpoint.laboratory = mutant.is_some();
        }
        let machine = Machine::new(&config).unwrap();
        let os = Os::boot(&machine, Mode::Scalable);
        let drivers = [0, 1, 2].map(|function| Driver::probe(&os, function));
        if let Some(mutant) = mutant {
            for driver in &drivers {
                driver.set_laboratory(laboratory::MUTANT, mutant.rule().into());
            }
        }
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
        let mut subjects: Vec<_> = (0..6u64)
            .map(|n| {
                let driver = &drivers[n as usize % 3];
                let layout = layouts[(n as usize + n as usize / 3) % 3];
                Subject::new(driver, n as u16 / 3, layout, Numbers::new(seed, n))
            })
            .collect();
        // Its function is the one with the largest cache.
        subjects[0].add_row();
        // Between its look-up and its access, and between answer and use, an endpoint meets a
        // kernel that takes the page away.
        for function in 0..3 {
            let arenas = [0, 3].map(|n| subjects[function + n].arena.clone());
            let mut numbers = Numbers::new(seed, 100 + function as u64);
            let hook = move |machine: &Machine, moment: &Moment| {
                if numbers.below(16) != 0 {
                    return;
                }
                let found = arenas.iter().find_map(|a| Some((a, a.page_of(moment)?)));
                if let Some((arena, page)) = found {
                    arena.interfere(page, machine, function, numbers.below(2) == 0);
                }
            };
            machine.set_hook(function, Some(Box::new(hook)));
        }
        Storm {
            machine,
            os,
            subjects,
        }
    }

    /// The endings of all processes. Returns how often the row of pages was one translation.
    fn check(mut self, ends: &[[u64; 2]]) -> u64 {
        assert!(ends.iter().any(|[faults, _]| *faults > 0));
        for function in 0..3 {
            let endpoint = self.machine.endpoint(function);
            assert_eq!(endpoint.pasids(), []);
        }
        for unit in 0..2 {
            assert_eq!(self.os.faults(unit), []);
            let ask = |unit: &mut vtd::Unit, _: &_, _: &mut _| *unit.counters();
            let counters = self.machine.with_unit(unit, ask);
            assert!(counters.descriptors > 0 && counters.page_requests > 0);
            assert_eq!(counters.unexpected_responses, 0);
        }
        self.subjects.clear();
        ends.iter().map(|[_, joined]| joined).sum()
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // The hooks hold the machine that holds them.
        for function in 0..3 {
            self.machine.set_hook(function, None);
        }
    }
}

/// A storm in one thread. Returns how often a row of pages was one translation.
fn alone(seed: u64, operations: u64, mutant: Option<Mutant>) -> u64 {
    let mut storm = Storm::new(seed, mutant);
    let wards: Vec<_> = storm.subjects.iter().map(|s| s.arena.clone()).collect();
    for subject in &mut storm.subjects {
        subject.wards = wards.clone();
    }
    let mut numbers = Numbers::new(seed, 200);
    for n in 0..operations {
        let subject = numbers.below(6) as usize;
        storm.subjects[subject].operate();
        // Some work is done between, so that invalidations meet work at all its stages.
        for _ in 0..n % 4 {
            storm.os.progress();
        }
    }
    let subjects = std::mem::take(&mut storm.subjects);
    let ends: Vec<_> = subjects.into_iter().map(Subject::end).collect();
    storm.check(&ends)
}

/// Tells the other threads of a storm that one of them has failed.
struct Alarm(Arc<AtomicBool>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// A storm with engines, and a thread of software for each process. Returns how often a row of
/// pages was one translation.
fn together(seed: u64, operations: u64, mutant: Option<Mutant>) -> u64 {
    let mut storm = Storm::new(seed, mutant);
    let engines = Engines::start(&storm.machine, 2);
    let subjects = std::mem::take(&mut storm.subjects);
    let share = operations.div_ceil(subjects.len() as u64);
    let over: Arc<AtomicBool> = Arc::default();
    let watch = Watch::current();
    let ends: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = subjects
            .into_iter()
            .map(|mut subject| {
                subject.over = over.clone();
                let watch = watch.clone();
                scope.spawn(move || {
                    Watch::join(watch);
                    let _alarm = Alarm(subject.over.clone());
                    for _ in 0..share {
                        assert!(!subject.is_over(), "another thread has failed");
                        subject.operate();
                    }
                    subject.end()
                })
            })
            .collect();
        let ends = threads.into_iter().map(|thread| thread.join().unwrap());
        ends.collect()
    });
    drop(engines);
    storm.check(&ends)
}

#[test]
fn rule_48_a_storm_in_one_thread() {
    let seed = Seed::chosen();
    let joined = alone(seed.0, ALONE, None);
    assert!(joined > 0, "no translations grew to 2 MiB");
}

#[test]
fn rule_48_a_storm_of_a_million_operations_with_engines_and_many_threads_of_software() {
    let seed = Seed::chosen();
    let joined = together(seed.0, OPERATIONS, None);
    assert!(joined > 0, "no translations grew to 2 MiB");
}

/// Mutants that a storm must notice, whichever test is the one of their rule.
pub(crate) const CAUGHT: &[Mutant] = &[
    Mutant::Rule12,
    Mutant::Rule14,
    Mutant::Rule15,
    Mutant::Rule17,
    Mutant::Rule19,
    Mutant::Rule20,
    Mutant::Rule21,
    Mutant::Rule29,
    Mutant::Rule30,
    Mutant::Rule34,
    Mutant::Rule37,
    Mutant::Rule38,
    Mutant::Rule39,
    Mutant::Rule40,
    Mutant::Rule41,
    Mutant::Rule42,
    Mutant::Rule44,
    Mutant::Rule47,
    Mutant::Rule48,
    Mutant::Rule49,
    Mutant::Rule50,
    Mutant::Rule54,
    Mutant::Join37,
];

/// Where the storm judges what a device has done. What fails elsewhere, when it is set up for
/// instance, notices nothing.
const JUDGES: [&str; 8] = [
    "check_tables",
    "completed",
    "work_on_row",
    "check_canaries",
    "wait",
    "finish",
    "end",
    "check",
];

/// Runs a storm of a device that breaks a rule, and says where it fails if no judge notices.
fn noticed(
    storm: fn(u64, u64, Option<Mutant>) -> u64,
    mutant: Mutant,
) -> Result<(), Option<SourceLine>> {
    let sources = [("/it/storm.rs", include_str!("storm.rs"))];
    let test = || {
        storm(SEED, MUTANT, Some(mutant));
    };
    caught(test, &sources, &JUDGES)
}

#[test]
fn rule_48_a_storm_notices_a_device_that_breaks_its_rules() {
    let mut escaped = Vec::new();
    for mutant in CAUGHT {
        if let Err(place) = noticed(alone, *mutant) {
            escaped.push((mutant, place));
        }
    }
    assert!(escaped.is_empty(), "not caught: {escaped:#?}");
}

#[test]
fn rule_48_a_storm_of_threads_notices_a_device_that_breaks_the_invalidation_contract() {
    for mutant in [Mutant::Rule38, Mutant::Rule39, Mutant::Rule47] {
        assert_eq!(noticed(together, mutant), Ok(()), "{mutant:?}");
    }
}
