// SPDX-License-Identifier: MIT OR Apache-2.0
//! Intel VT-d remapping hardware as a library: what the *Intel Virtualization Technology for
//! Directed I/O Architecture Specification* says of a remapping unit, without a machine round it.
#![forbid(unsafe_code)]

pub mod config;
pub mod effect;
pub mod event;
pub mod fault;
pub mod registers;
pub mod spec;
