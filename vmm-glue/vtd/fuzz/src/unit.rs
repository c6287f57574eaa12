// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers, invalidation queue, tables in memory and the requests of functions, in any order
//! that the fuzzer thinks of; after each event, what is always true of a unit is checked.
#![no_main]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/it/bench.rs"]
mod bench;
#[path = "../../tests/it/events.rs"]
mod events;

libfuzzer_sys::fuzz_target!(|data: &[u8]| events::run_bytes(data));
