// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a Linux machine, guest or real, has and lacks for shared virtual addressing (SVA): the
//! IOMMU, the processor, the kernel, its command line, and each PCI device with its way to the
//! root complex. Nothing needs a driver, and no device is touched: configuration space is read.
//!
//! [`Facts`] are what was read. [`examine`] judges the machine and [`examine_device`] one device,
//! by the rules that Linux itself follows, without reading anything; a [`Report`] is both. The
//! rest is parsing:
//! [`config_space`] of a function, [`dmar`] of the firmware's table of remapping units.
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
