// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `svmctl demo` and `svmctl test` run: cases that use the device as a program does, and check
//! what comes of it.
//!
//! [`demo`] and [`test`](mod@test) are tables of cases. [`harness`] runs a table that it is given
//! and reports; it knows none. [`system`] has what cases need of Linux: children, mappings, sysfs,
//! modules. `demo` and `test` use `harness` and `system`, never the other way round, and never each
//! other.

pub mod demo;
pub mod harness;
pub mod system;
pub mod test;
