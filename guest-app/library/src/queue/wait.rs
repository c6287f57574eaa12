// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for completion records: first a few reads of the record, then sleep in `poll`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::read;
use svm_abi::completion::{self, Completion};
use svm_abi::doorbell;
use svm_abi::ioctl::Moderation;
use svm_abi::registers::lost;

use super::{Pending, Queue, State, Ticket};
use crate::error::Error;

/// Reads of a completion record before the wait in `poll`.
const SPINS: u32 = 200;
/// Reads of the record of a quiet descriptor between two checks of the context's state.
const YIELDS: u32 = 1000;

impl Queue {
    /// Waits for a ticket, without a time limit. The record says whether the operation succeeded:
    /// see [`Failure::of`](crate::Failure::of).
    ///
    /// # Errors
    ///
    /// [`Error::Halted`], [`Error::Reset`], [`Error::Gone`], [`Error::Stopped`],
    /// [`Error::Lost`], [`Error::UnknownTicket`]. After [`Error::Halted`] the device may still work
    /// on the descriptor, until [`Queue::stop`].
    pub fn wait(&mut self, ticket: Ticket) -> Result<Completion, Error> {
        loop {
            if let Some(record) = self.wait_until(&ticket, None)? {
                return Ok(record);
            }
        }
    }

    /// Waits for a ticket until `deadline`; `None` if it has not completed by then.
    ///
    /// # Errors
    ///
    /// As [`Queue::wait`].
    pub fn wait_until(
        &mut self,
        ticket: &Ticket,
        deadline: Option<Instant>,
    ) -> Result<Option<Completion>, Error> {
        let pending = self.pending(ticket)?;
        if self.running {
            self.ring_doorbell();
        }
        for _ in 0..SPINS {
            if let Some(record) = self.take(pending.number) {
                return Ok(Some(record));
            }
            std::hint::spin_loop();
        }
        if !self.running {
            return Err(Error::Stopped);
        }
        if pending.interrupts {
            self.sleep_until(pending.number, deadline)
        } else {
            self.yield_until(pending.number, deadline)
        }
    }

    /// The record of a ticket, if it has completed.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTicket`], [`Error::Stopped`], [`Error::Forked`].
    pub fn try_wait(&mut self, ticket: &Ticket) -> Result<Option<Completion>, Error> {
        let pending = self.pending(ticket)?;
        let record = self.take(pending.number);
        if record.is_none() {
            self.flush()?;
        }
        Ok(record)
    }

    /// Waits for everything that was submitted, and drops unused records.
    ///
    /// # Errors
    ///
    /// As [`Queue::wait`].
    pub fn drain(&mut self) -> Result<(), Error> {
        self.check_owner()?;
        let mut numbers: Vec<u64> = self.places.iter().flatten().map(|p| p.number).collect();
        numbers.sort_unstable();
        for number in numbers {
            self.wait(Ticket {
                queue: self.id,
                number,
            })?;
        }
        Ok(())
    }

    fn pending(&self, ticket: &Ticket) -> Result<Pending, Error> {
        self.check_owner()?;
        let place = ticket.number as usize & (self.ring.capacity() - 1);
        self.places[place]
            .filter(|pending| pending.number == ticket.number && self.id == ticket.queue)
            .ok_or(Error::UnknownTicket(ticket.number))
    }

    /// Takes the record of descriptor `number`, and frees its slot.
    fn take(&mut self, number: u64) -> Option<Completion> {
        let record = self.ring.completion(number)?;
        self.places[number as usize & (self.ring.capacity() - 1)] = None;
        Some(record)
    }

    /// The record of a descriptor that the device has consumed; `None` if it has not.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: it has, but there is no record. The ticket is used up.
    fn take_consumed(&mut self, number: u64) -> Result<Option<Completion>, Error> {
        let head = self.file.read_doorbell(doorbell::HEAD);
        // All ones: the device is gone, which other code detects.
        if head <= number || head == u64::MAX {
            return Ok(None);
        }
        // The record precedes HEAD. It may have arrived since the last read.
        fence(Ordering::Acquire);
        if let Some(record) = self.take(number) {
            return Ok(Some(record));
        }
        let lost = self.file.read_doorbell(doorbell::LOST);
        self.places[number as usize & (self.ring.capacity() - 1)] = None;
        Err(Error::Lost {
            number,
            why: completion::Error::from_u8(lost::error(lost))
                .filter(|_| lost::descriptor(lost) == number),
        })
    }

    /// Waits in `poll`.
    fn sleep_until(
        &mut self,
        number: u64,
        deadline: Option<Instant>,
    ) -> Result<Option<Completion>, Error> {
        loop {
            // The order matters: an interrupt that this read consumes belongs to a record that is
            // already in memory; a later one wakes `poll`.
            self.read_interrupts()?;
            if let Some(record) = self.take(number) {
                return Ok(Some(record));
            }
            if let Some(record) = self.take_consumed(number)? {
                return Ok(Some(record));
            }
            match self.sleep(deadline) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => return self.take(number).map(Some).ok_or(error),
            }
        }
    }

    /// Sleeps until there may be interrupts to read; `false` if `deadline` has passed.
    fn sleep(&self, deadline: Option<Instant>) -> Result<bool, Error> {
        let Some(timeout) = timeout(deadline) else {
            return Ok(false);
        };
        let mut fds = [PollFd::new(self.file.interrupts(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Error::system("poll")(error.into())),
        }
        let trouble = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        if events.intersects(trouble) && !events.contains(PollFlags::POLLIN) {
            return Err(self.trouble());
        }
        Ok(true)
    }

    /// Waits for a descriptor that reports its completion only by its record.
    fn yield_until(
        &mut self,
        number: u64,
        deadline: Option<Instant>,
    ) -> Result<Option<Completion>, Error> {
        loop {
            for _ in 0..YIELDS {
                if let Some(record) = self.take(number) {
                    return Ok(Some(record));
                }
                std::thread::yield_now();
            }
            if let Some(record) = self.take_consumed(number)? {
                return Ok(Some(record));
            }
            match self.state()? {
                State::Enabled => {}
                _ => return self.take(number).map(Some).ok_or_else(|| self.trouble()),
            }
            if timeout(deadline).is_none() {
                return Ok(None);
            }
        }
    }

    /// Reads the number of interrupts since the last read, without waiting.
    fn read_interrupts(&mut self) -> Result<(), Error> {
        let mut count = [0; 8];
        match read(self.file.interrupts(), &mut count) {
            Ok(8) => self.interrupts += u64::from_ne_bytes(count),
            // A halted context returns EIO, which `poll` also shows. EBADMSG means that a record
            // was lost; HEAD shows which.
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR | Errno::EIO | Errno::EBADMSG) => {}
            Err(error) => return Err(Error::system("read of the interrupt count")(error.into())),
        }
        Ok(())
    }

    /// Why no more records arrive.
    pub(super) fn trouble(&self) -> Error {
        if let Err(error) = self.file.info() {
            return Error::system("ioctl INFO")(error);
        }
        match self.state() {
            Ok(State::Halted(why)) => Error::Halted(why),
            Ok(State::Unknown(_)) => Error::Gone,
            Ok(State::Disabled | State::Stopping) => Error::Reset,
            Ok(State::Enabled) => Error::System {
                action: "poll reports an error of a context that works",
                cause: io::ErrorKind::Other.into(),
            },
            Err(error) => error,
        }
    }

    /// Sets an eventfd that is signalled at every interrupt of the context, for programs with their
    /// own event loop; `None` detaches it. After a wake-up [`Queue::try_wait`] shows which tickets
    /// have completed.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`], and those of the ioctl `EVENTFD`.
    pub fn set_eventfd(&self, eventfd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        self.check_owner()?;
        self.file
            .set_eventfd(eventfd)
            .map_err(Error::system("ioctl EVENTFD"))
    }

    /// Makes the device send one interrupt for `count` completions, or `microseconds` after the
    /// first of them, whichever comes first. With a time of 0 only the count matters, and a caller
    /// that waits for fewer completions with [`Queue::wait`] waits for ever; counts of 0 and 1 end
    /// the moderation.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`], and those of the ioctl `MODERATION`.
    pub fn set_moderation(&mut self, count: u16, microseconds: u32) -> Result<(), Error> {
        self.check_owner()?;
        let moderation = Moderation {
            count: count.into(),
            microseconds,
            ..Moderation::default()
        };
        self.file
            .set_moderation(&moderation)
            .map_err(Error::system("ioctl MODERATION"))
    }

    /// Waits until the context has sent at least `count` interrupts since it was started, or
    /// until `deadline`, and returns how many it has sent.
    ///
    /// # Errors
    ///
    /// [`Error::Halted`], [`Error::Gone`], [`Error::Stopped`], [`Error::Forked`].
    pub fn wait_interrupts(&mut self, count: u64, deadline: Option<Instant>) -> Result<u64, Error> {
        self.check_owner()?;
        loop {
            self.read_interrupts()?;
            if self.interrupts >= count || !self.sleep(deadline)? {
                return Ok(self.interrupts);
            }
        }
    }
}

/// The device file: readable if there were interrupts since the last wait.
impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.interrupts()
    }
}

/// Time left until `deadline`, for `poll`; `None` if it has passed.
fn timeout(deadline: Option<Instant>) -> Option<PollTimeout> {
    let Some(deadline) = deadline else {
        return Some(PollTimeout::NONE);
    };
    let left = deadline.checked_duration_since(Instant::now())?;
    // Rounded up, to avoid a busy loop in the last millisecond.
    let millis = left.as_millis().saturating_add(1);
    Some(PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX))
}
