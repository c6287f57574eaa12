// SPDX-License-Identifier: MIT OR Apache-2.0
//! The layout of the structures of a QEMU binary, and the signatures of its functions, as data.
//!
//! * [`interface`]: the structures, members, functions and constants that the plug-in uses: only
//!   names;
//! * [`Table`]: their sizes, offsets, signatures and values, and the text file that holds them;
//! * [`Layout`]: the sizes and offsets for use at run time, with a name for each;
//! * `dwarf` (a feature): generates a [`Table`] from the debug information of a binary.
//!
//! [`Table::builtin`] is the table of the series of QEMU that needs no file. `dwarf` generated it,
//! too.

#[cfg(feature = "dwarf")]
pub mod dwarf;
pub mod interface;
mod table;

pub use interface::Layout;
pub use table::{BUILTIN_SERIES, Kind, ParseError, Table};

/// The beginning of the plug-in's message on standard error when it refuses a QEMU: this text, the
/// name of a device, a colon and the reason, in one line. QEMU's own error that there is no such
/// device follows.
pub const REFUSED: &str = "this QEMU cannot have the device";
