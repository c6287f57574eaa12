// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files as memory.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, ensure};
use memmap2::{Mmap, MmapMut, MmapOptions};

/// The length of a file that can be mapped.
///
/// # Errors
///
/// It is not a regular file, or it has contents but no length, as files in `/proc`.
pub fn length(file: &File) -> anyhow::Result<u64> {
    let metadata = file.metadata()?;
    ensure!(
        metadata.is_file(),
        "not a regular file: only those can be mapped"
    );
    if metadata.len() == 0 {
        let mut file = file;
        let read = file.read(&mut [0])?;
        ensure!(
            read == 0,
            "the file has contents but no length, as those in /proc: it cannot be mapped"
        );
    }
    Ok(metadata.len())
}

/// Maps a file for reading, privately. No page of it is present before it is accessed.
///
/// # Errors
///
/// Those of `mmap`.
pub fn map_read(file: &File, length: u64) -> anyhow::Result<Mmap> {
    let length = usize::try_from(length).context("the file is larger than the address space")?;
    // SAFETY: the program itself reads the bytes only if it created the file. Otherwise only the
    // device reads them, and it tolerates changes by other processes.
    Ok(unsafe { MmapOptions::new().len(length).map(file) }?)
}

/// Maps a file for writing, shared with all processes that have it open.
///
/// # Errors
///
/// Those of `mmap`.
pub fn map_write(file: &File, length: u64) -> anyhow::Result<MmapMut> {
    let length = usize::try_from(length).context("the file is larger than the address space")?;
    // SAFETY: as for `map_read`.
    Ok(unsafe { MmapOptions::new().len(length).map_mut(file) }?)
}
