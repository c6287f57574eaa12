// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose turn it is, what is to be done in it, and what follows from what was done.

use super::Device;
use crate::access::{Access, Failure, Piece, canonical, plausible, plausible_length};
use crate::atc::{Cached, Space};
use crate::ats;
use crate::completion;
use crate::context::{Activity, RecordPlace, Stall, State};
use crate::counters::index;
use crate::dma::{MAX_CHUNK, MAX_TRANSLATIONS, Span};
use crate::flight::Pin;
use crate::laboratory::{Outcome, Request};
use crate::mutant::Mutant;
use crate::operation::Demand;
use crate::pri::{Group, Owner};
use crate::reach::Run;
use crate::turn::{Action, Buffers, Turn};
use pcie_ats::{
    AlignedRange, MemoryAddressType, MemoryRequest, PageRequest, Pasid, TranslationError,
    TranslationRequest,
};
use svm_abi::completion::Error;
use svm_abi::descriptor::translation;
use svm_abi::registers::{context as registers, halt};

impl Device {
    /// Whether some context has a turn to take.
    pub fn has_work(&self) -> bool {
        !self.ready.without(&self.busy).is_empty()
    }

    /// Begins the next turn, if some context has something to do.
    pub fn begin_turn(&mut self) -> Option<Turn> {
        loop {
            let member = self.ready.without(&self.busy).next(self.cursor)?;
            self.cursor = member + 1;
            let fresh = || Box::new(Buffers::new());
            let mut buffers = self.buffers.pop().unwrap_or_else(fresh);
            if self.next_action(member, &mut buffers, true) {
                self.busy.insert(member);
                let generation = self.generation(member);
                let ticket = self.permit.ticket();
                return Some(Turn::new(member, generation, ticket, buffers));
            }
            self.buffers.push(buffers);
            self.ready.remove(member);
        }
    }

    /// Takes over what the action of a turn did. Returns the ITag vector of the invalidations that
    /// waited for it.
    pub fn end_action(&mut self, turn: &mut Turn) -> u32 {
        let current = turn.generation == self.generation(turn.index);
        match &turn.buffers.action {
            Action::Laboratory { outcome, .. } => {
                if let (true, Some(lab)) = (current, &mut self.laboratory) {
                    lab.finish(outcome);
                }
            }
            Action::Translate { time: None, .. } if current => self.told(turn),
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
        let itags = self.flights.land(turn.index);
        match self.mutant {
            Some(Mutant::Rule38 | Mutant::Rule44) => 0,
            Some(Mutant::Rule40) => itags & itags.wrapping_neg(),
            Some(Mutant::Rule41) => itags.rotate_left(1),
            _ => itags,
        }
    }

    /// Chooses the next action of a turn. Returns false if the turn may have none.
    pub fn next_in_turn(&mut self, turn: &mut Turn) -> bool {
        let member = turn.index;
        if turn.has_actions() && (turn.has_budget() || self.concludes(member)) {
            let begins = turn.has_budget();
            if self.next_action(member, &mut turn.buffers, begins) {
                turn.generation = self.generation(member);
                turn.ticket = self.permit.ticket();
                return true;
            }
            if begins {
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
            self.settle(turn.index);
        }
    }

    fn generation(&self, member: usize) -> u64 {
        match self.contexts.get(member) {
            Some(context) => context.generation,
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

    /// Puts into the buffers what a context is to do next, and returns whether there is something
    /// that it can do. It begins with a new descriptor only if it may.
    fn next_action(&mut self, member: usize, buffers: &mut Buffers, begins: bool) -> bool {
        if member == self.laboratory_index() {
            return buffers.take(self.next_of_laboratory());
        }
        // Ends, because each round brings a descriptor nearer to its end, those that were read are
        // few, and reading more is an action.
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
                Stall::Waits { .. } => return false,
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
                        self.lose(member, Error::Misaligned);
                        self.retire(member);
                        continue;
                    }
                }
            }
            let demand = match &context.activity {
                Activity::Idle => {
                    if begins && context.begin() {
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
                    if self.resolve(member, first, second, buffers).is_ok() {
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

    /// The request of the laboratory, if the state of the function permits it.
    fn next_of_laboratory(&mut self) -> Option<Action> {
        let request = match (self.laboratory.as_mut()?.take()?, self.mutant) {
            (Request::Probe(request), Some(Mutant::Rule33)) => Request::Read(request),
            (request, _) => request,
        };
        if !self.permits(&request) {
            if let Some(lab) = &mut self.laboratory {
                lab.finish(&Outcome::Failed(Error::NotPresent));
            }
            return None;
        }
        Some(Action::Laboratory {
            request,
            outcome: Outcome::Waits,
        })
    }

    /// Whether the function may send a raw request. Opens the group of a page request.
    fn permits(&mut self, request: &Request) -> bool {
        let pasid = match request {
            Request::Translate(r) => r.pasid,
            Request::Page(r) => r.pasid,
            Request::Read(r) | Request::Write(r, _) | Request::Probe(r) => r.pasid,
        };
        let space = &self.space;
        if !space.may_send(None) || (pasid.is_some() && !space.pasid.enable) {
            return false;
        }
        let (execute, privileged) = match request {
            Request::Translate(r) => (r.execute, r.privileged),
            Request::Page(r) => (r.execute, r.privileged),
            Request::Read(r) | Request::Write(r, _) | Request::Probe(r) => (false, r.privileged),
        };
        if !space.may_ask(pasid, execute, privileged) {
            return false;
        }
        match request {
            Request::Translate(_) => space.ats.enable,
            Request::Page(page) => self.opens(page),
            Request::Read(r) | Request::Write(r, _) | Request::Probe(r) => {
                space.ats.enable || r.address_type == MemoryAddressType::Untranslated
            }
        }
    }

    /// Opens the group of a raw page request, if it is to have a response.
    fn opens(&mut self, page: &PageRequest) -> bool {
        let credits = self.space.pri.allocation > self.groups.outstanding();
        if !self.pri_accepts() || !credits {
            return false;
        }
        if page.last && (page.read || page.write) {
            let group = Group {
                owner: Owner::Laboratory,
                pasid: page.pasid,
                pages: 1,
                since: None,
            };
            if self.groups.insert(page.prgi, group).is_none() {
                return false;
            }
        }
        self.counters.add(index::PAGE_REQUESTS, 1);
        true
    }

    /// Finds the translations of an access, or asks for the one that is missing. An error says
    /// that the activity has ended.
    fn resolve(
        &mut self,
        member: usize,
        first: Piece,
        second: Option<Piece>,
        buffers: &mut Buffers,
    ) -> Result<(), ()> {
        let context = &self.contexts[member];
        let Some(pasid) = context.space() else {
            return Err(());
        };
        let mutant = self.mutant;
        let privileged = context.privileged();
        let space = self.space_of(pasid, privileged);
        let untranslated = MemoryRequest {
            privileged,
            ..MemoryRequest::untranslated(0, pasid)
        };
        let time = self.atc.tick();
        let mut find = |piece: &Piece| {
            let access = match mutant {
                Some(Mutant::Rule35) if piece.access == Access::ReadWrite => Access::Read,
                _ => piece.access,
            };
            let found = self.atc.lookup(space, piece.focus(), access)?;
            let mut hit = found;
            match mutant {
                Some(Mutant::Rule11) => hit.untranslated_only = true,
                Some(Mutant::Rule22) => hit.untranslated_only = false,
                Some(Mutant::Rule29) => hit.last = u64::MAX,
                Some(Mutant::Rule34) => hit.output &= !7,
                _ => {}
            }
            let limit = plausible_length(piece, piece.length);
            let mut span = Span::new(piece, &hit, &untranslated, limit);
            if let (Some(Mutant::Rule30), Some(pasid)) = (mutant, pasid) {
                span = span.with_pasid(pasid);
            }
            Some((span, found))
        };
        let bits = self.config.address_bits;
        let owned = |address: u64| match mutant {
            Some(Mutant::Rule31) => canonical(address, bits),
            Some(Mutant::Rule62) => true,
            _ => plausible(address, bits),
        };
        let pieces = [Some(first), second];
        let mut pins = [None; 2];
        // What comes next must be there of each piece before more of any is looked at: in a small
        // cache it would drive out the other's.
        for ((piece, pin), run) in pieces
            .iter()
            .flatten()
            .zip(&mut pins)
            .zip(&mut buffers.reach.runs)
        {
            if !owned(piece.focus()) {
                self.fail(member, &Failure::at(Error::BadAddress, piece));
                return Err(());
            }
            let Some((span, hit)) = find(piece) else {
                self.contexts[member].misses += 1;
                self.count(member, index::ATC_MISSES, 1);
                buffers.action = self.request(member, pasid, *piece, false, Some(time))?;
                return Ok(());
            };
            run.begin(span);
            *pin = Some(Pin::new(&hit));
        }
        buffers.reach.pieces = 1 + usize::from(second.is_some());
        let mut hits = buffers.reach.pieces as u32;
        let mut most = MAX_CHUNK as u64;
        for ((piece, pin), run) in pieces
            .iter()
            .flatten()
            .zip(&mut pins)
            .zip(&mut buffers.reach.runs)
        {
            most = most.min(plausible_length(piece, piece.length));
            if let (true, Some(pin)) = (run.len() < most, pin) {
                hits += self.extend(space, &untranslated, piece, most, run, pin);
            }
            // The second piece is of use as far as the first one goes.
            most = most.min(run.len());
        }
        // A look-up that is repeated after its translation request is not a hit.
        let hits = hits.saturating_sub(self.contexts[member].misses);
        self.count(member, index::ATC_HITS, u64::from(hits));
        self.flights.access(member, pasid, pins);
        buffers.activity = self.contexts[member].activity;
        buffers.action = Action::Access {
            result: Ok(()),
            read: 0,
            written: 0,
        };
        Ok(())
    }

    /// Goes on with the first `most` bytes of a piece, as far as translations are at hand, and
    /// returns how many there were.
    fn extend(
        &mut self,
        space: Space,
        untranslated: &MemoryRequest,
        piece: &Piece,
        most: u64,
        run: &mut Run,
        pin: &mut Pin,
    ) -> u32 {
        let (mut address, end) = (piece.address + run.len(), piece.address + most);
        let owned = plausible(end - 1, self.config.address_bits);
        // A device that breaks a rule breaks it with every translation: it takes one at a time.
        if piece.backward || !owned || self.mutant.is_some() {
            return 0;
        }
        let mut hits = 0;
        while address < end {
            let Some(hit) = self.atc.lookup(space, address, piece.access) else {
                break;
            };
            let length = (hit.last - address).saturating_add(1).min(end - address);
            run.extend(&hit, untranslated, address, length as usize);
            pin.extend(&hit);
            address += length;
            hits += 1;
        }
        hits
    }

    /// The address space of a PASID or of none in the cache, as a mode sees it (rule 20).
    fn space_of(&self, pasid: Option<Pasid>, privileged: bool) -> Space {
        match self.breaks(Mutant::Rule21) {
            true => Space::new(None, false),
            false => Space::new(pasid, privileged),
        }
    }

    /// Sends a translation request for a piece. An error says that the activity has ended.
    fn request(
        &mut self,
        member: usize,
        pasid: Option<Pasid>,
        piece: Piece,
        execute: bool,
        time: Option<u64>,
    ) -> Result<Action, ()> {
        if self.contexts[member].refused {
            self.fail(member, &Failure::at(Error::UnsupportedRequest, &piece));
            return Err(());
        }
        self.count(member, index::TRANSLATION_REQUESTS, 1);
        self.flights.request(member, pasid);
        let stu = match self.breaks(Mutant::Rule04) {
            true => 0,
            false => self.space.ats.stu,
        };
        let privileged = self.contexts[member].privileged();
        let mut request = TranslationRequest {
            execute,
            ..ats::request(&piece, pasid, privileged, stu)
        };
        match self.mutant {
            Some(Mutant::Rule03) => request.address |= 0x800,
            Some(Mutant::Rule12) => request.pages = 0,
            Some(Mutant::Rule19) => request.execute = true,
            Some(Mutant::Rule20) => request.privileged = true,
            _ => {}
        }
        Ok(Action::Translate {
            request,
            piece,
            stu,
            time,
            answer: Ok(0),
        })
    }

    /// Asks for a translation past the cache. An error says that the activity has ended.
    fn ask(&mut self, member: usize, piece: Piece, execute: bool) -> Result<Action, ()> {
        let Some(pasid) = self.contexts[member].space() else {
            return Err(());
        };
        if !plausible(piece.focus(), self.config.address_bits) {
            self.fail(member, &Failure::at(Error::BadAddress, &piece));
            return Err(());
        }
        if !self.space.may_ask(pasid, execute, false) {
            self.fail(member, &Failure::at(Error::UnsupportedAccess, &piece));
            return Err(());
        }
        self.request(member, pasid, piece, execute, None)
    }

    /// The answer to a question past the cache came.
    fn told(&mut self, turn: &Turn) {
        let Action::Translate {
            request,
            piece,
            stu,
            answer,
            ..
        } = &turn.buffers.action
        else {
            return;
        };
        let member = turn.index;
        let answers = match answer {
            Ok(count) => &turn.buffers.scratch.translations[..*count],
            Err(error) => return self.refused(member, piece, *error),
        };
        let Some(wanted) = ats::completion(request, answers, *stu).next() else {
            return self.fail(member, &Failure::at(Error::CompleterAbort, piece));
        };
        if self.flights.overtaken(member, wanted.range) {
            // Rule 39: it is asked again.
            return;
        }
        let bit = |condition: bool, bit: u64| if condition { bit } else { 0 };
        let shown = bit(self.laboratory.is_some(), translation::ADDRESS);
        let result = u64::from(wanted.range.shift())
            | bit(wanted.read, translation::READ)
            | bit(wanted.write, translation::WRITE)
            | bit(wanted.untranslated_only, translation::UNTRANSLATED_ONLY)
            | bit(answers[0].global, translation::GLOBAL)
            // Rule 19: what was not asked for is not there, nor without the permission to read.
            | bit(
                answers[0].execute && request.execute && wanted.read,
                translation::EXECUTE,
            )
            | wanted.output & shown;
        self.answer(member, result);
    }

    /// Drops translations of a context's address space.
    fn forget(&mut self, member: usize, first: u64, last: u64) {
        let dropped = match self.contexts[member].space() {
            Some(pasid) => self.atc.forget_between(pasid, first, last),
            None => 0,
        };
        self.answer(member, dropped.into());
    }

    /// Gives the operation of a context the answer to its demand.
    fn answer(&mut self, member: usize, answer: u64) {
        if let Activity::Operate(operation) = &mut self.contexts[member].activity {
            operation.answer(answer);
        }
    }

    /// A translation request was completed without a translation.
    fn refused(&mut self, member: usize, piece: &Piece, error: TranslationError) {
        let error = match error {
            TranslationError::UnsupportedRequest => {
                // Rule 13: the function may not use ATS here. It does not ask again.
                self.contexts[member].refused = true;
                Error::UnsupportedRequest
            }
            TranslationError::CompleterAbort => Error::CompleterAbort,
            TranslationError::CompletionTimeout => Error::CompletionTimeout,
        };
        self.fail(member, &Failure::at(error, piece));
    }

    /// A translation request was completed.
    fn translated(&mut self, turn: &Turn) {
        let Action::Translate {
            request,
            piece,
            stu,
            time,
            answer,
        } = &turn.buffers.action
        else {
            return;
        };
        let member = turn.index;
        let count = match answer {
            Ok(count) => *count,
            Err(TranslationError::UnsupportedRequest) if self.breaks(Mutant::Rule13) => {
                return self.page_lacks(member, piece, |_| 1);
            }
            Err(error) => return self.refused(member, piece, *error),
        };
        let time = time.unwrap_or(u64::MAX);
        let request = &TranslationRequest {
            no_write: request.no_write && !self.breaks(Mutant::Rule18),
            ..*request
        };
        let mut answers = [None; MAX_TRANSLATIONS];
        let translations = &turn.buffers.scratch.translations[..count];
        for (place, answer) in answers
            .iter_mut()
            .zip(ats::completion(request, translations, *stu))
        {
            *place = Some(answer);
        }
        if let Some(mutant) = self.mutant {
            spoil(mutant, &mut answers);
        }
        // A completion without a single sensible translation is no better than none.
        let Some(wanted) = answers[0] else {
            return self.fail(member, &Failure::at(Error::CompleterAbort, piece));
        };
        self.keep(member, request, time, &answers);
        if ats::permits(&wanted, piece) || self.overtaken(member, wanted.range) {
            // Either it is in the cache now, or it is asked for again (rule 39).
            return;
        }
        let lacking = |limit| ats::lacking(piece, answers.iter().flatten().copied(), limit);
        self.page_lacks(member, piece, lacking);
    }

    /// Puts the translations of a completion into the cache. Those beyond the one that is wanted
    /// must not drive out what the access in hand has looked up already: in a small cache it would
    /// never have all it needs.
    fn keep(
        &mut self,
        member: usize,
        request: &TranslationRequest,
        time: u64,
        answers: &[Option<Cached>; MAX_TRANSLATIONS],
    ) {
        let privileged = self.contexts[member].privileged();
        let space = self.space_of(request.pasid, privileged);
        let joined = ats::joined(answers).filter(|all| !self.overtaken(member, all.range));
        let mut answers = answers.as_slice();
        if joined.is_some() {
            answers = std::slice::from_ref(&joined);
        }
        let mut limit = u64::MAX;
        for answer in answers.iter().flatten() {
            // Rule 17: what permits nothing is not kept. Rule 39: nor is what was overtaken.
            let useful = answer.read || answer.write;
            if useful && !self.overtaken(member, answer.range) {
                let evicted = self.atc.insert_over(space, answer, limit).is_some();
                self.count(member, index::ATC_EVICTIONS, u64::from(evicted));
            }
            limit = time;
        }
    }

    /// Whether an answer is not to be used because an invalidation overtook it (rule 39).
    fn overtaken(&self, member: usize, range: AlignedRange) -> bool {
        !self.breaks(Mutant::Rule39) && self.flights.overtaken(member, range)
    }

    /// An access was performed.
    fn accessed(&mut self, turn: &Turn) {
        let Buffers {
            action: Action::Access { result, .. },
            activity,
            ..
        } = &*turn.buffers
        else {
            return;
        };
        let context = &mut self.contexts[turn.index];
        context.activity = *activity;
        context.progress();
        match result {
            Ok(()) => {
                if let Activity::Fetch(fetch) = activity {
                    context.fetched(fetch, &turn.buffers.scratch);
                }
            }
            Err(failure) => self.fail(turn.index, failure),
        }
    }

    /// The activity of a context has done its work.
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

    /// The activity of a context cannot go on.
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
                self.lose(member, failure.error);
                self.retire(member);
            }
        }
        self.ready.insert(member);
    }

    /// The record of a context's descriptor cannot be written.
    fn lose(&mut self, member: usize, why: Error) {
        self.counters.add(index::LOST_COMPLETIONS, 1);
        self.contexts[member].lose(why);
    }

    /// The descriptor of a context is finished.
    fn retire(&mut self, member: usize) {
        let failed = self.contexts[member].retire();
        if self.contexts[member].holds_back() {
            self.holding.insert(member);
        }
        self.count(member, index::DESCRIPTORS, 1);
        self.count(member, index::FAILED_DESCRIPTORS, u64::from(failed));
    }
}

/// Makes of the answers of a completion what a device that breaks a rule would make of them.
fn spoil(mutant: Mutant, answers: &mut [Option<Cached>; MAX_TRANSLATIONS]) {
    let first = answers[0];
    if let (Mutant::Rule14, Some(first), Some(second)) = (mutant, first, &mut answers[1]) {
        second.output = first.output;
    }
    for answer in answers.iter_mut().flatten() {
        match mutant {
            Mutant::Rule15 => {
                let wider = answer.range.shift() + 1;
                if let Ok(range) = AlignedRange::containing(answer.range.base(), wider) {
                    let offset = answer.range.base() - range.base();
                    answer.output = answer.output.wrapping_sub(offset);
                    answer.range = range;
                }
            }
            Mutant::Rule17 => answer.read = true,
            _ => {}
        }
    }
}
