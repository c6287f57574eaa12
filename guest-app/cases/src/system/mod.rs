// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program needs of the operating system beyond the library: mapped files, a file that
//! the program serves itself, children, sockets, kernel modules, failures on demand, the device's
//! laboratory, the machine's sleep, and what `/proc` and sysfs say and do. With the tests the only
//! part of the program that needs `unsafe`.

pub mod child;
pub mod files;
pub mod fuse;
pub mod injection;
pub mod laboratory;
pub mod mapping;
pub mod module;
pub mod pages;
pub mod power;
pub mod socket;
pub mod sysfs;
pub mod uevents;
pub mod userfault;
