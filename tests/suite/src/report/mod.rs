// SPDX-License-Identifier: MIT OR Apache-2.0
//! What came of a run, as text for terminals and for programs.

pub mod json;
pub mod junit;
pub mod tap;
