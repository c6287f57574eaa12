// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translation requests of Device-TLBs (section 4.2.3).

use super::Unit;
use super::translation::{FoundSpace, Origin};
use crate::context::{CheckedContext, FaultCondition, TranslationType};
use crate::effect::Effects;
use crate::memory::Memory;
use crate::mutant::{Mutant, breaks};
use crate::spec::SourceId;
use crate::spec::fault::{AddressType, AtsOutcome, RequestKind};
use crate::spec::interrupt::in_range;
use crate::walk::{LeafTable, Mapping, Walker, Want};
use pcie_ats::{AlignedRange, Translation, TranslationError, TranslationRequest};

/// A translation without permission: R = W = U = S = 0.
fn nothing(address: u64, privileged: bool) -> Translation {
    Translation {
        range: AlignedRange::page(address),
        read: breaks(Mutant::S16),
        write: false,
        execute: false,
        privileged: privileged && !breaks(Mutant::B10),
        global: false,
        untranslated_only: false,
        non_snooped: false,
    }
}

/// What a translation request asks for, and of which address space.
struct Asked {
    found: FoundSpace,
    want: Want,
    no_write: bool,
    privileged: bool,
    /// Execution is granted where it is permitted.
    execute: bool,
    /// The snoop attribute means something.
    snoop: bool,
}

impl Asked {
    /// The answer for an address, with what it is mapped to.
    fn answer(&self, address: u64, mapping: &Mapping) -> Translation {
        let read = mapping.read;
        let permitted = mapping.write || read && breaks(Mutant::Rule18);
        let write = permitted && !self.no_write;
        if !(read || write) {
            return nothing(address, self.privileged);
        }
        let shift = mapping.shift + u8::from(breaks(Mutant::S15));
        Translation {
            range: AlignedRange::containing(mapping.address, shift)
                .unwrap_or(AlignedRange::page(mapping.address)),
            read,
            write,
            execute: self.execute && read && mapping.execute || breaks(Mutant::S19),
            privileged: self.privileged,
            global: breaks(Mutant::S21A),
            untranslated_only: breaks(Mutant::S22),
            non_snooped: mapping.snoop && self.snoop,
        }
    }
}

/// The table that maps a region of pages.
struct Near {
    asked: Asked,
    leaves: LeafTable,
}

/// The number of the 2 MiB that a table of leaves maps.
const fn region(address: u64) -> u64 {
    address >> 21
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
        let mut near: Option<Near> = None;
        let mut looked_near = None;
        for place in translations.iter_mut().take(wanted) {
            if wanted > 1 && looked_near != Some(region(address)) {
                looked_near = Some(region(address));
                near = self.near(memory, requester, request, address);
            }
            let easy = near
                .as_ref()
                .and_then(|near| self.translate_near(memory, near, address));
            let one = match easy {
                Some(one) => one,
                None => {
                    match self.translate_one(memory, requester, request, address, done == 0, fx) {
                        Ok(one) => one,
                        Err(error) if done == 0 => return Err(error),
                        Err(_) => break,
                    }
                }
            };
            let shift = one.range.shift();
            if size.is_some_and(|size| size != shift) {
                break;
            }
            *place = one;
            size = Some(shift);
            done += 1;
            // The input range has the size of the output range.
            let last = address | (u64::MAX >> (64 - shift.min(64)));
            if breaks(Mutant::B09) {
                address = last.wrapping_add(1);
                continue;
            }
            match last.checked_add(1) {
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
        if (outcome != AtsOutcome::Success || breaks(Mutant::Rule23)) && record {
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
    ) -> Result<Translation, FaultCondition> {
        self.check_mode(request.pasid)?;
        let context = self.context(memory, requester)?;
        self.check_device_tlb(&context.0)?;
        let no_write = request.no_write && self.ecap().nwfs();
        if request.pasid.is_none() && in_range(address) {
            // Special conditions S.1 and S.2: an interrupt message must be sent untranslated.
            return Ok(Translation {
                write: !no_write,
                untranslated_only: !no_write && !breaks(Mutant::G18),
                ..nothing(address, false)
            });
        }
        let asked = self.asked(memory, requester, &context, request)?;
        if in_range(address) && breaks(Mutant::S24A) {
            return Ok(nothing(address, asked.privileged));
        }
        if matches!(asked.found.regime.translation, TranslationType::PassThrough)
            && in_range(address)
        {
            return Ok(nothing(address, asked.privileged));
        }
        let mapping = self.mapping(memory, &asked.found, address, &asked.want)?;
        Ok(asked.answer(address, &mapping))
    }

    /// What a request asks for, and of which address space.
    fn asked(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        context: &(CheckedContext, u64),
        request: &TranslationRequest,
    ) -> Result<Asked, FaultCondition> {
        let pasid = request.pasid;
        let privileged = request.privileged && pasid.is_some();
        let no_write = request.no_write && self.ecap().nwfs();
        let found = self.space(memory, requester, context, pasid, privileged)?;
        self.check_enables(&found, request.execute && pasid.is_some())?;
        // A unit that has no execute requests never grants execution.
        let executes = self.ecap().ers() && found.regime.execute && pasid.is_some();
        let legacy = matches!(context.0, CheckedContext::Legacy { .. });
        Ok(Asked {
            want: Want::translation(no_write, found.privileged),
            found,
            no_write,
            privileged,
            execute: executes && request.execute,
            snoop: !legacy || self.ecap().sc(),
        })
    }

    /// What makes the translation of the pages near an address easy: the table that maps them, if
    /// they are pages of 4 KiB of a first stage, and were used before.
    fn near(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        request: &TranslationRequest,
        address: u64,
    ) -> Option<Near> {
        request.pasid?;
        self.check_mode(request.pasid).ok()?;
        let context = self.context(memory, requester).ok()?;
        self.check_device_tlb(&context.0).ok()?;
        let asked = self.asked(memory, requester, &context, request).ok()?;
        let TranslationType::First(stage) = &asked.found.regime.translation else {
            return None;
        };
        let walker = Walker {
            memory,
            caps: &self.caps,
        };
        let leaves = walker.leaf_table(stage, address, &asked.want)?;
        Some(Near { asked, leaves })
    }

    /// Translates an address by the table of leaves of its neighbours. None if that does not tell.
    /// It is not put into the IOTLB: the function keeps it, and will not ask again soon.
    fn translate_near(
        &mut self,
        memory: &impl Memory,
        near: &Near,
        address: u64,
    ) -> Option<Translation> {
        let regime = &near.asked.found.regime;
        let TranslationType::First(stage) = &regime.translation else {
            return None;
        };
        let walker = Walker {
            memory,
            caps: &self.caps,
        };
        let mapping =
            walker.in_leaf_table(regime, stage, &near.leaves, address, &near.asked.want)?;
        self.counters.page_walks += 1;
        Some(near.asked.answer(address, &mapping))
    }
}
