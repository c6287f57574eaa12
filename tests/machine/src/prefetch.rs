// SPDX-License-Identifier: MIT OR Apache-2.0
//! A hint to the processor that memory will be accessed soon.

#![expect(unsafe_code, reason = "the instruction has no safe name")]

/// Fetches the cache line of a place, which need not exist. Does nothing where the processor is
/// another one.
#[inline(always)]
pub(crate) fn prefetch(place: *const u8) {
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
