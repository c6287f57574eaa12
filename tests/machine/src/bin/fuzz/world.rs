// SPDX-License-Identifier: MIT OR Apache-2.0
//! A case: a machine on which an operating system has booted and a program runs, which then meets
//! whatever comes.

use crate::draw::Draw;
use machine::os::{App, Behaviour, Domain, Driver, Layout, Mode, Nesting, Os, copy};
use machine::{Machine, MachineConfig, Moment, Ram, Remapping};
use pcie_ats::{Pasid, PasidWidth};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vtd::config::{AddressWidth, CacheSizes, LargePages};
use vtd::memory::Memory;
use vtd::spec::register::offset;

/// Bytes of memory.
pub const MEMORY: u64 = 16 << 20;
/// The last part of memory, which nothing that a tame case does can reach.
pub const FORBIDDEN: u64 = MEMORY - (2 << 20);
/// What stands there.
pub const CANARY: u64 = 0xfeed_face_cafe_beef;
/// Where the frames of the operating system begin.
pub const POOL: u64 = 1 << 20;
/// Where the process has its pages.
pub const ARENA: u64 = 0x7000_0000_0000;
/// Where the process and the domain have a page of 2 MiB.
pub const LARGE_PAGES: [u64; 2] = [ARENA + (1 << 30), 0x80_0000];
/// The memory behind it, which may be that of frames.
pub const LARGE: u64 = 2 << 20;
/// Pages of the arena.
pub const PAGES: u64 = 8;

/// What happened in all cases.
#[derive(Default)]
pub struct Statistics {
    pub actions: u64,
    pub translated: u64,
    pub blocked: u64,
    pub ats_answers: u64,
    pub accesses: u64,
    pub steps: u64,
    pub descriptors: u64,
    pub page_requests: u64,
    pub faults: u64,
    pub interrupts: u64,
    pub compared: u64,
    pub recoveries: u64,
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = [
            ("actions", self.actions),
            ("requests translated", self.translated),
            ("requests blocked", self.blocked),
            ("translation requests answered", self.ats_answers),
            ("raw accesses that reached memory", self.accesses),
            ("endpoint steps with work", self.steps),
            ("descriptors processed", self.descriptors),
            ("page requests queued", self.page_requests),
            ("faults recorded", self.faults),
            ("interrupts delivered", self.interrupts),
            ("answers compared with an empty unit's", self.compared),
            ("machines that worked again afterwards", self.recoveries),
        ];
        for (name, count) in lines {
            writeln!(f, "{count:>12} {name}")?;
        }
        Ok(())
    }
}

/// A case.
pub struct World {
    pub draw: Draw,
    pub machine: Machine,
    pub mode: Mode,
    /// Tables hold only what a tame case may hold, so that the forbidden part is out of reach.
    pub tame: bool,
    pub verbose: bool,
    /// End of the frames that are in use.
    pub pool_end: u64,
    /// What these frames held at the beginning.
    pub snapshot: Vec<u8>,
    /// The unit's registers that pointed to them.
    pub pointers: [(u16, u64); 4],
    pub pasids: Vec<Pasid>,
    pub remapping: Remapping,
    /// Tail of the invalidation queue, as the fuzzer last wrote it.
    pub tail: u64,
    /// An endpoint takes a step, and is bound by the state of its function.
    pub stepping: Arc<AtomicBool>,
}

impl World {
    pub fn new(case: u64, verbose: bool) -> World {
        let mut draw = Draw::new(case);
        let config = configuration(&mut draw);
        let mode = match config.units[0].scalable {
            Some(_) if !draw.once_in(6) => Mode::Scalable,
            _ => Mode::Legacy,
        };
        if verbose {
            println!("{mode:?} {config:#x?}");
        }
        let machine = match Machine::new(&config) {
            Ok(machine) => machine,
            Err(error) => panic!("{error}"),
        };
        for at in (FORBIDDEN..MEMORY).step_by(8) {
            let stored = machine.ram().store(at, CANARY);
            assert_eq!(stored, Ok(()));
        }
        let os = Os::boot(&machine, mode);
        let pasids = furnish(&os, mode, &mut draw);
        // What the fuzzer does with page requests, it does itself.
        os.set_behaviour(Behaviour::Ignore);
        let pool_end = os.frames().allocate();
        season(machine.ram(), pool_end, &mut draw);
        let mut snapshot = vec![0; (pool_end - POOL) as usize];
        assert_eq!(machine.ram().read(POOL, &mut snapshot), Ok(()));
        let remapping = Remapping::of_function(&machine, 0, pasids.first().copied());
        let stepping = Arc::new(AtomicBool::new(false));
        for function in 0..machine.functions() {
            let stepping = Arc::clone(&stepping);
            let hook = move |machine: &Machine, moment: &Moment| {
                if stepping.load(Ordering::Relaxed) {
                    let master = machine.config_read(function, 4) & 4 != 0;
                    assert!(master, "{moment:?} of a function that is no bus master");
                }
            };
            machine.set_hook(function, Some(Box::new(hook)));
        }
        World {
            tame: !draw.once_in(3),
            draw,
            mode,
            verbose,
            pool_end,
            snapshot,
            pointers: [offset::RTADDR, offset::IQA, offset::IRTA, offset::PQA]
                .map(|at| (at, machine.unit_read(0, at, 8))),
            pasids,
            remapping,
            tail: 0,
            stepping,
            machine,
        }
    }

    /// Runs the case.
    pub fn run(mut self, actions: u32, pulse: &AtomicU64, statistics: &mut Statistics) {
        for _ in 0..actions {
            pulse.fetch_add(1, Ordering::Relaxed);
            statistics.actions += 1;
            self.act(statistics);
            self.check_registers();
            if self.draw.once_in(40) {
                self.compare(statistics);
            }
        }
        self.check_canary();
        let counters = self.machine.with_unit(0, |unit, _, _| *unit.counters());
        statistics.descriptors += counters.descriptors;
        statistics.page_requests += counters.page_requests;
        statistics.interrupts += self.machine.interrupts().count();
        pulse.fetch_add(1, Ordering::Relaxed);
        self.recover();
        statistics.recoveries += 1;
    }

    /// After a reset of everything, all works as on the first day.
    fn recover(self) {
        let machine = self.machine;
        machine.with_unit(0, |unit, _, fx| unit.reset(fx));
        for function in 0..machine.functions() {
            machine.set_hook(function, None);
            machine.reset_function(function, pcie_ats::Reset::Conventional);
        }
        // In a tame case, nothing was written behind the frames that were in use.
        let used = match self.tame {
            true => (self.pool_end + (1 << 20)).max(LARGE + (2 << 20)),
            false => MEMORY,
        };
        let cleared = machine.ram().fill(0, used as usize, 0);
        assert_eq!(cleared, Ok(()));
        let os = Os::boot(&machine, self.mode);
        let driver = Driver::probe(&os, 0);
        if self.mode == Mode::Scalable && processes_work(&machine) {
            let app = App::start(&driver, os.process(), 0);
            let from = app.process().map(ARENA, 0x2000);
            let to = app.process().map(ARENA + 0x10_0000, 0x2000);
            app.process().write(from + 0xffc, b"as on the first day");
            let done = app.perform(copy(from, to, 0x2000));
            assert_eq!(
                done.error, 0,
                "the machine does not work after a reset: {done:?}"
            );
            assert_eq!(app.process().read(to + 0xffc, 19), b"as on the first day");
        }
    }

    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{}", what());
        }
    }
}

/// Gives tables what the operating system has no use for: privileged requests, write protection,
/// extended-accessed flags, supervisor pages, no execution.
fn season(ram: &Ram, end: u64, draw: &mut Draw) {
    const PWSNP: u64 = 1 << 23;
    let load = |at| ram.load(at).unwrap_or_default();
    for at in (POOL..end).step_by(8) {
        let word = load(at);
        // The second word of a PASID table entry, which is a domain id and PWSNP; in the next but
        // one are SRE, ERE, WPE, NXE, SMEP and EAFE.
        if at % 64 == 8 && word & !0xffff == PWSNP {
            let flags = draw.one(&[0, 1, 0x11, 0x13, 0x91, 0xf3]);
            let _ = ram.store(at + 8, load(at + 8) | flags);
        }
        // An entry of a first stage.
        if word & 0xfff == 7 && draw.once_in(4) {
            let (clear, set) = draw.one(&[(4, 0), (2, 0), (6, 0), (0, 1 << 63), (0, 1 << 10)]);
            let _ = ram.store(at, word & !clear | set);
        }
    }
}

/// Whether the unit has all that a process needs.
fn processes_work(machine: &Machine) -> bool {
    let ecap = machine.with_unit(0, |unit, _, _| unit.capabilities().ecap());
    ecap.fsts() && ecap.pasid() && ecap.smpwcs() && ecap.dt()
}

/// A unit with some abilities and without others, and endpoints.
fn configuration(draw: &mut Draw) -> MachineConfig {
    loop {
        let mut unit = machine::unit();
        unit.version = (draw.one(&[1, 4, 6, 7]), 0);
        unit.host_address_width = draw.one(&[39, 46, 52]);
        unit.second_stage_width = draw.one(&[
            AddressWidth::Bits39,
            AddressWidth::Bits48,
            AddressWidth::Bits57,
        ]);
        unit.large_pages = draw.one(&[LargePages::None, LargePages::TwoMib, LargePages::OneGib]);
        unit.domain_id_width = draw.one(&[4, 8, 16]);
        unit.caching_mode = draw.once_in(4);
        unit.protected_memory = draw.once_in(4);
        unit.fault_records = draw.one(&[1, 2, 8, 14]);
        unit.caches = CacheSizes {
            contexts: draw.one(&[1, 16]),
            pasids: draw.one(&[1, 3, 64]),
            iotlb: draw.one(&[8, 64]),
            interrupts: draw.one(&[1, 16]),
        };
        if draw.once_in(8) {
            unit.device_tlbs = None;
        }
        if let Some(interrupts) = &mut unit.interrupt_remapping {
            interrupts.posted = draw.once_in(3);
            interrupts.extended_mode = !draw.once_in(4);
        }
        match &mut unit.scalable {
            Some(_) if draw.once_in(8) => unit.scalable = None,
            Some(scalable) => {
                scalable.rid_pasid = !draw.once_in(8);
                scalable.supervisor_requests = !draw.once_in(4);
                if let Some(pasids) = &mut scalable.pasids {
                    pasids.execute_requests = draw.once_in(3);
                    pasids.width = PasidWidth::new(draw.one(&[8, 20])).unwrap_or(PasidWidth::MAX);
                }
            }
            None => {}
        }
        if vtd::Capabilities::new(unit).is_err() {
            continue;
        }
        let endpoint = svm_endpoint::Config {
            contexts: draw.one(&[1, 4]),
            atc_entries: draw.one(&[4, 64]),
            pasid_width: PasidWidth::MAX,
            pri_capacity: draw.one(&[1, 16, 512]),
            laboratory: true,
            ..svm_endpoint::Config::default()
        };
        return MachineConfig {
            memory: MEMORY,
            units: vec![unit],
            functions: Vec::new(),
        }
        .function(0, endpoint)
        .function(0, endpoint);
    }
}

/// Gives the operating system processes and domains. Returns the PASIDs.
fn furnish(os: &Os, mode: Mode, draw: &mut Draw) -> Vec<Pasid> {
    let machine = os.machine();
    let mut pasids = Vec::new();
    for function in 0..machine.functions() {
        let driver = Driver::probe(os, function);
        let domain = Domain::attach(os, function);
        for page in 0..PAGES {
            domain.map(
                0x40_0000 + page * 4096,
                12,
                os.frames().allocate(),
                page % 3 != 0,
            );
        }
        // Where the unit has no large pages, this is a reserved bit, and as good.
        domain.map(LARGE_PAGES[1], 21, LARGE, true);
        if mode == Mode::Scalable && processes_work(machine) {
            for context in 0..2u16.min(machine.endpoint(function).config().contexts) {
                let layout = Layout {
                    five_levels: draw.once_in(3),
                    nested: draw.once_in(3).then_some(Nesting::Large),
                };
                let process = os.process_with(layout);
                pasids.push(process.pasid());
                process.map(ARENA, PAGES / 2 * 4096);
                process.map_frame(LARGE_PAGES[0], 21, LARGE);
                process.map_absent(ARENA + PAGES / 2 * 4096, PAGES / 2 * 4096);
                drop(App::start_with(&driver, process, context, 4));
            }
        }
    }
    pasids
}
