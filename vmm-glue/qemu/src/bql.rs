// SPDX-License-Identifier: GPL-2.0-or-later
//! The big QEMU lock, as a value: a caller with a [`Bql`] holds it.
//!
//! Does not know what the lock protects. Two rules prevent deadlocks: no thread calls into QEMU
//! while it holds a lock of this library, and no thread waits for a thread of this library while it
//! holds the BQL.

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
    /// The thread holds the BQL for the lifetime of the value, except while [`Bql::unlocked`] runs.
    pub unsafe fn held() -> Bql {
        Bql(PhantomData)
    }

    /// Releases the lock while `wait` runs.
    pub fn unlocked<R>(&mut self, wait: impl FnOnce() -> R) -> R {
        // SAFETY: the thread holds the lock, and takes it again before any use of the proof.
        unsafe { (qemu().bql_unlock)() };
        let result = wait();
        acquire();
        result
    }
}

/// The BQL, held by a thread of this library until the end of the scope.
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
        // SAFETY: the guard took the lock in this thread, and guards do not move to other threads.
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
    // SAFETY: the thread does not hold the lock: it has released it, or never held it. The string
    // is static; QEMU shows it in its lock statistics.
    unsafe { (qemu().bql_lock_impl)(c"svm-demo".as_ptr(), 0) }
}
