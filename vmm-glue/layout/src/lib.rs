// SPDX-License-Identifier: MIT OR Apache-2.0
//! The layout of the structures of a QEMU binary, and the signatures of its functions, as data.
//!
//! * [`interface`]: which structures, members, functions and constants the plug-in uses: names
//!   only;
//! * [`Table`]: their sizes, offsets, signatures and values, and the text file that holds them;
//! * [`Layout`]: the sizes and offsets that are used at run time, with a name for each;
//! * `dwarf` (a feature): makes a [`Table`] from the debug information of a binary.
//!
//! [`Table::builtin`] is the table of the series of QEMU that needs no file. It was written by
//! `dwarf`, too.

#[cfg(feature = "dwarf")]
pub mod dwarf;
pub mod interface;
mod table;

pub use interface::Layout;
pub use table::{BUILTIN_SERIES, Kind, ParseError, Table};

/// What the plug-in says, on standard error, where it refuses a QEMU: this, the name of a device,
/// a colon and the reason, in one line. QEMU's own complaint that there is no such device follows.
pub const REFUSED: &str = "this QEMU cannot have the device";
