// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports what a Linux machine, guest or real, has and lacks for shared virtual addressing (SVA):
//! the IOMMU, the processor, the kernel, its command line, and each PCI device with its path to the
//! root complex. No driver is needed, and no device is changed: the crate only reads configuration
//! space.
//!
//! [`Facts`] holds what was read. [`examine`] judges the machine and [`examine_device`] one device,
//! by the rules that Linux itself follows; neither reads anything. A [`Report`] combines both. The
//! other modules parse: [`config_space`] a function's configuration space, [`dmar`] the firmware's
//! table of remapping units.
#![forbid(unsafe_code)]

mod check;
pub mod config_space;
mod device;
pub mod dmar;
mod facts;
mod machine;
mod report;

pub use check::{Check, Verdict, render};
pub use device::{DeviceReport, Sva, examine_device};
pub use facts::{Facts, Iommu, IommuKind, PciDevice, parse_options};
pub use machine::examine;
pub use report::{NoSuchDevice, Report};

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
