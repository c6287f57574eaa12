// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of memory, units and endpoints together.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod address_spaces;
mod copies;
mod domains;
mod end_to_end;
#[path = "../../../../demo-device/endpoint/src/testing/failure.rs"]
mod failure;
mod invalidation;
mod msix;
mod page_requests;
mod programs;
mod remapping;
mod storm;
mod topology;
