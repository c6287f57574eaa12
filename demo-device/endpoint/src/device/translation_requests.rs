// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translation requests, and what becomes of their answers (PCIe 10.2).

use super::Device;
use crate::access::{Access, Failure, Piece, canonical};
use crate::atc::{Cached, Space};
use crate::ats_messages;
use crate::context::Activity;
use crate::counters::index;
use crate::dma::MAX_TRANSLATIONS;
use crate::fast::read_ahead::MAX_AHEAD;
use crate::mutant::Mutant;
use crate::turn::{Action, Turn};
use pcie_ats::{
    AlignedRange, PAGE_SHIFT, Pasid, Translation, TranslationError, TranslationRequest,
};
use svm_abi::completion::Error;
use svm_abi::descriptor::translation;

/// Log2 of the size to which neighbours grow together in the cache: a large page of a processor, of
/// which there are often some anyway.
const LARGE: u32 = 21;
/// How many completions that each are one translation are one translation again, if they can be.
const JOINED: usize = 4;

impl Device {
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
        let request = self.as_mutant_asks(TranslationRequest {
            execute,
            ..ats_messages::request(&piece, pasid, privileged, stu)
        });
        Ok(Action::Translate {
            request,
            piece,
            stu,
            time,
            answer: Ok(0),
        })
    }

    /// Makes of a request what a device that breaks a rule would send.
    pub(crate) fn as_mutant_asks(&self, mut request: TranslationRequest) -> TranslationRequest {
        match self.mutant {
            Some(Mutant::Rule03) => request.address |= 0x800,
            Some(Mutant::Rule12) => request.pages = 0,
            Some(Mutant::Rule19) => request.execute = true,
            Some(Mutant::Rule20) => request.privileged = true,
            _ => {}
        }
        request
    }

    /// Asks for a translation past the cache. An error says that the activity has ended.
    pub(super) fn ask(&mut self, member: usize, piece: Piece, execute: bool) -> Result<Action, ()> {
        let Some(pasid) = self.contexts[member].space() else {
            return Err(());
        };
        if !canonical(piece.focus(), self.config.address_bits) {
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
    pub(super) fn translation_answered(&mut self, turn: &Turn) {
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
        let Some(wanted) = ats_messages::completion(request, answers, *stu).next() else {
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
        let translations = &turn.buffers.scratch.translations[..count];
        let answers = self.answers(request, translations, *stu);
        // A completion without a single sensible translation is no better than none.
        let Some(wanted) = answers[0] else {
            return self.fail(member, &Failure::at(Error::CompleterAbort, piece));
        };
        let pasid = request.pasid;
        let mut wide = [None; 1 + MAX_AHEAD];
        let mut completions = 0;
        self.keep(member, pasid, [u64::MAX, time], &answers, &mut wide[0]);
        let ahead = self.breaks(Mutant::Ahead39);
        for (request, translations) in turn.buffers.ahead.completions() {
            self.count(member, index::TRANSLATION_REQUESTS, 1);
            completions += 1;
            let answers = self.answers(request, translations, *stu);
            if ahead {
                self.flights.forget_overtaken(member);
            }
            self.keep(member, pasid, [time; 2], &answers, &mut wide[completions]);
        }
        self.keep_wide(member, pasid, time, &mut wide[..=completions], wanted.range);
        if ats_messages::permits(&wanted, piece) || self.overtaken(member, wanted.range) {
            // Either it is in the cache now, or it is asked for again (rule 39).
            return;
        }
        let lacking =
            |limit| ats_messages::lacking(piece, answers.iter().flatten().copied(), limit);
        self.page_lacks(member, piece, lacking);
    }

    /// The answers of a completion, as this device takes them.
    fn answers(
        &self,
        request: &TranslationRequest,
        translations: &[Translation],
        stu: u8,
    ) -> [Option<Cached>; MAX_TRANSLATIONS] {
        let Some(mutant) = self.mutant else {
            return ats_messages::answers(request, translations, stu);
        };
        let request = &TranslationRequest {
            no_write: request.no_write && mutant != Mutant::Rule18,
            ..*request
        };
        let mut answers = ats_messages::answers(request, translations, stu);
        apply_mutant(mutant, &mut answers);
        answers
    }

    /// Puts the translations of a completion into the cache, or hands out the one that says the
    /// same as all. A translation does not drive out what was used at a certain time or later: of
    /// these `times`, the first is for the first one. Those beyond the one that is wanted must not
    /// drive out what the access in hand has looked up already: in a small cache it would never
    /// have all it needs.
    fn keep(
        &mut self,
        member: usize,
        pasid: Option<Pasid>,
        times: [u64; 2],
        answers: &[Option<Cached>; MAX_TRANSLATIONS],
        wide: &mut Option<Cached>,
    ) {
        *wide = ats_messages::joined(answers, PAGE_SHIFT)
            .filter(|all| !self.overtaken(member, all.range));
        if wide.is_some() {
            return;
        }
        let [mut limit, later] = times;
        for answer in answers.iter().flatten() {
            self.keep_one(member, pasid, limit, answer);
            limit = later;
        }
    }

    /// Puts what is left of the completions of a round into the cache: of each the one translation
    /// that says the same as all, or of several one again. What is `wanted` may drive out any.
    fn keep_wide(
        &mut self,
        member: usize,
        pasid: Option<Pasid>,
        time: u64,
        wide: &mut [Option<Cached>],
        wanted: AlignedRange,
    ) {
        const SHIFT: u8 = PAGE_SHIFT + MAX_TRANSLATIONS.trailing_zeros() as u8;
        // Neighbours of two ends that took turns stand together then.
        wide.sort_unstable_by_key(|answer| answer.map(|answer| answer.range.base()));
        let mut wide = &*wide;
        while let [next, rest @ ..] = wide {
            let several = wide
                .get(..JOINED)
                .and_then(|some| ats_messages::joined(some, SHIFT));
            let all = several.filter(|all| !self.overtaken(member, all.range));
            wide = match all {
                Some(_) => &wide[JOINED..],
                None => rest,
            };
            if let Some(answer) = all.or(*next) {
                let limit = match answer.range.contains(wanted.base()) {
                    true => u64::MAX,
                    false => time,
                };
                self.keep_one(member, pasid, limit, &answer);
            }
            if let Some(all) = all {
                let space = self.space_of(pasid, self.contexts[member].privileged());
                let small = all.range.shift().into();
                self.atc.join(space, all.range.base(), small, LARGE);
            }
        }
    }

    /// Puts a translation into the cache, unless it would drive out what was used at a certain time
    /// or later. One that is not wanted now does not take the place of one that permits as much: it
    /// may permit less, because less was asked for.
    fn keep_one(&mut self, member: usize, pasid: Option<Pasid>, time: u64, answer: &Cached) {
        let space = self.space_of(pasid, self.contexts[member].privileged());
        let access = match (answer.read, answer.write) {
            (true, true) => Access::ReadWrite,
            (false, true) => Access::Write,
            _ => Access::Read,
        };
        let first = answer.range.base();
        if time != u64::MAX && self.atc.lookup(space, first, access).is_some() {
            return;
        }
        // Rule 17: what permits nothing is not kept. Rule 39: nor is what was overtaken.
        let useful = answer.read || answer.write;
        if useful && !self.overtaken(member, answer.range) {
            let evicted = self.atc.insert_over(space, answer, time).is_some();
            self.count(member, index::ATC_EVICTIONS, u64::from(evicted));
        }
    }

    /// Whether an answer is not to be used because an invalidation overtook it (rule 39).
    pub(super) fn overtaken(&self, member: usize, range: AlignedRange) -> bool {
        !self.breaks(Mutant::Rule39) && self.flights.overtaken(member, range)
    }
}

/// Makes of the answers of a completion what a device that breaks a rule would make of them.
fn apply_mutant(mutant: Mutant, answers: &mut [Option<Cached>; MAX_TRANSLATIONS]) {
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
