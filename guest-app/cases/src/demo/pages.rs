// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages that are not yet or no longer present, and huge pages.

use anyhow::{Context, ensure};
use svmctl::abi::counters::index;
use svmctl::region::{Advice, PAGE, Region};

use crate::harness::bench::{Bench, expect_bytes, pattern};
use crate::harness::{Case, Verdict, passed};
use crate::system::child::Child;
use crate::system::pages::{self, HUGE};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("page never touched", never_touched),
    Case::new("copy-on-write page after fork", copy_on_write),
    Case::new("2 MiB huge page", huge_page),
    Case::new("MADV_DONTNEED, reached again", discarded),
    Case::new("MADV_PAGEOUT to swap, reached again", swapped),
];

/// A number whose 8 bytes differ.
const PATTERN: u64 = 0x1122_3344_5566_7788;

/// `length` bytes of [`PATTERN`].
fn filled(length: usize) -> Vec<u8> {
    PATTERN
        .to_le_bytes()
        .into_iter()
        .cycle()
        .take(length)
        .collect()
}

fn never_touched(bench: &mut Bench) -> anyhow::Result<Verdict> {
    const PAGES: usize = 8;
    let region = Region::new(PAGES * PAGE)?;
    // At least one page request for each page, not one for 2 MiB.
    region.advise(Advice::NoHugePage).or_else(not_built)?;
    let before = pages::residence(&region)?;
    ensure!(
        before.present == 0,
        "{} pages are present before",
        before.present
    );
    let ((), counted) =
        bench.count(|bench| Ok(bench.fill(&region, 0..region.len(), PATTERN)?))?;
    counted.at_least(index::PAGE_REQUESTS, PAGES as u64)?;
    counted.at_least(index::PRG_RESPONSES, 1)?;
    expect_bytes(
        "the pages",
        &region.read(0..region.len()),
        &filled(region.len()),
    )?;
    passed()
}

/// A kernel without huge pages need not turn them off.
fn not_built(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        std::io::ErrorKind::InvalidInput => Ok(()),
        _ => Err(error),
    }
}

fn copy_on_write(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let region = Region::new(2 * PAGE)?;
    let old = pattern(region.len(), 4);
    region.write(0, &old);
    // The device has a writable translation of the page when it becomes shared.
    bench.copy((&region, 0), (&region, 0), region.len())?;
    let mut child = Child::fork(|line| {
        line.receive::<String>()?;
        line.tell(&region.read(0..region.len()))
    })?;
    let ((), counted) =
        bench.count(|bench| Ok(bench.fill(&region, 0..region.len(), PATTERN)?))?;
    // The write had to ask for copies of the pages.
    counted.at_least(index::PAGE_REQUESTS, 2)?;
    child.line().tell(&"look")?;
    let seen: Vec<u8> = child.line().receive().context("the child")?;
    child.finish()?;
    expect_bytes("the child's pages", &seen, &old)?;
    expect_bytes(
        "the parent's pages",
        &region.read(0..region.len()),
        &filled(region.len()),
    )?;
    passed()
}

fn huge_page(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if let Some(reason) = pages::no_huge_pages() {
        return Ok(Verdict::Skipped(reason));
    }
    let region = Region::aligned(HUGE, HUGE)?;
    region.advise(Advice::HugePage)?;
    let contents = pattern(HUGE, 5);
    region.write(0, &contents);
    let huge = pages::huge_bytes(&region)?;
    ensure!(
        huge >= HUGE,
        "the kernel gave {huge} bytes of huge pages, {HUGE} were expected (is memory scarce?)"
    );
    let (device, counted) = bench.count(|bench| Ok(bench.crc32c(&region, 0..HUGE)?))?;
    let cpu = crc32c::crc32c(&contents);
    ensure!(
        device == cpu,
        "checksum {device:08x} by the device, {cpu:08x} by the CPU"
    );
    // Small pages would take 512 translations; ring and record take a few.
    counted.at_least(index::TRANSLATION_REQUESTS, 1)?;
    counted.at_most(index::TRANSLATION_REQUESTS, 16)?;
    passed()
}

fn discarded(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let region = Region::new(4 * PAGE)?;
    let zeros = vec![0; region.len()];
    let contents = pattern(region.len(), 6);
    region.write(0, &contents);
    let first = bench.crc32c(&region, 0..region.len())?;
    ensure!(first == crc32c::crc32c(&contents), "wrong checksum before");
    let (second, counted) = bench.count(|bench| {
        region.advise(Advice::DontNeed)?;
        Ok(bench.crc32c(&region, 0..region.len())?)
    })?;
    ensure!(
        second == crc32c::crc32c(&zeros),
        "checksum {second:08x}, that of zeros is {:08x}, and of the old contents {first:08x}",
        crc32c::crc32c(&zeros)
    );
    counted.at_least(index::INVALIDATIONS, 1)?;
    counted.at_least(index::PAGE_REQUESTS, 1)?;
    // The device's write brings the pages back.
    bench.fill(&region, 0..region.len(), PATTERN)?;
    expect_bytes(
        "the new pages",
        &region.read(0..region.len()),
        &filled(region.len()),
    )?;
    passed()
}

fn swapped(bench: &mut Bench) -> anyhow::Result<Verdict> {
    /// How often the kernel is asked: it skips pages that are in use at the moment.
    const ATTEMPTS: usize = 20;
    if !pages::swap_is_on()? {
        return Ok(Verdict::Skipped(
            "no swap is on (/proc/swaps is empty)".to_owned(),
        ));
    }
    let region = Region::new(64 * PAGE)?;
    region.advise(Advice::NoHugePage).or_else(not_built)?;
    let contents = pattern(region.len(), 7);
    region.write(0, &contents);
    let all = region.len() / PAGE;
    let first = bench.crc32c(&region, 0..region.len())?;
    let (out, counted) = bench.count(|_| {
        let mut out = 0;
        for _ in 0..ATTEMPTS {
            region.advise(Advice::PageOut)?;
            out = pages::residence(&region)?.swapped;
            if out == all {
                break;
            }
        }
        Ok(out)
    })?;
    ensure!(out > 0, "no page of {all} went to swap");
    counted.at_least(index::INVALIDATIONS, 1)?;
    let (second, counted) = bench.count(|bench| Ok(bench.crc32c(&region, 0..region.len())?))?;
    counted.at_least(index::PAGE_REQUESTS, 1)?;
    let cpu = crc32c::crc32c(&contents);
    ensure!(
        (first, second) == (cpu, cpu),
        "checksum {first:08x} before and {second:08x} after, {cpu:08x} by the CPU"
    );
    let left = pages::residence(&region)?.swapped;
    ensure!(
        left < out,
        "{left} pages are in swap still: the device read other memory"
    );
    Ok(Verdict::Passed(format!("{out} of {all} pages in swap")))
}
