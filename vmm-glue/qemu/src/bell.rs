// SPDX-License-Identifier: GPL-2.0-or-later
//! Tells a thread that there is work, or that it must end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The orders to the thread.
#[derive(Debug, Default)]
struct Orders {
    work: bool,
    stop: bool,
    /// The thread sleeps: to wake it takes a system call.
    sleeps: bool,
}

/// Tells one thread that there is work.
#[derive(Debug, Default)]
pub struct Bell {
    orders: Mutex<Orders>,
    changed: Condvar,
    /// There is work or the order to stop, for a look without the lock.
    rung: AtomicBool,
}

impl Bell {
    /// There may be work.
    pub fn ring(&self) {
        let mut orders = self.lock();
        if !orders.work {
            orders.work = true;
            self.wake(&orders);
        }
    }

    /// Orders the thread to do nothing any more.
    pub fn stop(&self) {
        let mut orders = self.lock();
        orders.stop = true;
        self.wake(&orders);
    }

    /// Whether the thread was ordered to stop.
    pub fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// Waits for work; false if the thread must end.
    pub fn wait(&self) -> bool {
        let mut orders = self.lock();
        while !orders.work && !orders.stop {
            orders.sleeps = true;
            let woken = self.changed.wait(orders);
            orders = woken.unwrap_or_else(PoisonError::into_inner);
            orders.sleeps = false;
        }
        // Cleared before the work: more that arrives during it causes another round.
        orders.work = false;
        self.rung.store(orders.stop, Ordering::Relaxed);
        !orders.stop
    }

    /// The same, but looks for work for a while before it sleeps, because waking a thread takes
    /// longer than a small operation. It does not yield meanwhile: a thread that yields to one that
    /// looks, too, gets the processor back after milliseconds.
    pub fn look_and_wait(&self, time: Duration) -> bool {
        let begin = Instant::now();
        while !self.rung.load(Ordering::Relaxed) && begin.elapsed() < time {
            std::hint::spin_loop();
        }
        self.wait()
    }

    /// Waits for a time; false if the thread must end, which it learns at once.
    pub fn pause(&self, time: Duration) -> bool {
        let begin = Instant::now();
        let mut orders = self.lock();
        while !orders.stop {
            let Some(rest) = time.checked_sub(begin.elapsed()) else {
                return true;
            };
            orders.sleeps = true;
            let woken = self.changed.wait_timeout(orders, rest);
            orders = woken.unwrap_or_else(PoisonError::into_inner).0;
            orders.sleeps = false;
        }
        false
    }

    fn wake(&self, orders: &Orders) {
        self.rung.store(true, Ordering::Relaxed);
        if orders.sleeps {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn each_ring_leads_to_a_round_and_the_last_to_the_end() {
        for look in [Duration::ZERO, LONG] {
            let bell = Arc::new(Bell::default());
            let (send, rounds) = channel();
            let heard = Arc::clone(&bell);
            let thread = thread::spawn(move || {
                while heard.look_and_wait(look) {
                    send.send(()).unwrap();
                }
            });
            for _ in 0..1000 {
                bell.ring();
                rounds.recv().unwrap();
            }
            bell.stop();
            thread.join().unwrap();
            assert!(bell.is_stopped());
        }
    }

    #[test]
    fn a_ring_before_the_wait_is_not_lost_and_counts_once() {
        let bell = Bell::default();
        bell.ring();
        bell.ring();
        assert!(bell.wait());
        bell.stop();
        assert!(!bell.wait());
    }

    #[test]
    fn a_pause_lasts_its_time_unless_the_thread_must_end() {
        let bell = Bell::default();
        bell.ring();
        assert!(bell.pause(Duration::from_millis(1)));
        // What came during it is still there.
        assert!(bell.wait());
        bell.stop();
        assert!(!bell.pause(LONG));
    }
}
