// SPDX-License-Identifier: MIT OR Apache-2.0
//! Failures on demand: a kernel with `CONFIG_FAULT_INJECTION` refuses memory, or access to the
//! memory of the process, where it is told to (Linux, Documentation/fault-injection).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;

/// Where the kernel is told what may fail.
const DEBUGFS: &str = "/sys/kernel/debug";

/// Memory of the size of structures, memory in pages, and copies from and to programs may fail;
/// also where the kernel could wait for memory, and without a word in its log.
const ANY: &[(&str, &str)] = &[
    ("failslab/ignore-gfp-wait", "N"),
    ("failslab/verbose", "0"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/min-order", "0"),
    ("fail_page_alloc/verbose", "0"),
    ("fail_usercopy/verbose", "0"),
];

/// One in so many percent of the allocations of those tasks fails that ask for it.
const SOME: &[(&str, &str)] = &[
    ("failslab/task-filter", "Y"),
    ("failslab/interval", "1"),
    ("failslab/times", "-1"),
    ("fail_page_alloc/task-filter", "Y"),
    ("fail_page_alloc/interval", "1"),
    ("fail_page_alloc/times", "-1"),
];

/// The settings by which failures can be asked for. They are as before when it is dropped.
#[derive(Debug)]
pub struct Injection {
    before: Vec<(PathBuf, String)>,
}

impl Injection {
    /// Makes the settings; `None` if the kernel cannot inject failures.
    ///
    /// # Errors
    ///
    /// It can, and refuses a setting.
    pub fn begin() -> anyhow::Result<Option<Injection>> {
        if !Path::new("/proc/thread-self/fail-nth").exists()
            || !Path::new(DEBUGFS).join(ANY[0].0).exists()
        {
            return Ok(None);
        }
        let mut injection = Injection { before: Vec::new() };
        for (name, value) in ANY {
            injection.set(name, value)?;
        }
        Ok(Some(injection))
    }

    /// Lets `percent` of the allocations fail of tasks for which [`fail_by_chance`] was called.
    ///
    /// # Errors
    ///
    /// The kernel refuses a setting.
    pub fn by_chance(&mut self, percent: u32) -> anyhow::Result<()> {
        for (name, value) in SOME {
            self.set(name, value)?;
        }
        for kind in ["failslab", "fail_page_alloc"] {
            self.set(&format!("{kind}/probability"), &percent.to_string())?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        let path = Path::new(DEBUGFS).join(name);
        let context = || format!("cannot set {}", path.display());
        let before = fs::read_to_string(&path).with_context(context)?;
        fs::write(&path, value).with_context(context)?;
        self.before.push((path, before.trim().to_owned()));
        Ok(())
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        for (path, value) in self.before.iter().rev() {
            // Nobody can be told, and what was set harms only who asks for failures.
            let _ = fs::write(path, value);
        }
    }
}

/// Lets allocations of this task fail by chance from now on, or no longer.
///
/// # Errors
///
/// The kernel refuses, or fails at this very call.
pub fn fail_by_chance(fail: bool) -> io::Result<()> {
    let value = if fail { "1" } else { "0" };
    fs::write("/proc/self/make-it-fail", value)
}

/// Makes the kernel fail once, at a place that is counted from the beginning of a call.
#[derive(Debug)]
pub struct Trigger {
    nth: File,
}

impl Trigger {
    /// That of the current thread.
    ///
    /// # Errors
    ///
    /// The kernel cannot inject failures.
    pub fn open() -> io::Result<Trigger> {
        let mut options = OpenOptions::new();
        let nth = options.read(true).write(true);
        Ok(Trigger {
            nth: nth.open("/proc/thread-self/fail-nth")?,
        })
    }

    /// Performs `call` with a failure at the `nth` place where one is possible, from 1. Returns
    /// what it returned, and whether it came to that place.
    ///
    /// The call should be a system call on memory that is present, and nothing else: a failure
    /// elsewhere says nothing of it.
    ///
    /// # Errors
    ///
    /// Those of asking for the failure.
    pub fn fire<T>(&self, nth: u32, call: impl FnOnce() -> T) -> io::Result<(T, bool)> {
        self.nth.write_all_at(nth.to_string().as_bytes(), 0)?;
        let result = call();
        let mut left = [0; 16];
        let injected = match self.nth.read_at(&mut left, 0) {
            Ok(length) => left[..length].trim_ascii() == b"0",
            // This was the place.
            Err(error) if error.raw_os_error() == Some(Errno::EFAULT as i32) => false,
            Err(error) => return Err(error),
        };
        // A failure may still be to come, and this be its place; then it is over.
        if self.nth.write_all_at(b"0", 0).is_err() {
            self.nth.write_all_at(b"0", 0)?;
        }
        Ok((result, injected))
    }
}
