// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invalidation requests and completions (PCIe 10.3).

use crate::{AlignedRange, OutOfRange, Pasid};

/// ITag of an invalidation request: 0 to 31 (PCIe 10.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Itag(u8);

impl Itag {
    /// The tag of a number.
    pub const fn new(value: u8) -> Result<Self, OutOfRange> {
        if value > 31 {
            return Err(OutOfRange {
                field: "ITag",
                value: value as u64,
                max: 31,
            });
        }
        Ok(Itag(value))
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// An invalidation request (PCIe 10.3.1): the function must drop translations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidateRequest {
    /// Tag that the completion returns.
    pub itag: Itag,
    /// Address space. Without it, the request applies only to translations without a PASID.
    pub pasid: Option<Pasid>,
    /// Untranslated addresses to invalidate.
    pub range: AlignedRange,
    /// Global Invalidate: the function drops the range in every address space (PCIe 10.3.8).
    pub global: bool,
}

/// The result of an invalidation request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a pending invalidation is completed later"]
pub enum Invalidation {
    /// No access that used the range is in flight, and none will start.
    Completed,
    /// Accesses are still in flight; [`crate::RootPort::invalidate_completion`] follows.
    Pending,
}

/// An invalidation completion (PCIe 10.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidateCompletion {
    /// ITag Vector: bit n is set if the request of tag n is complete.
    pub itag_vector: u32,
    /// Completion Count: the number of completions for each of these requests; 1 to 8.
    pub completion_count: u8,
}
