// SPDX-License-Identifier: MIT OR Apache-2.0
//! The limits of a model, its possible deviations from the device, and the doorbell page that its
//! thread shares with its file.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use svm_abi::doorbell;

/// Log2 of the longest transfer: short, so that long buffers take several descriptors.
pub const TRANSFER_LOG2: u32 = 20;
/// Log2 of the largest ring.
pub const RING_LOG2: u32 = 10;
/// Log2 of the longest batch.
pub const BATCH_LOG2: u32 = 6;

/// A deviation of a model from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Copies and fills omit the last byte.
    LastByteMissing,
    /// Copies and fills write one byte beyond the end.
    OneByteTooMany,
    /// Faults are reported one page further.
    WrongFaultAddress,
    /// A page that is not accessible ends an operation without an error.
    FaultsHidden,
    /// The atomic addition is a read and a write.
    TornFetchAdd,
    /// An overlapping copy runs forwards, byte by byte.
    CopiesForwards,
    /// Every descriptor after a failed one fails, too.
    FailureSpreads,
    /// Sums, checksums and offsets are one too high.
    WrongResult,
}

/// The state that thread and file share.
pub(super) struct Shared {
    /// The doorbell page.
    pub page: [AtomicU64; doorbell::PAGE_SIZE as usize / 8],
    pub stop: AtomicBool,
}

impl Shared {
    pub fn register(&self, offset: u64) -> &AtomicU64 {
        &self.page[offset as usize / 8]
    }

    pub fn count(&self, index: usize, n: u64) {
        let counter = self.register(doorbell::COUNTERS + 8 * index as u64);
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
