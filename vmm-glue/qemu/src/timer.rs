// SPDX-License-Identifier: GPL-2.0-or-later
//! A timer of QEMU's main loop, in the machine's time.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::time::Duration;

use crate::abi::layout::*;
use crate::abi::{qemu, room};
use crate::bql::Bql;

/// The action of a timer when it expires.
type Action = Box<dyn Fn(&Bql) + Send + Sync>;

/// A timer, off until it is set.
pub struct Timer {
    timer: NonNull<QEMUTimer>,
    action: NonNull<Action>,
}

// SAFETY: QEMU's functions on timers may be called from any thread; the action is Send and Sync.
unsafe impl Send for Timer {}
// SAFETY: as above.
unsafe impl Sync for Timer {}

impl Timer {
    /// Creates a timer in the machine's time, which stops while the machine is stopped. None if
    /// QEMU's timers do not have the expected layout.
    pub fn virtual_time(_bql: &Bql, action: Action) -> Option<Timer> {
        let timer = Timer {
            timer: room::allocate(layout().qemu_timer.size),
            action: NonNull::from(Box::leak(Box::new(action))),
        };
        let opaque = timer.action.as_ptr().cast();
        // SAFETY: the timer and what it points to do not move until `drop`. Without its own group
        // it belongs to the main loop.
        let found = unsafe {
            (qemu().timer_init_full)(
                timer.timer.as_ptr(),
                std::ptr::null_mut(),
                CLOCK_VIRTUAL,
                SCALE_US,
                0,
                expired,
                opaque,
            );
            let at = &layout().qemu_timer;
            room::read::<_, *mut c_void>(timer.timer, at.opaque) == opaque
                && room::read::<_, usize>(timer.timer, at.callback) == expired as *const () as usize
                && room::read::<_, c_int>(timer.timer, at.scale) == SCALE_US
                && room::is_intact(timer.timer, at.size)
        };
        found.then_some(timer)
    }

    /// Makes it expire at a machine time, or at once if that has passed. Any thread may call this.
    pub fn set_at(&self, time: Duration) {
        let expiry = time.as_micros().try_into().unwrap_or(i64::MAX);
        // SAFETY: the timer is initialized; QEMU takes its own lock.
        unsafe { (qemu().timer_mod)(self.timer.as_ptr(), expiry) }
    }

    /// Stops it.
    pub fn cancel(&self, _bql: &Bql) {
        // SAFETY: the timer is initialized.
        unsafe { (qemu().timer_del)(self.timer.as_ptr()) }
    }
}

/// The time of the machine.
pub fn virtual_now() -> Duration {
    // SAFETY: the function reads a clock that exists.
    Duration::from_nanos(unsafe { (qemu().qemu_clock_get_ns)(CLOCK_VIRTUAL) }.unsigned_abs())
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: both came from `virtual_time`; the timer is initialized, and off after the first
        // call. The main loop calls it under the BQL, which is also held when the timer is dropped.
        unsafe {
            (qemu().timer_del)(self.timer.as_ptr());
            room::free(self.timer, layout().qemu_timer.size);
            drop(Box::from_raw(self.action.as_ptr()));
        }
    }
}

/// `QEMUTimerCB`.
unsafe extern "C" fn expired(opaque: *mut c_void) {
    // SAFETY: the action of a timer that has not been dropped; the main loop holds the BQL.
    let (action, bql) = unsafe { (&*opaque.cast::<Action>(), Bql::held()) };
    action(&bql);
}
