// SPDX-License-Identifier: MIT OR Apache-2.0
//! A copy of a unit's translations, which must hear of its invalidations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use vm_memory::Iotlb;
use vtd::Invalidated;

/// A copy of translations.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    iotlb: RwLock<Iotlb>,
    /// Counts invalidations.
    pub generation: AtomicU64,
    /// Pages put into the copy since it was empty.
    pub pages: AtomicU64,
}

impl Shadow {
    pub fn read(&self) -> RwLockReadGuard<'_, Iotlb> {
        self.iotlb.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Iotlb> {
        self.iotlb.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unit has invalidated something. Waits for the users of the copy.
    pub fn invalidated(&self, what: &Invalidated) {
        if matches!(what, Invalidated::Interrupts(_)) {
            return;
        }
        let mut iotlb = self.write();
        self.generation.fetch_add(1, Ordering::SeqCst);
        iotlb.invalidate_all();
        self.pages.store(0, Ordering::Relaxed);
    }
}
