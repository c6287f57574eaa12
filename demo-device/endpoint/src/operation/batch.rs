// SPDX-License-Identifier: MIT OR Apache-2.0
//! A batch: an array of descriptors, performed one after another like those of the ring. This
//! module tracks their completion, and knows neither how the array is read nor how its entries are
//! performed.

use super::fields::{judge, transfer, zero};
use crate::access::Failure;
use crate::completion;
use svm_abi::completion::{Completion, Error};
use svm_abi::descriptor::{Descriptor, SIZE, batch, flags};

/// A batch in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    descriptor: Descriptor,
    /// Entries that have completed.
    done: u64,
    succeeded: u64,
    /// Address of the first entry that failed.
    first_failed: Option<u64>,
}

impl Batch {
    /// Checks the fields of a batch descriptor, and begins.
    pub fn start(d: &Descriptor) -> Result<Self, Failure> {
        judge(d)?;
        zero(d.destination | d.operand0 | d.operand1)?;
        if d.source % batch::ALIGNMENT != 0 {
            return Err(Failure::of(Error::Misaligned));
        }
        if d.length > batch::MAX_ENTRIES {
            return Err(Failure::of(Error::BadLength));
        }
        transfer(d.source, d.length * SIZE as u64)?;
        Ok(Batch {
            descriptor: *d,
            done: 0,
            succeeded: 0,
            first_failed: None,
        })
    }

    /// The descriptor of the batch itself.
    pub fn descriptor(&self) -> Descriptor {
        self.descriptor
    }

    /// Whether pages of the array that are not present are requested.
    pub fn blocks(&self) -> bool {
        self.descriptor.flags & flags::BLOCK_ON_FAULT != 0
    }

    /// Address of the next entry.
    fn entry(&self) -> u64 {
        self.descriptor.source + self.done * SIZE as u64
    }

    /// Address and number of the entries that have not completed; none if all have.
    pub fn rest(&self) -> Option<(u64, u64)> {
        let count = self.descriptor.length - self.done;
        (count > 0).then(|| (self.entry(), count))
    }

    /// Whether the next entry may begin: not if it has a fence and an earlier entry failed.
    pub fn admits(&self, entry: &Descriptor) -> bool {
        entry.flags & flags::FENCE == 0 || self.first_failed.is_none()
    }

    /// An entry has completed.
    pub fn note(&mut self, failed: bool) {
        if failed {
            let entry = self.entry();
            self.first_failed.get_or_insert(entry);
        } else {
            self.succeeded += 1;
        }
        self.done += 1;
    }

    /// The record of the batch at its end.
    pub fn record(&self) -> Completion {
        match self.first_failed {
            None => completion::success(self.done, self.succeeded),
            Some(address) => self.failure(&Failure {
                address,
                ..Failure::of(Error::EntryFailed)
            }),
        }
    }

    /// The record of the batch if it ends early.
    pub fn failure(&self, failure: &Failure) -> Completion {
        Completion {
            result: self.succeeded,
            ..completion::failure(self.done, failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use svm_abi::completion::status;

    fn batch(length: u64) -> Batch {
        Batch::start(&Descriptor {
            source: 0x1000,
            length,
            ..Descriptor::default()
        })
        .unwrap()
    }

    #[test]
    fn a_batch_counts_what_succeeded_and_remembers_the_first_failure() {
        let mut b = batch(4);
        for failed in [false, true, false, true] {
            assert!(b.rest().is_some());
            b.note(failed);
        }
        assert_eq!(b.rest(), None);
        let record = b.record();
        assert_eq!(record.status, status::FAILURE);
        assert_eq!(record.error, Error::EntryFailed as u8);
        assert_eq!((record.bytes_done, record.result), (4, 2));
        assert_eq!(record.fault_address, 0x1040);
        let record = batch(0).record();
        assert_eq!(record.status, status::SUCCESS);
    }

    #[test]
    fn a_fence_is_admitted_as_long_as_nothing_failed() {
        let mut b = batch(3);
        let fence = Descriptor {
            flags: flags::FENCE,
            ..Descriptor::default()
        };
        b.note(false);
        assert!(b.admits(&fence));
        b.note(true);
        assert!(!b.admits(&fence) && b.admits(&Descriptor::default()));
        assert_eq!(b.rest(), Some((0x1080, 1)));
    }
}
