// SPDX-License-Identifier: MIT OR Apache-2.0
//! Realistic use of memory: the kernel moves, merges, splits, swaps and reclaims pages, and
//! programs map, protect and truncate, while the device works on them. The processor checks every
//! byte.

mod device;
mod files;
mod huge;
mod layout;
mod migration;
mod mutants;
mod protection;
mod race;
mod userfault;

use crate::harness::Case;

/// See the module.
pub const CASES: &[&[Case]] = &[
    huge::CASES,
    migration::CASES,
    userfault::CASES,
    files::CASES,
    protection::CASES,
    layout::CASES,
    mutants::CASES,
];
