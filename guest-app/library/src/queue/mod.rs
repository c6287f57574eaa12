// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queue of a context: starting it, stopping it, and its state. `submit` submits work, `wait`
//! waits for it, and `operations` makes both safe.
//!
//! The queue treats the device as another thread of the process. [`Ring::publish`] orders all
//! writes before the doorbell, so that the device sees them; an acquiring load of the completion
//! record makes the device's writes visible to a thread. In between the device may access the
//! memory of the descriptor, so that memory must not be freed: the safe operations borrow it and
//! return only when the device is done, or the context is stopped.

mod operations;
mod submit;
mod wait;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use svm_abi::ioctl::{self, Info};
use svm_abi::{doorbell, registers};

use crate::context::Context;
use crate::counters::Counters;
use crate::device::DeviceFile;
use crate::error::{Error, Halt};
use crate::ring::Ring;

/// A submitted descriptor to wait for.
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

/// State of a context, from its `STATUS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Accepts no work.
    Disabled,
    /// Works.
    Enabled,
    /// Is being stopped.
    Stopping,
    /// Has met an error that does not belong to one descriptor.
    Halted(Halt),
    /// Not a state: the device does not answer.
    Unknown(u8),
}

/// A ticket that was not used yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    number: u64,
    interrupts: bool,
}

/// The queue of a context.
///
/// Dropping it stops the context and abandons unfinished work.
pub struct Queue {
    /// Closed before the ring is freed.
    file: Box<dyn DeviceFile>,
    ring: Ring,
    info: Info,
    /// Distinguishes the tickets of this queue from others, and from those before a restart.
    id: u64,
    places: Box<[Option<Pending>]>,
    /// Number of the next descriptor.
    next: u64,
    /// Descriptors submitted with the doorbell.
    rung: u64,
    /// Descriptors that the device has consumed, by the last read.
    head: u64,
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

impl Context {
    /// Starts the context with a ring of `entries` descriptors, a power of two.
    ///
    /// # Errors
    ///
    /// [`Error::Capacity`], and those of `mmap` and the ioctl `QUEUE_SETUP`.
    pub fn start(self, entries: u32) -> Result<Queue, Error> {
        Queue::start(self, entries)
    }
}

impl Queue {
    fn start(context: Context, entries: u32) -> Result<Queue, Error> {
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
            head: 0,
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
            ..ioctl::Queue::default()
        };
        // SAFETY: the ring is freed only after the context was stopped: see `drop`. All accesses to
        // it are atomic.
        unsafe { self.file.queue_setup(&queue) }.map_err(Error::system("ioctl QUEUE_SETUP"))?;
        self.interrupts = 0;
        self.running = true;
        Ok(())
    }

    /// What context and device are.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Descriptors of the ring: the largest number of unused tickets.
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// Limits the time of a safe operation. After that time the queue is stopped and the operation
    /// fails with [`Error::TimedOut`]. Without a limit it waits for ever.
    pub fn set_time_limit(&mut self, limit: Option<Duration>) {
        self.time_limit = limit;
    }

    fn check_owner(&self) -> Result<(), Error> {
        self.ring.is_ours().then_some(()).ok_or(Error::Forked)
    }

    /// The device's counters since the start of the queue.
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

    /// Stops the context and abandons unfinished work; its tickets return [`Error::Stopped`].
    ///
    /// # Errors
    ///
    /// [`Error::Forked`], and those of the ioctl `QUEUE_STOP`. A device that is gone counts as
    /// stopped.
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
        self.head = 0;
        self.set_up()
    }

    /// Stops the context or ends the process, before memory is freed that the device may still
    /// access.
    fn stop_or_abort(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("cannot keep the device from writing memory that is given back: {error}");
            std::process::abort();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // In a child of the process that created it there is nothing to stop: the device works in
        // the parent's address space, and the child has its own copy of the ring.
        if self.running && self.ring.is_ours() {
            self.stop_or_abort();
        }
    }
}
