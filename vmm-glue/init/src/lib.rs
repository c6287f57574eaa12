// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the two sides of a guest run have to agree on: the [events] that travel from the guest
//! to `svm-vm`.
//!
//! `svm-vm`, `svm-init` and the programs in the guest use this library. It performs no I/O
//! beyond writing an event to a sink that the caller opened.
#![forbid(unsafe_code)]

pub mod events;
