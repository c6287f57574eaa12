// SPDX-License-Identifier: MIT OR Apache-2.0
//! Look-ups.

use super::entry::{UNTRANSLATED_ONLY, low_bits, tag_of};
use super::{Atc, Hit, LANES, Slot, Space, lane, matching};
use crate::access::Access;
use pcie_ats::{PAGE_SHIFT, PAGE_SIZE};

impl Atc {
    /// Finds an entry that permits the access at the address. It skips an entry that lacks a
    /// permission, because another may have it: the process may have gained it since.
    #[inline(always)]
    pub fn lookup(&mut self, space: Space, address: u64, access: Access) -> Option<Hit> {
        let shift = self.prediction.shift(space, address);
        if let Some(hit) = self.predicted(space, address >> shift, shift, access.bits()) {
            let output = hit.output | (address - hit.first);
            return Some(Hit { output, ..hit });
        }
        self.lookup_any(space, address, access)
    }

    /// Like [`Atc::lookup`], from the sets.
    #[inline(never)]
    fn lookup_any(&mut self, space: Space, address: u64, access: Access) -> Option<Hit> {
        let salt = Self::salt(space, address);
        let [one, two, three, four] = self.few;
        let index = match self.few_sizes {
            4 => self.probe(salt, address, [one, two, three, four]),
            3 => self.probe(salt, address, [one, two, three]),
            2 => self.probe(salt, address, [one, two]),
            1 => self.probe(salt, address, [one]),
            _ => self.probe_all(space, address),
        };
        // Without a matching fingerprint there is no entry.
        let entry = self.entries.get(index)?;
        if entry.answers(space, address, access.bits()) {
            return Some(self.hit(index, address));
        }
        self.search(space, address, access.bits())
    }

    /// Looks up one page after another, from the one that begins at an address to the last that
    /// begins before `end`, while each has an entry of its own that permits the access. May stop
    /// earlier. Like many calls of [`Atc::lookup`], which need not choose a size and a space anew.
    #[inline(always)]
    pub fn lookup_pages(
        &mut self,
        space: Space,
        address: u64,
        end: u64,
        access: Access,
        mut found: impl FnMut(&Hit),
    ) {
        if address & low_bits(PAGE_SHIFT.into()) != 0 {
            return;
        }
        let (shift, need) = (PAGE_SHIFT.into(), access.bits());
        let mut first = address;
        while first < end {
            let hit = match self.predicted(space, first >> shift, shift, need) {
                Some(hit) => hit,
                None => match self.lookup_page(space, first, need) {
                    Some(hit) => hit,
                    None => return,
                },
            };
            found(&hit);
            match first.checked_add(PAGE_SIZE) {
                Some(next) => first = next,
                None => return,
            }
        }
    }

    /// Finds the entry of a page in the sets.
    #[inline(never)]
    fn lookup_page(&mut self, space: Space, first: u64, need: u32) -> Option<Hit> {
        let index = self.find(space, first | u64::from(PAGE_SHIFT))?;
        let permits = self.entries[index].bits & need == need;
        permits.then(|| self.hit(index, first))
    }

    /// The hit for the first address of the range of 2^`shift` bytes with this number, if its entry
    /// is where it is predicted and permits the access. Marks it as used.
    #[inline(always)]
    fn predicted(&mut self, space: Space, number: u64, shift: u32, need: u32) -> Option<Hit> {
        let first = number << shift;
        let index = self.prediction.index(space, number);
        let entry = self.entries.get_mut(index)?;
        let same = entry.tag == first | u64::from(shift) && entry.space == space.0;
        if !same || entry.bits & need != need {
            return None;
        }
        entry.used = self.now;
        Some(Hit {
            first,
            last: first | !(u64::MAX << shift),
            output: entry.output,
            untranslated_only: entry.bits & UNTRANSLATED_ONLY != 0,
        })
    }

    /// The index of an entry whose fingerprint matches the address; beyond all entries if there is
    /// none. Probes the sizes of the masks without a branch on the result. A set is one word.
    #[inline(always)]
    fn probe<const N: usize>(&self, salt: u64, address: u64, masks: [u64; N]) -> usize {
        let prints = &*self.prints;
        // Tells the compiler that masked indices are in bounds. There is always a set.
        let Some(set_mask) = prints.len().checked_sub(1) else {
            return usize::MAX;
        };
        let (mut lanes, mut first) = (0, 0);
        // The smallest size comes last and wins: a smaller range often begins where a larger one
        // does, and the probes for both sizes find it.
        for mask in masks.into_iter().rev() {
            let Slot { set, print } = Self::place(salt, address & mask);
            let set = set & set_mask;
            let found = matching(prints[set], print);
            lanes = if found != 0 { found } else { lanes };
            first = if found != 0 { set } else { first };
        }
        if lanes == 0 {
            return usize::MAX;
        }
        self.index(first, lane(lanes))
    }

    /// Like [`Atc::probe`], for many sizes and sets of any number of words.
    #[inline(never)]
    fn probe_all(&self, space: Space, address: u64) -> usize {
        let mut index = usize::MAX;
        for mask in self.masks.iter().rev() {
            let first = address & mask;
            let Slot { set, print } = Self::place(Self::salt(space, first), first);
            let set = set & self.set_mask;
            for word in 0..self.words {
                let found = matching(self.prints[set * self.words + word], print);
                let here = self.index(set, word * LANES + lane(found));
                index = if found != 0 { here } else { index };
            }
        }
        index
    }

    /// Finds an entry that permits the access, size by size.
    #[cold]
    fn search(&mut self, space: Space, address: u64, need: u32) -> Option<Hit> {
        for size in 0..self.masks.len() {
            let index = self.find(space, tag_of(address, self.masks[size]));
            let entry = index.and_then(|index| self.entries.get(index));
            if let (Some(index), Some(entry)) = (index, entry) {
                if entry.bits & need == need {
                    return Some(self.hit(index, address));
                }
            }
        }
        None
    }

    /// The hit for an address in the range of an entry. Marks the entry as used, and predicts it
    /// from now on.
    #[inline]
    fn hit(&mut self, index: usize, address: u64) -> Hit {
        let entry = &mut self.entries[index];
        entry.used = self.now;
        let offset = low_bits(entry.shift());
        let hit = Hit {
            first: address & !offset,
            last: address | offset,
            output: entry.output | address & offset,
            untranslated_only: entry.bits & UNTRANSLATED_ONLY != 0,
        };
        let space = Space(entry.space);
        let shift = entry.shift();
        self.prediction
            .found(space, address, hit.first, shift, index);
        hit
    }
}
