// SPDX-License-Identifier: MIT OR Apache-2.0
//! Submitting descriptors to the device. This is `unsafe` because the caller chooses the memory
//! that the device accesses; [`Ring`](crate::ring::Ring) makes the memory of the queue itself safe.

use std::time::Instant;

use svm_abi::completion::Completion;
use svm_abi::doorbell;

use super::{Pending, Queue, State, Ticket};
use crate::batch::Batch;
use crate::descriptor::Descriptor;
use crate::error::{Error, Failure};

impl Queue {
    /// Puts a descriptor into the ring; the device sees it after [`Queue::flush`], or when the
    /// program waits for a ticket.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], [`Error::Stopped`], [`Error::Forked`], and those of [`Queue::wait`] if the
    /// context ends before the slot in the ring becomes free; then nothing is submitted.
    ///
    /// # Safety
    ///
    /// Until the wait for the ticket returns, or the queue is stopped or dropped, the device may at
    /// any time read the descriptor's source and read and write its destination, in this process's
    /// address space and regardless of borrows. The caller has to ensure that this is sound in
    /// Rust: the destination is memory without other references, or with only atomic accesses; the
    /// source is not freed, and not reused for data that the device must not see. An address that
    /// is not mapped, or not with the permission, only fails the descriptor, as long as nothing is
    /// mapped there meanwhile.
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

    /// Waits until the slot of descriptor `number` in the ring is free. The record of its previous
    /// descriptor was seen, and HEAD follows the record at once.
    fn await_place(&mut self, number: u64) -> Result<(), Error> {
        let free = |head: u64| number - head < self.ring.capacity() as u64;
        if free(self.head) {
            return Ok(());
        }
        loop {
            // All ones if the device is gone: not a valid number of descriptors.
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

    /// Submits all pushed descriptors to the device, with one write to the doorbell.
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
            // SAFETY: the caller that pushed a descriptor has guaranteed that the device may work
            // on it; this holds for all descriptors up to `next`.
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

    /// Submits a descriptor and waits for it, at most for the time limit.
    ///
    /// # Errors
    ///
    /// Those of [`Queue::push`] and [`Queue::wait`], [`Error::TimedOut`], and [`Error::Failed`].
    /// If the device may not be done, the queue is stopped; if that is not possible, the process
    /// ends.
    ///
    /// # Safety
    ///
    /// As [`Queue::push`], but only until this returns: then the device is done.
    pub unsafe fn execute(&mut self, descriptor: &Descriptor) -> Result<Completion, Error> {
        let deadline = self.deadline();
        // SAFETY: the caller's guarantee; the code below ensures that it is not needed after this
        // call.
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

    /// Submits several descriptors with one write to the doorbell, and waits for all; the record of
    /// each says whether it succeeded.
    ///
    /// # Errors
    ///
    /// As [`Queue::execute`], but not [`Error::Failed`]. If one is not submitted, as with
    /// [`Error::Full`], none is executed, and the queue is stopped.
    ///
    /// # Safety
    ///
    /// As [`Queue::execute`].
    pub unsafe fn execute_all(
        &mut self,
        descriptors: &[Descriptor],
    ) -> Result<Vec<Completion>, Error> {
        self.check_owner()?;
        // SAFETY: the caller's guarantee; the code here ensures that it is not needed after this
        // call.
        let result = unsafe { self.push_and_wait(descriptors) };
        if result.is_err() {
            self.stop_or_abort();
        }
        result
    }

    /// Submits a batch and waits for it: one descriptor of the ring, one record and one interrupt
    /// for all of its entries. The entries have their own records, see [`Batch::record`].
    ///
    /// # Errors
    ///
    /// As [`Queue::execute`]; a failed entry is not an error here, but is reported in the record of
    /// the batch.
    ///
    /// # Safety
    ///
    /// As [`Queue::execute`], for each of its entries.
    pub unsafe fn execute_batch(&mut self, batch: &Batch) -> Result<Completion, Error> {
        // SAFETY: the caller's guarantee; the batch's own memory is borrowed during the call, and
        // changes only through `&mut`.
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

    /// The deadline of an operation that begins now; none if the time cannot be represented.
    fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.time_limit?)
    }
}
