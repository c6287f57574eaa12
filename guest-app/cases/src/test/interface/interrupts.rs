// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts as a program gets them: by an eventfd, and several completions in one.

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

/// Submits descriptors that do nothing but ask for an interrupt.
fn submit(queue: &mut RawQueue, places: std::ops::Range<u64>) {
    for n in places {
        let nop = Descriptor {
            operation: Operation::Nop as u8,
            flags: flags::INTERRUPT,
            completion: queue.record_address(n),
            ..Descriptor::default()
        };
        // SAFETY: the operation writes its record only, which is the queue's.
        unsafe { queue.submit(&nop) };
    }
}

/// Takes so many interrupts by `read`, as the device counts them.
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
    // One after the other, so that none can be merged with the next.
    for n in 0..3 {
        submit(&mut queue, n..n + 1);
        ensure!(waits(PATIENCE.into())?, "no signal within a minute");
        let count = eventfd.read()?;
        ensure!(count == 1, "{count} signals for one interrupt");
    }
    take(&queue, 3)?;
    // It stays with the file, not with the start.
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

/// Starts that must have been given work before their end.
const EARLY: u64 = 4;
/// Starts of a context after which work that nobody gave before their end will not be given.
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
    // SAFETY: the operation reaches no memory.
    unsafe { queue.write(0, &nop) };
    let page = queue.doorbell_page()?;
    let register = |offset: u64| {
        page.as_mut_ptr()
            .wrapping_add(offset as usize)
            .cast::<u64>()
    };
    // How many starts were announced, and how many contexts were given work.
    let (announced, given) = (AtomicU64::new(0), AtomicU64::new(0));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Gives a context work as soon as its page says that it is started.
        scope.spawn(|| {
            let (status, tail) = (register(doorbell::STATUS), register(doorbell::TAIL));
            while !over.load(Ordering::Relaxed) {
                let next = given.load(Ordering::Relaxed) + 1;
                // First: the context is stopped when its start is announced.
                if announced.load(Ordering::Acquire) != next {
                    continue;
                }
                // SAFETY: the register is within the mapped page, and aligned.
                let state = context::state(unsafe { status.read_volatile() });
                if state == context::ENABLED {
                    // SAFETY: as above; the descriptor in the ring reaches no memory.
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
    // Fewer than the count: the time sends it.
    queue.set_moderation(&Moderation {
        microseconds: 1000,
        ..gathered
    })?;
    submit(&mut queue, 4 * COUNT..4 * COUNT + 1);
    queue.poll()?;
    queue.read()?;
    // Off: each its own.
    queue.set_moderation(&Moderation::default())?;
    submit(&mut queue, 4 * COUNT + 1..4 * COUNT + 4);
    take(&queue, 3)?;
    remark(format!("{sent} for {} completions", 4 * COUNT))
}
