// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device's counters, for the whole device and for each context.
//!
//! The same counters appear in the registers (of the device and of each context) and, for one
//! context, in its doorbell page. Each is 64 bits wide, read-only, wraps, and is cleared by a reset
//! of the function. A context's counters are cleared when the context is started and when its PASID
//! is written, so that one process does not see the activity of another.

/// Declares the counters once: constants by name, and the table for manuals and tools.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident = $index:literal, $key:literal;)+) => {
        /// Positions of the counters in a counter block, in units of 8 bytes.
        pub mod index {
            $($(#[doc = $doc])+ pub const $name: usize = $index;)+
        }
        /// Every counter: its name in tools, its position, and what it counts.
        pub const COUNTERS: &[Counter] = &[
            $(Counter { key: $key, index: $index, doc: concat!($($doc),+) },)+
        ];
    };
}

/// One counter of a counter block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Name in tools and files.
    pub key: &'static str,
    /// Position in the block, in units of 8 bytes.
    pub index: usize,
    /// What is counted.
    pub doc: &'static str,
}

counters! {
    /// Descriptors completed, whether they succeeded or failed.
    DESCRIPTORS = 0, "descriptors";
    /// Descriptors that completed with an error.
    FAILED_DESCRIPTORS = 1, "failed_descriptors";
    /// Completion records that the device could not write because their address was not writable.
    LOST_COMPLETIONS = 2, "lost_completions";
    /// ATS translation requests sent (PCIe 10.2.2).
    TRANSLATION_REQUESTS = 3, "translation_requests";
    /// Look-ups that the address translation cache answered.
    ATC_HITS = 4, "atc_hits";
    /// Look-ups that the address translation cache could not answer.
    ATC_MISSES = 5, "atc_misses";
    /// Entries of the address translation cache that were evicted for others.
    ATC_EVICTIONS = 6, "atc_evictions";
    /// Invalidation requests received (PCIe 10.3.1).
    INVALIDATIONS = 7, "invalidations";
    /// Entries of the address translation cache that invalidations removed.
    INVALIDATED_ENTRIES = 8, "invalidated_entries";
    /// Page requests sent: pages, not groups (PCIe 10.4.1).
    PAGE_REQUESTS = 9, "page_requests";
    /// Page request group responses received (PCIe 10.4.2).
    PRG_RESPONSES = 10, "prg_responses";
    /// Bytes read from memory.
    BYTES_READ = 11, "bytes_read";
    /// Bytes written to memory.
    BYTES_WRITTEN = 12, "bytes_written";
    /// Interrupt messages sent, each counted before it is sent.
    INTERRUPTS = 13, "interrupts";
}

/// Number of counters in a block.
pub const COUNT: usize = 14;
/// Size of a counter block in bytes.
pub const BLOCK_SIZE: u64 = 8 * COUNT as u64;
