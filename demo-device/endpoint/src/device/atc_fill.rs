// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handles the answers to translation requests for the cache (PCIe 10.2).

use super::Device;
use crate::access::{Access, Failure};
use crate::atc::Cached;
use crate::ats_messages;
use crate::counters::index;
use crate::fast::join::joined;
use crate::fast::read_ahead::MAX_AHEAD;
use crate::mutant::Mutant;
use crate::turn::{Action, Turn};
use pcie_ats::{
    AlignedRange, MAX_TRANSLATIONS, PAGE_SHIFT, Pasid, Translation, TranslationError,
    TranslationRequest,
};
use svm_abi::completion::Error;

impl Device {
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
        // A completion without a valid translation counts as Completer Abort.
        let Some(wanted) = answers[0] else {
            return self.fail(member, &Failure::at(Error::CompleterAbort, piece));
        };
        let pasid = request.pasid;
        let mut wide = [None; 1 + MAX_AHEAD];
        let mut completions = 0;
        self.keep(member, pasid, [u64::MAX, time], &answers, &mut wide[0]);
        let ahead = self.breaks(Mutant::Ahead39);
        for (request, translations) in turn.buffers.read_ahead.completions() {
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
            // Either it is in the cache now, or the context requests it again (rule 39).
            return;
        }
        let lacking =
            |limit| ats_messages::lacking(piece, answers.iter().flatten().copied(), limit);
        self.page_lacks(member, piece, lacking);
    }

    /// The answers of a completion, as this device interprets them.
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
        apply_mutant(mutant, request, &mut answers);
        answers
    }

    /// Stores the translations of a completion in the cache, or returns the single one that is
    /// equivalent to all. A translation does not evict an entry that was used at a given time or
    /// later; the first of these `times` applies to the first translation. The translations after
    /// the wanted one must not evict entries that the current access has already looked up: in a
    /// small cache the access would never have all it needs.
    fn keep(
        &mut self,
        member: usize,
        pasid: Option<Pasid>,
        times: [u64; 2],
        answers: &[Option<Cached>; MAX_TRANSLATIONS],
        wide: &mut Option<Cached>,
    ) {
        *wide = joined(answers, PAGE_SHIFT).filter(|all| !self.overtaken(member, all.range));
        if wide.is_some() {
            return;
        }
        let [mut limit, later] = times;
        for answer in answers.iter().flatten() {
            self.keep_one(member, pasid, limit, answer);
            limit = later;
        }
    }

    /// Stores a translation in the cache, unless that would evict an entry that was used at a given
    /// time or later. A translation that is not needed now does not replace one with the same
    /// permissions: it may permit less, because less was requested.
    pub(crate) fn keep_one(
        &mut self,
        member: usize,
        pasid: Option<Pasid>,
        time: u64,
        answer: &Cached,
    ) {
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
        // Rule 17: do not store what permits nothing. Rule 39: nor what was overtaken.
        let useful = answer.read || answer.write;
        if useful && !self.overtaken(member, answer.range) {
            let evicted = self.atc.insert_over(space, answer, time).is_some();
            self.count(member, index::ATC_EVICTIONS, u64::from(evicted));
        }
    }

    /// Whether an answer must not be used because an invalidation overtook it (rule 39).
    pub(crate) fn overtaken(&self, member: usize, range: AlignedRange) -> bool {
        !self.breaks(Mutant::Rule39) && self.flights.overtaken(member, range)
    }
}

/// Changes the answers of a completion as a device that breaks a rule would.
fn apply_mutant(
    mutant: Mutant,
    request: &TranslationRequest,
    answers: &mut [Option<Cached>; MAX_TRANSLATIONS],
) {
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
            Mutant::Page15 if answer.range.shift() > PAGE_SHIFT => {
                let wanted = request.address.max(answer.range.base());
                if let Ok(page) = AlignedRange::containing(wanted, PAGE_SHIFT) {
                    answer.output += page.base() - answer.range.base();
                    answer.range = page;
                }
            }
            Mutant::Rule17 => answer.read = true,
            _ => {}
        }
    }
}
