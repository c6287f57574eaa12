// SPDX-License-Identifier: GPL-2.0-or-later
//! The engine's thread: lets the device step while it has work, and waits while it has none.
//!
//! Each step runs under the BQL. With that, an invalidation, which QEMU delivers under the BQL,
//! comes either before a step or after it, never between the translation that a step uses and
//! the access that it makes with it; and QEMU's page requests, interrupts and notifiers may be
//! used at all.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bql::{Bql, Guard};
use crate::thread as qemu_thread;

/// How long the thread works without a pause. The BQL is not fair: a thread that waits for it is
/// woken when it is free, and finds it taken again by one that is awake already. Without pauses a
/// processor of the guest waits for a tenth of a second and more.
const TURN: Duration = Duration::from_micros(250);
/// The pause, in which a thread that waits for the BQL gets it. The kernel makes it longer.
const PAUSE: Duration = Duration::from_micros(1);

/// What the thread drives.
pub trait Engine: Send + Sync + 'static {
    /// One step; whether there may be more to do.
    fn step(&self, bql: &Bql) -> bool;
    /// Time passes while there is work. The BQL is not held.
    fn tick(&self);
    /// There is nothing to do for now. The BQL is not held.
    fn rest(&self);
}

/// What the thread has been told.
#[derive(Default)]
struct Orders {
    work: bool,
    stop: bool,
    /// What the thread works on must be freed, since the process goes on.
    free: bool,
}

/// How the thread is told that there is work.
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

    /// Ends the thread, and perhaps frees what it works on.
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
        // Cleared before the steps: what comes during them leads to another round.
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
                // It may be the last to have the engine, whose timers end under the BQL.
                let _bql = Guard::lock();
                drop(engine);
            } else {
                // The process ends, and the BQL may be free no more.
                std::mem::forget(engine);
            }
        })?;
        Ok(Worker { bell, thread })
    }

    /// Lets the thread end by itself. It makes no step any more: each begins with the BQL, and
    /// with a look at whether it is still wanted. The BQL is not let go of.
    pub fn dismiss(self, _bql: &Bql) {
        self.bell.stop(true);
    }

    /// Ends the thread, for the process ends, and waits for its end, without holding the BQL.
    pub fn stop_unlocked(self) {
        self.bell.stop(false);
        // QEMU may end the process from any thread, this one too.
        if self.thread.thread().id() != thread::current().id() {
            // An error would be a panic of the thread, which aborts.
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
