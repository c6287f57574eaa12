// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many processes: as many at a time as the device has contexts, and many one after the other. Each
//! works at the same virtual address and checks every byte.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use svmctl::region::{PAGE, Region};
use svmctl::{Descriptor, Queue};

use crate::harness::bench::{Bench, expect_bytes, pattern};
use crate::harness::{Case, Verdict, remark, skipped};
use crate::system::child::{Child, Line};
use crate::test::leaks::{Before, all_free, lowest_pasids};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("a process for each context, all at work", all_contexts),
    Case::new("processes one after the other", one_after_the_other),
];

/// Address of the memory of all of them.
const ADDRESS: usize = 0x2a00_0000_0000;
/// Number of pages that are copied, and of pages that they are copied to.
const PAGES: usize = 4;

/// Copies the process's own pattern with the device, and checks every byte of source and
/// destination.
fn work(queue: &mut Queue, memory: &Region, seed: u64) -> anyhow::Result<()> {
    let half = memory.len() / 2;
    let contents = pattern(half, seed);
    memory.write(0, &contents);
    let copy = Descriptor::copy(memory.at(0), memory.at(half), half as u64);
    let check = Descriptor::crc32c(memory.at(0), half as u64, 0);
    // SAFETY: a region is accessed atomically, and lives as long as the calls.
    let crc = unsafe {
        queue.execute(&copy)?;
        queue.execute(&check)?.result as u32
    };
    ensure!(
        crc == crc32c::crc32c(&contents),
        "the device read other memory than the process has"
    );
    expect_bytes("the source", &memory.read(0..half), &contents)?;
    expect_bytes("the copy", &memory.read(half..2 * half), &contents)
}

fn memory() -> std::io::Result<Region> {
    Region::at_address(ADDRESS, 2 * PAGES * PAGE)
}

fn all_contexts(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let rounds = bench.rounds(10);
    let others = bench.info().contexts - 1;
    if others == 0 {
        return skipped("the device has one context only (-device svm-demo,contexts=N)");
    }
    let mut children = Vec::new();
    for n in 0..others {
        let mut child = Child::fork(|line: &mut Line| {
            let mut queue = bench.open_queue(4)?;
            let memory = memory()?;
            line.tell(&queue.info().pasid)?;
            line.receive::<String>()?;
            for round in 0..rounds {
                work(&mut queue, &memory, u64::from(n) << 32 | u64::from(round))
                    .with_context(|| format!("process {n}, round {round}"))?;
            }
            Ok(())
        })?;
        // One after the other: only the work must be simultaneous.
        let pasid: u32 = child.line().receive()?;
        children.push((child, pasid));
    }
    let pasids: BTreeSet<u32> = children.iter().map(|(_, pasid)| *pasid).collect();
    ensure!(
        pasids.len() == children.len() && !pasids.contains(&bench.info().pasid),
        "{} processes and this one have the PASIDs {pasids:?} and {}",
        children.len(),
        bench.info().pasid
    );
    for (child, _) in &mut children {
        child.line().tell(&"go")?;
    }
    let own = memory()?;
    for round in 0..rounds {
        work(bench.queue(), &own, !u64::from(round)).context("this process")?;
    }
    for (child, _) in children {
        child.finish()?;
    }
    all_free(bench)?;
    remark(format!(
        "{} processes, each {rounds} times",
        u64::from(others) + 1
    ))
}

fn one_after_the_other(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let processes = bench.rounds(1000);
    let before = Before::take(bench)?;
    let mut pasids = BTreeSet::new();
    for n in 0..processes {
        let mut child = Child::fork(|line: &mut Line| {
            let mut queue = bench.open_queue(4)?;
            line.tell(&queue.info().pasid)?;
            work(&mut queue, &memory()?, n.into())
        })?;
        let pasid = child.line().receive::<u32>();
        child.finish().with_context(|| format!("process {n}"))?;
        pasids.insert(pasid?);
    }
    // A dead process keeps its PASID for a moment: how many are kept at a time says nothing.
    lowest_pasids(bench, before.pasid())?;
    let left = before.check(bench, processes.into())?;
    remark(format!(
        "{processes} processes had {} PASIDs; {left}",
        pasids.len()
    ))
}
