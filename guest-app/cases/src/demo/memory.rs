// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ordinary memory of a program: heap, stack, files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};
use svmctl::abi::counters::index;
use svmctl::region::PAGE;

use crate::harness::bench::{Bench, expect_bytes, pattern};
use crate::harness::{Case, Verdict, passed};
use crate::system::files;

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("heap buffer read", heap_read),
    Case::new("buffer written, seen by the CPU", written),
    Case::new("stack variable", stack),
    Case::new("mapped file, checksum as the CPU's", mapped_file),
    Case::new("shared file mapping written", shared_file),
];

fn heap_read(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let buffer = pattern(200_003, 1);
    // It neither begins nor ends at a page or word boundary.
    let part = &buffer[3..200_002];
    let device = bench.queue().crc32c(part, 0)?;
    let cpu = crc32c::crc32c(part);
    ensure!(
        device == cpu,
        "checksum {device:08x} by the device, {cpu:08x} by the CPU"
    );
    passed()
}

fn written(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let source = pattern(50_000, 2);
    let mut buffer = vec![0xaa; 60_000];
    bench.queue().copy(&source, &mut buffer[4_001..54_001])?;
    expect_bytes("before the copy", &buffer[..4_001], &[0xaa; 4_001])?;
    expect_bytes("the copy", &buffer[4_001..54_001], &source)?;
    expect_bytes("behind the copy", &buffer[54_001..], &[0xaa; 5_999])?;
    passed()
}

fn stack(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let mut variable = [0u8; 24];
    bench
        .queue()
        .fill(&mut variable[4..20], 0x0123_4567_89ab_cdef)?;
    let mut expected = [0; 24];
    expected[4..12].copy_from_slice(&0x0123_4567_89ab_cdef_u64.to_le_bytes());
    expected[12..20].copy_from_slice(&0x0123_4567_89ab_cdef_u64.to_le_bytes());
    expect_bytes("the variable", &variable, &expected)?;

    let number = AtomicU64::new(40);
    let before = bench.queue().fetch_add(&number, 2)?;
    let after = number.load(Ordering::Relaxed);
    ensure!(
        (before, after) == (40, 42),
        "40 + 2 gave {before}, then {after}"
    );
    passed()
}

fn mapped_file(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let path = "/proc/self/exe";
    let file = File::open(path).context(path)?;
    let length = files::length(&file)?;
    let map = files::map_read(&file, length)?;
    let (device, counted) = bench.count(|bench| Ok(bench.queue().crc32c(&map, 0)?))?;
    // Nothing had accessed this mapping before.
    counted.at_least(index::PAGE_REQUESTS, 1)?;
    let cpu = crc32c::crc32c(&std::fs::read(path).context(path)?);
    ensure!(
        device == cpu,
        "checksum {device:08x} by the device, {cpu:08x} by the CPU"
    );
    Ok(Verdict::Passed(format!("{device:08x}, {length} bytes")))
}

fn shared_file(bench: &mut Bench) -> anyhow::Result<Verdict> {
    const LENGTH: usize = 5 * PAGE + 100;
    let file: File = memfd_create(c"svmctl", MFdFlags::MFD_CLOEXEC)
        .context("memfd_create")?
        .into();
    file.set_len(LENGTH as u64)?;
    let source = pattern(LENGTH - 50, 3);
    let mut map = files::map_write(&file, LENGTH as u64)?;
    bench.queue().copy(&source, &mut map[50..])?;
    // Read by a system call, not through the mapping.
    let mut contents = vec![0; LENGTH];
    file.read_exact_at(&mut contents, 0)?;
    expect_bytes("the file's begin", &contents[..50], &[0; 50])?;
    expect_bytes("the file", &contents[50..], &source)?;
    passed()
}
