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

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(address: u64, shift: u8) -> Mapping {
        Mapping {
            address,
            shift,
            read: true,
            write: false,
            execute: true,
            snoop: true,
            dirty: false,
        }
    }

    /// Whose place does not tell it from others.
    fn owner(tag: u64) -> Owner {
        Owner { tag, place: 5 }
    }

    fn get(iotlb: &Iotlb, tag: u64, sizes: u8, privileged: bool, address: u64) -> Option<Mapping> {
        let owner = owner(tag);
        let early = iotlb.early(owner.place, address);
        let found = iotlb.get(owner, sizes, privileged, address, Some(early));
        let again = iotlb.get(owner, sizes, privileged, address, None);
        assert_eq!(found, again);
        found
    }

    #[test]
    fn pages_of_three_sizes_lie_side_by_side() {
        let mut iotlb = Iotlb::new(64);
        let mut sizes = 0;
        for (address, shift) in [(0x1234_5000, 12), (0x4020_0000, 21), (0x1_0000_0000, 30)] {
            sizes |= iotlb.insert(owner(7), false, address, &mapping(address << 4, shift));
            let offset = (1 << shift) - 1;
            let found = get(&iotlb, 7, sizes, false, address | offset);
            assert_eq!(found, Some(mapping(address << 4 | offset, shift)));
            assert_eq!(get(&iotlb, 7, sizes, true, address), None);
            assert_eq!(get(&iotlb, 8, sizes, false, address), None);
            assert_eq!(get(&iotlb, 7, sizes, false, address + offset + 1), None);
        }
        assert_eq!(sizes, 7);
    }

    #[test]
    fn tags_of_the_same_page_lie_side_by_side() {
        let mut iotlb = Iotlb::new(64);
        let two = |address: &u64| {
            let [first, second] = iotlb.sets(owner(1).place, 0, *address);
            first != second
        };
        let page = (1..64).map(|n| n << 12).find(two).unwrap();
        // More than a set has room for, all in the same two sets.
        for tag in 1..=6 {
            iotlb.insert(owner(tag), tag == 4, page, &mapping(tag << 12, 12));
        }
        for tag in 1..=6 {
            let found = get(&iotlb, tag, 1, tag == 4, page);
            assert_eq!(found, Some(mapping(tag << 12, 12)), "{tag}");
            assert_eq!(get(&iotlb, tag, 1, tag != 4, page), None, "{tag}");
            assert_eq!(get(&iotlb, tag, 6, tag == 4, page), None, "{tag}");
        }
        assert!(iotlb.remove(owner(1), [1, 1], AlignedRange::page(page)));
        for tag in 1..=7 {
            let found = get(&iotlb, tag, 1, tag == 4, page);
            assert_eq!(found.is_some(), (2..7).contains(&tag), "{tag}");
        }
    }

    #[test]
    fn a_page_invalidation_takes_the_large_page_round_it() {
        let mut iotlb = Iotlb::new(64);
        let sizes = iotlb.insert(owner(7), false, 0x20_0000, &mapping(0, 21));
        assert!(iotlb.remove(owner(7), [sizes, 0], AlignedRange::page(0x3f_f000)));
        assert_eq!(get(&iotlb, 7, sizes, false, 0x20_0000), None);
    }

    #[test]
    fn a_range_takes_the_pages_within() {
        let mut iotlb = Iotlb::new(1024);
        for page in 0..64 {
            iotlb.insert(owner(7), false, page << 12, &mapping(page << 12, 12));
        }
        let range = AlignedRange::containing(0x1_0000, 16).unwrap();
        assert!(iotlb.remove(owner(7), [1, 0], range));
        for page in 0..64 {
            let found = get(&iotlb, 7, 1, false, page << 12).is_some();
            assert_eq!(found, !range.contains(page << 12), "{page}");
        }
        assert!(!iotlb.remove(owner(7), [1, 0], AlignedRange::ALL));
        assert!(iotlb.remove(owner(7), [0, 0], AlignedRange::ALL));
    }

    #[test]
    fn nothing_of_a_key_is_left_out() {
        // Each differs from the first in one bit of tag, address, size or privilege.
        let first = 0x1234_5000u64;
        let mut keys = vec![key(7, 0, false, first), key(7, 1, false, first)];
        keys.push(key(7, 0, true, first));
        keys.extend((3..TAG_BITS).map(|bit| key(7 | 1 << bit, 0, false, first)));
        keys.extend((12..INPUT_BITS - 1).map(|bit| key(7, 0, false, first ^ 1 << bit)));
        keys.push(key(7, 0, false, first | !0 << (INPUT_BITS - 1)));
        for (n, one) in keys.iter().enumerate() {
            let one = one.unwrap();
            let full = Slot {
                data: one.data | !SELECT,
                ..one
            };
            for (m, other) in keys.iter().enumerate() {
                assert_eq!(full.has(&other.unwrap()), n == m, "{n}, {m}");
            }
        }
        // An address that no table translates is not mistaken for one whose bits it has.
        let mut iotlb = Iotlb::new(64);
        iotlb.insert(owner(7), false, first, &mapping(0x1000, 12));
        for bit in INPUT_BITS - 1..u64::BITS {
            let address = first ^ 1 << bit;
            iotlb.insert(owner(7), false, address, &mapping(0x5000, 12));
            assert_eq!(get(&iotlb, 7, 1, false, address), None, "{bit}");
        }
        assert_eq!(get(&iotlb, 7, 1, false, first), Some(mapping(0x1000, 12)));
    }

    #[test]
    fn an_output_address_has_52_bits() {
        let mut iotlb = Iotlb::new(64);
        for bit in 12..64 {
            let address = 1 << bit;
            iotlb.insert(owner(7), false, 0x5000, &mapping(address, 12));
            let found = get(&iotlb, 7, 1, false, 0x5000);
            assert_eq!(found, (bit < 52).then_some(mapping(address, 12)), "{bit}");
            assert!(iotlb.remove(owner(7), [1, 0], AlignedRange::page(0x5000)));
            // Nor does it become a translation of another tag.
            let kept = iotlb.sets.iter().any(|set| set.free() != 0xf);
            assert!(!kept, "{bit}");
        }
    }

    #[test]
    fn tags_whose_low_bits_are_the_same_are_not_the_same() {
        let mut iotlb = Iotlb::new(64);
        let (old, new) = (7, 7 | 1 << TAG_BITS);
        iotlb.insert(owner(old), false, 0x5000, &mapping(0x1000, 12));
        assert_eq!(get(&iotlb, new, 1, false, 0x5000), None);
        assert!(iotlb.remove(owner(new), [1, 0], AlignedRange::page(0x5000)));
        assert!(get(&iotlb, old, 1, false, 0x5000).is_some());
        iotlb.insert(owner(new), false, 0x6000, &mapping(0x2000, 12));
        assert_eq!(get(&iotlb, new, 1, false, 0x5000), None);
        assert_eq!(get(&iotlb, old, 1, false, 0x5000), None);
        assert_eq!(get(&iotlb, old, 1, false, 0x6000), None);
        let found = get(&iotlb, new, 1, false, 0x6000);
        assert_eq!(found, Some(mapping(0x2000, 12)));
    }

    #[test]
    fn a_full_iotlb_keeps_as_much_as_it_can() {
        let mut iotlb = Iotlb::new(4096);
        for page in 0..4096u64 {
            iotlb.insert(owner(7), false, page << 12, &mapping(page << 12, 12));
        }
        let kept = (0..4096u64).filter(|p| get(&iotlb, 7, 1, false, p << 12).is_some());
        assert!(kept.count() > 3000);
        // A half full cache evicts nothing.
        let mut iotlb = Iotlb::new(8192);
        for page in 0..4096u64 {
            iotlb.insert(owner(7), false, page << 12, &mapping(page << 12, 12));
        }
        let kept = (0..4096u64).filter(|p| get(&iotlb, 7, 1, false, p << 12).is_some());
        assert_eq!(kept.count(), 4096);
    }

    #[test]
    fn what_was_invalidated_makes_room_for_what_comes_again() {
        let mut iotlb = Iotlb::new(8192);
        for tag in 1..=10 {
            for page in 0..4096u64 {
                iotlb.insert(owner(tag), false, page << 12, &mapping(page << 12, 12));
            }
            let kept = (0..4096u64).filter(|p| get(&iotlb, tag, 1, false, p << 12).is_some());
            assert_eq!(kept.count(), 4096, "{tag}");
        }
    }
}
