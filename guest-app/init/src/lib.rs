// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the two sides of a guest run have to agree on: the [`events`] that travel from the guest
//! to `svm-vm`, the [`plan`] that travels the other way, the [`paths`] of the guest, and what its
//! [`kernel`] may say.
//!
//! It knows nothing of QEMU, of the device or of how a guest is made.
#![forbid(unsafe_code)]

pub mod events;
pub mod kernel;
pub mod paths;
pub mod plan;

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
