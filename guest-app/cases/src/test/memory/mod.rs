// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory as it is really used: the kernel moves, merges, splits, swaps and takes pages, and
//! programs map, protect and truncate, while the device works on them. Every byte is checked by the
//! processor.

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
