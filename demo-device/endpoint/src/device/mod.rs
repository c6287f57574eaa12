// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device's state, all of it behind one lock, and the handling of requests from upstream:
//! register accesses, invalidations, resets. It makes no outside calls.

mod atc_fill;
mod experiments;
pub(crate) mod page_requests;
pub(crate) mod resolve;
mod translation_requests;
mod work;

use crate::atc::{Atc, Scope, Space};
use crate::config::Config;
use crate::config_space::{self, ConfigSpace, Power};
use crate::context::{Context, State};
use crate::counters::{Counters, index};
use crate::flight::Flights;
use crate::laboratory::Laboratory;
use crate::mutant::Mutant;
use crate::operation::OPERATIONS;
use crate::page_groups::{Groups, Owner};
use crate::permit::{Life, Permit};
use crate::registers::{Part, Register};
use crate::set::Set;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::turn::Buffers;
use crate::witness::SharedLog;
use pcie_ats::capability::PriChange;
use pcie_ats::{AlignedRange, InvalidateRequest, Invalidation, Pasid, PasidWidth, Reset};
use svm_abi::doorbell;
use svm_abi::ids::{ABI_VERSION, IDENT_MAGIC, MAX_BATCH_LOG2, MAX_RING_LOG2, MAX_TRANSFER_LOG2};
use svm_abi::registers::{capabilities, context, control, device, function, halt, laboratory};

/// The device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) config: Config,
    pub(crate) space: ConfigSpace,
    pub(crate) contexts: Vec<Context>,
    laboratory: Option<Laboratory>,
    pub(crate) atc: Atc,
    pub(crate) groups: Groups,
    flights: Flights,
    counters: Counters,
    /// Contexts that may have something to do. A context with work is always a member, unless it is
    /// busy.
    pub(crate) ready: Set,
    /// Contexts that have a turn now, in some thread.
    busy: Set,
    /// Contexts that have pages to request but no credit.
    starved: Set,
    /// Contexts that may wait for a time. A context that does is always a member.
    timed: Set,
    /// Contexts that were in the middle of an action when its permission was withdrawn: one request
    /// of each may still be in flight.
    unsettled: Set,
    /// Where the search for the next turn begins.
    cursor: usize,
    /// Buffers that no thread uses.
    #[expect(
        clippy::vec_box,
        reason = "they stay where they are when a turn takes them"
    )]
    buffers: Vec<Box<Buffers>>,
    /// Changes whenever the PASIDs in use may have changed.
    pasid_generation: Arc<AtomicU64>,
    /// Withdrawn when requests that were decided on must not be sent any more.
    permit: Arc<Permit>,
    /// The rule that the laboratory makes the device break.
    pub(crate) mutant: Option<Mutant>,
}

impl Device {
    /// The device after power-up.
    pub fn new(
        config: &Config,
        pasid_generation: Arc<AtomicU64>,
        permit: Arc<Permit>,
        log: SharedLog,
    ) -> Self {
        let contexts = usize::from(config.contexts);
        Device {
            config: *config,
            space: ConfigSpace::new(config),
            contexts: (0..contexts)
                .map(|n| Context::new(Life::new(permit.clone(), n)))
                .collect(),
            laboratory: config.laboratory.then(|| Laboratory::new(log)),
            atc: Atc::new(config.atc_entries, config.atc_ways),
            groups: Groups::new(),
            flights: Flights::new(contexts + 1),
            counters: Counters::default(),
            ready: Set::default(),
            busy: Set::default(),
            starved: Set::default(),
            timed: Set::default(),
            unsettled: Set::default(),
            cursor: 0,
            buffers: Vec::new(),
            pasid_generation,
            permit,
            mutant: None,
        }
    }

    /// Whether a mutant is active.
    pub(crate) fn breaks(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
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

    /// Number of translations of 2^`shift` bytes in the cache.
    pub fn cached(&self, shift: u8) -> u32 {
        self.atc.count(shift)
    }

    /// The PASIDs in use, without duplicates.
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
    pub fn read_register(&mut self, register: Register) -> u64 {
        if self.space.power != Power::D0 {
            return !0;
        }
        match register {
            Register::Laboratory(laboratory::MUTANT) => {
                self.mutant.map_or(0, |mutant| mutant.rule().into())
            }
            Register::Laboratory(laboratory::WORK) => {
                (self.laboratory.is_some() && !self.ready.is_empty()).into()
            }
            Register::Device(offset) => self.read_device(offset),
            Register::DeviceCounter(offset) => self.counters.read(offset),
            Register::Laboratory(offset) => {
                self.laboratory.as_ref().map_or(0, |lab| lab.read(offset))
            }
            Register::Context(n, offset) => {
                let value = self.contexts[n].read(offset);
                match (&mut self.laboratory, offset) {
                    (Some(lab), context::STATUS) => lab.silence.answer(value),
                    _ => value,
                }
            }
            Register::ContextCounter(n, offset) => self.contexts[n].counters.read(offset),
            Register::Doorbell(n, offset) => match offset {
                doorbell::TAIL => self.contexts[n].read(context::TAIL),
                doorbell::HEAD => self.contexts[n].read(context::HEAD),
                doorbell::STATUS => self.contexts[n].read(context::STATUS),
                doorbell::LOST => self.contexts[n].read(context::LOST),
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
                    MAX_BATCH_LOG2,
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
                    | bit(self.space.pasid.execute_enable, function::EXECUTE)
                    | bit(self.space.pasid.privileged_enable, function::PRIVILEGED)
            }
            _ => 0,
        }
    }

    /// Writes a part of a register.
    pub fn write_register(&mut self, register: Register, part: Part, value: u64) {
        if self.space.power != Power::D0 {
            return;
        }
        match register {
            Register::Laboratory(laboratory::MUTANT) if self.laboratory.is_some() => {
                let rule = part.merge(self.read_register(register), value);
                let mutant = Mutant::of_rule(rule);
                if rule == 0 || mutant.is_some() {
                    self.mutant = mutant;
                }
            }
            Register::Context(n, context::CONTROL) => match part.merge(0, value) {
                control::START => self.start(n),
                control::STOP => self.stop(n),
                _ => {}
            },
            Register::Context(n, offset) => {
                let context = &mut self.contexts[n];
                context.write(offset, part.merge(context.read(offset), value));
                if context.interrupt {
                    self.ready.insert(n);
                }
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
            let with_pasid = self.contexts[n].needs_pasid();
            let operational = self.space.may_start(with_pasid, self.mutant);
            let width = match self.breaks(Mutant::Rule07) {
                true => PasidWidth::MAX,
                false => self.config.pasid_width,
            };
            let privileged = self.space.pasid.privileged_enable;
            self.contexts[n].start(width, privileged, operational);
            self.pasids_changed();
        }
    }

    /// STOP of a context.
    fn stop(&mut self, n: usize) {
        if let (Some(lab), true) = (
            &mut self.laboratory,
            self.contexts[n].state != State::Disabled,
        ) {
            lab.silence.begin();
        }
        if self.contexts[n].state != State::Disabled && !self.breaks(Mutant::Stop65) {
            let stopping = self.contexts[n].state == State::Stopping;
            let marker = stopping && self.contexts[n].marker;
            self.contexts[n].cancel_work();
            self.contexts[n].marker = marker;
            self.contexts[n].state = State::Stopping;
            self.starved.remove(n);
            if !stopping {
                self.want_stop_marker(n);
            }
            self.finish_stop(n);
        }
    }

    /// If the last context of a PASID stops, plans a stop marker instead of waiting for responses
    /// (PCIe 10.4.1.2). The device then ignores these responses.
    fn want_stop_marker(&mut self, n: usize) {
        let pasid = self.contexts[n].pasid();
        let shared = |(m, other): (usize, &Context)| m != n && other.pasid() == pasid;
        if !self.config.stop_markers
            || pasid.is_none()
            || !self.pri_accepts()
            || !self.space.operational(None)
            || self.contexts.iter().enumerate().any(shared)
        {
            return;
        }
        let owned = |owner: &Owner| matches!(owner, Owner::Context { index, .. } if *index == n);
        self.groups.give_up(owned);
        self.contexts[n].groups = 0;
        self.contexts[n].marker = true;
        self.ready.insert(n);
    }

    /// Ends STOPPING when the context has nothing outstanding any more.
    fn finish_stop(&mut self, n: usize) {
        let waits = self.contexts[n].groups != 0 && !self.breaks(Mutant::Rule65);
        let context = &mut self.contexts[n];
        if context.state != State::Stopping || waits || context.marker || self.busy.contains(n) {
            return;
        }
        let space = context.space();
        context.state = State::Disabled;
        if let (Some(pasid), false) = (space, self.breaks(Mutant::Rule66)) {
            if !self.contexts.iter().any(|other| other.space() == space) {
                self.atc.invalidate(Scope::One(pasid), AlignedRange::ALL);
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
        let depth = offset == config_space::ATS + 4 && self.breaks(Mutant::Rule02);
        self.space.read(offset, self.mutant) | u32::from(depth)
    }

    /// Writes a double word of configuration space, with all its effects.
    pub fn config_write(&mut self, offset: u16, value: u32, mask: u32) {
        let before = self.space;
        let change = self.space.write(offset, value, mask, self.mutant);
        if (before.ats.enable != self.space.ats.enable
            || before.pasid.enable != self.space.pasid.enable)
            && !self.breaks(Mutant::Rule10)
        {
            // Rules 10 and 46: an implicit invalidation.
            self.atc.clear();
            self.flights.overtake_all();
        }
        if !before.ats.enable && self.space.ats.enable {
            for context in &mut self.contexts {
                context.refused = false;
            }
        }
        self.configuration_changed(&before);
        match change {
            PriChange::None => {}
            PriChange::Enabled | PriChange::Disabled => {
                self.pri_settles();
                self.ready.extend(&self.starved);
                self.starved = Set::default();
            }
            PriChange::Reset => {
                self.permit.withdraw_pages();
                self.forget_groups();
            }
        }
    }

    /// Changes the power state.
    pub fn set_power(&mut self, power: Power) {
        let before = self.space;
        self.space.power = power;
        self.configuration_changed(&before);
        if power == Power::D0 {
            // Interrupts of halts wait for this.
            for n in 0..self.contexts.len() {
                self.ready.insert(n);
            }
        }
    }

    /// Handles a change of the configuration: the function may have lost what it needs to work.
    fn configuration_changed(&mut self, before: &ConfigSpace) {
        let mutant = self.mutant;
        for n in 0..self.contexts.len() {
            let works = |space: &ConfigSpace| match self.contexts[n].needs_pasid() {
                true => space.operational(mutant),
                false => space.translates(mutant),
            };
            if self.contexts[n].state == State::Enabled && works(before) && !works(&self.space) {
                self.halt(n, halt::FUNCTION_DISABLED);
            }
        }
        let lost = |what: fn(&ConfigSpace) -> bool| what(before) && !what(&self.space);
        if lost(|space| space.operational(None))
            || lost(|space| space.translates(None))
            || lost(|space| space.may_send(None))
        {
            if self.space.operational(self.mutant) {
                // The mutant breaks the rule.
                return;
            }
            self.withdraw_permits();
            for n in 0..self.contexts.len() {
                // The function cannot send a marker any more.
                self.contexts[n].marker = false;
                self.finish_stop(n);
            }
        }
    }

    /// Nothing that was decided on before may be sent any more, except requests that are already
    /// being sent.
    fn withdraw_permits(&mut self) {
        self.permit.withdraw();
        self.unsettled.extend(&self.busy);
    }

    /// Whether nothing is in flight that was decided on before a reset, or before bus mastering,
    /// ATS or PASID was disabled.
    pub fn quiesced(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Whether such a change overtook the action of a context.
    pub fn is_unsettled(&self, member: usize) -> bool {
        self.unsettled.contains(member)
    }

    /// The action that was overtaken has ended.
    pub fn settled(&mut self, member: usize) {
        self.unsettled.remove(member);
    }

    /// Receives an invalidation request (PCIe 10.3).
    pub fn invalidate(&mut self, request: &InvalidateRequest) -> Invalidation {
        self.counters.add(index::INVALIDATIONS, 1);
        let answer = self.invalidate_range(request);
        let silent = match self.mutant {
            Some(Mutant::Rule38) => return Invalidation::Completed,
            Some(Mutant::Rule42) => self.groups.outstanding() > 0,
            Some(Mutant::Rule43) => !self.space.ats.enable,
            Some(Mutant::Rule44) => true,
            _ => false,
        };
        if silent {
            Invalidation::Pending
        } else {
            answer
        }
    }

    fn invalidate_range(&mut self, request: &InvalidateRequest) -> Invalidation {
        let received = self.counters.read(8 * index::INVALIDATIONS as u64);
        if self.breaks(Mutant::Rule47) || self.breaks(Mutant::Rule48) && received % 64 == 0 {
            self.count_invalidation(request.pasid, 0);
            return Invalidation::Completed;
        }
        let everywhere = self.breaks(Mutant::Rule36);
        let scope = if (request.global || everywhere) && !self.breaks(Mutant::Rule45) {
            for pasid in self.pasids() {
                self.invalidate_space(Some(pasid), request.range);
            }
            self.invalidate_space(None, request.range);
            let others = self.atc.invalidate(Scope::Every, request.range);
            self.counters
                .add(index::INVALIDATED_ENTRIES, u64::from(others));
            Scope::Every
        } else {
            self.invalidate_space(request.pasid, request.range);
            Scope::One(request.pasid)
        };
        self.flights.invalidate(scope, request.range, request.itag)
    }

    /// Drops the entries of one PASID, or of requests without one, and counts them for it.
    fn invalidate_space(&mut self, pasid: Option<Pasid>, range: AlignedRange) {
        let entries = match self.mutant {
            Some(Mutant::Rule37) => self.atc.forget_exactly(Space::new(pasid, false), range),
            Some(Mutant::Join37) => self.atc.forget_within(Space::new(pasid, false), range),
            _ => self.atc.invalidate(Scope::One(pasid), range),
        };
        self.count_invalidation(pasid, entries);
    }

    /// Counts an invalidation for one PASID, or for requests without one.
    fn count_invalidation(&mut self, pasid: Option<Pasid>, entries: u32) {
        self.counters
            .add(index::INVALIDATED_ENTRIES, u64::from(entries));
        for context in &mut self.contexts {
            if context.space() == Some(pasid) {
                context.counters.add(index::INVALIDATIONS, 1);
                context
                    .counters
                    .add(index::INVALIDATED_ENTRIES, u64::from(entries));
            }
        }
    }

    /// Restores the state after power-up. Requests in flight stay known until they have ended: they
    /// are cancelled, but invalidations still wait for them.
    pub fn reset(&mut self, kind: Reset) {
        self.withdraw_permits();
        self.space = ConfigSpace::new(&self.config);
        if !self.breaks(Mutant::Rule67) {
            for context in &mut self.contexts {
                context.reset();
            }
        }
        if let Some(lab) = &mut self.laboratory {
            lab.reset(kind);
        }
        if !self.breaks(Mutant::Rule46) {
            self.atc.clear();
        }
        self.flights.overtake_all();
        self.groups.clear();
        self.counters = Counters::default();
        self.ready = Set::default();
        self.starved = Set::default();
        self.cursor = 0;
        if kind == Reset::Conventional {
            self.mutant = None;
        }
        self.pasids_changed();
    }
}
