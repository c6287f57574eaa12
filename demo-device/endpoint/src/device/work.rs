// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chooses the turns, their actions, and what follows.

use super::Device;
use crate::access::Failure;
use crate::activity::Activity;
use crate::completion::{self, RecordPlace};
use crate::context::{Stall, State};
use crate::counters::index;
use crate::job::Progress;
use crate::mutant::Mutant;
use crate::operation::Demand;
use crate::turn::{Action, Buffers, SHARED_BUDGET, Turn};
use svm_abi::completion::Error;
use svm_abi::registers::{context as registers, halt};

impl Device {
    /// Whether some context has a turn to take.
    pub fn has_work(&self) -> bool {
        !self.ready.without(&self.busy).is_empty()
    }

    /// Begins the next turn, of at most so many bytes, if some context has something to do.
    pub fn begin_turn(&mut self, most: u64) -> Option<Turn> {
        loop {
            let mut waiting = self.ready.without(&self.busy);
            let member = waiting.next(self.cursor)?;
            waiting.remove(member);
            let budget = match waiting.is_empty() {
                true => most,
                false => most.min(SHARED_BUDGET),
            };
            self.cursor = member + 1;
            let fresh = || Box::new(Buffers::new());
            let mut buffers = self.buffers.pop().unwrap_or_else(fresh);
            if self.next_action(member, &mut buffers, budget) {
                self.busy.insert(member);
                let generation = self.generation(member);
                let ticket = self.permit.ticket();
                return Some(Turn::new(member, generation, ticket, buffers, budget));
            }
            self.buffers.push(buffers);
            self.ready.remove(member);
        }
    }

    /// Applies the result of a turn's action. Returns the ITag vector of the invalidations that
    /// waited for it.
    pub fn end_action(&mut self, turn: &mut Turn) -> u32 {
        let current = turn.generation == self.generation(turn.index);
        match &turn.buffers.action {
            Action::Laboratory { outcome, .. } => {
                if let (true, Some(lab)) = (current, &mut self.laboratory) {
                    lab.finish(outcome);
                }
            }
            Action::Translate { time: None, .. } if current => self.translation_answered(turn),
            Action::Translate { .. } if current => self.translated(turn),
            Action::PageRequests { .. } => self.requested(turn),
            Action::Access { read, written, .. } => {
                let member = if current { turn.index } else { usize::MAX };
                self.count(member, index::BYTES_READ, *read);
                self.count(member, index::BYTES_WRITTEN, *written);
                if current {
                    self.accessed(turn);
                }
            }
            _ => {}
        }
        let itags = self.flights.complete(turn.index);
        match self.mutant {
            Some(Mutant::Rule38 | Mutant::Rule44) => 0,
            Some(Mutant::Rule40) => itags & itags.wrapping_neg(),
            Some(Mutant::Rule41) => itags.rotate_left(1),
            _ => itags,
        }
    }

    /// Chooses the next action of a turn. Returns false if the turn has none.
    pub fn next_in_turn(&mut self, turn: &mut Turn) -> bool {
        let member = turn.index;
        let budget = turn.budget();
        if turn.has_actions() && (budget > 0 || self.concludes(member)) {
            if self.next_action(member, &mut turn.buffers, budget) {
                turn.generation = self.generation(member);
                turn.ticket = self.permit.ticket();
                return true;
            }
            if budget > 0 {
                self.ready.remove(member);
            }
        }
        false
    }

    /// Ends a turn.
    pub fn end_turn(&mut self, turn: Turn) {
        self.busy.remove(turn.index);
        self.buffers.push(turn.buffers);
        if turn.index < self.contexts.len() {
            self.finish_stop(turn.index);
        }
    }

    fn generation(&self, member: usize) -> u64 {
        match self.contexts.get(member) {
            Some(context) => context.life.number(),
            None => self.laboratory.as_ref().map_or(0, |lab| lab.generation),
        }
    }

    /// Whether the descriptor of a context has moved all its data.
    fn concludes(&self, member: usize) -> bool {
        let Some(context) = self.contexts.get(member) else {
            return false;
        };
        match &context.activity {
            Activity::Complete(_) => true,
            Activity::Operate(op) => !matches!(op.demand(), Demand::Access(..)),
            _ => context.interrupt,
        }
    }

    /// Writes the next action of a context into the buffers, and returns whether there is one. It
    /// begins new descriptors only within a budget of bytes.
    fn next_action(&mut self, member: usize, buffers: &mut Buffers, budget: u64) -> bool {
        if member == self.laboratory_index() {
            return buffers.take(self.next_of_laboratory());
        }
        // Terminates, because each round brings a descriptor closer to its end, the number of
        // descriptors that were read is small, and reading more is an action.
        loop {
            let lost = self.breaks(Mutant::Rule72);
            let sends = self.space.may_send(self.mutant);
            if !self.space.awake(self.mutant) {
                return false;
            }
            let context = &mut self.contexts[member];
            if context.state == State::Stopping && context.marker {
                return buffers.take(self.stop_marker(member));
            }
            if std::mem::take(&mut context.interrupt) {
                let lost = lost && context.read(registers::HEAD) % 2 == 0;
                match context.vector() {
                    Some(vector) if vector < self.config.vectors() && sends && !lost => {
                        self.count(member, index::INTERRUPTS, 1);
                        buffers.action = Action::Interrupt(vector);
                        return true;
                    }
                    _ => continue,
                }
            }
            if context.state != State::Enabled {
                return false;
            }
            match context.stall {
                Stall::None => {}
                Stall::Waits { .. } => return buffers.take(self.request_pages_ahead(member)),
                Stall::Rests { .. } => return false,
                Stall::Wants { .. } => {
                    match self.request_pages(member) {
                        Ok(action) => return buffers.take(action),
                        Err(()) => continue,
                    };
                }
            }
            if let Activity::Complete(_) = context.activity {
                match context.record() {
                    RecordPlace::Good => {}
                    RecordPlace::None => {
                        self.retire(member);
                        continue;
                    }
                    RecordPlace::Bad => {
                        self.lose_record(member, Error::Misaligned);
                        self.retire(member);
                        continue;
                    }
                }
            }
            let demand = match &context.activity {
                Activity::Idle => {
                    if budget > 0 && context.begin() {
                        continue;
                    }
                    return false;
                }
                activity => activity.demand(),
            };
            match demand {
                Demand::Done(result) => self.done(member, result),
                Demand::Failed(failure) => self.fail(member, &failure),
                Demand::Access(first, second) => {
                    if self.resolve(member, first, second, buffers, budget).is_ok() {
                        return true;
                    }
                }
                Demand::Translate(piece, execute) => {
                    if let Ok(action) = self.ask(member, piece, execute) {
                        buffers.action = action;
                        return true;
                    }
                }
                Demand::Forget(first, last) => self.forget(member, first, last),
            }
        }
    }

    /// Handles jobs that were performed.
    fn accessed(&mut self, turn: &Turn) {
        let member = turn.index;
        for (n, job) in turn.buffers.jobs.list().iter().enumerate() {
            let context = &mut self.contexts[member];
            if matches!(job.progress, Progress::Waiting) {
                break;
            }
            if n > 0 {
                context.take_up();
            }
            context.progress();
            if let Progress::Complete(Ok(())) = job.progress {
                context.succeed();
                self.retire(member);
                continue;
            }
            context.activity = job.activity;
            match (job.progress, &job.activity) {
                (Progress::Waiting, _) => {}
                (Progress::Accessed(Err(failure)), _) => self.fail(member, &failure),
                (Progress::Accessed(Ok(())), Activity::Fetch(fetch)) => {
                    context.fetched(fetch, &turn.buffers.scratch);
                    if self.breaks(Mutant::Mixed) {
                        self.mix(member);
                    }
                }
                (Progress::Accessed(Ok(())), Activity::Complete(_)) => self.retire(member),
                (Progress::Accessed(Ok(())), _) => {}
                (Progress::Complete(written), _) => {
                    context.succeed();
                    if let Err(failure) = written {
                        self.lose_record(member, failure.error);
                    }
                    self.retire(member);
                }
            }
        }
    }

    /// Confuses a context that has read descriptors with another one of its address space.
    fn mix(&mut self, member: usize) {
        let space = self.contexts[member].space();
        let mut contexts = self.contexts.iter().enumerate();
        let other = contexts.find(|(n, other)| *n != member && other.space() == space);
        let destination = other.map_or(0, |(_, other)| other.destination());
        if destination != 0 {
            self.contexts[member].redirect(destination);
        }
    }

    /// Ends the activity of a context, which has done its work.
    fn done(&mut self, member: usize, result: u64) {
        let context = &mut self.contexts[member];
        match &context.activity {
            Activity::Idle | Activity::Fetch(_) => {}
            Activity::Operate(operation) => {
                let record = completion::success(operation.bytes_done(), result);
                context.conclude(&record);
            }
            Activity::Complete(_) => self.retire(member),
        }
    }

    /// Ends the activity of a context, which cannot continue.
    pub(super) fn fail(&mut self, member: usize, failure: &Failure) {
        let context = &mut self.contexts[member];
        context.stall = Stall::None;
        context.progress();
        match &context.activity {
            Activity::Idle => {}
            Activity::Fetch(_) => {
                if !context.lose_array(failure) {
                    self.halt(member, halt::RING_FAULT);
                }
            }
            Activity::Operate(operation) => {
                let record = completion::failure(operation.bytes_done(), failure);
                context.conclude(&record);
            }
            Activity::Complete(_) => {
                self.lose_record(member, failure.error);
                self.retire(member);
            }
        }
        self.ready.insert(member);
    }

    /// Notes that the record of a context's descriptor cannot be written.
    fn lose_record(&mut self, member: usize, why: Error) {
        self.counters.add(index::LOST_COMPLETIONS, 1);
        self.contexts[member].lose_record(why);
    }

    /// Retires the descriptor of a context.
    fn retire(&mut self, member: usize) {
        let failed = self.contexts[member].retire();
        if self.contexts[member].waits_for_time() {
            self.timed.insert(member);
        }
        self.count(member, index::DESCRIPTORS, 1);
        self.count(member, index::FAILED_DESCRIPTORS, u64::from(failed));
    }
}
