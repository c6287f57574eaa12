// SPDX-License-Identifier: MIT OR Apache-2.0
//! The jobs of one action, in order: the first is the current work of its context, the others are
//! the following descriptors, each with its record. So a round through the device's lock serves
//! several small descriptors.

use crate::dma::{Dma, Scratch};
use crate::flight::Pin;
use crate::job::{Ending, Job};
use pcie_ats::RootPort;

/// The largest number of jobs of an action.
const MAX_JOBS: usize = 8;

/// The jobs of an action. Kept from action to action to reuse their memory.
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

    /// Removes all jobs.
    pub fn clear(&mut self) {
        self.count = 0;
        self.pins.clear();
    }

    /// The job after the last, and the list of pins; none if the list is full. [`Jobs::add`] makes
    /// it count.
    pub fn next(&mut self) -> Option<(&mut Job, &mut Vec<Pin>)> {
        Some((self.jobs.get_mut(self.count)?, &mut self.pins))
    }

    /// Adds the job that [`Jobs::next`] returned.
    pub fn add(&mut self) {
        self.count += 1;
    }

    /// Sets what follows the last job.
    pub fn end(&mut self, ending: Ending) {
        if let Some(last) = self.count.checked_sub(1) {
            self.jobs[last].ending = ending;
        }
    }

    /// Removes the last job, with the pins from an index on.
    pub fn drop_last(&mut self, pins: usize) {
        self.count -= 1;
        self.pins.truncate(pins);
    }

    /// The jobs.
    pub fn list(&self) -> &[Job] {
        &self.jobs[..self.count]
    }

    /// Performs one after another, up to the first that does not reach its end, while the life of
    /// their context lasts. Returns how many were begun.
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
