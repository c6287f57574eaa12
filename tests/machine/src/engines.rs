// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that step the endpoints of a machine. Without them, software steps.

use crate::machine::Machine;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use svm_endpoint::Step;

/// How long an engine waits for work before it looks whether it must end. It is woken for both.
const PATIENCE: Duration = Duration::from_secs(1);

/// Engine threads; they end when this is dropped.
#[derive(Debug)]
pub struct Engines {
    machine: Machine,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Engines {
    /// Starts a number of threads, each of which steps all endpoints.
    pub fn start(machine: &Machine, count: usize) -> Engines {
        let stop = Arc::new(AtomicBool::new(false));
        machine.0.engines.fetch_add(count, Ordering::SeqCst);
        let threads = (0..count)
            .map(|number| {
                let (machine, stop) = (machine.clone(), stop.clone());
                std::thread::spawn(move || run(&machine, number, &stop))
            })
            .collect();
        Engines {
            machine: machine.clone(),
            stop,
            threads,
        }
    }
}

fn run(machine: &Machine, number: usize, stop: &AtomicBool) {
    let count = machine.functions();
    while !stop.load(Ordering::SeqCst) {
        let seen = machine.0.work.count();
        let mut worked = false;
        for n in 0..count {
            let function = (number + n) % count;
            worked |= machine.step_function(function) == Step::Worked;
        }
        if !worked {
            machine.0.news.signal();
            machine.0.work.wait(seen, PATIENCE);
        }
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.machine.0.work.signal();
        let count = self.threads.len();
        self.machine.0.engines.fetch_sub(count, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A panic in an engine is one of the machine.
            if let Err(panic) = thread.join() {
                if !std::thread::panicking() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}
