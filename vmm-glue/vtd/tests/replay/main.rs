// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux drives the unit again: what passed between them in a real boot is played into a fresh
//! unit, and has to come out the same.
//!
//! `tests/data/README.md` says how the recordings were made. Their format is documented in
//! `vtd::recording`.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the wrong thing is to fail there"
)]

mod boot;
mod image;
mod linux;
mod player;
mod recording;

/// A boot of Linux 7.3, two programs that share their address space with a device, faults, and
/// the end of all of it.
pub const BOOT: &str = include_str!("../data/linux-7.3.recording");
