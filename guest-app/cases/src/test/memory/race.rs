// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device beside a thread that does something to its memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, anyhow};
use svmctl::region::Region;

use super::device::{copy, expect_checksum};
use crate::harness::bench::{Bench, expect_bytes, pattern};
use crate::system::mapping::Memory;

/// Lets the device write and check `memory`, at least `least` times, while `disturb` does something
/// to it over and over in another thread, at least `disturbed` times. Returns how often each did.
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

/// Tries after which a race that nobody saw will not be seen.
pub(super) const TRIES: u32 = 5_000;

/// Makes the device meet a state of memory that another thread makes and takes back. Without help,
/// and on a busy host, it may always come too early or too late.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    tried: AtomicU64,
    over: AtomicBool,
}

impl Meeting {
    /// What the device was told to do has ended.
    pub fn tried(&self) {
        self.tried.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps the state as it is until something has begun and ended in it.
    pub fn keep(&self) {
        // What is under way began before.
        let before = self.tried.load(Ordering::Relaxed);
        while self.tried.load(Ordering::Relaxed) < before + 2 && !self.over.load(Ordering::Relaxed)
        {
            std::thread::yield_now();
        }
    }
}

/// The device is told nothing more when it is dropped, and nobody waits for it.
pub(super) struct Over<'a>(pub &'a Meeting);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Does `work` while another thread does `other` over and over, until `work` has ended. `work` can
/// ask how often that was. Returns how often it was in the end.
pub(super) fn beside(
    mut other: impl FnMut() -> anyhow::Result<()> + Send,
    work: impl FnOnce(&dyn Fn() -> u64) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let (ended, times) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                if let Err(error) = other() {
                    // The work must not wait for more of it for ever.
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
