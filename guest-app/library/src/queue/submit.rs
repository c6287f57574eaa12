// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handing descriptors to the device. What is `unsafe` here is that the caller says which memory
//! the device may reach; the memory of the queue itself is safe with [`Ring`](crate::ring::Ring).

use std::time::Instant;

use svm_abi::completion::Completion;
use svm_abi::doorbell;

use super::{Pending, Queue, State, Ticket};
use crate::batch::Batch;
use crate::descriptor::Descriptor;
use crate::error::{Error, Failure};

impl Queue {
    /// Puts a descriptor into the ring; the device sees it after [`Queue::flush`], or when a
    /// ticket is waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], [`Error::Stopped`], [`Error::Forked`], and those of [`Queue::wait`] if the
    /// context ends while the place in the ring becomes free; nothing is submitted then.
    ///
    /// # Safety
    ///
    /// From now on until the ticket was waited for, or the queue was stopped or dropped, the
    /// device may at any time read the descriptor's source and read and write its destination,
    /// in this process's address space and without regard to borrows. The caller has to make
    /// sure that this breaks no promise of Rust: the destination is memory that nobody else
    /// refers to, or that is accessed by atomic accesses alone; the source is not freed, nor
    /// used for what the device must not see. An address where nothing is mapped, or not with
    /// the permission, fails the descriptor and harms nobody, as long as nothing comes to be
    /// mapped there.
    pub unsafe fn push(&mut self, descriptor: &Descriptor) -> Result<Ticket, Error> {
        self.check_owner()?;
        if !self.running {
            return Err(Error::Stopped);
        }
        let number = self.next;
        let place = number as usize & (self.ring.capacity() - 1);
        if let Some(pending) = self.places[place] {
            return Err(Error::Full {
                oldest: pending.number,
            });
        }
        self.await_place(number)?;
        let completion = self.ring.record_address(number);
        self.ring.write(number, &descriptor.words(completion));
        self.places[place] = Some(Pending {
            number,
            interrupts: descriptor.interrupts(),
        });
        self.next += 1;
        Ok(Ticket {
            queue: self.id,
            number,
        })
    }

    /// Waits until the place of descriptor `number` in the ring is free. The record of the
    /// descriptor that had it was seen, and HEAD follows the record at once.
    fn await_place(&mut self, number: u64) -> Result<(), Error> {
        let free = |head: u64| number - head < self.ring.capacity() as u64;
        if free(self.head) {
            return Ok(());
        }
        loop {
            // All ones if there is no device any more: no number of descriptors.
            let head = self.file.read_doorbell(doorbell::HEAD);
            if head <= number && free(head) {
                self.head = head;
                return Ok(());
            }
            if self.state()? != State::Enabled {
                return Err(self.trouble());
            }
            std::thread::yield_now();
        }
    }

    /// Tells the device of all descriptors that were pushed, by one write to the doorbell.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], [`Error::Forked`].
    pub fn flush(&mut self) -> Result<(), Error> {
        self.check_owner()?;
        if !self.running {
            return Err(Error::Stopped);
        }
        self.ring_doorbell();
        Ok(())
    }

    pub(super) fn ring_doorbell(&mut self) {
        if self.rung != self.next {
            self.ring.publish();
            // SAFETY: each descriptor up to `next` was pushed, by a caller that promised that the
            // device may work on it.
            unsafe { self.file.write_tail(self.next) };
            self.rung = self.next;
        }
    }

    /// Submits one descriptor.
    ///
    /// # Errors
    ///
    /// As [`Queue::push`].
    ///
    /// # Safety
    ///
    /// As [`Queue::push`].
    pub unsafe fn submit(&mut self, descriptor: &Descriptor) -> Result<Ticket, Error> {
        // SAFETY: passed on to the caller.
        let ticket = unsafe { self.push(descriptor) }?;
        self.ring_doorbell();
        Ok(ticket)
    }

    /// Submits a descriptor and waits for it, no longer than the time limit.
    ///
    /// # Errors
    ///
    /// Those of [`Queue::push`] and [`Queue::wait`], [`Error::TimedOut`], and [`Error::Failed`].
    /// If the device may not be done, the queue was stopped; where not even that is possible, the
    /// process is ended.
    ///
    /// # Safety
    ///
    /// As [`Queue::push`], but only until the return: the device is done then.
    pub unsafe fn execute(&mut self, descriptor: &Descriptor) -> Result<Completion, Error> {
        let deadline = self.deadline();
        // SAFETY: passed on to the caller; that the promise has to hold no longer than this call
        // is seen to below.
        let ticket = unsafe { self.submit(descriptor) }?;
        match self.wait_until(&ticket, deadline) {
            Ok(Some(record)) => match Failure::of(&record) {
                None => Ok(record),
                Some(failure) => Err(failure.into()),
            },
            Ok(None) => {
                self.stop_or_abort();
                Err(Error::TimedOut)
            }
            Err(error) => {
                self.stop_or_abort();
                Err(error)
            }
        }
    }

    /// Submits several descriptors, by one write to the doorbell, and waits for all; each has
    /// its record, which says whether it succeeded.
    ///
    /// # Errors
    ///
    /// As [`Queue::execute`], but not [`Error::Failed`]. If one is not submitted, as with
    /// [`Error::Full`], none is executed, and the queue was stopped.
    ///
    /// # Safety
    ///
    /// As [`Queue::execute`].
    pub unsafe fn execute_all(
        &mut self,
        descriptors: &[Descriptor],
    ) -> Result<Vec<Completion>, Error> {
        self.check_owner()?;
        // SAFETY: passed on to the caller; that the promise has to hold no longer than this call
        // is seen to here.
        let result = unsafe { self.push_and_wait(descriptors) };
        if result.is_err() {
            self.stop_or_abort();
        }
        result
    }

    /// Submits a batch and waits for it: one descriptor of the ring, one record and one interrupt
    /// for all of its entries. The entries have their records, see [`Batch::record`].
    ///
    /// # Errors
    ///
    /// As [`Queue::execute`]; that an entry failed is none, and is said by the record of the
    /// batch.
    ///
    /// # Safety
    ///
    /// As [`Queue::execute`], for each of its entries.
    pub unsafe fn execute_batch(&mut self, batch: &Batch) -> Result<Completion, Error> {
        // SAFETY: passed on to the caller; the batch's own memory is borrowed during the call, and
        // is changed by `&mut` only.
        match unsafe { self.execute_all(&[batch.descriptor()]) }?.pop() {
            Some(record) => Ok(record),
            None => Err(Error::Stopped),
        }
    }

    /// # Safety
    ///
    /// As [`Queue::push`].
    unsafe fn push_and_wait(
        &mut self,
        descriptors: &[Descriptor],
    ) -> Result<Vec<Completion>, Error> {
        let deadline = self.deadline();
        let mut tickets = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            // SAFETY: passed on to the caller.
            tickets.push(unsafe { self.push(descriptor) }?);
        }
        let mut records = Vec::with_capacity(tickets.len());
        for ticket in &tickets {
            records.push(self.wait_until(ticket, deadline)?.ok_or(Error::TimedOut)?);
        }
        Ok(records)
    }

    /// When an operation that begins now has to be done; a time that cannot be told is never.
    fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.time_limit?)
    }
}
