// SPDX-License-Identifier: GPL-2.0-or-later
//! The plug-in in the real QEMU, without a guest: the tests play the firmware, the operating
//! system and the process, through QEMU's qtest and QMP sockets.
//!
//! They need `SVM_QEMU` from the environment: an executable that becomes QEMU with the library
//! preloaded and with the arguments that it is given. Without it each test says so and does
//! nothing. `SVM_QTEST_ACCEL` chooses another accelerator
//! (`kvm`, `tcg`) for the machines that are not given a guest, and `SVM_QTEST_IOMMU` another vIOMMU
//! (`svm-vtd`) for those that need one.

// A failure anywhere in the bench is a failure of the test.
#![allow(clippy::unwrap_used)]

mod assigned;
mod bus;
mod client;
mod configuration;
mod context;
mod events;
mod function;
mod hotplug;
mod invalidation;
mod laboratory;
mod layout;
mod legacy;
mod loading;
mod machine;
mod msix;
mod outside;
mod paging;
mod processor;
mod realize;
mod registers;
mod reset;
mod several;
mod snapshots;
mod stale;
mod strict;
mod svm_vtd;
mod time;
mod tracing;
mod unit;
mod vhost;
mod vhost_backend;
mod vtd;
mod work;
