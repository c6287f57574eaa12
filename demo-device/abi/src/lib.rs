// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interface of the svm-demo device: PCI ids, BAR layout, doorbell page, descriptors,
//! completion records and the ioctls of its driver.
//!
//! The device, the kernel module, the guest library and the reference manual all use these same
//! source files. They therefore need no standard library, no dependency and no allocation. The
//! kernel module includes each file separately, so they refer to each other by `super::`, and
//! compile in edition 2021 as well as 2024.
#![no_std]
#![forbid(unsafe_code)]

pub mod completion;
pub mod counters;
pub mod descriptor;
pub mod doorbell;
pub mod ids;
pub mod ioctl;
pub mod registers;
