// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the operating system needs of the machine below it. It knows no machine: one in this process
//! and one behind a socket are boards alike.

use crate::machine::FunctionId;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use vtd::memory::MemoryError;
use vtd::spec::SourceId;
use vtd::spec::interrupt::Message;

/// How many steps a wait takes at most, unless a board has another number.
const MOST_STEPS: usize = 10_000_000;

/// A machine with memory, remapping units, and functions behind them.
///
/// Memory begins at address 0, and is little-endian. Accesses of 8 bytes are to aligned addresses.
pub trait Board: Debug + Send + Sync + 'static {
    // Memory.

    /// Bytes of memory.
    fn memory_bytes(&self) -> u64;

    /// Reads memory. Fails where there is none.
    fn memory_read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError>;

    /// Writes memory. Fails where there is none.
    fn memory_write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError>;

    /// Reads 8 bytes. Fails where there is no memory.
    fn load(&self, address: u64) -> Result<u64, MemoryError>;

    /// Writes 8 bytes at once. Fails where there is no memory.
    fn store(&self, address: u64, value: u64) -> Result<(), MemoryError>;

    /// Replaces 8 bytes and returns what they were. Fails where there is no memory.
    fn swap(&self, address: u64, value: u64) -> Result<u64, MemoryError>;

    // Remapping units.

    /// Number of remapping units.
    fn units(&self) -> usize;

    /// Reads 4 or 8 bytes of a unit's registers (VT-d 11.3).
    fn unit_read(&self, unit: usize, offset: u16, size: u8) -> u64;

    /// Writes 4 or 8 bytes of a unit's registers.
    fn unit_write(&self, unit: usize, offset: u16, value: u64, size: u8);

    // Functions.

    /// Number of functions.
    fn functions(&self) -> usize;

    /// Requester ID of a function.
    fn requester(&self, function: FunctionId) -> SourceId;

    /// The unit that a function is behind.
    fn unit_of(&self, function: FunctionId) -> usize;

    /// Reads a double word of configuration space.
    fn config_read(&self, function: FunctionId, offset: u16) -> u32;

    /// Writes the bits of `mask` in a double word of configuration space.
    fn config_write(&self, function: FunctionId, offset: u16, value: u32, mask: u32);

    /// Reads `size` bytes of a BAR.
    fn bar_read(&self, function: FunctionId, bar: u8, offset: u64, size: u8) -> u64;

    /// Writes `size` bytes of a BAR.
    fn bar_write(&self, function: FunctionId, bar: u8, offset: u64, value: u64, size: u8);

    /// Gives an MSI-X vector its message, unmasks it and enables MSI-X; none masks the vector.
    fn set_msix(&self, function: FunctionId, vector: u16, message: Option<Message>);

    // Progress. Without a thread of the machine's own, software makes all steps, and there are no
    // news to wait for.

    /// Goes on by a step. Returns false if nothing more happens by itself.
    fn step(&self) -> bool;

    /// Whether somebody else makes the steps at the moment, so that software only waits.
    fn is_driven(&self) -> bool {
        false
    }

    /// How many steps a wait takes at most before software takes the machine for restless.
    fn most_steps(&self) -> usize {
        MOST_STEPS
    }

    /// How often something has happened that software may wait for. To be read before looking at
    /// what it is about.
    fn news(&self) -> u64 {
        0
    }

    /// Waits until there are more news than `seen`, or until time is out.
    fn wait_for_news(&self, seen: u64, timeout: Duration) {
        let _ = (seen, timeout);
    }
}

/// A board that is shared is the same board.
impl<B: Board + ?Sized> Board for Arc<B> {
    fn memory_bytes(&self) -> u64 {
        (**self).memory_bytes()
    }

    fn memory_read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        (**self).memory_read(address, data)
    }

    fn memory_write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        (**self).memory_write(address, data)
    }

    fn load(&self, address: u64) -> Result<u64, MemoryError> {
        (**self).load(address)
    }

    fn store(&self, address: u64, value: u64) -> Result<(), MemoryError> {
        (**self).store(address, value)
    }

    fn swap(&self, address: u64, value: u64) -> Result<u64, MemoryError> {
        (**self).swap(address, value)
    }

    fn units(&self) -> usize {
        (**self).units()
    }

    fn unit_read(&self, unit: usize, offset: u16, size: u8) -> u64 {
        (**self).unit_read(unit, offset, size)
    }

    fn unit_write(&self, unit: usize, offset: u16, value: u64, size: u8) {
        (**self).unit_write(unit, offset, value, size);
    }

    fn functions(&self) -> usize {
        (**self).functions()
    }

    fn requester(&self, function: FunctionId) -> SourceId {
        (**self).requester(function)
    }

    fn unit_of(&self, function: FunctionId) -> usize {
        (**self).unit_of(function)
    }

    fn config_read(&self, function: FunctionId, offset: u16) -> u32 {
        (**self).config_read(function, offset)
    }

    fn config_write(&self, function: FunctionId, offset: u16, value: u32, mask: u32) {
        (**self).config_write(function, offset, value, mask);
    }

    fn bar_read(&self, function: FunctionId, bar: u8, offset: u64, size: u8) -> u64 {
        (**self).bar_read(function, bar, offset, size)
    }

    fn bar_write(&self, function: FunctionId, bar: u8, offset: u64, value: u64, size: u8) {
        (**self).bar_write(function, bar, offset, value, size);
    }

    fn set_msix(&self, function: FunctionId, vector: u16, message: Option<Message>) {
        (**self).set_msix(function, vector, message);
    }

    fn step(&self) -> bool {
        (**self).step()
    }

    fn is_driven(&self) -> bool {
        (**self).is_driven()
    }

    fn most_steps(&self) -> usize {
        (**self).most_steps()
    }

    fn news(&self) -> u64 {
        (**self).news()
    }

    fn wait_for_news(&self, seen: u64, timeout: Duration) {
        (**self).wait_for_news(seen, timeout);
    }
}
