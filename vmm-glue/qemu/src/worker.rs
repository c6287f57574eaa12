// SPDX-License-Identifier: GPL-2.0-or-later
//! The engine's thread: steps the device while it has work, and waits while it has none.
//!
//! Each step runs under the BQL. QEMU delivers invalidations under the BQL, so an invalidation
//! comes either before a step or after it, never between the look-up of a translation and the
//! access that uses it. QEMU's page requests, interrupts and notifiers also require the BQL.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bell::Bell;
use crate::bql::{Bql, Guard};
use crate::thread as qemu_thread;

/// How long the thread works without a pause. The BQL is not fair: a waiting thread is woken when
/// the lock is free, and finds it taken again by a thread that was already awake. Without pauses a
/// processor of the guest waits for a tenth of a second and more.
const TURN: Duration = Duration::from_micros(250);
/// The pause, in which a waiting thread gets the BQL. The kernel makes it longer.
const PAUSE: Duration = Duration::from_micros(1);
/// How long the thread looks for more work before it sleeps: about what a program in the guest takes
/// from a completion record to its next doorbell.
const LOOK: Duration = Duration::from_micros(50);

/// The engine that the thread drives.
pub trait Engine: Send + Sync + 'static {
    /// Performs one step; returns whether there may be more to do.
    fn step(&self, bql: &Bql) -> bool;
    /// Advances the time while there is work. The BQL is not held.
    fn tick(&self);
    /// Called when there is nothing to do for now. The BQL is not held.
    fn rest(&self);
}

/// The running thread.
pub struct Worker {
    bell: Arc<Bell>,
    /// Free the engine at the end, because the process continues.
    frees: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the thread.
    pub fn start(bell: Arc<Bell>, engine: Arc<dyn Engine>) -> io::Result<Worker> {
        let heard = Arc::clone(&bell);
        let frees = Arc::new(AtomicBool::new(false));
        let is_freed = Arc::clone(&frees);
        let thread = qemu_thread::spawn("svm-demo", move || {
            run(&heard, &*engine);
            if is_freed.load(Ordering::Acquire) {
                // This may be the last reference to the engine, whose timers must end under the
                // BQL.
                let _bql = Guard::lock();
                drop(engine);
            } else {
                // The process ends, and the BQL may never be free again.
                std::mem::forget(engine);
            }
        })?;
        Ok(Worker {
            bell,
            frees,
            thread,
        })
    }

    /// Lets the thread end on its own. It makes no more steps: each step takes the BQL first, and
    /// then checks whether the thread has to end. The caller keeps the BQL.
    pub fn dismiss(self, _bql: &Bql) {
        self.frees.store(true, Ordering::Release);
        self.bell.stop();
    }

    /// Ends the thread at the end of the process, and waits for it without holding the BQL.
    pub fn stop_unlocked(self) {
        self.bell.stop();
        // QEMU may end the process from any thread, including this one.
        if self.thread.thread().id() != thread::current().id() {
            // An error would mean a panic of the thread, which aborts.
            let _ = self.thread.join();
        }
    }
}

/// The thread.
fn run(bell: &Bell, engine: &dyn Engine) {
    while bell.look_and_wait(LOOK) {
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
