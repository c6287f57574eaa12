// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device's operations on shared memory.

use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use svmctl::Descriptor;
use svmctl::abi::counters::index;
use svmctl::region::{PAGE, Region};

use crate::harness::bench::{Bench, expect_bytes, expect_success, pattern};
use crate::harness::{Case, Verdict, passed};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("linked list followed", linked_list),
    Case::new("fetch-add against the CPU", contended),
    Case::new("compare across a page boundary", compare),
    Case::new("overlapping copy", overlapping),
    Case::new("ring wraps, every interrupt counted", wrap),
];

#[repr(C)]
struct Node {
    name: [u8; 24],
    value: u64,
    next: *const Node,
}

fn linked_list(bench: &mut Bench) -> anyhow::Result<Verdict> {
    const NODES: usize = 5000;
    // Allocated one by one and linked in another order: a step of 1999 reaches each node once.
    let mut nodes: Vec<Box<Node>> = (0..NODES as u64)
        .map(|n| {
            Box::new(Node {
                name: [n as u8; 24],
                value: n * n + 7,
                next: ptr::null(),
            })
        })
        .collect();
    let order: Vec<usize> = (0..NODES).map(|n| n * 1999 % NODES).collect();
    let mut head: *const Node = ptr::null();
    for &n in &order {
        nodes[n].next = head;
        head = &raw const *nodes[n];
    }
    let sum: u64 = nodes.iter().map(|node| node.value).sum();
    let (next, value) = (offset_of!(Node, next), offset_of!(Node, value));
    // SAFETY: the nodes are alive and do not change.
    let (device, visited) = unsafe { bench.queue().chase(head, next, value, NODES as u64) }?;
    ensure!(
        visited == NODES as u64,
        "{visited} nodes visited, there are {NODES}"
    );
    ensure!(
        device == sum,
        "sum {device} by the device, {sum} by the CPU"
    );
    Ok(Verdict::Passed(format!("{NODES} nodes")))
}

/// Why the CPU's atomic additions would not be atomic to a device; `None` if they are.
///
/// QEMU's TCG translates them as plain loads and stores when the machine can have one CPU only.
fn cpu_not_atomic() -> Option<String> {
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").ok()?;
    let cpus = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    (possible.trim() == "0" && cpus.contains("TCG")).then(|| {
        "QEMU's TCG with one CPU does not perform the CPU's atomic instructions atomically: \
         give the machine two (-smp 2)"
            .to_owned()
    })
}

fn contended(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if let Some(reason) = cpu_not_atomic() {
        return Ok(Verdict::Skipped(reason));
    }
    const DEVICE: u64 = 300;
    const BY_CPU: u64 = 1;
    const BY_DEVICE: u64 = 1 << 32;
    let number = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let started = AtomicBool::new(false);
    let (added, largest) = std::thread::scope(|scope| -> anyhow::Result<(u64, u64)> {
        let cpu = scope.spawn(|| {
            let mut added = 0u64;
            while !done.load(Ordering::Relaxed) {
                number.fetch_add(BY_CPU, Ordering::Relaxed);
                added += 1;
                started.store(true, Ordering::Relaxed);
            }
            added
        });
        while !started.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let mut device = || -> anyhow::Result<u64> {
            let mut last = None;
            for n in 0..DEVICE {
                let before = bench.queue().fetch_add(&number, BY_DEVICE)?;
                ensure!(
                    before >> 32 == n,
                    "addition {n} found {} others",
                    before >> 32
                );
                ensure!(
                    last.is_none_or(|last| before > last),
                    "the number went down"
                );
                last = Some(before);
            }
            last.context("no addition")
        };
        let result = device();
        done.store(true, Ordering::Relaxed);
        let added = cpu
            .join()
            .map_err(|_| anyhow::anyhow!("the CPU's thread panicked"))?;
        Ok((added, result?))
    })?;
    let sum = number.into_inner();
    let expected = DEVICE * BY_DEVICE + added * BY_CPU;
    ensure!(
        sum == expected,
        "the sum is {sum:#x}, {expected:#x} was expected"
    );
    ensure!(
        largest < sum,
        "the last addition found {largest:#x}, the sum is {sum:#x}"
    );
    Ok(Verdict::Passed(format!(
        "{DEVICE} by the device, {added} by the CPU"
    )))
}

fn compare(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let left = pattern(4 * PAGE, 11);
    let mut right = vec![0; left.len() + 3];
    // The two have different alignments, and are equal except for the changed bytes.
    right[3..].copy_from_slice(&left);
    let boundary = PAGE - right[3..].as_ptr().addr() % PAGE;
    let queue = bench.queue();
    let equal = queue.compare(&left, &right[3..])?;
    ensure!(equal.is_none(), "equal buffers differ at {equal:?}");
    for at in [0, boundary - 1, boundary, boundary + PAGE, left.len() - 1] {
        right[3 + at] ^= 0x40;
        let found = queue.compare(&left, &right[3..])?;
        ensure!(
            found == Some(at),
            "difference found at {found:?}, it is at {at}"
        );
        // A later difference is not reported first.
        let last = right.len() - 1;
        right[last] ^= 0x20;
        let found = queue.compare(&left, &right[3..])?;
        ensure!(
            found == Some(at),
            "first difference found at {found:?}, it is at {at}"
        );
        right[last] ^= 0x20;
        right[3 + at] ^= 0x40;
    }
    passed()
}

fn overlapping(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let original = pattern(5 * PAGE, 12);
    for (from, to) in [
        (0, 1),
        (1, 0),
        (0, PAGE - 1),
        (PAGE + 5, 7),
        (100, 100),
        (8, 2 * PAGE),
    ] {
        let length = 3 * PAGE - 9;
        let mut buffer = original.clone();
        let mut expected = original.clone();
        expected.copy_within(from..from + length, to);
        bench
            .queue()
            .copy_within(&mut buffer, from..from + length, to)?;
        expect_bytes(&format!("copy from {from} to {to}"), &buffer, &expected)?;
    }
    passed()
}

fn wrap(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if let Some(skipped) = bench.lacks_contexts() {
        return Ok(skipped);
    }
    const ENTRIES: u32 = 8;
    const ROUNDS: u64 = 40;
    let region = Region::new(PAGE)?;
    let mut queue = bench.open_queue(ENTRIES)?;
    let entries = u64::from(ENTRIES);
    let batch: Vec<Descriptor> = (1..=entries)
        .map(|n| Descriptor::fetch_add(region.at(0).cast(), n).fenced())
        .collect();
    let mut number = 0;
    for _ in 0..ROUNDS {
        // SAFETY: a region is accessed atomically, and lives as long as the call.
        let records = unsafe { queue.execute_all(&batch) }?;
        for (record, n) in records.iter().zip(1..) {
            expect_success(record)?;
            ensure!(
                record.result == number,
                "{} before, not {number}",
                record.result
            );
            number += n;
        }
    }
    let work = ROUNDS * entries;
    let deadline = Instant::now().checked_add(Duration::from_secs(60));
    let read = queue.wait_interrupts(work, deadline)?;
    let counted = queue.counters()?;
    let (done, sent) = (
        counted.get(index::DESCRIPTORS),
        counted.get(index::INTERRUPTS),
    );
    ensure!(
        (done, sent, read) == (work, work, work),
        "{work} descriptors submitted, {done} counted, {sent} interrupts sent, {read} read"
    );
    bench.add_counters(&queue)?;
    Ok(Verdict::Passed(format!(
        "{work} descriptors in a ring of {ENTRIES}"
    )))
}
