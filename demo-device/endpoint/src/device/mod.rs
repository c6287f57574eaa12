// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device's state, all of which is behind one lock, and what comes down to it: accesses of its
//! registers, invalidations, resets. It calls nobody.

mod pages;
mod work;

use crate::atc::{Atc, Scope};
use crate::config::Config;
use crate::config_space::ConfigSpace;
use crate::context::{Context, State};
use crate::counters::{Counters, index};
use crate::dma::Scratch;
use crate::flight::Flights;
use crate::laboratory::Laboratory;
use crate::operation::OPERATIONS;
use crate::pri::Groups;
use crate::registers::{Part, Register};
use crate::set::Set;
use crate::sync::{Arc, AtomicU64, Ordering};
use pcie_ats::capability::PriChange;
use pcie_ats::{AlignedRange, InvalidateRequest, Invalidation, Pasid};
use svm_abi::doorbell;
use svm_abi::ids::{ABI_VERSION, IDENT_MAGIC, MAX_RING_LOG2, MAX_TRANSFER_LOG2};
use svm_abi::registers::{capabilities, context, control, device, function, halt};

/// The device.
#[derive(Debug)]
pub(crate) struct Device {
    config: Config,
    space: ConfigSpace,
    contexts: Vec<Context>,
    laboratory: Option<Laboratory>,
    atc: Atc,
    groups: Groups,
    flights: Flights,
    counters: Counters,
    /// Contexts that may have something to do. One that has is always in it, unless it is busy.
    ready: Set,
    /// Contexts whose turn it is, in some thread.
    busy: Set,
    /// Contexts that have pages to request and no credit for them.
    starved: Set,
    /// Where the search for the next turn begins.
    cursor: usize,
    /// Buffers that no thread uses.
    scratch: Vec<Scratch>,
    /// Changes whenever the PASIDs in use may have changed.
    pasid_generation: Arc<AtomicU64>,
}

impl Device {
    /// The device after power-up.
    pub fn new(config: &Config, pasid_generation: Arc<AtomicU64>) -> Self {
        let contexts = usize::from(config.contexts);
        Device {
            config: *config,
            space: ConfigSpace::new(config),
            contexts: (0..contexts).map(|_| Context::new()).collect(),
            laboratory: config.laboratory.then(Laboratory::new),
            atc: Atc::new(config.atc_entries),
            groups: Groups::new(),
            flights: Flights::new(contexts + 1),
            counters: Counters::default(),
            ready: Set::default(),
            busy: Set::default(),
            starved: Set::default(),
            cursor: 0,
            scratch: Vec::new(),
            pasid_generation,
        }
    }

    /// The member of the sets that stands for the laboratory.
    fn laboratory_index(&self) -> usize {
        self.contexts.len()
    }

    /// Counts for the device and for a context.
    fn count(&mut self, member: usize, which: usize, more: u64) {
        self.counters.add(which, more);
        if let Some(context) = self.contexts.get_mut(member) {
            context.counters.add(which, more);
        }
    }

    /// The PASIDs in use, each once.
    pub fn pasids(&self) -> Vec<Pasid> {
        let mut pasids: Vec<_> = self.contexts.iter().filter_map(Context::pasid).collect();
        pasids.sort_unstable();
        pasids.dedup();
        pasids
    }

    fn pasids_changed(&self) {
        self.pasid_generation.fetch_add(1, Ordering::Release);
    }

    /// Reads a register.
    pub fn read_register(&self, register: Register) -> u64 {
        match register {
            Register::Device(offset) => self.read_device(offset),
            Register::DeviceCounter(offset) => self.counters.read(offset),
            Register::Laboratory(offset) => {
                self.laboratory.as_ref().map_or(0, |lab| lab.read(offset))
            }
            Register::Context(n, offset) => self.contexts[n].read(offset),
            Register::ContextCounter(n, offset) => self.contexts[n].counters.read(offset),
            Register::Doorbell(n, offset) => match offset {
                doorbell::TAIL => self.contexts[n].read(context::TAIL),
                doorbell::HEAD => self.contexts[n].read(context::HEAD),
                doorbell::STATUS => self.contexts[n].read(context::STATUS),
                _ => 0,
            },
        }
    }

    fn read_device(&self, offset: u64) -> u64 {
        let bit = |condition: bool, bit: u64| if condition { bit } else { 0 };
        match offset {
            device::IDENT => u64::from(IDENT_MAGIC) << 32 | u64::from(ABI_VERSION),
            device::CAPABILITIES => {
                capabilities::encode(
                    self.config.contexts,
                    self.config.vectors(),
                    MAX_RING_LOG2,
                    MAX_TRANSFER_LOG2,
                ) | bit(self.laboratory.is_some(), capabilities::LABORATORY)
            }
            device::OPERATIONS => OPERATIONS,
            device::RESOURCES => {
                u64::from(self.config.atc_entries) | u64::from(self.config.pri_capacity) << 32
            }
            device::FUNCTION => {
                bit(self.space.bus_master, function::BUS_MASTER)
                    | bit(self.space.ats.enable, function::ATS)
                    | bit(self.space.pri.enable, function::PRI)
                    | bit(self.space.pasid.enable, function::PASID)
            }
            _ => 0,
        }
    }

    /// Writes a part of a register.
    pub fn write_register(&mut self, register: Register, part: Part, value: u64) {
        match register {
            Register::Context(n, context::CONTROL) => match part.merge(0, value) {
                control::START => self.start(n),
                control::STOP => self.stop(n),
                _ => {}
            },
            Register::Context(n, offset) => {
                let context = &mut self.contexts[n];
                context.write(offset, part.merge(context.read(offset), value));
            }
            Register::Doorbell(n, doorbell::TAIL)
                if part == Part::Whole && self.contexts[n].state == State::Enabled =>
            {
                self.contexts[n].ring_doorbell(value);
                self.ready.insert(n);
            }
            Register::Laboratory(offset) => {
                let member = self.laboratory_index();
                if let Some(lab) = &mut self.laboratory {
                    lab.write(offset, part.merge(lab.read(offset), value));
                    if lab.is_pending() {
                        self.ready.insert(member);
                    }
                }
            }
            _ => {}
        }
    }

    /// START of a context.
    fn start(&mut self, n: usize) {
        if self.contexts[n].state == State::Disabled {
            let operational = self.space.operational();
            self.contexts[n].start(self.config.pasid_width, operational);
            self.pasids_changed();
        }
    }

    /// STOP of a context.
    fn stop(&mut self, n: usize) {
        if self.contexts[n].state != State::Disabled {
            self.contexts[n].void();
            self.contexts[n].state = State::Stopping;
            self.starved.remove(n);
            self.settle(n);
        }
    }

    /// Ends STOPPING when nothing of the context is outstanding any more.
    fn settle(&mut self, n: usize) {
        let context = &mut self.contexts[n];
        if context.state != State::Stopping || context.groups != 0 || self.busy.contains(n) {
            return;
        }
        let pasid = context.pasid();
        context.state = State::Disabled;
        if let Some(pasid) = pasid {
            if !self
                .contexts
                .iter()
                .any(|other| other.pasid() == Some(pasid))
            {
                self.atc
                    .invalidate(Scope::One(Some(pasid)), AlignedRange::ALL);
            }
        }
        self.pasids_changed();
    }

    /// Halts a context.
    fn halt(&mut self, n: usize, why: u8) {
        self.contexts[n].halt(why);
        self.starved.remove(n);
        self.ready.insert(n);
    }

    /// Reads a double word of configuration space.
    pub fn config_read(&self, offset: u16) -> u32 {
        self.space.read(offset)
    }

    /// Writes a double word of configuration space, with all that follows from it.
    pub fn config_write(&mut self, offset: u16, value: u32, mask: u32) {
        let before = self.space;
        let change = self.space.write(offset, value, mask);
        if before.ats.enable != self.space.ats.enable
            || before.pasid.enable != self.space.pasid.enable
        {
            // Rules 10 and 46: an implicit invalidation.
            self.atc.clear();
            self.flights.overtake_all();
        }
        if before.operational() && !self.space.operational() {
            for n in 0..self.contexts.len() {
                if self.contexts[n].state == State::Enabled {
                    self.halt(n, halt::FUNCTION_DISABLED);
                }
            }
        }
        match change {
            PriChange::None => {}
            PriChange::Enabled | PriChange::Disabled => {
                self.pri_settles();
                self.ready.extend(&self.starved);
                self.starved = Set::default();
            }
            PriChange::Reset => self.forget_groups(),
        }
    }

    /// Receives an invalidation request (PCIe 10.3).
    pub fn invalidate(&mut self, request: &InvalidateRequest) -> Invalidation {
        self.counters.add(index::INVALIDATIONS, 1);
        let scope = if request.global {
            for pasid in self.pasids() {
                self.invalidate_pasid(pasid, request.range);
            }
            let others = self.atc.invalidate(Scope::Every, request.range);
            self.counters
                .add(index::INVALIDATED_ENTRIES, u64::from(others));
            Scope::Every
        } else {
            if let Some(pasid) = request.pasid {
                self.invalidate_pasid(pasid, request.range);
            }
            Scope::One(request.pasid)
        };
        self.flights.invalidate(scope, request.range, request.itag)
    }

    /// Drops the entries of one PASID, and counts them for it.
    fn invalidate_pasid(&mut self, pasid: Pasid, range: AlignedRange) {
        let entries = self.atc.invalidate(Scope::One(Some(pasid)), range);
        self.counters
            .add(index::INVALIDATED_ENTRIES, u64::from(entries));
        for context in &mut self.contexts {
            if context.pasid() == Some(pasid) {
                context.counters.add(index::INVALIDATIONS, 1);
                context
                    .counters
                    .add(index::INVALIDATED_ENTRIES, u64::from(entries));
            }
        }
    }

    /// Everything becomes as after power-up, except that what is on its way stays known until it
    /// has ended: it is void, and invalidations wait for it all the same.
    pub fn reset(&mut self) {
        self.space = ConfigSpace::new(&self.config);
        for context in &mut self.contexts {
            context.reset();
        }
        if let Some(lab) = &mut self.laboratory {
            lab.reset();
        }
        self.atc.clear();
        self.flights.overtake_all();
        self.groups.clear();
        self.counters = Counters::default();
        self.ready = Set::default();
        self.starved = Set::default();
        self.cursor = 0;
        self.pasids_changed();
    }
}
