// SPDX-License-Identifier: GPL-2.0-or-later
//! The work of a device's thread, step by step.

use std::sync::atomic::Ordering;
use std::time::Duration;

use svm_endpoint::Step;

use crate::bql::Bql;
use crate::device::Device;
use crate::port::Port;
use crate::worker::Engine;

impl Engine for Device {
    fn step(&self, bql: &Bql) -> bool {
        if self.stopped.load(Ordering::Acquire) {
            return false; // `machine_runs` wakes the thread.
        }
        let step = self.endpoint.step(&Port::new(self, bql));
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
