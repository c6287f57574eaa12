// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the checks work with: a device on an iommufd, memory that stands for a guest's, and page
//! tables in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use host_iommu::host::{
    DeviceId, Errno, FaultQueueId, FirstStage, HostIommu, HwptId, IoasId, Mapping, NestedFlags,
    ParentFlags,
};
use host_iommufd::host::Host;
use svmctl::abi::counters::{COUNTERS, index};
use svmctl::region::{PAGE, Region};

use super::laboratory::Laboratory;

/// Guest physical address of the memory.
pub const GUEST: u64 = 1 << 32;
/// Pages of it.
pub const PAGES: usize = 64;
/// The first input address that the tables have.
pub const INPUT: u64 = 0x7f00_0000_1000;

/// Flags of first-stage entries: present, user, and writable or not.
pub const READ_WRITE: u64 = 7;
/// See [`READ_WRITE`].
pub const READ_ONLY: u64 = 5;

/// A four-level first stage in the memory: its root is at a page, with the three lower tables
/// behind it.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// The page of the root.
    pub root: usize,
}

/// All of it.
pub struct World {
    /// The host.
    pub host: Host,
    /// The device.
    pub device: DeviceId,
    /// Its laboratory.
    pub laboratory: Laboratory,
    /// The memory.
    pub memory: Arc<Region>,
    /// The address space that has the memory at [`GUEST`].
    pub ioas: IoasId,
    /// A parent of it; none on a unit without nested translation.
    pub parent: Option<HwptId>,
    /// A fault queue.
    pub queue: FaultQueueId,
    /// The first stage of requests without PASID.
    pub tables: Tables,
    /// The page table that requests without PASID have.
    pub nested: Option<HwptId>,
}

/// What parents and nested page tables of these checks can do.
pub const PARENT: ParentFlags = ParentFlags {
    dirty_tracking: false,
    pasid: true,
};

impl World {
    /// Opens the iommufd, and binds a device to it.
    pub fn open(device: File) -> anyhow::Result<Self> {
        let mut host = Host::new();
        let path = Path::new("/dev/iommu");
        let iommufd = host
            .open(path)
            .with_context(|| path.display().to_string())?;
        let device = host.bind(iommufd, device).context(
            "the device cannot be bound to the iommufd: without interrupt remapping, iommufd wants \
             allow_unsafe_interrupts=1",
        )?;
        let laboratory = Laboratory::open(&host, device)?;
        let memory = Arc::new(Region::new(PAGES * PAGE)?);
        // SAFETY: the region is accessed by atomic accesses alone, and the world, which has the
        // mappings, keeps it.
        unsafe { host.memory().give(memory.at(0), memory.len()) };
        let ioas = host.alloc_ioas(iommufd)?;
        host.map(
            ioas,
            &Mapping {
                iova: GUEST,
                host: memory.address(0),
                length: memory.len() as u64,
                writable: true,
            },
        )?;
        let parent = match host.alloc_parent(device, ioas, PARENT) {
            Ok(parent) => Some(parent),
            Err(error) if error.errno == Errno::NotSupported => None,
            Err(error) => return Err(error.into()),
        };
        let queue = host.alloc_fault_queue(iommufd)?;
        let world = World {
            host,
            device,
            laboratory,
            memory,
            ioas,
            parent,
            queue,
            tables: Tables { root: 0 },
            nested: None,
        };
        world.fill(8, 0x88);
        world.fill(9, 0x99);
        world.fill(10, 0xaa);
        Ok(world)
    }

    /// The parent.
    pub fn parent(&self) -> anyhow::Result<HwptId> {
        self.parent.context("there is no parent")
    }

    /// Fills a page of the memory with a byte's pattern.
    pub fn fill(&self, page: usize, byte: u64) {
        let words = &self.memory.words()[page * PAGE / 8..(page + 1) * PAGE / 8];
        for word in words {
            word.store(byte * 0x0101_0101_0101_0101, Ordering::Relaxed);
        }
    }

    /// A word of the memory.
    pub fn word(&self, page: usize, word: usize) -> u64 {
        self.memory.words()[page * PAGE / 8 + word].load(Ordering::Acquire)
    }

    fn set_word(&self, page: usize, word: usize, value: u64) {
        self.memory.words()[page * PAGE / 8 + word].store(value, Ordering::Release);
    }

    /// Makes the upper levels of tables, for [`INPUT`] and 511 pages round it.
    pub fn build(&self, tables: Tables) {
        for (level, shift) in [39, 30, 21].into_iter().enumerate() {
            let page = tables.root + level;
            let next = GUEST + ((page + 1) * PAGE) as u64;
            self.set_word(page, (INPUT >> shift & 511) as usize, next | READ_WRITE);
        }
    }

    /// Maps the nth page from [`INPUT`] on to a page of the memory.
    pub fn map(&self, tables: Tables, n: usize, page: usize, flags: u64) {
        self.map_to(tables, n, GUEST + (page * PAGE) as u64, flags);
    }

    /// Maps the nth page from [`INPUT`] on to a guest physical address.
    pub fn map_to(&self, tables: Tables, n: usize, guest: u64, flags: u64) {
        let at = (INPUT >> 12 & 511) as usize + n;
        self.set_word(tables.root + 3, at, guest | flags);
    }

    /// The leaf entry of the nth page from [`INPUT`] on.
    pub fn leaf(&self, tables: Tables, n: usize) -> u64 {
        self.word(tables.root + 3, (INPUT >> 12 & 511) as usize + n)
    }

    /// The input address of the nth page.
    pub fn input(n: usize) -> u64 {
        INPUT + (n * PAGE) as u64
    }

    /// A first stage by tables.
    pub fn stage(tables: Tables) -> FirstStage {
        FirstStage {
            table: GUEST + (tables.root * PAGE) as u64,
            address_width: 48,
            supervisor_requests: false,
            extended_accessed: false,
            write_protect: false,
        }
    }

    /// A nested page table of tables, with or without the fault queue.
    pub fn nest(&mut self, tables: Tables, faults: bool) -> anyhow::Result<HwptId> {
        let flags = NestedFlags {
            pasid: true,
            fault_queue: faults.then_some(self.queue),
        };
        let stage = Self::stage(tables);
        Ok(self
            .host
            .alloc_nested(self.device, self.parent()?, &stage, flags)?)
    }

    /// The page table that requests without PASID have.
    pub fn nested(&self) -> anyhow::Result<HwptId> {
        self.nested
            .context("no page table is attached: an earlier check has failed")
    }

    /// How many invalidation requests the device has received.
    pub fn invalidations(&self) -> anyhow::Result<u64> {
        Ok(self.laboratory.counter(index::INVALIDATIONS)?)
    }

    /// The device's counters, by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let value = |counter: &svmctl::abi::counters::Counter| {
            let value = self.laboratory.counter(counter.index).unwrap_or_default();
            (counter.key.to_owned(), value)
        };
        COUNTERS.iter().map(value).collect()
    }
}
