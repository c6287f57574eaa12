// SPDX-License-Identifier: GPL-2.0-or-later
//! The unit in its lock, and what it asks for, carried out.
//!
//! The lock is a leaf: nothing is called while it is held but the unit itself, which reads and
//! writes guest memory. What the unit asks for is carried out afterwards, with the BQL held: at
//! once by a thread that has it, else by the main loop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use pcie_ats::{AlignedRange, InvalidateCompletion, InvalidateRequest, PageRequest};
use vtd::recording::{RecordedUnit, Sink};
use vtd::spec::SourceId;
use vtd::spec::descriptor::IotlbScope;
use vtd::{Capabilities, Effect, Effects, Invalidated, Reach, ReachPart};

use super::clients::Clients;
use super::copies::{Dirty, Span};
use super::guest_memory::GuestMemory;
use super::interrupts;
use super::main_loop;
use super::queue::Bell;
use super::settings::Settings;
use super::spaces::{Bus, Spaces};
use crate::abi::layout::{NOTIFIER_DEVIOTLB_UNMAP, NOTIFIER_UNMAP};
use crate::abi::qemu;
use crate::bql::{self, Bql};
use crate::memory::Mmio;
use crate::message;
use crate::qom::Neighbour;
use crate::timer::{self, Timer};

/// The unit of a machine. It is never freed.
pub struct Host {
    unit: Mutex<RecordedUnit>,
    /// The unit's object in QEMU.
    device: Neighbour,
    /// The bus from which all functions are reached.
    root: Bus,
    /// The address spaces of functions.
    pub spaces: Spaces,
    /// The clients that hear what the unit sends to functions.
    pub clients: Clients,
    /// The invalidation queue has something to do.
    queue_ready: AtomicBool,
    /// It is being processed.
    queue_busy: AtomicBool,
    /// The thread that processes it, if there is one.
    bell: Option<Arc<Bell>>,
    /// Expires when an invalidation request times out.
    timeouts: OnceLock<Timer>,
    /// What clients with copies have not heard of yet.
    dirty: Mutex<Dirty>,
    lose_every: AtomicU64,
    completions: AtomicU64,
    /// Interrupts of the I/O APIC are validated by their source.
    pub validates_ioapic: bool,
}

impl Host {
    /// Makes a unit. None if QEMU's timers are not laid out as expected.
    pub fn new(
        bql: &Bql,
        capabilities: Capabilities,
        sink: Option<Sink>,
        settings: &Settings,
        device: Neighbour,
        root: Bus,
    ) -> Option<&'static Host> {
        let host: &'static Host = Box::leak(Box::new(Host {
            unit: Mutex::new(RecordedUnit::new(capabilities, sink)),
            device,
            root,
            spaces: Spaces::default(),
            clients: Clients::default(),
            queue_ready: AtomicBool::new(false),
            queue_busy: AtomicBool::new(false),
            bell: settings.thread.then(Arc::default),
            timeouts: OnceLock::new(),
            lose_every: AtomicU64::new(settings.lose_every),
            completions: AtomicU64::new(0),
            dirty: Mutex::default(),
            validates_ioapic: settings.strict,
        }));
        let timeouts = Timer::virtual_time(bql, Box::new(|_| host.time_passed()))?;
        // A new value, in which it is empty.
        let _ = host.timeouts.set(timeouts);
        Some(host)
    }

    /// The bell of the thread that processes the invalidation queue, if there is one.
    pub fn bell(&self) -> Option<&Arc<Bell>> {
        self.bell.as_ref()
    }

    /// Works with the unit, and has carried out what it asks for.
    pub fn with<R>(&'static self, work: impl FnOnce(&mut RecordedUnit, &mut Effects) -> R) -> R {
        let mut effects = Effects::new();
        let result = work(&mut self.lock(), &mut effects);
        self.deliver(effects);
        result
    }

    /// Whether translation is on.
    pub fn is_translating(&self) -> bool {
        self.lock().translation_enabled()
    }

    /// The width of addresses that functions may use.
    pub fn address_width(&self) -> u8 {
        let unit = self.lock();
        let capabilities = unit.capabilities();
        let second = capabilities.config().second_stage_width.bits();
        if capabilities.cap().fs5lp() {
            57
        } else {
            second
        }
    }

    /// The capabilities that matter to clients that watch address spaces: Caching Mode, Snoop
    /// Control and Device-TLBs.
    pub fn abilities(&self) -> (bool, bool, bool) {
        let unit = self.lock();
        let capabilities = unit.capabilities();
        let ecap = capabilities.ecap();
        (capabilities.cap().cm(), ecap.sc(), ecap.dt())
    }

    /// A part of what a function reaches, for clients that keep a copy of it. Others have the unit
    /// between two parts.
    pub fn reach(&self, requester: SourceId, span: Span) -> ReachPart {
        const READS: usize = 1 << 16;
        let unit = self.lock();
        unit.reach_part(&GuestMemory, requester, span.first, span.last, READS)
    }

    /// Whether a function is not translated.
    pub fn reaches_everything(&self, requester: SourceId) -> bool {
        let unit = self.lock();
        // No address is looked at, so that no flag is set.
        let part = unit.reach_part(&GuestMemory, requester, u64::MAX, 0, 0);
        part.reach == Reach::Everything
    }

    /// The bus from which all functions are reached.
    pub fn root(&self) -> Bus {
        self.root
    }

    /// Chooses which completions of invalidations are lost.
    pub fn lose_every(&self, number: u64) {
        self.lose_every.store(number, Ordering::Relaxed);
    }

    /// The machine was reset.
    pub fn reset(&'static self, bql: &Bql) {
        if let Some(timer) = self.timeouts.get() {
            timer.cancel(bql);
        }
        self.with(|unit, effects| unit.reset(effects));
    }

    /// A function has sent a page request.
    pub fn page_request(&'static self, requester: SourceId, request: &PageRequest) {
        self.with(|unit, effects| unit.page_request(&GuestMemory, requester, request, effects));
    }

    /// An invalidation request may have timed out.
    fn time_passed(&'static self) {
        self.with(|unit, effects| unit.advance(timer::virtual_now(), effects));
        self.await_timeouts();
    }

    /// Sets the timer to when the next invalidation request times out.
    fn await_timeouts(&self) {
        let next = self.lock().next_timeout();
        if let (Some(next), Some(timer)) = (next, self.timeouts.get()) {
            // Timers count whole microseconds.
            timer.set_at(next + Duration::from_micros(1));
        }
    }

    /// Does something with the BQL held: now, or in the main loop.
    fn with_bql(&'static self, work: impl FnOnce(&Bql) + Send + 'static) {
        if bql::is_held() {
            // SAFETY: as the line above says.
            work(&unsafe { Bql::held() });
        } else {
            main_loop::soon(work);
        }
    }

    /// Has carried out what the unit asks for.
    fn deliver(&'static self, effects: Effects) {
        if !effects.is_empty() {
            self.with_bql(move |bql| self.carry_out(bql, effects));
        }
    }

    fn carry_out(&'static self, bql: &Bql, effects: Effects) {
        for effect in effects {
            self.carry_out_one(bql, effect);
        }
        self.refresh_copies(bql);
        if self.queue_ready.swap(false, Ordering::AcqRel) {
            match &self.bell {
                Some(bell) => bell.ring(),
                None => self.process_queue(bql),
            }
        }
    }

    fn carry_out_one(&'static self, bql: &Bql, effect: Effect) {
        match effect {
            Effect::Interrupt(message) => interrupts::deliver(bql, message),
            Effect::InvalidateRequest { requester, request } => {
                self.invalidate(bql, requester, &request);
            }
            Effect::PrgResponse {
                requester,
                response,
            } => self.clients.respond(bql, requester.0, &response),
            Effect::QueueReady => self.queue_ready.store(true, Ordering::Release),
            Effect::TranslationEnabled(on) => self.spaces.translate(bql, on),
            Effect::InterruptRemappingEnabled(_) => self.routes_changed(bql, None),
            Effect::Invalidated(Invalidated::Interrupts(scope)) => self.routes_changed(bql, scope),
            Effect::Invalidated(Invalidated::Iotlb(scope)) => {
                let (domain, range) = match scope {
                    IotlbScope::Global => (None, AlignedRange::ALL),
                    IotlbScope::Domain(did) | IotlbScope::Pasid(did, _) => {
                        (Some(did), AlignedRange::ALL)
                    }
                    IotlbScope::DomainPages(did, range) | IotlbScope::PasidPages(did, _, range) => {
                        (Some(did), range)
                    }
                };
                // Clients do not know the domain of their translations: too much is
                // never wrong.
                self.spaces.unmap(bql, NOTIFIER_UNMAP, None, range);
                self.dirty().translations(domain, Span::of(range));
            }
            // For clients that only drop what they have, an invalidation of translations follows
            // (sections 6.5.3.2 and 6.5.3.3).
            Effect::Invalidated(Invalidated::Context(_) | Invalidated::Pasid(_)) => {
                self.dirty().functions();
            }
            Effect::Refused(refusal) => message::guest_error(&format!("svm-vtd: {refusal}")),
        }
    }

    /// Brings the copies of clients up to date, once for all descriptors ahead of a wait: the unit
    /// does not process a wait together with them.
    fn refresh_copies(&self, bql: &Bql) {
        let dirty = std::mem::take(&mut *self.dirty());
        if !dirty.is_empty() {
            self.spaces.refresh(bql, &dirty);
        }
    }

    /// Processes the invalidation queue until it is empty or stopped, or waits for something.
    pub fn process_queue(&'static self, bql: &Bql) {
        if self.queue_busy.swap(true, Ordering::AcqRel) {
            // By a function that writes the unit's registers while it is being told something.
            self.queue_ready.store(true, Ordering::Release);
            return;
        }
        loop {
            let mut effects = Effects::new();
            let now = timer::virtual_now();
            self.lock().process_queue(&GuestMemory, now, &mut effects);
            for effect in effects {
                self.carry_out_one(bql, effect);
            }
            self.refresh_copies(bql);
            if !self.queue_ready.swap(false, Ordering::AcqRel) {
                break;
            }
        }
        self.queue_busy.store(false, Ordering::Release);
        self.await_timeouts();
    }

    /// Sends an invalidation request to a function. QEMU's devices have acted on it when they
    /// return; a function that is not there never completes it.
    fn invalidate(&'static self, bql: &Bql, requester: SourceId, request: &InvalidateRequest) {
        self.clients.invalidate(bql, requester.0, request);
        if request.pasid.is_none() {
            let (kind, function) = (NOTIFIER_DEVIOTLB_UNMAP, Some(requester.0));
            self.spaces.unmap(bql, kind, function, request.range);
        }
        if !self.root.has(bql, requester.0) || self.loses() {
            return;
        }
        let completion = InvalidateCompletion {
            itag_vector: 1 << request.itag.get(),
            completion_count: 1,
        };
        let mut effects = Effects::new();
        self.lock()
            .invalidate_completion(&GuestMemory, requester, &completion, &mut effects);
        for effect in effects {
            self.carry_out_one(bql, effect);
        }
    }

    /// Whether to lose this completion.
    fn loses(&self) -> bool {
        let number = self.completions.fetch_add(1, Ordering::Relaxed) + 1;
        let every = self.lose_every.load(Ordering::Relaxed);
        every != 0 && number % every == 0
    }

    /// Tells QEMU that messages which were remapped before are so no more.
    fn routes_changed(&self, _bql: &Bql, scope: Option<(u16, u8)>) {
        let (index, mask) = scope.unwrap_or_default();
        // SAFETY: the object is an x86 IOMMU, and exists as long as the machine.
        unsafe {
            (qemu().x86_iommu_iec_notify_all)(
                self.device.as_ptr(),
                scope.is_none(),
                index.into(),
                mask.into(),
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, RecordedUnit> {
        self.unit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registers of the unit.
pub struct RegisterFile(pub &'static Host);

impl Mmio for RegisterFile {
    fn read(&self, _bql: &Bql, offset: u64, size: u8) -> u64 {
        self.0.lock().read(offset as u16, size)
    }

    fn write(&self, _bql: &Bql, offset: u64, value: u64, size: u8) {
        self.0
            .with(|unit, effects| unit.write(offset as u16, value, size, effects));
    }
}
