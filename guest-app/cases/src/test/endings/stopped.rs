// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes that are stopped by a debugger, or killed by the kernel when memory runs out.

use std::fs;
use std::io::IoSliceMut;
use std::path::Path;

use anyhow::{Context, ensure};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use svmctl::Descriptor;
use svmctl::region::{PAGE, Region};

use crate::harness::bench::{Bench, expect_bytes};
use crate::harness::{Case, Verdict, passed, skipped};
use crate::system::child::{Child, Line};
use crate::test::leaks::{all_free, becomes};
use crate::test::raw::RawQueue;
use svm_init::kernel::OOM_KILLER;

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("a process that a debugger has stopped", debugged).killing(),
    Case::new("killed by the kernel, out of memory", out_of_memory)
        .provoking(&[OOM_KILLER])
        .killing(),
];

/// Log2 of the size of the ring and of the number of pages that are filled.
const LOG2: u32 = 8;
/// Address of the stopped process's memory.
const ADDRESS: usize = 0x2500_0000_0000;
/// The value that fills its pages.
const VALUE: u64 = 0x5a5a_0102_0304_a5a5;

/// The word at an address of another process.
fn word_of(pid: Pid, address: u64) -> anyhow::Result<u64> {
    let mut word = [0; 8];
    let remote = RemoteIoVec {
        base: address as usize,
        len: 8,
    };
    process_vm_readv(pid, &mut [IoSliceMut::new(&mut word)], &[remote])
        .context("process_vm_readv")?;
    Ok(u64::from_le_bytes(word))
}

fn debugged(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let length = PAGE << LOG2;
    for round in 0..bench.rounds(6) {
        let mut child = Child::fork(|line: &mut Line| {
            let memory = Region::at_address(ADDRESS, length)?;
            let mut queue = RawQueue::start(bench.device(), LOG2)?;
            line.tell(&"begin")?;
            line.receive::<String>()?;
            // SAFETY: both live until the process ends.
            unsafe { queue.fill_pages(&memory, VALUE) };
            line.tell(&"at work")?;
            line.receive::<String>()?;
            queue.wait_records(1 << LOG2)?;
            let expected = VALUE.to_le_bytes().repeat(length / 8);
            expect_bytes("the pages", &memory.read(0..length), &expected)
        })?;
        child.line().receive::<String>()?;
        child.line().tell(&"work")?;
        child.line().receive::<String>()?;
        let pid = child.pid()?;
        ptrace::attach(pid).context("ptrace")?;
        let status = waitpid(pid, None)?;
        ensure!(
            matches!(status, WaitStatus::Stopped(..)),
            "the process is {status:?}, and should be stopped"
        );
        // The device continues, and the kernel handles its page requests for a process that does
        // not run.
        becomes(|| {
            let last = word_of(pid, ADDRESS as u64 + length as u64 - 8)?;
            Ok((last == VALUE).then_some(()).ok_or_else(|| {
                format!("the last word is {last:#x}: the device stopped with the process")
            }))
        })?;
        if round % 2 == 0 {
            ptrace::detach(pid, None)?;
            child.line().tell(&"look")?;
            child.finish()?;
        } else {
            child.kill()?;
        }
        all_free(bench)?;
    }
    passed()
}

/// The hierarchy of control groups.
const GROUPS: &str = "/sys/fs/cgroup";
/// Memory of the group that runs out of memory.
const LIMIT: usize = 24 << 20;

/// A control group, removed when dropped.
struct Group(std::path::PathBuf);

impl Group {
    /// A group with `bytes` of memory and no swap; `Err` says why there is none.
    fn with_memory(bytes: usize) -> Result<Group, String> {
        let root = Path::new(GROUPS);
        let write = |path: &Path, text: &str| {
            fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        write(&root.join("cgroup.subtree_control"), "+memory")?;
        let path = root.join("svmctl-test");
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let group = Group(path);
        write(&group.0.join("memory.max"), &bytes.to_string())?;
        // Without swap the file does not exist.
        let _ = fs::write(group.0.join("memory.swap.max"), "0");
        Ok(group)
    }

    fn enter(&self) -> anyhow::Result<()> {
        fs::write(self.0.join("cgroup.procs"), "0").context("cannot enter the group")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group that still has a process remains; the test has already failed because of it.
        let _ = fs::remove_dir(&self.0);
    }
}

fn out_of_memory(bench: &mut Bench) -> anyhow::Result<Verdict> {
    for round in 0..bench.rounds(4) {
        // The excess memory is touched either by the device, which requests the pages, or by the
        // processor.
        let by_device = round % 2 == 0;
        let group = match Group::with_memory(LIMIT) {
            Ok(group) => group,
            Err(reason) => return skipped(reason),
        };
        let mut child = Child::fork(|line: &mut Line| {
            group.enter()?;
            let mut queue = bench.open_queue(16)?;
            let memory = Region::new(2 * LIMIT)?;
            line.tell(&"begin")?;
            for start in (0..memory.len()).step_by(LIMIT / 8) {
                if !by_device {
                    memory.write(start, &vec![1; LIMIT / 8]);
                }
                let fill = Descriptor::fill(memory.at(start), LIMIT as u64 / 8, VALUE);
                // SAFETY: a region is accessed atomically, and lives as long as the call.
                unsafe { queue.execute(&fill) }?;
            }
            Ok(())
        })?;
        child.line().receive::<String>()?;
        let status = child.wait()?;
        ensure!(
            matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
            "a process of {} MiB in a group of {} ended by {status:?}, SIGKILL was expected",
            (2 * LIMIT) >> 20,
            LIMIT >> 20
        );
        all_free(bench)?;
        let events = fs::read_to_string(group.0.join("memory.events"))?;
        ensure!(
            events.lines().any(|line| {
                line.strip_prefix("oom_kill ")
                    .is_some_and(|count| count != "0")
            }),
            "the kernel counts no process killed: {events}"
        );
    }
    passed()
}
