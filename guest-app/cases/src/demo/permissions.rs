// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device does not access memory that it has no permission to access.

use std::ptr;

use anyhow::ensure;
use svmctl::abi::counters::index;
use svmctl::region::{PAGE, Region};
use svmctl::{Descriptor, Failure};

use crate::harness::bench::{Bench, expect_bytes, expect_fault, expect_success, pattern};
use crate::harness::{Case, Verdict, passed};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("munmap, then access fails", unmapped),
    Case::new("read-only mapping", read_only),
    Case::new("bad pointer fails only itself", bad_pointer),
];

/// An address at which nothing is mapped by default: the kernel allocates addresses from the other
/// end.
const QUIET_ADDRESS: usize = 0x2000_0000_0000;

fn unmapped(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let mut before = Region::at_address(QUIET_ADDRESS, 3 * PAGE)?;
    let mut middle = before.split_off(PAGE);
    let behind = middle.split_off(PAGE);
    let contents = pattern(PAGE, 8);
    for region in [&before, &middle, &behind] {
        region.write(0, &contents);
    }
    let source = Region::new(2 * PAGE)?;
    source.write(0, &pattern(2 * PAGE, 9));

    // The device has translated the page and written to it.
    bench.copy((&source, 0), (&middle, 0), PAGE)?;
    expect_bytes("the page", &middle.read(0..PAGE), &source.read(0..PAGE))?;
    let (address, counted) = bench.count(|_| Ok(middle.unmap()))?;
    counted.at_least(index::INVALIDATIONS, 1)?;

    let gone = ptr::without_provenance_mut::<u8>(address as usize);
    let write = Descriptor::copy(source.at(0), gone.wrapping_add(40), 100);
    let read = Descriptor::crc32c(gone.wrapping_add(50), 100, 0);
    // SAFETY: nothing is mapped there, and no other code maps anything at such an address.
    let (write, read) = unsafe { (bench.queue().execute(&write), bench.queue().execute(&read)) };
    let failure = expect_fault(write, true, address + 40)?;
    ensure!(
        failure.bytes_done == 0,
        "{} bytes were written",
        failure.bytes_done
    );
    expect_fault(read, false, address + 50)?;

    // Across the edge: the part before it may be written, the part behind it may not.
    let across = Descriptor::copy(source.at(0), before.at(PAGE - 16), 2 * PAGE as u64);
    // SAFETY: the region before the edge lives and is accessed atomically; behind it nothing is
    // mapped.
    let across = unsafe { bench.queue().execute(&across) };
    let failure = expect_fault(across, true, address)?;
    ensure!(
        failure.bytes_done <= 16,
        "{} bytes were written",
        failure.bytes_done
    );
    let untouched = ..PAGE - 16;
    expect_bytes(
        "the page before",
        &before.read(0..PAGE)[untouched],
        &contents[untouched],
    )?;
    expect_bytes("the page behind", &behind.read(0..PAGE), &contents)?;
    passed()
}

fn read_only(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let mut region = Region::new(3 * PAGE)?;
    let contents = pattern(region.len(), 10);
    region.write(0, &contents);
    // The device has writable translations of all pages before that changes.
    bench.copy((&region, 0), (&region, 0), region.len())?;
    region.set_read_only(PAGE..2 * PAGE)?;

    let device = bench.crc32c(&region, 0..region.len())?;
    let cpu = crc32c::crc32c(&contents);
    ensure!(
        device == cpu,
        "checksum {device:08x} by the device, {cpu:08x} by the CPU"
    );
    let write = bench.fill(&region, PAGE + 8..PAGE + 16, 0);
    expect_fault(write, true, region.address(PAGE + 8))?;
    let across = bench.fill(&region, PAGE - 8..2 * PAGE + 8, 0);
    expect_fault(across, true, region.address(PAGE))?;
    expect_bytes("the pages", &region.read(PAGE..3 * PAGE), &contents[PAGE..])?;
    // After it is made writable again, a write succeeds.
    region.set_read_only(0..0)?;
    bench.fill(&region, PAGE..PAGE + 8, 0)?;
    expect_bytes("the word", &region.read(PAGE..PAGE + 8), &[0; 8])?;
    passed()
}

fn bad_pointer(bench: &mut Bench) -> anyhow::Result<Verdict> {
    // An address in the first page, where nothing is ever mapped.
    let bad = ptr::without_provenance_mut::<u8>(0x18);
    let region = Region::new(PAGE)?;
    let number = |n: usize| region.at(8 * n);
    let batch = [
        Descriptor::fill(number(0), 8, 1),
        Descriptor::fill(bad, 8, 2),
        Descriptor::fill(number(1), 8, 3),
        Descriptor::copy(bad, number(2), 8),
        Descriptor::fetch_add(bad.cast(), 4),
        Descriptor::fill(number(3), 8, 5),
    ];
    // SAFETY: a region is accessed atomically, and lives as long as the call; at the bad address
    // nothing is ever mapped.
    let records = unsafe { bench.queue().execute_all(&batch) }?;
    for (n, record) in records.iter().enumerate() {
        match n {
            1 | 4 => drop(expect_fault(failed(record), true, 0x18).or_else(|error| {
                // An atomic access reads and writes: either may fail.
                if n == 4 {
                    expect_fault(failed(record), false, 0x18)
                } else {
                    Err(error)
                }
            })?),
            3 => drop(expect_fault(failed(record), false, 0x18)?),
            _ => expect_success(record)?,
        }
    }
    let words = [1u64, 3, 0, 5].map(u64::to_le_bytes).concat();
    expect_bytes("the numbers", &region.read(0..32), &words)?;
    passed()
}

/// A record as the result of an operation.
fn failed(record: &svmctl::abi::completion::Completion) -> Result<u64, svmctl::Error> {
    Failure::of(record).map_or(Ok(record.result), |failure| Err(failure.into()))
}
