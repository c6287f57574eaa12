// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resets of the function while programs are at work, and a device that needs a reset because it
//! does not stop when it is told to.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::resource::{UsageWho, getrusage};
use svm_init::kernel::{BOUND, RESET};
use svmctl::abi::descriptor::{Descriptor, flags};
use svmctl::abi::registers::status;
use svmctl::abi::{doorbell, ioctl};
use svmctl::region::{Advice, PAGE, Region};

use super::device::works;
use crate::harness::bench::{Bench, expect_bytes};
use crate::harness::{Case, Verdict, passed, remark, skipped};
use crate::system::child::{Child, Line};
use crate::system::laboratory::{self, Laboratory};
use crate::system::sysfs::Function;
use crate::system::uevents::Uevents;
use crate::test::leaks::{Before, becomes, fresh_pasid};
use crate::test::raw::{RawFile, RawQueue, expect_errno};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("reset by sysfs at work", reset),
    Case::new("a reader that waits learns of a reset", waiting),
    Case::new("contexts are started again under resets", restarted),
    Case::new("no doorbell is reached during a reset", no_doorbell),
    Case::new("a stop that reads all ones", silent).provoking(BOUND),
    Case::new("a device that does not stop", stubborn).provoking(STUBBORN),
];

/// Log2 of the size of the ring and of the number of pages that are filled.
const LOG2: u32 = 8;
/// How long to wait for something that no event announces.
const PATIENCE: Duration = Duration::from_secs(60);

fn reset(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    let rounds = bench.rounds(10);
    let memory = Region::new(PAGE << LOG2)?;
    let mut queue = RawQueue::start(bench.device(), LOG2)?;
    for round in 0..rounds {
        memory.advise(Advice::DontNeed)?;
        // SAFETY: the memory is a region and outlives the context's work.
        unsafe { queue.fill_pages(&memory, 1) };
        function.reset()?;
        let state = queue.state().0;
        ensure!(
            state == status::DISABLED,
            "round {round}: state {state} after the reset"
        );
        let mut events = queue.poll()?;
        while !events.contains(PollFlags::POLLERR) {
            queue.read()?;
            events = queue.poll()?;
        }
        queue.restart()?;
        // The device no longer writes to the memory, and the context works.
        let zeros = vec![0; memory.len()];
        memory.write(0, &zeros);
        let read = memory.read(0..memory.len());
        expect_bytes("the memory", &read, &zeros)?;
        // SAFETY: as above.
        unsafe { queue.fill_pages(&memory, u64::MAX) };
        queue.wait_records(1 << LOG2)?;
        let read = memory.read(0..memory.len());
        expect_bytes("the memory", &read, &vec![0xff; memory.len()])?;
        queue.restart()?;
    }
    drop(queue);
    bench.restart()?;
    works(bench)?;
    remark(format!("{rounds} resets"))
}

/// A ring of one descriptor, started on a file.
fn started(device: &Path) -> anyhow::Result<(RawFile, Region)> {
    let file = RawFile::open(device)?;
    let ring = Region::new(PAGE)?;
    file.queue_setup(&queue_in(&ring))?;
    Ok((file, ring))
}

fn queue_in(ring: &Region) -> ioctl::Queue {
    ioctl::Queue {
        ring: ring.address(0),
        ..ioctl::Queue::default()
    }
}

/// State of a thread of this process, from `/proc`: `S` if it sleeps.
fn thread_state(thread: i32) -> anyhow::Result<char> {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("/proc/self/task/TID/stat")?;
    rest.chars().next().context("/proc/self/task/TID/stat")
}

fn waiting(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    let rounds = bench.rounds(3);
    bench.close();
    for round in 0..rounds {
        let (file, ring) = started(bench.device())?;
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let file = &file;
            let reader = tell.clone();
            scope.spawn(move || {
                let _ = reader.send(Err(nix::unistd::gettid().as_raw()));
                let _ = reader.send(Ok(file.read(8)));
            });
            let thread = match told.recv()? {
                Err(thread) => thread,
                Ok(read) => anyhow::bail!("read: {read:?}, before it was called"),
            };
            becomes(|| {
                Ok(match thread_state(thread)? {
                    'S' => Ok(()),
                    state => Err(format!("the reader is in state {state}, and was to sleep")),
                })
            })?;
            function.reset()?;
            match told.recv_timeout(PATIENCE) {
                Ok(Ok(read)) => expect_errno("read", read, Errno::EIO),
                other => {
                    // It waits without a time limit: the thread ends only when the file reports an
                    // event.
                    function.unbind()?;
                    function.bind()?;
                    anyhow::bail!("round {round}: {other:?}: the reader waits after the reset")
                }
            }
        })?;
        // It can go on.
        file.queue_stop()?;
        file.queue_setup(&queue_in(&ring))?;
        file.queue_stop()?;
    }
    works(bench)?;
    remark(format!("{rounds} times EIO"))
}

fn restarted(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    let least = bench.rounds(20);
    let (over, starts, lost) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let mut resets = 0;
    std::thread::scope(|scope| {
        let (over, starts, lost, device) = (&over, &starts, &lost, bench.device());
        let worker = scope.spawn(move || restart_until(device, over, starts, lost));
        let mut disturb = || -> anyhow::Result<()> {
            // Until one of them has occurred between a start and the end of its work.
            while resets < least || (lost.load(Ordering::Relaxed) == 0 && resets < RESETS_AT_MOST) {
                resets += 1;
                let before = starts.load(Ordering::Relaxed);
                function.reset()?;
                becomes(|| {
                    let now = starts.load(Ordering::Relaxed);
                    let started = now != before || worker.is_finished();
                    Ok(started
                        .then_some(())
                        .ok_or_else(|| format!("after start {now} there is none any more")))
                })?;
                if worker.is_finished() {
                    break;
                }
            }
            Ok(())
        };
        let result = disturb();
        over.store(true, Ordering::Relaxed);
        worker.join().expect("the worker does not panic")?;
        result
    })?;
    bench.restart()?;
    works(bench)?;
    let (starts, lost) = (starts.into_inner(), lost.into_inner());
    ensure!(
        lost > 0,
        "{resets} resets, {starts} starts, and none of them was ended by a reset: the race was not \
         seen"
    );
    remark(format!(
        "{resets} resets, {starts} starts, {lost} of them ended by a reset"
    ))
}

/// Resets after which a test stops waiting for a race to occur.
pub(super) const RESETS_AT_MOST: u32 = 300;

/// Starts a context repeatedly. Each start must succeed. Given work, the context must either send
/// its interrupt or report that it has stopped working; `lost` counts the latter.
fn restart_until(
    device: &Path,
    over: &AtomicBool,
    starts: &AtomicU32,
    lost: &AtomicU32,
) -> anyhow::Result<()> {
    let mut queue = RawQueue::start(device, LOG2).context("the first start failed")?;
    let nop = Descriptor {
        flags: flags::INTERRUPT,
        ..Descriptor::default()
    };
    while !over.load(Ordering::Relaxed) {
        // SAFETY: the descriptor reaches no memory.
        unsafe { queue.submit(&nop) };
        let events = queue.poll().context("an interrupt is lost")?;
        if events.contains(PollFlags::POLLERR) {
            lost.fetch_add(1, Ordering::Relaxed);
        }
        queue
            .restart()
            .with_context(|| format!("a start failed after {starts:?}"))?;
        starts.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Reads a register of a queue's doorbell page. Returns whether the access caused a page fault
/// because the page was not mapped.
fn faults(queue: &RawQueue) -> anyhow::Result<bool> {
    let faults = || Ok::<_, Errno>(getrusage(UsageWho::RUSAGE_THREAD)?.minor_page_faults());
    let before = faults()?;
    queue.register(doorbell::STATUS);
    Ok(faults()? != before)
}

/// Reads the doorbell page while another thread resets the function. During a reset the page is not
/// mapped, and a reader waits for the end of the reset. Returns how often that happened.
fn read_until(queue: &RawQueue, over: &AtomicBool) -> anyhow::Result<u32> {
    let mut waited = 0;
    // A context that was reset reports it after the end of the reset.
    let reset = || Ok::<_, anyhow::Error>(queue.poll_now()?.contains(PollFlags::POLLERR));
    while !over.load(Ordering::Relaxed) {
        let before = reset()?;
        if faults(queue)? {
            ensure!(
                reset()?,
                "the doorbell page was mapped again before the end of the reset"
            );
            waited += u32::from(!before);
        }
    }
    Ok(waited)
}

fn no_doorbell(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    let least = bench.rounds(4);
    // The pages of all files of a device are unmapped together. This file must be the only one
    // here.
    bench.close();
    let (mut round, mut waited) = (0, 0);
    while round < least || waited == 0 {
        ensure!(
            round < RESETS_AT_MOST,
            "{round} resets, and in none of them was the doorbell page asked for"
        );
        round += 1;
        let queue = RawQueue::start(bench.device(), LOG2)?;
        faults(&queue)?;
        ensure!(!faults(&queue)?, "the doorbell page goes without a reset");
        if round % 2 == 1 {
            function.reset()?;
            ensure!(
                faults(&queue)?,
                "the doorbell page stayed mapped over a reset"
            );
            continue;
        }
        let over = AtomicBool::new(false);
        waited += std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_until(&queue, &over));
            let result = function.reset();
            over.store(true, Ordering::Relaxed);
            let waited = reader.join().expect("the reader does not panic")?;
            result?;
            anyhow::Ok(waited)
        })?;
    }
    works(bench)?;
    remark(format!(
        "{round} resets, {waited} accesses waited for the end of one"
    ))
}

/// Number of reads of a stopping context's state that return all ones, and the result for the
/// program. The first such read may have been in the middle of a reset that has ended since. If the
/// second read returns all ones, too, the device is gone.
const SILENCES: [(u64, Result<(), Errno>); 2] = [(1, Ok(())), (2, Err(Errno::ENODEV))];

fn silent(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    bench.close();
    for (looks, told) in SILENCES {
        let set = Laboratory::change(&function, |device| {
            device.set_silence(looks);
            Ok(())
        })?;
        if set.is_none() {
            works(bench)?;
            return skipped(laboratory::NONE);
        }
        let (file, _ring) = started(bench.device())?;
        let stopped = file.queue_stop();
        let again = file.queue_stop();
        drop(file);
        let left = Laboratory::change(&function, |device| Ok(device.silence()))?;
        ensure!(
            left == Some(0),
            "{left:?} of {looks} looks were not made: the device did not answer with all ones"
        );
        ensure!(
            stopped == told,
            "QUEUE_STOP: {stopped:?} where {looks} looks read all ones, expected {told:?}"
        );
        ensure!(again == Ok(()), "QUEUE_STOP afterwards: {again:?}");
    }
    works(bench)?;
    passed()
}

/// The driver's messages about it.
const STUBBORN: &[&str] = &[
    "svm_demo *has not stopped",
    "svm_demo *does not stop",
    "svm_demo *the function is cut off from the bus",
    RESET,
    BOUND[0],
    BOUND[1],
];

/// Number of the mutant that ignores STOP.
const IGNORES_STOP: u64 = 165;

/// How often the driver may poll a context that never stops, whatever the number of waiting
/// threads. It polls 509 times if no poll is late.
const MOST_LOOKS: u64 = 1000;

/// How often this thread has slept.
fn times_slept() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let count = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
        .context("no voluntary_ctxt_switches in /proc/thread-self/status")?;
    Ok(count.trim().parse()?)
}

/// Whether one of the events has this variable.
fn heard(events: &Uevents, variable: &str) -> anyhow::Result<()> {
    let events = events.take()?;
    ensure!(
        events.iter().flatten().any(|text| text == variable),
        "no uevent with {variable} among {events:?}"
    );
    Ok(())
}

fn stubborn(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    bench.close();
    // Memory that the kernel allocates the first time is not a leak.
    function.unbind()?;
    function.bind()?;
    function.reset()?;
    works(bench)?;
    let before = Before::take(bench)?;
    bench.close();
    let set = Laboratory::change(&function, |device| device.set_mutant(IGNORES_STOP))?;
    if set.is_none() {
        works(bench)?;
        return skipped(laboratory::NONE);
    }
    let result = closed_and_reset(bench, &function)
        .and_then(|()| closed_and_forgotten(bench, &function))
        .and_then(|()| cut_off(bench, &function));
    // The driver may already have lost the function.
    if function.file("driver").exists() {
        function.unbind()?;
    }
    if let Some(laboratory) = Laboratory::of(&function)? {
        laboratory.set_mutant(0)?;
    }
    function.bind()?;
    result?;
    works(bench)?;
    let left = before.check(bench, 2)?;
    remark(format!(
        "reported, kept from others, reset, cut off; {left}"
    ))
}

/// Closes files of a device that does not stop: context and PASID are not allocated again until a
/// reset has stopped it.
fn closed_and_reset(bench: &Bench, function: &Function) -> anyhow::Result<()> {
    let debugfs = Function::debugfs(bench.device())?;
    let events = Uevents::listen()?;
    let mut child = Child::fork(|line: &mut Line| {
        let (file, _ring) = started(bench.device())?;
        let info = file.info()?;
        line.tell(&(info.context, info.pasid))?;
        line.receive::<String>().map(drop)
    })?;
    let (context, pasid) = child.line().receive::<(u32, u32)>()?;
    let (file, ring) = started(bench.device())?;
    child.line().tell(&"end")?;
    // Both wait at the same time.
    let looks = times_slept()?;
    expect_errno("QUEUE_STOP", file.queue_stop(), Errno::ETIMEDOUT)?;
    let looks = times_slept()? - looks;
    ensure!(
        looks <= MOST_LOOKS,
        "QUEUE_STOP has looked {looks} times at a context that does not stop"
    );
    let again = file.queue_setup(&queue_in(&ring));
    expect_errno("QUEUE_SETUP", again, Errno::EBUSY)?;
    child.finish()?;
    heard(&events, "SVM_EVENT=CONTEXT_STUCK")?;
    if let Some(debugfs) = debugfs {
        let contexts = fs::read_to_string(debugfs.join("contexts"))?;
        let line = format!("{context} draining ");
        ensure!(
            contexts.lines().any(|found| found.starts_with(&line)),
            "no line {line:?} in {contexts}"
        );
        let faults = fs::read_to_string(debugfs.join("faults"))?;
        let line = format!("context {context} pasid {pasid} ");
        ensure!(
            faults
                .lines()
                .any(|found| found.contains(&line) && found.ends_with("did not stop in time")),
            "no fault of {line:?} in {faults}"
        );
    }
    for _ in 0..3 {
        let fresh = fresh_pasid(bench)?;
        ensure!(fresh != pasid, "PASID {pasid} was given to another process");
    }
    let mut open = Vec::new();
    loop {
        match RawFile::open(bench.device()) {
            Ok(file) => open.push(file),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => break,
            Err(error) => return Err(error).context("EBUSY was expected"),
        }
        let info = open[open.len() - 1].info()?;
        ensure!(
            info.context != context,
            "context {context} was given to another file"
        );
    }
    drop(open);
    function.reset()?;
    // It has stopped by now.
    file.queue_stop()?;
    drop(file);
    becomes(|| {
        let fresh = fresh_pasid(bench)?;
        Ok((fresh <= pasid).then_some(()).ok_or_else(|| {
            format!("a new process gets PASID {fresh}: {pasid} is not free after the reset")
        }))
    })
}

/// Closes a file of a device that does not stop. Some time later the context reads as disabled: it
/// becomes free although no file is opened or closed and the function is not reset.
fn closed_and_forgotten(bench: &Bench, function: &Function) -> anyhow::Result<()> {
    let free = || Function::free_contexts(bench.device());
    let all = bench.info().contexts as usize;
    // The end of a file frees its context some time later.
    let freed = |what: &str| {
        becomes(|| {
            let now = free()?;
            Ok((now == all)
                .then_some(())
                .ok_or_else(|| format!("{now} contexts are free of {all}: {what}")))
        })
    };
    freed("an earlier file still has one")?;
    Child::fork(|_| started(bench.device()).map(drop))?.finish()?;
    let drains = free()?;
    ensure!(
        drains + 1 == all,
        "{drains} contexts are free of {all}, and one drains"
    );
    let hidden = function.hide()?;
    let freed = freed("nobody looks at the last");
    function.wake(&hidden)?;
    // It had never stopped.
    function.reset()?;
    freed
}

/// Unbinds the driver from a device that does not stop: the device can no longer access memory.
fn cut_off(bench: &Bench, function: &Function) -> anyhow::Result<()> {
    let events = Uevents::listen()?;
    let memory = Region::new(PAGE << LOG2)?;
    let mut queue = RawQueue::start(bench.device(), LOG2)?;
    // SAFETY: the memory is a region, and outlives the queue.
    unsafe { queue.fill_pages(&memory, 1) };
    function.unbind()?;
    heard(&events, "SVM_EVENT=CUT_OFF")?;
    expect_errno("read", queue.read(), Errno::ENODEV)?;
    let zeros = vec![0; memory.len()];
    memory.write(0, &zeros);
    expect_bytes("the memory", &memory.read(0..memory.len()), &zeros)
}
