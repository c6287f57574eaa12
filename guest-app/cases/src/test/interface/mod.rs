// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program's requests to driver and device, and their answers.

mod calls;
mod descriptors;
mod doorbell;
mod interrupts;
mod registers;

use crate::harness::Case;

/// See the module.
pub const CASES: &[&[Case]] = &[
    calls::CASES,
    descriptors::CASES,
    doorbell::CASES,
    interrupts::CASES,
    registers::CASES,
];
