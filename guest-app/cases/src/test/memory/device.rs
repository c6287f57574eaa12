// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device's operations on memory in these cases, and their checks.

use std::ops::Range;

use anyhow::{Context, ensure};
use svmctl::abi::completion::Completion;
use svmctl::region::Region;
use svmctl::{Descriptor, Error};

use crate::harness::bench::{Bench, expect_bytes, pattern};
use crate::system::mapping::Memory;

/// Fills a part of memory with the device.
pub(super) fn fill(
    bench: &mut Bench,
    memory: &impl Memory,
    range: Range<usize>,
    value: u64,
) -> Result<Completion, Error> {
    let words = Descriptor::fill(memory.at(range.start), range.len() as u64, value);
    // SAFETY: the memory is accessed atomically, and lives as long as the call.
    unsafe { bench.queue().execute(&words) }
}

/// Computes the checksum of a part of memory with the device.
pub(super) fn checksum(
    bench: &mut Bench,
    memory: &impl Memory,
    range: Range<usize>,
) -> Result<u32, Error> {
    let words = Descriptor::crc32c(memory.at(range.start), range.len() as u64, 0);
    // SAFETY: as above.
    unsafe { bench.queue().execute(&words) }.map(|record| record.result as u32)
}

/// Checks that the device reads the expected bytes.
pub(super) fn expect_checksum(
    bench: &mut Bench,
    what: &str,
    memory: &impl Memory,
    start: usize,
    expected: &[u8],
) -> anyhow::Result<()> {
    let device = checksum(bench, memory, start..start + expected.len())
        .with_context(|| format!("{what}: the device cannot read"))?;
    let cpu = crc32c::crc32c(expected);
    ensure!(
        device == cpu,
        "{what}: the checksum is {device:08x} by the device, {cpu:08x} was expected"
    );
    Ok(())
}

/// Writes all of a memory with the processor and reads it with the device, and vice versa.
pub(super) fn round_trip(
    bench: &mut Bench,
    what: &str,
    memory: &impl Memory,
) -> anyhow::Result<()> {
    let len = memory.len();
    let contents = pattern(len, memory.address(0));
    memory.write(0, &contents);
    expect_checksum(bench, what, memory, 0, &contents)?;

    let source = Region::new(len)?;
    let contents = pattern(len, !memory.address(0));
    source.write(0, &contents);
    copy(bench, &source, memory).with_context(|| format!("{what}: the device cannot write"))?;
    expect_bytes(what, &memory.read(0..len), &contents)
}

/// Copies one memory to another of the same length with the device.
pub(super) fn copy(bench: &mut Bench, from: &impl Memory, to: &impl Memory) -> Result<(), Error> {
    let words = Descriptor::copy(from.at(0), to.at(0), from.len() as u64);
    // SAFETY: both memories are accessed atomically, and live as long as the call.
    unsafe { bench.queue().execute(&words) }.map(drop)
}
