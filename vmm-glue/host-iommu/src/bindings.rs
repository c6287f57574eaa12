// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which page table of the host is attached to which address space of an assigned device.
//!
//! The virtual unit tells what its software has invalidated: PASID-cache entries, context entries,
//! all of it. Bindings read the guest's tables again, as a PASID cache would, and attach, replace
//! or detach page tables of the host. They know nothing of translations and of page requests.
//!
//! What a device has while the guest's tables do not count is its *parent*: the page table by which
//! it reaches guest physical memory.

use crate::host::{DeviceId, FaultQueueId, FirstStage, HostError, HostIommu, HwptId, NestedFlags};
use crate::mutant::{Mutant, breaks};
use crate::nested::{Key, NestedTables};
use crate::tables::{GuestTables, Mode};
use pcie_ats::Pasid;
use std::collections::{BTreeMap, BTreeSet};
use vtd::spec::descriptor::{ContextScope, PasidScope};
use vtd::spec::{DomainId, SourceId};
use vtd::{AddressSpace, AddressTranslation, FirstStageTable};

/// An assigned device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignedDevice {
    /// Its bus, device and function in the guest.
    pub requester: SourceId,
    /// What it is in the host.
    pub device: DeviceId,
    /// The page table by which it reaches guest physical memory. It is attached already.
    pub parent: HwptId,
    /// How many PASIDs it can have: those below this number. 0 if page tables of it cannot be
    /// attached to PASIDs.
    pub pasid_limit: u32,
    /// Where its page requests go; none if it has none.
    pub fault_queue: Option<FaultQueueId>,
}

/// Which address space of a device: that of requests without PASID, or that of a PASID.
pub type SpaceKey = (SourceId, Option<Pasid>);

/// Why an address space of the guest has no page table in the host. Its requests are blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The host refused it.
    #[error("function {}, {}: {error}", .of.0, Space(.of.1))]
    Host {
        /// The address space.
        of: SpaceKey,
        /// What the host said.
        error: HostError,
    },
    /// The guest uses a translation type that cannot be handed down.
    #[error("function {}, {}: the host walks first stages only", .of.0, Space(.of.1))]
    TranslationType {
        /// The address space.
        of: SpaceKey,
    },
    /// The guest's first stage has no table.
    #[error("function {}, {}: the table pointer (FSPTPTR) is 0", .of.0, Space(.of.1))]
    NoTable {
        /// The address space.
        of: SpaceKey,
    },
}

/// An address space as text.
struct Space(Option<Pasid>);

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pasid) => write!(f, "PASID {:#x}", pasid.get()),
            None => f.write_str("requests without PASID"),
        }
    }
}

/// A device cannot be assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// There is a device with this requester.
    #[error("function {0} is assigned already")]
    Taken(SourceId),
}

/// What an event has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Address spaces that have lost their page table or have another one: the host has answered
    /// their page requests, which nobody may answer again.
    pub unbound: Vec<SpaceKey>,
    /// What could not be done. The invalidation that asked for it has failed.
    pub failures: Vec<BindError>,
}

impl Changes {
    /// Whether the invalidation that asked for the changes may be reported as complete.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty() || breaks(Mutant::N4_23)
    }
}

/// What is attached to an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    /// What the guest's tables said, if they count.
    space: Option<AddressSpace>,
    /// By which PASID table entry.
    number: u32,
    hwpt: HwptId,
}

/// What the guest's tables ask for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    space: Option<AddressSpace>,
    number: u32,
    stage: Option<FirstStage>,
}

#[derive(Debug)]
struct Device {
    is: AssignedDevice,
    bound: BTreeMap<Option<Pasid>, Bound>,
}

/// A nested page table that is attached to an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NestedSpace {
    /// The address space.
    pub of: SpaceKey,
    /// By which PASID table entry it is translated: the PASID, or RID_PASID.
    pub number: u32,
    /// Its domain in the guest.
    pub domain: DomainId,
    /// Width of input addresses in bits.
    pub address_width: u32,
    /// The page table of the host.
    pub hwpt: HwptId,
}

/// The bindings of all assigned devices, of however many iommufds.
#[derive(Debug, Default)]
pub struct Bindings {
    devices: BTreeMap<SourceId, Device>,
    nested: NestedTables,
}

/// The first stage of the host for one of the guest.
pub fn first_stage(table: &FirstStageTable) -> FirstStage {
    let swap = breaks(Mutant::N4_18);
    FirstStage {
        table: table.table,
        address_width: 48 + 9 * u32::from(table.levels == 5),
        supervisor_requests: table.supervisor_requests,
        extended_accessed: if swap {
            table.write_protect
        } else {
            table.extended_accessed
        },
        write_protect: if swap {
            table.extended_accessed
        } else {
            table.write_protect
        },
    }
}

impl Bindings {
    /// No device is assigned.
    pub fn new() -> Self {
        Self::default()
    }

    /// A device is assigned. It is bound as the guest's tables say: it may be plugged in while
    /// translation is on.
    pub fn assign(
        &mut self,
        host: &mut impl HostIommu,
        tables: &impl GuestTables,
        device: AssignedDevice,
    ) -> Result<Changes, AssignError> {
        let requester = device.requester;
        if self.devices.contains_key(&requester) && !breaks(Mutant::N4_10) {
            return Err(AssignError::Taken(requester));
        }
        let parent = Bound {
            space: None,
            number: 0,
            hwpt: device.parent,
        };
        let bound = BTreeMap::from([(None, parent)]);
        let is = device;
        self.devices.insert(requester, Device { is, bound });
        if breaks(Mutant::N4_32) {
            return Ok(Changes::default());
        }
        Ok(self.rebind(host, tables, |of| of == requester))
    }

    /// A device is taken away: its address spaces lose their page tables, and it has its parent
    /// again. Returns none if there is no such device.
    pub fn unassign(&mut self, host: &mut impl HostIommu, requester: SourceId) -> Option<Changes> {
        let mut changes = Changes::default();
        let device = self.devices.get(&requester)?;
        let keys: Vec<_> = device
            .bound
            .keys()
            .copied()
            .filter(Option::is_some)
            .collect();
        for pasid in keys {
            self.settle(host, (requester, pasid), None, &mut changes);
        }
        let parent = Some(Wanted::PARENT);
        self.settle(host, (requester, None), parent, &mut changes);
        self.devices.remove(&requester);
        Some(changes)
    }

    /// PASID-cache entries were invalidated (VT-d 6.5.2.2): first what was bound and has changed is
    /// bound anew or not any more, then what is new.
    pub fn pasid_cache_invalidated(
        &mut self,
        host: &mut impl HostIommu,
        tables: &impl GuestTables,
        scope: PasidScope,
    ) -> Changes {
        if tables.mode() != Mode::Scalable && !breaks(Mutant::N4_15) {
            return Changes::default();
        }
        self.refresh(host, tables, scope, |_| true)
    }

    /// Context entries were invalidated (VT-d 6.5.2.1). In scalable mode they have no domain, so
    /// those of a domain are all. A new root table pointer invalidates all of them (VT-d 6.6), and
    /// may come with another mode.
    pub fn context_cache_invalidated(
        &mut self,
        host: &mut impl HostIommu,
        tables: &impl GuestTables,
        scope: ContextScope,
    ) -> Changes {
        let selects = |of: SourceId| match scope {
            ContextScope::Global | ContextScope::Domain(_) => true,
            ContextScope::Device { sid, .. } if breaks(Mutant::N4_25) => of == sid,
            ContextScope::Device { sid, mask, .. } => of.0 & mask == sid.0 & mask,
        };
        self.rebind(host, tables, selects)
    }

    /// The root table pointer was set, or translation was switched on or off: everything is read
    /// again.
    pub fn remapping_changed(
        &mut self,
        host: &mut impl HostIommu,
        tables: &impl GuestTables,
    ) -> Changes {
        if breaks(Mutant::N4_27) {
            return Changes::default();
        }
        self.rebind(host, tables, |_| true)
    }

    /// The machine was reset: every address space loses its page table, and no table is read.
    /// Devices have their parents again.
    pub fn reset(&mut self, host: &mut impl HostIommu) -> Changes {
        let mut changes = Changes::default();
        if breaks(Mutant::N4_16) {
            return changes;
        }
        for key in self.keys(|_| true) {
            let wanted = key.1.is_none().then_some(Wanted::PARENT);
            self.settle(host, key, wanted, &mut changes);
        }
        // What was blocked is bound to its parent, too.
        for requester in self.requesters(|_| true) {
            self.settle(host, (requester, None), Some(Wanted::PARENT), &mut changes);
        }
        changes
    }

    /// How many page tables no address space has, and the host did not free. It is tried again
    /// whenever a page table is given up.
    pub fn unused_page_tables(&self) -> usize {
        self.nested.unused()
    }

    /// The assigned devices.
    pub fn devices(&self) -> impl Iterator<Item = &AssignedDevice> {
        self.devices.values().map(|device| &device.is)
    }

    /// The assigned device of a requester.
    pub fn device(&self, requester: SourceId) -> Option<&AssignedDevice> {
        self.devices.get(&requester).map(|device| &device.is)
    }

    /// The function of a device, by its id in an iommufd.
    pub fn requester_of(&self, iommufd: u32, device: u32) -> Option<SourceId> {
        let device = DeviceId {
            iommufd,
            id: device,
        };
        let found = self.devices().find(|known| known.device == device);
        found.map(|known| known.requester)
    }

    /// What the guest's tables said of an address space when it was bound.
    pub fn bound(&self, of: SpaceKey) -> Option<AddressSpace> {
        self.devices.get(&of.0)?.bound.get(&of.1)?.space
    }

    /// The page table that an address space has.
    pub fn page_table(&self, of: SpaceKey) -> Option<HwptId> {
        Some(self.devices.get(&of.0)?.bound.get(&of.1)?.hwpt)
    }

    /// The nested page tables that are attached, by address space.
    pub fn nested_spaces(&self) -> impl Iterator<Item = NestedSpace> {
        self.devices.iter().flat_map(|(requester, device)| {
            device.bound.iter().filter_map(|(pasid, bound)| {
                let space = bound.space?;
                let AddressTranslation::FirstStage(table) = space.translation else {
                    return None;
                };
                Some(NestedSpace {
                    of: (*requester, *pasid),
                    number: bound.number,
                    domain: space.domain,
                    address_width: first_stage(&table).address_width,
                    hwpt: bound.hwpt,
                })
            })
        })
    }

    fn requesters(&self, selects: impl Fn(SourceId) -> bool) -> Vec<SourceId> {
        let all = self.devices.keys().copied();
        all.filter(|requester| selects(*requester)).collect()
    }

    /// The address spaces that are bound, of some devices.
    fn keys(&self, selects: impl Fn(SourceId) -> bool) -> Vec<SpaceKey> {
        let devices = self.devices.iter().filter(|(of, _)| selects(**of));
        devices
            .flat_map(|(of, device)| device.bound.keys().map(|pasid| (*of, *pasid)))
            .collect()
    }

    /// Reads everything again, in whatever mode the unit is.
    fn rebind(
        &mut self,
        host: &mut impl HostIommu,
        tables: &impl GuestTables,
        selects: impl Fn(SourceId) -> bool + Copy,
    ) -> Changes {
        let mode = tables.mode();
        if mode == Mode::Scalable {
            return self.refresh(host, tables, PasidScope::Global, selects);
        }
        let mut changes = Changes::default();
        for key in self.keys(selects).into_iter().filter(|key| key.1.is_some()) {
            self.settle(host, key, None, &mut changes);
        }
        let parent = match mode {
            Mode::Blocked => None,
            _ => Some(Wanted::PARENT),
        };
        for requester in self.requesters(selects) {
            self.settle(host, (requester, None), parent, &mut changes);
        }
        changes
    }

    /// Reads again what a scope selects, in scalable mode.
    fn refresh(
        &mut self,
        host: &mut impl HostIommu,
        tables: &impl GuestTables,
        scope: PasidScope,
        selects: impl Fn(SourceId) -> bool + Copy,
    ) -> Changes {
        let mut changes = Changes::default();
        // What is read again in the first pass is not tried once more in the second.
        let mut done = BTreeSet::new();
        if breaks(Mutant::N4_46) {
            self.add(host, tables, scope, selects, &done, &mut changes);
        }
        for key in self.keys(selects) {
            let is_selected = |bound: &Bound| {
                // What was attached before the tables counted is no entry of them.
                bound
                    .space
                    .is_none_or(|space| is_in_scope(scope, space.domain, bound.number))
            };
            let bound = self.devices.get(&key.0).and_then(|d| d.bound.get(&key.1));
            if bound.is_some_and(is_selected) {
                let wanted = self.wanted(tables, key, &mut changes);
                self.settle(host, key, wanted, &mut changes);
                done.insert(key);
            }
        }
        self.add(host, tables, scope, selects, &done, &mut changes);
        changes
    }

    /// Binds what is in the tables and in the scope, and not bound.
    fn add(
        &mut self,
        host: &mut impl HostIommu,
        tables: &impl GuestTables,
        scope: PasidScope,
        selects: impl Fn(SourceId) -> bool,
        done: &BTreeSet<SpaceKey>,
        changes: &mut Changes,
    ) {
        for requester in self.requesters(selects) {
            let limit = self.devices.get(&requester).map_or(0, |d| d.is.pasid_limit);
            let limit = match breaks(Mutant::N4_22) {
                true => 0,
                false => limit,
            };
            let mut candidates = vec![None];
            match scope {
                PasidScope::Pasid(_, pasid) => {
                    candidates.extend((pasid.get() < limit).then_some(Some(pasid)));
                }
                PasidScope::Global | PasidScope::Domain(_) => {
                    let pasids = tables.pasids(requester, limit).into_iter();
                    candidates.extend(pasids.map(Some));
                }
            }
            // The host's PASID 0 is that of requests without one.
            candidates.retain(|pasid| pasid.is_none_or(|p| p.get() != 0));
            for pasid in candidates {
                let key = (requester, pasid);
                let bound = self
                    .devices
                    .get(&requester)
                    .map(|d| d.bound.contains_key(&pasid));
                if bound != Some(false) || done.contains(&key) {
                    continue;
                }
                let Some((space, number)) = entry(tables, key) else {
                    continue;
                };
                if is_in_scope(scope, space.domain, number) && !breaks(Mutant::N4_14) {
                    let wanted = self.wanted(tables, key, changes);
                    self.settle(host, key, wanted, changes);
                }
            }
        }
    }

    /// What the guest's tables ask for. What cannot be handed down is a failure, and asks for
    /// nothing.
    fn wanted(
        &self,
        tables: &impl GuestTables,
        of: SpaceKey,
        changes: &mut Changes,
    ) -> Option<Wanted> {
        let (space, number) = entry(tables, of)?;
        let stage = match space.translation {
            AddressTranslation::PassThrough => None,
            AddressTranslation::FirstStage(table) if table.table == 0 && !breaks(Mutant::N4_17) => {
                changes.failures.push(BindError::NoTable { of });
                return None;
            }
            AddressTranslation::FirstStage(table) => Some(first_stage(&table)),
            AddressTranslation::SecondStage | AddressTranslation::Nested(_) => {
                changes.failures.push(BindError::TranslationType { of });
                return None;
            }
        };
        Some(Wanted {
            space: Some(space),
            number,
            stage,
        })
    }

    /// Makes the host have what is wanted for an address space. If it cannot, the address space
    /// has nothing: what the guest has taken away is never left attached.
    fn settle(
        &mut self,
        host: &mut impl HostIommu,
        of: SpaceKey,
        wanted: Option<Wanted>,
        changes: &mut Changes,
    ) {
        let (requester, pasid) = of;
        let Some(device) = self.devices.get(&requester) else {
            return;
        };
        let is = device.is;
        let now = device.bound.get(&pasid).copied();
        let mut failed = |error| changes.failures.push(BindError::Host { of, error });
        let mut next = None;
        if let Some(wanted) = wanted {
            match self.acquire(host, &is, &wanted) {
                Ok(hwpt) => {
                    next = Some(Bound {
                        space: wanted.space,
                        number: wanted.number,
                        hwpt,
                    });
                }
                Err(error) => failed(error),
            }
        }
        let same = |a: Bound, b: Bound| a.hwpt == b.hwpt;
        let done = match (now, next) {
            (None, None) => Ok(()),
            (Some(now), Some(next)) if same(now, next) => Ok(()),
            (None, Some(next)) => host.attach(is.device, pasid, next.hwpt),
            (Some(_), Some(next)) if breaks(Mutant::N4_44) => {
                let _ = host.detach(is.device, pasid);
                host.attach(is.device, pasid, next.hwpt)
            }
            (Some(_), Some(next)) => host.replace(is.device, pasid, next.hwpt),
            (Some(_), None) => host.detach(is.device, pasid),
        };
        let changed = match (now, next) {
            (Some(now), Some(next)) => !same(now, next),
            (now, _) => now.is_some(),
        };
        match done {
            Ok(()) => {
                self.put(of, next);
                if changed {
                    changes.unbound.push(of);
                }
                if let Some(now) = now {
                    self.nested.release(host, now.hwpt);
                }
            }
            Err(error) => {
                failed(error);
                if let Some(next) = next {
                    self.nested.release(host, next.hwpt);
                    if let Some(now) = now {
                        // Not what was, which the guest has taken away.
                        match host.detach(is.device, pasid) {
                            Ok(()) => {
                                self.put(of, None);
                                changes.unbound.push(of);
                                self.nested.release(host, now.hwpt);
                            }
                            Err(error) => changes.failures.push(BindError::Host { of, error }),
                        }
                    }
                }
            }
        }
    }

    fn put(&mut self, (requester, pasid): SpaceKey, bound: Option<Bound>) {
        if let Some(device) = self.devices.get_mut(&requester) {
            match bound {
                Some(bound) => device.bound.insert(pasid, bound),
                None => device.bound.remove(&pasid),
            };
        }
    }

    /// The page table for what is wanted: the parent, or a nested one, which is shared.
    fn acquire(
        &mut self,
        host: &mut impl HostIommu,
        device: &AssignedDevice,
        wanted: &Wanted,
    ) -> Result<HwptId, HostError> {
        let Some(stage) = wanted.stage else {
            return Ok(device.parent);
        };
        let flags = NestedFlags {
            pasid: device.pasid_limit > 0 && !breaks(Mutant::N4_47),
            fault_queue: device.fault_queue,
        };
        let key = Key {
            parent: device.parent,
            flags,
            stage,
        };
        self.nested.acquire(host, device.device, key)
    }
}

impl Wanted {
    /// The page table of guest physical memory, whatever the tables say.
    const PARENT: Wanted = Wanted {
        space: None,
        number: 0,
        stage: None,
    };
}

/// What the guest's tables say of an address space, and by which PASID table entry.
fn entry(tables: &impl GuestTables, (requester, pasid): SpaceKey) -> Option<(AddressSpace, u32)> {
    let number = match pasid {
        Some(pasid) => pasid.get(),
        None if breaks(Mutant::N4_11) => 0,
        None => tables.rid_pasid(requester)?.get(),
    };
    Some((tables.address_space(requester, pasid)?, number))
}

/// Whether an entry of the PASID cache is in the scope of an invalidation (VT-d 6.5.2.2).
fn is_in_scope(scope: PasidScope, domain: DomainId, number: u32) -> bool {
    match scope {
        PasidScope::Global => true,
        PasidScope::Domain(did) => did == domain || breaks(Mutant::N4_12),
        PasidScope::Pasid(did, pasid) => {
            (did == domain || breaks(Mutant::N4_13)) && pasid.get() == number
        }
    }
}
