// SPDX-License-Identifier: MIT OR Apache-2.0
//! A set of contexts, and their turns.

use svm_abi::ids::MAX_CONTEXTS;

/// Words of the set: the contexts, and one more member for the laboratory.
const WORDS: usize = MAX_CONTEXTS as usize / 64 + 1;

/// A set of small numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set([u64; WORDS]);

impl Set {
    /// Adds a member.
    pub fn insert(&mut self, member: usize) {
        self.0[member / 64] |= 1 << (member % 64);
    }

    /// Removes a member.
    pub fn remove(&mut self, member: usize) {
        self.0[member / 64] &= !(1 << (member % 64));
    }

    /// Whether a number is a member.
    pub fn contains(&self, member: usize) -> bool {
        self.0[member / 64] >> (member % 64) & 1 != 0
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// Adds the members of another set.
    pub fn extend(&mut self, other: &Set) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// The members that are not in another set.
    pub fn without(&self, other: &Set) -> Set {
        let mut rest = *self;
        for (word, less) in rest.0.iter_mut().zip(other.0) {
            *word &= !less;
        }
        rest
    }

    /// The first member from `start` on, otherwise the first of all.
    pub fn next(&self, start: usize) -> Option<usize> {
        let from = |word: usize, mask: u64| {
            let bits = self.0[word] & mask;
            (bits != 0).then(|| word * 64 + bits.trailing_zeros() as usize)
        };
        let word = start / 64 % WORDS;
        from(word, !0 << (start % 64))
            .or_else(|| (word + 1..WORDS).find_map(|word| from(word, !0)))
            .or_else(|| (0..=word).find_map(|word| from(word, !0)))
    }

    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<> {
        let mut rest = *self;
        std::iter::from_fn(move || {
            let member = rest.next(0)?;
            rest.remove(member);
            Some(member)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_take_turns() {
        let mut set = Set::default();
        assert_eq!(set.next(0), None);
        for member in [3, 64, 255, 256] {
            set.insert(member);
        }
        let mut turn = 0;
        let mut order = Vec::new();
        for _ in 0..5 {
            let member = set.next(turn).unwrap();
            order.push(member);
            turn = member + 1;
        }
        assert_eq!(order, [3, 64, 255, 256, 3]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 64, 255, 256]);
        set.remove(3);
        assert_eq!(set.next(300), Some(64));
        assert_eq!(set.next(65), Some(255));
    }
}
