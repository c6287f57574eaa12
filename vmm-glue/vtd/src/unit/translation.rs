// SPDX-License-Identifier: MIT OR Apache-2.0
//! Untranslated and translated requests: from the requester through the caches and tables to the
//! output address, and the faults on the way (chapter 3, sections 4.2.5 and 7.1).

use super::Unit;
use crate::cache::{SpaceId, SpaceKey};
use crate::context::{self, CheckedContext, FaultCondition, Regime, ScalableContext};
use crate::effect::{Effect, Effects, Refusal};
use crate::memory::Memory;
use crate::mutant::{Mutant, breaks};
use crate::request::{Access, Blocked, Request, Translated};
use crate::spec::SourceId;
use crate::spec::fault::{AddressType, FaultReason as R, FaultRecord, RequestKind};
use crate::spec::interrupt::in_range;
use crate::spec::register::TranslationTableMode;
use crate::walk::{Mapping, Walker, Want, Write};
use pcie_ats::{AlignedRange, Pasid};

/// An address space that a request was found to belong to.
pub(super) struct FoundSpace {
    pub id: SpaceId,
    pub regime: Regime,
    /// The permissions of privileged mode apply, be it by PR or by RID_PRIV.
    pub privileged: bool,
}

/// What a request says of itself, for its fault record.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub requester: SourceId,
    pub pasid: Option<Pasid>,
    pub address: u64,
    pub execute: bool,
    pub privileged: bool,
    pub kind: RequestKind,
    pub at: AddressType,
}

impl Unit {
    /// Translates a request with an untranslated address. With remapping off, the address goes
    /// through unchanged.
    ///
    /// A write of 4 bytes without PASID to the interrupt address range is an interrupt request:
    /// it belongs to [`Unit::remap_interrupt`], and is blocked here.
    pub fn translate(
        &mut self,
        memory: &impl Memory,
        request: &Request,
        fx: &mut Effects,
    ) -> Result<Translated, Blocked> {
        let Request {
            requester,
            pasid,
            address,
            access,
            ..
        } = *request;
        let identity = || Translated {
            address,
            page: AlignedRange::page(address),
            read: true,
            write: true,
            snoop: false,
        };
        let translated = if !self.translation_enabled() {
            identity()
        } else if pasid.is_none() && in_range(address) && access == Access::ZeroLengthRead {
            // Bypasses remapping (section 3.15).
            identity()
        } else {
            let result = match self.known_translation(request) {
                Some(mapping) => Ok(mapping),
                None => self.find_translation(memory, request),
            };
            let mapping = result.map_err(|fault| {
                let origin = Origin {
                    requester,
                    pasid,
                    address,
                    execute: request.execute,
                    privileged: request.privileged,
                    kind: access.kind(),
                    at: AddressType::Untranslated,
                };
                self.fault(fault, &origin, fx)
            })?;
            Translated {
                address: mapping.address,
                page: AlignedRange::containing(address, mapping.shift)
                    .unwrap_or(AlignedRange::page(address)),
                read: mapping.read,
                write: mapping.write && mapping.dirty,
                snoop: mapping.snoop,
            }
        };
        let last = translated.address | 0xfff;
        if !breaks(Mutant::G23)
            && self
                .registers
                .is_protected(translated.address & !0xfff, last)
        {
            return Err(Blocked::ProtectedMemory);
        }
        Ok(translated)
    }

    fn find_translation(
        &mut self,
        memory: &impl Memory,
        request: &Request,
    ) -> Result<Mapping, FaultCondition> {
        self.check_mode(request.pasid)?;
        if request.pasid.is_none() && in_range(request.address) && !breaks(Mutant::Rule24) {
            let fpd = self.suppresses_faults(memory, request.requester);
            return Err(FaultCondition::new(self.interrupt_address()).with_fpd(fpd));
        }
        let context = self.context(memory, request.requester)?;
        let found = self.space(
            memory,
            request.requester,
            &context,
            request.pasid,
            request.privileged,
        )?;
        let execute = request.execute && request.pasid.is_some();
        self.check_enables(&found, execute)?;
        let zlr = self.cap().zlr();
        let want = Want::access(request.access, execute, found.privileged, zlr);
        self.mapping(memory, &found, request.address, &want)
    }

    /// The translation of a request with PASID, if all that it needs is cached and permits it: what
    /// [`Unit::find_translation`] would find, without the copies of entries that it makes. An
    /// address space in the cache was checked when it got there, and what the context entry says of
    /// its PASID when the first request with that came by.
    #[inline]
    fn known_translation(&mut self, request: &Request) -> Option<Mapping> {
        let Request {
            requester,
            address,
            access,
            execute,
            privileged,
            ..
        } = *request;
        let pasid = request.pasid?;
        self.check_mode(request.pasid).ok()?;
        let stamp = self.contexts.stamp(requester)?;
        let key = SpaceKey::new(requester, Some(pasid.get()));
        let early = self.iotlb.early(key.place(), address);
        let id = self.spaces.get(key, stamp)?;
        let zlr = self.cap().zlr();
        let space = self.spaces.space(id)?;
        if !space.admitted || execute && !space.execute || privileged && !space.supervisor {
            return None;
        }
        let want = Want::access(access, execute, privileged, zlr);
        let sizes = space.sizes[usize::from(privileged)];
        let cached = self
            .iotlb
            .get(space.owner(), sizes, privileged, address, Some(early));
        let mapping = cached.filter(|mapping| suffices(mapping, &want))?;
        self.counters.iotlb_hits += 1;
        Some(mapping)
    }

    /// Whether an entry on the way of a requester's requests without PASID sets Fault Processing
    /// Disable, as far as the way goes: for qualified faults that do not depend on the entries
    /// (section 7.1.1).
    fn suppresses_faults(&mut self, memory: &impl Memory, requester: SourceId) -> bool {
        let space = self
            .context(memory, requester)
            .and_then(|context| self.space(memory, requester, &context, None, false));
        match space {
            Ok(found) => found.regime.fpd,
            Err(fault) => fault.fpd,
        }
    }

    /// The reason for an output address in the interrupt range, in the mode that is active.
    pub(super) fn interrupt_address(&self) -> R {
        match self.translation_table_mode() {
            _ if breaks(Mutant::B08) => R::ScalableInterruptAddress,
            TranslationTableMode::Legacy => R::InterruptAddress,
            _ => R::ScalableInterruptAddress,
        }
    }

    /// Checks the translation table mode (conditions RTA.1 to RTA.4).
    pub(super) fn check_mode(&self, pasid: Option<Pasid>) -> Result<(), FaultCondition> {
        Err(FaultCondition::new(match self.translation_table_mode() {
            TranslationTableMode::Legacy if pasid.is_none() => return Ok(()),
            TranslationTableMode::Legacy => R::RequestWithPasidInLegacyMode,
            TranslationTableMode::Scalable if self.ecap().smts() => return Ok(()),
            TranslationTableMode::AbortDma if self.ecap().adms() && !breaks(Mutant::G15) => {
                R::AbortDmaMode
            }
            _ => R::RootTableAddressInvalid,
        }))
    }

    /// The context entry of a requester, with its stamp, from the cache or from memory.
    pub(super) fn context(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
    ) -> Result<(CheckedContext, u64), FaultCondition> {
        if let Some(found) = self.contexts.get(requester) {
            return Ok(found);
        }
        let context = self.context_in_memory(memory, requester)?;
        let stamp = self.contexts.insert(requester, context);
        Ok((context, stamp))
    }

    /// Checks that a context lets requests with a PASID through (conditions SCT.6, SCT.7, SCT.9
    /// and SGN.10).
    pub(super) fn check_pasid(
        &self,
        context: &ScalableContext,
        pasid: Pasid,
    ) -> Result<(), FaultCondition> {
        let fault = |reason| Err(FaultCondition::new(reason).with_fpd(context.fpd));
        if !context.paside && !breaks(Mutant::S13) {
            return fault(R::PasidDisabled);
        }
        if pasid.get() >> self.ecap().pasid_width() != 0 {
            return fault(R::PasidBeyondWidth);
        }
        if pasid.get() >= context.pasid_limit && !breaks(Mutant::G26) {
            return fault(R::PasidBeyondDirectory);
        }
        if pasid.get() == context.rid_pasid {
            return fault(R::PasidIsRidPasid);
        }
        Ok(())
    }

    /// The address space of a request, from the cache or from memory.
    pub(super) fn space(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        context: &(CheckedContext, u64),
        pasid: Option<Pasid>,
        privileged: bool,
    ) -> Result<FoundSpace, FaultCondition> {
        let asked = pasid;
        let (context, stamp) = context;
        let (pasid, privileged) = match (context, pasid) {
            (CheckedContext::Legacy { .. }, _) => (None, false),
            (CheckedContext::Scalable(_), None) if breaks(Mutant::G14) => (Some(0), false),
            (CheckedContext::Scalable(c), None) => (Some(c.rid_pasid), c.rid_priv),
            (CheckedContext::Scalable(c), Some(pasid)) => {
                self.check_pasid(c, pasid)?;
                if breaks(Mutant::B02) {
                    context::pasid_entry(memory, &self.caps, c, 0)?;
                }
                let bits = match () {
                    () if breaks(Mutant::G30) => 0xff,
                    () if breaks(Mutant::S21B) => 0xf_fffe,
                    () => 0xf_ffff,
                };
                (Some(pasid.get() & bits), privileged)
            }
        };
        let key = SpaceKey::new(requester, pasid);
        let cached = self.spaces.get(key, *stamp);
        let known = cached.and_then(|id| Some((id, *self.spaces.regime(id)?)));
        let (id, regime) = match known {
            Some(known) => known,
            None => {
                let regime = match context {
                    CheckedContext::Legacy { regime, .. } => *regime,
                    CheckedContext::Scalable(c) => {
                        context::pasid_entry(memory, &self.caps, c, pasid.unwrap_or_default())?
                    }
                };
                (self.spaces.insert(key, *stamp, regime), regime)
            }
        };
        if let Some(space) = self.spaces.space(id) {
            space.admitted |= asked.is_some();
        }
        Ok(FoundSpace {
            id,
            regime,
            privileged,
        })
    }

    /// Checks that an address space takes privileged and execute requests (conditions SPT.5 and
    /// SPT.6).
    pub(super) fn check_enables(
        &self,
        found: &FoundSpace,
        execute: bool,
    ) -> Result<(), FaultCondition> {
        let fault = |reason| Err(FaultCondition::new(reason).with_fpd(found.regime.fpd));
        if execute && !found.regime.execute {
            return fault(R::ExecuteRequestDisabled);
        }
        if found.privileged && !found.regime.supervisor && !breaks(Mutant::Rule25) {
            return fault(R::SupervisorRequestDisabled);
        }
        Ok(())
    }

    /// The translation of an address in an address space, from the IOTLB or by a walk.
    ///
    /// The IOTLB answers only if its answer is a permission: whatever it would refuse, and every
    /// write that has to set a dirty flag, is walked again (section 6.5.3.5).
    pub(super) fn mapping(
        &mut self,
        memory: &impl Memory,
        found: &FoundSpace,
        address: u64,
        want: &Want,
    ) -> Result<Mapping, FaultCondition> {
        let FoundSpace { id, privileged, .. } = *found;
        if let Some(space) = self.spaces.space(id) {
            let sizes = space.sizes[usize::from(privileged)];
            let cached = self
                .iotlb
                .get(space.owner(), sizes, privileged, address, None);
            if let Some(mapping) = cached.filter(|m| suffices(m, want)) {
                self.counters.iotlb_hits += 1;
                return Ok(mapping);
            }
        }
        self.counters.page_walks += 1;
        let walker = Walker {
            memory,
            caps: &self.caps,
        };
        let mapping = walker.translate(&found.regime, address, want)?;
        if let Some(space) = self.spaces.space(id) {
            let size = self
                .iotlb
                .insert(space.owner(), privileged, address, &mapping);
            space.sizes[usize::from(privileged)] |= size;
        }
        Ok(mapping)
    }

    /// Checks a request with a translated address (section 4.2.5).
    pub fn translated_request(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        pasid: Option<Pasid>,
        address: u64,
        access: Access,
        fx: &mut Effects,
    ) -> Result<(), Blocked> {
        if !self.translation_enabled() {
            return Err(Blocked::Unsupported("translated while remapping is off"));
        }
        if breaks(Mutant::G17) {
            return Ok(());
        }
        if pasid.is_some() && !breaks(Mutant::Rule30) {
            return Err(Blocked::Unsupported("translated with a PASID"));
        }
        let check = self.check_translated(memory, requester, address);
        check.map_err(|fault| {
            let origin = Origin {
                requester,
                pasid,
                address,
                execute: false,
                privileged: false,
                kind: access.kind(),
                at: AddressType::Translated,
            };
            self.fault(fault, &origin, fx)
        })?;
        if !breaks(Mutant::G23)
            && self
                .registers
                .is_protected(address & !0xfff, address | 0xfff)
        {
            return Err(Blocked::ProtectedMemory);
        }
        Ok(())
    }

    /// Whether every translated request without PASID of a requester passes, wherever it goes
    /// within the host address width and outside of the interrupt address range (section 4.2.5).
    ///
    /// That stays so until [`Unit::changes`] grows: the context entry that says so is cached, and a
    /// cached entry may be used until it is invalidated (section 6.2.2). A host can therefore keep
    /// the answer, and need not ask again for each request. If it is no, each has to be judged by
    /// [`Unit::translated_request`], which says why.
    pub fn grants_translated_requests(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
    ) -> bool {
        self.translation_enabled()
            && !self.registers.protects()
            && self.check_translated(memory, requester, 0).is_ok()
    }

    fn check_translated(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        address: u64,
    ) -> Result<(), FaultCondition> {
        self.check_mode(None)?;
        let (context, _) = self.context(memory, requester)?;
        self.check_device_tlb(&context)?;
        let fault = |reason| Err(FaultCondition::new(reason).with_fpd(context.fpd()));
        if !self.caps.holds(address) {
            return fault(match context {
                CheckedContext::Legacy { .. } => R::AddressBeyondMgaw,
                CheckedContext::Scalable(_) => R::AddressBeyondHost,
            });
        }
        if in_range(address) && !breaks(Mutant::Rule31) {
            return fault(self.interrupt_address());
        }
        Ok(())
    }

    /// Checks that a context allows a Device-TLB (conditions LCT.5 and SCT.5).
    pub(super) fn check_device_tlb(&self, context: &CheckedContext) -> Result<(), FaultCondition> {
        let (allowed, reason) = match context {
            CheckedContext::Legacy { device_tlb, .. } => {
                (*device_tlb, R::TranslationRequestBlocked)
            }
            CheckedContext::Scalable(c) => (c.dte, R::DeviceTlbDisabled),
        };
        if allowed || breaks(Mutant::G16) {
            Ok(())
        } else {
            Err(FaultCondition::new(reason).with_fpd(context.fpd()))
        }
    }

    /// Records a fault unless software suppresses it (section 7.1.1).
    pub(super) fn fault(
        &mut self,
        fault: FaultCondition,
        origin: &Origin,
        fx: &mut Effects,
    ) -> Blocked {
        if !(fault.fpd && fault.reason.qualified()) || breaks(Mutant::Rule77) {
            let pasid = origin.pasid.map(Pasid::get);
            let pasid = pasid.filter(|_| !breaks(Mutant::Rule32));
            self.registers.record_fault(
                &FaultRecord {
                    fi: origin.address & !0xfff,
                    sid: match breaks(Mutant::S32) {
                        true => SourceId(0),
                        false => origin.requester,
                    },
                    fr: fault.reason,
                    pasid,
                    exe: origin.execute && pasid.is_some(),
                    privileged: origin.privileged && pasid.is_some(),
                    kind: origin.kind,
                    at: origin.at,
                },
                fx,
            );
            if let Some(wrong) = fault.wrong {
                fx.push(Effect::Refused(Refusal::Entry {
                    requester: origin.requester,
                    reason: fault.reason,
                    wrong,
                }));
            }
        }
        Blocked::Fault(fault.reason)
    }
}

/// Whether a cached translation is all that a request needs.
fn suffices(mapping: &Mapping, want: &Want) -> bool {
    use crate::walk::Read;
    let read = match want.read {
        Read::No => true,
        Read::Required => mapping.read,
        Read::OrWrite => mapping.read || mapping.write,
    };
    let write = match want.write {
        Write::No => true,
        Write::Required if breaks(Mutant::B03) => true,
        Write::Required => mapping.write && (mapping.dirty || breaks(Mutant::G09)),
        Write::IfPermitted => !mapping.write || mapping.dirty,
    };
    read && write
        && (!want.execute || mapping.execute)
        && !mapping.meets_interrupts(want.whole_page)
}
