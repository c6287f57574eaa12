// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queue of a context: submitting descriptors and waiting for them.
//!
//! The device is treated as another thread of the process. What it gets to know by a descriptor
//! was written before the doorbell, in the order of [`Ring::publish`]; what it wrote is visible
//! to whoever has seen the completion record, by an acquiring load. Between the two it may reach
//! the memory that the descriptor names, so that memory must not be given back: the safe
//! operations borrow it and return only when the device is done, or the context is stopped.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::read;
use svm_abi::completion::Completion;
use svm_abi::ioctl::{self, Info};
use svm_abi::{doorbell, registers};

use crate::context::Context;
use crate::counters::Counters;
use crate::descriptor::Descriptor;
use crate::device::DeviceFile;
use crate::error::{Error, Failure, Halt};
use crate::ring::Ring;

/// Looks at a completion record before it is waited for by `poll`.
const SPINS: u32 = 200;
/// Looks at the record of a quiet descriptor between two looks at the state of the context.
const YIELDS: u32 = 1000;

/// A descriptor that was handed to a queue, to be waited for.
#[must_use = "the place in the ring stays taken until the ticket is waited for"]
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    queue: u64,
    number: u64,
}

impl Ticket {
    /// Number of the descriptor since the queue was started.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// State of a context, as its `STATUS` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Accepts no work.
    Disabled,
    /// Works.
    Enabled,
    /// Is about to be disabled.
    Stopping,
    /// Met an error that is not of one descriptor.
    Halted(Halt),
    /// Not a state: the device does not answer.
    Unknown(u8),
}

/// A ticket that was not waited for yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    number: u64,
    interrupts: bool,
}

/// The queue of a context.
///
/// Dropping it stops the context: work that was not waited for is abandoned.
pub struct Queue {
    /// Closed before the ring is freed.
    file: Box<dyn DeviceFile>,
    ring: Ring,
    info: Info,
    /// Tells the tickets of this queue from others, and from those before a restart.
    id: u64,
    places: Box<[Option<Pending>]>,
    /// Number of the next descriptor.
    next: u64,
    /// Descriptors that the doorbell has told the device of.
    rung: u64,
    running: bool,
    interrupts: u64,
    time_limit: Option<Duration>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("info", &self.info)
            .field("next", &self.next)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Queue {
    pub(crate) fn start(context: Context, entries: u32) -> Result<Queue, Error> {
        let Context { file, info } = context;
        let max = 1u32.checked_shl(info.ring_log2_max).unwrap_or(0);
        if !entries.is_power_of_two() || entries > max {
            return Err(Error::Capacity {
                requested: entries,
                max,
            });
        }
        let ring = Ring::new(entries as usize).map_err(Error::system("cannot map the ring"))?;
        let mut queue = Queue {
            file,
            ring,
            info,
            id: new_id(),
            places: vec![None; entries as usize].into(),
            next: 0,
            rung: 0,
            running: false,
            interrupts: 0,
            time_limit: None,
        };
        queue.set_up()?;
        Ok(queue)
    }

    fn set_up(&mut self) -> Result<(), Error> {
        let queue = ioctl::Queue {
            ring: self.ring.address(),
            ring_log2: self.ring.capacity().ilog2(),
            flags: 0,
        };
        // SAFETY: the ring is freed after the context was stopped, or never: see `drop`. All
        // accesses to it are atomic.
        unsafe { self.file.queue_setup(&queue) }.map_err(Error::system("ioctl QUEUE_SETUP"))?;
        self.interrupts = 0;
        self.running = true;
        Ok(())
    }

    /// What context and device are.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Descriptors of the ring: so many tickets can be out at a time.
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
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

    /// Limits the time that a safe operation may take. When it is over the queue is stopped and
    /// the operation gives [`Error::TimedOut`]. Without a limit it waits for ever.
    pub fn set_time_limit(&mut self, limit: Option<Duration>) {
        self.time_limit = limit;
    }

    fn check_owner(&self) -> Result<(), Error> {
        self.ring.is_ours().then_some(()).ok_or(Error::Forked)
    }

    /// What the device counted since the queue was started.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    pub fn counters(&self) -> Result<Counters, Error> {
        self.check_owner()?;
        let at = |n: usize| doorbell::COUNTERS + 8 * n as u64;
        Ok(Counters::read(|n| self.file.read_doorbell(at(n))))
    }

    /// The state of the context.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    pub fn state(&self) -> Result<State, Error> {
        use registers::status;
        self.check_owner()?;
        let value = self.file.read_doorbell(doorbell::STATUS);
        Ok(match status::state(value) {
            status::DISABLED => State::Disabled,
            status::ENABLED => State::Enabled,
            status::STOPPING => State::Stopping,
            status::HALTED => State::Halted(Halt(status::error(value))),
            other => State::Unknown(other),
        })
    }

    /// Stops the context. Work that has not completed is abandoned; its tickets give
    /// [`Error::Stopped`].
    ///
    /// # Errors
    ///
    /// [`Error::Forked`], and those of the ioctl `QUEUE_STOP`. A device that is gone is stopped.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.check_owner()?;
        if self.running {
            let stopped = self
                .file
                .queue_stop()
                .map_err(Error::system("ioctl QUEUE_STOP"));
            match stopped {
                Ok(()) | Err(Error::Gone) => self.running = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Stops the context and starts it again with an empty ring. Earlier tickets become unknown.
    ///
    /// # Errors
    ///
    /// As [`Queue::stop`], and those of the ioctl `QUEUE_SETUP`.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop()?;
        self.id = new_id();
        self.places.fill(None);
        self.next = 0;
        self.rung = 0;
        self.set_up()
    }

    /// Stops the context or ends the process: for when memory that the device may still reach is
    /// about to be given back.
    fn stop_or_abort(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("cannot keep the device from writing memory that is given back: {error}");
            std::process::abort();
        }
    }

    /// Puts a descriptor into the ring; the device sees it after [`Queue::flush`], or when a
    /// ticket is waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], [`Error::Stopped`], [`Error::Forked`]; nothing is submitted then.
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
        let place = &mut self.places[number as usize & (self.ring.capacity() - 1)];
        if let Some(pending) = place {
            return Err(Error::Full {
                oldest: pending.number,
            });
        }
        let completion = self.ring.record_address(number);
        self.ring.write(number, &descriptor.words(completion));
        *place = Some(Pending {
            number,
            interrupts: descriptor.interrupts(),
        });
        self.next += 1;
        Ok(Ticket {
            queue: self.id,
            number,
        })
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

    fn ring_doorbell(&mut self) {
        if self.rung != self.next {
            self.ring.publish();
            // SAFETY: each descriptor up to `next` was pushed, by somebody who promised that the
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

    /// Waits for a ticket, for ever. The record says whether the operation succeeded: see
    /// [`Failure::of`].
    ///
    /// # Errors
    ///
    /// [`Error::Halted`], [`Error::Gone`], [`Error::Stopped`], [`Error::UnknownTicket`]. The
    /// device may still work on the descriptor after the first; it does not after
    /// [`Queue::stop`].
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

    /// The record of a ticket, if it is there.
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

    /// Waits for everything that was submitted and forgets the records that nobody waited for.
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

    /// The record of descriptor `number`, whose place is free then.
    fn take(&mut self, number: u64) -> Option<Completion> {
        let record = self.ring.completion(number)?;
        self.places[number as usize & (self.ring.capacity() - 1)] = None;
        Some(record)
    }

    /// Waits by `poll`.
    fn sleep_until(
        &mut self,
        number: u64,
        deadline: Option<Instant>,
    ) -> Result<Option<Completion>, Error> {
        loop {
            // In this order: an interrupt that this read takes away belongs to a record that is
            // in memory already; one that comes later wakes `poll`.
            self.read_interrupts()?;
            if let Some(record) = self.take(number) {
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

    /// Waits for a descriptor that announces its completion by nothing but its record.
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
            match self.state()? {
                State::Enabled => {}
                _ => return self.take(number).map(Some).ok_or_else(|| self.trouble()),
            }
            if timeout(deadline).is_none() {
                return Ok(None);
            }
        }
    }

    /// Takes the number of interrupts since the last time, without waiting.
    fn read_interrupts(&mut self) -> Result<(), Error> {
        let mut count = [0; 8];
        match read(self.file.interrupts(), &mut count) {
            Ok(8) => self.interrupts += u64::from_ne_bytes(count),
            // A halted context gives EIO, and the same can be seen by `poll`.
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR | Errno::EIO) => {}
            Err(error) => return Err(Error::system("read of the interrupt count")(error.into())),
        }
        Ok(())
    }

    /// Why no more records come.
    fn trouble(&self) -> Error {
        if let Err(error) = self.file.info() {
            return Error::system("ioctl INFO")(error);
        }
        match self.state() {
            Ok(State::Halted(why)) => Error::Halted(why),
            Ok(State::Unknown(_)) => Error::Gone,
            Ok(State::Disabled | State::Stopping) => Error::Stopped,
            Ok(State::Enabled) => Error::System {
                action: "poll reports an error of a context that works",
                cause: io::ErrorKind::Other.into(),
            },
            Err(error) => error,
        }
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

impl Drop for Queue {
    fn drop(&mut self) {
        // In a child of the process that set it up there is nothing to stop: the device works in
        // the parent's address space, and the child's copy of the ring is the child's alone.
        if self.running && self.ring.is_ours() {
            self.stop_or_abort();
        }
    }
}

/// Time left until `deadline`, for `poll`; `None` if it is over.
fn timeout(deadline: Option<Instant>) -> Option<PollTimeout> {
    let Some(deadline) = deadline else {
        return Some(PollTimeout::NONE);
    };
    let left = deadline.checked_duration_since(Instant::now())?;
    // Rounded up: never a busy loop in the last millisecond.
    let millis = left.as_millis().saturating_add(1);
    Some(PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX))
}
