// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address translation cache (PCIe 10.1.2): a set-associative store of translations of
//! several sizes at once, tagged by address space.
//!
//! A set is chosen by a hash of size, address and space, so one look-up probes one set for each
//! size that is in use, beginning with the one that the neighbourhood had last. The entries of a space are also linked into a list: an invalidation
//! probes sets if it is small and walks the list if it is large, and so costs in proportion to
//! the smaller of the two.
//!
//! The cache knows nothing of requests, pins and contexts.

#[cfg(test)]
mod tests;

use crate::access::Access;
use pcie_ats::{AlignedRange, PAGE_SHIFT, Pasid};
use std::collections::HashMap;

/// Entries of a set.
pub(crate) const WAYS: usize = 4;
/// Number of sizes of ranges: 2^12 to 2^64 bytes.
const SIZES: usize = 53;
/// Number of classes of addresses that remember a size.
const HINTS: usize = 64;
/// The lowest bit of each of the [`WAYS`] lanes of a word of fingerprints.
const EACH_LANE: u64 = 0x0001_0001_0001_0001;
/// The end of a list.
const NIL: u32 = u32::MAX;

/// An address space as the cache tells it from others: a PASID or none, and the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Space(u32);

impl Space {
    /// The space of requests with these attributes.
    pub fn new(pasid: Option<Pasid>, privileged: bool) -> Self {
        let tag = pasid.map_or(1 << 21, Pasid::get);
        Space(tag | u32::from(privileged) << 20)
    }
}

/// The address spaces that an invalidation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of one PASID, or those without.
    One(Option<Pasid>),
    /// All.
    Every,
}

/// A translation as the cache keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The untranslated range.
    pub range: AlignedRange,
    /// Where the translated range begins.
    pub output: u64,
    /// Reads are permitted.
    pub read: bool,
    /// Writes are permitted.
    pub write: bool,
    /// To be reached by untranslated requests only.
    pub untranslated_only: bool,
}

/// What a look-up found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// First untranslated address of the entry.
    pub first: u64,
    /// Last untranslated address of the entry.
    pub last: u64,
    /// Translated address of the address that was looked up.
    pub output: u64,
    /// To be reached by untranslated requests only.
    pub untranslated_only: bool,
}

/// Bit of an entry that is to be reached by untranslated requests only, beside the bits of
/// [`Access`].
const UNTRANSLATED_ONLY: u32 = 1 << 2;

/// One entry. Half a cache line, so that a set is two.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
struct Entry {
    /// First untranslated address, with log2 of the size in the low bits; 0 if free.
    tag: u64,
    /// First translated address.
    output: u64,
    /// When it was used last.
    used: u64,
    /// Its [`Space`].
    space: u32,
    /// Permissions and [`UNTRANSLATED_ONLY`].
    bits: u32,
}

const FREE: Entry = Entry {
    tag: 0,
    output: 0,
    used: 0,
    space: 0,
    bits: 0,
};

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

/// The cache.
#[derive(Debug)]
pub struct Atc {
    sets: Box<[[Entry; WAYS]]>,
    /// For each set 16 bits of the hash of each entry, never 0; 0 if it is free. A look-up compares
    /// these, and looks at an entry only if they are equal.
    prints: Box<[u64]>,
    links: Box<[Links]>,
    spaces: HashMap<Space, List>,
    /// Entries of each size.
    counts: [u32; SIZES],
    /// Bit n is set if there are entries of 2^(12 + n) bytes.
    sizes: u64,
    /// For each of a few classes of addresses, the size that a look-up found last: neighbours are
    /// mostly of one size. As log2 of bytes.
    hints: [u8; HINTS],
    /// Right shift that makes a set's number of a hash.
    hash_shift: u32,
    /// Number of sets less one.
    set_mask: usize,
    /// Counts look-ups, to know what was used last.
    now: u64,
    /// Spaces of the invalidation in hand, kept for its memory.
    visiting: Vec<Space>,
}

/// The low `shift` bits, 1 to 64.
const fn low_bits(shift: u32) -> u64 {
    // In two shifts, because one by 64 does not exist and a branch would cost more.
    !(u64::MAX << (shift - 1) << 1)
}

/// A bit, if a condition holds.
const fn bit(condition: bool, bit: u32) -> u32 {
    if condition { bit } else { 0 }
}

/// The tag of the entry of 2^`shift` bytes that contains an address.
const fn tag(address: u64, shift: u32) -> u64 {
    address & !low_bits(shift) | shift as u64
}

impl Entry {
    const fn shift(&self) -> u32 {
        self.tag as u32 & 0x7f
    }

    const fn first(&self) -> u64 {
        self.tag & !low_bits(PAGE_SHIFT as u32)
    }

    const fn last(&self) -> u64 {
        self.first() | low_bits(self.shift())
    }

    const fn overlaps(&self, range: AlignedRange) -> bool {
        self.first() <= range.last() && range.base() <= self.last()
    }
}

impl Atc {
    /// An empty cache of a number of entries, which is a power of two and at least `WAYS`.
    pub fn new(entries: u32) -> Self {
        let sets = (entries as usize / WAYS).max(1);
        Atc {
            sets: vec![[FREE; WAYS]; sets].into_boxed_slice(),
            prints: vec![0; sets].into_boxed_slice(),
            links: vec![
                Links {
                    next: NIL,
                    previous: NIL
                };
                sets * WAYS
            ]
            .into_boxed_slice(),
            spaces: HashMap::new(),
            counts: [0; SIZES],
            sizes: 0,
            hints: [PAGE_SHIFT; HINTS],
            hash_shift: (64 - sets.trailing_zeros()).min(63),
            set_mask: sets - 1,
            now: 0,
            visiting: Vec::new(),
        }
    }

    /// The set in which an entry stands, if it is there, and its fingerprint.
    #[inline]
    fn place(&self, space: Space, tag: u64) -> (usize, u16) {
        // Fibonacci hashing: the low bits of the page number end in the high bits of the hash.
        let salt = u64::from(space.0).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let hash = (tag ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let set = (hash >> self.hash_shift) as usize & self.set_mask;
        (set, (hash >> 24) as u16 | 1)
    }

    /// Finds an entry that permits the access at the address. An entry that lacks a permission is
    /// passed over, because another may have it: the process may have gained it since.
    #[inline]
    pub fn lookup(&mut self, space: Space, address: u64, access: Access) -> Option<Hit> {
        let class = (address >> 30 ^ u64::from(space.0)) as usize % HINTS;
        let hint = self.hints[class];
        match self.probe(space, address, access.bits(), hint.into()) {
            Some(hit) => Some(hit),
            None => self.search(space, address, access.bits(), class),
        }
    }

    /// Finds such an entry of any size that is in use.
    #[inline(never)]
    fn search(&mut self, space: Space, address: u64, need: u32, class: usize) -> Option<Hit> {
        let mut sizes = self.sizes;
        while sizes != 0 {
            let shift = sizes.trailing_zeros() + u32::from(PAGE_SHIFT);
            sizes &= sizes - 1;
            if let Some(hit) = self.probe(space, address, need, shift) {
                self.hints[class] = shift as u8;
                return Some(hit);
            }
        }
        None
    }

    /// Finds such an entry of 2^`shift` bytes.
    #[inline(always)]
    fn probe(&mut self, space: Space, address: u64, need: u32, shift: u32) -> Option<Hit> {
        let tag = tag(address, shift);
        let (set, print) = self.place(space, tag);
        // All ways are compared before one is chosen: which it is, no branch can foresee.
        // A lane that is zero after the exclusive or gets its high bit set here.
        let lanes = self.prints[set] ^ (u64::from(print) * EACH_LANE);
        let mut found = lanes.wrapping_sub(EACH_LANE) & !lanes & EACH_LANE << 15;
        while found != 0 {
            let entry = &mut self.sets[set][found.trailing_zeros() as usize / 16];
            if entry.tag == tag && entry.space == space.0 && entry.bits & need == need {
                self.now += 1;
                entry.used = self.now;
                return Some(Hit {
                    first: address & !low_bits(shift),
                    last: address | low_bits(shift),
                    output: entry.output | address & low_bits(shift),
                    untranslated_only: entry.bits & UNTRANSLATED_ONLY != 0,
                });
            }
            found &= found - 1;
        }
        None
    }

    /// The time: it advances with each look-up that is answered, and each translation kept.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Keeps a translation, in place of what was known of the same range. If the set is full, the
    /// entry that was used longest ago leaves, and is returned.
    #[cfg(test)]
    pub fn insert(&mut self, space: Space, new: &Cached) -> Option<(Space, AlignedRange)> {
        self.insert_over(space, new, u64::MAX)
    }

    /// Keeps a translation, unless an entry had to leave for it that was used after a certain time.
    pub fn insert_over(
        &mut self,
        space: Space,
        new: &Cached,
        time: u64,
    ) -> Option<(Space, AlignedRange)> {
        let shift = u32::from(new.range.shift());
        let tag = tag(new.range.base(), shift);
        let (set, print) = self.place(space, tag);
        let ways = &self.sets[set];
        let same = |e: &Entry| e.tag == tag && e.space == space.0;
        let free = |e: &Entry| e.tag == 0;
        let way = ways
            .iter()
            .position(same)
            .or_else(|| ways.iter().position(free));
        let (way, evicted) = match way {
            Some(way) => (way, None),
            None => {
                let way = (0..WAYS).min_by_key(|way| ways[*way].used)?;
                let old = ways[way];
                if old.used > time {
                    return None;
                }
                let range = AlignedRange::containing(old.first(), old.shift() as u8).ok();
                (way, range.map(|range| (Space(old.space), range)))
            }
        };
        let index = (set * WAYS + way) as u32;
        if self.sets[set][way].tag != 0 {
            self.remove(index);
        }
        self.now += 1;
        self.prints[set] |= u64::from(print) << (16 * way);
        self.sets[set][way] = Entry {
            tag,
            output: new.output,
            used: self.now,
            space: space.0,
            bits: bit(new.read, Access::READ)
                | bit(new.write, Access::WRITE)
                | bit(new.untranslated_only, UNTRANSLATED_ONLY),
        };
        self.link(space, index);
        self.counts[shift as usize - 12] += 1;
        self.sizes |= 1 << (shift - 12);
        evicted
    }

    /// Forgets every translation that overlaps the range in the address spaces of the scope, and
    /// returns how many there were (PCIe 10.3.1).
    pub fn invalidate(&mut self, scope: Scope, range: AlignedRange) -> u32 {
        match scope {
            Scope::One(pasid) => {
                self.invalidate_space(Space::new(pasid, false), range)
                    + self.invalidate_space(Space::new(pasid, true), range)
            }
            Scope::Every => {
                let mut visiting = std::mem::take(&mut self.visiting);
                visiting.clear();
                visiting.extend(self.spaces.keys());
                let count = visiting
                    .iter()
                    .map(|s| self.invalidate_space(*s, range))
                    .sum();
                self.visiting = visiting;
                count
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) -> u32 {
        self.invalidate(Scope::Every, AlignedRange::ALL)
    }

    /// Number of entries.
    #[cfg(test)]
    pub(crate) fn len(&self) -> u32 {
        self.counts.iter().sum()
    }

    fn invalidate_space(&mut self, space: Space, range: AlignedRange) -> u32 {
        let Some(list) = self.spaces.get(&space).copied() else {
            return 0;
        };
        if self.probes(range) > u64::from(list.length) {
            return self.sweep(list, range);
        }
        let mut count = 0;
        let mut sizes = self.sizes;
        while sizes != 0 {
            let shift = sizes.trailing_zeros() + 12;
            sizes &= sizes - 1;
            let mut address = range.base();
            loop {
                count += self.forget(space, tag(address, shift));
                let last = address | low_bits(shift);
                if last >= range.last() {
                    break;
                }
                address = last + 1;
            }
        }
        count
    }

    /// Forgets the translation of exactly this range, as a device that breaks rule 37 does.
    pub fn forget_exactly(&mut self, space: Space, range: AlignedRange) -> u32 {
        self.forget(space, tag(range.base(), range.shift().into()))
    }

    /// Forgets the translations of a space that overlap the addresses from `first` to `last`.
    pub fn forget_between(&mut self, pasid: Pasid, first: u64, last: u64) -> u32 {
        let mut count = 0;
        let mut address = first & !low_bits(PAGE_SHIFT.into());
        loop {
            // The largest aligned range that begins here and does not go beyond the end.
            let mut shift = PAGE_SHIFT;
            let most = address.trailing_zeros().min(64) as u8;
            while shift < most && address | low_bits(u32::from(shift) + 1) <= last {
                shift += 1;
            }
            if let Ok(range) = AlignedRange::containing(address, shift) {
                count += self.invalidate(Scope::One(Some(pasid)), range);
            }
            match (address | low_bits(shift.into())).checked_add(1) {
                Some(next) if next <= last => address = next,
                _ => return count,
            }
        }
    }

    /// How many entries could overlap a range, of the sizes in use.
    fn probes(&self, range: AlignedRange) -> u64 {
        let mut probes = 0u64;
        let mut sizes = self.sizes;
        while sizes != 0 {
            let shift = sizes.trailing_zeros() + 12;
            sizes &= sizes - 1;
            let more = u32::from(range.shift()).saturating_sub(shift);
            probes = probes.saturating_add(1u64.checked_shl(more).unwrap_or(u64::MAX));
        }
        probes
    }

    /// Removes the entry of a tag, if it is there.
    fn forget(&mut self, space: Space, tag: u64) -> u32 {
        let (set, _) = self.place(space, tag);
        let same = |e: &Entry| e.tag == tag && e.space == space.0;
        match self.sets[set].iter().position(same) {
            Some(way) => {
                self.remove((set * WAYS + way) as u32);
                1
            }
            None => 0,
        }
    }

    /// Removes what overlaps a range from a list.
    fn sweep(&mut self, list: List, range: AlignedRange) -> u32 {
        let mut count = 0;
        let mut index = list.head;
        while index != NIL {
            let next = self.links[index as usize].next;
            if self.entry(index).overlaps(range) {
                self.remove(index);
                count += 1;
            }
            index = next;
        }
        count
    }

    fn entry(&mut self, index: u32) -> &mut Entry {
        &mut self.sets[index as usize / WAYS][index as usize % WAYS]
    }

    /// Frees an entry that is in use.
    fn remove(&mut self, index: u32) {
        let entry = std::mem::replace(self.entry(index), FREE);
        self.prints[index as usize / WAYS] &= !(0xffff << (16 * (index as usize % WAYS)));
        let size = entry.shift() as usize - 12;
        self.counts[size] -= 1;
        if self.counts[size] == 0 {
            self.sizes &= !(1 << size);
        }
        let Links { next, previous } = self.links[index as usize];
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
