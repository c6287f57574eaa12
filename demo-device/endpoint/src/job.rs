// SPDX-License-Identifier: MIT OR Apache-2.0
//! A job: memory accesses of a context for which all translations are known, and what follows them.

use crate::access::Failure;
use crate::activity::Activity;
use crate::completion::{self, Record};
use crate::dma::{Dma, Scratch, Segment};
use crate::fast::runs::{Run, Runs};
use crate::operation::Demand;
use pcie_ats::RootPort;

/// The cost of an access of any size, as a number of bytes that could be moved instead.
pub(crate) const ACCESS: u64 = 8 << 10;

/// What follows when the activity of a job is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// Nothing: the device decides.
    Open,
    /// The descriptor is complete, and has no record.
    Silent,
    /// The job writes the record of the descriptor there.
    Record(Segment),
}

/// The progress of a job.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Progress {
    /// It has not started.
    Waiting,
    /// Its activity has done its part, or failed; nothing followed.
    Accessed(Result<(), Failure>),
    /// Its descriptor is complete: the record was written, or writing it failed.
    Complete(Result<(), Failure>),
}

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    /// The activity that accesses memory. The job advances it.
    pub activity: Activity,
    /// What it may access.
    pub runs: Runs,
    /// What follows.
    pub ending: Ending,
    /// Its progress.
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

    /// Restarts; its activity is set apart.
    pub fn restart(&mut self) {
        self.runs.pieces = 0;
        self.ending = Ending::Open;
        self.progress = Progress::Waiting;
    }

    /// The largest number of bytes that it reads or writes, including the cost of an access.
    pub fn longest(&self) -> u64 {
        let runs = &self.runs.of[..self.runs.pieces];
        ACCESS + runs.iter().map(Run::len).max().unwrap_or(0)
    }

    /// Performs it, and returns whether the next one may begin. A cancelled job writes no record.
    pub fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        scratch: &mut Scratch,
        lives: &impl Fn() -> bool,
    ) -> bool {
        if let Err(failure) = self.runs.perform(&mut self.activity, dma, scratch) {
            self.progress = Progress::Accessed(Err(failure));
            return false;
        }
        self.progress = Progress::Accessed(Ok(()));
        let Demand::Done(result) = self.activity.demand() else {
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
        if let Err(failure) = written {
            self.progress = Progress::Complete(Err(failure));
            return false;
        }
        self.progress = Progress::Complete(Ok(()));
        lives()
    }
}
