// SPDX-License-Identifier: MIT OR Apache-2.0
//! From what an activity wants to reach to translations of it: look-ups, translation requests and
//! what becomes of their answers (PCIe 10.2).

use super::Device;
use crate::access::{Access, Failure, Piece, canonical, plausible, plausible_length};
use crate::atc::{Cached, Space};
use crate::ats;
use crate::context::Activity;
use crate::counters::index;
use crate::dma::{MAX_CHUNK, MAX_TRANSLATIONS, Span};
use crate::flight::Pin;
use crate::mutant::Mutant;
use crate::reach::Run;
use crate::turn::{Action, Buffers, Turn};
use pcie_ats::{AlignedRange, MemoryRequest, Pasid, TranslationError, TranslationRequest};
use svm_abi::completion::Error;
use svm_abi::descriptor::translation;

impl Device {
    /// Finds the translations of an access, or asks for the one that is missing. An error says
    /// that the activity has ended.
    pub(super) fn resolve(
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
    pub(super) fn extend(
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
    pub(super) fn space_of(&self, pasid: Option<Pasid>, privileged: bool) -> Space {
        match self.breaks(Mutant::Rule21) {
            true => Space::new(None, false),
            false => Space::new(pasid, privileged),
        }
    }

    /// Sends a translation request for a piece. An error says that the activity has ended.
    pub(super) fn request(
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
    pub(super) fn ask(&mut self, member: usize, piece: Piece, execute: bool) -> Result<Action, ()> {
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
    pub(super) fn told(&mut self, turn: &Turn) {
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
    pub(super) fn forget(&mut self, member: usize, first: u64, last: u64) {
        let dropped = match self.contexts[member].space() {
            Some(pasid) => self.atc.forget_between(pasid, first, last),
            None => 0,
        };
        self.answer(member, dropped.into());
    }

    /// Gives the operation of a context the answer to its demand.
    pub(super) fn answer(&mut self, member: usize, answer: u64) {
        if let Activity::Operate(operation) = &mut self.contexts[member].activity {
            operation.answer(answer);
        }
    }

    /// A translation request was completed without a translation.
    pub(super) fn refused(&mut self, member: usize, piece: &Piece, error: TranslationError) {
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
    pub(super) fn translated(&mut self, turn: &Turn) {
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
    pub(super) fn keep(
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
    pub(super) fn overtaken(&self, member: usize, range: AlignedRange) -> bool {
        !self.breaks(Mutant::Rule39) && self.flights.overtaken(member, range)
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
