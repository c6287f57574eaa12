// SPDX-License-Identifier: GPL-2.0-only

//! Work that a kernel worker does later, and that can be cancelled.
//!
//! `kernel::workqueue` has delayed work, but no way to wait until none is running; and none may be
//! running when its module is unloaded.
//!
//! This module knows nothing of the driver that it is part of.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::marker::PhantomPinned;
use kernel::{
    bindings,
    prelude::*,
    time::msecs_to_jiffies,
    types::Opaque, //
};

unsafe extern "C" {
    /// In `work.c`. `work` is valid for writes.
    fn svm_demo_work_init(work: *mut bindings::delayed_work, function: bindings::work_func_t);
}

/// Work that can be cancelled.
pub(crate) trait Task: Send + Sync {
    /// Does the work. May sleep. Returns the milliseconds until it runs again, if it does.
    fn run(&self) -> Option<u32>;
}

/// A task that can run later. Dropping it cancels the task and waits until it does not run.
///
/// # Invariants
///
/// `work` is initialized, with [`work`] for this `T`.
#[pin_data(PinnedDrop)]
pub(crate) struct Delayed<T: Task> {
    task: T,
    #[pin]
    work: Opaque<bindings::delayed_work>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: Work may be queued and cancelled by any task, and `T` is `Send`.
unsafe impl<T: Task> Send for Delayed<T> {}

// SAFETY: The functions that are called with `work` may be called at the same time by any number of
// tasks, and `T` is `Sync`.
unsafe impl<T: Task> Sync for Delayed<T> {}

impl<T: Task> Delayed<T> {
    /// Creates work that is not scheduled yet.
    pub(crate) fn new(task: T) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            // INVARIANT: `work` is initialized here.
            try_pin_init!(Self {
                task,
                // SAFETY: `slot` is valid for writes.
                work <- Opaque::ffi_init(|slot| unsafe {
                    svm_demo_work_init(slot, Some(work::<T>))
                }),
                _pin: PhantomPinned,
            }),
            GFP_KERNEL,
        )
    }

    /// Schedules the task in this number of milliseconds, and replaces an earlier schedule.
    pub(crate) fn schedule(&self, milliseconds: u32) {
        // SAFETY: By the type invariants, `work` is initialized; it is cancelled before it is
        // freed. The queue is one of the kernel's own, for work of any length.
        unsafe {
            bindings::mod_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                bindings::system_dfl_wq,
                self.work.get(),
                msecs_to_jiffies(milliseconds),
            )
        };
    }

    /// Cancels the task, and waits until it does not run.
    pub(crate) fn cancel(&self) {
        // SAFETY: By the type invariants, `work` is initialized.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }
}

#[pinned_drop]
impl<T: Task> PinnedDrop for Delayed<T> {
    fn drop(self: Pin<&mut Self>) {
        self.cancel();
    }
}

/// # Safety
///
/// Only as the function of the `work` of a [`Delayed<T>`].
unsafe extern "C" fn work<T: Task>(work: *mut bindings::work_struct) {
    // SAFETY: By the requirement of this function, it is the field of a `delayed_work`.
    let delayed = unsafe { kernel::container_of!(work, bindings::delayed_work, work) };
    let delayed = delayed.cast::<Opaque<bindings::delayed_work>>();
    // SAFETY: As above, that is the field of a `Delayed<T>`, which is not dropped during the call:
    // its destructor waits for that.
    let delayed = unsafe { &*kernel::container_of!(delayed, Delayed<T>, work) };

    if let Some(milliseconds) = delayed.task.run() {
        delayed.schedule(milliseconds);
    }
}
