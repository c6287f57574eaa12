// SPDX-License-Identifier: MIT OR Apache-2.0
//! A context's way through its descriptors: those of its ring and of a batch, their records, and
//! what follows them.

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
    /// The context waits for pages whatever the descriptor says: its own structures are its
    /// owner's business, and cannot be done without.
    pub fn blocks(&self) -> bool {
        match self.activity {
            Activity::Operate(_) => self.descriptor.flags & flags::BLOCK_ON_FAULT != 0,
            Activity::Fetch(_) => self.batch.is_none_or(|batch| batch.blocks()),
            _ => true,
        }
    }

    /// Begins with what is next, if it is idle and there is something. Returns whether it did.
    pub fn begin(&mut self) -> bool {
        if let Some(batch) = self.batch {
            self.begin_entry(&batch);
            return true;
        }
        match self.fetched.pop() {
            Some(descriptor) if descriptor.operation == Code::Batch as u8 => {
                self.descriptor = descriptor;
                match Batch::start(&descriptor) {
                    Ok(batch) => self.batch = Some(batch),
                    Err(failure) => self.conclude(&completion::failure(0, &failure)),
                }
                true
            }
            Some(descriptor) => {
                self.begin_operation(&descriptor);
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

    /// Of the descriptors that were read and not begun, the one that comes after `skip` others;
    /// none if it is not simply to be performed.
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

    /// Takes up the descriptor that [`Context::following`] gave for 0.
    pub fn take_up(&mut self) {
        let waiting = match self.batch {
            Some(_) => &mut self.entries,
            None => &mut self.fetched,
        };
        if let Some(descriptor) = waiting.pop() {
            self.descriptor = descriptor;
        }
    }

    /// Begins with what is next in a batch, or ends it.
    fn begin_entry(&mut self, batch: &Batch) {
        match (self.entries.pop(), batch.rest()) {
            (Some(entry), _) if batch.admits(&entry) => self.begin_operation(&entry),
            (None, Some((address, count))) => {
                self.activity = Activity::Fetch(Fetch::array(address, count));
            }
            _ => self.end_batch(&batch.record()),
        }
    }

    /// Begins the operation of a descriptor.
    fn begin_operation(&mut self, descriptor: &Descriptor) {
        self.descriptor = *descriptor;
        match Operation::start(descriptor) {
            Ok(operation) => self.activity = Activity::Operate(operation),
            Err(failure) => self.conclude(&completion::failure(0, &failure)),
        }
    }

    /// The array of a batch cannot be read. Returns false if it was not an array that was read.
    pub fn lose_array(&mut self, failure: &Failure) -> bool {
        match self.batch {
            Some(batch) => {
                self.end_batch(&batch.failure(failure));
                true
            }
            None => false,
        }
    }

    /// The batch ends with a record of its own.
    fn end_batch(&mut self, record: &Completion) {
        if let Some(batch) = self.batch.take() {
            self.entries.clear();
            self.descriptor = batch.descriptor();
            self.conclude(record);
        }
    }

    /// Takes over the descriptors that a fetch read.
    pub fn fetched(&mut self, fetch: &Fetch, scratch: &Scratch) {
        let place = match self.batch {
            Some(_) => &mut self.entries,
            None => &mut self.fetched,
        };
        place.extend(fetch.descriptors(scratch));
        place.reverse();
        self.activity = Activity::Idle;
    }

    /// Where the descriptor in hand writes, or the last one did; 0 if there was none.
    pub fn destination(&self) -> u64 {
        self.descriptor.destination
    }

    /// Has the descriptors that were read and not begun write elsewhere: a mutant.
    pub fn redirect(&mut self, destination: u64) {
        for descriptor in &mut self.fetched {
            descriptor.destination = destination;
        }
    }

    /// The descriptor has ended: its record comes next.
    pub fn conclude(&mut self, record: &Completion) {
        self.failed = record.status != svm_abi::completion::status::SUCCESS;
        self.activity = Activity::Complete(Record::new(self.descriptor.completion, record));
    }

    /// Whether the record of the descriptor can be written at all.
    pub fn record(&self) -> RecordPlace {
        RecordPlace::of(self.descriptor.completion)
    }

    /// What follows the descriptor in hand, if it succeeds.
    pub fn tail(&self) -> Tail {
        Tail::of(&self.descriptor)
    }

    /// The record of the descriptor cannot be written.
    pub fn lose_record(&mut self, why: Error) {
        self.lost = lost::encode(why as u8, self.head);
        self.counters.add(index::LOST_COMPLETIONS, 1);
    }

    /// Whether the descriptor in hand has failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The descriptor in hand has succeeded.
    pub fn succeed(&mut self) {
        self.failed = false;
    }

    /// The descriptor has been completed, with or without a record. Returns whether it failed.
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
