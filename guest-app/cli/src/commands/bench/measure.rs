// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes samples and summarises them.

use std::time::{Duration, Instant};

use super::results::Point;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Most samples of a point.
    samples: usize,
    /// Fewest samples of a point, however long they take.
    least: usize,
    /// After this much time on a point, the samples taken are enough.
    time: Duration,
}

impl Effort {
    /// Enough for a meaningful table.
    pub fn full() -> Effort {
        Effort {
            samples: 101,
            least: 11,
            time: Duration::from_millis(400),
        }
    }

    /// Enough to see that everything works.
    pub fn quick() -> Effort {
        Effort {
            samples: 5,
            least: 3,
            time: Duration::from_millis(10),
        }
    }

    /// Takes samples of `measure`, each the microseconds per item of `per` items, and discards the
    /// first one.
    pub fn sample(
        self,
        x: f64,
        per: f64,
        mut measure: impl FnMut() -> anyhow::Result<Duration>,
    ) -> anyhow::Result<Point> {
        measure()?;
        let begin = Instant::now();
        let mut samples = Vec::with_capacity(self.samples);
        while samples.len() < self.least
            || (samples.len() < self.samples && begin.elapsed() < self.time)
        {
            samples.push(measure()?.as_secs_f64() * 1e6 / per);
        }
        Ok(summarise(x, samples))
    }
}

/// Times a piece of work.
pub fn time(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn summarise(x: f64, mut samples: Vec<f64>) -> Point {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = samples.len().saturating_sub(1) as f64;
        samples.get((last * share).round() as usize).copied()
    };
    Point {
        x,
        median: at(0.5).unwrap_or(f64::NAN),
        p10: at(0.1).unwrap_or(f64::NAN),
        p90: at(0.9).unwrap_or(f64::NAN),
        samples: samples.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_has_the_middle_and_the_edges() {
        let point = summarise(3.0, (0..=10).rev().map(f64::from).collect());
        assert_eq!((point.p10, point.median, point.p90), (1.0, 5.0, 9.0));
        assert_eq!((point.x, point.samples), (3.0, 11));
    }

    #[test]
    fn the_first_sample_is_thrown_away() {
        let mut calls = 0u64;
        let point = Effort::quick()
            .sample(1.0, 2.0, || {
                calls += 1;
                Ok(Duration::from_micros(if calls == 1 {
                    1_000_000
                } else {
                    8
                }))
            })
            .unwrap();
        assert_eq!(point.median, 4.0);
        assert!(point.p90 < 5.0, "{point:?}");
        assert_eq!(calls as usize, point.samples + 1);
    }
}
