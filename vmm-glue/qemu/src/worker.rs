// SPDX-License-Identifier: GPL-2.0-or-later
//! The engine's thread: steps the device while it has work, and waits while it has none.
//!
//! Each step runs under the BQL. QEMU delivers invalidations under the BQL, so an invalidation
//! comes either before a step or after it, never between the look-up of a translation and the
//! access that uses it. QEMU's page requests, interrupts and notifiers also require the BQL.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bql::{Bql, Guard};
use crate::thread as qemu_thread;

/// How long the thread works without a pause. The BQL is not fair: a waiting thread is woken when
/// the lock is free, and finds it taken again by a thread that was already awake. Without pauses a
/// processor of the guest waits for a tenth of a second and more.
const TURN: Duration = Duration::from_micros(250);
/// The pause, in which a waiting thread gets the BQL. The kernel makes it longer.
const PAUSE: Duration = Duration::from_micros(1);

/// The engine that the thread drives.
pub trait Engine: Send + Sync + 'static {
    /// Performs one step; returns whether there may be more to do.
    fn step(&self, bql: &Bql) -> bool;
    /// Advances the time while there is work. The BQL is not held.
    fn tick(&self);
    /// Called when there is nothing to do for now. The BQL is not held.
    fn rest(&self);
}

/// The orders to the thread.
#[derive(Default)]
struct Orders {
    work: bool,
    stop: bool,
    /// Free the engine, because the process continues.
    free: bool,
}

/// Tells the thread that there is work.
#[derive(Default)]
pub struct Bell {
    orders: Mutex<Orders>,
    changed: Condvar,
}

impl Bell {
    /// There may be work.
    pub fn ring(&self) {
        let mut orders = self.lock();
        if !orders.work {
            orders.work = true;
            self.changed.notify_one();
        }
    }

    /// Ends the thread, and optionally frees the engine.
    fn stop(&self, free: bool) {
        let mut orders = self.lock();
        (orders.stop, orders.free) = (true, free);
        self.changed.notify_one();
    }

    fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// Waits for work; false if the thread must end.
    fn wait(&self) -> bool {
        let orders = self.lock();
        let waited = self.changed.wait_while(orders, |o| !o.work && !o.stop);
        let mut orders = waited.unwrap_or_else(PoisonError::into_inner);
        // Cleared before the steps: work that arrives during them causes another round.
        orders.work = false;
        !orders.stop
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running thread.
pub struct Worker {
    bell: Arc<Bell>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the thread.
    pub fn start(bell: Arc<Bell>, engine: Arc<dyn Engine>) -> io::Result<Worker> {
        let heard = Arc::clone(&bell);
        let thread = qemu_thread::spawn("svm-demo", move || {
            run(&heard, &*engine);
            if heard.lock().free {
                // This may be the last reference to the engine, whose timers must end under the
                // BQL.
                let _bql = Guard::lock();
                drop(engine);
            } else {
                // The process ends, and the BQL may never be free again.
                std::mem::forget(engine);
            }
        })?;
        Ok(Worker { bell, thread })
    }

    /// Lets the thread end on its own. It makes no more steps: each step takes the BQL first, and
    /// then checks whether the thread has to end. The caller keeps the BQL.
    pub fn dismiss(self, _bql: &Bql) {
        self.bell.stop(true);
    }

    /// Ends the thread at the end of the process, and waits for it without holding the BQL.
    pub fn stop_unlocked(self) {
        self.bell.stop(false);
        // QEMU may end the process from any thread, including this one.
        if self.thread.thread().id() != thread::current().id() {
            // An error would mean a panic of the thread, which aborts.
            let _ = self.thread.join();
        }
    }
}

/// The thread.
fn run(bell: &Bell, engine: &dyn Engine) {
    while bell.wait() {
        let mut turn = Instant::now();
        loop {
            let bql = Guard::lock();
            let more = !bell.is_stopped() && engine.step(&bql);
            drop(bql);
            if !more {
                break;
            }
            if turn.elapsed() >= TURN {
                engine.tick();
                thread::sleep(PAUSE);
                turn = Instant::now();
            }
        }
        if !bell.is_stopped() {
            engine.rest();
        }
    }
}
