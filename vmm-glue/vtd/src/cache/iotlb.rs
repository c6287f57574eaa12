// SPDX-License-Identifier: MIT OR Apache-2.0
//! The IOTLB (section 6.2.4): translations by tag and page; pages of 4 KiB, 2 MiB and 1 GiB share
//! it.
//!
//! A translation is in one of two sets of four that its hash selects. With two sets to choose from,
//! a half full cache evicts almost nothing.

use super::hash::spread;
use crate::walk::Mapping;
use pcie_ats::AlignedRange;

/// Log2 of the page sizes.
const SHIFTS: [u8; 3] = [12, 21, 30];

/// Translations in a set.
const WAYS: usize = 4;

/// The largest number of look-ups of a ranged invalidation; beyond that it is cheaper to drop
/// everything.
const MOST_PROBES: u64 = 256;

/// Bits of a slot's data below the page's address.
const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
const SNOOP: u64 = 1 << 3;
const DIRTY: u64 = 1 << 4;

/// A translation; empty if the key is 0.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Tag, size and privilege.
    key: u64,
    /// Number of the input page.
    page: u64,
    /// Address of the output page, and permissions.
    data: u64,
}

/// The IOTLB.
#[derive(Clone, Debug)]
pub(crate) struct Iotlb {
    slots: Vec<Slot>,
    /// Rotates over the slots of two full sets.
    hand: usize,
    /// Shift of a hash that gives the number of a set.
    shift: u32,
}

/// The key of a tag's translations of a size; the size is an index into [`SHIFTS`].
const fn key(tag: u64, size: usize, privileged: bool) -> u64 {
    tag << 3 | (size as u64) << 1 | privileged as u64
}

impl Iotlb {
    /// An empty IOTLB of at least `entries` translations.
    pub fn new(entries: u32) -> Self {
        let sets = (entries as usize).div_ceil(WAYS).next_power_of_two().max(2);
        Iotlb {
            slots: vec![Slot::default(); sets * WAYS],
            hand: 0,
            shift: 64 - sets.trailing_zeros(),
        }
    }

    /// First slots of the two sets of a key and a page.
    fn sets(&self, key: u64, page: u64) -> [usize; 2] {
        let hash = spread(page ^ key.rotate_left(32));
        let set = |hash: u64| (hash >> self.shift) as usize * WAYS;
        [set(hash), set(hash.rotate_left(32))]
    }

    fn slot(&self, key: u64, page: u64) -> Option<usize> {
        self.sets(key, page).into_iter().find_map(|first| {
            let set = &self.slots[first..first + WAYS];
            let at = set.iter().position(|s| s.key == key && s.page == page)?;
            Some(first + at)
        })
    }

    /// A slot for a key and a page: its current one, or a free one in the emptier set, or the next
    /// in rotation.
    fn place(&mut self, key: u64, page: u64) -> usize {
        if let Some(at) = self.slot(key, page) {
            return at;
        }
        let sets = self.sets(key, page);
        let free = |first: usize| {
            let set = &self.slots[first..first + WAYS];
            set.iter().filter(|s| s.key == 0).count()
        };
        let first = if free(sets[1]) > free(sets[0]) {
            sets[1]
        } else {
            sets[0]
        };
        let set = &self.slots[first..first + WAYS];
        if let Some(at) = set.iter().position(|s| s.key == 0) {
            return first + at;
        }
        self.hand = self.hand.wrapping_add(1);
        sets[self.hand / WAYS % 2] + self.hand % WAYS
    }

    /// The translation of an address. `sizes` are the sizes of the tag's translations.
    pub fn get(&self, tag: u64, sizes: u8, privileged: bool, address: u64) -> Option<Mapping> {
        for (size, shift) in SHIFTS.into_iter().enumerate() {
            if sizes & 1 << size == 0 {
                continue;
            }
            if let Some(at) = self.slot(key(tag, size, privileged), address >> shift) {
                let data = self.slots[at].data;
                return Some(Mapping {
                    address: data & !0xfff | address & ((1 << shift) - 1),
                    shift,
                    read: data & READ != 0,
                    write: data & WRITE != 0,
                    execute: data & EXECUTE != 0,
                    snoop: data & SNOOP != 0,
                    dirty: data & DIRTY != 0,
                });
            }
        }
        None
    }

    /// Caches a translation, and returns the bit of its size.
    pub fn insert(&mut self, tag: u64, privileged: bool, address: u64, mapping: &Mapping) -> u8 {
        let size = SHIFTS
            .iter()
            .rposition(|s| *s <= mapping.shift)
            .unwrap_or(0);
        let offset = (1u64 << SHIFTS[size]) - 1;
        let (key, page) = (key(tag, size, privileged), address >> SHIFTS[size]);
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let slot = Slot {
            key,
            page,
            data: mapping.address & !offset
                | flag(mapping.read, READ)
                | flag(mapping.write, WRITE)
                | flag(mapping.execute, EXECUTE)
                | flag(mapping.snoop, SNOOP)
                | flag(mapping.dirty, DIRTY),
        };
        let at = self.place(key, page);
        self.slots[at] = slot;
        1 << size
    }

    /// Removes the translations of a tag in a range. Returns false without any change if that would
    /// take too long: the tag's owner must take another tag.
    pub fn remove(&mut self, tag: u64, sizes: [u8; 2], range: AlignedRange) -> bool {
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
                    if let Some(at) = self.slot(key(tag, size, privileged), page) {
                        self.slots[at] = Slot::default();
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

    #[test]
    fn pages_of_three_sizes_lie_side_by_side() {
        let mut iotlb = Iotlb::new(64);
        let mut sizes = 0;
        for (address, shift) in [(0x1234_5000, 12), (0x4020_0000, 21), (0x1_0000_0000, 30)] {
            sizes |= iotlb.insert(7, false, address, &mapping(address << 4, shift));
            let offset = (1 << shift) - 1;
            let found = iotlb.get(7, sizes, false, address | offset);
            assert_eq!(found, Some(mapping(address << 4 | offset, shift)));
            assert_eq!(iotlb.get(7, sizes, true, address), None);
            assert_eq!(iotlb.get(8, sizes, false, address), None);
            assert_eq!(iotlb.get(7, sizes, false, address + offset + 1), None);
        }
        assert_eq!(sizes, 7);
    }

    #[test]
    fn a_page_invalidation_takes_the_large_page_round_it() {
        let mut iotlb = Iotlb::new(64);
        let sizes = iotlb.insert(7, false, 0x20_0000, &mapping(0, 21));
        assert!(iotlb.remove(7, [sizes, 0], AlignedRange::page(0x3f_f000)));
        assert_eq!(iotlb.get(7, sizes, false, 0x20_0000), None);
    }

    #[test]
    fn a_range_takes_the_pages_within() {
        let mut iotlb = Iotlb::new(1024);
        for page in 0..64 {
            iotlb.insert(7, false, page << 12, &mapping(page << 12, 12));
        }
        let range = AlignedRange::containing(0x1_0000, 16).unwrap();
        assert!(iotlb.remove(7, [1, 0], range));
        for page in 0..64 {
            let found = iotlb.get(7, 1, false, page << 12).is_some();
            assert_eq!(found, !range.contains(page << 12), "{page}");
        }
        assert!(!iotlb.remove(7, [1, 0], AlignedRange::ALL));
        assert!(iotlb.remove(7, [0, 0], AlignedRange::ALL));
    }

    #[test]
    fn a_full_iotlb_keeps_as_much_as_it_can() {
        let mut iotlb = Iotlb::new(4096);
        for page in 0..4096u64 {
            iotlb.insert(7, false, page << 12, &mapping(page << 12, 12));
        }
        let kept = (0..4096u64).filter(|p| iotlb.get(7, 1, false, p << 12).is_some());
        assert!(kept.count() > 3000);
        // A half full cache evicts nothing.
        let mut iotlb = Iotlb::new(8192);
        for page in 0..4096u64 {
            iotlb.insert(7, false, page << 12, &mapping(page << 12, 12));
        }
        let kept = (0..4096u64).filter(|p| iotlb.get(7, 1, false, p << 12).is_some());
        assert_eq!(kept.count(), 4096);
    }
}
