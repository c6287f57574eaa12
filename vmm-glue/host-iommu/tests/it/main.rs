// SPDX-License-Identifier: MIT OR Apache-2.0
//! The crate as those who assign devices see it, with a host in memory.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the wrong thing is to fail there"
)]

mod ats;
mod bench;
mod bindings;
mod cache_invalidate;
mod capabilities;
mod compatibility;
mod compatibility_properties;
mod document;
#[path = "../../../../demo-device/endpoint/src/testing/failure.rs"]
mod failure;
mod guest_pasids;
mod ids;
mod invalidations;
mod mock;
mod mutants;
mod page_requests;
mod parents;
mod storm;
mod unit;
mod units;
mod virtual_commands;
