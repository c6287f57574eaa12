// SPDX-License-Identifier: MIT OR Apache-2.0
//! The clocks of the levels, as ticks of L1's time stamp counter.

use std::collections::BTreeMap;

use super::kernel::{Detail, Line};

/// L1's counter beside the time of L0's trace.
#[derive(Clone, Debug, Default)]
pub struct FirstClock {
    /// Time in microseconds, and ticks, in order of both.
    samples: Vec<(f64, u64)>,
    /// The samples are right within this, in microseconds.
    pub within: f64,
}

/// A sample that took longer, in microseconds, was interrupted; there are others.
const INTERRUPTED: f64 = 2.0;

impl FirstClock {
    /// A clock by samples: time and uncertainty in microseconds, ticks. None if there are not two.
    pub fn new(samples: &[(f64, f64, u64)]) -> Option<Self> {
        let good: Vec<_> = samples
            .iter()
            .filter(|(_, within, ticks)| *within <= INTERRUPTED && *ticks > 0)
            .collect();
        let mut clock = Self::default();
        for (at, within, ticks) in good {
            if clock
                .samples
                .last()
                .is_none_or(|last| last.0 < *at && last.1 < *ticks)
            {
                clock.samples.push((*at, *ticks));
                clock.within = clock.within.max(*within);
            }
        }
        (clock.samples.len() >= 2).then_some(clock)
    }

    /// Ticks in a microsecond. The counter stands still until the machine runs, so the first half of
    /// the samples does not count.
    pub fn ticks_per_micro(&self) -> f64 {
        let middle = self.samples.len().saturating_sub(1) / 2;
        match (self.samples.get(middle), self.samples.last()) {
            (Some(middle), Some(last)) => slope(*middle, *last),
            _ => 1.0,
        }
    }

    /// The ticks at a time of the trace, between the samples before and after it: an event can be
    /// older than the sample that was taken to write it, and the one before that is long ago.
    pub fn ticks(&self, micros: f64) -> u64 {
        let next = self.samples.partition_point(|(at, _)| *at <= micros);
        let next = next.clamp(1, self.samples.len().max(2) - 1);
        let (before, after) = (self.samples[next - 1], self.samples[next]);
        let rate = match micros > after.0 {
            true => self.ticks_per_micro(),
            false => slope(before, after),
        };
        let nearest = if micros > after.0 { after } else { before };
        let since = ((micros - nearest.0) * rate).round();
        nearest.1.saturating_add_signed(since as i64)
    }
}

/// Ticks in a microsecond between two samples.
fn slope(one: (f64, u64), other: (f64, u64)) -> f64 {
    (other.1 - one.1) as f64 / (other.0 - one.0)
}

/// The offsets of L2's counters, by processor.
#[derive(Clone, Debug, Default)]
pub struct SecondClock {
    /// From which of L1's ticks on, which offset.
    offsets: BTreeMap<u32, Vec<(u64, u64)>>,
}

impl SecondClock {
    /// The offsets that L1's kernel has told.
    pub fn new(first: &[Line]) -> Self {
        let mut clock = Self::default();
        for line in first {
            if let Detail::Offset { cpu, offset } = line.detail {
                let offsets = clock.offsets.entry(cpu).or_default();
                if offsets.last().is_none_or(|(_, last)| *last != offset) {
                    offsets.push((line.at, offset));
                }
            }
        }
        clock
    }

    /// Converts the times of L2's lines, and removes those without an offset.
    pub fn convert(&self, lines: &mut Vec<Line>) {
        // By processor: the offset that applied last, and the last time. The lines of one are in
        // order, so one that would go back is of the guest's next life.
        let mut turns: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
        lines.retain_mut(|line| {
            let Some(offsets) = self.offsets.get(&line.cpu) else {
                return false;
            };
            let turn = turns.entry(line.cpu).or_default();
            let applies = |n: usize| {
                let at = line.at.wrapping_sub(offsets[n].1);
                let ends = offsets.get(n + 1).map_or(u64::MAX, |next| next.0);
                let fits = (offsets[n].0..ends).contains(&at) && at >= turn.1;
                fits.then_some((n, at))
            };
            let Some(found) = (turn.0..offsets.len()).find_map(applies) else {
                return false;
            };
            *turn = found;
            line.at = found.1;
            true
        });
        lines.sort_by_key(|line| line.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_l0_lie_between_the_samples_around_them() {
        // The counter starts with the machine, and the time of the trace drifts against it. A sample
        // was interrupted.
        let samples = [
            (5.0, 0.1, 0),
            (900.0, 0.1, 1_990_000),
            (1000.0, 0.1, 2_000_000),
            (1500.0, 9.0, 3_900_000),
            (2000.0, 0.2, 4_000_000),
            (3000.0, 0.1, 6_100_000),
        ];
        let clock = FirstClock::new(&samples).unwrap();
        assert_eq!((clock.ticks_per_micro(), clock.within), (2050.0, 0.2));
        assert_eq!(clock.ticks(1500.0), 3_000_000);
        // Just before a sample that comes after a pause.
        assert_eq!(clock.ticks(2999.0), 6_097_900);
        assert_eq!(clock.ticks(3002.0), 6_104_100);
        assert_eq!(clock.ticks(890.0), 1_989_000);
        assert!(FirstClock::new(&samples[..2]).is_none());
    }

    fn line(cpu: u32, at: u64) -> Line {
        let text = format!("x-1 [{cpu:03}] ..... {at}: name: text");
        Line::parse(&text).unwrap()
    }

    fn told(at: u64, cpu: u32, offset: i64) -> Line {
        let next = offset as u64;
        let text =
            format!("kvm-1 [000] ... {at}: kvm_write_tsc_offset: vcpu={cpu} prev=0 next={next}");
        Line::parse(&text).unwrap()
    }

    #[test]
    fn times_of_l2_lose_the_offset_of_their_processor_and_life() {
        // L2 starts at 1000, and again at 5000.
        let first = [
            told(1000, 0, -1000),
            told(1010, 1, -1010),
            told(5000, 0, -5000),
            told(5000, 1, -5000),
        ];
        let converted = |lines: &[(u32, u64)]| -> Vec<_> {
            let mut lines = lines.iter().map(|(cpu, at)| line(*cpu, *at)).collect();
            SecondClock::new(&first).convert(&mut lines);
            lines.iter().map(|line| (line.cpu, line.at)).collect()
        };
        // Of processor 2 nothing is known.
        assert_eq!(
            converted(&[(0, 100), (1, 300), (0, 200), (2, 1)]),
            [(0, 1100), (0, 1200), (1, 1310)]
        );
        // Where the counter goes back, or beyond the start of the next life, that has begun.
        assert_eq!(converted(&[(0, 300), (0, 200)]), [(0, 1300), (0, 5200)]);
        assert_eq!(converted(&[(0, 3999), (0, 4001)]), [(0, 4999), (0, 9001)]);
    }
}
