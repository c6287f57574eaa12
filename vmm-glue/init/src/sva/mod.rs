// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a Linux machine, guest or real, has and lacks for shared virtual addressing with Intel
//! VT-d: the IOMMU, the processor, the kernel, its command line, and the devices.
//!
//! [`Facts`] are what was read, [`examine`] judges them without reading anything.

mod checks;
mod facts;
mod pci;

pub use checks::{Check, Verdict, examine, render};
pub use facts::{Facts, Iommu};
pub use pci::{Ats, Pasid, PciDevice, Pri};
