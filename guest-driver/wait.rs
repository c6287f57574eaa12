// SPDX-License-Identifier: GPL-2.0-only

//! A wait queue that interrupt handlers wake, and that tasks sleep on or poll.
//!
//! `kernel::sync::CondVar` is not suitable: its waker must hold the lock that protects the
//! condition, and an interrupt handler cannot take a mutex. Here the condition is evaluated after
//! the sleeper has put itself on the queue, so no wake-up is lost.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use core::{
    marker::PhantomPinned,
    ptr, //
};
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    sync::LockClassKey,
    task::{
        might_sleep,
        TASK_INTERRUPTIBLE,
        TASK_NORMAL, //
    },
    time::Jiffies,
    types::Opaque, //
};

/// A wait queue.
///
/// # Invariants
///
/// `head` is an initialized `wait_queue_head`, and does not move.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A `wait_queue_head` may be used and freed by any task.
unsafe impl Send for WaitQueue {}

// SAFETY: A `wait_queue_head` has its own lock, which all functions used here take.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// Makes an empty queue; `name` and `key` are its lockdep class.
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        // INVARIANT: The initializer leaves an initialized head behind, and the type is `!Unpin`.
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes; `name` and `key` are static.
            head <- Opaque::ffi_init(|slot| unsafe {
                bindings::__init_waitqueue_head(slot, name.as_char_ptr(), key.as_ptr())
            }),
            _pin: PhantomPinned,
        })
    }

    /// Wakes all tasks that sleep on the queue or poll it. May be called in any context.
    pub(crate) fn wake_all(&self) {
        // SAFETY: By the type invariants, the head is valid. The key may be null: pollers then
        // check the events themselves.
        unsafe { bindings::__wake_up(self.head.get(), TASK_NORMAL, 0, ptr::null_mut()) };
    }

    /// Sleeps until `condition` is true or a signal arrives.
    ///
    /// `condition` must not sleep. The code that makes it true calls [`Self::wake_all`] afterwards.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS`: a signal is pending.
    pub(crate) fn wait_interruptible(&self, condition: impl FnMut() -> bool) -> Result {
        self.wait(condition, || {
            // SAFETY: This is a context that may sleep, as `might_sleep()` checks on kernels that
            // are built for it. The call returns when the task was woken.
            unsafe { bindings::schedule() };
            true
        })
    }

    /// Like [`Self::wait_interruptible`], but not for longer than `time`.
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) fn wait_interruptible_for(
        &self,
        time: Jiffies,
        condition: impl FnMut() -> bool,
    ) -> Result {
        self.wait(condition, || {
            // SAFETY: As above. The call returns when the task was woken, or after that time.
            unsafe { bindings::schedule_timeout(time as c_long) != 0 }
        })
    }

    /// Sleeps with `sleep` until `condition` is true, a signal arrives, or `sleep` returns `false`.
    fn wait(&self, mut condition: impl FnMut() -> bool, mut sleep: impl FnMut() -> bool) -> Result {
        might_sleep();
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();

        // SAFETY: `entry` is valid for writes. It lives on this task's stack, as
        // `init_wait_entry()` expects, and does not move before `finish_wait()`.
        unsafe { bindings::init_wait_entry(entry.get(), 0) };

        let result = loop {
            // SAFETY: By the type invariants, the head is valid; `entry` was initialized above.
            let interrupted = unsafe {
                bindings::prepare_to_wait_event(self.head.get(), entry.get(), TASK_INTERRUPTIBLE)
            };

            if condition() {
                break Ok(());
            }
            if interrupted != 0 {
                // The entry was already removed from the queue. The value is `-ERESTARTSYS`.
                break to_result(interrupted as c_int);
            }

            if !sleep() {
                break Ok(());
            }
        };

        // SAFETY: By the type invariants, the head is valid; `entry` was initialized above. After
        // this call the queue does not refer to it any more.
        unsafe { bindings::finish_wait(self.head.get(), entry.get()) };

        result
    }

    /// Makes the poller of `file` wait on this queue too.
    ///
    /// # Safety
    ///
    /// - `file` and `table` are the arguments of a call of the file's `poll` operation, which has
    ///   not returned yet.
    /// - The queue must live until `file` is released. Pollers hold a reference to the file, or are
    ///   removed from the queue before it is released (epoll), so none remains then.
    pub(crate) unsafe fn poll_wait(
        &self,
        file: *mut bindings::file,
        table: *mut bindings::poll_table,
    ) {
        // SAFETY: By the type invariants, the head is valid, and by the requirements of this
        // function it stays valid while a poller is on it, and the other arguments are valid.
        unsafe { bindings::poll_wait(file, self.head.get(), table) };
    }
}
