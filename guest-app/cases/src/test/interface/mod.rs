// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program can say to driver and device, and what it is answered.

mod calls;
mod descriptors;
mod doorbell;
mod interrupts;

use crate::harness::Case;

/// See the module.
pub const CASES: &[&[Case]] = &[
    calls::CASES,
    descriptors::CASES,
    doorbell::CASES,
    interrupts::CASES,
];
