// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes and files that end, orderly or in the middle of work, and children that inherit files
//! of their parents. Afterwards contexts and PASIDs are free again.

use std::collections::BTreeSet;

use anyhow::ensure;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use svmctl::device::CharDevice;
use svmctl::region::{PAGE, Region};
use svmctl::{Error, Queue as LibraryQueue};

use crate::harness::bench::{Bench, expect_bytes, pattern};
use crate::harness::{Case, Verdict, passed, remark};
use crate::system::child::{Child, Line};
use crate::test::leaks::{all_free, fresh_pasid, lowest_pasids};
use crate::test::raw::{RawFile, RawQueue, expect_no_right};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("contexts run out with EBUSY and come back", exhaustion),
    Case::new("a child has no right to the file", foreign_process),
    Case::new("a child has no doorbell", no_doorbell),
    Case::new("close with work outstanding", close_working),
    Case::new("a process ends with work outstanding", exit_working).killing(),
    Case::new("SIGKILL in the middle of a copy", kill_copying).killing(),
    Case::new("SIGKILL in the middle of page requests", kill_faulting).killing(),
    Case::new("PASIDs are used again", pasids),
];

fn exhaustion(bench: &mut Bench) -> anyhow::Result<Verdict> {
    for _ in 0..3 {
        all_free(bench)?;
    }
    let file = RawFile::open(bench.device())?;
    let (one, other) = (file.info()?.context, bench.info().context);
    ensure!(one != other, "two open files have context {one}");
    remark(format!("{} contexts", bench.info().contexts))
}

fn foreign_process(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let file = RawFile::open(bench.device())?;
    let child = Child::fork(|_| {
        expect_no_right(&file)?;
        // The library returns its own error, before it accesses anything.
        let nop = bench.queue().nop();
        ensure!(
            matches!(nop, Err(Error::Forked)),
            "the library says {nop:?}"
        );
        Ok(())
    })?;
    child.finish()?;
    // The parent is not affected.
    file.info()?;
    bench.queue().nop()?;
    passed()
}

fn no_doorbell(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let mut queue = RawQueue::start(bench.device(), 2)?;
    let mut child = Child::fork(|line: &mut Line| {
        line.tell(&"begin")?;
        queue.ring_to(1);
        line.tell(&"the doorbell was rung")
    })?;
    child.line().receive::<String>()?;
    let status = child.wait()?;
    ensure!(
        matches!(status, WaitStatus::Signaled(_, Signal::SIGSEGV, _)),
        "a child that touches the doorbell ends by {status:?}, SIGSEGV was expected"
    );
    let tail = queue.register(svmctl::abi::doorbell::TAIL);
    ensure!(tail == 0, "the child has rung the doorbell: TAIL is {tail}");
    passed()
}

const LOG2: u32 = 10;

fn close_working(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let address = 0x2300_0000_0000;
    let length = PAGE << LOG2;
    for round in 1..=5 {
        let memory = Region::at_address(address, length)?;
        let mut queue = RawQueue::start(bench.device(), LOG2)?;
        // SAFETY: the memory is a region, and outlives the queue.
        unsafe { queue.fill_pages(&memory, u64::MAX) };
        drop(queue);
        drop(memory);
        // The device does not write to a later mapping of the same address.
        let memory = Region::at_address(address, length)?;
        bench.queue().nop()?;
        all_free(bench)?;
        expect_bytes(
            &format!("round {round}"),
            &memory.read(0..length),
            &vec![0; length],
        )?;
    }
    passed()
}

fn exit_working(bench: &mut Bench) -> anyhow::Result<Verdict> {
    for _ in 0..5 {
        let child = Child::fork(|_| {
            let memory = Region::new(PAGE << LOG2)?;
            let mut queue = RawQueue::start(bench.device(), LOG2)?;
            // SAFETY: the memory stays until the process ends.
            unsafe { queue.fill_pages(&memory, 1) };
            // As with `_exit`: without destructors.
            std::mem::forget((queue, memory));
            Ok(())
        })?;
        child.finish()?;
        all_free(bench)?;
    }
    passed()
}

/// Kills children in the middle of `work`, which receives a queue and the number of the round.
fn kill_rounds(
    bench: &mut Bench,
    work: impl Fn(&mut LibraryQueue, &Region) -> anyhow::Result<()>,
) -> anyhow::Result<Verdict> {
    let rounds = bench.rounds(12);
    let own = Region::new(8 * PAGE)?;
    let contents = pattern(own.len(), 13);
    own.write(0, &contents);
    for round in 0..rounds {
        let mut child = Child::fork(|line: &mut Line| {
            let mut queue = bench.open_queue(16)?;
            let memory = Region::new((2 * PAGE) << LOG2)?;
            loop {
                line.tell(&"at work")?;
                work(&mut queue, &memory)?;
            }
        })?;
        // Later in each round.
        for _ in 0..=round / 3 {
            child.line().receive::<String>()?;
        }
        child.kill()?;
        all_free(bench)?;
        let crc = bench.crc32c(&own, 0..own.len())?;
        ensure!(
            crc == crc32c::crc32c(&contents),
            "the parent's memory has changed"
        );
    }
    remark(format!("{rounds} processes killed"))
}

fn kill_copying(bench: &mut Bench) -> anyhow::Result<Verdict> {
    kill_rounds(bench, |queue, memory| {
        let half = memory.len() / 2;
        let copy = svmctl::Descriptor::copy(memory.at(0), memory.at(half), half as u64);
        // SAFETY: a region is accessed atomically, and lives as long as the call.
        unsafe { queue.execute(&copy) }?;
        Ok(())
    })
}

fn kill_faulting(bench: &mut Bench) -> anyhow::Result<Verdict> {
    kill_rounds(bench, |queue, memory| {
        let length = memory.len() as u64 / 16;
        let pieces: Vec<_> = (0..16)
            .map(|n| {
                let offset = memory.len() / 16 * n;
                svmctl::Descriptor::fill(memory.at(offset), length, n as u64)
            })
            .collect();
        // SAFETY: as above.
        unsafe { queue.execute_all(&pieces) }?;
        memory.advise(svmctl::region::Advice::DontNeed)?;
        Ok(())
    })
}

fn pasids(bench: &mut Bench) -> anyhow::Result<Verdict> {
    const ROUNDS: usize = 40;
    let first = fresh_pasid(bench)?;
    let mut seen = BTreeSet::new();
    for _ in 0..ROUNDS {
        let mut child = Child::fork(|line: &mut Line| {
            let file = CharDevice::open(bench.device())?;
            line.tell(&svmctl::device::DeviceFile::info(&file)?.pasid)
        })?;
        seen.insert(child.line().receive::<u32>()?);
        child.finish()?;
    }
    ensure!(
        !seen.contains(&bench.info().pasid),
        "a child has the parent's PASID"
    );
    // The kernel keeps the address space of a dead process for a moment.
    lowest_pasids(bench, first)?;
    remark(format!("{} PASIDs for {ROUNDS} processes", seen.len()))
}
