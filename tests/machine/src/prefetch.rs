// SPDX-License-Identifier: MIT OR Apache-2.0
//! A hint to the processor that memory will be accessed soon.

#![expect(unsafe_code, reason = "the instruction has no safe name")]

use vm_memory::VolatileSlice;

/// Fetches the cache line of an address, counted from the beginning of memory, which need not be in
/// it. Does nothing where the processor is another one.
#[inline(always)]
pub(crate) fn prefetch(memory: &VolatileSlice<'_>, address: u64) {
    let place = memory.ptr_guard().as_ptr().wrapping_add(address as usize);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction accesses nothing: it has no effect on memory, and where there is
    // none, it does nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_outside_of_memory_does_no_harm() {
        let mut bytes = [0; 8];
        let memory = VolatileSlice::from(&mut bytes[..]);
        for address in [0, 8, 1 << 40, u64::MAX] {
            prefetch(&memory, address);
        }
    }
}
