// SPDX-License-Identifier: GPL-2.0-or-later
//! Everything that this library knows of QEMU's binary interface, and nothing else:
//!
//! * [`layout`]: the structures and constants, and where fields are in the running process;
//! * [`room`]: memory for structures, and access to fields, by those places;
//! * [`functions`]: the table of functions, resolved in the running process;
//! * [`signature`]: their types in the words of a layout file;
//! * [`program`]: which program runs, and its layout file;
//! * [`verify`] and [`iommu`]: whether the running process is a QEMU that these describe.
//!
//! Sizes and offsets come from the crate `qemu-layout`: those of one series of QEMU, or those of a
//! layout file. Signatures are those of that series; a file with others is refused.

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
