// SPDX-License-Identifier: MIT OR Apache-2.0
//! The jobs of one action, one behind the other: the first is what its context has in hand, the
//! others are the descriptors behind it, each with its record. So a round through the device's lock
//! serves several small descriptors.

use crate::dma::{Dma, Scratch};
use crate::flight::Pin;
use crate::job::{Ending, Job};
use pcie_ats::RootPort;

/// The most jobs of an action.
const MAX_JOBS: usize = 8;

/// The jobs of an action. Kept from action to action for their memory.
#[derive(Debug)]
pub(crate) struct Jobs {
    jobs: Vec<Job>,
    /// Number of jobs.
    count: usize,
    /// The translations that they use.
    pub pins: Vec<Pin>,
}

impl Jobs {
    /// None.
    pub fn new() -> Self {
        Jobs {
            jobs: (0..MAX_JOBS).map(|_| Job::new()).collect(),
            count: 0,
            pins: Vec::with_capacity(3 * MAX_JOBS),
        }
    }

    /// Begins anew, without any.
    pub fn clear(&mut self) {
        self.count = 0;
        self.pins.clear();
    }

    /// The one behind the last, and the list of pins, unless there are as many as there can be. It
    /// counts from [`Jobs::add`] on.
    pub fn next(&mut self) -> Option<(&mut Job, &mut Vec<Pin>)> {
        Some((self.jobs.get_mut(self.count)?, &mut self.pins))
    }

    /// Adds the job that [`Jobs::next`] gave.
    pub fn add(&mut self) {
        self.count += 1;
    }

    /// Says what follows the last one.
    pub fn end(&mut self, ending: Ending) {
        if let Some(last) = self.count.checked_sub(1) {
            self.jobs[last].ending = ending;
        }
    }

    /// Takes the last one away, with the pins from a number on.
    pub fn drop_last(&mut self, pins: usize) {
        self.count -= 1;
        self.pins.truncate(pins);
    }

    /// The jobs.
    pub fn list(&self) -> &[Job] {
        &self.jobs[..self.count]
    }

    /// Does one after the other, up to the first that does not get to its end, for as long as their
    /// context lives. Returns how many were begun.
    pub fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        scratch: &mut Scratch,
        lives: impl Fn() -> bool,
    ) -> u64 {
        let mut begun = 0;
        for job in &mut self.jobs[..self.count] {
            begun += 1;
            if !job.perform(dma, scratch, &lives) {
                break;
            }
        }
        begun
    }
}
