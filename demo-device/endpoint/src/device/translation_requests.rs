// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translation requests, and the answers to those that bypass the cache (PCIe 10.2).

use super::Device;
use crate::access::{Failure, Piece, canonical};
use crate::activity::Activity;
use crate::atc::Space;
use crate::ats_messages;
use crate::counters::index;
use crate::mutant::Mutant;
use crate::turn::{Action, Turn};
use pcie_ats::{Pasid, TranslationError, TranslationRequest};
use svm_abi::completion::Error;
use svm_abi::descriptor::translation;

impl Device {
    /// The address space in the cache of a PASID or of none, for a mode (rule 20).
    pub(crate) fn space_of(&self, pasid: Option<Pasid>, privileged: bool) -> Space {
        match self.breaks(Mutant::Rule21) {
            true => Space::new(None, false),
            false => Space::new(pasid, privileged),
        }
    }

    /// Makes a translation request for a piece. An error means that the activity has ended.
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

    /// Changes a request as a device that breaks a rule would.
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

    /// Requests a translation that bypasses the cache. An error means that the activity has ended.
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

    /// Handles the answer to a request that bypasses the cache.
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
            // Rule 39: request it again.
            return;
        }
        let bit = |condition: bool, bit: u64| if condition { bit } else { 0 };
        let shown = bit(self.laboratory.is_some(), translation::ADDRESS);
        let result = u64::from(wanted.range.shift())
            | bit(wanted.read, translation::READ)
            | bit(wanted.write, translation::WRITE)
            | bit(wanted.untranslated_only, translation::UNTRANSLATED_ONLY)
            | bit(answers[0].global, translation::GLOBAL)
            // Rule 19: there is no permission to execute unless it was requested, and none without
            // the permission to read.
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

    /// Handles a translation request that was completed without a translation.
    pub(super) fn refused(&mut self, member: usize, piece: &Piece, error: TranslationError) {
        let error = match error {
            TranslationError::UnsupportedRequest => {
                // Rule 13: the function may not use ATS here. It sends no more requests.
                self.contexts[member].refused = true;
                Error::UnsupportedRequest
            }
            TranslationError::CompleterAbort => Error::CompleterAbort,
            TranslationError::CompletionTimeout => Error::CompletionTimeout,
        };
        self.fail(member, &Failure::at(error, piece));
    }
}
