// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way through a unit for devices that a rust-vmm virtual machine monitor emulates: an
//! implementation of [`vm_memory::Iommu`], to be put into a [`vm_memory::IommuMemory`].
//!
//! `vm-memory` wants translations in an IOTLB of its own type, so this is a copy of the unit's
//! answers, one for each requester and PASID. It is emptied by every invalidation that could
//! concern it, and an invalidation waits for those that hold the copy: no access through it goes
//! on behind the wait descriptor that software sees complete.

use crate::machine::{FunctionId, Machine};
use crate::shadow::Shadow;
use pcie_ats::{PAGE_SIZE, Pasid};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLockReadGuard};
use vm_memory::iommu::{Error, IotlbIterator, IovaRange};
use vm_memory::{GuestAddress, Iommu, Iotlb, Permissions};
use vtd::spec::SourceId;
use vtd::{Access, Blocked, Request};

/// Pages that a copy keeps before it begins anew.
const MOST_PAGES: u64 = 1 << 16;

/// The DMA remapping of a requester, for `vm-memory`.
///
/// A thread must not write to the unit's registers while it holds what
/// [`Iommu::translate`] returned: the invalidation would wait for its own thread.
pub struct Remapping {
    machine: Machine,
    unit: usize,
    requester: SourceId,
    pasid: Option<Pasid>,
    shadow: Arc<Shadow>,
}

impl fmt::Debug for Remapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remapping")
            .field("unit", &self.unit)
            .field("requester", &self.requester)
            .field("pasid", &self.pasid)
            .finish_non_exhaustive()
    }
}

impl Remapping {
    /// The remapping of the requests of a function of the machine.
    pub fn of_function(machine: &Machine, function: FunctionId, pasid: Option<Pasid>) -> Self {
        let (unit, requester) = (machine.unit_of(function), machine.requester(function));
        Self::new(machine, unit, requester, pasid)
    }

    /// The remapping of the requests of a device that is not a function of the machine.
    pub fn new(machine: &Machine, unit: usize, requester: SourceId, pasid: Option<Pasid>) -> Self {
        let shadow = Arc::default();
        machine.add_shadow(unit, &shadow);
        Remapping {
            machine: machine.clone(),
            unit,
            requester,
            pasid,
            shadow,
        }
    }

    /// Asks the unit for every page of a range.
    fn ask(&self, range: &IovaRange, access: Access) -> Result<Vec<Answer>, Error> {
        let failed = |address: u64, blocked: Blocked| Error::CannotResolve {
            iova_range: range.clone(),
            reason: format!("{blocked} at {address:#x}"),
        };
        let last = range.base.0 + (range.length as u64 - 1);
        let mut answers = Vec::new();
        let mut address = range.base.0;
        loop {
            let request = Request {
                requester: self.requester,
                pasid: self.pasid,
                address,
                access,
                execute: false,
                privileged: false,
            };
            let translated = self
                .machine
                .with_unit(self.unit, |unit, ram, fx| unit.translate(ram, &request, fx))
                .map_err(|blocked| failed(address, blocked))?;
            let base = address & !(PAGE_SIZE - 1);
            let mut permissions = Permissions::No;
            if translated.read {
                permissions = permissions | Permissions::Read;
            }
            if translated.write {
                permissions = permissions | Permissions::Write;
            }
            answers.push(Answer {
                iova: base,
                output: translated.address & !(PAGE_SIZE - 1),
                permissions,
            });
            match base.checked_add(PAGE_SIZE) {
                Some(next) if next <= last => address = next,
                _ => return Ok(answers),
            }
        }
    }
}

/// The translation of a page of 4 KiB.
struct Answer {
    iova: u64,
    output: u64,
    permissions: Permissions,
}

impl Iommu for Remapping {
    type IotlbGuard<'a> = RwLockReadGuard<'a, Iotlb>;

    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> Result<IotlbIterator<Self::IotlbGuard<'_>>, Error> {
        let range = IovaRange { base: iova, length };
        let failed = |reason: &str| Error::CannotResolve {
            iova_range: range.clone(),
            reason: reason.into(),
        };
        let end = iova.0.checked_add(length as u64);
        if end.is_none_or(|end| end > u64::MAX - PAGE_SIZE) {
            return Err(failed("the range wraps round the address space"));
        }
        let kind = match access {
            Permissions::No | Permissions::Read => Access::Read,
            Permissions::Write => Access::Write,
            Permissions::ReadWrite => Access::Atomic,
        };
        loop {
            if let Ok(found) = Iotlb::lookup(self.shadow.read(), iova, length, access) {
                return Ok(found);
            }
            let generation = self.shadow.generation.load(Ordering::SeqCst);
            let answers = self.ask(&range, kind)?;
            let mut iotlb = self.shadow.write();
            // What an invalidation overtook is asked for again.
            if self.shadow.generation.load(Ordering::SeqCst) != generation {
                continue;
            }
            let more = answers.len() as u64;
            if self.shadow.pages.fetch_add(more, Ordering::Relaxed) + more > MOST_PAGES {
                iotlb.invalidate_all();
                self.shadow.pages.store(more, Ordering::Relaxed);
            }
            for answer in &answers {
                if !answer.permissions.allow(access) {
                    return Err(failed("the page does not permit the access"));
                }
                iotlb.set_mapping(
                    GuestAddress(answer.iova),
                    GuestAddress(answer.output),
                    PAGE_SIZE as usize,
                    answer.permissions,
                )?;
            }
        }
    }
}
