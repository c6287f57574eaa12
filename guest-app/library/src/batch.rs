// SPDX-License-Identifier: MIT OR Apache-2.0
//! Batches: an array of descriptors with a completion record for each, which takes one descriptor
//! of the ring.

use std::io;

use svm_abi::completion::Completion;

use crate::descriptor::Descriptor;
use crate::ring::Ring;

/// An array of descriptors and their records.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let model = svmctl::model::Model::new()?;
/// # let mut queue = svmctl::Context::with_file(Box::new(model))?.start(4)?;
/// use svmctl::{Batch, Descriptor, region::Region};
///
/// let data = Region::new(8192)?;
/// let mut batch = Batch::new(2)?;
/// batch.set(&[
///     Descriptor::fill(data.at(0), 4096, 7),
///     Descriptor::copy(data.at(0), data.at(4096), 4096).fenced(),
/// ])?;
/// // SAFETY: a region may be written by the device at any time.
/// let record = unsafe { queue.execute_batch(&batch) }?;
/// assert_eq!(record.result, 2);
/// assert_eq!(data.read(4096..4097), [7]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Batch {
    /// In the layout of a ring: descriptors first, then records.
    memory: Ring,
    length: usize,
}

impl Batch {
    /// An empty batch with room for `capacity` descriptors.
    ///
    /// # Errors
    ///
    /// Those of `mmap`.
    pub fn new(capacity: usize) -> io::Result<Batch> {
        let capacity = capacity
            .checked_next_power_of_two()
            .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Batch {
            memory: Ring::new(capacity)?,
            length: 0,
        })
    }

    /// The number of descriptors that fit.
    pub fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// Replaces the entries and clears their records. The entries send no interrupts: the batch
    /// sends one after them.
    ///
    /// A submitted batch must not be changed before it has completed.
    ///
    /// # Errors
    ///
    /// They do not fit; then nothing is changed.
    pub fn set(&mut self, entries: &[Descriptor]) -> Result<(), crate::Error> {
        if entries.len() > self.capacity() {
            return Err(crate::Error::Argument("the batch has no room for so many"));
        }
        for (number, entry) in (0..).zip(entries) {
            let completion = self.memory.record_address(number);
            self.memory.write(number, &entry.quiet().words(completion));
        }
        self.length = entries.len();
        Ok(())
    }

    /// The descriptor that makes the device perform the batch.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::batch(self.memory.start(), self.length as u64)
    }

    /// The memory of the batch.
    pub(crate) fn memory(&self) -> &Ring {
        &self.memory
    }

    /// The record of entry `n`; `None` if it was not performed (yet).
    ///
    /// # Panics
    ///
    /// If the batch has no such entry.
    pub fn record(&self, n: usize) -> Option<Completion> {
        assert!(n < self.length, "entry {n} of a batch of {}", self.length);
        self.memory.completion(n as u64)
    }
}
