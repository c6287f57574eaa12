// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invalid doorbells and rings: they halt only their own context, which can be started again.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::poll::PollFlags;
use svmctl::Error;
use svmctl::abi::completion;
use svmctl::abi::counters::index;
use svmctl::abi::descriptor::{Descriptor, Operation, flags};
use svmctl::abi::doorbell;
use svmctl::abi::registers::{halt, status};
use svmctl::region::{PAGE, Region};

use crate::harness::bench::Bench;
use crate::harness::{Case, Verdict, passed};
use crate::test::raw::{NOWHERE, RawQueue, expect_errno};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("a tail beyond the ring halts the context", tail_beyond),
    Case::new(
        "a tail that runs backwards halts the context",
        tail_backwards,
    ),
    Case::new("a ring that cannot be read halts the context", no_ring),
    Case::new("a ring that is unmapped halts the context", ring_unmapped),
    Case::new("a reset of the function stops its contexts", function_reset),
    Case::new(
        "other registers of the page are read-only",
        read_only_registers,
    ),
];

fn nop(queue: &RawQueue, n: u64) -> Descriptor {
    Descriptor {
        operation: Operation::Nop as u8,
        flags: flags::INTERRUPT,
        completion: queue.record_address(n),
        ..Descriptor::default()
    }
}

/// Submits one descriptor and waits for it.
fn works(queue: &mut RawQueue) -> anyhow::Result<()> {
    let nop = nop(queue, 0);
    // SAFETY: the operation writes only its record, which belongs to the queue.
    unsafe { queue.submit(&nop) };
    queue.poll()?;
    let count = queue.read()?;
    ensure!(count == 1, "{count} interrupts for one descriptor");
    // The interrupt is sent when the record is in memory.
    let record = queue.record(0).map(|record| record.status);
    ensure!(
        record == Some(completion::status::SUCCESS),
        "the record says {record:?}"
    );
    Ok(())
}

/// Checks that a context halted for `reason`, by status, `poll` and `read`, while the bench's
/// context works on.
fn expect_halt(bench: &mut Bench, queue: &RawQueue, reason: u8) -> anyhow::Result<()> {
    // The halt also sends an interrupt, which may be seen before or after the state.
    let mut events = queue.poll()?;
    while !events.contains(PollFlags::POLLERR) {
        queue.read()?;
        events = queue.poll()?;
    }
    let (state, error) = queue.state();
    ensure!(
        (state, error) == (status::HALTED, reason),
        "state {state} for reason {error}; HALTED ({}) for {reason} was expected",
        status::HALTED
    );
    let mut count = 0;
    let end = loop {
        match queue.read() {
            Ok(interrupts) => count += interrupts,
            Err(error) => break error,
        }
    };
    ensure!(
        end == Errno::EIO,
        "read of a halted context: {end}, EIO was expected"
    );
    ensure!(count <= 1, "{count} interrupts for one halt");
    bench.queue().nop()?;
    Ok(())
}

fn tail_beyond(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let mut queue = RawQueue::start(bench.device(), 2)?;
    for tail in [5, 1 << 40, u64::MAX] {
        queue.ring_to(tail);
        expect_halt(bench, &queue, halt::BAD_DOORBELL)?;
        // It stays so.
        queue.ring_to(0);
        ensure!(
            queue.state().0 == status::HALTED,
            "a doorbell started a halted context"
        );
        queue.restart()?;
        ensure!(
            queue.state() == (status::ENABLED, halt::NONE),
            "restarted: {:?}",
            queue.state()
        );
        let done = queue.counter(index::DESCRIPTORS);
        ensure!(done == 0, "{done} descriptors were executed");
    }
    works(&mut queue)?;
    passed()
}

fn tail_backwards(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let mut queue = RawQueue::start(bench.device(), 2)?;
    works(&mut queue)?;
    queue.ring_to(0);
    expect_halt(bench, &queue, halt::BAD_DOORBELL)?;
    queue.restart()?;
    passed()
}

fn no_ring(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let mut queue = RawQueue::start_at(bench.device(), NOWHERE, 2)?;
    queue.ring_to(1);
    expect_halt(bench, &queue, halt::RING_FAULT)?;
    passed()
}

fn ring_unmapped(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let ring = Region::at_address(0x2200_0000_0000, PAGE)?;
    let mut queue = RawQueue::start_at(bench.device(), ring.address(0), 6)?;
    // Zeros: descriptors that do nothing, and no record.
    queue.ring_to(3);
    while queue.register(doorbell::HEAD) != 3 {
        std::thread::yield_now();
    }
    drop(ring);
    queue.ring_to(4);
    expect_halt(bench, &queue, halt::RING_FAULT)?;
    passed()
}

fn read_only_registers(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let mut queue = RawQueue::start(bench.device(), 2)?;
    works(&mut queue)?;
    // The kernel's own activity is counted as well.
    let kernels = [index::INVALIDATIONS, index::INVALIDATED_ENTRIES];
    let kernels = kernels.map(|index| doorbell::COUNTERS + 8 * index as u64);
    let offsets = || {
        (0..doorbell::PAGE_SIZE)
            .step_by(8)
            .filter(|at| !kernels.contains(at))
    };
    let before: Vec<u64> = offsets().map(|at| queue.register(at)).collect();
    queue.write_others(u64::MAX)?;
    for (at, before) in offsets().zip(before) {
        let after = queue.register(at);
        ensure!(
            after == before,
            "offset {at:#x} was {before:#x}, and is {after:#x}"
        );
        ensure!(
            at < doorbell::END || after == 0,
            "offset {at:#x}, of nothing, reads {after:#x}"
        );
    }
    for at in kernels {
        let after = queue.register(at);
        ensure!(
            after < u64::MAX / 2,
            "offset {at:#x} took what was written: {after:#x}"
        );
    }
    let tail = queue.register(doorbell::TAIL);
    ensure!(tail == 1, "TAIL reads {tail}, 1 was written");
    passed()
}

fn function_reset(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let name = bench
        .device()
        .file_name()
        .context("the device file has no name")?;
    let path = Path::new("/sys/class/svm_demo")
        .join(name)
        .join("device/reset");
    let mut queue = RawQueue::start(bench.device(), 2)?;
    works(&mut queue)?;
    if let Err(error) = fs::write(&path, "1") {
        return Ok(Verdict::Skipped(format!("{}: {error}", path.display())));
    }
    let events = queue.poll()?;
    ensure!(
        events.contains(PollFlags::POLLERR),
        "poll: {events:?}, POLLERR was expected"
    );
    ensure!(
        queue.state().0 == status::DISABLED,
        "state {} after the reset",
        queue.state().0
    );
    expect_errno("read after the reset", queue.read(), Errno::EIO)?;
    let nop = bench.queue().nop();
    ensure!(matches!(nop, Err(Error::Reset)), "the library says {nop:?}");
    // Both start again and access memory as before.
    queue.restart()?;
    works(&mut queue)?;
    bench.restart()?;
    let memory = Region::new(PAGE)?;
    bench.fill(&memory, 0..PAGE, u64::MAX)?;
    ensure!(
        memory.read(0..PAGE) == [0xff; PAGE],
        "the device wrote something else"
    );
    passed()
}
