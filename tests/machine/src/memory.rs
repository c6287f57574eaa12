// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory: one range from address 0 on, kept by the `vm-memory` crate. Remapping units see
//! it as [`vtd::memory::Memory`], virtual machine monitors as [`GuestMemoryMmap`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use vm_memory::mmap::FromRangesError;
use vm_memory::{
    GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion, VolatileMemory, VolatileSlice,
};
use vtd::memory::{Memory, MemoryError};

/// The most bytes of guest memory: it ends below the interrupt address range.
pub const MAX_BYTES: u64 = 2 << 30;

/// Guest memory that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// The size is not possible.
    #[error(
        "guest memory has a multiple of 4096 bytes, at most {MAX_BYTES:#x}, not {0:#x}: choose \
         such a number"
    )]
    Size(u64),
    /// The host has no room for it.
    #[error("guest memory of {bytes:#x} bytes cannot be mapped: {source}")]
    Map {
        /// The size.
        bytes: u64,
        /// Why.
        source: FromRangesError,
    },
}

/// Guest memory.
#[derive(Clone, Debug)]
pub struct Ram {
    memory: GuestMemoryMmap<()>,
    /// The one mapping of `memory`, which begins at address 0: every access needs it.
    mapping: Arc<MmapRegion<()>>,
    bytes: u64,
}

impl Ram {
    /// Memory of a number of bytes, all zero.
    pub fn new(bytes: u64) -> Result<Ram, RamError> {
        if bytes == 0 || bytes % 4096 != 0 || bytes > MAX_BYTES {
            return Err(RamError::Size(bytes));
        }
        let map = || {
            let mapping = Arc::new(MmapRegion::new(bytes as usize)?);
            let region = GuestRegionMmap::with_arc(Arc::clone(&mapping), GuestAddress(0))
                .ok_or(FromRangesError::InvalidGuestRegion)?;
            let memory = GuestMemoryMmap::from_regions(vec![region])?;
            Ok((memory, mapping))
        };
        let (memory, mapping) = map().map_err(|source| RamError::Map { bytes, source })?;
        Ok(Ram {
            memory,
            mapping,
            bytes,
        })
    }

    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The memory as `vm-memory` knows it.
    pub fn guest_memory(&self) -> &GuestMemoryMmap<()> {
        &self.memory
    }

    /// All bytes of memory, where they lie.
    pub(crate) fn all(&self) -> VolatileSlice<'_> {
        self.mapping.as_volatile_slice()
    }

    /// Bytes of memory, where they lie.
    pub fn slice(&self, address: u64, length: usize) -> Result<VolatileSlice<'_>, MemoryError> {
        self.mapping
            .get_slice(address as usize, length)
            .map_err(|_| MemoryError { address })
    }

    /// The 8 bytes at an aligned address as an atomic number. It is little-endian, as is the host:
    /// a VT-d machine is.
    fn word(&self, address: u64) -> Result<&AtomicU64, MemoryError> {
        const {
            assert!(cfg!(all(
                target_endian = "little",
                target_pointer_width = "64"
            )))
        };
        self.mapping
            .get_atomic_ref(address as usize)
            .map_err(|_| MemoryError { address })
    }

    /// Reads 8 bytes at an aligned address.
    pub fn load(&self, address: u64) -> Result<u64, MemoryError> {
        Ok(self.word(address)?.load(Ordering::Acquire))
    }

    /// Writes 8 bytes at an aligned address.
    pub fn store(&self, address: u64, value: u64) -> Result<(), MemoryError> {
        self.word(address)?.store(value, Ordering::Release);
        Ok(())
    }

    /// Replaces the 8 bytes at an aligned address, and returns what they were.
    pub fn swap(&self, address: u64, value: u64) -> Result<u64, MemoryError> {
        Ok(self.word(address)?.swap(value, Ordering::AcqRel))
    }

    /// Adds to the 8 bytes at an aligned address, and returns what they were.
    pub fn fetch_add(&self, address: u64, addend: u64) -> Result<u64, MemoryError> {
        Ok(self.word(address)?.fetch_add(addend, Ordering::AcqRel))
    }

    /// Sets bytes. Those that are so already are not written: memory that nothing was written to
    /// takes none of the host's.
    pub fn fill(&self, address: u64, length: usize, byte: u8) -> Result<(), MemoryError> {
        const PIECE: usize = 4096;
        let (bytes, mut found) = ([byte; PIECE], [0; PIECE]);
        for at in (0..length).step_by(PIECE) {
            let (place, size) = (address + at as u64, PIECE.min(length - at));
            self.slice(place, size)?.copy_to(&mut found[..size]);
            if found[..size] != bytes[..size] {
                self.write(place, &bytes[..size])?;
            }
        }
        Ok(())
    }
}

impl Memory for Ram {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        match data.len() {
            8 if address % 8 == 0 => data.copy_from_slice(&self.load(address)?.to_le_bytes()),
            16 if address % 16 == 0 => {
                // There is no atomic access of 16 bytes: read until two looks agree.
                let look = || Ok((self.load(address)?, self.load(address + 8)?));
                let mut seen = look()?;
                loop {
                    let again = look()?;
                    if again == seen {
                        break;
                    }
                    seen = again;
                }
                data[..8].copy_from_slice(&seen.0.to_le_bytes());
                data[8..].copy_from_slice(&seen.1.to_le_bytes());
            }
            length => {
                self.slice(address, length)?.copy_to(data);
                fence(Ordering::Acquire);
            }
        }
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        if let (8, Ok(word)) = (data.len(), <[u8; 8]>::try_from(data)) {
            if address % 8 == 0 {
                return self.store(address, u64::from_le_bytes(word));
            }
        }
        let slice = self.slice(address, data.len())?;
        fence(Ordering::Release);
        slice.copy_from(data);
        Ok(())
    }

    fn compare_exchange(&self, address: u64, current: u64, new: u64) -> Result<u64, MemoryError> {
        let word = self.word(address)?;
        Ok(word
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            .unwrap_or_else(|found| found))
    }

    fn read_u64(&self, address: u64) -> Result<u64, MemoryError> {
        self.load(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for bytes in [0, 4095, MAX_BYTES + 4096] {
            assert!(matches!(Ram::new(bytes), Err(RamError::Size(_))));
        }
    }

    #[test]
    fn bytes_are_set_from_the_first_to_the_last() {
        let ram = Ram::new(0x4000).unwrap();
        let bytes = |at, length| {
            let mut bytes = vec![0; length];
            ram.read(at, &mut bytes).unwrap();
            bytes
        };
        // Some of a page are so already, and all of another.
        ram.fill(0xffe, 0x1003, 7).unwrap();
        ram.fill(0xff0, 0x2020, 7).unwrap();
        assert_eq!(bytes(0xfef, 2), [0, 7]);
        assert_eq!(bytes(0xff0, 0x2020), [7; 0x2020]);
        assert_eq!(bytes(0x300f, 2), [7, 0]);
        ram.fill(0, 0x4000, 0).unwrap();
        assert_eq!(bytes(0, 0x4000), [0; 0x4000]);
        assert!(ram.fill(0x3fff, 2, 0).is_err());
    }

    #[test]
    fn accesses_of_every_size_agree_and_end_with_memory() {
        let ram = Ram::new(0x2000).unwrap();
        ram.write(0x101, &[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
        assert_eq!(ram.load(0x100), Ok(0x0706_0504_0302_0100));
        let mut pair = [0; 16];
        ram.read(0x100, &mut pair).unwrap();
        assert_eq!(pair[8..10], [8, 9]);
        ram.write(0x108, &7u64.to_le_bytes()).unwrap();
        assert_eq!(ram.fetch_add(0x108, 3), Ok(7));
        assert_eq!(ram.compare_exchange(0x108, 7, 1), Ok(10));
        assert_eq!(ram.compare_exchange(0x108, 10, 1), Ok(10));
        assert_eq!(ram.swap(0x108, 5), Ok(1));
        let outside = Err(MemoryError { address: 0x1ff9 });
        assert_eq!(ram.write(0x1ff9, &[0; 8]), outside);
        assert!(ram.read(0x2000, &mut [0]).is_err());
        assert!(ram.read(u64::MAX - 3, &mut [0; 8]).is_err());
        assert!(ram.load(0x2000).is_err());
        assert!(ram.load(0x104 + 2).is_err());
    }
}
