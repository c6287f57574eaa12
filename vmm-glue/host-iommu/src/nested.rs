// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nested page tables that address spaces share: one for each first stage below a parent, as long as
//! an address space has it. It knows no address space and no guest.

use crate::host::{DeviceId, FirstStage, HostIommu, HostResult, HwptId, NestedFlags};
use crate::mutant::{Mutant, breaks};
use std::collections::BTreeMap;

/// What makes two nested page tables the same: then one is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub parent: HwptId,
    pub flags: NestedFlags,
    pub stage: FirstStage,
}

#[derive(Clone, Copy, Debug)]
struct Shared {
    hwpt: HwptId,
    /// How many address spaces have it. None have one that the host did not free.
    users: usize,
}

/// The nested page tables that there are.
#[derive(Debug, Default)]
pub(crate) struct NestedTables(BTreeMap<Key, Shared>);

impl NestedTables {
    /// The page table of a key, which is made if there is none. Each is released once for each time
    /// that it was acquired.
    pub fn acquire(
        &mut self,
        host: &mut impl HostIommu,
        device: DeviceId,
        key: Key,
    ) -> HostResult<HwptId> {
        if let Some(shared) = self.0.get_mut(&key) {
            if !breaks(Mutant::N4_30) {
                shared.users += 1;
                return Ok(shared.hwpt);
            }
        }
        let hwpt = host.alloc_nested(device, key.parent, &key.stage, key.flags)?;
        self.0.insert(key, Shared { hwpt, users: 1 });
        Ok(hwpt)
    }

    /// An address space has a page table no more. Others than nested ones are passed over.
    pub fn release(&mut self, host: &mut impl HostIommu, hwpt: HwptId) {
        let mut all = self.0.values_mut();
        if let Some(shared) = all.find(|shared| shared.hwpt == hwpt) {
            shared.users -= 1;
        }
        self.free_unused(host);
    }

    /// Frees the page tables that no address space has. One that the host does not free is tried
    /// again next time, or used again: nothing of the guest depends on it.
    pub fn free_unused(&mut self, host: &mut impl HostIommu) {
        if breaks(Mutant::N4_21) {
            return;
        }
        self.0
            .retain(|_, shared| shared.users > 0 || host.free_hwpt(shared.hwpt).is_err());
    }

    /// How many page tables the host did not free.
    pub fn unused(&self) -> usize {
        self.0.values().filter(|shared| shared.users == 0).count()
    }
}
