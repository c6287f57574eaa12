// SPDX-License-Identifier: GPL-2.0-or-later
//! The guest's time stamp counter beside the time of the trace, so that a trace can be joined with
//! one of the guest's kernel. It is that of translated code: with the host's virtualization the
//! processor's counter has another offset, which QEMU does not know.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::abi::functions;

/// QEMU's function that a guest's RDTSC reads in translated code. It is exported, but not required:
/// without it there are no samples.
const TICKS: &std::ffi::CStr = c"cpus_get_elapsed_ticks";

/// The time between samples, in nanoseconds: the counter does not drift by a microsecond meanwhile.
const INTERVAL: u64 = 10_000_000;

/// Tries of a sample: the best one counts, for the thread may lose its processor in one.
const TRIES: u32 = 5;

/// A sample that took no longer, in nanoseconds, is not tried again.
const GOOD: u64 = 300;

type Ticks = unsafe extern "C" fn() -> i64;

/// Takes samples.
pub struct GuestClock {
    ticks: Option<Ticks>,
    started: Instant,
    /// When the next one is due.
    next: AtomicU64,
}

/// The counter at a moment of the trace.
pub struct Sample {
    /// In nanoseconds since the start of the trace.
    pub at: u64,
    /// The counter.
    pub ticks: u64,
    /// The moment is right within this time, in nanoseconds.
    pub within: u64,
}

impl GuestClock {
    /// A clock for a trace that started then.
    pub fn new(started: Instant) -> GuestClock {
        // SAFETY: it is QEMU's function, which has this type in all versions that the library
        // knows. It may be called by any thread, with and without the BQL.
        let ticks = functions::symbol(TICKS)
            .map(|found| unsafe { std::mem::transmute::<*mut std::ffi::c_void, Ticks>(found) });
        GuestClock {
            ticks,
            started,
            next: AtomicU64::new(0),
        }
    }

    /// A sample, if one is due.
    pub fn sample(&self) -> Option<Sample> {
        let ticks = self.ticks?;
        let now = self.now();
        if now < self.next.load(Ordering::Relaxed) {
            return None;
        }
        self.next.store(now + INTERVAL, Ordering::Relaxed);
        // SAFETY: see `new`.
        Some(best(|| self.now(), || unsafe { ticks() }.unsigned_abs()))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The best of some samples.
fn best(now: impl Fn() -> u64, ticks: impl Fn() -> u64) -> Sample {
    let once = || {
        let before = now();
        let ticks = ticks();
        let within = now() - before;
        Sample {
            at: before + within / 2,
            ticks,
            within,
        }
    };
    let mut best = once();
    for _ in 1..TRIES {
        if best.within <= GOOD {
            break;
        }
        let next = once();
        if next.within < best.within {
            best = next;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_sample_that_was_interrupted_is_taken_again() {
        // Each pair of readings is one try.
        let times = [0, 90_000, 90_100, 90_700, 91_000, 91_200];
        let (turn, tries) = (Cell::new(0), Cell::new(0));
        let now = || {
            turn.set(turn.get() + 1);
            times[turn.get() - 1]
        };
        let ticks = || {
            tries.set(tries.get() + 1);
            tries.get() * 1000
        };
        let sample = best(now, ticks);
        assert_eq!(
            (sample.at, sample.ticks, sample.within),
            (91_100, 3000, 200)
        );
    }
}
