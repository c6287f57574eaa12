// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the two sides of a guest run must agree on: the [`events`] that the guest sends to
//! `svm-vm`, the [`plan`] that `svm-vm` sends to the guest, the [`paths`] in the guest, the messages
//! that its [`kernel`] may log, and the [`marks`] in its trace.
//!
//! The crate does not depend on QEMU, on the device or on how a guest is built.
#![forbid(unsafe_code)]

pub mod events;
pub mod kernel;
pub mod marks;
pub mod paths;
pub mod plan;

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
