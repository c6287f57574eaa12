// SPDX-License-Identifier: MIT OR Apache-2.0
//! A page fault that remains unanswered because the program that serves the file is silent: which
//! processes have to wait, and which must not.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags};
use nix::sys::wait::WaitStatus;
use svmctl::abi::descriptor::{Descriptor, Operation, flags};
use svmctl::region::{PAGE, Region};

use super::device::works;
use crate::harness::bench::Bench;
use crate::harness::{Case, Verdict, passed, skipped};
use crate::system::child::{Child, Line};
use crate::system::fuse::{self, Server};
use crate::system::mapping::{Mapping, Memory};
use crate::test::leaks::{Before, becomes};
use crate::test::raw::{RawFile, RawQueue};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("a fault that nobody answers keeps no other device", others),
    Case::new("a fault that nobody answers, and no context is free", taken),
];

/// Path of the file.
const PATH: &str = "/tmp/svmctl-silent";
/// Time limit for operations that must not wait; less than the work's own time limit.
const PATIENCE: Duration = Duration::from_secs(20);

/// A file whose server is silent, and a process for which the device waits for it.
struct Unanswered {
    server: Child,
    victim: Child,
    /// Declared after the server, so that it is dropped later: the server's end fails its
    /// unanswered requests.
    mounted: Mounted,
}

/// Unmounts the file when dropped, whatever happened to its server.
struct Mounted;

impl Drop for Mounted {
    fn drop(&mut self) {
        fuse::unmount(Path::new(PATH));
    }
}

impl Unanswered {
    /// Makes the device wait. With `all`, the process first opens all contexts.
    fn begin(device: &Path, all: bool) -> anyhow::Result<Unanswered> {
        let mounted = Mounted;
        let mut server = Child::fork(|line: &mut Line| {
            let mut server = Server::mount(Path::new(PATH))?;
            line.tell(&"mounted")?;
            let mut asked = false;
            server.serve(|| {
                if !asked {
                    asked = true;
                    line.tell(&"asked")?;
                    line.receive::<String>()?;
                }
                Ok(())
            })
        })?;
        heard(&mut server, "the mount")?;
        let mut victim = Child::fork(|line: &mut Line| {
            let file = File::open(PATH).context(PATH)?;
            // Reads the attributes: until then, the kernel considers the file empty and a fault on
            // its page an error.
            ensure!(file.metadata()?.len() == fuse::SIZE, "size of {PATH}");
            let mapping = Mapping::file(&file, PAGE, ProtFlags::PROT_READ, MapFlags::MAP_SHARED)?;
            let target = Region::new(PAGE)?;
            let mut queue = RawQueue::start(device, 0)?;
            let mut open = Vec::new();
            if all {
                loop {
                    match RawFile::open(device) {
                        Ok(file) => open.push(file),
                        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => break,
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            let copy = Descriptor {
                operation: Operation::Copy as u8,
                flags: flags::BLOCK_ON_FAULT | flags::INTERRUPT,
                completion: queue.record_address(0),
                source: mapping.address(0),
                destination: target.address(0),
                length: 8,
                ..Descriptor::default()
            };
            // SAFETY: target, record and mapping outlive the queue's work, which is waited for.
            unsafe { queue.submit(&copy) };
            line.tell(&"submitted")?;
            queue.wait_records(1).map(drop)
        })?;
        heard(&mut victim, "the descriptor")?;
        // The kernel's worker that handles page requests has sent this read.
        heard(&mut server, "the page to be asked for")?;
        Ok(Unanswered {
            server,
            victim,
            mounted,
        })
    }

    /// Answers, and waits for the end of the work.
    fn end(mut self) -> anyhow::Result<()> {
        self.server.line().tell(&"answer")?;
        self.victim.finish().context("the process that waited")?;
        // Unmounting ends the server.
        drop(self.mounted);
        self.server.finish().context("the server of the file")
    }
}

/// Receives a child's message; an error if there is none.
fn heard(child: &mut Child, what: &str) -> anyhow::Result<()> {
    ensure!(child.has_spoken(PATIENCE)?, "waited in vain for {what}");
    child.line().receive::<String>().map(drop)
}

/// A process that stays in one place for this long counts as stuck. There is no exact criterion:
/// the kernel waits briefly at other places, too.
const STUCK: Duration = Duration::from_secs(1);

/// The state of a process, and how often it has begun to wait, from `/proc`.
fn state_of(child: &Child) -> anyhow::Result<(char, String)> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.pid()?))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
            .with_context(|| format!("no {name} in {status}"))
    };
    let state = field("State:")?.chars().next().context("no state")?;
    Ok((state, field("voluntary_ctxt_switches:")?.to_owned()))
}

/// Waits until a process is in an uninterruptible sleep and stays there.
fn is_stuck(child: &Child, what: &str) -> anyhow::Result<()> {
    let mut since = Instant::now();
    let mut last = state_of(child)?;
    becomes(|| {
        let now = state_of(child)?;
        let (state, _) = now;
        ensure!(state != 'Z', "{what} has ended, and was to wait");
        if state != 'D' || now != last {
            since = Instant::now();
            last = now;
        }
        Ok((since.elapsed() > STUCK)
            .then_some(())
            .ok_or_else(|| format!("{what} is in state {state}, and was to wait")))
    })
}

/// Opens and closes the device in a separate process.
fn open_and_close(device: &Path) -> anyhow::Result<Child> {
    let mut child = Child::fork(|line: &mut Line| {
        line.tell(&"begin")?;
        drop(RawFile::open(device)?);
        Ok(())
    })?;
    child.line().receive::<String>()?;
    Ok(child)
}

fn others(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if !fuse::is_available()? {
        return skipped(format!("no {}", fuse::DEVICE));
    }
    // Memory that the kernel allocates the first time is not a leak.
    Unanswered::begin(bench.device(), false)?.end()?;
    let before = Before::take(bench)?;
    let unanswered = Unanswered::begin(bench.device(), false)?;
    // The end of a bond waits for all faults that the kernel is handling, and an open of the device
    // waits for that end. A driver cannot avoid either.
    let first = open_and_close(bench.device())?;
    is_stuck(&first, "the end of a bond")?;
    let second = open_and_close(bench.device())?;
    is_stuck(&second, "the next open")?;
    // An open of another device is not affected.
    let mut other = Child::fork(|_| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(fuse::DEVICE)?;
        Ok(())
    })?;
    let ended = other.wait_within(PATIENCE)?;
    let answered = unanswered.end();
    match ended {
        Some(WaitStatus::Exited(_, 0)) => {}
        Some(status) => bail!("{} cannot be opened: {status:?}", fuse::DEVICE),
        None => bail!(
            "nobody can open {} while a page fault of another program is without its answer",
            fuse::DEVICE
        ),
    }
    answered?;
    first
        .finish()
        .context("the process that closed the device")?;
    second
        .finish()
        .context("the process that opened the device")?;
    works(bench)?;
    before.check(bench, 4)?;
    passed()
}

fn taken(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if !fuse::is_available()? {
        return skipped(format!("no {}", fuse::DEVICE));
    }
    // Memory that the kernel allocates the first time is not a leak.
    Unanswered::begin(bench.device(), true)?.end()?;
    let before = Before::take(bench)?;
    let unanswered = Unanswered::begin(bench.device(), true)?;
    let mut other = Child::fork(|_| match RawFile::open(bench.device()) {
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Ok(()),
        other => bail!("{other:?}, EBUSY was expected"),
    })?;
    let ended = other.wait_within(PATIENCE)?;
    let answered = unanswered.end();
    match ended {
        Some(WaitStatus::Exited(_, 0)) => {}
        Some(status) => bail!("the device was opened: {status:?}"),
        None => bail!("EBUSY comes only when the page fault of another program has its answer"),
    }
    answered?;
    works(bench)?;
    before.check(bench, 3)?;
    passed()
}
