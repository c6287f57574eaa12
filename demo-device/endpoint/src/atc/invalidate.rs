// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removal of translations from the cache, by an invalidation or by the device itself.

use super::entry::{low_bits, tag};
use super::{Atc, List, NIL, Scope, Space};
use pcie_ats::{AlignedRange, PAGE_SHIFT, Pasid};

impl Atc {
    /// Removes every translation that overlaps the range in the address spaces of the scope, and
    /// returns their number (PCIe 10.3.1).
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

    /// Removes everything.
    pub fn clear(&mut self) -> u32 {
        self.invalidate(Scope::Every, AlignedRange::ALL)
    }

    fn invalidate_space(&mut self, space: Space, range: AlignedRange) -> u32 {
        let Some(list) = self.spaces.get(&space).copied() else {
            return 0;
        };
        if self.probes(range) > u64::from(list.length) {
            return self.sweep(list, range);
        }
        let mut count = 0;
        let sizes = self.counts.map(|count| count != 0);
        for (shift, _) in (12..).zip(sizes).filter(|(_, used)| *used) {
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

    /// Removes the translation of exactly this range.
    pub fn forget_exactly(&mut self, space: Space, range: AlignedRange) -> u32 {
        self.forget(space, tag(range.base(), range.shift().into()))
    }

    /// Removes the translations that lie within a range, but no larger one, for a device that
    /// forgets joined entries.
    pub fn forget_within(&mut self, space: Space, range: AlignedRange) -> u32 {
        let mut index = self.spaces.get(&space).map_or(NIL, |list| list.head);
        let mut count = 0;
        while index != NIL {
            let next = self.links[index as usize].next;
            let entry = &self.entries[index as usize];
            if entry.overlaps(range) && entry.shift() <= u32::from(range.shift()) {
                self.remove(index as usize);
                count += 1;
            }
            index = next;
        }
        count
    }

    /// Removes the translations of a space that overlap the addresses from `first` to `last`.
    pub fn forget_between(&mut self, pasid: Option<Pasid>, first: u64, last: u64) -> u32 {
        let mut count = 0;
        let mut address = first & !low_bits(PAGE_SHIFT.into());
        loop {
            // The largest aligned range that begins here and does not exceed the end.
            let mut shift = PAGE_SHIFT;
            let most = address.trailing_zeros().min(64) as u8;
            while shift < most && address | low_bits(u32::from(shift) + 1) <= last {
                shift += 1;
            }
            if let Ok(range) = AlignedRange::containing(address, shift) {
                count += self.invalidate(Scope::One(pasid), range);
            }
            match (address | low_bits(shift.into())).checked_add(1) {
                Some(next) if next <= last => address = next,
                _ => return count,
            }
        }
    }

    /// The number of entries, of the sizes in use, that could overlap a range.
    fn probes(&self, range: AlignedRange) -> u64 {
        let mut probes = 0u64;
        for mask in &self.masks {
            let more = u32::from(range.shift()).saturating_sub(mask.trailing_zeros());
            probes = probes.saturating_add(1u64.checked_shl(more).unwrap_or(u64::MAX));
        }
        probes
    }

    /// Removes the entry of a tag, if it exists.
    fn forget(&mut self, space: Space, tag: u64) -> u32 {
        match self.find(space, tag) {
            Some(index) => {
                self.remove(index);
                1
            }
            None => 0,
        }
    }

    /// Removes the entries of a list that overlap a range.
    fn sweep(&mut self, list: List, range: AlignedRange) -> u32 {
        let mut count = 0;
        let mut index = list.head;
        while index != NIL {
            let next = self.links[index as usize].next;
            if self.entries[index as usize].overlaps(range) {
                self.remove(index as usize);
                count += 1;
            }
            index = next;
        }
        count
    }
}
