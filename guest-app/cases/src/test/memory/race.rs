// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device works while a thread changes its memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, anyhow};
use svmctl::region::Region;

use super::device::{copy, expect_checksum};
use crate::harness::bench::{Bench, expect_bytes, pattern};
use crate::system::mapping::Memory;

/// Lets the device write and check `memory`, at least `least` times, while another thread
/// repeatedly calls `disturb` on it, at least `disturbed` times. Returns the number of both.
pub(super) fn under_load(
    bench: &mut Bench,
    memory: &(impl Memory + Sync),
    (least, disturbed): (u64, u64),
    disturb: impl FnMut() -> anyhow::Result<()> + Send,
) -> anyhow::Result<(u64, u64)> {
    let source = Region::new(memory.len())?;
    let mut rounds = 0;
    let times = beside(disturb, |times| {
        while rounds < least || times() < disturbed {
            let contents = pattern(memory.len(), rounds);
            source.write(0, &contents);
            copy(bench, &source, memory).with_context(|| format!("round {rounds}"))?;
            let what = "the memory";
            expect_bytes(what, &memory.read(0..memory.len()), &contents)?;
            expect_checksum(bench, what, memory, 0, &contents)?;
            rounds += 1;
        }
        Ok(())
    })?;
    Ok((rounds, times))
}

/// Tries after which the test stops waiting for a race to occur.
pub(super) const TRIES: u32 = 5_000;

/// Makes the device encounter a state of memory that another thread creates and reverts. Without
/// it, the device may always be too early or too late, especially on a busy host.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    tried: AtomicU64,
    over: AtomicBool,
}

impl Meeting {
    /// Records that an operation of the device has ended.
    pub fn tried(&self) {
        self.tried.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps the state until an operation has begun and ended in it.
    pub fn keep(&self) {
        // The operation in flight began before.
        let before = self.tried.load(Ordering::Relaxed);
        while self.tried.load(Ordering::Relaxed) < before + 2 && !self.over.load(Ordering::Relaxed)
        {
            std::thread::yield_now();
        }
    }
}

/// When dropped, it marks the end of the device's work, so that no thread waits for it.
pub(super) struct Over<'a>(pub &'a Meeting);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` while another thread repeatedly runs `other`, until `work` has ended. `work` can
/// read how often `other` has run. Returns the final number.
pub(super) fn beside(
    mut other: impl FnMut() -> anyhow::Result<()> + Send,
    work: impl FnOnce(&dyn Fn() -> u64) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let (ended, times) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                if let Err(error) = other() {
                    // The work must not wait for ever for further runs.
                    times.store(u64::MAX, Ordering::Relaxed);
                    return Err(error);
                }
                times.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let worked = work(&|| times.load(Ordering::Relaxed));
        ended.store(true, Ordering::Relaxed);
        let disturbed = thread
            .join()
            .map_err(|_| anyhow!("the other thread panicked"))?;
        worked.and(disturbed)
    })?;
    Ok(times.load(Ordering::Relaxed))
}
