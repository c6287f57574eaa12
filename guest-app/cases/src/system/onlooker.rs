// SPDX-License-Identifier: MIT OR Apache-2.0
//! A copy of the process that looks at memory which both have since the fork: it must keep what it
//! found there, whatever is written to the memory of the other.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};

/// How the copy ends: the memory was and stayed as it should, it had a word of another value, or it
/// changed.
const KEPT: i32 = 0;
const STRANGE: i32 = 1;
const CHANGED: i32 = 2;

/// A copy of the process that looks on. A dropped one leaves no process behind.
#[derive(Debug)]
pub struct Onlooker {
    pid: Option<Pid>,
    to: File,
}

impl Onlooker {
    /// Forks, also in a process with several threads. Each of the words has one of the two values.
    ///
    /// # Errors
    ///
    /// Those of `pipe2` and `fork`.
    pub fn fork(words: &[AtomicU64], values: [u64; 2]) -> anyhow::Result<Onlooker> {
        let (from, to) = pipe2(OFlag::O_CLOEXEC)?;
        let (from, to) = (File::from(from), File::from(to));
        // SAFETY: the copy has this thread alone, and until its end it calls nothing that takes a
        // lock or allocates memory, which other threads may be doing.
        match unsafe { fork() }.context("fork")? {
            ForkResult::Parent { child } => Ok(Onlooker {
                pid: Some(child),
                to,
            }),
            ForkResult::Child => {
                let status = watch(words, values, from);
                // SAFETY: the function only ends the process; nothing in it is to be cleaned up.
                unsafe { nix::libc::_exit(status) }
            }
        }
    }

    /// Has the copy look again, and waits for its end.
    ///
    /// # Errors
    ///
    /// The memory of the copy had other values, or has changed.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.to.write_all(&[0]).context("the copy has ended")?;
        let Some(pid) = self.pid.take() else {
            bail!("no copy")
        };
        match waitpid(pid, None)? {
            WaitStatus::Exited(_, KEPT) => Ok(()),
            WaitStatus::Exited(_, STRANGE) => {
                bail!("the copy that fork made has a word that nothing wrote")
            }
            WaitStatus::Exited(_, CHANGED) => {
                bail!("the copy that fork made was written after the fork")
            }
            status => bail!("the copy ended by {status:?}"),
        }
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
}

/// Looks at the words, waits for a byte, and looks again. Returns how to end.
fn watch(words: &[AtomicU64], values: [u64; 2], mut from: File) -> i32 {
    // The pipe's other end may be in further copies, so its end does not tell of the other's.
    let _ = set_pdeathsig(Signal::SIGKILL);
    let before = look(words, values);
    let _ = from.read(&mut [0]);
    match (before, look(words, values)) {
        (Some(before), Some(after)) if before == after => KEPT,
        (Some(_), Some(_)) => CHANGED,
        _ => STRANGE,
    }
}

/// A number that depends on all words; none if one has another value.
fn look(words: &[AtomicU64], values: [u64; 2]) -> Option<u64> {
    let mut sum = 0u64;
    for word in words {
        let word = word.load(Ordering::Relaxed);
        if !values.contains(&word) {
            return None;
        }
        sum = sum.wrapping_mul(0x0000_0100_0000_01b3) ^ word;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use svmctl::region::{PAGE, Region};

    use super::*;

    #[test]
    fn memory_of_its_own_is_kept() {
        let region = Region::new(PAGE).unwrap();
        region.words()[3].store(7, Ordering::Relaxed);
        let onlooker = Onlooker::fork(region.words(), [0, 7]).unwrap();
        // Copied by the kernel: the copy keeps what there was.
        region.words()[3].store(0, Ordering::Relaxed);
        onlooker.finish().unwrap();
    }

    #[test]
    fn a_value_that_should_not_be_there_is_noticed() {
        let region = Region::new(PAGE).unwrap();
        region.words()[3].store(8, Ordering::Relaxed);
        let onlooker = Onlooker::fork(region.words(), [0, 7]).unwrap();
        let error = onlooker.finish().unwrap_err().to_string();
        assert!(error.contains("nothing wrote"), "{error}");
    }

    #[test]
    fn memory_that_is_not_its_own_is_noticed() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE as u64).unwrap();
        // SAFETY: nobody makes the file shorter; all accesses are atomic.
        let shared = unsafe { memmap2::MmapOptions::new().map_mut(&file) }.unwrap();
        // SAFETY: the mapping is a page, and lives until the end of the test.
        let words = unsafe { std::slice::from_raw_parts(shared.as_ptr().cast(), PAGE / 8) };
        let onlooker = Onlooker::fork(words, [0, 7]).unwrap();
        // Until it sleeps in its read, it may not have looked yet.
        let stat = format!("/proc/{}/stat", onlooker.pid.unwrap());
        while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
            std::thread::yield_now();
        }
        words[3].store(7, Ordering::Relaxed);
        let error = onlooker.finish().unwrap_err().to_string();
        assert!(error.contains("after the fork"), "{error}");
    }
}
