// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last actions of a process, in memory that another process can read after its death.

use std::fs::File;
use std::sync::Mutex;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::MapFlags;

use crate::system::mapping::{BOTH, Mapping, Memory};

/// Length of an entry; longer ones are truncated.
const ENTRY: usize = 256;
/// Number of entries kept.
const ENTRIES: usize = 31;

/// The last actions of a process: a word that counts them, then the entries.
#[derive(Debug)]
pub struct Log {
    memory: Mapping,
    /// Threads of one process write one after the other.
    writing: Mutex<()>,
}

impl Log {
    /// An empty log, shared with the future children of this process.
    ///
    /// # Errors
    ///
    /// Those of creating and mapping an in-memory file.
    pub fn new() -> anyhow::Result<Log> {
        let file = File::from(memfd_create(c"log", MFdFlags::MFD_CLOEXEC)?);
        let len = ENTRY * (ENTRIES + 1);
        file.set_len(len as u64)?;
        Ok(Log {
            memory: Mapping::file(&file, len, BOTH, MapFlags::MAP_SHARED)?,
            writing: Mutex::new(()),
        })
    }

    /// How many entries were written.
    pub fn count(&self) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.memory.read(0..8));
        u64::from_le_bytes(word)
    }

    fn place(number: u64) -> usize {
        ENTRY * (1 + number as usize % ENTRIES)
    }

    /// Writes an entry before its action is performed.
    pub fn write(&self, text: &str) {
        // A thread that panicked has left the log consistent: the count is written last.
        let _guard = self
            .writing
            .lock()
            .unwrap_or_else(|error| error.into_inner());
        let number = self.count();
        let mut entry = [0; ENTRY];
        let len = text.len().min(ENTRY);
        entry[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.memory.write(Log::place(number), &entry);
        self.memory.write(0, &(number + 1).to_le_bytes());
    }

    /// The last entries, the oldest first.
    pub fn last(&self) -> Vec<String> {
        let count = self.count();
        let first = count.saturating_sub(ENTRIES as u64);
        (first..count)
            .map(|number| {
                let place = Log::place(number);
                let entry = self.memory.read(place..place + ENTRY);
                let text = String::from_utf8_lossy(&entry);
                format!("{number}: {}", text.trim_end_matches('\0'))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entries_are_kept() {
        let log = Log::new().unwrap();
        for n in 0..100 {
            log.write(&format!("entry {n}"));
        }
        let last = log.last();
        assert_eq!((log.count(), last.len()), (100, ENTRIES));
        assert_eq!(last.first().unwrap(), "69: entry 69");
        assert_eq!(last.last().unwrap(), "99: entry 99");
        log.write(&"x".repeat(1000));
        assert_eq!(log.last().pop().unwrap().len(), "100: ".len() + ENTRY);
    }
}
