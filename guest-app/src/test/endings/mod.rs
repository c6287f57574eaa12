// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every way in which a process, a file, memory or the device itself can end while the device is
//! at work. Afterwards nothing is left: contexts, PASIDs and memory are free again.

mod kills;
mod processes;

use crate::harness::Case;

/// See the module.
pub const CASES: &[&[Case]] = &[processes::CASES, kills::CASES];
