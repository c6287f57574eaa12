// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the driver and the device from a program's side: what they refuse, what they survive,
//! and what they leave behind.

mod calls;
mod descriptors;
mod doorbell;
mod endings;
mod raw;

use crate::harness::Suite;

/// The tests.
pub const SUITE: Suite = Suite {
    name: "selftest",
    themes: &[
        calls::CASES,
        descriptors::CASES,
        doorbell::CASES,
        endings::CASES,
    ],
};
