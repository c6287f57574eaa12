// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes killed at random moments: while they open, bind, set up, submit, wait for pages, copy
//! and close. Nothing is left behind.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use svmctl::region::{Advice, PAGE, Region};
use svmctl::{Descriptor, Queue};

use crate::harness::bench::{Bench, pattern};
use crate::harness::random::Random;
use crate::harness::{Case, Verdict, remark};
use crate::system::child::{Child, Line};
use crate::test::leaks::Before;

/// See the module.
pub const CASES: &[Case] = &[Case::new(
    "kills at random moments leave nothing behind",
    thousand_kills,
)
.killing()];

/// Processes that are killed.
const KILLS: u32 = 1000;
/// Processes that are at work at a time.
const AT_A_TIME: usize = 3;
/// Kills between two checks for leaks.
const BETWEEN: u32 = 100;
/// Longest lifetime of a process after it has begun to work, in microseconds. Other processes die
/// before that.
const LIFE: u64 = 4_000;
/// Memory of a process.
const MEMORY: usize = 64 * PAGE;

fn thousand_kills(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let kills = bench.rounds(KILLS);
    let mut random = Random::new(bench.options().seed);
    let own = Region::new(8 * PAGE)?;
    let contents = pattern(own.len(), 13);
    own.write(0, &contents);
    // Memory that the kernel allocates for the first processes is not a leak.
    for n in 0..AT_A_TIME {
        let mut child = worker(bench, n as u64)?;
        child.line().receive::<String>()?;
        child.kill()?;
    }
    let before = Before::take(bench)?;
    let mut alive: Vec<Child> = Vec::new();
    let (mut on_the_way, mut next) = (0, AT_A_TIME as u64);
    for n in 0..kills {
        while alive.len() < AT_A_TIME {
            next += 1;
            alive.push(worker(bench, next)?);
        }
        let mut victim = alive.swap_remove(random.index(AT_A_TIME));
        if random.once_in(3) {
            // At an arbitrary point: it may not even have opened the device.
            on_the_way += 1;
        } else {
            victim.line().receive::<String>().context("a process")?;
        }
        std::thread::sleep(Duration::from_micros(random.below(LIFE)));
        kill(victim).with_context(|| format!("process {n}"))?;
        if n % BETWEEN == BETWEEN - 1 {
            let crc = bench.crc32c(&own, 0..own.len())?;
            ensure!(
                crc == crc32c::crc32c(&contents),
                "after {n} kills the device reads other memory than the process has"
            );
        }
    }
    alive.into_iter().try_for_each(kill)?;
    ensure!(
        own.read(0..own.len()) == contents,
        "the memory of the process that kills has changed"
    );
    let left = before.check(bench, kills.into())?;
    remark(format!(
        "{kills} killed, {on_the_way} of them wherever they were; {left}"
    ))
}

/// Kills a process. It would end by itself only if something is wrong.
fn kill(mut victim: Child) -> anyhow::Result<()> {
    match victim.end_by_kill()? {
        true => Ok(()),
        false => loop {
            // Its last message says why.
            if let Err(error) = victim.line().receive::<String>() {
                bail!("it ended before it was killed: {error:#}");
            }
        },
    }
}

/// A process that works until it is killed, and reports once that it has begun.
fn worker(bench: &Bench, number: u64) -> anyhow::Result<Child> {
    Child::fork(|line: &mut Line| {
        let mut random = Random::part(bench.options().seed, number);
        let mut queue = bench.open_queue(16)?;
        let memory = Region::new(MEMORY)?;
        memory.write(0, &vec![1; MEMORY]);
        let mut told = false;
        loop {
            work(&mut queue, &memory, &mut random)?;
            if !told {
                line.tell(&"at work")?;
                told = true;
            }
            if random.once_in(8) {
                queue.restart()?;
            }
            if random.once_in(16) {
                drop(queue);
                queue = bench.open_queue(16)?;
            }
        }
    })
}

/// A few descriptors at a time, on present and absent pages.
fn work(queue: &mut Queue, memory: &Region, random: &mut Random) -> anyhow::Result<()> {
    if random.once_in(2) {
        memory.advise(Advice::DontNeed)?;
    }
    let half = MEMORY / 2;
    let mut some = || {
        let offset = random.index(half);
        let length = random.index(half - offset) + 1;
        let (low, high) = (memory.at(offset), memory.at(half + offset));
        match random.below(4) {
            0 => Descriptor::fill(low, length as u64, random.next_u64()),
            1 => Descriptor::crc32c(high, length as u64, 0),
            2 => Descriptor::fetch_add(memory.at(offset & !7).cast(), 1),
            _ => Descriptor::copy(low, high, length as u64),
        }
    };
    let batch: Vec<_> = (0..8).map(|_| some()).collect();
    // SAFETY: the descriptors stay within a region, which is accessed atomically and lives as long
    // as the call, or as the process.
    unsafe { queue.execute_all(&batch) }?;
    Ok(())
}
