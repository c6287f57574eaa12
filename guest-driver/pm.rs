// SPDX-License-Identifier: GPL-2.0-only

//! Notifications before the machine goes to sleep, and after it has woken up.
//!
//! The kernel crate has no `dev_pm_ops` for drivers. This module's notifications come earlier and
//! later than those would: before processes are frozen, and after they are thawed.
//!
//! This module knows nothing of the driver that it is part of.
//!
//! C header: [`include/linux/suspend.h`](srctree/include/linux/suspend.h)

use core::marker::PhantomPinned;
#[cfg(CONFIG_PM_SLEEP)]
use kernel::error::to_result;
use kernel::{
    bindings,
    prelude::*,
    types::Opaque, //
};

/// The receiver of the notifications.
pub(crate) trait Sleeper: Send + Sync {
    /// The machine is going to suspend, to hibernate, or to restore an image. May sleep. To prevent
    /// that, undoes its own changes and fails.
    fn suspend(&self) -> Result;

    /// The machine has woken up, or has not gone to sleep after all. May sleep.
    fn resume(&self);
}

/// A registration for notifications. Dropping it unregisters it.
///
/// # Invariants
///
/// `block` is registered as a power management notifier, with [`notify`] for this `T`.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: Sleeper> {
    sleeper: T,
    #[pin]
    block: Opaque<bindings::notifier_block>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A notifier may be removed by any task, and `T` is `Send`.
unsafe impl<T: Sleeper> Send for Registration<T> {}

// SAFETY: Nothing is done with `block` through a shared reference, and `T` is `Sync`.
unsafe impl<T: Sleeper> Sync for Registration<T> {}

impl<T: Sleeper> Registration<T> {
    /// Registers `sleeper`.
    pub(crate) fn new(sleeper: T) -> Result<Pin<KBox<Self>>> {
        let block = bindings::notifier_block {
            notifier_call: Some(notify::<T>),
            ..pin_init::zeroed()
        };

        KBox::pin_init(
            // INVARIANT: `block` is registered below, or the initializer fails.
            try_pin_init!(Self {
                sleeper,
                _pin: PhantomPinned,
                // Last: from here on notifications may arrive.
                block <- Opaque::try_ffi_init(move |slot: *mut bindings::notifier_block| {
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(block) };
                    // SAFETY: `slot` was initialized above. It does not move and stays valid until
                    // it is unregistered.
                    unsafe { register(slot) }
                }),
            }),
            GFP_KERNEL,
        )
    }
}

#[pinned_drop]
impl<T: Sleeper> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants, it is registered. Afterwards no notification is running
        // or will come.
        unsafe { unregister(self.block.get()) };
    }
}

/// # Safety
///
/// `block` is an initialized notifier, and stays valid until it is unregistered.
unsafe fn register(block: *mut bindings::notifier_block) -> Result {
    #[cfg(CONFIG_PM_SLEEP)]
    // SAFETY: By the requirements of this function.
    return to_result(unsafe { bindings::register_pm_notifier(block) });

    // This machine never sleeps.
    #[cfg(not(CONFIG_PM_SLEEP))]
    {
        let _ = block;
        Ok(())
    }
}

/// # Safety
///
/// `block` was registered by [`register`].
unsafe fn unregister(block: *mut bindings::notifier_block) {
    #[cfg(CONFIG_PM_SLEEP)]
    // SAFETY: By the requirement of this function.
    unsafe {
        bindings::unregister_pm_notifier(block)
    };

    #[cfg(not(CONFIG_PM_SLEEP))]
    let _ = block;
}

/// # Safety
///
/// Only as the call of the `block` of a [`Registration<T>`].
unsafe extern "C" fn notify<T: Sleeper>(
    block: *mut bindings::notifier_block,
    action: c_ulong,
    _data: *mut c_void,
) -> c_int {
    let block = block.cast::<Opaque<bindings::notifier_block>>();
    // SAFETY: By the requirement of this function, `block` is the field of a `Registration<T>`. It
    // is not dropped during the call, because its destructor waits for that.
    let registration = unsafe { &*kernel::container_of!(block, Registration<T>, block) };

    match action as u32 {
        bindings::PM_SUSPEND_PREPARE
        | bindings::PM_HIBERNATION_PREPARE
        | bindings::PM_RESTORE_PREPARE => {
            if let Err(error) = registration.sleeper.suspend() {
                // Like `notifier_from_errno()`, which is an inline function.
                return bindings::NOTIFY_STOP_MASK as c_int
                    | (bindings::NOTIFY_OK as c_int - error.to_errno());
            }
        }
        bindings::PM_POST_SUSPEND | bindings::PM_POST_HIBERNATION | bindings::PM_POST_RESTORE => {
            registration.sleeper.resume()
        }
        _ => {}
    }
    bindings::NOTIFY_OK as c_int
}
