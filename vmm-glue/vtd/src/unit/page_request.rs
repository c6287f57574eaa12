// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page requests (section 7.4.1) and the groups that wait for a response.

use super::Unit;
use super::translation::Origin;
use crate::context::{CheckedContext, FaultCondition, Regime, TranslationType};
use crate::effect::{Effect, Effects};
use crate::memory::Memory;
use crate::mutant::{Mutant, breaks};
use crate::spec::SourceId;
use crate::spec::descriptor::IotlbScope;
use crate::spec::fault::{AddressType, FaultReason as R, RequestKind};
use crate::spec::page_request::{PageRequestDescriptor, SIZE};
use crate::spec::register::{TranslationTableMode, prs};
use pcie_ats::{AlignedRange, PageRequest, Pasid, PrgResponse, ResponseCode};

/// Whether a request closes its group, so that a response is due. A stop marker closes none
/// (PCIe 10.4.1.2.1).
const fn wants_response(request: &PageRequest) -> bool {
    request.last && (request.read || request.write)
}

impl Unit {
    /// Takes a page request. When this returns, its descriptor is visible to software, or the
    /// request was refused as table 31 says.
    pub fn page_request(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        request: &PageRequest,
        fx: &mut Effects,
    ) {
        match self.enqueue(memory, requester, request, fx) {
            Ok(()) => {
                self.counters.page_requests += 1;
                if wants_response(request) {
                    self.groups.asked(requester, request);
                }
            }
            Err(code) => {
                self.counters.page_requests_refused += 1;
                if wants_response(request) && !breaks(Mutant::G22) {
                    fx.push(Effect::PrgResponse {
                        requester,
                        response: PrgResponse {
                            prgi: request.prgi,
                            pasid: request.pasid,
                            code,
                        },
                    });
                }
            }
        }
    }

    /// Hardware of the host walks an address space of a function, and has its entries cached as this
    /// unit would after a request: they stay in use until software invalidates them (sections
    /// 6.2.2 and 6.2.3). A page request that arrives after software has cleared its PASID table
    /// entry, and before the invalidation, is then one of the address space and no fault. Nothing
    /// is recorded if the address space is not valid.
    pub fn hold_address_space(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        pasid: Option<Pasid>,
    ) {
        if breaks(Mutant::Held) || self.check_mode(pasid).is_err() {
            return;
        }
        if let Ok(context) = self.context(memory, requester) {
            // What is not valid is not cached.
            let _ = self.space(memory, requester, &context, pasid, false);
        }
    }

    /// The groups of a function that wait for a response are given up: those of one address space,
    /// the requests without PASID being one, or all. Each is answered with Invalid Request, as by
    /// hardware when an address space is taken away (section 7.6). A response that
    /// software gives later is one for a group that is not outstanding. A host that keeps a record
    /// of groups itself, and answers by that, does not need this.
    pub fn abandon_page_requests(
        &mut self,
        requester: SourceId,
        pasid: Option<Option<Pasid>>,
        fx: &mut Effects,
    ) {
        if breaks(Mutant::Abandon) {
            return;
        }
        for (prgi, pasid) in self.groups.abandoned(requester, pasid) {
            fx.push(Effect::PrgResponse {
                requester,
                response: PrgResponse {
                    prgi,
                    pasid,
                    code: ResponseCode::InvalidRequest,
                },
            });
        }
    }

    /// Puts a page request into the queue, or says how its group is answered.
    fn enqueue(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        request: &PageRequest,
        fx: &mut Effects,
    ) -> Result<(), ResponseCode> {
        if !self.ecap().prs() || !self.translation_enabled() {
            return Err(ResponseCode::InvalidRequest);
        }
        if breaks(Mutant::G10) && request.pasid.is_none() {
            return Err(ResponseCode::InvalidRequest);
        }
        if breaks(Mutant::G11) && !(request.read || request.write) {
            return Ok(());
        }
        let (regime, pasid) = match self.check_page_request(memory, requester, request) {
            Ok(found) => found,
            Err(fault) => {
                let origin = Origin {
                    requester,
                    pasid: request.pasid,
                    address: request.address,
                    execute: request.execute,
                    privileged: request.privileged,
                    kind: RequestKind::Page,
                    at: AddressType::Untranslated,
                };
                self.fault(fault, &origin, fx);
                return Err(ResponseCode::InvalidRequest);
            }
        };
        if self.registers.page_request_overflow() {
            return Err(ResponseCode::Success);
        }
        let Some((head, tail, base, size)) = self.registers.page_request_queue() else {
            return Err(ResponseCode::InvalidRequest);
        };
        if breaks(Mutant::B07) && !matches!(regime.translation, TranslationType::First(_)) {
            return Err(ResponseCode::InvalidRequest);
        }
        let next = match breaks(Mutant::Rule76) {
            true => (tail + SIZE) % (size - SIZE),
            false => (tail + SIZE) % size,
        };
        if next == head % size {
            self.registers.set_page_request_status(prs::PRO, fx);
            return Err(ResponseCode::Success);
        }
        self.forget_page(&regime, pasid, request.address);
        let descriptor = PageRequestDescriptor {
            rid: requester,
            request: PageRequest {
                execute: request.execute && !breaks(Mutant::S76B),
                ..*request
            },
        };
        let mut bytes = [0; SIZE as usize];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(descriptor.to_words()) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let written = match breaks(Mutant::B06) {
            true => &bytes[..16],
            false => &bytes[..],
        };
        if memory.write(base + tail % size, written).is_err() {
            // Nothing is wrong with the page: the requests of the function are lost (PCIe 10.4.2).
            return Err(ResponseCode::ResponseFailure);
        }
        self.registers.set_pqt(next);
        self.registers.set_page_request_status(prs::PPR, fx);
        Ok(())
    }

    /// Finds the address space of a page request, and its PASID (the last columns of table 30).
    fn check_page_request(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        request: &PageRequest,
    ) -> Result<(Regime, u32), FaultCondition> {
        if self.translation_table_mode() == TranslationTableMode::Legacy {
            return Err(FaultCondition::new(R::PageRequestInLegacyMode));
        }
        self.check_mode(request.pasid)?;
        let context = self.context(memory, requester)?;
        let CheckedContext::Scalable(scalable) = context.0 else {
            return Err(FaultCondition::new(R::PageRequestInLegacyMode));
        };
        if !scalable.pre && !breaks(Mutant::S61) {
            return Err(FaultCondition::new(R::PageRequestDisabled).with_fpd(scalable.fpd));
        }
        let found = self.space(memory, requester, &context, request.pasid, false)?;
        let pasid = request.pasid.map_or(scalable.rid_pasid, Pasid::get);
        Ok((found.regime, pasid))
    }

    /// The invalidation that a page request implies (section 6.5.3.1, table 27).
    fn forget_page(&mut self, regime: &Regime, pasid: u32, address: u64) {
        let page = AlignedRange::page(address);
        let did = regime.domain;
        self.forget(match (&regime.translation, Pasid::new(pasid)) {
            (TranslationType::First(_), Ok(pasid)) => IotlbScope::PasidPages(did, pasid, page),
            (TranslationType::Second(_) | TranslationType::PassThrough, _) => {
                IotlbScope::DomainPages(did, page)
            }
            _ => IotlbScope::Domain(did),
        });
    }
}
