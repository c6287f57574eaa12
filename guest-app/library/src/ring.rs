// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory of a queue: the submission ring, a completion record for each of its slots, and a
//! mark that distinguishes the process that created it from its children.
//!
//! Process and device access this memory at the same time: every access is atomic. The module knows
//! neither the meaning of descriptors nor the device.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use svm_abi::completion::{self, Completion};
use svm_abi::descriptor::{self, Descriptor};

use crate::region::{Advice, Region};

const DESCRIPTOR_WORDS: usize = descriptor::SIZE / 8;
const RECORD_WORDS: usize = completion::SIZE / 8;

/// Ring, records and mark, in one region: the ring first, aligned to a page.
#[derive(Debug)]
pub(crate) struct Ring {
    region: Arc<Region>,
    capacity: usize,
}

impl Ring {
    /// A ring of `capacity` descriptors, a power of two.
    pub(crate) fn new(capacity: usize) -> io::Result<Ring> {
        let region = Region::new(Ring::bytes(capacity))?;
        // A child must not use the queue. It finds zeros and detects that it is a child, and the
        // parent needs no copy of the ring.
        region.advise(Advice::WipeOnFork)?;
        let region = Arc::new(region);
        let ring = Ring { region, capacity };
        ring.mark().store(1, Ordering::Relaxed);
        Ok(ring)
    }

    /// Size in bytes of a ring of `capacity` descriptors, with its records and mark.
    pub(crate) const fn bytes(capacity: usize) -> usize {
        (capacity * (DESCRIPTOR_WORDS + RECORD_WORDS) + 1) * 8
    }

    /// The memory.
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Descriptors of the ring.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Start of the ring.
    pub(crate) fn start(&self) -> *const u8 {
        self.region.at(0)
    }

    /// Address of the ring.
    pub(crate) fn address(&self) -> u64 {
        self.region.address(0)
    }

    fn mark(&self) -> &AtomicU64 {
        &self.region.words()[self.capacity * (DESCRIPTOR_WORDS + RECORD_WORDS)]
    }

    /// Whether this process created the ring, and is not a child of the one that did.
    pub(crate) fn is_ours(&self) -> bool {
        self.mark().load(Ordering::Relaxed) != 0
    }

    fn place(&self, number: u64) -> usize {
        number as usize & (self.capacity - 1)
    }

    fn record_start(&self, number: u64) -> usize {
        self.capacity * DESCRIPTOR_WORDS + self.place(number) * RECORD_WORDS
    }

    /// Address of the completion record of descriptor `number`.
    pub(crate) fn record_address(&self, number: u64) -> u64 {
        self.region.address(self.record_start(number) * 8)
    }

    /// Clears the record of descriptor `number` and writes its words to the ring. The device sees
    /// them after [`publish`](Ring::publish) and a write to the doorbell.
    pub(crate) fn write(&self, number: u64, words: &Descriptor) {
        let memory = self.region.words();
        let record = self.record_start(number);
        for word in &memory[record..record + RECORD_WORDS] {
            word.store(0, Ordering::Relaxed);
        }
        let start = self.place(number) * DESCRIPTOR_WORDS;
        let bytes = words.to_bytes();
        for (to, from) in memory[start..].iter().zip(bytes.chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(from);
            to.store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }

    /// Orders everything that was written before, ring and data, before the doorbell.
    pub(crate) fn publish(&self) {
        fence(Ordering::SeqCst);
    }

    /// The completion record of descriptor `number`, once the device has written it. Then all data
    /// of the operation are visible.
    pub(crate) fn completion(&self, number: u64) -> Option<Completion> {
        let start = self.record_start(number);
        let record = &self.region.words()[start..start + RECORD_WORDS];
        // The status is in the first word, which the device writes last.
        let first = record[0].load(Ordering::Acquire);
        if first.to_ne_bytes()[completion::STATUS] == completion::status::PENDING {
            return None;
        }
        let mut bytes = [0; completion::SIZE];
        bytes[..8].copy_from_slice(&first.to_ne_bytes());
        for (to, from) in bytes[8..].chunks_exact_mut(8).zip(&record[1..]) {
            to.copy_from_slice(&from.load(Ordering::Relaxed).to_ne_bytes());
        }
        Some(Completion::from_bytes(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_stands_at_its_place_and_wraps() {
        let ring = Ring::new(4).unwrap();
        let words = Descriptor {
            operation: 1,
            source: 0x1122_3344_5566_7788,
            ..Descriptor::default()
        };
        ring.write(6, &words);
        let at = 2 * descriptor::SIZE;
        let bytes = ring.region.read(at..at + descriptor::SIZE);
        assert_eq!(Descriptor::from_bytes(&bytes.try_into().unwrap()), words);
        assert_eq!(ring.record_address(6), ring.record_address(2));
    }

    #[test]
    fn ring_and_records_are_aligned_and_do_not_meet() {
        for log2 in 0..8 {
            let ring = Ring::new(1 << log2).unwrap();
            assert_eq!(ring.address() % descriptor::SIZE as u64, 0);
            let ring_end = ring.address() + (descriptor::SIZE << log2) as u64;
            assert!(ring.record_address(0) >= ring_end);
            assert_eq!(ring.record_address(0) % completion::SIZE as u64, 0);
            assert!(ring.is_ours());
        }
    }

    #[test]
    fn a_record_counts_when_its_status_is_written() {
        let ring = Ring::new(2).unwrap();
        ring.write(1, &Descriptor::default());
        assert_eq!(ring.completion(1), None);
        let record = Completion {
            status: completion::status::SUCCESS,
            bytes_done: 12,
            result: 34,
            ..Completion::default()
        };
        let at = (ring.record_address(1) - ring.address()) as usize;
        ring.region.write(at + 8, &record.to_bytes()[8..]);
        assert_eq!(ring.completion(1), None);
        ring.region.write(at, &record.to_bytes()[..8]);
        assert_eq!(ring.completion(1), Some(record));
        assert_eq!(ring.completion(0), None);
        // Reusing the slot clears the record.
        ring.write(3, &Descriptor::default());
        assert_eq!(ring.completion(3), None);
    }
}
