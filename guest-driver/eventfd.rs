// SPDX-License-Identifier: GPL-2.0-only

//! Eventfds, and a slot for one that an interrupt handler may signal.
//!
//! This module knows nothing of the driver that it is part of.
//!
//! C header: [`include/linux/eventfd.h`](srctree/include/linux/eventfd.h)

use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed, //
        },
        rcu, //
    }, //
};

/// An eventfd. Dropping it releases the reference.
///
/// # Invariants
///
/// `context` is a valid eventfd context, and `self` owns one reference to it.
pub(crate) struct EventFd {
    context: NonNull<bindings::eventfd_ctx>,
}

// SAFETY: A reference to an eventfd context is not tied to a task.
unsafe impl Send for EventFd {}

impl EventFd {
    /// The eventfd that is open as `fd` in the current process.
    ///
    /// # Errors
    ///
    /// `EBADF` if `fd` is not open, `EINVAL` if it is not an eventfd.
    pub(crate) fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: Modules run in tasks that have a table of open files, kernel threads included;
        // the function checks `fd` in that of the current task.
        let context = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(fd) })?;

        // INVARIANT: The function has returned a valid context with a reference to it.
        Ok(Self {
            context: NonNull::new(context).ok_or(EBADF)?,
        })
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, `self` owns the reference that it releases.
        unsafe { bindings::eventfd_ctx_put(self.context.as_ptr()) };
    }
}

/// A slot for an eventfd. It may be signalled in any context, even while it is being replaced.
///
/// # Invariants
///
/// `context` is null, or was the `context` of an [`EventFd`] whose reference the slot owns. A
/// reference that leaves the slot is released one RCU grace period later at the earliest.
pub(crate) struct Slot {
    context: Atomic<*mut bindings::eventfd_ctx>,
}

impl Slot {
    /// Makes an empty slot.
    pub(crate) const fn new() -> Self {
        // INVARIANT: The pointer is null.
        Self {
            context: Atomic::new(ptr::null_mut()),
        }
    }

    /// Whether there is no eventfd.
    pub(crate) fn is_empty(&self) -> bool {
        self.context.load(Relaxed).is_null()
    }

    /// Replaces the eventfd with `eventfd`. When this returns, the old one is not signalled any
    /// more. Sleeps.
    pub(crate) fn replace(&self, eventfd: Option<EventFd>) {
        let new = eventfd.map_or(ptr::null_mut(), |eventfd| {
            core::mem::ManuallyDrop::new(eventfd).context.as_ptr()
        });
        // INVARIANT: `new` is null, or its reference was not released above.
        let old = self.context.xchg(new, Full);

        if let Some(context) = NonNull::new(old) {
            // SAFETY: The function only requires that it may sleep, as this one may.
            unsafe { bindings::synchronize_rcu() };
            // INVARIANT: By the invariants of the slot, which has given up this reference above,
            // and has no readers of it any more.
            drop(EventFd { context });
        }
    }

    /// Adds 1 to the eventfd, if there is one. May be called in any context.
    pub(crate) fn signal(&self) {
        let _guard = rcu::read_lock();
        // Acquire: the eventfd was initialized before it was stored here.
        let context = self.context.load(Acquire);

        if !context.is_null() {
            // SAFETY: By the type invariants, the slot's reference is not released before the guard
            // is dropped, so the context is valid.
            unsafe { bindings::eventfd_signal_mask(context, 0) };
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.replace(None);
    }
}
