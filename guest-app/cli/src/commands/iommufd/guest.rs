// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's side of a virtual unit: its tables and queues in the memory of the checks, and the
//! registers of a unit of `vtd`, whose effects reach the kernel through `host-iommu`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use host_iommu::assigned::Assigned;
use host_iommu::bindings::AssignedDevice;
use host_iommu::compatibility::pasid_limit;
use host_iommu::host::HostIommu;
use host_iommu::tables::UnitTables;
use host_iommufd::host::Host;
use svmctl::region::{PAGE, Region};
use vtd::memory::{Memory, MemoryError};
use vtd::spec::context::ScalableContextEntry;
use vtd::spec::invalidation::InvalidationWait;
use vtd::spec::page_request::PageRequestDescriptor;
use vtd::spec::pasid::{PasidEntry, Pgtt};
use vtd::spec::register::{global, offset};
use vtd::spec::{DomainId, SourceId};
use vtd::{Capabilities, Config, Effect, Effects, Unit};

use super::world::{GUEST, Tables, World};

/// The function's requester ID in the guest.
pub const REQUESTER: SourceId = SourceId(0x0010);

/// Pages of the memory: root table, context table, PASID directory, PASID table, invalidation queue,
/// page request queue, status word.
const ROOT: usize = 44;
const CONTEXTS: usize = 45;
const DIRECTORY: usize = 46;
const PASIDS: usize = 47;
const QUEUE: usize = 48;
const REQUESTS: usize = 49;
const STATUS: usize = 50;

/// The address of a page in the guest.
const fn at(page: usize) -> u64 {
    GUEST + (page * PAGE) as u64
}

/// The guest's memory, as the unit reads it.
#[derive(Debug)]
pub struct GuestMemory(Arc<Region>);

impl GuestMemory {
    fn word(&self, address: u64) -> Result<usize, MemoryError> {
        let error = MemoryError { address };
        let byte = address.checked_sub(GUEST).ok_or(error)? as usize;
        let word = (byte < self.0.len()).then_some(byte / 8);
        word.ok_or(error)
    }
}

impl Memory for GuestMemory {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        for (n, bytes) in (0u64..).zip(data.chunks_mut(8)) {
            let word = self.read_u64(address + 8 * n)?.to_le_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
        Ok(())
    }

    fn read_u64(&self, address: u64) -> Result<u64, MemoryError> {
        let word = self.word(address)?;
        Ok(self.0.words()[word].load(Ordering::Acquire))
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.word(address + data.len() as u64 - 1)?;
        self.0.write((address - GUEST) as usize, data);
        Ok(())
    }

    fn compare_exchange(&self, address: u64, current: u64, new: u64) -> Result<u64, MemoryError> {
        let word = &self.0.words()[self.word(address)?];
        let swapped = word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire);
        Ok(swapped.unwrap_or_else(|found| found))
    }
}

/// The guest.
pub struct Guest {
    unit: Unit,
    memory: GuestMemory,
    assigned: Assigned,
    tail: u64,
}

impl Guest {
    /// A guest to which the device is assigned while translation is off.
    pub fn new(w: &mut World) -> anyhow::Result<Self> {
        let info = w.host.hardware_info(w.device)?;
        let vtd = info.vtd.context("the host's unit is not one of VT-d")?;
        let mut config = Config::default().limited_by(vtd.cap, vtd.ecap);
        config.confirm_invalidations = true;
        let mut guest = Guest {
            unit: Unit::new(Capabilities::new(config)?),
            memory: GuestMemory(w.memory.clone()),
            assigned: Assigned::new(),
            tail: 0,
        };
        let device = AssignedDevice {
            requester: REQUESTER,
            device: w.device,
            parent: w.parent()?,
            pasid_limit: pasid_limit(&config, &info),
            fault_queue: Some(w.queue),
        };
        let tables = UnitTables {
            unit: &guest.unit,
            memory: &guest.memory,
        };
        let changes = guest.assigned.assign(&mut w.host, &tables, device)?;
        ensure!(changes.is_complete(), "{:?}", changes.failures);
        Ok(guest)
    }

    fn store(&self, address: u64, words: &[u64]) -> anyhow::Result<()> {
        for (n, word) in (0u64..).zip(words) {
            self.memory.write(address + 8 * n, &word.to_le_bytes())?;
        }
        Ok(())
    }

    /// Writes the entry of a PASID; without tables it is not present.
    pub fn entry(&self, number: u32, domain: u16, tables: Option<Tables>) -> anyhow::Result<()> {
        let entry = PasidEntry::ZERO
            .with_p(tables.is_some())
            .with_pgtt(Pgtt::FirstStage)
            .with_did(DomainId(domain))
            .with_pwsnp(true)
            .with_fsptptr(tables.map_or(0, |tables| at(tables.root)));
        self.store(at(PASIDS) + u64::from(number) * 64, &entry.0)
    }

    /// Switches translation on, with the tables as they are.
    pub fn start(&mut self, host: &mut Host) -> anyhow::Result<()> {
        self.store(at(ROOT), &[at(CONTEXTS) | 1])?;
        let context = ScalableContextEntry::ZERO
            .with_p(true)
            .with_dte(true)
            .with_paside(true)
            .with_pre(true)
            .with_pasiddirptr(at(DIRECTORY));
        self.store(at(CONTEXTS) + u64::from(REQUESTER.devfn()) * 32, &context.0)?;
        self.store(at(DIRECTORY), &[at(PASIDS) | 1])?;
        self.write(host, offset::IQA, at(QUEUE) | 1 << 11, 8)?;
        self.write(host, offset::PQA, at(REQUESTS), 8)?;
        self.write(host, offset::RTADDR, at(ROOT) | 1 << 10, 8)?;
        for bit in [global::QIE, global::SRTP, global::TE] {
            let status = self.unit.read(offset::GSTS, 4) as u32 & 0x96ff_ffff;
            self.write(host, offset::GCMD, u64::from(status | bit), 4)?;
        }
        Ok(())
    }

    /// Switches translation off.
    pub fn stop(&mut self, host: &mut Host) -> anyhow::Result<()> {
        self.write(host, offset::GCMD, u64::from(global::QIE), 4)
    }

    /// Takes the device away.
    pub fn end(mut self, host: &mut Host) -> anyhow::Result<()> {
        let changes = self.assigned.unassign(host, REQUESTER);
        let changes = changes.context("the device is not assigned")?;
        ensure!(changes.is_complete(), "{:?}", changes.failures);
        Ok(())
    }

    /// Writes a register, and carries out what follows.
    fn write(&mut self, host: &mut Host, at: u16, value: u64, size: u8) -> anyhow::Result<()> {
        let mut fx = Effects::new();
        self.unit.write(at, value, size, &mut fx);
        self.carry_out(host, &fx)?;
        while fx.contains(&Effect::QueueReady) {
            fx.clear();
            let turn = self
                .unit
                .process_queue(&self.memory, Duration::ZERO, &mut fx);
            self.carry_out(host, &fx)?;
            drop(turn);
        }
        Ok(())
    }

    fn carry_out(&mut self, host: &mut Host, fx: &Effects) -> anyhow::Result<()> {
        let tables = UnitTables {
            unit: &self.unit,
            memory: &self.memory,
        };
        for effect in fx {
            self.assigned.carry_out(host, &tables, effect)?;
        }
        Ok(())
    }

    /// Submits a descriptor with a wait behind it, which has to complete.
    pub fn submit(&mut self, host: &mut Host, words: [u64; 2]) -> anyhow::Result<()> {
        self.store(at(STATUS), &[0])?;
        let wait = InvalidationWait::new().with_sw(true).with_status_data(1);
        for words in [words, wait.with_status_addr(at(STATUS)).0] {
            self.store(at(QUEUE) + self.tail, &[words[0], words[1], 0, 0])?;
            self.tail = (self.tail + 32) % 4096;
        }
        self.write(host, offset::IQT, self.tail, 8)?;
        ensure!(
            self.memory.read_u64(at(STATUS))? == 1,
            "the wait descriptor has not completed: FSTS is {:#x}",
            self.unit.read(offset::FSTS, 4)
        );
        Ok(())
    }

    /// Takes what waits in the fault queue into the guest's page request queue, and returns the
    /// last page request there.
    pub fn page_request(&mut self, w: &mut World) -> anyhow::Result<PageRequestDescriptor> {
        let delivery = self.assigned.page_requests(&mut w.host, w.queue)?;
        let mut fx = Effects::new();
        for (of, request) in &delivery.requests {
            self.unit.page_request(&self.memory, *of, request, &mut fx);
        }
        self.carry_out(&mut w.host, &fx)?;
        let tail = self.unit.read(offset::PQT, 8);
        ensure!(tail >= 32, "the page request queue is empty");
        let mut words = [0; 4];
        for (n, word) in (0u64..).zip(&mut words) {
            *word = self.memory.read_u64(at(REQUESTS) + tail - 32 + 8 * n)?;
        }
        Ok(PageRequestDescriptor::from_words(words)?)
    }
}
