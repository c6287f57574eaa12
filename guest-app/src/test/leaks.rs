// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must be as before when processes have come and gone: contexts, PASIDs, bonds, memory.
//!
//! The kernel gives back some of it a moment later, for example when another task has run on the
//! processor that had the address space last, or when a page fault has been handled that was under
//! way. So each is looked at until it is right, and is a leak if it does not become so.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use svmctl::device::{CharDevice, DeviceFile};

use super::raw::RawFile;
use crate::harness::bench::Bench;
use crate::system::child::{Child, Line};

/// How long the kernel may take to clear up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fewer objects or pages than one for every so many endings are no leak.
const ONE_IN: u64 = 2;
/// Address spaces that come and go with other programs meanwhile.
const OTHER_SPACES: u64 = 16;
/// Memory that the kernel may use for other things meanwhile, in KiB.
const OTHER_MEMORY: u64 = 2048;

/// Opens the device until it has no context left; returns how many it had.
pub fn free_contexts(bench: &Bench) -> anyhow::Result<usize> {
    let mut open = Vec::new();
    loop {
        match RawFile::open(bench.device()) {
            Ok(file) => open.push(file),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                return Ok(open.len());
            }
            Err(error) => return Err(error).context("EBUSY was expected"),
        }
    }
}

/// Looks until `look` says that all is well; fails with what it last said otherwise.
pub fn becomes(mut look: impl FnMut() -> anyhow::Result<Result<(), String>>) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        match look()? {
            Ok(()) => return Ok(()),
            Err(wrong) => ensure!(start.elapsed() < PATIENCE, "{wrong}"),
        }
        std::thread::yield_now();
    }
}

/// Checks that all contexts but the bench's are free, or become so.
pub fn all_free(bench: &Bench) -> anyhow::Result<()> {
    let expected = bench.info().contexts as usize - 1;
    becomes(|| {
        let free = free_contexts(bench)?;
        ensure!(
            free <= expected,
            "{free} contexts are free, though one is in use and there are {} in all",
            bench.info().contexts
        );
        Ok((free == expected)
            .then_some(())
            .ok_or_else(|| format!("{free} contexts are free, {expected} were expected")))
    })
}

/// The PASID that a new process gets.
fn fresh_pasid(bench: &Bench) -> anyhow::Result<u32> {
    let mut child = Child::fork(|line: &mut Line| {
        let file = CharDevice::open(bench.device())?;
        line.tell(&file.info()?.pasid)
    })?;
    let pasid = child.line().receive()?;
    child.finish()?;
    Ok(pasid)
}

/// A number in a file; `None` if the file is not there.
fn number(path: impl AsRef<Path>) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Objects of the kernel's cache of address spaces that are in use; `None` where it does not tell.
fn address_spaces() -> Option<u64> {
    let cache = Path::new("/sys/kernel/slab/mm_struct");
    // What is free, but kept for a processor, would count as in use.
    fs::write(cache.join("shrink"), "1").ok()?;
    number(cache.join("objects"))
}

/// Free memory in KiB, when the kernel has given back what it can. `None` on a kernel that watches
/// its memory: it keeps what was freed for a while (KASAN's quarantine takes up to a 32nd of all),
/// and has a better way to find what was lost.
fn free_memory() -> Option<u64> {
    if Path::new("/sys/kernel/debug/kmemleak").exists() {
        return None;
    }
    fs::write("/proc/sys/vm/drop_caches", "3").ok()?;
    // Also empties the lists of free pages that each processor has for itself.
    fs::write("/proc/sys/vm/compact_memory", "1").ok()?;
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemFree:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// The state to which everything has to come back.
#[derive(Debug)]
pub struct Before {
    /// Directory of the driver's module.
    module: PathBuf,
    /// References to the module: one for each open file.
    references: Option<u64>,
    pasid: u32,
    address_spaces: Option<u64>,
    free_memory: Option<u64>,
}

impl Before {
    /// Takes the state.
    ///
    /// # Errors
    ///
    /// The device cannot be opened.
    pub fn take(bench: &Bench) -> anyhow::Result<Before> {
        all_free(bench)?;
        let name = bench.device().file_name().unwrap_or_default();
        let module = Path::new("/sys/class/misc")
            .join(name)
            .join("device/driver/module");
        Ok(Before {
            references: number(module.join("refcnt")),
            module,
            pasid: fresh_pasid(bench)?,
            address_spaces: address_spaces(),
            free_memory: free_memory(),
        })
    }

    /// Checks that all is as before, after so many endings. Returns what was looked at.
    ///
    /// # Errors
    ///
    /// Something has leaked.
    pub fn check(&self, bench: &Bench, endings: u64) -> anyhow::Result<String> {
        all_free(bench)?;
        becomes(|| {
            let pasid = fresh_pasid(bench)?;
            Ok((pasid <= self.pasid).then_some(()).ok_or_else(|| {
                format!(
                    "a new process gets PASID {pasid}, and got {} before: those between are not \
                     free again",
                    self.pasid
                )
            }))
        })?;
        let mut seen = vec![format!("PASID {} again", self.pasid)];
        if let Some(before) = self.references {
            becomes(|| {
                let now = number(self.module.join("refcnt")).unwrap_or(u64::MAX);
                Ok((now == before).then_some(()).ok_or_else(|| {
                    format!("the module has {now} references, and had {before} before")
                }))
            })?;
            seen.push("no file".to_owned());
        }
        // A bond holds its address space: one that is left is seen here.
        if let Some(before) = self.address_spaces {
            let bound = before + (endings / ONE_IN).min(OTHER_SPACES);
            becomes(|| {
                let now = address_spaces().unwrap_or(u64::MAX);
                Ok((now <= bound).then_some(()).ok_or_else(|| {
                    format!(
                        "{now} address spaces are in use, {before} before {endings} processes \
                         ended: bonds are left"
                    )
                }))
            })?;
            seen.push("no address space".to_owned());
        }
        if let Some(before) = self.free_memory {
            let page = svmctl::region::PAGE as u64 / 1024;
            let bound = before.saturating_sub((endings * page / ONE_IN).max(OTHER_MEMORY));
            let mut now = 0;
            becomes(|| {
                now = free_memory().unwrap_or(0);
                Ok((now >= bound).then_some(()).ok_or_else(|| {
                    format!(
                        "{now} KiB of memory are free, {before} before {endings} processes ended"
                    )
                }))
            })?;
            let change = now as i64 - before as i64;
            seen.push(format!("free memory {change:+} KiB"));
        }
        Ok(seen.join(", "))
    }
}
