// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt remapping and posting (chapter 5), with the interrupt entry cache (section 6.4).

use super::Unit;
use crate::effect::{Effect, Effects, Invalidated, Refusal};
use crate::memory::{Memory, read_words};
use crate::mutant::{Mutant, breaks};
use crate::request::Blocked;
use crate::spec::SourceId;
use crate::spec::descriptor::Wrong;
use crate::spec::fault::{AddressType, FaultReason as R, FaultRecord, RequestKind};
use crate::spec::interrupt::{Irte, Message, PostedControl, RemappableRequest, message};
use crate::spec::register::global;

/// What becomes of an interrupt request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remapped {
    /// It is delivered as this message.
    Deliver(Message),
    /// It was posted, and this message notifies the processor, if one is due.
    Posted(Option<Message>),
}

/// A blocked interrupt request.
struct InterruptFault {
    reason: R,
    fpd: bool,
    /// The interrupt_index, where it is known.
    index: Option<u16>,
    /// What was wrong with the entry, where the reason alone does not tell.
    wrong: Option<Wrong>,
}

impl Unit {
    /// Remaps an interrupt request: a write of 4 bytes to the interrupt address range. Without a
    /// requester, it is not verified: for hosts that do not know it.
    pub fn remap_interrupt(
        &mut self,
        memory: &impl Memory,
        requester: Option<SourceId>,
        request: Message,
        fx: &mut Effects,
    ) -> Result<Remapped, Blocked> {
        if !self.interrupt_remapping_enabled() {
            return Ok(Remapped::Deliver(request));
        }
        self.find_interrupt(memory, requester, request, true)
            .map_err(|fault| {
                if !(fault.fpd && fault.reason.qualified()) {
                    self.registers.record_fault(
                        &FaultRecord {
                            fi: u64::from(fault.index.unwrap_or_default()) << 48,
                            sid: requester.unwrap_or_default(),
                            fr: fault.reason,
                            pasid: None,
                            exe: false,
                            privileged: false,
                            kind: RequestKind::Write,
                            at: AddressType::Untranslated,
                        },
                        fx,
                    );
                    if let Some(wrong) = fault.wrong {
                        fx.push(Effect::Refused(Refusal::Entry {
                            requester: requester.unwrap_or_default(),
                            reason: fault.reason,
                            wrong,
                        }));
                    }
                }
                Blocked::Fault(fault.reason)
            })
    }

    /// Where an interrupt request would be delivered now; none if it would be blocked or posted.
    /// Nothing is recorded: for hosts that lay routes for interrupts before there are any.
    pub fn route_interrupt(
        &mut self,
        memory: &impl Memory,
        requester: Option<SourceId>,
        request: Message,
    ) -> Option<Message> {
        if !self.interrupt_remapping_enabled() {
            return Some(request);
        }
        match self.find_interrupt(memory, requester, request, false) {
            Ok(Remapped::Deliver(message)) => Some(message),
            _ => None,
        }
    }

    /// IRTA_REG.EIME as latched by SIRTP.
    const fn eime(&self) -> bool {
        self.irta.eime()
    }

    /// What becomes of an interrupt request, which is posted only if `post_it` says so.
    fn find_interrupt(
        &mut self,
        memory: &impl Memory,
        requester: Option<SourceId>,
        request: Message,
        post_it: bool,
    ) -> Result<Remapped, InterruptFault> {
        let unknown = |reason| InterruptFault {
            reason,
            fpd: false,
            index: None,
            wrong: None,
        };
        if !RemappableRequest::is_remappable(request.address) {
            if self.eime() || !self.registers.status(global::CFI) {
                return Err(unknown(R::CompatibilityFormatBlocked));
            }
            return Ok(Remapped::Deliver(request));
        }
        let request = RemappableRequest(request);
        if request.reserved() != 0 {
            return Err(unknown(R::InterruptRequestReserved));
        }
        let entries = 2u32 << self.irta.s();
        let number = request.index();
        let index = number as u16;
        let fault = |reason, fpd| InterruptFault {
            reason,
            fpd,
            index: Some(index),
            wrong: None,
        };
        let at = self.irta.irta() + u64::from(number) * 16;
        if number >= entries || !self.caps.holds(at) {
            return Err(fault(R::InterruptIndexBeyondTable, false));
        }
        let cached = self.interrupts.get(index);
        let irte = match cached {
            Some(irte) => irte,
            None => Irte(read_words(memory, at).map_err(|_| fault(R::IrteAccess, false))?),
        };
        let fpd = irte.fpd();
        if !irte.p() {
            return Err(fault(R::IrteNotPresent, fpd));
        }
        let (haw, eime, pi) = (self.caps.host_address_width(), self.eime(), self.cap().pi());
        if let Some(wrong) = Wrong::reserved(&irte.reserved(haw, eime, pi)) {
            return Err(InterruptFault {
                wrong: Some(wrong),
                ..fault(R::IrteReserved, fpd)
            });
        }
        // An entry is good or bad by itself; the requester is verified each time.
        if cached.is_none() {
            self.interrupts.insert(index, irte);
        }
        if requester.is_some_and(|requester| !irte.allows(requester)) {
            return Err(fault(R::IrteSourceId, fpd));
        }
        if irte.im() && !post_it {
            return Ok(Remapped::Posted(None));
        }
        if irte.im() && !breaks(Mutant::G24) {
            return post(memory, &irte, eime)
                .map(Remapped::Posted)
                .map_err(|reason| fault(reason, fpd));
        }
        Ok(Remapped::Deliver(irte.message(eime)))
    }

    /// Invalidates interrupt entries (section 6.5.2.8).
    pub(super) fn invalidate_interrupts(&mut self, scope: Option<(u16, u8)>, fx: &mut Effects) {
        self.interrupts.invalidate(scope);
        fx.push(Effect::Invalidated(Invalidated::Interrupts(scope)));
    }
}

/// Posts an interrupt (section 5.2.3): sets its bit in the posted interrupt descriptor, and
/// returns the notification that is due.
///
/// Hardware changes the descriptor in one atomic operation. Here the bit is set first and ON
/// then, which software cannot tell apart: it clears ON before it looks at the bits.
fn post(memory: &impl Memory, irte: &Irte, eime: bool) -> Result<Option<Message>, R> {
    let at = irte.posted_descriptor();
    let access = |_| R::PostedDescriptorAccess;
    let words: [u64; 8] = read_words(memory, at).map_err(access)?;
    let reserved = |control: u64| PostedControl(control).reserved(eime) != 0;
    if reserved(words[4]) || words[5..].iter().any(|w| *w != 0) {
        return Err(R::PostedDescriptorReserved);
    }
    let vector = u64::from(irte.vector());
    let (word, bit) = ((vector / 64) as usize, 1u64 << (vector % 64));
    let place = at + word as u64 * 8;
    let set = |pir: u64| (pir & bit == 0).then_some(pir | bit);
    swap(memory, place, words[word], &set)?;
    let notify = |control: u64| {
        let c = PostedControl(control);
        (!c.on() && (irte.urg() || !c.sn())).then_some(control | 1)
    };
    let control = swap(memory, at + PostedControl::OFFSET, words[4], &notify)?;
    Ok(control.map(|control| {
        let control = PostedControl(control);
        message(control.ndst(eime), control.nv(), false, false)
    }))
}

/// How often a word of a posted interrupt descriptor is swapped before the unit gives up:
/// processors would have to change it in between as often as that.
const ATTEMPTS: usize = 1000;

/// Changes a word to what `wanted` makes of it, atomically. Returns what it was before; nothing
/// if `wanted` leaves it as it is.
fn swap(
    memory: &impl Memory,
    at: u64,
    value: u64,
    wanted: &dyn Fn(u64) -> Option<u64>,
) -> Result<Option<u64>, R> {
    let mut current = value;
    for _ in 0..ATTEMPTS {
        let Some(new) = wanted(current) else {
            return Ok(None);
        };
        let found = memory
            .compare_exchange(at, current, new)
            .map_err(|_| R::PostedDescriptorAccess)?;
        if found == current {
            return Ok(Some(current));
        }
        current = found;
    }
    Err(R::PostedDescriptorAccess)
}
