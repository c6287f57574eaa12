// SPDX-License-Identifier: MIT OR Apache-2.0
//! The current activity of a context, as one machine: it demands pieces of memory, and works on the
//! segments that it gets.

use crate::access::Failure;
use crate::completion::Record;
use crate::dma::{Dma, Scratch, Segment};
use crate::operation::{Demand, Operation};
use crate::ring::Fetch;
use pcie_ats::RootPort;

/// What a context is doing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Activity {
    /// Nothing.
    Idle,
    /// Reading its ring, or the array of its batch.
    Fetch(Fetch),
    /// The operation of its descriptor.
    Operate(Operation),
    /// Writing the completion record of its descriptor.
    Complete(Record),
}

impl From<Operation> for Activity {
    #[inline(always)]
    fn from(operation: Operation) -> Self {
        Activity::Operate(operation)
    }
}

impl Activity {
    /// What it needs to continue.
    pub fn demand(&self) -> Demand {
        match self {
            Activity::Idle => Demand::Done(0),
            Activity::Fetch(fetch) => fetch.demand(),
            Activity::Operate(operation) => operation.demand(),
            Activity::Complete(record) => record.demand(),
        }
    }

    /// The bytes done, for the completion record.
    pub fn bytes_done(&self) -> u64 {
        match self {
            Activity::Operate(operation) => operation.bytes_done(),
            _ => 0,
        }
    }

    /// Works on the segments of the pieces demanded last.
    pub fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        segments: &[Segment],
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        match self {
            Activity::Idle => Ok(()),
            Activity::Fetch(fetch) => fetch.perform(dma, segments, scratch),
            Activity::Operate(operation) => operation.perform(dma, segments, scratch),
            Activity::Complete(record) => record.perform(dma, segments),
        }
    }
}
