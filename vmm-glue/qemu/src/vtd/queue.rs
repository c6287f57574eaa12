// SPDX-License-Identifier: GPL-2.0-or-later
//! The optional thread that processes the invalidation queue: some time after software has written
//! the tail, as in hardware, and not during the write.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::bql::{Bql, Guard};
use crate::thread;

/// The orders to the thread.
#[derive(Debug, Default)]
struct Orders {
    work: bool,
    stop: bool,
}

/// Tells the thread that the queue has descriptors.
#[derive(Debug, Default)]
pub struct Bell {
    orders: Mutex<Orders>,
    changed: Condvar,
}

impl Bell {
    /// The queue has descriptors.
    pub fn ring(&self) {
        let mut orders = self.lock();
        if !orders.work {
            orders.work = true;
            self.changed.notify_one();
        }
    }

    /// Makes the thread do nothing any more.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_one();
    }

    /// Waits for work, and then for the delay; false if the thread must end.
    fn wait(&self, delay: Duration) -> bool {
        let waited = self.changed.wait_while(self.lock(), |o| !o.work && !o.stop);
        let mut orders = waited.unwrap_or_else(PoisonError::into_inner);
        if !delay.is_zero() {
            let waited = self.changed.wait_timeout_while(orders, delay, |o| !o.stop);
            orders = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // Cleared before the work: descriptors that arrive during it cause another round.
        orders.work = false;
        !orders.stop
    }

    fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread. It works with the BQL held, and waits without it.
pub fn start(
    bell: Arc<Bell>,
    delay: Duration,
    work: impl Fn(&Bql) + Send + 'static,
) -> io::Result<()> {
    // Nothing waits for its end: after a stop it does nothing until the process ends.
    thread::spawn("svm-vtd-queue", move || {
        while bell.wait(delay) {
            let bql = Guard::lock();
            if !bell.is_stopped() {
                work(&bql);
            }
        }
    })?;
    Ok(())
}
