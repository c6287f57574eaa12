// SPDX-License-Identifier: MIT OR Apache-2.0
//! Failures on demand: a kernel with `CONFIG_FAULT_INJECTION` can be told to fail allocations and
//! accesses to the memory of the process (Linux, Documentation/fault-injection).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use nix::errno::Errno;

/// Where to tell the kernel what may fail.
const DEBUGFS: &str = "/sys/kernel/debug";

/// Slab allocations, page allocations, and copies from and to user space may fail: also allocations
/// that could wait for memory, and without a message in the log.
const ANY: &[(&str, &str)] = &[
    ("failslab/ignore-gfp-wait", "N"),
    ("failslab/verbose", "0"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/min-order", "0"),
    ("fail_page_alloc/verbose", "0"),
    ("fail_usercopy/verbose", "0"),
];

/// A percentage of the allocations fails, in tasks that request it.
const SOME: &[(&str, &str)] = &[
    ("failslab/task-filter", "Y"),
    ("failslab/interval", "1"),
    ("failslab/times", "-1"),
    ("fail_page_alloc/task-filter", "Y"),
    ("fail_page_alloc/interval", "1"),
    ("fail_page_alloc/times", "-1"),
];

/// The kinds of failures.
const KINDS: &[&str] = &["failslab", "fail_page_alloc", "fail_usercopy"];

/// The settings that allow a task to request failures. Dropping it restores the previous ones.
#[derive(Debug)]
pub struct Injection {
    before: Vec<(PathBuf, String)>,
}

impl Injection {
    /// Changes the settings; `None` if the kernel cannot inject failures of every kind.
    ///
    /// # Errors
    ///
    /// The kernel can inject failures, but refuses a setting.
    pub fn begin() -> anyhow::Result<Option<Injection>> {
        if !Path::new("/proc/thread-self/fail-nth").exists() || !has_all(Path::new(DEBUGFS)) {
            return Ok(None);
        }
        let mut injection = Injection { before: Vec::new() };
        for (name, value) in ANY {
            injection.set(name, value)?;
        }
        Ok(Some(injection))
    }

    /// Lets `percent` of the allocations fail in tasks for which [`fail_by_chance`] was called.
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

    /// Restricts failures to calls from within `module`, at any depth, except for those from within
    /// the kernel's function `except`. Returns `false` if the kernel cannot filter by caller
    /// (`CONFIG_FAULT_INJECTION_STACKTRACE_FILTER`).
    ///
    /// # Errors
    ///
    /// The module is not loaded, the kernel has no such function, or it refuses a setting.
    pub fn only_within(&mut self, module: &str, except: &str) -> anyhow::Result<bool> {
        if !Path::new(DEBUGFS).join("failslab/require-start").exists() {
            return Ok(false);
        }
        let modules = fs::read_to_string("/proc/modules").context("/proc/modules")?;
        let within = module_range(&modules, module)
            .with_context(|| format!("no module {module} in /proc/modules"))?;
        let symbols = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
        let without = function_range(&symbols, except)
            .with_context(|| format!("no function {except} in /proc/kallsyms"))?;
        ensure!(
            within.start > 0 && without.start > 0,
            "the kernel hides its addresses; root sees them with kernel.kptr_restrict=0"
        );
        for kind in KINDS {
            for (end, value) in [
                ("require-start", within.start),
                ("require-end", within.end),
                ("reject-start", without.start),
                ("reject-end", without.end),
            ] {
                self.set(&format!("{kind}/{end}"), &format!("{value:#x}"))?;
            }
        }
        Ok(true)
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
            // There is no way to report an error here, and the setting affects only tests that
            // request failures.
            let _ = fs::write(path, value);
        }
    }
}

/// Whether the kernel has settings for every kind of failure.
fn has_all(debugfs: &Path) -> bool {
    KINDS.iter().all(|kind| debugfs.join(kind).exists())
}

/// Address range of a module, from the text of `/proc/modules`: name, size, uses, users, state,
/// address. The module's code begins at the address.
fn module_range(modules: &str, name: &str) -> Option<Range<u64>> {
    let mut lines = modules.lines().map(str::split_whitespace);
    let mut words = lines.find_map(|mut words| (words.next()? == name).then_some(words))?;
    let size: u64 = words.next()?.parse().ok()?;
    let start = number(words.nth(3)?)?;
    Some(start..start.checked_add(size)?)
}

/// Address range of one of the kernel's own functions, from the text of `/proc/kallsyms`: address,
/// type, name. It ends where the next symbol begins.
fn function_range(symbols: &str, name: &str) -> Option<Range<u64>> {
    // A module's symbol has the module's name as a fourth word.
    let parsed = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [address, "t" | "T", symbol] => Some((number(address)?, symbol == name)),
            _ => None,
        }
    };
    let functions: Vec<_> = symbols.lines().filter_map(parsed).collect();
    let &(start, _) = functions.iter().find(|(_, wanted)| *wanted)?;
    let addresses = functions.iter().map(|(address, _)| *address);
    let end = addresses.filter(|address| *address > start).min();
    Some(start..end.unwrap_or(start))
}

fn number(hexadecimal: &str) -> Option<u64> {
    u64::from_str_radix(hexadecimal.trim_start_matches("0x"), 16).ok()
}

/// Turns random failures of this task's allocations on or off.
///
/// # Errors
///
/// The kernel refuses, or this call itself fails by injection.
pub fn fail_by_chance(fail: bool) -> io::Result<()> {
    let value = if fail { "1" } else { "0" };
    fs::write("/proc/self/make-it-fail", value)
}

/// Makes the kernel fail once, at a place counted from the beginning of a call.
#[derive(Debug)]
pub struct Trigger {
    nth: File,
}

impl Trigger {
    /// The trigger of the current thread.
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

    /// Performs `call` with a failure at the `nth` place where one is possible, counted from 1.
    /// Returns the result of the call, and whether it reached that place.
    ///
    /// The call should only be a system call on memory that is present: a failure elsewhere is not
    /// one of the system call.
    ///
    /// # Errors
    ///
    /// Those of requesting the failure.
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
        // The failure may still be pending and hit this write; then it has been consumed.
        if self.nth.write_all_at(b"0", 0).is_err() {
            self.nth.write_all_at(b"0", 0)?;
        }
        Ok((result, injected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_lacks_a_kind_of_failure_cannot_inject() -> io::Result<()> {
        let debugfs = tempfile::tempdir()?;
        for kind in KINDS {
            assert!(!has_all(debugfs.path()), "before {kind}");
            fs::create_dir(debugfs.path().join(kind))?;
        }
        assert!(has_all(debugfs.path()));
        Ok(())
    }

    #[test]
    fn a_module_lies_where_the_kernel_says() {
        let modules = "zram 4096 1 - Live 0xffffffffc0100000\n\
                       svm_demo 8192 0 - Live 0xffffffffc0000000 (O)\n";
        let range = module_range(modules, "svm_demo");
        assert_eq!(range, Some(0xffff_ffff_c000_0000..0xffff_ffff_c000_2000));
        assert_eq!(module_range(modules, "svm"), None);
    }

    #[test]
    fn a_function_ends_where_the_next_begins() {
        let symbols = "0000000000000000 A fixed\n\
                       ffffffff81000300 T later\n\
                       ffffffff81000100 T wanted\n\
                       ffffffff81000200 d data\n\
                       ffffffff81000240 t next\n\
                       ffffffffc0000100 t wanted_too\t[module]\n";
        let range = function_range(symbols, "wanted");
        assert_eq!(range, Some(0xffff_ffff_8100_0100..0xffff_ffff_8100_0240));
        assert_eq!(function_range(symbols, "wanted_too"), None);
    }
}
