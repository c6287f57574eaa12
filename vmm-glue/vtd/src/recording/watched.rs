// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory as a recording sees it: with the accesses of a call as lines. Not of the specification.

use super::text;
use crate::memory::{Memory, MemoryError};
use std::cell::RefCell;
use std::fmt::Write;

/// Memory that records its accesses.
pub struct Watched<'a, M> {
    memory: &'a M,
    lines: Option<RefCell<String>>,
}

impl<'a, M> Watched<'a, M> {
    /// The memory, with its accesses noted if `notes`.
    pub fn new(memory: &'a M, notes: bool) -> Self {
        Watched {
            memory,
            lines: notes.then(RefCell::default),
        }
    }

    /// The accesses, one on each line, if they were noted.
    pub fn into_lines(self) -> Option<String> {
        self.lines.map(RefCell::into_inner)
    }

    fn note(&self, line: impl FnOnce() -> String) {
        if let Some(lines) = &self.lines {
            // Writing to a string does not fail.
            let _ = writeln!(lines.borrow_mut(), "  {}", line());
        }
    }
}

impl<M: Memory> Memory for Watched<'_, M> {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        let result = self.memory.read(address, data);
        let size = data.len();
        self.note(|| match result {
            Ok(()) => format!("reads {address:#x} {size}{}", text::words(data)),
            Err(_) => format!("reads {address:#x} {size} failed"),
        });
        result
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        let result = self.memory.write(address, data);
        let failed = if result.is_err() { " failed" } else { "" };
        self.note(|| {
            let (size, words) = (data.len(), text::words(data));
            format!("writes {address:#x} {size}{words}{failed}")
        });
        result
    }

    fn compare_exchange(&self, address: u64, current: u64, new: u64) -> Result<u64, MemoryError> {
        let result = self.memory.compare_exchange(address, current, new);
        self.note(|| match result {
            Ok(found) => format!("swaps {address:#x} {current:#x} {new:#x} = {found:#x}"),
            Err(_) => format!("swaps {address:#x} {current:#x} {new:#x} = failed"),
        });
        result
    }
}

/// The memory for calls that use none.
pub struct Nowhere;

impl Memory for Nowhere {
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryError> {
        Err(MemoryError { address })
    }

    fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryError> {
        Err(MemoryError { address })
    }

    fn compare_exchange(&self, address: u64, _: u64, _: u64) -> Result<u64, MemoryError> {
        Err(MemoryError { address })
    }
}
