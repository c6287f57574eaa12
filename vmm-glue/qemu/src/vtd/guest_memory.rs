// SPDX-License-Identifier: GPL-2.0-or-later
//! Guest memory for the remapping unit. Accesses never wait for the BQL: an attribute makes QEMU
//! refuse everything but RAM.

use vtd::memory::{Memory, MemoryError};

use crate::abi::layout::MemTxAttrs;
use crate::memory::Space;

/// All of guest memory, by physical addresses.
#[derive(Clone, Copy, Debug)]
pub struct GuestMemory;

impl Memory for GuestMemory {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        Space::system()
            .read(address, MemTxAttrs::MEMORY, data)
            .map_err(|_| MemoryError { address })
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        Space::system()
            .write(address, MemTxAttrs::MEMORY, data)
            .map_err(|_| MemoryError { address })
    }

    fn compare_exchange(&self, address: u64, current: u64, new: u64) -> Result<u64, MemoryError> {
        Space::system()
            .compare_exchange(address, MemTxAttrs::MEMORY, current, new)
            .map_err(|_| MemoryError { address })
    }
}
