// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages that the kernel moves, merges and swaps while the device has translations of them.

use std::fs;
use std::path::Path;
use std::ptr;

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::MapFlags;
use svmctl::abi::counters::index;
use svmctl::region::{Advice, PAGE, Region};

use super::device::{expect_checksum, fill};
use super::race::under_load;
use crate::harness::bench::{Bench, expect_bytes, pattern};
use crate::harness::{Case, Verdict, remark, skipped};
use crate::system::mapping::{BOTH, Mapping, Memory, Setting};
use crate::system::pages;
use crate::test::leaks::becomes;

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("equal pages are merged by KSM, and written", ksm),
    Case::new("memory is compacted at work", compaction),
    Case::new("pages move to another node at work", move_pages),
    Case::new("NUMA balancing at work", balancing),
    Case::new("pages go to swap at work", swap),
];

/// The setting that lets the kernel move pages to the nodes of the tasks that use them.
const BALANCING: &str = "/proc/sys/kernel/numa_balancing";

/// Turns NUMA balancing off in cases that count moving pages; `balancing` tests it separately.
fn without_balancing() -> anyhow::Result<Option<Setting>> {
    let switch = Path::new(BALANCING);
    let present = switch.exists();
    present.then(|| Setting::change(switch, "0")).transpose()
}

/// A counter of `/proc/vmstat`.
fn vmstat(key: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/vmstat").context("/proc/vmstat")?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    Ok(value.unwrap_or(0))
}

fn ksm(bench: &mut Bench) -> anyhow::Result<Verdict> {
    const PAGES: usize = 64;
    let directory = Path::new("/sys/kernel/mm/ksm");
    if !directory.is_dir() {
        return skipped("the kernel has no KSM (/sys/kernel/mm/ksm)");
    }
    let memory = Mapping::anonymous(PAGES * PAGE, BOTH, MapFlags::empty())?;
    memory.advise(0..memory.len(), libc::MADV_NOHUGEPAGE)?;
    // Equal to each other, and to no other page in the machine.
    let page = pattern(PAGE, 0x6b736d);
    let mut contents = page.repeat(PAGES);
    memory.write(0, &contents);
    expect_checksum(bench, "before", &memory, 0, &contents)?;
    memory.advise(0..memory.len(), libc::MADV_MERGEABLE)?;
    let settings = [
        ("pages_to_scan", "5000"),
        ("sleep_millisecs", "1"),
        ("run", "1"),
    ]
    .map(|(name, value)| Setting::change(directory.join(name), value));
    let merged = || -> anyhow::Result<usize> {
        let text = fs::read_to_string("/proc/self/ksm_stat").context("/proc/self/ksm_stat")?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix("ksm_merging_pages ")?.parse().ok());
        value.context("/proc/self/ksm_stat has no ksm_merging_pages")
    };
    let ((), counted) = bench.count(|_| {
        becomes(|| {
            let merged = merged()?;
            Ok((merged + 1 >= PAGES)
                .then_some(())
                .ok_or_else(|| format!("{merged} pages of {PAGES} are merged")))
        })
    })?;
    // The device had writable translations of all of them.
    counted.at_least(index::INVALIDATIONS, 1)?;
    expect_checksum(bench, "merged", &memory, 0, &contents)?;
    // The device's writes to one page must not appear in the others.
    for n in (0..PAGES).step_by(3) {
        let word = n * PAGE + 8 * n..n * PAGE + 8 * n + 8;
        fill(bench, &memory, word.clone(), n as u64)?;
        contents[word].copy_from_slice(&(n as u64).to_le_bytes());
    }
    expect_bytes("written", &memory.read(0..memory.len()), &contents)?;
    expect_checksum(bench, "written", &memory, 0, &contents)?;
    // The written pages are not equal, so they are not merged again. But KSM still scans them, and
    // makes them read-only while it does so.
    let least = u64::from(bench.rounds(20));
    let (times, _) = under_load(bench, &memory, (least, 2), || {
        let before = full_scans()?;
        becomes(|| {
            let now = full_scans()?;
            Ok((now > before)
                .then_some(())
                .ok_or_else(|| "KSM does not scan".to_owned()))
        })
    })?;
    memory.advise(0..memory.len(), libc::MADV_UNMERGEABLE)?;
    drop(settings);
    remark(format!(
        "{PAGES} pages merged, {times} times written under KSM"
    ))
}

/// How often KSM has scanned all memory.
fn full_scans() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/sys/kernel/mm/ksm/full_scans").context("full_scans")?;
    Ok(text.trim().parse()?)
}

fn compaction(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let compact = "/proc/sys/vm/compact_memory";
    if fs::metadata(compact).is_err() {
        return skipped(format!("the kernel cannot compact memory: no {compact}"));
    }
    let unbalanced = without_balancing()?;
    let work = Region::new(64 * PAGE)?;
    work.advise(Advice::NoHugePage)?;
    let least = u64::from(bench.rounds(20));
    let mut pieces = Vec::new();
    let (mut times, mut rounds, mut moved) = (0, 0, 0);
    // If compaction has nothing to gain, it moves nothing: then try with one more piece.
    while moved == 0 {
        ensure!(
            pieces.len() < MOST_PIECES,
            "{rounds} times compacted, and no page has moved"
        );
        pieces.push(Piece::with_holes(bench, pieces.len() as u64)?);
        let places = || -> anyhow::Result<Vec<u64>> {
            let mut frames = pages::frames(work.address(0), work.len())?;
            for Piece { memory, .. } in &pieces {
                frames.extend(pages::frames(memory.address(0), memory.len())?);
            }
            Ok(frames)
        };
        let before = places()?;
        let (loaded, compacted) = under_load(bench, &work, (least, (least / 2).max(1)), || {
            Ok(fs::write(compact, "1")?)
        })?;
        (times, rounds) = (times + loaded, rounds + compacted);
        let after = places()?;
        let both = before.iter().zip(&after);
        moved = both
            .filter(|&(before, after)| *before != 0 && *after != 0 && before != after)
            .count();
    }
    drop(unbalanced);
    for Piece { memory, contents } in &pieces {
        expect_checksum(bench, "compacted", memory, 0, contents)?;
        expect_bytes("compacted", &memory.read(0..memory.len()), contents)?;
    }
    remark(format!(
        "{rounds} times, {moved} pages moved, {times} times written and read meanwhile"
    ))
}

/// Pieces of memory after which the test stops waiting for a page to move.
const MOST_PIECES: usize = 20;

/// Memory in which every second page is free, so that there are pages to move and places to move
/// them to.
struct Piece {
    memory: Mapping,
    contents: Vec<u8>,
}

impl Piece {
    fn with_holes(bench: &mut Bench, seed: u64) -> anyhow::Result<Piece> {
        let memory = Mapping::anonymous(8 << 20, BOTH, MapFlags::empty())?;
        memory.advise(0..memory.len(), libc::MADV_NOHUGEPAGE)?;
        let mut contents = pattern(memory.len(), 41 + seed);
        memory.write(0, &contents);
        expect_checksum(bench, "before", &memory, 0, &contents)?;
        for start in (0..memory.len()).step_by(2 * PAGE) {
            memory.advise(start..start + PAGE, libc::MADV_DONTNEED)?;
            contents[start..start + PAGE].fill(0);
        }
        Ok(Piece { memory, contents })
    }
}

/// Why there are no two nodes; `None` if there are.
fn one_node() -> Option<String> {
    let second = "/sys/devices/system/node/node1";
    (!Path::new(second).is_dir())
        .then(|| format!("the machine has one node of memory: no {second}"))
}

/// Moves all pages of a memory to a node. Returns how many are on it afterwards.
fn move_to(memory: &impl Memory, node: i32) -> anyhow::Result<usize> {
    pages_on(memory, node, true)
}

/// The number of pages of a memory on a node.
fn count_on(memory: &impl Memory, node: i32) -> anyhow::Result<usize> {
    pages_on(memory, node, false)
}

/// The number of pages of a memory on a node. With `moves`, it first moves them there.
fn pages_on(memory: &impl Memory, node: i32, moves: bool) -> anyhow::Result<usize> {
    /// Moves only pages that no other process maps (`MPOL_MF_MOVE`).
    const MOVE: i32 = 2;
    let pages: Vec<*mut u8> = (0..memory.len())
        .step_by(PAGE)
        .map(|offset| memory.at(offset))
        .collect();
    let nodes = vec![node; pages.len()];
    let mut status = vec![-1i32; pages.len()];
    // SAFETY: each array has the length that the call is given; without nodes the call only
    // queries. Moving a page changes no byte.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            if moves { nodes.as_ptr() } else { ptr::null() },
            status.as_mut_ptr(),
            MOVE,
        )
    };
    Errno::result(result).context("move_pages")?;
    Ok(status.iter().filter(|status| **status == node).count())
}

fn move_pages(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if let Some(reason) = one_node() {
        return skipped(reason);
    }
    // NUMA balancing moves pages back to the node of the processor that reads them, and then no
    // page is left to move.
    let unbalanced = without_balancing()?;
    let memory = Region::new(64 * PAGE)?;
    memory.advise(Advice::NoHugePage)?;
    let contents = pattern(memory.len(), 42);
    memory.write(0, &contents);
    let all = memory.len() / PAGE;
    let mut moved_alone = 0;
    expect_checksum(bench, "before", &memory, 0, &contents)?;
    for node in [1, 0, 1, 0] {
        let to_move = all - count_on(&memory, node)?;
        let (there, counted) = bench.count(|_| move_to(&memory, node))?;
        ensure!(there == all, "{there} pages of {all} are on node {node}");
        // The device had translations of all of them. The kernel chose their first node.
        if to_move > 0 {
            counted.at_least(index::INVALIDATIONS, 1)?;
        }
        moved_alone += to_move;
        expect_checksum(bench, "moved", &memory, 0, &contents)?;
        expect_bytes("moved", &memory.read(0..memory.len()), &contents)?;
    }
    ensure!(
        moved_alone >= 3 * all,
        "{moved_alone} pages were moved, not {all} three times"
    );
    drop(unbalanced);
    let least = u64::from(bench.rounds(40));
    let (mut moved, mut node) = (0, 0);
    let (times, _) = under_load(bench, &memory, (least, 2), || {
        // A page that is being accessed may stay on its node.
        node = 1 - node;
        moved += move_to(&memory, node)?;
        Ok(())
    })?;
    ensure!(moved > 0, "no page moved");
    remark(format!(
        "{moved} pages moved, {times} times written and read meanwhile"
    ))
}

fn balancing(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if let Some(reason) = one_node() {
        return skipped(reason);
    }
    if fs::metadata(BALANCING).is_err() {
        return skipped(format!("the kernel has no NUMA balancing: no {BALANCING}"));
    }
    let tunables = Path::new("/sys/kernel/debug/sched/numa_balancing");
    let faster = [
        ("scan_delay_ms", "1"),
        ("scan_period_min_ms", "10"),
        ("scan_period_max_ms", "20"),
    ]
    .map(|(name, value)| Setting::change(tunables.join(name), value));
    let memory = Region::new(64 * PAGE)?;
    memory.advise(Advice::NoHugePage)?;
    memory.write(0, &vec![1; memory.len()]);
    let least = u64::from(bench.rounds(10));
    let mut times = 0;
    let before = vmstat("numa_pte_updates ")?;
    for value in ["1", "0", "1"] {
        let setting = Setting::change(BALANCING, value)?;
        let start = vmstat("numa_pte_updates ")?;
        times += under_load(bench, &memory, (least, 1), || {
            if value == "0" {
                return Ok(());
            }
            becomes(|| {
                // The kernel scans a task's memory in proportion to the task's running time.
                spin();
                let now = vmstat("numa_pte_updates ")?;
                Ok((now > start)
                    .then_some(())
                    .ok_or_else(|| "the kernel takes no page away to find its node".to_owned()))
            })
        })?
        .0;
        drop(setting);
    }
    let taken = vmstat("numa_pte_updates ")? - before;
    drop(faster);
    remark(format!(
        "{taken} pages taken away to find their node, {times} times written and read"
    ))
}

/// Uses the processor for a while.
fn spin() {
    for n in 0..1_000_000u64 {
        std::hint::black_box(n);
    }
}

fn swap(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if !pages::swap_is_on()? {
        return skipped("no swap is on (/proc/swaps is empty)");
    }
    let memory = Region::new(64 * PAGE)?;
    memory.advise(Advice::NoHugePage)?;
    memory.write(0, &vec![1; memory.len()]);
    let least = u64::from(bench.rounds(30));
    let before = vmstat("pswpout ")?;
    let (times, rounds) = under_load(bench, &memory, (least, least), || {
        Ok(memory.advise(Advice::PageOut)?)
    })?;
    let out = vmstat("pswpout ")? - before;
    ensure!(out > 0, "no page went to swap in {rounds} tries");
    remark(format!(
        "{out} pages swapped out, {times} times written and read meanwhile"
    ))
}
