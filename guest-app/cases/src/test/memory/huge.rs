// SPDX-License-Identifier: MIT OR Apache-2.0
//! Huge pages: collapsed from small ones and split again while the device uses them, and those of
//! hugetlbfs.

use std::fs;

use anyhow::{Context, ensure};
use nix::libc;
use nix::sys::mman::MapFlags;
use svmctl::abi::counters::index;
use svmctl::region::{PAGE, Region};

use super::device::{expect_checksum, fill, round_trip};
use super::race::under_load;
use crate::harness::bench::{Bench, expect_bytes, pattern};
use crate::harness::{Case, Verdict, passed, remark, skipped};
use crate::system::mapping::{BOTH, Mapping, Memory, Setting};
use crate::system::pages::{self, HUGE};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("small pages become a huge one under the device", forms),
    Case::new("a huge page is split under the device", splits),
    Case::new("huge pages come and go at work", comes_and_goes),
    Case::new("hugetlbfs, 2 MiB pages", hugetlb_2m),
    Case::new("hugetlbfs, 1 GiB pages", hugetlb_1g),
];

/// `MADV_COLLAPSE` (Linux 6.1).
const COLLAPSE: i32 = 25;

/// Two huge pages' worth of memory, aligned.
fn aligned() -> anyhow::Result<Mapping> {
    // The region is aligned by unmapping the parts before and behind it; the kernel reuses such
    // addresses.
    let region = Region::aligned(2 * HUGE, HUGE)?;
    let address = region.address(0) as usize;
    drop(region);
    Ok(Mapping::at_address(
        address,
        2 * HUGE,
        BOTH,
        MapFlags::empty(),
    )?)
}

/// Bytes of huge pages in a mapping.
fn huge_bytes(memory: &Mapping) -> anyhow::Result<usize> {
    pages::huge_bytes_at(memory.address(0))
}

fn forms(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if let Some(reason) = pages::no_huge_pages() {
        return skipped(reason);
    }
    let memory = aligned()?;
    let all = 0..memory.len();
    memory.advise(all.clone(), libc::MADV_NOHUGEPAGE)?;
    let contents = pattern(memory.len(), 31);
    memory.write(0, &contents);
    expect_checksum(bench, "small pages", &memory, 0, &contents)?;
    ensure!(huge_bytes(&memory)? == 0, "the pages are huge already");
    memory.advise(all.clone(), libc::MADV_HUGEPAGE)?;
    let (collapsed, counted) = bench.count(|_| Ok(memory.advise(all.clone(), COLLAPSE)))?;
    if let Err(error) = collapsed {
        return skipped(format!("MADV_COLLAPSE: {error}"));
    }
    counted.at_least(index::INVALIDATIONS, 1)?;
    let huge = huge_bytes(&memory)?;
    ensure!(huge == 2 * HUGE, "{huge} bytes are in huge pages");
    let ((), counted) =
        bench.count(|bench| expect_checksum(bench, "huge pages", &memory, 0, &contents))?;
    // Small pages would take 1024.
    counted.at_most(index::TRANSLATION_REQUESTS, 16)?;
    round_trip(bench, "huge pages", &memory)?;
    passed()
}

fn splits(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if let Some(reason) = pages::no_huge_pages() {
        return skipped(reason);
    }
    let memory = aligned()?;
    let all = 0..memory.len();
    memory.advise(all.clone(), libc::MADV_HUGEPAGE)?;
    let mut contents = pattern(memory.len(), 32);
    memory.write(0, &contents);
    if huge_bytes(&memory)? < 2 * HUGE {
        return skipped("the kernel gave no huge pages (is memory scarce?)");
    }
    round_trip(bench, "huge pages", &memory)?;
    memory.write(0, &contents);
    expect_checksum(bench, "huge pages", &memory, 0, &contents)?;
    // Dropping a page in the middle splits the huge page. The device must see zeros there and no
    // other change.
    let hole = HUGE / 2..HUGE / 2 + PAGE;
    let ((), counted) = bench.count(|_| Ok(memory.advise(hole.clone(), libc::MADV_DONTNEED)?))?;
    counted.at_least(index::INVALIDATIONS, 1)?;
    contents[hole.clone()].fill(0);
    expect_checksum(bench, "with a hole", &memory, 0, &contents)?;
    expect_bytes("with a hole", &memory.read(all), &contents)?;
    // The change of its protection splits the second one.
    let (before, behind) = (HUGE..HUGE + 8 * PAGE, HUGE + 8 * PAGE..2 * HUGE);
    memory.protect(before.clone(), nix::sys::mman::ProtFlags::PROT_READ)?;
    let write = fill(bench, &memory, before.end - 8..before.end, 1);
    crate::harness::bench::expect_fault(write, true, memory.address(before.end - 8))?;
    fill(bench, &memory, behind.clone(), 2)?;
    contents[behind].copy_from_slice(&2u64.to_le_bytes().repeat((HUGE - 8 * PAGE) / 8));
    expect_bytes("split", &memory.read(0..memory.len()), &contents)?;
    memory.protect(before, BOTH)?;
    round_trip(bench, "split", &memory)?;
    passed()
}

fn comes_and_goes(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if let Some(reason) = pages::no_huge_pages() {
        return skipped(reason);
    }
    let memory = aligned()?;
    let all = 0..memory.len();
    memory.advise(all.clone(), libc::MADV_HUGEPAGE)?;
    memory.write(0, &vec![1; memory.len()]);
    let least = u64::from(bench.rounds(10));
    let pid = std::process::id();
    let split = "/sys/kernel/debug/split_huge_pages";
    let (first, behind) = (memory.address(0), memory.address(0) + memory.len() as u64);
    let mut collapsed = 0;
    let (times, _) = under_load(bench, &memory, (least, least), || {
        // Both may be refused while a page is in use, and are tried again next time.
        let _ = fs::write(split, format!("{pid},{first:#x},{behind:#x}"));
        collapsed += u32::from(memory.advise(all.clone(), COLLAPSE).is_ok());
        Ok(())
    })?;
    ensure!(collapsed > 0, "the kernel made no huge page");
    remark(format!(
        "{collapsed} times huge, {times} times written and read"
    ))
}

/// Pages of hugetlbfs that the case has reserved.
fn reserve(kib: usize, count: usize) -> anyhow::Result<Result<Setting, String>> {
    let path = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages");
    if fs::metadata(&path).is_err() {
        return Ok(Err(format!("the kernel has no such pages: no {path}")));
    }
    let setting = Setting::change(&path, &count.to_string())?;
    let text = fs::read_to_string(&path).context("nr_hugepages")?;
    if text.trim() != count.to_string() {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = memory.lines().next().unwrap_or_default().to_owned();
        return Ok(Err(format!(
            "the kernel has {} of the {count} pages that were asked for ({total}); at boot it can \
             set some aside: hugepagesz={}M hugepages={count}",
            text.trim(),
            kib >> 10
        )));
    }
    Ok(Ok(setting))
}

fn hugetlb_2m(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let reserved = match reserve(2048, 4)? {
        Ok(setting) => setting,
        Err(reason) => return skipped(reason),
    };
    let flags = MapFlags::MAP_HUGETLB | MapFlags::MAP_HUGE_2MB;
    let memory = Mapping::anonymous(2 * HUGE, BOTH, flags)?;
    // The device is the first to touch them.
    let ((), counted) = bench.count(|bench| {
        fill(bench, &memory, 0..memory.len(), 7)?;
        Ok(())
    })?;
    counted.at_least(index::PAGE_REQUESTS, 1)?;
    let expected = 7u64.to_le_bytes().repeat(memory.len() / 8);
    expect_bytes("huge pages", &memory.read(0..memory.len()), &expected)?;
    round_trip(bench, "huge pages", &memory)?;
    // A page that is freed is reused at once.
    drop(memory);
    let memory = Mapping::anonymous(2 * HUGE, BOTH, flags)?;
    expect_checksum(bench, "new pages", &memory, 0, &vec![0; memory.len()])?;
    drop(memory);
    drop(reserved);
    passed()
}

fn hugetlb_1g(bench: &mut Bench) -> anyhow::Result<Verdict> {
    const GIB: usize = 1 << 30;
    let reserved = match reserve(1 << 20, 1)? {
        Ok(setting) => setting,
        Err(reason) => return skipped(reason),
    };
    let flags = MapFlags::MAP_HUGETLB | MapFlags::MAP_HUGE_1GB;
    let memory = Mapping::anonymous(GIB, BOTH, flags)?;
    // Only parts of it, to save time.
    for boundary in (HUGE..GIB).step_by(GIB / 8) {
        let range = boundary - PAGE..boundary + PAGE;
        let contents = pattern(range.len(), boundary as u64);
        memory.write(range.start, &contents);
        expect_checksum(bench, "a part", &memory, range.start, &contents)?;
        fill(bench, &memory, range.clone(), boundary as u64)?;
        let expected = (boundary as u64).to_le_bytes().repeat(range.len() / 8);
        expect_bytes("a part", &memory.read(range), &expected)?;
    }
    let translates = bench
        .count(|bench| expect_checksum(bench, "the end", &memory, GIB - PAGE, &vec![0; PAGE]))?;
    translates.1.at_most(index::PAGE_REQUESTS, 4)?;
    drop(memory);
    drop(reserved);
    passed()
}
