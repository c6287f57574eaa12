// SPDX-License-Identifier: GPL-2.0-or-later
//! Carries out the unit's effects, without the unit's lock and with the BQL held.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use pcie_ats::{AlignedRange, InvalidateCompletion, InvalidateRequest, PageRequest};
use vtd::recording::Sink;
use vtd::spec::SourceId;
use vtd::spec::descriptor::IotlbScope;
use vtd::{Capabilities, Effect, Effects, Invalidated};

use super::clients::Clients;
use super::copies::{Dirty, Span};
use super::function::Bus;
use super::guest_memory::GuestMemory;
use super::interrupts;
use super::settings::Settings;
use super::spaces::Spaces;
use super::unit::{CarryOut, LockedUnit};
use crate::abi::layout::{NOTIFIER_DEVIOTLB_UNMAP, NOTIFIER_UNMAP};
use crate::abi::qemu;
use crate::bell::Bell;
use crate::bql::Bql;
use crate::memory::Mmio;
use crate::message;
use crate::qom::Neighbour;
use crate::timer::{self, Timer};

/// The unit of a machine with everything that belongs to it. It is never freed.
pub struct Host {
    /// The unit.
    pub unit: LockedUnit,
    /// The unit's object in QEMU.
    device: Neighbour,
    /// The address spaces of functions.
    pub spaces: Spaces,
    /// The clients that receive the unit's messages to functions.
    pub clients: Clients,
    /// The invalidation queue has work.
    queue_ready: AtomicBool,
    /// The thread that processes it, if there is one.
    bell: Option<Arc<Bell>>,
    /// Expires when an invalidation request times out.
    timeouts: OnceLock<Timer>,
    /// Invalidations that clients with copies have not received yet.
    dirty: Mutex<Dirty>,
    lose_every: AtomicU64,
    completions: AtomicU64,
}

impl Host {
    /// Creates a unit. None if QEMU's timers do not have the expected layout.
    pub fn new(
        bql: &Bql,
        capabilities: Capabilities,
        sink: Option<Sink>,
        settings: &Settings,
        device: Neighbour,
        root: Bus,
    ) -> Option<&'static Host> {
        let host: &'static Host = Box::leak(Box::new(Host {
            unit: LockedUnit::new(capabilities, sink, root, settings.strict),
            device,
            spaces: Spaces::default(),
            clients: Clients::default(),
            queue_ready: AtomicBool::new(false),
            bell: settings.thread.then(Arc::default),
            timeouts: OnceLock::new(),
            lose_every: AtomicU64::new(settings.lose_every),
            completions: AtomicU64::new(0),
            dirty: Mutex::default(),
        }));
        host.unit.set_above(host);
        let timeouts = Timer::virtual_time(bql, Box::new(|_| host.time_passed()))?;
        // The value is new, so the cell is empty.
        let _ = host.timeouts.set(timeouts);
        Some(host)
    }

    /// The bell of the thread that processes the invalidation queue, if there is one.
    pub fn bell(&self) -> Option<&Arc<Bell>> {
        self.bell.as_ref()
    }

    /// Selects which completions of invalidations are lost.
    pub fn lose_every(&self, number: u64) {
        self.lose_every.store(number, Ordering::Relaxed);
    }

    /// Handles a reset of the machine.
    pub fn reset(&'static self, bql: &Bql) {
        if let Some(timer) = self.timeouts.get() {
            timer.cancel(bql);
        }
        self.unit.with(|unit, effects| unit.reset(effects));
    }

    /// Handles a page request of a function.
    pub fn page_request(&'static self, requester: SourceId, request: &PageRequest) {
        self.unit
            .with(|unit, effects| unit.page_request(&GuestMemory, requester, request, effects));
    }

    /// Handles the timer: an invalidation request may have timed out.
    fn time_passed(&'static self) {
        self.unit
            .with(|unit, effects| unit.advance(timer::virtual_now(), effects));
        self.await_timeouts();
    }

    /// Sets the timer to when the next invalidation request times out.
    fn await_timeouts(&self) {
        let next = self.unit.lock().next_timeout();
        if let (Some(next), Some(timer)) = (next, self.timeouts.get()) {
            // Timers count whole microseconds.
            timer.set_at(next + Duration::from_micros(1));
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
            Effect::Invalidated(Invalidated::Iotlb { scope, .. }) => {
                let (domain, range) = match scope {
                    IotlbScope::Global => (None, AlignedRange::ALL),
                    IotlbScope::Domain(did) | IotlbScope::Pasid(did, _) => {
                        (Some(did), AlignedRange::ALL)
                    }
                    IotlbScope::DomainPages(did, range) | IotlbScope::PasidPages(did, _, range) => {
                        (Some(did), range)
                    }
                };
                // Clients do not know the domain of their translations: invalidating too much is
                // always correct.
                self.spaces.unmap(bql, NOTIFIER_UNMAP, None, range);
                self.dirty().translations(domain, Span::of(range));
            }
            // An invalidation of translations follows for clients that only drop translations
            // (sections 6.5.3.2 and 6.5.3.3).
            Effect::Invalidated(Invalidated::Context(_) | Invalidated::Pasid(_)) => {
                self.dirty().functions();
            }
            // The configuration has no virtual commands.
            Effect::VirtualCommand(_) => {}
            Effect::Refused(refusal) => message::guest_error(&format!("svm-vtd: {refusal}")),
        }
    }

    /// Brings the clients' copies up to date, once for all descriptors ahead of a wait: the unit
    /// does not process a wait together with them.
    fn refresh_copies(&self, bql: &Bql) {
        let dirty = std::mem::take(&mut *self.dirty());
        if !dirty.is_empty() {
            self.spaces.refresh(bql, &dirty);
        }
    }

    /// Processes the invalidation queue until it is empty or stopped, or waits for something.
    pub fn process_queue(&'static self, bql: &Bql) {
        loop {
            let mut effects = Effects::new();
            let now = timer::virtual_now();
            let turn = self
                .unit
                .lock()
                .process_queue(&GuestMemory, now, &mut effects);
            if !turn.is_held() {
                // A function wrote the unit's registers while it was handling a message: the holder
                // of the turn continues.
                return;
            }
            for effect in effects {
                self.carry_out_one(bql, effect);
            }
            self.refresh_copies(bql);
            let asked = self.unit.lock().end_turn(turn);
            if !self.queue_ready.swap(false, Ordering::AcqRel) && !asked {
                break;
            }
        }
        self.await_timeouts();
    }

    /// Sends an invalidation request to a function. QEMU's devices have handled it when they
    /// return; an absent function never completes it.
    fn invalidate(&'static self, bql: &Bql, requester: SourceId, request: &InvalidateRequest) {
        self.clients.invalidate(bql, requester.0, request);
        if request.pasid.is_none() {
            let (kind, function) = (NOTIFIER_DEVIOTLB_UNMAP, Some(requester.0));
            self.spaces.unmap(bql, kind, function, request.range);
        }
        if !self.unit.root().has(bql, requester.0) || self.loses() {
            return;
        }
        let completion = InvalidateCompletion {
            itag_vector: 1 << request.itag.get(),
            completion_count: 1,
        };
        let mut effects = Effects::new();
        self.unit
            .lock()
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

    /// Tells QEMU that messages that were remapped before have changed.
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

    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CarryOut for Host {
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

    fn review(&'static self, bql: &Bql) {
        self.spaces.review(bql);
    }
}

/// The registers of the unit.
pub struct RegisterFile(pub &'static Host);

impl Mmio for RegisterFile {
    fn read(&self, _bql: &Bql, offset: u64, size: u8) -> u64 {
        self.0.unit.lock().read(offset as u16, size)
    }

    fn write(&self, _bql: &Bql, offset: u64, value: u64, size: u8) {
        self.0
            .unit
            .with(|unit, effects| unit.write(offset as u16, value, size, effects));
    }
}
