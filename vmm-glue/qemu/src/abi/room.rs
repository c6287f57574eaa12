// SPDX-License-Identifier: GPL-2.0-or-later
//! Memory for QEMU's structures whose size is known only at run time, and access to their fields by
//! offset.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

/// Alignment of such memory: QEMU's `Int128` needs it.
const ALIGNMENT: usize = 16;

/// Guard bytes after each structure, and their value: QEMU overwrites them if its structure is
/// larger.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xa5;

/// Zeroed memory, like that of QEMU's own objects, followed by the guard.
pub fn allocate<T>(size: usize) -> NonNull<T> {
    let layout = of(size);
    // SAFETY: the size is not 0.
    let memory = unsafe { alloc_zeroed(layout) };
    let Some(memory) = NonNull::new(memory) else {
        handle_alloc_error(layout)
    };
    // SAFETY: there is room for the guard after the structure.
    unsafe { memory.add(size).write_bytes(GUARD_BYTE, GUARD) };
    memory.cast()
}

/// Zeroed memory for a structure that QEMU only reads, and that is never freed. Zeroes follow it,
/// too: if QEMU's structure is larger than in the layout, its additional fields read as unset.
pub fn constant<T>(size: usize) -> NonNull<T> {
    let memory: NonNull<T> = allocate(size);
    // SAFETY: `allocate` has left room for the guard.
    unsafe {
        let behind = memory.as_ptr().cast::<u8>().add(size);
        behind.write_bytes(0, GUARD);
    }
    memory
}

/// Reads memory of this process that may not exist; `None` if it does not.
pub fn peek(address: usize, bytes: &mut [u8]) -> Option<()> {
    let memory = File::open("/proc/self/mem").ok()?;
    memory.read_exact_at(bytes, address as u64).ok()
}

/// Whether nothing was written beyond the end of a structure.
///
/// # Safety
///
/// It came from [`allocate`] with this size.
pub unsafe fn is_intact<T>(memory: NonNull<T>, size: usize) -> bool {
    // SAFETY: the caller's promise; the guard follows the structure.
    let guard =
        unsafe { std::slice::from_raw_parts(memory.as_ptr().cast::<u8>().add(size), GUARD) };
    guard.iter().all(|byte| *byte == GUARD_BYTE)
}

/// Frees memory of [`allocate`].
///
/// # Safety
///
/// It came from there with this size, and is not used any more.
pub unsafe fn free<T>(memory: NonNull<T>, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { dealloc(memory.as_ptr().cast(), of(size)) }
}

/// A size, rounded up to the alignment.
pub fn rounded(size: usize) -> usize {
    size.next_multiple_of(ALIGNMENT)
}

fn of(size: usize) -> Layout {
    match Layout::from_size_align(rounded(size + GUARD), ALIGNMENT) {
        Ok(layout) => layout,
        Err(_) => std::process::abort(), // Half of the address space.
    }
}

/// Reads a field.
///
/// # Safety
///
/// The structure exists and has a field of this type at the offset.
pub unsafe fn read<S, T: Copy>(structure: NonNull<S>, offset: usize) -> T {
    // SAFETY: the caller's promise; the read needs no alignment.
    unsafe {
        structure
            .as_ptr()
            .cast::<u8>()
            .add(offset)
            .cast::<T>()
            .read_unaligned()
    }
}

/// Writes a field.
///
/// # Safety
///
/// As for [`read`], and there is no concurrent access to the field.
pub unsafe fn write<S, T>(structure: NonNull<S>, offset: usize, value: T) {
    // SAFETY: the caller's promise; the write needs no alignment.
    unsafe {
        let field = structure.as_ptr().cast::<u8>().add(offset);
        field.cast::<T>().write_unaligned(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_cannot_be_read() {
        let number = 0x1122_3344_u32;
        let mut bytes = [0; 4];
        let address = (&raw const number).addr();
        assert_eq!(peek(address, &mut bytes), Some(()));
        assert_eq!(u32::from_ne_bytes(bytes), number);
        for nowhere in [0, 8, usize::MAX - 8] {
            assert_eq!(peek(nowhere, &mut bytes), None);
        }
    }

    #[test]
    fn what_is_written_behind_a_structure_is_noticed() {
        const SIZE: usize = 24;
        let room: NonNull<u8> = allocate(SIZE);
        // SAFETY: the room has this size, followed by a guard.
        unsafe {
            write(room, SIZE - 8, u64::MAX);
            assert_eq!(read::<_, u64>(room, 0), 0);
            assert!(is_intact(room, SIZE));
            write(room, SIZE, 0u8);
            assert!(!is_intact(room, SIZE));
            free(room, SIZE);
        }
    }
}
