// SPDX-License-Identifier: GPL-2.0-or-later
//! Everything that this library knows of QEMU's binary interface, and nothing else:
//!
//! * [`layout`]: the structures and constants, checked at compile time;
//! * [`functions`]: the table of functions, resolved in the running process;
//! * [`iommu`]: the same for what IOMMUs are made of;
//! * [`verify`]: whether the running process is a QEMU that these describe.
//!
//! All of it is that of one series of QEMU, on x86-64. Another series needs this folder to be
//! gone through against its headers, and [`verify::SERIES`] to be changed.

pub mod functions;
pub mod iommu;
pub mod layout;
pub mod verify;

pub use functions::qemu;
