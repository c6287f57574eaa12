// SPDX-License-Identifier: MIT OR Apache-2.0
//! The unit as seen by its host and its software.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the wrong thing is to fail there"
)]

mod bench;
mod caching;
mod defects;
mod events;
#[path = "../../../../demo-device/endpoint/src/testing/failure.rs"]
mod failure;
mod faults;
mod gaps;
mod host_below;
mod interrupts;
mod page_requests;
mod queue;
mod reach;
mod reference;
mod rules;
mod software;
mod storm;
mod translation;
mod virtual_commands;
mod walks;
