// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interrupt entry cache (section 6.4).

use crate::spec::interrupt::Irte;

/// The interrupt entry cache: entries by index, direct-mapped.
#[derive(Debug)]
pub(crate) struct InterruptEntryCache {
    /// The index plus one, and the entry.
    slots: Vec<(u32, Irte)>,
}

impl InterruptEntryCache {
    pub fn new(entries: u32) -> Self {
        InterruptEntryCache {
            slots: vec![(0, Irte([0; 2])); entries.next_power_of_two() as usize],
        }
    }

    fn place(&self, index: u16) -> usize {
        usize::from(index) & (self.slots.len() - 1)
    }

    pub fn get(&self, index: u16) -> Option<Irte> {
        let (number, irte) = self.slots[self.place(index)];
        (number == u32::from(index) + 1).then_some(irte)
    }

    pub fn insert(&mut self, index: u16, irte: Irte) {
        let place = self.place(index);
        self.slots[place] = (u32::from(index) + 1, irte);
    }

    /// Removes the entries that an index and a mask select; none for all. Examines one slot for
    /// each selected entry, and each slot at most once.
    pub fn invalidate(&mut self, scope: Option<(u16, u8)>) {
        let count = scope.map_or(usize::MAX, |(_, im)| 1 << im);
        if let (Some((first, im)), true) = (scope, count < self.slots.len()) {
            let first = u32::from(first) >> im << im;
            for index in first..first + count as u32 {
                let place = self.place(index as u16);
                if self.slots[place].0 == index + 1 {
                    self.slots[place].0 = 0;
                }
            }
            return;
        }
        let selected = |number: u32| match (scope, number.checked_sub(1)) {
            (_, None) => false,
            (None, _) => true,
            (Some((first, im)), Some(index)) => index >> im == u32::from(first) >> im,
        };
        for slot in &mut self.slots {
            if selected(slot.0) {
                slot.0 = 0;
            }
        }
    }
}
