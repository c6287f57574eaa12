// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that outlive the address space that opened them, by `exec` or through a socket, and
//! threads that end before their process.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{anyhow, ensure};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use svmctl::Failure;
use svmctl::abi::completion::status;
use svmctl::region::{PAGE, Region};

use crate::harness::bench::{Bench, expect_bytes};
use crate::harness::{Case, Verdict, passed, remark};
use crate::system::child::{self, Child, Line};
use crate::system::socket;
use crate::test::leaks::{all_free, becomes, free_contexts};
use crate::test::raw::{RawFile, RawQueue, expect_no_right};

/// The task of a program that replaced a case by `exec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Successor {
    /// Lives until its standard input ends.
    Idle,
    /// Its standard input is a device file that its predecessor opened. It checks that it cannot
    /// use the file.
    Inherited,
}

/// See the module.
pub const CASES: &[Case] = &[
    Case::new(
        "exec with close-on-exec gives the context back",
        exec_closes,
    )
    .killing(),
    Case::new(
        "exec without it leaves a file without rights",
        exec_inherits,
    )
    .killing(),
    Case::new("a file sent through a socket is without rights", sent_file).killing(),
    Case::new("a thread that opened the device ends", thread_ends),
    Case::new("the first thread of a process ends", first_thread_ends).killing(),
];

/// Log2 of the size of the rings and of the number of pages that are filled.
const LOG2: u32 = 8;
/// Rounds of each case.
const ROUNDS: u32 = 5;

/// A queue at work on memory that the process has not touched.
fn at_work(device: &Path) -> anyhow::Result<(RawQueue, Region)> {
    let memory = Region::new(PAGE << LOG2)?;
    let mut queue = RawQueue::start(device, LOG2)?;
    // SAFETY: both live until the address space ends.
    unsafe { queue.fill_pages(&memory, 1) };
    Ok((queue, memory))
}

/// Turns this process into another program, with `stdin` as its standard input.
fn exec(work: Successor, stdin: OwnedFd) -> anyhow::Error {
    let error = Command::new("/proc/self/exe")
        .args(["successor", work.name()])
        .stdin(Stdio::from(stdin))
        .exec();
    anyhow!(error).context("exec")
}

impl Successor {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Idle, Self::Inherited];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Successor::Idle => "idle",
            Successor::Inherited => "inherited",
        }
    }
}

/// Runs the other program.
///
/// # Errors
///
/// It can do something that it must not.
pub fn successor(work: Successor) -> anyhow::Result<()> {
    let mut stdin = std::io::stdin();
    match work {
        Successor::Idle => {
            stdin.read_to_end(&mut Vec::new())?;
            Ok(())
        }
        Successor::Inherited => {
            let file = RawFile::from(stdin.as_fd().try_clone_to_owned()?);
            expect_no_right(&file)
        }
    }
}

fn exec_closes(bench: &mut Bench) -> anyhow::Result<Verdict> {
    for _ in 0..bench.rounds(ROUNDS) {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        let mut child = Child::fork(|line: &mut Line| {
            let work = at_work(bench.device())?;
            line.tell(&"at work")?;
            let error = exec(Successor::Idle, reader.try_clone()?);
            drop(work);
            Err(error)
        })?;
        child.line().receive::<String>()?;
        // The other program is running and holds nothing of the device.
        all_free(bench)?;
        drop((writer, reader));
        child.finish()?;
    }
    passed()
}

fn exec_inherits(bench: &mut Bench) -> anyhow::Result<Verdict> {
    for _ in 0..bench.rounds(ROUNDS) {
        let child = Child::fork(|_| {
            let (queue, memory) = at_work(bench.device())?;
            let error = exec(Successor::Inherited, queue.as_fd().try_clone_to_owned()?);
            drop((queue, memory));
            Err(error)
        })?;
        child.finish()?;
        all_free(bench)?;
    }
    passed()
}

fn sent_file(bench: &mut Bench) -> anyhow::Result<Verdict> {
    for round in 0..bench.rounds(ROUNDS) {
        let (ours, theirs) = socket::pair()?;
        let mut child = Child::fork(|line: &mut Line| {
            let (queue, memory) = at_work(bench.device())?;
            socket::send(&theirs, queue.as_fd())?;
            line.tell(&"sent")?;
            line.receive::<String>()?;
            drop((queue, memory));
            Ok(())
        })?;
        child.line().receive::<String>()?;
        let file = RawFile::from(socket::receive(&ours)?);
        expect_no_right(&file)?;
        // After its owner's death the file is still unusable and still has its context.
        if round % 2 == 0 {
            child.kill()?;
        } else {
            child.line().tell(&"end")?;
            child.finish()?;
        }
        expect_no_right(&file)?;
        let expected = bench.info().contexts as usize - 2;
        becomes(|| {
            let free = free_contexts(bench)?;
            Ok((free == expected).then_some(()).ok_or_else(|| {
                format!("{free} contexts are free, {expected} were expected with one file held")
            }))
        })?;
        drop(file);
        all_free(bench)?;
    }
    passed()
}

fn thread_ends(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let rounds = bench.rounds(ROUNDS);
    for round in 0..rounds {
        let device = bench.device();
        let (queue, memory) = std::thread::scope(|scope| {
            let opener = scope.spawn(|| at_work(device));
            opener.join().map_err(|_| anyhow!("the thread panicked"))?
        })?;
        let records = queue.wait_records(1 << LOG2)?;
        let failed = records.iter().find(|r| r.status != status::SUCCESS);
        ensure!(failed.is_none(), "round {round}: {failed:?}");
        let expected = 1u64.to_le_bytes().repeat(memory.len() / 8);
        expect_bytes("the pages", &memory.read(0..memory.len()), &expected)?;
    }
    all_free(bench)?;
    remark(format!("{rounds} threads"))
}

fn first_thread_ends(bench: &mut Bench) -> anyhow::Result<Verdict> {
    for _ in 0..bench.rounds(ROUNDS) {
        let mut child = Child::fork(|line: &mut Line| {
            let (queue, memory) = at_work(bench.device())?;
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let end = first_is_gone()
                        .and_then(|()| queue.wait_records(1 << LOG2))
                        .and_then(|records| {
                            let failures = records.iter().filter_map(Failure::of);
                            let failures: Vec<_> = failures.map(|f| f.to_string()).collect();
                            ensure!(failures.is_empty(), "{}", failures.join("; "));
                            let expected = 1u64.to_le_bytes().repeat(memory.len() / 8);
                            expect_bytes("the pages", &memory.read(0..memory.len()), &expected)
                        })
                        .map_err(|error| format!("{error:#}"));
                    // If the parent is gone, there is nothing to report.
                    let _ = line.tell(&end.err().unwrap_or_default());
                    child::end_this_process(0)
                });
                child::end_this_thread()
            })
        })?;
        let error: String = child.line().receive()?;
        ensure!(error.is_empty(), "{error}");
        child.finish()?;
        all_free(bench)?;
    }
    passed()
}

/// Waits until the first thread of this process is a zombie.
fn first_is_gone() -> anyhow::Result<()> {
    becomes(|| {
        let pid = std::process::id();
        let stat = std::fs::read_to_string(format!("/proc/self/task/{pid}/stat"))?;
        Ok(stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
            .then_some(())
            .ok_or_else(|| "the first thread does not end".to_owned()))
    })
}
