// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the end-to-end tests are made of: the reference manual as `svm-abi` has it, the rules
//! that every file of the project keeps, the runs of guests through `svm-vm`, and the comparison
//! of a run's trace with QEMU's own log.
#![forbid(unsafe_code)]

pub mod agreement;
pub mod bench_guest;
#[cfg(test)]
mod carried;
pub mod ci;
pub mod circles;
pub mod coverage;
pub mod crates;
pub mod devices;
pub mod failures;
pub mod fuzz;
pub mod guest;
pub mod host;
pub mod hosts;
pub mod house_rules;
pub mod launcher;
pub mod levels;
pub mod levels_long;
#[cfg(test)]
mod limits;
pub mod manual;
pub mod packaging;
pub mod parts;
pub mod qemu_log;
#[cfg(test)]
mod readme;
pub mod selftests;
pub mod skips;
#[cfg(test)]
mod sources;
pub mod suite;
pub mod tally;
pub mod terminal;
pub mod trace;
pub mod users;
pub mod ways;
