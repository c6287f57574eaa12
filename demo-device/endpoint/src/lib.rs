// SPDX-License-Identifier: MIT OR Apache-2.0
//! The svm-demo device as a state machine: a queue-based accelerator that reaches the memory of
//! processes under their PASIDs, through Address Translation Services and the Page Request
//! Interface (PCIe chapter 10).
//!
//! The crate has no input or output, no thread and no clock, and does not depend on a virtual
//! machine monitor. The device acts when its host calls [`Endpoint::step`], and sends its requests
//! through the host's [`pcie_ats::RootPort`]. Requests to the device arrive through its
//! [`pcie_ats::Function`].
#![forbid(unsafe_code)]

mod access;
mod activity;
mod atc;
mod ats_messages;
mod completion;
mod config;
pub mod config_space;
mod context;
mod counters;
mod device;
mod dma;
mod endpoint;
mod fast;
mod flight;
mod job;
mod laboratory;
mod moderation;
mod mutant;
mod operation;
mod page_groups;
mod permit;
mod registers;
mod ring;
mod set;
mod sync;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod turn;
mod witness;

/// The address translation cache alone, for its benchmarks. Hosts do not need it.
pub mod translation_cache {
    pub use crate::access::Access;
    pub use crate::atc::{Atc, Cached, Hit, Scope, Space};
}

pub use config::{
    Config, ConfigError, MAX_ATC_ENTRIES, MAX_ATC_WAYS, MIN_ATC_ENTRIES, MIN_ATC_WAYS,
};
pub use config_space::Power;
pub use endpoint::{Endpoint, Step};
pub use mutant::Mutant;

/// Runs the examples of the README as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
