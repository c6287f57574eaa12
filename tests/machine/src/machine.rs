// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine: what hangs together how, the clock, and the steps.
//!
//! Lock rules: the lock of a unit is held for one of its methods and nothing else; the lock of an
//! endpoint is its own. Neither is held while the other is called: effects of a unit are carried
//! out after its lock was released.

use crate::config::{MachineConfig, MachineError};
use crate::interrupts::{Interrupts, Sender};
use crate::link::{Down, Link};
use crate::memory::Ram;
use crate::moment::Moment;
use crate::msix::Msix;
use crate::shadow::Shadow;
use crate::sync::{Event, Mutex};
use pcie_ats::Function;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use svm_abi::ids;
use svm_endpoint::{Endpoint, Step};
use vtd::spec::SourceId;
use vtd::spec::interrupt::{Message, in_range};
use vtd::{Capabilities, Effect, Effects, Unit};

/// A unit with what belongs to it.
pub(crate) struct UnitSlot {
    pub unit: Mutex<Unit>,
    /// [`Unit::changes`], for readers without the lock.
    changes: AtomicU64,
    /// The first address that no request may go to.
    end: u64,
    /// Copies of translations, which must hear of invalidations.
    pub shadows: Mutex<Vec<Weak<Shadow>>>,
    has_shadows: AtomicBool,
}

/// A function with what belongs to it.
pub(crate) struct FunctionSlot {
    pub requester: SourceId,
    pub unit: usize,
    pub endpoint: Endpoint,
    /// The unit's [`Unit::changes`] when it last granted translated requests.
    granted: AtomicU64,
    /// Its MSI-X.
    pub msix: Mutex<Msix>,
    pub link: Link,
    pub hook: Mutex<Option<Hook>>,
    pub has_hook: AtomicBool,
}

impl FunctionSlot {
    /// Whether the function's unit has granted its translated requests, and nothing has changed
    /// since: then these from `first` to `last` pass as well.
    #[inline(always)]
    pub(crate) fn is_granted(&self, unit: &UnitSlot, first: u64, last: u64) -> bool {
        self.knows(unit) && self.may_be_granted(unit, first, last)
    }

    /// The part of [`FunctionSlot::is_granted`] that changes.
    #[inline(always)]
    pub(crate) fn knows(&self, unit: &UnitSlot) -> bool {
        self.granted.load(Ordering::Acquire) == unit.changes.load(Ordering::Acquire)
    }

    /// The part that does not.
    #[inline(always)]
    pub(crate) fn may_be_granted(&self, unit: &UnitSlot, first: u64, last: u64) -> bool {
        last < unit.end && !in_range(first) && !in_range(last)
    }
}

/// What a machine consists of.
pub(crate) struct Inner {
    pub ram: Ram,
    pub units: Vec<UnitSlot>,
    pub functions: Vec<FunctionSlot>,
    by_requester: HashMap<SourceId, usize>,
    pub interrupts: Interrupts,
    /// The time, in nanoseconds.
    clock: AtomicU64,
    /// Something may be ready for an engine.
    pub work: Event,
    /// Something may be ready for software.
    pub news: Event,
    /// Engine threads.
    pub engines: AtomicUsize,
    /// Which function the deterministic stepping looks at first.
    cursor: AtomicUsize,
}

/// A machine; clones are the same machine.
#[derive(Clone)]
pub struct Machine(pub(crate) Arc<Inner>);

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("memory", &self.0.ram.bytes())
            .field("units", &self.0.units.len())
            .field("functions", &self.0.functions.len())
            .finish()
    }
}

/// Number of a function in [`MachineConfig::functions`].
pub type FunctionId = usize;

/// Something to be done at such moments.
pub type Hook = Box<dyn FnMut(&Machine, &Moment) + Send>;

/// Steps never came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the endpoints still have work after {0} steps: raise the limit if there is that much")]
pub struct Restless(pub usize);

impl Machine {
    /// Makes a machine, as after power-up.
    pub fn new(config: &MachineConfig) -> Result<Machine, MachineError> {
        let ram = Ram::new(config.memory)?;
        let mut units = Vec::new();
        for (unit, config) in config.units.iter().enumerate() {
            let caps =
                Capabilities::new(*config).map_err(|source| MachineError::Unit { unit, source })?;
            units.push(UnitSlot {
                changes: AtomicU64::new(0),
                end: 1 << caps.host_address_width(),
                unit: Mutex::new(Unit::new(caps)),
                shadows: Mutex::default(),
                has_shadows: AtomicBool::new(false),
            });
        }
        let mut functions = Vec::new();
        let mut by_requester = HashMap::new();
        for (number, function) in config.functions.iter().enumerate() {
            let requester = function.requester;
            if function.unit >= units.len() {
                return Err(MachineError::NoUnit {
                    requester,
                    unit: function.unit,
                    units: units.len(),
                });
            }
            if by_requester.insert(requester, number).is_some() {
                return Err(MachineError::SameRequester(requester));
            }
            let endpoint = Endpoint::new(function.endpoint)
                .map_err(|source| MachineError::Endpoint { requester, source })?;
            functions.push(FunctionSlot {
                requester,
                unit: function.unit,
                granted: AtomicU64::new(u64::MAX),
                msix: Mutex::new(Msix::new(endpoint.vectors())),
                endpoint,
                link: Link::default(),
                hook: Mutex::default(),
                has_hook: AtomicBool::new(false),
            });
        }
        Ok(Machine(Arc::new(Inner {
            ram,
            units,
            functions,
            by_requester,
            interrupts: Interrupts::default(),
            clock: AtomicU64::new(0),
            work: Event::default(),
            news: Event::default(),
            engines: AtomicUsize::new(0),
            cursor: AtomicUsize::new(0),
        })))
    }

    /// Guest memory.
    pub fn ram(&self) -> &Ram {
        &self.0.ram
    }

    /// The interrupts that were delivered.
    pub fn interrupts(&self) -> &Interrupts {
        &self.0.interrupts
    }

    /// Number of units.
    pub fn units(&self) -> usize {
        self.0.units.len()
    }

    /// Number of functions.
    pub fn functions(&self) -> usize {
        self.0.functions.len()
    }

    /// Requester id of a function.
    pub fn requester(&self, function: FunctionId) -> SourceId {
        self.0.functions[function].requester
    }

    /// Number of the unit that a function is behind.
    pub fn unit_of(&self, function: FunctionId) -> usize {
        self.0.functions[function].unit
    }

    /// A function's endpoint, to look at. What comes down to it goes through the machine, which
    /// then wakes the engines.
    pub fn endpoint(&self, function: FunctionId) -> &Endpoint {
        &self.0.functions[function].endpoint
    }

    /// What a function's link does to messages.
    pub fn link(&self, function: FunctionId) -> &Link {
        &self.0.functions[function].link
    }

    /// Has something done at each [`crate::Moment`] of a function's requests, until it is replaced;
    /// none for nothing. It is not called from inside itself, nor by two threads at once.
    pub fn set_hook(&self, function: FunctionId, hook: Option<Hook>) {
        let slot = &self.0.functions[function];
        slot.has_hook.store(hook.is_some(), Ordering::Release);
        *slot.hook.lock() = hook;
    }

    // What software does to functions.

    /// Reads a double word of a function's configuration space.
    pub fn config_read(&self, function: FunctionId, offset: u16) -> u32 {
        self.endpoint(function).config_read(offset)
    }

    /// Writes the bits of `mask` of a double word of a function's configuration space.
    pub fn config_write(&self, function: FunctionId, offset: u16, value: u32, mask: u32) {
        self.endpoint(function).config_write(offset, value, mask);
        // Messages wait for bus mastering as well.
        self.port(function).send_messages();
        self.0.work.signal();
    }

    /// Reads a register of a function.
    pub fn bar_read(&self, function: FunctionId, bar: u8, offset: u64, size: u8) -> u64 {
        if bar == ids::MSIX_BAR {
            return self.0.functions[function].msix.lock().read(offset, size);
        }
        self.endpoint(function).bar_read(bar, offset, size)
    }

    /// Writes a register of a function.
    pub fn bar_write(&self, function: FunctionId, bar: u8, offset: u64, value: u64, size: u8) {
        if bar == ids::MSIX_BAR {
            self.change_msix(function, |msix| msix.write(offset, value, size));
            return;
        }
        self.endpoint(function).bar_write(bar, offset, value, size);
        self.0.work.signal();
    }

    /// Resets a function.
    pub fn reset_function(&self, function: FunctionId, kind: pcie_ats::Reset) {
        self.endpoint(function).reset(kind);
        self.0.functions[function].msix.lock().reset();
        self.0.work.signal();
    }

    /// Sets the message of an MSI-X vector and unmasks it, with MSI-X enabled; none masks it.
    pub fn set_msix(&self, function: FunctionId, vector: u16, message: Option<Message>) {
        self.change_msix(function, |msix| {
            msix.set(vector, message);
            if message.is_some() {
                msix.set_control(true, false);
            }
        });
    }

    /// Sets MSI-X Enable and Function Mask of a function (PCIe 7.7.2.2).
    pub fn set_msix_control(&self, function: FunctionId, enabled: bool, masked: bool) {
        self.change_msix(function, |msix| msix.set_control(enabled, masked));
    }

    /// Changes a function's MSI-X, and sends what may be sent now.
    fn change_msix(&self, function: FunctionId, change: impl FnOnce(&mut Msix)) {
        change(&mut self.0.functions[function].msix.lock());
        self.port(function).send_messages();
    }

    // What software does to units.

    /// Reads 4 or 8 bytes of a unit's registers.
    pub fn unit_read(&self, unit: usize, offset: u16, size: u8) -> u64 {
        self.0.units[unit].unit.lock().read(offset, size)
    }

    /// Writes 4 or 8 bytes of a unit's registers, and carries out what follows.
    pub fn unit_write(&self, unit: usize, offset: u16, value: u64, size: u8) {
        self.with_unit(unit, |unit, _, fx| unit.write(offset, value, size, fx));
    }

    /// Calls something with a unit, memory and a list of effects; the effects are carried out
    /// after the unit's lock was released.
    pub fn with_unit<T>(
        &self,
        unit: usize,
        call: impl FnOnce(&mut Unit, &Ram, &mut Effects) -> T,
    ) -> T {
        let mut fx = Effects::new();
        let slot = &self.0.units[unit];
        let mut guard = slot.unit.lock();
        let result = call(&mut guard, &self.0.ram, &mut fx);
        slot.changes.store(guard.changes(), Ordering::Release);
        drop(guard);
        if !fx.is_empty() {
            self.carry_out(unit, fx);
        }
        result
    }

    /// Asks the unit of a function whether it grants its translated requests, and remembers it. The
    /// unit is locked.
    pub(crate) fn grant(&self, slot: &FunctionSlot, unit: &mut Unit) {
        if unit.grants_translated_requests(&self.0.ram, slot.requester) {
            slot.granted.store(unit.changes(), Ordering::Release);
        }
    }

    // Time.

    /// The time.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.0.clock.load(Ordering::SeqCst))
    }

    /// Lets time pass: nothing else does.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.clock.fetch_add(by, Ordering::SeqCst);
        let now = self.now();
        for unit in 0..self.units() {
            self.with_unit(unit, |unit, _, fx| unit.advance(now, fx));
        }
        for function in 0..self.functions() {
            self.tell_time(function);
        }
        self.0.work.signal();
        self.0.news.signal();
    }

    // Steps.

    /// Lets one endpoint that has something to do take one step; they take turns. Returns whether
    /// any had.
    pub fn step(&self) -> bool {
        let count = self.functions();
        if count == 0 {
            return false;
        }
        let first = self.0.cursor.load(Ordering::Relaxed);
        for n in 0..count {
            let function = (first + n) % count;
            if self.step_function(function) == Step::Worked {
                self.0
                    .cursor
                    .store((function + 1) % count, Ordering::Relaxed);
                return true;
            }
        }
        false
    }

    /// Lets an endpoint take one step.
    pub fn step_function(&self, function: FunctionId) -> Step {
        let step = self.endpoint(function).step(&self.port(function));
        if step == Step::Idle {
            // What it waits for begins now, and not only when time has passed.
            self.tell_time(function);
        }
        step
    }

    /// Tells an endpoint what time it is. When something is due next is no question: it comes when
    /// somebody lets the time pass.
    fn tell_time(&self, function: FunctionId) {
        let now = u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX);
        let _ = self.endpoint(function).tick(now);
    }

    /// Steps until no endpoint has anything to do, and returns how many steps that were.
    pub fn run_until_idle(&self, limit: usize) -> Result<usize, Restless> {
        for steps in 0..limit {
            if !self.step() {
                return Ok(steps);
            }
        }
        Err(Restless(limit))
    }

    // Effects.

    /// Carries out what a unit asks for. The caller holds no lock.
    pub(crate) fn carry_out(&self, unit: usize, fx: Effects) {
        let mut queue_ready = false;
        for effect in fx {
            match effect {
                Effect::Interrupt(message) => {
                    self.0.interrupts.deliver(Sender::Unit(unit), message);
                    self.0.news.signal();
                }
                Effect::InvalidateRequest { requester, request } => {
                    // One that reaches nobody is never completed.
                    if let Some(slot) = self.behind(unit, requester) {
                        self.send_down(slot, Down::Invalidate(request));
                    }
                }
                Effect::PrgResponse {
                    requester,
                    response,
                } => {
                    if let Some(slot) = self.behind(unit, requester) {
                        self.send_down(slot, Down::Respond(response));
                    }
                }
                Effect::QueueReady => queue_ready = true,
                Effect::Invalidated(what) => {
                    let slot = &self.0.units[unit];
                    if slot.has_shadows.load(Ordering::Acquire) {
                        // The list is not kept locked: a shadow waits for its users.
                        let shadows = slot.shadows.lock().clone();
                        for shadow in shadows.iter().filter_map(Weak::upgrade) {
                            shadow.invalidated(&what);
                        }
                    }
                }
                // Every request asks the unit, which knows.
                Effect::TranslationEnabled(_) | Effect::InterruptRemappingEnabled(_) => {}
                // Software sees it in the registers.
                Effect::VirtualCommand(_) | Effect::Refused(_) => {}
            }
        }
        if queue_ready {
            self.process_queue(unit);
        }
    }

    /// Processes a unit's invalidation queue, or leaves that to the thread that does so already:
    /// what one round asks for is carried out before the next one begins.
    fn process_queue(&self, unit: usize) {
        let slot = &self.0.units[unit];
        loop {
            let mut fx = Effects::new();
            let now = self.now();
            let mut guard = slot.unit.lock();
            let turn = guard.process_queue(&self.0.ram, now, &mut fx);
            slot.changes.store(guard.changes(), Ordering::Release);
            drop(guard);
            // Comes back here for QueueReady, and finds that it is not its turn.
            self.carry_out(unit, fx);
            if !slot.unit.lock().end_turn(turn) {
                break;
            }
        }
        self.0.news.signal();
    }

    /// The function of a requester id, if it is behind the unit.
    fn behind(&self, unit: usize, requester: SourceId) -> Option<&FunctionSlot> {
        let number = *self.0.by_requester.get(&requester)?;
        let slot = &self.0.functions[number];
        (slot.unit == unit).then_some(slot)
    }

    /// Tells a shadow of a unit's invalidations from now on.
    pub(crate) fn add_shadow(&self, unit: usize, shadow: &Arc<Shadow>) {
        let slot = &self.0.units[unit];
        let mut shadows = slot.shadows.lock();
        shadows.retain(|shadow| shadow.strong_count() != 0);
        shadows.push(Arc::downgrade(shadow));
        slot.has_shadows.store(true, Ordering::Release);
    }
}
