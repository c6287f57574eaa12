// SPDX-License-Identifier: MIT OR Apache-2.0
//! A translation cache as one writes it first, to compare with: a hash table with chains for each
//! size of page, an entry and a node allocated for each translation, and a scan of everything for
//! each invalidation.

use pcie_ats::AlignedRange;
use std::collections::VecDeque;
use svm_endpoint::translation_cache::{Cached, Space};

/// The sizes of pages, each with a table.
const SHIFTS: [u8; 3] = [12, 21, 30];

/// A translation.
struct Entry {
    space: Space,
    number: u64,
    output: u64,
}

/// A link of a chain.
struct Node {
    entry: Box<Entry>,
    next: Chain,
}

type Chain = Option<Box<Node>>;

/// The cache. It forgets the oldest translation when it is full.
pub struct Chained {
    tables: [Vec<Chain>; 3],
    /// What was inserted, the oldest first. What was invalidated meanwhile is still there.
    order: VecDeque<(usize, Space, u64)>,
    capacity: usize,
}

impl Chained {
    pub fn new(capacity: usize) -> Self {
        let table = || (0..capacity.next_power_of_two()).map(|_| None).collect();
        Chained {
            tables: [table(), table(), table()],
            order: VecDeque::with_capacity(capacity),
            capacity,
        }
    }

    fn bucket(&mut self, table: usize, space: Space, number: u64) -> &mut Chain {
        let at = hash(space, number) & (self.tables[table].len() - 1);
        &mut self.tables[table][at]
    }

    pub fn lookup(&self, space: Space, address: u64) -> Option<u64> {
        for (table, shift) in self.tables.iter().zip(SHIFTS) {
            let number = address >> shift;
            let mut chain = &table[hash(space, number) & (table.len() - 1)];
            while let Some(node) = chain {
                if node.entry.space == space && node.entry.number == number {
                    return Some(node.entry.output | address & ((1 << shift) - 1));
                }
                chain = &node.next;
            }
        }
        None
    }

    pub fn insert(&mut self, space: Space, cached: &Cached) {
        let Some(table) = SHIFTS.iter().position(|s| *s == cached.range.shift()) else {
            return;
        };
        if self.order.len() == self.capacity {
            if let Some((table, space, number)) = self.order.pop_front() {
                self.remove(table, space, number);
            }
        }
        let number = cached.range.base() >> SHIFTS[table];
        self.order.push_back((table, space, number));
        let chain = self.bucket(table, space, number);
        let entry = Box::new(Entry {
            space,
            number,
            output: cached.output,
        });
        *chain = Some(Box::new(Node {
            entry,
            next: chain.take(),
        }));
    }

    fn remove(&mut self, table: usize, space: Space, number: u64) {
        unlink(self.bucket(table, space, number), |entry| {
            entry.space == space && entry.number == number
        });
    }

    /// Forgets what overlaps a range of an address space.
    pub fn invalidate(&mut self, space: Space, range: AlignedRange) {
        for (table, shift) in self.tables.iter_mut().zip(SHIFTS) {
            let (first, last) = (range.base() >> shift, range.last() >> shift);
            for chain in table {
                unlink(chain, |entry| {
                    entry.space == space && (first..=last).contains(&entry.number)
                });
            }
        }
    }
}

/// Takes entries out of a chain.
fn unlink(mut chain: &mut Chain, matches: impl Fn(&Entry) -> bool) {
    loop {
        match chain {
            None => return,
            Some(node) if matches(&node.entry) => *chain = node.next.take(),
            Some(node) => chain = &mut node.next,
        }
    }
}

fn hash(space: Space, number: u64) -> usize {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (space, number).hash(&mut hasher);
    hasher.finish() as usize
}
