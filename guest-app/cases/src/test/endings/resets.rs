// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resets of the function while programs are at work, and a device that needs one, because it does
//! not stop when it is told to.

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

/// Log2 of the ring, and of the pages that are filled.
const LOG2: u32 = 8;
/// How long something may take that is only told by nothing.
const PATIENCE: Duration = Duration::from_secs(60);

fn reset(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    let rounds = bench.rounds(10);
    let memory = Region::new(PAGE << LOG2)?;
    let mut queue = RawQueue::start(bench.device(), LOG2)?;
    for round in 0..rounds {
        memory.advise(Advice::DontNeed)?;
        // SAFETY: the memory is a region, and outlives the context's work.
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
        // The memory is the process's alone, and the context works.
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

/// State of a thread of this process, as `/proc` says it: `S` if it sleeps.
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
                    // It waits for ever: the file has to say something for the thread to end.
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
            // Until one of them has come between a start and the end of its work.
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

/// Resets after which a race that nobody saw will not be seen.
const RESETS_AT_MOST: u32 = 300;

/// Starts a context over and over. Each start must succeed, and each time that it is given work it
/// must either send its interrupt or say that it does not work any more; `lost` counts those.
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

/// Reads a register of a queue's doorbell page. Returns whether the page was not mapped, so that
/// the kernel had to be asked for it.
fn faults(queue: &RawQueue) -> anyhow::Result<bool> {
    let faults = || Ok::<_, Errno>(getrusage(UsageWho::RUSAGE_THREAD)?.minor_page_faults());
    let before = faults()?;
    queue.register(doorbell::STATUS);
    Ok(faults()? != before)
}

/// Reads the doorbell page for as long as another thread resets the function. The page is not
/// mapped then, and a reader waits for the end of the reset. Returns how often that happened.
fn read_until(queue: &RawQueue, over: &AtomicBool) -> anyhow::Result<u32> {
    let mut waited = 0;
    // A context that was reset says so, when the reset has ended.
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
    // The pages of all files of a device go together. This file has to be the only one here.
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

/// Looks of the driver at a context that stops which are answered with all ones, and what the
/// program is told: the first may have been in the middle of a reset that has ended since, and
/// a device that does not answer the second one either is gone.
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

/// What the driver says of it.
const STUBBORN: &[&str] = &[
    "svm_demo *has not stopped",
    "svm_demo *does not stop",
    "svm_demo *the function is cut off from the bus",
    RESET,
    BOUND[0],
    BOUND[1],
];

/// Number of the mutant that ignores STOP.
const IGNORES_STOP: u64 = 74;

/// How often the driver may look at a context that it waits for in vain: any number of threads may
/// have it wait. It looks 509 times if no look comes late.
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

/// Whether the events have one of a variable.
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
    // What the kernel sets up the first time is no leak.
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
    // The driver may have lost the function already.
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

/// Files of a device that does not stop are closed: context and PASID are given to nobody, until a
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
    // It has stopped.
    file.queue_stop()?;
    drop(file);
    becomes(|| {
        let fresh = fresh_pasid(bench)?;
        Ok((fresh <= pasid).then_some(()).ok_or_else(|| {
            format!("a new process gets PASID {fresh}: {pasid} is not free after the reset")
        }))
    })
}

/// A file of a device that does not stop is closed, and the context reads as disabled some time
/// later: it becomes free though nobody opens or closes a file, or resets the function.
fn closed_and_forgotten(bench: &Bench, function: &Function) -> anyhow::Result<()> {
    let free = || Function::free_contexts(bench.device());
    let before = free()?;
    Child::fork(|_| started(bench.device()).map(drop))?.finish()?;
    let drains = free()?;
    ensure!(
        drains + 1 == before,
        "{drains} contexts are free, {before} were, and one drains"
    );
    let hidden = function.hide()?;
    let freed = becomes(|| {
        let now = free()?;
        Ok((now == before).then_some(()).ok_or_else(|| {
            format!("{now} contexts are free of {before}: nobody looks at the last")
        }))
    });
    function.wake(&hidden)?;
    // It had never stopped.
    function.reset()?;
    freed
}

/// The driver goes from a device that does not stop: it reaches no memory any more.
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
