// SPDX-License-Identifier: MIT OR Apache-2.0
//! What exists for speed only. The device keeps every rule without it, so a reader may skip this
//! folder.

mod predict;
pub(crate) mod read_ahead;
pub(crate) mod runs;
