// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lock that a panic elsewhere does not close, and an event that threads wait for: all that threads
//! of a machine meet at, so that a model checker can decide which goes on there.

#[cfg(test)]
pub(crate) mod model;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex as StdMutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// A mutual exclusion lock.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(StdMutex<T>);

impl<T> Mutex<T> {
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

    /// Takes the lock, if nobody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        point();
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Lets another thread go on, if a model checker wants that.
#[inline(always)]
pub(crate) fn point() {
    #[cfg(test)]
    model::point();
}

/// Something that happens again and again. Signalling it costs two atomic accesses as long as
/// nobody waits.
#[derive(Debug, Default)]
pub(crate) struct Event {
    count: AtomicU64,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    condvar: Condvar,
}

impl Event {
    /// It has happened.
    pub fn signal(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            let _guard = self.lock.lock();
            self.condvar.notify_all();
        }
    }

    /// How often it has happened. To be read before looking at what it is about.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until it has happened more often than `seen`, or until time is out.
    pub fn wait(&self, seen: u64, timeout: Duration) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let guard = self.lock.lock();
        if self.count() == seen {
            // A wake-up that is nobody's is one more look at what the event is about.
            drop(self.condvar.wait_timeout(guard, timeout));
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_happened_before_the_wait_ends_it() {
        let event = Event::default();
        let seen = event.count();
        event.signal();
        let before = Instant::now();
        event.wait(seen, Duration::from_secs(600));
        assert!(before.elapsed() < Duration::from_secs(300));
    }

    #[test]
    fn a_signal_wakes_the_one_who_waits() {
        let (event, answer) = (Event::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                answer.store(1, Ordering::SeqCst);
                event.signal();
            });
            loop {
                let seen = event.count();
                if answer.load(Ordering::SeqCst) == 1 {
                    break;
                }
                event.wait(seen, Duration::from_secs(600));
            }
        });
    }
}
