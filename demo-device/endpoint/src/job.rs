// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one action does in memory: jobs, one behind the other, for all of which translations are at
//! hand. The first is what its context has in hand; the others are the descriptors behind it, each
//! with its record. So a round through the device's lock serves several small descriptors.

use crate::access::Failure;
use crate::completion::{self, Record};
use crate::context::Activity;
use crate::dma::{Dma, Scratch, Span};
use crate::fast::runs::{Reach, Run};
use crate::flight::Pin;
use crate::operation::Demand;
use pcie_ats::RootPort;

/// How many bytes could be moved instead of an access, however small it is.
pub(crate) const ACCESS: u64 = 8 << 10;

/// The most jobs of an action.
pub(crate) const MAX_JOBS: usize = 8;

/// What follows when the activity of a job is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// Nothing: the device decides.
    Open,
    /// The descriptor is complete, and wants no record.
    Silent,
    /// The record of the descriptor is written there.
    Record(Span),
}

/// How far a job has come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Progress {
    /// It was not begun.
    Waiting,
    /// Its activity did what it could, or failed; nothing followed.
    Accessed(Result<(), Failure>),
    /// Its descriptor is complete: the record was written, or could not be.
    Complete(Result<(), Failure>),
}

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    /// The activity that accesses memory. It goes on.
    pub activity: Activity,
    /// What it may reach.
    pub reach: Reach,
    /// What follows.
    pub ending: Ending,
    /// How far it has come.
    pub progress: Progress,
}

impl Job {
    fn new() -> Self {
        Job {
            activity: Activity::Idle,
            reach: Reach::new(),
            ending: Ending::Open,
            progress: Progress::Waiting,
        }
    }

    /// Begins anew.
    pub fn begin(&mut self, activity: Activity) {
        self.activity = activity;
        self.reach.pieces = 0;
        self.ending = Ending::Open;
        self.progress = Progress::Waiting;
    }

    /// The most bytes that it reads or writes, with what an access costs.
    pub fn longest(&self) -> u64 {
        let runs = &self.reach.runs[..self.reach.pieces];
        ACCESS + runs.iter().map(Run::len).max().unwrap_or(0)
    }

    /// Does it, and says whether the next one may begin. What is void gets no record.
    fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        scratch: &mut Scratch,
        lives: &impl Fn() -> bool,
    ) -> bool {
        let accessed = self.reach.perform(&mut self.activity, dma, scratch);
        self.progress = Progress::Accessed(accessed);
        let (Ok(()), Demand::Done(result)) = (accessed, self.activity.demand()) else {
            return false;
        };
        let written = match self.ending {
            Ending::Open => return lives(),
            _ if !lives() => return false,
            Ending::Silent => Ok(()),
            Ending::Record(span) => {
                let record = completion::success(self.activity.bytes_done(), result);
                Record::new(span.address(), &record).perform(dma, &[span])
            }
        };
        self.progress = Progress::Complete(written);
        written.is_ok() && lives()
    }
}

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
