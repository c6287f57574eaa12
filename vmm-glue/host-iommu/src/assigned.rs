// SPDX-License-Identifier: MIT OR Apache-2.0
//! The assigned devices of a unit: bindings, invalidations and page requests, joined at the effects
//! of the unit. The program that runs the unit passes each effect on to here, in order, and stops
//! the unit's queue where it fails.

use crate::bindings::{AssignError, AssignedDevice, BindError, Bindings, Changes};
use crate::host::{FaultQueueId, HostIommu, HostResult};
use crate::invalidations::{Failed, iotlb_invalidated};
use crate::page_requests::{Delivery, PageRequests, answer};
use crate::tables::GuestTables;
use pcie_ats::Prgi;
use vtd::spec::SourceId;
use vtd::{Effect, Invalidated};

/// What the host could not carry out. The descriptor that asked for it has failed:
/// [`vtd::Unit::invalidation_failed`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CarryOutError {
    /// Address spaces have no page table in the host.
    #[error("{} address spaces are not bound; {}", .0.len(), .0[0])]
    Bind(Vec<BindError>),
    /// Translations are not invalidated.
    #[error(transparent)]
    Invalidate(#[from] Failed),
}

/// The assigned devices of a unit.
#[derive(Debug, Default)]
pub struct Assigned {
    bindings: Bindings,
    page_requests: PageRequests,
}

impl Assigned {
    /// No device is assigned.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is attached to what.
    pub const fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    /// How many page request groups the host waits for.
    pub fn outstanding(&self) -> usize {
        self.page_requests.outstanding()
    }

    /// The index that a device chose for an outstanding page request group, by that which the guest
    /// sees.
    pub fn index_of_device(&self, requester: SourceId, prgi: Prgi) -> Option<u32> {
        self.page_requests.index_of_device(requester, prgi)
    }

    /// A device is assigned.
    pub fn assign(
        &mut self,
        host: &mut impl HostIommu,
        tables: &impl GuestTables,
        device: AssignedDevice,
    ) -> Result<Changes, AssignError> {
        self.bindings.assign(host, tables, device)
    }

    /// A device is taken away. None if there is no such device.
    pub fn unassign(&mut self, host: &mut impl HostIommu, of: SourceId) -> Option<Changes> {
        let changes = self.bindings.unassign(host, of)?;
        self.page_requests.unbound(&changes.unbound);
        Some(changes)
    }

    /// The machine was reset: nothing is bound, and nobody will answer what is outstanding.
    pub fn reset(&mut self, host: &mut impl HostIommu) -> Changes {
        let changes = self.bindings.reset(host);
        self.page_requests.unbound(&changes.unbound);
        let left = self.page_requests.reset();
        answer(host, &left);
        changes
    }

    /// Carries an effect of the unit out in the host. Other effects are
    /// ignored.
    ///
    /// # Errors
    ///
    /// What the host could not do. Address spaces that it concerns are blocked, or may still have
    /// translations that were invalidated: the guest must not be told that it is done.
    pub fn carry_out(
        &mut self,
        host: &mut impl HostIommu,
        tables: &impl GuestTables,
        effect: &Effect,
    ) -> Result<(), CarryOutError> {
        let changes = match effect {
            Effect::Invalidated(Invalidated::Iotlb { scope, leaf_only }) => {
                iotlb_invalidated(host, &self.bindings, *scope, *leaf_only)?;
                return Ok(());
            }
            Effect::Invalidated(Invalidated::Pasid(scope)) => {
                self.bindings.pasid_cache_invalidated(host, tables, *scope)
            }
            Effect::Invalidated(Invalidated::Context(scope)) => self
                .bindings
                .context_cache_invalidated(host, tables, *scope),
            Effect::TranslationEnabled(_) => self.bindings.remapping_changed(host, tables),
            Effect::PrgResponse {
                requester,
                response,
            } => {
                let back = self.page_requests.respond(*requester, response);
                answer(host, back.as_slice());
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.page_requests.unbound(&changes.unbound);
        match changes.is_complete() {
            true => Ok(()),
            false => Err(CarryOutError::Bind(changes.failures)),
        }
    }

    /// The root table pointer was set. A unit with ESRTPS tells it by an invalidation of all
    /// context entries; one without tells it by no effect.
    pub fn root_table_changed(
        &mut self,
        host: &mut impl HostIommu,
        tables: &impl GuestTables,
    ) -> Changes {
        let changes = self.bindings.remapping_changed(host, tables);
        self.page_requests.unbound(&changes.unbound);
        changes
    }

    /// Takes what waits in a fault queue of the host, for the guest's unit. What cannot be told to
    /// the guest is answered.
    ///
    /// # Errors
    ///
    /// The host could not be read.
    pub fn page_requests(
        &mut self,
        host: &mut impl HostIommu,
        queue: FaultQueueId,
    ) -> HostResult<Delivery> {
        let delivery = self.page_requests.take(host, &self.bindings, queue)?;
        answer(host, &delivery.responses);
        Ok(delivery)
    }
}
