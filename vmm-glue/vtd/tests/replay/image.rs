// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory as far as a recording contains it.
//!
//! A recording contains the data that the unit read, not when the guest wrote them. So memory is an
//! image that is filled in during the replay: the data that a call read are written to it before
//! the call. The replay does not require the unit to read the same data again in the same order: a
//! cache that keeps more, or a walk that reads its entries in another order, is still correct. The
//! image keeps everything, so that a unit can read the same data again. But the unit must not read
//! data that the recording does not contain: they would be a guess.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use vtd::memory::{Memory, MemoryError};

/// The image.
#[derive(Default)]
pub struct Image {
    bytes: RefCell<BTreeMap<u64, u8>>,
    /// Addresses without memory.
    holes: RefCell<BTreeSet<u64>>,
    unknown: Cell<Option<u64>>,
}

impl Image {
    /// Fills in data that the guest has written at some earlier time.
    pub fn fill(&self, address: u64, data: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        for (address, byte) in (address..).zip(data) {
            bytes.insert(address, *byte);
            self.holes.borrow_mut().remove(&address);
        }
    }

    /// Marks addresses as having no memory.
    pub fn make_hole(&self, address: u64, size: u64) {
        self.holes.borrow_mut().extend(address..address + size);
    }

    /// The first address that was read although the recording does not contain its data.
    pub fn unknown(&self) -> Option<u64> {
        self.unknown.get()
    }

    fn byte(&self, address: u64) -> Result<u8, MemoryError> {
        let hole = self.holes.borrow().contains(&address);
        let byte = self.bytes.borrow().get(&address).copied();
        if byte.is_none() && !hole && self.unknown.get().is_none() {
            self.unknown.set(Some(address));
        }
        byte.filter(|_| !hole).ok_or(MemoryError { address })
    }
}

impl Memory for Image {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        for (address, byte) in (address..).zip(data) {
            *byte = self.byte(address)?;
        }
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        if self.holes.borrow().contains(&address) {
            return Err(MemoryError { address });
        }
        self.fill(address, data);
        Ok(())
    }

    fn compare_exchange(&self, address: u64, current: u64, new: u64) -> Result<u64, MemoryError> {
        let found = self.read_u64(address)?;
        if found == current {
            self.fill(address, &new.to_le_bytes());
        }
        Ok(found)
    }
}
