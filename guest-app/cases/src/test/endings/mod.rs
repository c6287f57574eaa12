// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every way in which a process, a file, memory or the device itself can end while the device is at
//! work. Afterwards contexts, PASIDs and memory are free again.

mod device;
mod kills;
mod processes;
mod programs;
mod resets;
mod sleep;
mod stopped;
mod unanswered;
mod unmapped;
mod watched;

pub use programs::{Successor, successor};

use crate::harness::Case;

/// See the module.
pub const CASES: &[&[Case]] = &[
    processes::CASES,
    programs::CASES,
    stopped::CASES,
    unmapped::CASES,
    resets::CASES,
    watched::CASES,
    sleep::CASES,
    device::CASES,
    unanswered::CASES,
    kills::CASES,
];
