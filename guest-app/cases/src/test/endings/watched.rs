// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that look at a context, stop it and close it while its function is reset. The driver must
//! leave the registers alone meanwhile: a function in reset decodes no memory. A bus then answers with
//! ones, and a host that has given the function to this machine may end the machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context, ensure};
use svmctl::abi::ioctl::{self, fdinfo};
use svmctl::region::{PAGE, Region};

use super::device::works;
use super::resets::RESETS_AT_MOST;
use crate::harness::bench::Bench;
use crate::harness::{Case, Verdict, remark};
use crate::system::sysfs::Function;
use crate::test::raw::RawFile;

/// See the module.
pub const CASES: &[Case] = &[Case::new("files are read and closed under resets", watched)];

/// State of a context, in `fdinfo`, while its function is reset.
const RESETTING: &str = "resetting";
/// States that a context that is started and stopped can have, besides that.
const STATES: [&str; 3] = ["disabled", "enabled", "stopping"];

/// The lines of an open file in `fdinfo`.
fn shown(file: &RawFile) -> anyhow::Result<BTreeMap<String, String>> {
    let path = format!("/proc/thread-self/fdinfo/{}", file.as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).context(path)?;
    let lines = text.lines().filter_map(|line| line.split_once(":\t"));
    Ok(lines
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

/// Reads what the driver shows of a file and of its device, until it is over. `seen` counts the reads
/// during a reset.
fn read_until(
    file: &RawFile,
    debugfs: Option<&Path>,
    over: &AtomicBool,
    seen: &AtomicU32,
) -> anyhow::Result<()> {
    while !over.load(Ordering::Relaxed) {
        let shown = shown(file)?;
        let state = shown.get(fdinfo::STATE).map(String::as_str);
        let state = state.with_context(|| format!("no {} in {shown:?}", fdinfo::STATE))?;
        if state == RESETTING {
            seen.fetch_add(1, Ordering::Relaxed);
        } else {
            ensure!(STATES.contains(&state), "the context is {state:?}");
        }
        ensure!(
            shown.contains_key(fdinfo::MODERATION),
            "lines are missing: {shown:?}"
        );
        for name in ["contexts", "counters"] {
            if let Some(path) = debugfs.map(|directory| directory.join(name)) {
                fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok(())
}

/// Starts, stops and closes contexts until it is over: each must succeed.
fn open_until(device: &Path, over: &AtomicBool, opened: &AtomicU32) -> anyhow::Result<()> {
    let ring = Region::new(PAGE)?;
    let queue = ioctl::Queue {
        ring: ring.address(0),
        ..ioctl::Queue::default()
    };
    while !over.load(Ordering::Relaxed) {
        let file = RawFile::open(device).context("open")?;
        file.queue_setup(&queue).context("QUEUE_SETUP")?;
        file.queue_stop().context("QUEUE_STOP")?;
        file.queue_setup(&queue).context("QUEUE_SETUP, again")?;
        drop(file);
        opened.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn watched(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let function = Function::of(bench.device())?;
    let debugfs = Function::debugfs(bench.device())?;
    let least = bench.rounds(20);
    bench.close();
    let file = RawFile::open(bench.device())?;
    let (over, seen, opened) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let mut resets = 0;
    std::thread::scope(|scope| {
        let (over, seen, opened, device) = (&over, &seen, &opened, bench.device());
        let (file, debugfs) = (&file, debugfs.as_deref());
        let workers = [
            scope.spawn(move || read_until(file, debugfs, over, seen)),
            scope.spawn(move || open_until(device, over, opened)),
        ];
        // Until one of the reads was in the middle of one, and a file was closed.
        let happened =
            || [seen, opened].map(|count| count.load(Ordering::Relaxed) > 0) == [true; 2];
        let failed = || workers.iter().any(|worker| worker.is_finished());
        let mut result = Ok(());
        while result.is_ok()
            && !failed()
            && (resets < least || !happened())
            && resets < RESETS_AT_MOST
        {
            result = function.reset();
            resets += 1;
        }
        over.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("no worker panics")?;
        }
        Ok::<_, anyhow::Error>(result?)
    })?;
    drop(file);
    let (seen, opened) = (seen.into_inner(), opened.into_inner());
    ensure!(
        seen > 0 && opened > 0,
        "{resets} resets, {seen} reads during one, {opened} files were closed"
    );
    works(bench)?;
    remark(format!(
        "{resets} resets, {seen} reads during one, {opened} files closed"
    ))
}
