// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plans the work after the first job of an action, which runs without another look at the device's
//! state.

use crate::access::canonical;
use crate::activity::Activity;
use crate::completion::{Record, RecordPlace, Tail};
use crate::device::Device;
use crate::device::resolve::{RECORDS, View};
use crate::fast::jobs::Jobs;
use crate::flight::Pin;
use crate::job::Ending;
use crate::operation::{Demand, Operation};

impl Device {
    /// Adds the work after the first job: its record if it ends its descriptor, and the following
    /// descriptors with theirs. Stops where a translation is missing, and repeats no look-up.
    /// Returns the number of look-ups that hit.
    pub(crate) fn plan(
        &mut self,
        member: usize,
        view: &mut View,
        jobs: &mut Jobs,
        budget: u64,
    ) -> u32 {
        let (mut hits, mut budget) = (0, budget);
        let context = &self.contexts[member];
        let [job] = jobs.list() else { return 0 };
        match &job.activity {
            // A fence could follow a failure.
            Activity::Complete(_) if !context.has_failed() => {}
            Activity::Operate(operation)
                if operation.ends() && job.runs.covers(&operation.demand()) =>
            {
                let Some(more) = self.end(view, context.tail(), jobs) else {
                    return 0;
                };
                hits += more;
            }
            _ => return 0,
        }
        let mut interrupt = self.contexts[member].tail().interrupt;
        let mut skip = 0;
        while !interrupt && budget > 0 {
            let Some(descriptor) = self.contexts[member].following(skip) else {
                break;
            };
            let Some((job, pins)) = jobs.next() else {
                break;
            };
            let tail = Tail::of(descriptor);
            job.restart();
            if Operation::start(descriptor, &mut job.activity).is_err() {
                break;
            }
            let Activity::Operate(operation) = &job.activity else {
                break;
            };
            let ends = operation.ends();
            let demand = operation.demand();
            let pinned = pins.len();
            let found = match &demand {
                Demand::Done(_) => Ok(0),
                Demand::Access(first, second) if ends => {
                    self.look_up(view, first, second.as_ref(), job, pins)
                }
                _ => break,
            };
            let covered = job.runs.covers(&demand);
            let cost = job.longest();
            let (Ok(found), true) = (found, covered) else {
                pins.truncate(pinned);
                break;
            };
            jobs.add();
            let Some(ended) = self.end(view, tail, jobs) else {
                jobs.drop_last(pinned);
                break;
            };
            hits += found + ended;
            budget = budget.saturating_sub(cost);
            interrupt = tail.interrupt;
            skip += 1;
        }
        hits
    }

    /// Makes the last job end with its descriptor's record. Returns the number of look-ups that
    /// hit; none if it is not possible.
    fn end(&mut self, view: &mut View, tail: Tail, jobs: &mut Jobs) -> Option<u32> {
        let piece = match RecordPlace::of(tail.completion) {
            RecordPlace::Bad => return None,
            RecordPlace::None => {
                jobs.end(Ending::Silent);
                return Some(0);
            }
            RecordPlace::Good => Record::piece(tail.completion),
        };
        if !canonical(piece.address, self.config.address_bits) {
            return None;
        }
        let hit = self.hit(view, RECORDS, piece.address, piece.access)?;
        let segment = self.segment(view, &piece, &hit, piece.length);
        jobs.pins.push(Pin::new(&hit));
        jobs.end(Ending::Record(segment));
        Some(1)
    }
}
