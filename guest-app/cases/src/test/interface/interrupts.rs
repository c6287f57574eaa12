// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts as a program receives them: by an eventfd, and with several completions in one.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::ensure;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use svmctl::abi::completion::status;
use svmctl::abi::counters::index;
use svmctl::abi::descriptor::{Descriptor, Operation, flags};
use svmctl::abi::doorbell;
use svmctl::abi::ioctl::{Eventfd, Moderation};
use svmctl::abi::registers::status as context;

use crate::harness::bench::Bench;
use crate::harness::{Case, Verdict, passed, remark};
use crate::test::raw::{RawFile, RawQueue, expect_errno};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("an eventfd is signalled by interrupts", eventfd),
    Case::new(
        "an eventfd is signalled though the work comes before the end of the start",
        early_work,
    ),
    Case::new("completions are gathered into one interrupt", moderation),
];

/// A program waits this long for an interrupt, in milliseconds.
const PATIENCE: u16 = 60_000;

/// Submits descriptors that only request an interrupt.
fn submit(queue: &mut RawQueue, places: std::ops::Range<u64>) {
    for n in places {
        let nop = Descriptor {
            operation: Operation::Nop as u8,
            flags: flags::INTERRUPT,
            completion: queue.record_address(n),
            ..Descriptor::default()
        };
        // SAFETY: the operation writes only its record, which belongs to the queue.
        unsafe { queue.submit(&nop) };
    }
}

/// Takes `expected` interrupts by `read`, as the device counts them.
fn take(queue: &RawQueue, expected: u64) -> anyhow::Result<()> {
    let mut count = 0;
    while count < expected {
        queue.poll()?;
        count += queue.read()?;
    }
    ensure!(count == expected, "{count} interrupts, expected {expected}");
    Ok(())
}

fn eventfd(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let file = RawFile::open(bench.device())?;
    let other = File::open("/dev/null")?;
    let wrong = [
        ("of a number that is not open", 9999, 0, Errno::EBADF),
        (
            "of a file of another kind",
            other.as_raw_fd(),
            0,
            Errno::EINVAL,
        ),
        ("with a flag", -1, 1, Errno::EINVAL),
    ];
    for (what, fd, flags, expected) in wrong {
        let result = file.eventfd(&Eventfd {
            fd,
            flags,
            ..Eventfd::default()
        });
        expect_errno(&format!("an eventfd {what}"), result, expected)?;
    }

    let mut queue = RawQueue::start(bench.device(), 4)?;
    let eventfd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?;
    let waits = |timeout: PollTimeout| -> anyhow::Result<bool> {
        let mut fds = [PollFd::new(eventfd.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, timeout)? == 1)
    };
    queue.set_eventfd(Some(eventfd.as_fd()))?;
    ensure!(!waits(PollTimeout::ZERO)?, "signalled before any work");
    // One after the other, so that no two can be merged.
    for n in 0..3 {
        submit(&mut queue, n..n + 1);
        ensure!(waits(PATIENCE.into())?, "no signal within a minute");
        let count = eventfd.read()?;
        ensure!(count == 1, "{count} signals for one interrupt");
    }
    take(&queue, 3)?;
    // The eventfd belongs to the file and survives a restart.
    queue.restart()?;
    submit(&mut queue, 0..1);
    ensure!(waits(PATIENCE.into())?, "no signal after another start");
    eventfd.read()?;
    take(&queue, 1)?;
    queue.set_eventfd(None)?;
    submit(&mut queue, 1..2);
    take(&queue, 1)?;
    ensure!(!waits(PollTimeout::ZERO)?, "signalled though detached");
    passed()
}

/// Number of starts in which work must have arrived before the end of the start.
const EARLY: u64 = 4;
/// Starts after which the test stops waiting for work to arrive so early.
const STARTS_AT_MOST: u64 = 100_000;

fn early_work(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let least = u64::from(bench.rounds(500));
    let mut queue = RawQueue::start(bench.device(), 0)?;
    let eventfd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?;
    queue.set_eventfd(Some(eventfd.as_fd()))?;
    let nop = Descriptor {
        operation: Operation::Nop as u8,
        flags: flags::INTERRUPT,
        ..Descriptor::default()
    };
    // SAFETY: the operation accesses no memory.
    unsafe { queue.write(0, &nop) };
    let page = queue.doorbell_page()?;
    let register = |offset: u64| {
        page.as_mut_ptr()
            .wrapping_add(offset as usize)
            .cast::<u64>()
    };
    // How many starts were announced, and in how many the context was given work.
    let (announced, given) = (AtomicU64::new(0), AtomicU64::new(0));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Gives a context work as soon as its page shows that it is started.
        scope.spawn(|| {
            let (status, tail) = (register(doorbell::STATUS), register(doorbell::TAIL));
            while !over.load(Ordering::Relaxed) {
                let next = given.load(Ordering::Relaxed) + 1;
                // Announced first: the context is still stopped at that point.
                if announced.load(Ordering::Acquire) != next {
                    continue;
                }
                // SAFETY: the register is within the mapped page, and aligned.
                let state = context::state(unsafe { status.read_volatile() });
                if state == context::ENABLED {
                    // SAFETY: as above; the descriptor in the ring accesses no memory.
                    unsafe { tail.write_volatile(1) };
                    given.store(next, Ordering::Release);
                }
            }
        });
        let mut early = 0;
        let mut rounds = || -> anyhow::Result<u64> {
            let mut round = 0;
            while round < least || early < EARLY {
                ensure!(
                    round < STARTS_AT_MOST,
                    "of {round} starts, {early} were given work before their end"
                );
                round += 1;
                queue.stop()?;
                announced.store(round, Ordering::Release);
                queue.set_up()?;
                early += u64::from(given.load(Ordering::Acquire) == round);
                let mut fds = [PollFd::new(eventfd.as_fd(), PollFlags::POLLIN)];
                ensure!(
                    poll(&mut fds, PollTimeout::from(PATIENCE))? == 1,
                    "no signal within a minute, in round {round}: the device has sent {} interrupts",
                    queue.counter(index::INTERRUPTS)
                );
                let count = eventfd.read()?;
                ensure!(count == 1, "{count} signals for one interrupt");
            }
            Ok(round)
        };
        let result = rounds();
        over.store(true, Ordering::Relaxed);
        remark(format!(
            "{} starts, {early} of them with work before their end",
            result?
        ))
    })
}

fn moderation(bench: &mut Bench) -> anyhow::Result<Verdict> {
    const COUNT: u64 = 8;
    let gathered = Moderation {
        count: COUNT as u32,
        ..Moderation::default()
    };
    let mut queue = RawQueue::start(bench.device(), 6)?;
    let too_many = Moderation {
        count: 1 << 16,
        ..Moderation::default()
    };
    let file = RawFile::open(bench.device())?;
    expect_errno(
        "65536 completions",
        file.moderation(&too_many),
        Errno::EINVAL,
    )?;

    queue.set_moderation(&gathered)?;
    submit(&mut queue, 0..4 * COUNT);
    take(&queue, 4)?;
    for n in 0..4 * COUNT {
        let record = queue.record(n).map(|record| record.status);
        ensure!(record == Some(status::SUCCESS), "record {n}: {record:?}");
    }
    let sent = queue.counter(index::INTERRUPTS);
    ensure!(
        sent == 4,
        "{sent} interrupts for {} completions, {COUNT} of which make one",
        4 * COUNT
    );
    // Fewer completions than the count: the time limit sends the interrupt.
    queue.set_moderation(&Moderation {
        microseconds: 1000,
        ..gathered
    })?;
    submit(&mut queue, 4 * COUNT..4 * COUNT + 1);
    queue.poll()?;
    queue.read()?;
    // Moderation off: each completion sends its own interrupt.
    queue.set_moderation(&Moderation::default())?;
    submit(&mut queue, 4 * COUNT + 1..4 * COUNT + 4);
    take(&queue, 3)?;
    remark(format!("{sent} for {} completions", 4 * COUNT))
}
