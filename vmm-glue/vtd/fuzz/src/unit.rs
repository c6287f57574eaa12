// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes registers, invalidation queue, tables in memory and requests of functions, in any order.
//! After each event it checks the properties that always hold for a unit.
#![no_main]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/it/bench.rs"]
mod bench;
#[path = "../../tests/it/events.rs"]
mod events;

libfuzzer_sys::fuzz_target!(|data: &[u8]| events::run_bytes(data));
