// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a context processes its descriptors: those of its ring and of a batch, their records and
//! interrupts.

use super::Context;
use crate::access::Failure;
use crate::activity::Activity;
use crate::completion::{self, Record, RecordPlace, Tail};
use crate::counters::index;
use crate::dma::Scratch;
use crate::operation::{Batch, Operation};
use crate::ring::Fetch;
use svm_abi::completion::{Completion, Error};
use svm_abi::descriptor::{Descriptor, Operation as Code, flags};
use svm_abi::registers::lost;

impl Context {
    /// Whether the context waits for pages. It always does for its own structures, whatever the
    /// descriptor says, because it cannot work without them.
    pub fn blocks(&self) -> bool {
        match self.activity {
            Activity::Operate(_) => self.descriptor.flags & flags::BLOCK_ON_FAULT != 0,
            Activity::Fetch(_) => self.batch.is_none_or(|batch| batch.blocks()),
            _ => true,
        }
    }

    /// Begins the next activity, if the context is idle and there is one. Returns whether it did.
    pub fn begin(&mut self) -> bool {
        if let Some(batch) = self.batch {
            self.begin_entry(&batch);
            return true;
        }
        match self.fetched.last() {
            Some(descriptor) if descriptor.operation == Code::Batch as u8 => {
                self.take_up();
                match Batch::start(&self.descriptor) {
                    Ok(batch) => self.batch = Some(batch),
                    Err(failure) => self.conclude(&completion::failure(0, &failure)),
                }
                true
            }
            Some(_) => {
                self.take_up();
                self.begin_operation();
                true
            }
            None if self.head < self.tail => {
                let log2 = self.ring_log2 as u32;
                let fetch = Fetch::new(self.ring, log2, self.head, self.tail);
                self.activity = Activity::Fetch(fetch);
                true
            }
            None => false,
        }
    }

    /// Of the descriptors that were read and not begun, the one after `skip` others; none if it
    /// needs more than to be performed.
    pub fn following(&self, skip: usize) -> Option<&Descriptor> {
        let waiting = match self.batch {
            Some(_) => &self.entries,
            None => &self.fetched,
        };
        let at = waiting.len().checked_sub(skip + 1)?;
        let descriptor = &waiting[at];
        if self.batch.is_some_and(|batch| !batch.admits(descriptor)) {
            return None;
        }
        Some(descriptor)
    }

    /// Starts the descriptor that [`Context::following`] returned for 0.
    pub fn take_up(&mut self) {
        let waiting = match self.batch {
            Some(_) => &mut self.entries,
            None => &mut self.fetched,
        };
        if let Some(descriptor) = waiting.last() {
            self.descriptor = *descriptor;
            waiting.pop();
        }
    }

    /// Begins the next step of a batch, or ends it.
    fn begin_entry(&mut self, batch: &Batch) {
        match (self.entries.last(), batch.rest()) {
            (Some(entry), _) if batch.admits(entry) => {
                self.take_up();
                self.begin_operation();
            }
            (None, Some((address, count))) => {
                self.activity = Activity::Fetch(Fetch::array(address, count));
            }
            _ => self.end_batch(&batch.record()),
        }
    }

    /// Begins the operation of the descriptor.
    fn begin_operation(&mut self) {
        if let Err(failure) = Operation::start(&self.descriptor, &mut self.activity) {
            self.conclude(&completion::failure(0, &failure));
        }
    }

    /// Ends a batch whose array cannot be read. Returns false if the failed read was not of an
    /// array.
    pub fn lose_array(&mut self, failure: &Failure) -> bool {
        match self.batch {
            Some(batch) => {
                self.end_batch(&batch.failure(failure));
                true
            }
            None => false,
        }
    }

    /// Ends the batch with its own record.
    fn end_batch(&mut self, record: &Completion) {
        if let Some(batch) = self.batch.take() {
            self.entries.clear();
            self.descriptor = batch.descriptor();
            self.conclude(record);
        }
    }

    /// Stores the descriptors that a fetch read.
    pub fn fetched(&mut self, fetch: &Fetch, scratch: &Scratch) {
        let place = match self.batch {
            Some(_) => &mut self.entries,
            None => &mut self.fetched,
        };
        place.extend(fetch.descriptors(scratch));
        place.reverse();
        self.activity = Activity::Idle;
    }

    /// The destination of the current or last descriptor; 0 if there was none.
    pub fn destination(&self) -> u64 {
        self.descriptor.destination
    }

    /// Changes the destination of the descriptors that were read and not begun: a mutant.
    pub fn redirect(&mut self, destination: u64) {
        for descriptor in &mut self.fetched {
            descriptor.destination = destination;
        }
    }

    /// Ends the descriptor: its record comes next.
    pub fn conclude(&mut self, record: &Completion) {
        self.failed = record.status != svm_abi::completion::status::SUCCESS;
        self.activity = Activity::Complete(Record::new(self.descriptor.completion, record));
    }

    /// The place of the descriptor's record, which may be invalid.
    pub fn record(&self) -> RecordPlace {
        RecordPlace::of(self.descriptor.completion)
    }

    /// What follows the current descriptor, if it succeeds.
    pub fn tail(&self) -> Tail {
        Tail::of(&self.descriptor)
    }

    /// Notes that the record of the descriptor cannot be written.
    pub fn lose_record(&mut self, why: Error) {
        self.lost = lost::encode(why as u8, self.head);
        self.counters.add(index::LOST_COMPLETIONS, 1);
    }

    /// Whether the current descriptor has failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The current descriptor has succeeded.
    pub fn succeed(&mut self) {
        self.failed = false;
    }

    /// Retires the completed descriptor, with or without a record. Returns whether it failed.
    pub fn retire(&mut self) -> bool {
        match &mut self.batch {
            Some(batch) => batch.note(self.failed),
            None => self.head += 1,
        }
        self.activity = Activity::Idle;
        if self.descriptor.flags & flags::INTERRUPT != 0 {
            self.interrupt |= self.moderation.completed();
        }
        self.failed
    }
}
