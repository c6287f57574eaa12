// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the driver and the device from a program's side.

use crate::harness::Suite;

/// The tests.
pub const SUITE: Suite = Suite {
    name: "selftest",
    themes: &[],
};
