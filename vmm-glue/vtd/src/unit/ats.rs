// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translation requests of Device-TLBs (section 4.2.3).

use super::Unit;
use super::translation::Origin;
use crate::context::{Context, Fault, Stages};
use crate::effect::Effects;
use crate::memory::Memory;
use crate::spec::SourceId;
use crate::spec::fault::{AddressType, AtsOutcome, RequestKind};
use crate::spec::interrupt::in_range;
use crate::walk::Want;
use pcie_ats::{AlignedRange, Translation, TranslationError, TranslationRequest};

/// A translation without permission: R = W = U = S = 0.
const fn nothing(address: u64, privileged: bool) -> Translation {
    Translation {
        range: AlignedRange::page(address),
        read: false,
        write: false,
        execute: false,
        privileged,
        global: false,
        untranslated_only: false,
        non_snooped: false,
    }
}

impl Unit {
    /// Answers a translation request: fills `translations` from the front, and returns how many,
    /// at least one. They have the same size, and the ranges that they translate follow each
    /// other from the request's address on.
    pub fn translation_request(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        request: &TranslationRequest,
        translations: &mut [Translation],
        fx: &mut Effects,
    ) -> Result<usize, TranslationError> {
        if !self.translation_enabled() || !self.ecap().dt() {
            return Err(TranslationError::UnsupportedRequest);
        }
        let wanted = usize::from(request.pages).clamp(1, translations.len().max(1));
        let mut address = request.address & !0xfff;
        let (mut done, mut size) = (0, None);
        for place in translations.iter_mut().take(wanted) {
            let one = match self.translate_one(memory, requester, request, address, done == 0, fx) {
                Ok(one) => one,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            };
            let shift = one.range.shift();
            if size.is_some_and(|size| size != shift) {
                break;
            }
            *place = one;
            size = Some(shift);
            done += 1;
            // The input range has the size of the output range.
            match (address | (u64::MAX >> (64 - shift.min(64)))).checked_add(1) {
                Some(next) => address = next,
                None => break,
            }
        }
        Ok(done)
    }

    /// Answers for one address. A fault at an address behind the first one is not recorded: the
    /// completion ends before it, and the function asks for it again if it needs it.
    fn translate_one(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        request: &TranslationRequest,
        address: u64,
        record: bool,
        fx: &mut Effects,
    ) -> Result<Translation, TranslationError> {
        let privileged = request.privileged && request.pasid.is_some();
        let fault = match self.find_ats(memory, requester, request, address) {
            Ok(translation) => return Ok(translation),
            Err(fault) => fault,
        };
        let outcome = fault.reason.ats_outcome();
        if outcome != AtsOutcome::Success && record {
            let origin = Origin {
                requester,
                pasid: request.pasid,
                address,
                execute: request.execute,
                privileged: request.privileged,
                // On the link, it is a read.
                kind: RequestKind::Read,
                at: AddressType::TranslationRequest,
            };
            self.fault(fault, &origin, fx);
        }
        match outcome {
            AtsOutcome::Success | AtsOutcome::SuccessRecorded => Ok(nothing(address, privileged)),
            AtsOutcome::UnsupportedRequest => Err(TranslationError::UnsupportedRequest),
            AtsOutcome::CompleterAbort => Err(TranslationError::CompleterAbort),
        }
    }

    fn find_ats(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        request: &TranslationRequest,
        address: u64,
    ) -> Result<Translation, Fault> {
        self.check_mode(request.pasid)?;
        let context = self.context(memory, requester)?;
        self.check_device_tlb(&context.0)?;
        let no_write = request.no_write && self.ecap().nwfs();
        let privileged = request.privileged && request.pasid.is_some();
        if request.pasid.is_none() && in_range(address) {
            // Special conditions S.1 and S.2: an interrupt message is to be sent untranslated.
            return Ok(Translation {
                write: !no_write,
                untranslated_only: !no_write,
                ..nothing(address, false)
            });
        }
        let pasid = request.pasid;
        let found = self.space(memory, requester, &context, pasid, privileged)?;
        self.check_enables(&found, request.execute && pasid.is_some())?;
        if matches!(found.regime.stages, Stages::PassThrough) && in_range(address) {
            return Ok(nothing(address, privileged));
        }
        let want = Want::translation(no_write, found.privileged);
        let mapping = self.mapping(memory, &found, address, &want)?;
        let (read, write) = (mapping.read, mapping.write && !no_write);
        if !(read || write) {
            return Ok(nothing(address, privileged));
        }
        // A unit that has no execute requests never grants execution.
        let executes = self.ecap().ers() && found.regime.execute && request.pasid.is_some();
        let legacy = matches!(context.0, Context::Legacy { .. });
        Ok(Translation {
            range: AlignedRange::containing(mapping.address, mapping.shift)
                .unwrap_or(AlignedRange::page(mapping.address)),
            read,
            write,
            execute: executes && request.execute && read && mapping.execute,
            privileged,
            global: false,
            untranslated_only: false,
            non_snooped: mapping.snoop && (!legacy || self.ecap().sc()),
        })
    }
}
