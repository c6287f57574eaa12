// SPDX-License-Identifier: MIT OR Apache-2.0
//! What came of a run, as text for terminals, as documents for programs, and as a page for people.

pub mod change;
pub mod compare;
pub(crate) mod deviation_reports;
pub mod folder;
pub mod junit;
mod origin;
pub mod page;
pub mod results;
pub mod tap;
