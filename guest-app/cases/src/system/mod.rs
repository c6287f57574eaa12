// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program needs from the operating system beyond the library: mapped files, a file that
//! the program serves itself, children, sockets, kernel modules, failures on demand, the device's
//! laboratory, system suspend, and access to `/proc` and sysfs.

pub mod child;
pub mod files;
pub mod fuse;
pub mod held;
pub mod injection;
pub mod laboratory;
pub mod mapping;
pub mod module;
pub mod onlooker;
pub mod pages;
pub mod power;
pub mod socket;
pub mod sysfs;
pub mod uevents;
pub mod userfault;
