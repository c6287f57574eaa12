// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pseudo-random numbers that are the same for the same seed, so that a test run can be repeated.

/// A generator (SplitMix64). Not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The generator of part `n` of a seed: each part has its own numbers.
    pub fn part(seed: u64, n: u64) -> Random {
        let mut first = Random(seed);
        Random(first.next_u64() ^ Random(n).next_u64())
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The upper half of the product: close enough to uniform for tests.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// As `below`, for indices.
    pub fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Chooses one of several things.
    pub fn of<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.index(things.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_part_gives_others() {
        let take = |mut random: Random| [random.next_u64(), random.next_u64(), random.below(100)];
        assert_eq!(take(Random::new(7)), take(Random::new(7)));
        assert_ne!(take(Random::part(7, 0)), take(Random::part(7, 1)));
        assert_ne!(take(Random::part(7, 1)), take(Random::part(8, 1)));
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut random = Random::new(1);
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[random.index(5)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
    }
}
