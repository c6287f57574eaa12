// SPDX-License-Identifier: GPL-2.0-or-later
//! The work of a device, step by step: in its thread, and in the thread that writes to a doorbell.

use std::sync::atomic::Ordering;
use std::time::Duration;

use svm_endpoint::Step;

use crate::bql::Bql;
use crate::device::Device;
use crate::port::Port;
use crate::worker::Engine;

impl Device {
    /// Performs a brief step in the thread that has written to a doorbell: to hand a small operation
    /// over to the device's thread takes longer than the operation. The device's thread does what is
    /// left, and times what waits.
    pub fn step_at_doorbell(&self, bql: &Bql) {
        // A step whose own access has hit the doorbell goes on by itself.
        let may = !self.in_step.load(Ordering::Relaxed) && !self.stopped.load(Ordering::Acquire);
        if may {
            self.within_step(|| self.endpoint.step_briefly(&Port::new(self, bql)));
            self.notifiers.sync(bql, &self.endpoint, false);
        }
        let waits = || self.endpoint.tick(self.now()).is_some();
        if !may || self.trace.is_some() || self.endpoint.has_work() || waits() {
            self.bell.ring();
        }
    }

    /// Takes a step; the caller has the BQL.
    fn within_step(&self, step: impl FnOnce() -> Step) -> Step {
        self.in_step.store(true, Ordering::Relaxed);
        let done = step();
        self.in_step.store(false, Ordering::Relaxed);
        done
    }
}

impl Engine for Device {
    fn step(&self, bql: &Bql) -> bool {
        if self.stopped.load(Ordering::Acquire) {
            return false; // `machine_runs` wakes the thread.
        }
        let step = self.within_step(|| self.endpoint.step(&Port::new(self, bql)));
        self.notifiers.sync(bql, &self.endpoint, false);
        step == Step::Worked
    }

    fn tick(&self) {
        // The time of the next call is queried when there is no more work.
        let _ = self.endpoint.tick(self.now());
    }

    fn rest(&self) {
        if let Some(trace) = &self.trace {
            trace.flush();
        }
        let due = self.endpoint.tick(self.now());
        if self.endpoint.has_work() && !self.stopped.load(Ordering::Acquire) {
            self.bell.ring();
        } else if let (Some(due), Some(alarm)) = (due, self.alarm.get()) {
            alarm.set_at(Duration::from_micros(due));
        }
    }
}
