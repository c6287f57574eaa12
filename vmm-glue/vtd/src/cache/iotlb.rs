// SPDX-License-Identifier: MIT OR Apache-2.0
//! The IOTLB (section 6.2.4): translations by tag and page; pages of 4 KiB, 2 MiB and 1 GiB share
//! it.
//!
//! A translation is in one of two sets of four that its hash selects. With two sets to choose from,
//! a half full cache evicts almost nothing. A set is one line of the processor's caches, and its
//! four translations are compared without a branch: which of them it is cannot be predicted, and a
//! wrong guess would wait for the line.
//!
//! The hash is one of page and address space, not of the tag: so the line of the first set can be
//! asked for before the cache of address spaces has said what the tag is ([`Iotlb::early`]), and
//! comes from memory in the meantime.

#[cfg(test)]
mod tests;

use crate::walk::Mapping;
use pcie_ats::AlignedRange;

/// Log2 of the page sizes.
const SHIFTS: [u8; 3] = [12, 21, 30];

/// Translations in a set.
const WAYS: usize = 4;

/// Translations in a set beyond which a new one goes where there are fewer: up to here it stays in
/// its first set, where it is found sooner.
const ENOUGH: u32 = 2;

/// The largest number of look-ups of a ranged invalidation; beyond that it is cheaper to drop
/// everything.
const MOST_PROBES: u64 = 256;

/// Bits of a slot's second word below the page's address.
const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
const SNOOP: u64 = 1 << 3;
const DIRTY: u64 = 1 << 4;
const PRIVILEGED: u64 = 1 << 5;
const SIZE: u32 = 6;
/// Where the page number of the output address begins, of 40 bits, and where it ends.
const OUTPUT: u32 = 8;
const OUTPUT_END: u32 = 48;
/// The bits of the second word that belong to the key.
const SELECT: u64 = !((1 << OUTPUT_END) - 1) | (0b111 << 5);

/// Bits of a tag in the first word, below the number of the input page, and in the second word,
/// above the output page.
const TAG_LOW: u32 = 18;
const TAG_HIGH: u32 = u64::BITS - OUTPUT_END;
/// Bits of a tag that a slot has room for.
pub(super) const TAG_BITS: u32 = TAG_LOW + TAG_HIGH;
/// Input addresses have this many significant bits, with the sign: more than any table translates.
const INPUT_BITS: u32 = u64::BITS - TAG_LOW + SHIFTS[0] as u32;

/// A translation; empty if it is 0, because no tag is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    /// Number of the input page, and the low bits of the tag.
    page: u64,
    /// The high bits of the tag, number of the output page, size, privilege, and permissions.
    data: u64,
}

impl Slot {
    const fn has(&self, key: &Slot) -> bool {
        (self.page == key.page) & ((self.data ^ key.data) & SELECT == 0)
    }

    /// The translation of an address in a page of a size.
    #[inline]
    const fn mapping(&self, size: usize, address: u64) -> Mapping {
        let (data, shift) = (self.data, SHIFTS[size]);
        let output = data << (u64::BITS - OUTPUT_END) >> (u64::BITS - OUTPUT_END + OUTPUT);
        Mapping {
            address: output << SHIFTS[0] | address & ((1 << shift) - 1),
            shift,
            read: data & READ != 0,
            write: data & WRITE != 0,
            execute: data & EXECUTE != 0,
            snoop: data & SNOOP != 0,
            dirty: data & DIRTY != 0,
        }
    }
}

/// The translations of a set.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Set([Slot; WAYS]);

impl Set {
    /// The ways that satisfy a condition, a bit for each.
    fn ways(&self, is: impl Fn(&Slot) -> bool) -> u32 {
        let [a, b, c, d] = &self.0;
        u32::from(is(a)) | u32::from(is(b)) << 1 | u32::from(is(c)) << 2 | u32::from(is(d)) << 3
    }

    fn free(&self) -> u32 {
        self.ways(|slot| *slot == Slot::default())
    }
}

/// The address space that translations belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    /// They are stored under this tag.
    pub tag: u64,
    /// A number that selects their sets. It is known before the tag, so that a set can come from
    /// memory while the tag is still looked for.
    pub place: u64,
}

/// The first set that can have the translation of an address, looked at before its tag is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Early {
    set: usize,
    /// Ways with the number of the page, of 4 KiB.
    ways: u32,
}

/// The IOTLB.
#[derive(Clone, Debug)]
pub(crate) struct Iotlb {
    sets: Vec<Set>,
    /// Rotates over the slots of two full sets.
    hand: usize,
    /// Shift of a hash that gives the number of a set.
    shift: u32,
    /// What the tags of all translations have above [`TAG_BITS`].
    epoch: u64,
}

/// The key of a tag's translation of an address, by a size that is an index into [`SHIFTS`]: a slot
/// without output page and permissions. None if no slot can have it.
const fn key(tag: u64, size: usize, privileged: bool, address: u64) -> Option<Slot> {
    let unused = u64::BITS - INPUT_BITS;
    if ((address << unused) as i64 >> unused) as u64 != address {
        return None;
    }
    Some(Slot {
        page: (address >> SHIFTS[size]) << TAG_LOW | tag & ((1 << TAG_LOW) - 1),
        data: tag >> TAG_LOW << OUTPUT_END
            | (size as u64) << SIZE
            | if privileged { PRIVILEGED } else { 0 },
    })
}

impl Iotlb {
    /// An empty IOTLB of at least `entries` translations.
    pub fn new(entries: u32) -> Self {
        let sets = (entries as usize).div_ceil(WAYS).next_power_of_two().max(2);
        Iotlb {
            sets: vec![Set::default(); sets],
            hand: 0,
            shift: u64::BITS - sets.trailing_zeros(),
            epoch: 0,
        }
    }

    /// Numbers of the two sets of a page.
    #[inline]
    const fn sets(&self, place: u64, size: usize, address: u64) -> [usize; 2] {
        let mixed = place ^ address >> SHIFTS[size] ^ (size as u64) << OUTPUT_END;
        let hash = (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        [
            (hash >> self.shift) as usize,
            (hash.rotate_left(32) >> self.shift) as usize,
        ]
    }

    /// The set and the way of a key in its sets.
    #[inline]
    fn find<const N: usize>(&self, sets: [usize; N], key: &Slot) -> Option<(usize, usize)> {
        for set in sets {
            let ways = self.sets[set].ways(|slot| slot.has(key));
            if ways != 0 {
                return Some((set, ways.trailing_zeros() as usize));
            }
        }
        None
    }

    /// A slot for a key in its sets: its current one, or a free one in its first set or in the
    /// emptier one, or the next in rotation.
    fn place(&mut self, sets: [usize; 2], key: &Slot) -> (usize, usize) {
        if let Some(at) = self.find(sets, key) {
            return at;
        }
        let [first, second] = sets;
        let free = |set: usize| self.sets[set].free();
        let taken = |free: u32| WAYS as u32 - free.count_ones();
        let (here, there) = (free(first), free(second));
        let set = match taken(here) > ENOUGH && taken(there) < taken(here) {
            true => second,
            false => first,
        };
        match free(set) {
            0 => {
                // Probably it was invalidated: its address space has another tag since.
                let like = |slot: &Slot| slot.page >> TAG_LOW == key.page >> TAG_LOW;
                for set in sets {
                    let ways = self.sets[set].ways(like);
                    if ways != 0 {
                        return (set, ways.trailing_zeros() as usize);
                    }
                }
                self.hand = self.hand.wrapping_add(1);
                let set = [first, second][self.hand / WAYS % 2];
                (set, self.hand % WAYS)
            }
            ways => (set, ways.trailing_zeros() as usize),
        }
    }

    /// Looks for an address in an address space whose tag is not known yet: the set comes from
    /// memory in the meantime.
    #[inline]
    pub fn early(&self, place: u64, address: u64) -> Early {
        let [set, _] = self.sets(place, 0, address);
        let page = address >> SHIFTS[0] << TAG_LOW >> TAG_LOW;
        Early {
            set,
            ways: self.sets[set].ways(|slot| slot.page >> TAG_LOW == page),
        }
    }

    /// The translation of an address. `sizes` are the sizes of the owner's translations.
    #[inline]
    pub fn get(
        &self,
        owner: Owner,
        sizes: u8,
        privileged: bool,
        address: u64,
        early: Option<Early>,
    ) -> Option<Mapping> {
        if owner.tag >> TAG_BITS != self.epoch {
            return None;
        }
        let mut sizes = sizes;
        if let Some(Early { set, ways }) = early.filter(|_| sizes & 1 != 0) {
            let key = key(owner.tag, 0, privileged, address)?;
            let slot = &self.sets[set].0[ways.trailing_zeros() as usize % WAYS];
            if slot.has(&key) {
                return Some(slot.mapping(0, address));
            }
            // Mostly it is not in the first set at all.
            if ways == 0 {
                let [_, second] = self.sets(owner.place, 0, address);
                if let Some((set, way)) = self.find([second], &key) {
                    return Some(self.sets[set].0[way].mapping(0, address));
                }
                sizes &= !1;
            }
        }
        for size in 0..SHIFTS.len() {
            if sizes & 1 << size == 0 {
                continue;
            }
            let key = key(owner.tag, size, privileged, address)?;
            let sets = self.sets(owner.place, size, address);
            if let Some((set, way)) = self.find(sets, &key) {
                return Some(self.sets[set].0[way].mapping(size, address));
            }
        }
        None
    }

    /// Caches a translation, and returns the bit of its size.
    pub fn insert(
        &mut self,
        owner: Owner,
        privileged: bool,
        address: u64,
        mapping: &Mapping,
    ) -> u8 {
        let Owner { tag, place } = owner;
        let size = SHIFTS
            .iter()
            .rposition(|s| *s <= mapping.shift)
            .unwrap_or(0);
        let offset = (1u64 << SHIFTS[size]) - 1;
        let output = (mapping.address & !offset) >> SHIFTS[0];
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        if tag >> TAG_BITS != self.epoch {
            // The tags of the translations from before would look like those that come now.
            self.sets.fill(Set::default());
            self.epoch = tag >> TAG_BITS;
        }
        let key = key(tag, size, privileged, address);
        if let Some(key) = key.filter(|_| output >> (OUTPUT_END - OUTPUT) == 0) {
            let sets = self.sets(place, size, address);
            let (set, way) = self.place(sets, &key);
            let data = output << OUTPUT
                | flag(mapping.read, READ)
                | flag(mapping.write, WRITE)
                | flag(mapping.execute, EXECUTE)
                | flag(mapping.snoop, SNOOP)
                | flag(mapping.dirty, DIRTY);
            self.sets[set].0[way] = Slot {
                data: key.data | data,
                ..key
            };
        }
        1 << size
    }

    /// Removes the translations of an owner in a range. Returns false without any change if that
    /// would take too long: the owner must take another tag.
    pub fn remove(&mut self, owner: Owner, sizes: [u8; 2], range: AlignedRange) -> bool {
        let Owner { tag, place } = owner;
        if tag >> TAG_BITS != self.epoch {
            return true;
        }
        let pages = |shift: u8| 1u64.checked_shl(range.shift().saturating_sub(shift).into());
        let mut probes = 0u64;
        for (size, shift) in SHIFTS.into_iter().enumerate() {
            for sizes in sizes {
                if sizes & 1 << size != 0 {
                    probes = probes.saturating_add(pages(shift).unwrap_or(u64::MAX));
                }
            }
        }
        if probes > MOST_PROBES {
            return false;
        }
        for (size, shift) in SHIFTS.into_iter().enumerate() {
            for privileged in [false, true] {
                if sizes[usize::from(privileged)] & 1 << size == 0 {
                    continue;
                }
                let first = range.base() >> shift;
                for page in first..=first + (pages(shift).unwrap_or(1) - 1) {
                    let key = key(tag, size, privileged, page << shift);
                    let sets = self.sets(place, size, page << shift);
                    if let Some((set, way)) = key.and_then(|key| self.find(sets, &key)) {
                        self.sets[set].0[way] = Slot::default();
                    }
                }
            }
        }
        true
    }
}
