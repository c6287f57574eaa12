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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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

/// Lets the device write and check `memory`, at least `least` times, while `disturb` does something
/// to it over and over in another thread, at least `disturbed` times. Returns how often each did.
fn under_load(
    bench: &mut Bench,
    memory: &(impl Memory + Sync),
    (least, disturbed): (u64, u64),
    disturb: impl FnMut() -> anyhow::Result<()> + Send,
) -> anyhow::Result<(u64, u64)> {
    let source = Region::new(memory.len())?;
    let mut rounds = 0;
    let times = beside(disturb, |times| {
        while rounds < least || times() < disturbed {
            let contents = pattern(memory.len(), rounds);
            source.write(0, &contents);
            copy(bench, &source, memory).with_context(|| format!("round {rounds}"))?;
            let what = "the memory";
            expect_bytes(what, &memory.read(0..memory.len()), &contents)?;
            expect_checksum(bench, what, memory, 0, &contents)?;
            rounds += 1;
        }
        Ok(())
    })?;
    Ok((rounds, times))
}

/// Tries after which a race that nobody saw will not be seen.
const TRIES: u32 = 5_000;

/// Has the device meet a state of memory that another thread makes and takes back: without help, and
/// on a busy host, it may always come too early or too late.
#[derive(Debug, Default)]
struct Meeting {
    tried: AtomicU64,
    over: AtomicBool,
}

impl Meeting {
    /// What the device was told to do has ended.
    fn tried(&self) {
        self.tried.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps the state as it is until something has begun and ended in it.
    fn keep(&self) {
        // What is under way began before.
        let before = self.tried.load(Ordering::Relaxed);
        while self.tried.load(Ordering::Relaxed) < before + 2 && !self.over.load(Ordering::Relaxed)
        {
            std::thread::yield_now();
        }
    }
}

/// The device is told nothing more when it is dropped, and nobody waits for it.
struct Over<'a>(&'a Meeting);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Does `work` while another thread does `other` over and over, until `work` has ended. `work` can
/// ask how often that was. Returns how often it was in the end.
fn beside(
    mut other: impl FnMut() -> anyhow::Result<()> + Send,
    work: impl FnOnce(&dyn Fn() -> u64) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let (ended, times) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                if let Err(error) = other() {
                    // Whoever waits for more of it must not wait for ever.
                    times.store(u64::MAX, Ordering::Relaxed);
                    return Err(error);
                }
                times.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let worked = work(&|| times.load(Ordering::Relaxed));
        ended.store(true, Ordering::Relaxed);
        let disturbed = thread
            .join()
            .map_err(|_| anyhow!("the other thread panicked"))?;
        worked.and(disturbed)
    })?;
    Ok(times.load(Ordering::Relaxed))
}
