// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resources that must be released after processes have ended: contexts, PASIDs, bonds, memory.
//!
//! The kernel releases some of them a moment later, for example when another task has run on the
//! processor that last used the address space, or when a page fault in flight has been handled. So
//! each is polled until it is correct, and is a leak if it does not become so in time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use svmctl::device::{CharDevice, DeviceFile};
use svmctl::region::PAGE;

use super::raw::RawFile;
use crate::harness::bench::Bench;
use crate::system::child::{Child, Line};
use crate::system::sysfs::Function;

/// How long the kernel may take to clear up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two polls of a state that no event announces.
const PAUSE: Duration = Duration::from_millis(5);

/// Fewer objects than one per this many endings are not a leak.
const ONE_IN: u64 = 2;
/// Address spaces of other programs that start and end meanwhile.
const OTHER_SPACES: u64 = 16;
/// Less memory than this per ending is not a leak, in KiB.
const EACH: u64 = 1;
/// Memory that the kernel may use for other things meanwhile, in KiB. One page for each of a
/// hundred endings is more.
const OTHER_MEMORY: u64 = 384;
/// That number of endings. With fewer, one leaked page per ending cannot be distinguished from the
/// kernel's other activity (416 KiB were seen): only pinned memory and leaks in the exact numbers
/// are found.
const SEVERAL: u64 = 100;
/// Memory that the kernel may use for other things during fewer endings, in KiB.
const OTHER_MEMORY_OF_FEW: u64 = 1024;
/// Entries of a page of the PASID table. The pages are kept as long as the function exists.
const PASIDS_A_PAGE: u64 = 64;
/// Number of pages that the largest number of simultaneous processes needs.
const MOST_PASID_PAGES: u64 = 16;
/// A function that was plugged in again has its own tables: two more pages were seen.
const OTHER_PAGES: u64 = 2;

/// How many additional objects are not a leak after `endings` endings.
fn spaces_allowed(endings: u64) -> u64 {
    (endings / ONE_IN).min(OTHER_SPACES)
}

/// How much less memory is not a leak after `endings` endings, in KiB.
fn memory_allowed(endings: u64) -> u64 {
    let others = match endings {
        ..SEVERAL => OTHER_MEMORY_OF_FEW,
        SEVERAL.. => OTHER_MEMORY,
    };
    (endings * EACH).max(others)
}

/// How many additional pages the IOMMU's tables may have after `endings` endings.
fn tables_allowed(endings: u64) -> u64 {
    endings.div_ceil(PASIDS_A_PAGE).min(MOST_PASID_PAGES) + OTHER_PAGES
}

/// Pages that the IOMMU driver uses for tables and queues (Linux: `nr_iommu_pages`); `None` if the
/// kernel does not count them.
fn iommu_pages() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("nr_iommu_pages ")?.trim().parse().ok())
}

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

/// Polls `look` until it reports success; otherwise fails with its last report.
pub fn becomes(mut look: impl FnMut() -> anyhow::Result<Result<(), String>>) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        match look()? {
            Ok(()) => return Ok(()),
            Err(wrong) => ensure!(start.elapsed() < PATIENCE, "{wrong}"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Checks that all contexts but the bench's are free or become free.
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
///
/// # Errors
///
/// It cannot open the device.
pub fn fresh_pasid(bench: &Bench) -> anyhow::Result<u32> {
    let mut child = Child::fork(|line: &mut Line| {
        let file = CharDevice::open(bench.device())?;
        line.tell(&file.info()?.pasid)
    })?;
    let pasid = child.line().receive()?;
    child.finish()?;
    Ok(pasid)
}

/// A number in a file; `None` if the file does not exist.
fn number(path: impl AsRef<Path>) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Number of lines of a file; `None` if it does not exist.
fn lines(path: &Path) -> Option<usize> {
    Some(fs::read_to_string(path).ok()?.lines().count())
}

/// Number of objects in use in the kernel's cache of address spaces; `None` if the kernel does not
/// report it.
fn address_spaces() -> Option<u64> {
    let cache = Path::new("/sys/kernel/slab/mm_struct");
    // Free objects that are kept for a processor would count as in use.
    fs::write(cache.join("shrink"), "1").ok()?;
    number(cache.join("objects"))
}

/// The kernel's memory statistics, in KiB, after it has released what it can.
type Memory = BTreeMap<String, u64>;

/// Reads the statistics. `None` if the kernel cannot be told to release memory, or if it checks its
/// memory: such a kernel keeps freed memory for a while (KASAN's quarantine takes up to a 32nd of
/// all memory), and has a better way to find leaks.
fn memory() -> Option<Memory> {
    if Path::new("/sys/kernel/debug/kmemleak").exists() {
        return None;
    }
    // 4: no message each time from now on. 3: drop the caches of files and of the kernel's objects.
    fs::write("/proc/sys/vm/drop_caches", "4").ok()?;
    fs::write("/proc/sys/vm/drop_caches", "3").ok()?;
    shrink_slabs();
    let mut memory = Memory::new();
    for path in ["/proc/meminfo", "/proc/self/status"] {
        let text = fs::read_to_string(path).ok()?;
        memory.extend(text.lines().filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            let kib = value.trim().strip_suffix(" kB")?.parse().ok()?;
            Some((key.to_owned(), kib))
        }));
    }
    // Free pages in a processor's own list are not counted as free.
    let zones = fs::read_to_string("/proc/zoneinfo").ok()?;
    let pages: u64 = zones
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("count:")?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .sum();
    memory.insert("PerProcessor".to_owned(), pages * (PAGE as u64 / 1024));
    Some(memory)
}

/// Makes the kernel's object caches release empty pages: under load they keep hundreds of KiB of
/// these.
fn shrink_slabs() {
    let caches = fs::read_dir("/sys/kernel/slab").into_iter().flatten();
    for entry in caches.flatten() {
        // Other names of a cache are links.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // Some caches do not support it.
            let _ = fs::write(entry.path().join("shrink"), "1");
        }
    }
}

/// Memory that is free or belongs to this process: the allocator keeps freed memory, and a test
/// needs some.
fn free(memory: &Memory) -> u64 {
    ["MemFree", "PerProcessor", "RssAnon"]
        .iter()
        .filter_map(|key| memory.get(*key))
        .sum()
}

/// The statistics that have changed considerably.
fn changes(before: &Memory, now: &Memory) -> String {
    const LITTLE: i64 = 128;
    let changes = now.iter().filter_map(|(key, now)| {
        let change = *now as i64 - *before.get(key)? as i64;
        (change.abs() > LITTLE).then(|| format!("{key} {change:+}"))
    });
    changes.collect::<Vec<_>>().join(", ")
}

/// The most processes that hold a PASID at a time, to see which are free.
const HELD: u32 = 16;

/// Checks that the PASIDs of dead processes are free, or become free: processes that live at the same
/// time have the lowest ones, from the one on that a new process once got.
///
/// # Errors
///
/// One of them is not free.
pub fn lowest_pasids(bench: &Bench, from: u32) -> anyhow::Result<()> {
    // The bench has a context, too.
    let held = HELD.min(bench.info().contexts - 1);
    // Its PASID may lie between.
    let is_between = bench.info().pasid > from;
    let bound = from + held - u32::from(!is_between);
    becomes(|| {
        let pasids = held_pasids(bench, held)?;
        let fits = pasids.iter().all(|pasid| *pasid <= bound);
        Ok(fits.then_some(()).ok_or_else(|| {
            format!(
                "{held} processes at a time have the PASIDs {pasids:?}, and one had {from} before: \
                 those between are not free again"
            )
        }))
    })
}

/// The PASIDs of processes that live at the same time.
fn held_pasids(bench: &Bench, count: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = Vec::new();
    let mut pasids = Vec::new();
    for _ in 0..count {
        let mut child = Child::fork(|line: &mut Line| {
            let file = CharDevice::open(bench.device())?;
            line.tell(&file.info()?.pasid)?;
            line.receive::<String>().map(drop)
        })?;
        pasids.push(child.line().receive()?);
        children.push(child);
    }
    for mut child in children {
        child.line().tell(&"go")?;
        child.finish()?;
    }
    Ok(pasids)
}

/// The state to which everything must return.
#[derive(Debug)]
pub struct Before {
    /// Directory of the driver's module.
    module: PathBuf,
    /// References to the module: one for each open file.
    references: Option<u64>,
    /// The driver's list of contexts that are not free.
    contexts: Option<PathBuf>,
    in_use: Option<usize>,
    pasid: u32,
    address_spaces: Option<u64>,
    iommu_pages: Option<u64>,
    memory: Option<Memory>,
}

impl Before {
    /// Records the state.
    ///
    /// # Errors
    ///
    /// The device cannot be opened.
    pub fn take(bench: &Bench) -> anyhow::Result<Before> {
        all_free(bench)?;
        let name = bench.device().file_name().unwrap_or_default();
        let module = Path::new("/sys/class/svm_demo")
            .join(name)
            .join("device/driver/module");
        let debugfs = Function::debugfs(bench.device())?;
        let contexts = debugfs.map(|directory| directory.join("contexts"));
        Ok(Before {
            in_use: contexts.as_deref().and_then(lines),
            contexts,
            references: number(module.join("refcnt")),
            module,
            pasid: fresh_pasid(bench)?,
            address_spaces: address_spaces(),
            iommu_pages: iommu_pages(),
            memory: memory(),
        })
    }

    /// The PASID that a new process got.
    pub const fn pasid(&self) -> u32 {
        self.pasid
    }

    /// Checks that everything is as before, after `endings` endings. Returns a description of what
    /// was checked.
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
        if let (Some(before), Some(contexts)) = (self.in_use, &self.contexts) {
            becomes(|| {
                let now = lines(contexts).unwrap_or(usize::MAX);
                Ok((now == before).then_some(()).ok_or_else(|| {
                    format!(
                        "the driver lists {now} lines of contexts, and listed {before} before: {}",
                        contexts.display()
                    )
                }))
            })?;
            seen.push("no context".to_owned());
        }
        // A bond holds its address space, so a leaked bond is found here.
        if let Some(before) = self.address_spaces {
            let bound = before + spaces_allowed(endings);
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
        if let Some(before) = self.iommu_pages {
            let bound = before + tables_allowed(endings);
            let mut now = 0;
            becomes(|| {
                now = iommu_pages().unwrap_or(u64::MAX);
                Ok((now <= bound).then_some(()).ok_or_else(|| {
                    format!(
                        "the IOMMU driver has {now} pages, and had {before} before {endings} \
                         processes ended"
                    )
                }))
            })?;
            seen.push(format!("tables {:+} pages", now as i64 - before as i64));
        }
        if let Some(before) = &self.memory {
            let bound = free(before).saturating_sub(memory_allowed(endings));
            let mut now = 0;
            becomes(|| {
                let memory = memory().unwrap_or_default();
                now = free(&memory);
                Ok((now >= bound).then_some(()).ok_or_else(|| {
                    format!(
                        "{now} KiB of memory are free, {} before {endings} processes ended ({})",
                        free(before),
                        changes(before, &memory)
                    )
                }))
            })?;
            let change = now as i64 - free(before) as i64;
            seen.push(format!("free memory {change:+} KiB"));
        } else {
            seen.push("free memory not known".to_owned());
        }
        Ok(seen.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_or_a_page_for_each_ending_is_a_leak_at_every_scale() {
        for endings in [10, 100, 1000, 10_000] {
            assert!(spaces_allowed(endings) < endings, "{endings}");
            assert!(tables_allowed(endings) < endings, "{endings}");
        }
        for endings in [SEVERAL, 1000, 10_000] {
            assert!(
                memory_allowed(endings) < PAGE as u64 / 1024 * endings,
                "{endings}"
            );
        }
    }
}
