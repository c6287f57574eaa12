// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measuring on a machine that is not quiet: measurements that are compared take turns, and the
//! best of many rounds counts, because all that disturbs makes slower.

use std::time::{Duration, Instant};

/// How much to measure.
#[derive(Clone, Copy)]
pub struct Effort {
    pub rounds: u32,
}

/// Something to be measured: does a number of operations, and says how long they took.
pub type Subject<'a> = &'a mut dyn FnMut() -> Duration;

/// Times a piece of work.
pub fn time(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// The best times of several subjects that take turns, in seconds for an operation, of which each
/// call does so many.
pub fn best<const N: usize>(
    effort: Effort,
    operations: usize,
    mut subjects: [Subject<'_>; N],
) -> [f64; N] {
    let mut best = [Duration::MAX; N];
    // One round more, whose times do not count: it fills caches and learns branches.
    for round in 0..=effort.rounds {
        for (subject, best) in subjects.iter_mut().zip(&mut best) {
            let took = subject();
            if round != 0 {
                *best = took.min(*best);
            }
        }
    }
    best.map(|best| best.as_secs_f64() / operations as f64)
}

/// Numbers that look like chance and are the same in every run.
pub fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    })
}
