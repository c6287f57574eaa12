// SPDX-License-Identifier: GPL-2.0-or-later
//! Fault queues of the host's kernel in QEMU's main loop: it tells a listener that page requests wait
//! in one, and frees one that is closed.

use std::ffi::c_void;
use std::os::fd::AsRawFd as _;
use std::ptr::null_mut;

use host_iommu::host::{Errno, FaultQueueId, HostResult};
use host_iommufd::host::Host as Kernel;

use crate::abi::qemu;
use crate::bql::Bql;
use crate::{main_loop, message};

/// For how many rounds of the main loop a queue may be polled after it was closed.
const MOST_ROUNDS: u32 = 1000;

/// Who is told of page requests.
pub trait Listener: Sync {
    /// Page requests wait in a queue.
    fn requests_wait(&'static self, bql: &Bql, queue: FaultQueueId);
}

/// What the handler of a queue is given.
struct Given {
    listener: &'static dyn Listener,
    queue: FaultQueueId,
}

/// A queue that the main loop polls. It is to be closed.
pub struct Polled(Box<Given>);

/// `IOHandler` of a queue.
unsafe extern "C" fn readable(opaque: *mut c_void) {
    // SAFETY: the pointer is that of `Polled::new`, which is freed after the handler is removed; the
    // main loop holds the BQL.
    let (given, bql) = unsafe { (&*opaque.cast::<Given>(), Bql::held()) };
    // The listener may close the queue.
    let Given { listener, queue } = *given;
    listener.requests_wait(&bql, queue);
}

impl Polled {
    /// Lets the main loop poll a queue for a listener.
    pub fn new(
        _bql: &Bql,
        kernel: &Kernel,
        queue: FaultQueueId,
        listener: &'static dyn Listener,
    ) -> Polled {
        let mut given = Box::new(Given { listener, queue });
        if let Some(file) = kernel.fault_queue_fd(queue) {
            let opaque = (&raw mut *given).cast();
            // SAFETY: the file is open, and the pointer is valid until the handler is removed.
            unsafe { (qemu().qemu_set_fd_handler)(file.as_raw_fd(), Some(readable), None, opaque) };
        }
        Polled(given)
    }

    /// The queue.
    pub fn queue(&self) -> FaultQueueId {
        self.0.queue
    }

    /// Ends that and closes the queue's file. The queue is still to be freed, by [`free_soon`].
    pub fn close(self, _bql: &Bql, kernel: &mut Kernel) {
        let queue = self.queue();
        if let Some(file) = kernel.fault_queue_fd(queue) {
            // SAFETY: the file is open; no handler is left that would use the pointer.
            unsafe { (qemu().qemu_set_fd_handler)(file.as_raw_fd(), None, None, null_mut()) };
        }
        kernel.close_fault_queue(queue);
        // The handler is gone, and ran only in the main loop, with the BQL held.
        drop(self.0);
    }
}

/// Frees a queue that was closed, and calls `done` then. The main loop's own polling holds its file,
/// and ends some rounds of the loop later. `free` is one try; a failure is told after `whose`.
pub fn free_soon(
    whose: &'static str,
    free: impl Fn() -> HostResult<()> + Send + 'static,
    done: impl FnOnce() + Send + 'static,
) {
    try_soon(MOST_ROUNDS, whose, free, done);
}

fn try_soon(
    rounds: u32,
    whose: &'static str,
    free: impl Fn() -> HostResult<()> + Send + 'static,
    done: impl FnOnce() + Send + 'static,
) {
    main_loop::soon(move |_| {
        match free() {
            Err(error) if error.errno == Errno::Busy && rounds > 0 => {
                return try_soon(rounds - 1, whose, free, done);
            }
            Err(error) => message::warning(&format!("{whose}{error}")),
            Ok(()) => {}
        }
        done();
    });
}
