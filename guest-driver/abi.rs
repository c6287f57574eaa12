// SPDX-License-Identifier: GPL-2.0-only
//! The interface of the device and of `/dev/svmN`: the same source files that the device, the
//! programs and the reference manual use.
//!
//! The files define the whole interface; this driver uses a part of it.

#[path = "../demo-device/abi/src/counters.rs"]
pub(crate) mod counters;
#[path = "../demo-device/abi/src/descriptor.rs"]
pub(crate) mod descriptor;
#[path = "../demo-device/abi/src/doorbell.rs"]
pub(crate) mod doorbell;
#[path = "../demo-device/abi/src/ids.rs"]
pub(crate) mod ids;
#[path = "../demo-device/abi/src/ioctl.rs"]
pub(crate) mod ioctl;
#[path = "../demo-device/abi/src/registers.rs"]
pub(crate) mod registers;
