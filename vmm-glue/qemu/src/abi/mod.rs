// SPDX-License-Identifier: GPL-2.0-or-later
//! Everything that this library knows about QEMU's binary interface, and nothing else:
//!
//! * [`layout`]: the structures and constants, and the offsets of fields in the running process;
//! * [`room`]: memory for structures, and access to fields by offset;
//! * [`functions`]: the table of functions, resolved in the running process;
//! * [`signature`]: their types in the format of a layout file;
//! * [`program`]: which program runs, and its layout file;
//! * [`verify`], [`iommu`] and [`emulated`]: checks whether these describe the running process.
//!
//! Sizes and offsets come from the crate `qemu-layout`, for one series of QEMU, or from a layout
//! file. Signatures are those of that series; a file with other signatures is refused.

pub mod emulated;
pub mod functions;
pub mod iommu;
pub mod layout;
pub mod program;
mod refusal;
pub mod room;
#[cfg(test)]
pub mod signature;
pub mod verify;

pub use functions::qemu;
