// SPDX-License-Identifier: MIT OR Apache-2.0
//! Benches: what can make a machine with an IOMMU and the device behind it.

mod host;
mod in_process;
mod model;
mod qemu;
mod qtest;

pub use host::{Bench, Gone, Hook, Host, Like, Shared, UnitWish, Wish};
pub use in_process::InProcess;
pub use model::{Model, ModelBench, Platform};
pub use qtest::{Qtest, Unit};
