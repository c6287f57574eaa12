// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measuring on a machine that is not quiet: measurements that are compared take turns, and the
//! best of many rounds counts, because all that disturbs makes slower. The median and the 99th
//! percentile show how far the rounds lie apart.

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

/// What an operation took in the rounds of a measurement, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The least of all rounds.
    pub best: f64,
    /// The median.
    pub p50: f64,
    /// A tenth of the rounds took less.
    pub p10: f64,
    /// A tenth of the rounds took more.
    pub p90: f64,
    /// What 99 of 100 rounds did not exceed: with fewer than 100, the slowest.
    pub p99: f64,
    /// Number of rounds.
    pub rounds: usize,
}

impl Times {
    /// From the times of all rounds, each of so many operations.
    fn new(mut rounds: Vec<Duration>, operations: usize) -> Self {
        rounds.sort_unstable();
        let at = |percent: usize| {
            let place = (rounds.len() * percent).div_ceil(100).max(1) - 1;
            rounds[place].as_secs_f64() / operations as f64
        };
        Times {
            best: at(0),
            p50: at(50),
            p10: at(10),
            p90: at(90),
            p99: at(99),
            rounds: rounds.len(),
        }
    }
}

/// The times of several subjects that take turns, for an operation, of which each call does so
/// many.
pub fn times<const N: usize>(
    effort: Effort,
    operations: usize,
    mut subjects: [Subject<'_>; N],
) -> [Times; N] {
    let mut rounds = [(); N].map(|()| Vec::with_capacity(effort.rounds as usize));
    // One round more, whose times do not count: it fills caches and learns branches.
    for round in 0..=effort.rounds {
        for (subject, rounds) in subjects.iter_mut().zip(&mut rounds) {
            let took = subject();
            if round != 0 {
                rounds.push(took);
            }
        }
    }
    rounds.map(|rounds| Times::new(rounds, operations))
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
