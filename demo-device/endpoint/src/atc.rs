// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address translation cache.
/// Entries of a set.
pub const WAYS: usize = 4;
