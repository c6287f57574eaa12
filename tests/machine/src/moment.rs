// SPDX-License-Identifier: MIT OR Apache-2.0
//! The moments of a request at which an experiment can step in.

use pcie_ats::{MemoryRequest, PageRequest, TranslationRequest};

/// A moment in the life of a request at which an experiment can step in. No lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The request has passed all checks, and memory is not accessed yet.
    Access(MemoryRequest),
    /// The unit has answered the translation request, and the function does not know yet.
    Answer(TranslationRequest),
    /// The page request is on its way to the unit.
    PageRequest(PageRequest),
}
