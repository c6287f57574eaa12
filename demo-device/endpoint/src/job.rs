// SPDX-License-Identifier: MIT OR Apache-2.0
//! A job: work of a context in memory for which all translations are at hand, and what follows it.

use crate::access::Failure;
use crate::activity::Activity;
use crate::completion::{self, Record};
use crate::dma::{Dma, Scratch, Segment};
use crate::fast::runs::{Run, Runs};
use crate::operation::Demand;
use pcie_ats::RootPort;

/// How many bytes could be moved instead of an access, however small it is.
pub(crate) const ACCESS: u64 = 8 << 10;

/// What follows when the activity of a job is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// Nothing: the device decides.
    Open,
    /// The descriptor is complete, and wants no record.
    Silent,
    /// The record of the descriptor is written there.
    Record(Segment),
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
    /// What it may access.
    pub runs: Runs,
    /// What follows.
    pub ending: Ending,
    /// How far it has come.
    pub progress: Progress,
}

impl Job {
    pub fn new() -> Self {
        Job {
            activity: Activity::Idle,
            runs: Runs::new(),
            ending: Ending::Open,
            progress: Progress::Waiting,
        }
    }

    /// Begins anew.
    pub fn begin(&mut self, activity: Activity) {
        self.activity = activity;
        self.runs.pieces = 0;
        self.ending = Ending::Open;
        self.progress = Progress::Waiting;
    }

    /// The most bytes that it reads or writes, with what an access costs.
    pub fn longest(&self) -> u64 {
        let runs = &self.runs.of[..self.runs.pieces];
        ACCESS + runs.iter().map(Run::len).max().unwrap_or(0)
    }

    /// Does it, and says whether the next one may begin. What is void gets no record.
    pub fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        scratch: &mut Scratch,
        lives: &impl Fn() -> bool,
    ) -> bool {
        let accessed = self.runs.perform(&mut self.activity, dma, scratch);
        self.progress = Progress::Accessed(accessed);
        let (Ok(()), Demand::Done(result)) = (accessed, self.activity.demand()) else {
            return false;
        };
        let written = match self.ending {
            Ending::Open => return lives(),
            _ if !lives() => return false,
            Ending::Silent => Ok(()),
            Ending::Record(segment) => {
                let record = completion::success(self.activity.bytes_done(), result);
                Record::new(segment.address(), &record).perform(dma, &[segment])
            }
        };
        self.progress = Progress::Complete(written);
        written.is_ok() && lives()
    }
}
