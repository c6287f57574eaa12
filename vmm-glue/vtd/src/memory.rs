// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest physical memory, as the unit needs it: it holds tables, queues and status words.
//!
//! The host may hold a lock while it calls the unit, so an implementation must not wait for
//! anything, and must not call back. Accesses to anything but memory must fail.

/// A guest physical address that is not memory. The conditions of section 7.1 determine the fate of
/// the request: an access to an entry "results in error".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory at {address:#x}")]
pub struct MemoryError {
    /// The address.
    pub address: u64,
}

/// Guest physical memory, where the structures of chapter 9 and the queues of sections 6.5.2 and
/// 7.4.1 lie.
pub trait Memory {
    /// Reads memory. A read of 8 or 16 aligned bytes is atomic (chapter 9 of the specification:
    /// entries of up to 128 bits are fetched atomically).
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError>;

    /// Writes memory. When it returns, processors see the data, and they see all data of earlier
    /// writes before it.
    fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError>;

    /// Replaces the 8 bytes at an aligned address by `new` if they are `current`, atomically also
    /// with respect to processors. Returns the previous value: `current` if they were replaced.
    fn compare_exchange(&self, address: u64, current: u64, new: u64) -> Result<u64, MemoryError>;

    /// Reads a little-endian word of 8 bytes at an aligned address, atomically.
    fn read_u64(&self, address: u64) -> Result<u64, MemoryError> {
        let mut data = [0; 8];
        self.read(address, &mut data)?;
        Ok(u64::from_le_bytes(data))
    }
}

impl<M: Memory + ?Sized> Memory for &M {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        (**self).read(address, data)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        (**self).write(address, data)
    }

    fn compare_exchange(&self, address: u64, current: u64, new: u64) -> Result<u64, MemoryError> {
        (**self).compare_exchange(address, current, new)
    }

    fn read_u64(&self, address: u64) -> Result<u64, MemoryError> {
        (**self).read_u64(address)
    }
}

/// Reads `N` little-endian words, by 16 bytes at a time as hardware does.
pub(crate) fn read_words<const N: usize>(
    memory: &impl Memory,
    address: u64,
) -> Result<[u64; N], MemoryError> {
    let mut words = [0; N];
    let mut at = address;
    for pair in words.chunks_mut(2) {
        let mut data = [0; 16];
        let data = &mut data[..pair.len() * 8];
        memory.read(at, data)?;
        for (word, bytes) in pair.iter_mut().zip(data.chunks_exact(8)) {
            let mut le = [0; 8];
            le.copy_from_slice(bytes);
            *word = u64::from_le_bytes(le);
        }
        at = at.wrapping_add(16);
    }
    Ok(words)
}
