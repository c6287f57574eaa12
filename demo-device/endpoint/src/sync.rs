// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only place that names concurrency primitives, so that a model checker can replace them.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex as StdMutex, MutexGuard, PoisonError};

/// A mutex that a panic in another thread does not poison.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(StdMutex<T>);

impl<T> Mutex<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Mutex(StdMutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(test)]
        if model::is_running() {
            return model::lock(&self.0);
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The behaviour of the primitives while the model checker runs: everything is one thread of the
/// host, and the checker decides at each of these points which task continues.
#[cfg(test)]
pub(crate) mod model {
    use super::{MutexGuard, PoisonError, StdMutex};
    use std::cell::Cell;
    use std::sync::TryLockError;

    thread_local! {
        static RUNNING: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether the model checker runs in this thread.
    pub fn is_running() -> bool {
        RUNNING.get()
    }

    /// Lets another task run, if the checker decides so.
    pub fn point() {
        if is_running() {
            shuttle::thread::yield_now();
        }
    }

    /// Waits for a lock.
    pub fn lock<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
        loop {
            point();
            match mutex.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(error)) => return PoisonError::into_inner(error),
                Err(TryLockError::WouldBlock) => {}
            }
        }
    }

    /// The seed of the random schedules, so that every run has the same ones.
    const SEED: u64 = 38;

    /// Runs a test under a number of random schedules. It fails if one of them fails.
    pub fn check(schedules: usize, test: impl Fn() + Send + Sync + 'static) {
        struct Running;
        impl Drop for Running {
            fn drop(&mut self) {
                RUNNING.set(false);
            }
        }
        RUNNING.set(true);
        let _running = Running;
        let scheduler = shuttle::scheduler::RandomScheduler::new_from_seed(SEED, schedules);
        shuttle::Runner::new(scheduler, shuttle::Config::default()).run(test);
    }
}
