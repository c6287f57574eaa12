// SPDX-License-Identifier: GPL-2.0-or-later
//! The big QEMU lock, as a value: a caller with a [`Bql`] holds it.
//!
//! Knows nothing of what the lock protects. Two rules keep it free of deadlocks: nobody holds a
//! lock of this library while calling into QEMU, and nobody waits for a thread of this library
//! while holding the BQL.

use std::marker::PhantomData;
use std::ops::Deref;

use crate::abi::qemu;

/// Proof that this thread holds the BQL.
pub struct Bql(PhantomData<*const ()>);

impl Bql {
    /// The proof, inside a function that QEMU calls with the lock held.
    ///
    /// # Safety
    ///
    /// The thread holds the BQL for as long as the value lives, except while [`Bql::unlocked`]
    /// runs.
    pub unsafe fn held() -> Bql {
        Bql(PhantomData)
    }

    /// Lets others have the lock while `wait` runs.
    pub fn unlocked<R>(&mut self, wait: impl FnOnce() -> R) -> R {
        // SAFETY: the thread holds the lock, and takes it back before anybody uses the proof.
        unsafe { (qemu().bql_unlock)() };
        let result = wait();
        acquire();
        result
    }
}

/// The BQL, taken by a thread of this library until the end of the scope.
pub struct Guard(Bql);

impl Guard {
    /// Waits for the lock.
    pub fn lock() -> Guard {
        acquire();
        Guard(Bql(PhantomData))
    }
}

impl Deref for Guard {
    type Target = Bql;

    fn deref(&self) -> &Bql {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: the guard took the lock in this thread, and guards do not leave their thread.
        unsafe { (qemu().bql_unlock)() }
    }
}

/// Whether this thread holds the lock.
pub fn is_held() -> bool {
    // SAFETY: the function reads a variable of the thread.
    unsafe { (qemu().bql_locked)() }
}

/// Takes the lock.
fn acquire() {
    // SAFETY: the thread does not hold the lock: it has given it back, or never had it. The
    // string lives for ever; QEMU shows it in its statistics of locks.
    unsafe { (qemu().bql_lock_impl)(c"svm-demo".as_ptr(), 0) }
}
