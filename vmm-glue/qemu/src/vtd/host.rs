// SPDX-License-Identifier: GPL-2.0-or-later
//! Carries out the unit's effects, without the unit's lock and with the BQL held.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use host_iommu::compatibility;
use host_iommu::host::FaultQueueId;
use pcie_ats::{AlignedRange, InvalidateCompletion, InvalidateRequest, PageRequest};
use vtd::recording::Sink;
use vtd::spec::SourceId;
use vtd::spec::descriptor::IotlbScope;
use vtd::{Capabilities, Config, Effect, Effects, Invalidated};

use super::assigned::{self, AssignedDevices};
use super::clients::Clients;
use super::copies::{Dirty, Span};
use super::function::{Bus, Function};
use super::guest_memory::GuestMemory;
use super::host_device::HostDevice;
use super::interrupts;
use super::settings::Settings;
use super::spaces::Spaces;
use super::unit::{CarryOut, LockedUnit};
use crate::abi::layout::{AddressSpace, NOTIFIER_DEVIOTLB_UNMAP, NOTIFIER_UNMAP};
use crate::abi::qemu;
use crate::bell::Bell;
use crate::bql::Bql;
use crate::fault_queue::Listener;
use crate::main_loop;
use crate::memory::Mmio;
use crate::message;
use crate::page_request_capability;
use crate::qom::Neighbour;
use crate::timer::{self, Timer};
use crate::trace;

/// The type of functions that VFIO opens in the host.
pub const VFIO_PCI: &CStr = c"vfio-pci";

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
    /// The devices of the host whose first stages the host's kernel walks.
    assigned: AssignedDevices,
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
            assigned: AssignedDevices::default(),
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
        self.assigned.reset(bql);
    }

    /// The configuration of the unit.
    fn config(&self) -> Config {
        *self.unit.lock().capabilities().config()
    }

    /// The address space of a function.
    pub fn address_space(&'static self, bql: &Bql, function: Function) -> *mut AddressSpace {
        let handed_down =
            assigned::is_known() && function.is(bql, VFIO_PCI) && assigned::nests(&self.config());
        self.spaces.get(bql, &self.unit, function, handed_down)
    }

    /// Whether the unit has a first stage.
    pub fn offers_first_stage(&self) -> bool {
        assigned::offers_first_stage(&self.config())
    }

    /// What the unit asks of VFIO: flags of `get_viommu_flags`.
    pub fn flags(&self) -> u64 {
        let config = self.config();
        match assigned::nests(&config) {
            true => compatibility::unit_flags(&config),
            false => 0,
        }
    }

    /// Takes a device of the host: the kernel walks its first stages, or VFIO keeps a copy of what
    /// the guest maps.
    ///
    /// # Errors
    ///
    /// Why it cannot be below the unit.
    pub fn assign(
        &'static self,
        bql: &Bql,
        function: Function,
        device: HostDevice,
    ) -> Result<(), String> {
        let config = self.config();
        let behind_bridge = device.behind_bridge;
        let opened = device
            .iommufd
            .filter(|_| assigned::offers_first_stage(&config));
        let Some(opened) = opened else {
            let iommufd = None;
            let device = compatibility::HostDevice {
                iommufd,
                behind_bridge,
            };
            return compatibility::check(&config, &device).map_err(|reason| reason.to_string());
        };
        let requests = config.device_tlbs.is_some_and(|tlbs| tlbs.page_requests)
            && function.device(bql).is_some_and(|device| {
                // SAFETY: the device exists while the BQL is held.
                unsafe { page_request_capability::is_there(bql, device) }
            });
        let listener = requests.then_some(self as &'static dyn Listener);
        self.assigned
            .add(bql, &self.unit, function, opened, behind_bridge, listener)?;
        if requests {
            // VFIO has not completed the function's configuration space yet.
            main_loop::soon(move |bql| {
                let device = function.device(bql);
                if let Some(device) = device.filter(|_| self.assigned.has(function)) {
                    // SAFETY: the device exists while the BQL is held, and is realized by now.
                    unsafe { page_request_capability::take(bql, device) };
                }
            });
        }
        Ok(())
    }

    /// Gives a device of the host back.
    pub fn unassign(&'static self, bql: &Bql, function: Function) {
        if self.assigned.remove(bql, function) {
            if let Some(device) = function.device(bql) {
                // SAFETY: the device exists while the BQL is held.
                unsafe { page_request_capability::give_back(bql, device) };
            }
        }
    }

    /// Handles a page request of a function.
    pub fn page_request(&'static self, requester: SourceId, request: &PageRequest) {
        if let Some(trace) = trace::of_requester(requester.0) {
            trace.unit_takes(request);
        }
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

    /// Carries out one effect. Returns false if the kernel of the host could not do its part.
    fn carry_out_one(&'static self, bql: &Bql, effect: Effect) -> bool {
        if let Effect::PrgResponse {
            requester,
            response,
        } = &effect
        {
            if let Some(trace) = trace::of_requester(requester.0) {
                trace.unit_responds(response);
            }
        }
        let done = self.assigned.carry_out(bql, &self.unit, &effect);
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
        done
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
            let mut done = true;
            for effect in effects {
                done &= self.carry_out_one(bql, effect);
            }
            self.refresh_copies(bql);
            if !done {
                let mut effects = Effects::new();
                self.unit.lock().invalidation_failed(&turn, &mut effects);
                for effect in effects {
                    self.carry_out_one(bql, effect);
                }
            }
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

impl Listener for Host {
    fn requests_wait(&'static self, bql: &Bql, queue: FaultQueueId) {
        for (requester, request) in self.assigned.page_requests(bql, queue) {
            self.page_request(requester, &request);
        }
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
