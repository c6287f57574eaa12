// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address translation cache (PCIe 10.1.2): a set-associative store of translations of
//! several sizes at once, tagged by address space.
//!
//! The first address and the space select a set, so a look-up probes one set for each size in
//! use. Before that it compares the one entry that is probably the right one ([`way_prediction`]).
//! If it is not, the look-up probes all sizes before it looks at the result, because the processor
//! cannot predict which one hits. Pages that follow each other are in sets that follow each other,
//! whose entries share cache lines: a device goes through memory page by page. The entries of a
//! space are also linked into a list: a small invalidation probes sets and a large one walks the
//! list, so its cost is proportional to the smaller of the two.
//!
//! The cache knows nothing of requests, pins and contexts.

mod entry;
mod invalidate;
mod lookup;
#[cfg(test)]
mod tests;
mod way_prediction;

pub use entry::{Cached, Hit, Scope, Space};

use crate::access::Access;
use entry::{Entry, FREE, REGION, SET, STEP, UNTRANSLATED_ONLY, bit, first_of, low_bits, tag};
use pcie_ats::AlignedRange;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use way_prediction::Prediction;

/// The largest number of entries of a set.
pub(crate) const MAX_WAYS: u32 = 16;
/// Number of sizes of ranges: 2^12 to 2^64 bytes.
const SIZES: usize = 53;
/// Fingerprints in a word.
const LANES: usize = 4;
/// The lowest bit of each lane of a word of fingerprints.
const EACH_LANE: u64 = 0x0001_0001_0001_0001;
/// The largest number of sizes with specialised look-up code: the page sizes of a processor, and
/// the sizes of joined neighbours.
const FEW: usize = 4;
/// The highest bit of each lane, which is 0 in every fingerprint.
const FOUND: u64 = EACH_LANE << 15;
/// An odd number without a pattern: the golden ratio, for Fibonacci hashing.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// The lowest of the bits below, which are the fingerprint.
const PRINT: u32 = 17;
/// The end of a list.
const NIL: u32 = u32::MAX;

/// Neighbours of an entry in the list of its space.
#[derive(Clone, Copy, Debug)]
struct Links {
    next: u32,
    previous: u32,
}

/// The entries of a space.
#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    length: u32,
}

/// Hashes the number of a space.
#[derive(Debug, Default)]
struct SpaceHasher(u64);

impl Hasher for SpaceHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        // The table uses bits from both ends; in a product only the upper ones are well mixed.
        let product = (self.0 ^ u64::from(number)).wrapping_mul(GOLDEN);
        self.0 = product ^ product >> 32;
    }
}

/// The cache.
#[derive(Debug)]
pub struct Atc {
    /// The entries: the first of each set, then the second of each, and so on.
    entries: Box<[Entry]>,
    /// For each entry 15 bits of its hash; 0 if it is free. A look-up compares these, and reads an
    /// entry only if they are equal. Each set starts with a new word.
    prints: Box<[u64]>,
    links: Box<[Links]>,
    spaces: HashMap<Space, List, BuildHasherDefault<SpaceHasher>>,
    /// Entries of each size.
    counts: [u32; SIZES],
    /// For each size in use, from the smallest up, the bits of an address that distinguish ranges
    /// of that size.
    masks: Vec<u64>,
    /// The same, if there are few sizes, none larger than a region, and a set is one word.
    few: [u64; FEW],
    /// The number of these sizes; 0 if there are more.
    few_sizes: usize,
    /// Where to look first.
    prediction: Prediction,
    /// Entries of a set.
    ways: usize,
    /// Words of fingerprints of a set. `entries` and `links` have room for one entry per lane.
    words: usize,
    /// Number of sets minus one.
    set_mask: usize,
    /// Log2 of the number of sets.
    set_bits: u32,
    /// Counts stored translations and calls of [`Atc::tick`], to order entries by their last use.
    now: u64,
    /// Spaces of the current invalidation, kept to reuse its memory.
    visiting: Vec<Space>,
}

/// The position of an entry, if it exists.
#[derive(Clone, Copy, Debug)]
struct Slot {
    set: usize,
    /// Its fingerprint in every lane.
    print: u64,
}

/// The lanes of a word that hold the fingerprint that is in every lane of `print`, as bits of
/// [`FOUND`].
const fn matching(word: u64, print: u64) -> u64 {
    // No lane of the difference has its highest bit set, so no lane borrows from its neighbour, and
    // only a zero keeps that bit.
    (FOUND - (word ^ print)) & FOUND
}

/// The lane of the lowest bit of [`FOUND`] that is set.
const fn lane(found: u64) -> usize {
    found.trailing_zeros() as usize / 16
}

impl Atc {
    /// An empty cache of a number of entries in sets of a number of ways. Both are powers of two,
    /// there are at most `MAX_WAYS` ways, and at least as many entries.
    pub fn new(entries: u32, ways: u32) -> Self {
        let ways = ways.clamp(1, MAX_WAYS);
        let sets = (entries / ways).max(1) as usize;
        let words = (ways as usize).div_ceil(LANES);
        let entries = sets * words * LANES;
        let unlinked = Links {
            next: NIL,
            previous: NIL,
        };
        Atc {
            entries: vec![FREE; entries].into_boxed_slice(),
            prints: vec![0; sets * words].into_boxed_slice(),
            links: vec![unlinked; entries].into_boxed_slice(),
            spaces: HashMap::default(),
            counts: [0; SIZES],
            masks: Vec::with_capacity(SIZES),
            few: [0; FEW],
            few_sizes: 0,
            prediction: Prediction::new(),
            ways: ways as usize,
            words,
            set_mask: sets - 1,
            set_bits: sets.trailing_zeros(),
            now: 0,
            visiting: Vec::new(),
        }
    }

    /// What the hashes of a space's entries in the region of an address have in common.
    #[inline(always)]
    const fn salt(space: Space, address: u64) -> u64 {
        let space = (space.0 as u64).wrapping_mul(0xd6e8_feb8_6659_fd93);
        // In a product only the upper bits are well mixed: they become those of set and fingerprint.
        (space ^ address >> REGION).wrapping_mul(GOLDEN) >> 21
    }

    /// The position of the entry of a range that begins at `first`, if it exists.
    #[inline(always)]
    const fn place(salt: u64, first: u64) -> Slot {
        // Ranges of any size that begin at the same address share a set; there are few of these.
        let hash = first.wrapping_mul(STEP).wrapping_add(salt);
        Slot {
            set: (hash >> SET) as usize,
            print: (hash >> PRINT & 0x7fff).wrapping_mul(EACH_LANE),
        }
    }

    /// The index of the entry of a set that belongs to a lane of its words.
    #[inline(always)]
    const fn index(&self, set: usize, lane: usize) -> usize {
        lane << self.set_bits | set
    }

    /// The word and the lane of the fingerprint of an entry.
    #[inline]
    const fn print_of(&self, index: usize) -> (usize, usize) {
        let (set, way) = (index & self.set_mask, index >> self.set_bits);
        (set * self.words + way / LANES, way % LANES)
    }

    /// The entry of a tag.
    #[inline]
    fn find(&self, space: Space, tag: u64) -> Option<usize> {
        let first = first_of(tag);
        let Slot { set, print } = Self::place(Self::salt(space, first), first);
        let set = set & self.set_mask;
        for word in 0..self.words {
            let mut found = matching(self.prints[set * self.words + word], print);
            while found != 0 {
                let index = self.index(set, word * LANES + lane(found));
                let entry = &self.entries[index];
                if entry.tag == tag && entry.space == space.0 {
                    return Some(index);
                }
                found &= found - 1;
            }
        }
        None
    }

    /// Advances the time and returns it. Entries that are looked up or stored from now on have this
    /// time or a later one.
    pub fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// Stores a translation, and replaces an older one of the same range. If the set is full, it
    /// evicts and returns the least recently used entry.
    #[cfg(test)]
    pub fn insert(&mut self, space: Space, new: &Cached) -> Option<(Space, AlignedRange)> {
        self.insert_over(space, new, u64::MAX)
    }

    /// Stores a translation, unless that would evict an entry that was used at a given time or
    /// later.
    pub fn insert_over(
        &mut self,
        space: Space,
        new: &Cached,
        time: u64,
    ) -> Option<(Space, AlignedRange)> {
        let shift = u32::from(new.range.shift());
        let tag = tag(new.range.base(), shift);
        let known = self.find(space, tag);
        let first = first_of(tag);
        let Slot { set, print } = Self::place(Self::salt(space, first), first);
        let set = set & self.set_mask;
        let ways = (0..self.ways).map(|way| self.index(set, way));
        let free = |index: &usize| self.entries[*index].tag == 0;
        let place = known.or_else(|| ways.clone().find(free));
        let (index, evicted) = match place {
            Some(index) => (index, None),
            None => {
                let index = ways.min_by_key(|index| self.entries[*index].used)?;
                let old = &self.entries[index];
                if old.used >= time {
                    return None;
                }
                let range = AlignedRange::containing(old.first(), old.shift() as u8).ok();
                (index, range.map(|range| (Space(old.space), range)))
            }
        };
        if self.entries[index].tag != 0 {
            self.remove(index);
        }
        self.now += 1;
        let (word, lane) = self.print_of(index);
        self.prints[word] |= print & 0xffff << (lane * 16);
        self.entries[index] = Entry {
            tag,
            output: new.output,
            used: self.now,
            space: space.0,
            bits: bit(new.read, Access::READ)
                | bit(new.write, Access::WRITE)
                | bit(new.untranslated_only, UNTRANSLATED_ONLY),
        };
        self.prediction.stored(space, first, shift, index);
        self.link(space, index as u32);
        let size = shift as usize - 12;
        self.counts[size] += 1;
        if self.counts[size] == 1 {
            self.list_sizes();
        }
        evicted
    }

    /// The translation of exactly this range, if it exists. Does not mark it as used.
    pub(crate) fn get(&self, space: Space, range: AlignedRange) -> Option<Cached> {
        let index = self.find(space, tag(range.base(), range.shift().into()))?;
        let Entry { output, bits, .. } = self.entries[index];
        Some(Cached {
            range,
            output,
            read: bits & Access::READ != 0,
            write: bits & Access::WRITE != 0,
            untranslated_only: bits & UNTRANSLATED_ONLY != 0,
        })
    }

    /// Rebuilds the list of sizes in use.
    fn list_sizes(&mut self) {
        let used = (12..).zip(&self.counts).filter(|(_, count)| **count != 0);
        self.masks.clear();
        self.masks.extend(used.map(|(shift, _)| !low_bits(shift)));
        for (few, mask) in self.few.iter_mut().zip(&self.masks) {
            *few = *mask;
        }
        // All ranges at an address must be in the same region.
        let within = self
            .masks
            .last()
            .is_none_or(|most| most.trailing_zeros() <= REGION);
        self.few_sizes = match self.masks.len() {
            sizes @ ..=FEW if self.words == 1 && within => sizes,
            _ => 0,
        };
    }

    /// Number of entries of 2^`shift` bytes.
    pub fn count(&self, shift: u8) -> u32 {
        let size = usize::from(shift).checked_sub(12);
        size.and_then(|size| self.counts.get(size))
            .map_or(0, |n| *n)
    }

    /// Number of entries.
    #[cfg(test)]
    pub(crate) fn len(&self) -> u32 {
        self.counts.iter().sum()
    }

    /// Frees an entry that is in use.
    fn remove(&mut self, index: usize) {
        let entry = std::mem::replace(&mut self.entries[index], FREE);
        let (word, lane) = self.print_of(index);
        self.prints[word] &= !(0xffff << (lane * 16));
        let size = entry.shift() as usize - 12;
        self.counts[size] -= 1;
        if self.counts[size] == 0 {
            self.list_sizes();
        }
        let Links { next, previous } = self.links[index];
        if next != NIL {
            self.links[next as usize].previous = previous;
        }
        if previous != NIL {
            self.links[previous as usize].next = next;
        }
        let space = Space(entry.space);
        if let Some(list) = self.spaces.get_mut(&space) {
            list.length -= 1;
            if previous == NIL {
                list.head = next;
            }
            if list.length == 0 {
                self.spaces.remove(&space);
            }
        }
    }

    /// Puts an entry at the head of its space's list.
    fn link(&mut self, space: Space, index: u32) {
        let list = self.spaces.entry(space).or_insert(List {
            head: NIL,
            length: 0,
        });
        let next = list.head;
        list.head = index;
        list.length += 1;
        self.links[index as usize] = Links {
            next,
            previous: NIL,
        };
        if next != NIL {
            self.links[next as usize].previous = index;
        }
    }
}
