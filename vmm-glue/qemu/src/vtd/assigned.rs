// SPDX-License-Identifier: GPL-2.0-or-later
//! The devices of the host below the unit, whose first stages the host's kernel walks: what the
//! guest's tables and invalidations say goes to the kernel, and page requests of the devices come
//! back. The rules are those of the crate `host-iommu`; this file joins them to QEMU.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use host_iommu::assigned::Assigned;
use host_iommu::bindings::{AssignedDevice, Changes};
use host_iommu::compatibility;
use host_iommu::host::{DeviceId, FaultQueueId, HostError, HostIommu, HwptId};
use host_iommu::tables::{GuestTables, Mode, UnitTables};
use host_iommufd::host::Host as Kernel;
use pcie_ats::{PageRequest, Pasid};
use vtd::config::Stages;
use vtd::spec::SourceId;
use vtd::{AddressSpace, Config, Effect, Invalidated};

use super::function::Function;
use super::guest_memory::GuestMemory;
use super::host_device::IommufdDevice;
use super::unit::LockedUnit;
use crate::abi::layout;
use crate::bql::Bql;
use crate::fault_queue::{self, Listener, Polled};
use crate::message;
use crate::trace::marks;

/// The guest's tables, by the unit. Its lock is held during each question, and not while the kernel
/// works.
struct Tables<'a>(&'a LockedUnit);

impl Tables<'_> {
    fn ask<R>(&self, ask: impl FnOnce(&UnitTables<'_, GuestMemory>) -> R) -> R {
        let unit = self.0.lock();
        ask(&UnitTables {
            unit: &unit,
            memory: &GuestMemory,
        })
    }
}

impl GuestTables for Tables<'_> {
    fn mode(&self) -> Mode {
        self.ask(|tables| tables.mode())
    }

    fn rid_pasid(&self, requester: SourceId) -> Option<Pasid> {
        self.ask(|tables| tables.rid_pasid(requester))
    }

    fn address_space(&self, requester: SourceId, pasid: Option<Pasid>) -> Option<AddressSpace> {
        self.ask(|tables| tables.address_space(requester, pasid))
    }

    fn pasids(&self, requester: SourceId, limit: u32) -> Vec<Pasid> {
        self.ask(|tables| tables.pasids(requester, limit))
    }
}

/// A function that is a device of the host.
struct Member {
    function: Function,
    /// Its requester id when it was bound: buses get their numbers from the guest.
    requester: SourceId,
    device: AssignedDevice,
    /// QEMU's object of its iommufd.
    backend: usize,
    /// Its fault queue.
    requests: Option<Polled>,
}

#[derive(Default)]
struct State {
    kernel: Kernel,
    /// The kernel's numbers of QEMU's iommufds.
    iommufds: BTreeMap<usize, u32>,
    assigned: Assigned,
    members: Vec<Member>,
    /// Fault queues of functions that are gone, with QEMU's objects of their iommufds.
    closed: BTreeMap<FaultQueueId, usize>,
}

/// The devices of the host below a unit.
#[derive(Default)]
pub struct AssignedDevices {
    state: Mutex<State>,
    /// How many there are, for a look without the lock.
    count: AtomicUsize,
}

/// Whether this QEMU tells the unit of devices of the host.
pub fn is_known() -> bool {
    layout::assigned().is_some()
}

/// Whether a unit has a first stage in scalable mode.
pub fn offers_first_stage(config: &Config) -> bool {
    let scalable = config.scalable.as_ref();
    scalable.is_some_and(|s| !matches!(s.stages, Stages::Second))
}

/// Whether the first stages that a unit has are walked by the host's kernel: the unit has no second
/// stage then, for the kernel nests them in its own.
pub fn nests(config: &Config) -> bool {
    let scalable = config.scalable.as_ref();
    scalable.is_some_and(|s| matches!(s.stages, Stages::First(_)))
}

impl AssignedDevices {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Whether a function is one of them.
    pub fn has(&self, function: Function) -> bool {
        !self.is_empty() && self.lock().members.iter().any(|m| m.function == function)
    }

    /// Adds a function, and binds it as the guest's tables say. With a listener, a fault queue is
    /// made for its page requests.
    ///
    /// # Errors
    ///
    /// Why it cannot be assigned, as a sentence. Nothing of it is left.
    pub fn add(
        &self,
        bql: &Bql,
        unit: &LockedUnit,
        function: Function,
        opened: IommufdDevice,
        behind_bridge: bool,
        listener: Option<&'static dyn Listener>,
    ) -> Result<(), String> {
        let config = *unit.lock().capabilities().config();
        let state = &mut *self.lock();
        let backend = opened.backend;
        let iommufd = *state
            .iommufds
            .entry(backend)
            .or_insert_with(|| state.kernel.insert(opened.iommufd));
        let device = state.kernel.adopt(iommufd, opened.id, opened.file);
        let parent = HwptId {
            iommufd,
            id: opened.parent,
        };
        let result = state.assign(
            unit,
            &config,
            function,
            (device, parent),
            behind_bridge,
            listener.is_some(),
        );
        match result {
            Ok((bound, changes)) => {
                report(&changes);
                let requests = bound.fault_queue.zip(listener);
                let requests = requests
                    .map(|(queue, listener)| Polled::new(bql, &state.kernel, queue, listener));
                state.members.push(Member {
                    function,
                    requester: bound.requester,
                    device: bound,
                    backend,
                    requests,
                });
                self.count.store(state.members.len(), Ordering::Relaxed);
                state.hold(unit);
                Ok(())
            }
            Err(reason) => {
                drop(state.kernel.unbind(device));
                state.forget(iommufd, backend);
                Err(reason)
            }
        }
    }

    /// Removes a function: it has its parent again, and what it requested is answered. Returns
    /// whether it was one of them.
    pub fn remove(&'static self, bql: &Bql, function: Function) -> bool {
        let state = &mut *self.lock();
        let Some(index) = state.members.iter().position(|m| m.function == function) else {
            return false;
        };
        let member = state.members.remove(index);
        let changes = state.assigned.unassign(&mut state.kernel, member.requester);
        report(&changes.unwrap_or_default());
        drop(state.kernel.unbind(member.device.device));
        if let Some(requests) = member.requests {
            let queue = requests.queue();
            requests.close(bql, &mut state.kernel);
            state.closed.insert(queue, member.backend);
            fault_queue::free_soon(
                "svm-vtd: ",
                move || self.lock().kernel.free_fault_queue(queue),
                move || self.lock().freed(queue),
            );
        } else {
            state.forget(member.device.device.iommufd, member.backend);
        }
        self.count.store(state.members.len(), Ordering::Relaxed);
        true
    }

    /// Carries an effect of the unit out in the kernel, before anything else learns of it. Returns
    /// false if the kernel could not: the guest must not be told that it is done.
    pub fn carry_out(&self, _bql: &Bql, unit: &LockedUnit, effect: &Effect) -> bool {
        if self.is_empty() {
            return true;
        }
        let state = &mut *self.lock();
        state.renumber(unit);
        if let Effect::PrgResponse { response, .. } = effect {
            marks::prg_response(response);
        }
        let done = state
            .assigned
            .carry_out(&mut state.kernel, &Tables(unit), effect);
        if let Err(error) = &done {
            message::warning(&format!("svm-vtd: {error}"));
        }
        if changes_bindings(effect) {
            state.hold(unit);
        }
        done.is_ok()
    }

    /// The machine was reset.
    pub fn reset(&self, _bql: &Bql) {
        if !self.is_empty() {
            let state = &mut *self.lock();
            report(&state.assigned.reset(&mut state.kernel));
        }
    }

    /// Takes the page requests that wait in a fault queue, for the unit.
    pub fn page_requests(&self, _bql: &Bql, queue: FaultQueueId) -> Vec<(SourceId, PageRequest)> {
        let state = &mut *self.lock();
        match state.assigned.page_requests(&mut state.kernel, queue) {
            Ok(delivery) => {
                for (requester, request) in &delivery.requests {
                    let index = state.assigned.index_of_device(*requester, request.prgi);
                    marks::page_request(request, index);
                }
                delivery.requests
            }
            Err(error) => {
                message::warning(&format!("svm-vtd: {error}"));
                Vec::new()
            }
        }
    }
}

/// Whether an effect can bind address spaces.
fn changes_bindings(effect: &Effect) -> bool {
    use Invalidated::{Context, Pasid};
    matches!(
        effect,
        Effect::TranslationEnabled(true) | Effect::Invalidated(Context(_) | Pasid(_))
    )
}

impl State {
    /// Tells the unit which address spaces the kernel walks, so that their page requests belong to
    /// them until the guest's invalidation comes, whatever its tables say by then.
    fn hold(&self, unit: &LockedUnit) {
        for space in self.assigned.bindings().nested_spaces() {
            let (requester, pasid) = space.of;
            unit.lock()
                .hold_address_space(&GuestMemory, requester, pasid);
        }
    }

    /// Checks a device against the unit, and binds it.
    fn assign(
        &mut self,
        unit: &LockedUnit,
        config: &Config,
        function: Function,
        (device, parent): (DeviceId, HwptId),
        behind_bridge: bool,
        requests: bool,
    ) -> Result<(AssignedDevice, Changes), String> {
        let told = |error: HostError| error.to_string();
        let info = self.kernel.hardware_info(device).map_err(told)?;
        let host = compatibility::HostDevice {
            iommufd: Some(info),
            behind_bridge,
        };
        compatibility::check(config, &host).map_err(|reason| reason.to_string())?;
        let fault_queue = match requests {
            true => {
                let queue = self.kernel.alloc_fault_queue(device.iommufd);
                Some(queue.map_err(told)?)
            }
            false => None,
        };
        let bound = AssignedDevice {
            requester: function.source_id(),
            device,
            parent,
            pasid_limit: compatibility::pasid_limit(config, &info),
            fault_queue,
        };
        let changes = self.assigned.assign(&mut self.kernel, &Tables(unit), bound);
        match changes {
            Ok(changes) => Ok((bound, changes)),
            Err(reason) => {
                if let Some(queue) = fault_queue {
                    // The first error is the one to tell.
                    let _ = self.kernel.free_fault_queue(queue);
                }
                Err(reason.to_string())
            }
        }
    }

    /// The fault queue of a function that is gone was freed.
    fn freed(&mut self, queue: FaultQueueId) {
        if let Some(backend) = self.closed.remove(&queue) {
            self.forget(queue.iommufd, backend);
        }
    }

    /// Closes an iommufd that no function uses any more.
    fn forget(&mut self, iommufd: u32, backend: usize) {
        let is_used = self.members.iter().any(|m| m.backend == backend)
            || self.closed.values().any(|b| *b == backend);
        if !is_used {
            self.iommufds.remove(&backend);
            self.kernel.close(iommufd);
        }
    }

    /// Functions whose bus has another number by now are bound by their new requester id.
    fn renumber(&mut self, unit: &LockedUnit) {
        let moved = |m: &&mut Member| m.requester != m.function.source_id();
        // All leave before one comes: the number of one can be the new number of another.
        for member in self.members.iter_mut().filter(moved) {
            let changes = self.assigned.unassign(&mut self.kernel, member.requester);
            report(&changes.unwrap_or_default());
        }
        for member in self.members.iter_mut().filter(moved) {
            member.requester = member.function.source_id();
            member.device.requester = member.requester;
            let tables = Tables(unit);
            match self
                .assigned
                .assign(&mut self.kernel, &tables, member.device)
            {
                Ok(changes) => report(&changes),
                Err(reason) => message::warning(&format!("svm-vtd: {reason}")),
            }
        }
    }
}

/// Reports what the kernel could not do when nobody waits for it.
fn report(changes: &Changes) {
    for failure in &changes.failures {
        message::warning(&format!("svm-vtd: {failure}"));
    }
}
