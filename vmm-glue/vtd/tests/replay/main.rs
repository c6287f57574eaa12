// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replays a real boot of Linux: a new unit receives the recorded calls, and must behave in the
//! same way.
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

/// A boot of Linux 7.3, two programs that share their address space with a device, faults, and the
/// shutdown.
pub const BOOT: &str = include_str!("../data/linux-7.3.recording");
