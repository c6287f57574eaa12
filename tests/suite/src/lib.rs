// SPDX-License-Identifier: MIT OR Apache-2.0
//! The correctness suite: each rule of ATS, PRI and PASID as one function, which runs on several
//! benches and judges the IOMMU and the device there.
//!
//! * [`rule`] says what a rule and a clause of it are, [`verdict`] what comes of one; [`rules`] has
//!   all of them.
//! * [`bench`](mod@bench) has the benches: a machine in this process with this project's unit, and
//!   QEMU over qtest with either unit.
//! * [`guest`](mod@guest) has the benches with Linux, whose rules cases in a guest judge.
//! * [`world`] is what a rule works with: software, a process and the laboratory of the device.
//! * [`deviations`] lists where a unit is known not to keep a rule.
//! * [`differential`] compares two units by random cases.
//! * [`run`] runs rules and mutants; [`report`] writes what came of it; [`main`] is the command
//!   line, for programs with benches of their own, too.
#![forbid(unsafe_code)]

pub mod bench;
mod command;
pub mod deviations;
pub mod differential;
pub mod guest;
pub mod mutant;
pub mod need;
pub mod report;
pub mod rule;
pub mod rules;
pub mod run;
pub mod trial;
pub mod verdict;
pub mod world;

pub use command::main;
// What the interface of a bench is made of, for programs that have one.
pub use {machine, pcie_ats, svm_abi, svm_endpoint, vtd};
