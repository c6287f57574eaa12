// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host in memory with assigned devices, and a guest's tables as a map.

use crate::failure::Watch;
use host_iommu::bindings::{AssignedDevice, Bindings, Changes};
use host_iommu::host::{DeviceId, FaultQueueId, HostIommu, HwptId, ParentFlags};
use host_iommu::mock::{MockDevice, MockHost};
use host_iommu::tables::{GuestTables, Mode};
use pcie_ats::Pasid;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use std::collections::BTreeMap;
use vtd::spec::{DomainId, SourceId};
use vtd::{AddressSpace, AddressTranslation, Config, FirstStageTable};

/// The iommufd that most tests use.
pub const FD: u32 = 3;

/// The function that most tests use.
pub const SID: SourceId = SourceId(0x0108);

pub fn pasid(number: u32) -> Pasid {
    Pasid::new(number).unwrap()
}

/// A property of a number of random values. What does not have it is found again by each run: nothing
/// is kept in files, for the property may be one of a mutant.
#[track_caller]
pub fn holds<S: Strategy>(
    cases: u32,
    values: S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    };
    if Watch::current().is_some() {
        // It is of a mutant, and nobody reads the case.
        config.max_shrink_iters = 0;
    }
    match TestRunner::new(config).run(&values, property) {
        Ok(()) => {}
        Err(TestError::Fail(why, value)) => panic!("{why}: {value:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

/// A 4-level first stage.
pub fn first_stage(table: u64) -> FirstStageTable {
    FirstStageTable {
        table,
        levels: 4,
        supervisor_requests: false,
        write_protect: false,
        extended_accessed: false,
    }
}

/// An address space with a 4-level first stage.
pub fn space(domain: u16, table: u64) -> AddressSpace {
    with(domain, AddressTranslation::FirstStage(first_stage(table)))
}

/// An address space.
pub fn with(domain: u16, translation: AddressTranslation) -> AddressSpace {
    AddressSpace {
        domain: DomainId(domain),
        translation,
    }
}

/// A guest's tables.
#[derive(Clone, Debug)]
pub struct Tables {
    pub mode: Mode,
    pub rid_pasid: BTreeMap<SourceId, u32>,
    /// Address spaces by function and PASID table entry.
    pub entries: BTreeMap<(SourceId, u32), AddressSpace>,
}

impl Tables {
    /// Tables of scalable mode without entries; RID_PASID is 0.
    pub fn new() -> Self {
        Tables {
            mode: Mode::Scalable,
            rid_pasid: BTreeMap::new(),
            entries: BTreeMap::new(),
        }
    }

    pub fn set(&mut self, of: SourceId, number: u32, space: AddressSpace) {
        self.entries.insert((of, number), space);
    }

    pub fn clear(&mut self, of: SourceId, number: u32) {
        self.entries.remove(&(of, number));
    }

    fn rid(&self, of: SourceId) -> u32 {
        self.rid_pasid.get(&of).copied().unwrap_or(0)
    }
}

impl GuestTables for Tables {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn rid_pasid(&self, of: SourceId) -> Option<Pasid> {
        Pasid::new(self.rid(of)).ok()
    }

    fn address_space(&self, of: SourceId, pasid: Option<Pasid>) -> Option<AddressSpace> {
        let number = match pasid {
            None => self.rid(of),
            Some(pasid) if pasid.get() == self.rid(of) => return None,
            Some(pasid) => pasid.get(),
        };
        self.entries.get(&(of, number)).copied()
    }

    fn pasids(&self, of: SourceId, limit: u32) -> Vec<Pasid> {
        let entries = self.entries.range((of, 0)..(of, limit));
        let numbers = entries.map(|((_, number), _)| *number);
        numbers.filter(|n| *n != self.rid(of)).map(pasid).collect()
    }
}

/// A device with all abilities.
pub fn device() -> MockDevice {
    MockDevice::below(Config::default()).unwrap()
}

/// A host with assigned devices.
pub struct Bench {
    pub host: MockHost,
    pub tables: Tables,
    pub bindings: Bindings,
    pub parent: HwptId,
    pub queue: FaultQueueId,
}

impl Bench {
    /// A host with one device, [`SID`], which is assigned while the tables are empty.
    pub fn new() -> Self {
        let mut bench = Bench::without_devices();
        bench.assign(SID);
        bench
    }

    pub fn without_devices() -> Self {
        let mut host = MockHost::new();
        // A device that is not assigned, by which the parent is made.
        let maker = host.bind(FD, device());
        let ioas = host.alloc_ioas(FD).unwrap();
        let flags = ParentFlags {
            dirty_tracking: true,
            pasid: true,
        };
        let parent = host.alloc_parent(maker, ioas, flags).unwrap();
        let queue = host.alloc_fault_queue(FD).unwrap();
        Bench {
            host,
            tables: Tables::new(),
            bindings: Bindings::new(),
            parent,
            queue,
        }
    }

    /// Binds a device in the host, with the parent attached.
    pub fn plug(&mut self, requester: SourceId, device: MockDevice) -> AssignedDevice {
        let device = self.host.bind(FD, device);
        self.host.attach(device, None, self.parent).unwrap();
        AssignedDevice {
            requester,
            device,
            parent: self.parent,
            pasid_limit: 1 << 20,
            fault_queue: Some(self.queue),
        }
    }

    /// Assigns a device with all abilities.
    pub fn assign(&mut self, requester: SourceId) -> DeviceId {
        let assigned = self.plug(requester, device());
        let (host, tables) = (&mut self.host, &self.tables);
        let changes = self.bindings.assign(host, tables, assigned).unwrap();
        assert_eq!(changes.failures, []);
        assigned.device
    }

    /// The host's device of the usual function.
    pub fn device(&self) -> DeviceId {
        self.of(SID)
    }

    pub fn of(&self, requester: SourceId) -> DeviceId {
        self.bindings.device(requester).unwrap().device
    }

    pub fn pasid_cache(&mut self, scope: vtd::spec::descriptor::PasidScope) -> Changes {
        let (host, tables) = (&mut self.host, &self.tables);
        self.bindings.pasid_cache_invalidated(host, tables, scope)
    }

    pub fn remapping_changed(&mut self) -> Changes {
        let (host, tables) = (&mut self.host, &self.tables);
        self.bindings.remapping_changed(host, tables)
    }

    /// The table that is attached to an address space; 1 for the parent, 0 for nothing.
    pub fn table(&self, of: SourceId, pasid: Option<u32>) -> u64 {
        let pasid = pasid.map(self::pasid);
        let device = self.of(of);
        match self.host.attached(device, pasid) {
            None => 0,
            Some(hwpt) if hwpt == self.parent => 1,
            Some(_) => self.host.attached_stage(device, pasid).unwrap().table,
        }
    }
}
