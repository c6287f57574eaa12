// SPDX-License-Identifier: GPL-2.0-or-later
//! The plug-in in the real QEMU, without a guest: the tests play the firmware, the operating
//! system and the process, through QEMU's qtest and QMP sockets.
//!
//! They need, from the environment:
//!
//! * `SVM_QEMU`: an executable that runs QEMU with the arguments that it is given, with the
//!   libraries of `SVM_PLUGIN` preloaded if that is set and not empty, and with the binary
//!   `SVM_QEMU_BINARY` in the place of QEMU's own if that is set and not empty;
//! * `SVM_PLUGIN`: the library to test.
//!
//! Without them each test says so and does nothing. `SVM_QTEST_ACCEL` chooses another accelerator
//! (`kvm`, `tcg`) for the machines that are not given a guest.

// A failure anywhere in the bench is a failure of the test.
#![allow(clippy::unwrap_used)]

mod client;
mod configuration;
mod hotplug;
mod loading;
mod machine;
mod tracing;
mod work;
