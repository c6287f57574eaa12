// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory as it is really used: the kernel moves, merges, splits, swaps and takes pages, and
//! programs map, protect and truncate, while the device works on them. Every byte is checked by the
//! processor.

mod files;
mod huge;
mod layout;
mod migration;
mod protection;
mod userfault;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow, ensure};
use svmctl::abi::completion::Completion;
use svmctl::region::Region;
use svmctl::{Descriptor, Error};

use crate::harness::Case;
use crate::harness::bench::{Bench, expect_bytes, pattern};
use crate::system::mapping::Memory;

/// See the module.
pub const CASES: &[&[Case]] = &[
    huge::CASES,
    migration::CASES,
    userfault::CASES,
    files::CASES,
    protection::CASES,
    layout::CASES,
];

/// Has the device fill a part of memory.
fn fill(
    bench: &mut Bench,
    memory: &impl Memory,
    range: Range<usize>,
    value: u64,
) -> Result<Completion, Error> {
    let words = Descriptor::fill(memory.at(range.start), range.len() as u64, value);
    // SAFETY: the memory is accessed atomically, and lives as long as the call.
    unsafe { bench.queue().execute(&words) }
}

/// Has the device compute the checksum of a part of memory.
fn checksum(bench: &mut Bench, memory: &impl Memory, range: Range<usize>) -> Result<u32, Error> {
    let words = Descriptor::crc32c(memory.at(range.start), range.len() as u64, 0);
    // SAFETY: as above.
    unsafe { bench.queue().execute(&words) }.map(|record| record.result as u32)
}

/// Checks that the device reads what `expected` says.
fn expect_checksum(
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

/// Has the processor write and the device read all of a memory, and the other way round.
fn round_trip(bench: &mut Bench, what: &str, memory: &impl Memory) -> anyhow::Result<()> {
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

/// Has the device copy one memory to another of the same length.
fn copy(bench: &mut Bench, from: &impl Memory, to: &impl Memory) -> Result<(), Error> {
    let words = Descriptor::copy(from.at(0), to.at(0), from.len() as u64);
    // SAFETY: both memories are accessed atomically, and live as long as the call.
    unsafe { bench.queue().execute(&words) }.map(drop)
}

/// Lets the device write and check `memory` over and over while `disturb` does something to it, in
/// another thread, until `disturb` ends. Returns how often the device did.
fn under_load(
    bench: &mut Bench,
    memory: &(impl Memory + Sync),
    disturb: impl FnOnce() -> anyhow::Result<()> + Send,
) -> anyhow::Result<u64> {
    let source = Region::new(memory.len())?;
    let ended = AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let result = disturb();
            ended.store(true, Ordering::Relaxed);
            result
        });
        let work = (|| -> anyhow::Result<()> {
            loop {
                let last = ended.load(Ordering::Relaxed);
                let contents = pattern(memory.len(), rounds);
                source.write(0, &contents);
                copy(bench, &source, memory)?;
                expect_bytes("the memory", &memory.read(0..memory.len()), &contents)?;
                expect_checksum(bench, "the memory", memory, 0, &contents)?;
                rounds += 1;
                if last {
                    return Ok(());
                }
            }
        })();
        let disturbed = other
            .join()
            .map_err(|_| anyhow!("the thread that disturbs panicked"))?;
        work.with_context(|| format!("round {rounds}"))?;
        disturbed
    })?;
    Ok(rounds)
}
