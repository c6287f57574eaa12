// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cases of `svmctl demo` and `svmctl test`: they use the device as a program does and check
//! the results.
//!
//! [`demo`] and [`test`](mod@test) are tables of cases. [`harness`] runs a given table and reports;
//! it is independent of the tables. [`system`] has what cases need from Linux: children, mappings,
//! sysfs, modules. `demo` and `test` use `harness` and `system`, never the other way round, and
//! never each other.

pub mod demo;
pub mod harness;
pub mod system;
pub mod test;
