// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine suspends while a program is at work, and resumes.

use std::io;
use std::time::{Duration, Instant};

use anyhow::ensure;
use svmctl::abi::descriptor::{Descriptor, Operation, flags};
use svmctl::abi::registers::status;
use svmctl::region::{PAGE, Region};

use super::device::works;
use crate::harness::bench::{Bench, expect_bytes};
use crate::harness::{Case, Verdict, remark, skipped};
use crate::system::power::{
    AcpiTimer, can_suspend_to_idle, rehearse_suspend_to_idle, suspend_to_idle,
};
use crate::test::raw::RawQueue;

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("asleep and awake again at work, rehearsed", rehearsed),
    Case::new("suspended to idle at work, and woken", suspended).provoking(WOKEN),
];

/// The kernel's message about the event that wakes it.
const WOKEN: &[&str] = &["ACPI *No installed handler for fixed event"];

/// Log2 of the size of the ring and of the number of pages that are filled.
const LOG2: u32 = 8;

/// Memory that each descriptor fills: enough work that no device completes it before the machine
/// suspends.
const MUCH: usize = 16 << 20;

/// Suspends the machine in the middle of work, by `sleep`, after calling `ready`. Returns how long
/// it took, or why it did not suspend.
fn sleep_at_work(
    bench: &mut Bench,
    ready: impl FnOnce() -> io::Result<()>,
    sleep: impl FnOnce() -> io::Result<()>,
) -> anyhow::Result<io::Result<Duration>> {
    let memory = Region::new(MUCH)?;
    let mut queue = RawQueue::start(bench.device(), LOG2)?;
    ready()?;
    for n in 0..1 << LOG2 {
        let fill = Descriptor {
            operation: Operation::Fill as u8,
            flags: flags::BLOCK_ON_FAULT | flags::INTERRUPT,
            completion: queue.record_address(n),
            destination: memory.address(0),
            length: MUCH as u64,
            operand0: n,
            ..Descriptor::default()
        };
        // SAFETY: the memory is a region, and outlives the queue, as does the record.
        unsafe { queue.submit(&fill) };
    }
    let start = Instant::now();
    let slept = sleep().map(|()| start.elapsed());
    if slept.is_ok() {
        let ended = queue.wait_records(1 << LOG2);
        let (state, _) = queue.state();
        ensure!(
            ended.is_err() && state == status::DISABLED,
            "after sleep the context has state {state}, and its work ended with {ended:?}: it was \
             to be stopped, and to say so"
        );
    }
    queue.restart()?;
    let some = Region::new(PAGE << LOG2)?;
    // SAFETY: as above.
    unsafe { queue.fill_pages(&some, u64::MAX) };
    queue.wait_records(1 << LOG2)?;
    let read = some.read(0..some.len());
    expect_bytes("the memory", &read, &vec![0xff; some.len()])?;
    // The bench's own context was stopped, too.
    bench.restart()?;
    works(bench)?;
    Ok(slept)
}

/// The case could not run because the machine stayed awake.
fn awake(error: &io::Error) -> anyhow::Result<Verdict> {
    skipped(format!("the machine refuses to sleep: {error}"))
}

/// Why a machine that cannot suspend to idle skips the case.
const UNABLE: &str = "the kernel cannot suspend to idle (/sys/power/state)";

fn rehearsed(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if !can_suspend_to_idle() {
        return skipped(UNABLE);
    }
    match sleep_at_work(bench, || Ok(()), rehearse_suspend_to_idle)? {
        Err(error) => awake(&error),
        Ok(_) => remark("the context was stopped, and said so"),
    }
}

/// The machine may take one part in this many of the time until it is woken to suspend. If it took
/// longer than the whole time, nothing would wake it.
const SHARE: u32 = 4;

fn suspended(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if !can_suspend_to_idle() {
        return skipped(UNABLE);
    }
    let timer = match AcpiTimer::find() {
        Ok(Some(timer)) => timer,
        Ok(None) => return skipped("nothing would wake the machine: it has no timer of ACPI"),
        Err(error) => return skipped(format!("nothing would wake the machine: {error}")),
    };
    let rehearsal = match sleep_at_work(bench, || Ok(()), rehearse_suspend_to_idle)? {
        Err(error) => return awake(&error),
        Ok(time) => time,
    };
    if rehearsal > AcpiTimer::PERIOD / SHARE {
        return skipped(format!(
            "the machine takes {rehearsal:.1?} to sleep and to wake, too long for the timer"
        ));
    }
    match sleep_at_work(bench, || timer.arm(), suspend_to_idle)? {
        Err(error) => awake(&error),
        Ok(time) => remark(format!(
            "{:.1} s; the context was stopped, and said so",
            time.as_secs_f64()
        )),
    }
}
