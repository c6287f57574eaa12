// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver or the function goes away while programs are at work: unbound, unloaded, unplugged,
//! silent. Programs get an error and the machine keeps running. When driver and function are back,
//! everything works as before.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use svm_init::kernel::{BOUND, HOTPLUGGED, LOADED, RESET};
use svmctl::region::{Advice, PAGE, Region};
use svmctl::{Descriptor, Error};

use crate::harness::bench::{Bench, expect_bytes};
use crate::harness::{Case, Verdict, remark, skipped};
use crate::system::child::{Child, Line};
use crate::system::module::Module;
use crate::system::sysfs::Function;
use crate::test::leaks::Before;
use crate::test::raw::{RawFile, RawQueue, expect_errno};

/// Messages when the driver binds to a function whose contexts could not be stopped.
const RESET_AND_BOUND: &[&str] = &[RESET, BOUND[0], BOUND[1]];

/// See the module.
pub const CASES: &[Case] = &[
    // A process that rings a doorbell that has just been removed dies of SIGBUS, possibly before
    // its context has stopped.
    Case::new("unbound and bound again at work", unbind)
        .provoking(BOUND)
        .killing(),
    Case::new("pulled out and put in again at work", remove)
        .provoking(HOTPLUGGED)
        .killing(),
    Case::new("a function that answers nothing any more", silent)
        .provoking(RESET_AND_BOUND)
        .killing(),
    Case::new("a context that the device does not start", not_started),
    Case::new(
        "the driver is not unloaded under an open file",
        unload_refused,
    ),
    Case::new("the driver is loaded again and again", reload).provoking(LOADED),
];

/// Log2 of the size of the ring and of the number of pages that are filled.
const LOG2: u32 = 8;
/// Processes at work when the device goes away.
const WORKERS: usize = 3;

/// A process that works until the device is gone, and then ends in one of the valid ways: the
/// library reports that the device is gone, or the access to the doorbell page fails.
struct Worker(Child);

impl Worker {
    fn start(bench: &Bench) -> anyhow::Result<Worker> {
        let mut child = Child::fork(|line: &mut Line| {
            let mut queue = bench.open_queue(16)?;
            let memory = Region::new(PAGE << LOG2)?;
            let mut told = false;
            loop {
                let half = memory.len() / 2;
                let batch = [
                    Descriptor::fill(memory.at(0), half as u64, 1),
                    Descriptor::copy(memory.at(0), memory.at(half), half as u64),
                ];
                // SAFETY: a region is accessed atomically, and lives as long as the call.
                match unsafe { queue.execute_all(&batch) } {
                    Ok(_) => {}
                    Err(Error::Gone) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
                memory.advise(Advice::DontNeed)?;
                if !told {
                    line.tell(&"at work")?;
                    told = true;
                }
            }
        })?;
        child.line().receive::<String>()?;
        Ok(Worker(child))
    }

    /// Checks how it ended.
    fn end(mut self) -> anyhow::Result<()> {
        match self.0.wait()? {
            WaitStatus::Exited(_, 0) | WaitStatus::Signaled(_, Signal::SIGBUS, _) => Ok(()),
            other => match self.0.line().receive::<String>() {
                Err(error) => Err(error),
                Ok(_) => bail!("a process at work ended by {other:?}, when the device was gone"),
            },
        }
    }
}

/// Starts workers, and a queue of this process that is at work, too.
fn at_work(bench: &Bench) -> anyhow::Result<(Vec<Worker>, RawQueue, Region)> {
    let workers = (0..WORKERS)
        .map(|_| Worker::start(bench))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let memory = Region::new(PAGE << LOG2)?;
    let mut queue = RawQueue::start(bench.device(), LOG2)?;
    // SAFETY: the memory lives as long as the queue: the caller drops them in this order.
    unsafe { queue.fill_pages(&memory, 1) };
    Ok((workers, queue, memory))
}

/// Checks that a file reports that its device is gone, and that the device no longer writes to the
/// memory.
fn expect_gone(queue: &RawQueue, memory: &Region) -> anyhow::Result<()> {
    let events = queue.poll()?;
    ensure!(
        events.contains(PollFlags::POLLERR | PollFlags::POLLHUP),
        "poll: {events:?}; POLLERR and POLLHUP were expected of a device that is gone"
    );
    expect_errno("read", queue.read(), Errno::ENODEV)?;
    // Nothing writes any more.
    let zeros = vec![0; memory.len()];
    memory.write(0, &zeros);
    expect_bytes("the memory", &memory.read(0..memory.len()), &zeros)
}

/// The device works again.
pub(super) fn works(bench: &mut Bench) -> anyhow::Result<()> {
    bench.renew()?;
    let memory = Region::new(4 * PAGE)?;
    bench.fill(&memory, 0..memory.len(), u64::MAX)?;
    expect_bytes(
        "the memory",
        &memory.read(0..memory.len()),
        &vec![0xff; memory.len()],
    )
}

/// Repeatedly takes the device away under load by `go`, and brings it back by `come`.
fn go_and_come(
    bench: &mut Bench,
    rounds: u32,
    go: impl Fn(&Function) -> anyhow::Result<()>,
    come: impl Fn(&Function) -> anyhow::Result<()>,
) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    let mut before = None;
    for round in 0..=rounds {
        let (workers, queue, memory) = at_work(bench)?;
        bench.close();
        go(&function).with_context(|| format!("round {round}"))?;
        let gone = expect_gone(&queue, &memory);
        let ended = workers.into_iter().try_for_each(Worker::end);
        if gone.is_err() || ended.is_err() {
            // The cases that follow need it.
            come(&function)?;
            return gone.and(ended).map(|()| Verdict::Passed(String::new()));
        }
        // In one round the file is closed before the device is back, in the next afterwards.
        if round % 2 == 0 {
            drop(queue);
            come(&function)?;
        } else {
            come(&function)?;
            drop(queue);
        }
        drop(memory);
        works(bench).with_context(|| format!("round {round}, with the device back"))?;
        if before.is_none() {
            // Memory that the kernel allocates the first time is not a leak.
            before = Some(Before::take(bench)?);
        }
    }
    let left = before
        .context("there was no round")?
        .check(bench, u64::from(rounds) * WORKERS as u64)?;
    remark(format!("{rounds} times; {left}"))
}

fn unbind(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let rounds = bench.rounds(10);
    go_and_come(
        bench,
        rounds,
        |function| Ok(function.unbind()?),
        |function| Ok(function.bind()?),
    )
}

fn remove(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let rounds = bench.rounds(5);
    go_and_come(
        bench,
        rounds,
        |function| Ok(function.remove()?),
        |_| Ok(Function::rescan()?),
    )
}

fn silent(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    let rounds = bench.rounds(3);
    let mut before = None;
    for round in 0..=rounds {
        let (workers, queue, memory) = at_work(bench)?;
        bench.close();
        // If a host has given the function to this machine, an access at the very moment ends the
        // machine: see docs/limits.md. The device goes on working.
        workers.iter().try_for_each(|worker| worker.0.stop())?;
        let silenced = function.silence()?;
        workers.iter().try_for_each(|worker| worker.0.go_on())?;
        let answer = (|| -> anyhow::Result<()> {
            // Registers read as ones without a device, and as zeros after a reset.
            let read = queue.read();
            ensure!(
                matches!(read, Err(Errno::ENODEV | Errno::EIO)),
                "read: {read:?}, ENODEV or EIO was expected"
            );
            // Waiting workers would wait for ever: they are killed, and must end.
            drop(workers);
            drop((queue, memory));
            Ok(())
        })();
        function.unbind()?;
        function.wake(&silenced)?;
        function.bind()?;
        answer.with_context(|| format!("round {round}"))?;
        works(bench).with_context(|| format!("round {round}, bound again"))?;
        if before.is_none() {
            before = Some(Before::take(bench)?);
        }
    }
    let before = before.context("there was no round")?;
    let left = before.check(bench, u64::from(rounds) * WORKERS as u64)?;
    remark(format!("{rounds} times; {left}"))
}

fn not_started(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    bench.close();
    let mut queue = RawQueue::start(bench.device(), LOG2)?;
    queue.stop()?;
    // The context reads as disabled, which it is, and stays so whatever is written.
    let hidden = function.hide()?;
    let result = queue.set_up();
    function.wake(&hidden)?;
    let error = match result {
        Err(error) => error.raw_os_error().map(Errno::from_raw),
        Ok(()) => bail!("QUEUE_SETUP succeeded, and the device has not heard of it"),
    };
    ensure!(
        matches!(error, Some(Errno::EIO | Errno::ENODEV)),
        "QUEUE_SETUP: {error:?}, EIO or ENODEV was expected"
    );
    // The next start takes effect.
    queue.set_up()?;
    let memory = Region::new(PAGE << LOG2)?;
    // SAFETY: the memory is a region and outlives the queue's work, which is waited for.
    unsafe { queue.fill_pages(&memory, u64::MAX) };
    queue.wait_records(1 << LOG2)?;
    works(bench)?;
    remark(format!("{error:?}"))
}

/// The driver's module, unloaded; `Err` says why it could not be loaded again.
fn module(bench: &Bench) -> anyhow::Result<Result<Module, String>> {
    let name = Function::of(bench.device())?.module()?;
    let module = Module::find(&name)?;
    Ok(module.ok_or_else(|| format!("{name}.ko is not in {}", svm_init::paths::MODULES)))
}

fn unload_refused(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let module = match module(bench)? {
        Ok(module) => module,
        Err(reason) => return skipped(reason),
    };
    let refused = |what: &str| expect_errno(what, module.unload(), Errno::EAGAIN);
    refused("unloading under the bench's file")?;
    let file = RawFile::open(bench.device())?;
    bench.close();
    refused("unloading under a file without a queue")?;
    let child = {
        let mut child = Child::fork(|line: &mut Line| {
            line.tell(&"begin")?;
            line.receive::<String>().map(drop)
        })?;
        child.line().receive::<String>()?;
        child
    };
    drop(file);
    refused("unloading under a file that only a child has")?;
    drop(child);
    works(bench)?;
    remark("refused with EAGAIN")
}

fn reload(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let module = match module(bench)? {
        Ok(module) => module,
        Err(reason) => return skipped(reason),
    };
    let before = Before::take(bench)?;
    let debugfs = Function::debugfs(bench.device())?;
    let rounds = bench.rounds(100);
    for round in 0..rounds {
        bench.close();
        module
            .unload()
            .with_context(|| format!("unloading, round {round}"))?;
        if let Some(directory) = debugfs.as_deref().and_then(Path::parent) {
            ensure!(
                !directory.exists(),
                "{} is there without the driver",
                directory.display()
            );
        }
        ensure!(
            !bench.device().exists(),
            "{} is there without its driver",
            bench.device().display()
        );
        module.load()?;
        works(bench).with_context(|| format!("round {round}"))?;
    }
    let left = before.check(bench, rounds.into())?;
    remark(format!("{rounds} times; {left}"))
}
