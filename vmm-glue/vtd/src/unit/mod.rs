// SPDX-License-Identifier: MIT OR Apache-2.0
//! The remapping unit: registers, caches and queues joined.
//!
//! All state is in [`Unit`], and all methods take it exclusively: a host puts it into a lock of
//! its own. The methods never call anything but [`Memory`]; what must be sent they append to a
//! list of [`Effects`], which the host carries out after it has let go of the lock. Time comes in
//! as an argument.

mod address_space;
mod ats;
mod groups;
mod interrupt_remapping;
mod page_request;
mod queue;
mod reach;
mod state;
mod translation;
mod virtual_command;
mod waits;

use crate::capabilities::Capabilities;
use crate::effect::{Effect, Effects, Invalidated, Refusal};
use crate::in_flight::Ticket;
use crate::memory::Memory;
use crate::mutant::{Mutant, breaks};
use crate::registers::Command;
use crate::spec::capability::{Capability, ExtendedCapability};
use crate::spec::descriptor::{ContextScope, IotlbScope, PasidScope, function_mask};
use crate::spec::fault::FaultRecord;
use crate::spec::register::{ContextCommand, IotlbCommand, TranslationTableMode, global};
use crate::spec::{DomainId, mask};
pub use address_space::{AddressSpace, AddressTranslation, FirstStageTable, PresentPasids};
pub use interrupt_remapping::Remapped;
use pcie_ats::AlignedRange;
pub use reach::{MappedPage, Reach, ReachPart, TooManyEntries};
pub use state::{Counters, Unit};
pub use virtual_command::VirtualCommandEnd;
use waits::Waits;

impl Unit {
    /// What the unit is able to do (sections 11.4.2 and 11.4.3).
    pub const fn capabilities(&self) -> &Capabilities {
        &self.caps
    }

    /// What the unit did since it was made. Not of the specification.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A number that grows whenever a grant may have become void, before anything that says so is
    /// visible: see [`Unit::grants_translated_requests`]. Not of the specification.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Resets the unit: registers get the defaults of section 11.4, caches are empty. Requests that
    /// are in flight stay so: their tickets remain good, and so does the turn of the queue.
    pub fn reset(&mut self, fx: &mut Effects) {
        let was = [global::TE, global::IRE].map(|f| self.registers.status(f));
        let (counters, in_flight) = (self.counters, std::mem::take(&mut self.in_flight));
        let turns = std::mem::take(&mut self.turns);
        let changes = self.changes + 1;
        let fresh = Unit::new(self.caps);
        let before = std::mem::replace(self, fresh);
        if breaks(Mutant::Rule81) {
            (self.contexts, self.spaces, self.iotlb) =
                (before.contexts, before.spaces, before.iotlb);
        }
        self.counters = counters;
        self.changes = changes;
        self.in_flight = in_flight;
        self.turns = turns;
        if was[0] {
            fx.push(Effect::TranslationEnabled(false));
        }
        if was[1] {
            fx.push(Effect::InterruptRemappingEnabled(false));
        }
        for all in [
            Invalidated::Context(ContextScope::Global),
            Invalidated::Pasid(PasidScope::Global),
            Invalidated::Iotlb {
                scope: IotlbScope::Global,
                leaf_only: false,
            },
            Invalidated::Interrupts(None),
        ] {
            fx.push(Effect::Invalidated(all));
        }
    }

    /// Reads 4 or 8 bytes of the register file (section 11.2).
    pub fn read(&self, offset: u16, size: u8) -> u64 {
        self.registers.read(offset, size)
    }

    /// Writes 4 or 8 bytes of the register file (section 11.2).
    pub fn write(&mut self, offset: u16, value: u64, size: u8, fx: &mut Effects) {
        self.changes += 1;
        match self.registers.write(offset, value, size, fx) {
            Some(Command::Global(value)) => self.global_command(value, fx),
            Some(Command::InvalidateContext) => self.context_command(fx),
            Some(Command::InvalidateIotlb) => self.iotlb_command(fx),
            Some(Command::Queue) => self.queue_ready(fx),
            Some(Command::Virtual(command)) => fx.push(Effect::VirtualCommand(command)),
            None => {}
        }
    }

    /// Whether DMA remapping is on (TES, section 11.4.4.2).
    pub const fn translation_enabled(&self) -> bool {
        self.registers.status(global::TE)
    }

    /// Whether interrupt remapping is on (IRES, section 11.4.4.2).
    pub const fn interrupt_remapping_enabled(&self) -> bool {
        self.registers.status(global::IRE)
    }

    /// The translation table mode in effect (TTM, section 11.4.5), latched by SRTP.
    pub const fn translation_table_mode(&self) -> TranslationTableMode {
        self.rtaddr.mode()
    }

    const fn cap(&self) -> Capability {
        self.caps.cap()
    }

    const fn ecap(&self) -> ExtendedCapability {
        self.caps.ecap()
    }

    /// GCMD_REG was written (section 11.4.4.1). Each command is complete when this returns.
    fn global_command(&mut self, value: u32, fx: &mut Effects) {
        if value & global::SRTP != 0 {
            self.rtaddr = self.registers.rtaddr();
            if self.cap().esrtps() {
                self.invalidate_all(fx);
            }
            self.registers.set_status(global::SRTP, true);
        }
        if value & global::SIRTP != 0 && self.ecap().ir() {
            self.irta = self.registers.irta();
            if self.cap().esirtps() {
                self.invalidate_interrupts(None, fx);
            }
            self.registers.set_status(global::SIRTP, true);
        }
        let changes = |unit: &Self, bit| (value & bit != 0) != unit.registers.status(bit);
        let on = |bit| value & bit != 0;
        if changes(self, global::QIE) {
            self.registers.set_status(global::QIE, on(global::QIE));
            self.queue = Waits::default();
            if on(global::QIE) {
                self.queue_ready(fx);
            }
        }
        if self.ecap().ir() {
            if changes(self, global::CFI) {
                self.registers.set_status(global::CFI, on(global::CFI));
            }
            if changes(self, global::IRE) {
                self.registers.set_status(global::IRE, on(global::IRE));
                if !on(global::IRE) && self.cap().esirtps() {
                    self.invalidate_interrupts(None, fx);
                }
                fx.push(Effect::InterruptRemappingEnabled(on(global::IRE)));
            }
        }
        if changes(self, global::TE) {
            self.registers.set_status(global::TE, on(global::TE));
            if !on(global::TE) && self.ecap().smts() {
                self.invalidate_all(fx);
            }
            fx.push(Effect::TranslationEnabled(on(global::TE)));
        }
    }

    /// Tells the host that the invalidation queue has something to do.
    fn queue_ready(&self, fx: &mut Effects) {
        if self.registers.queue_runs() && self.registers.iqh() != self.registers.iqt() {
            fx.push(Effect::QueueReady);
        }
    }

    /// Whether register-based invalidation is possible now (section 6.5.1).
    const fn takes_register_invalidation(&self) -> bool {
        self.caps.config().version.0 < 6
            && !self.registers.status(global::QIE)
            && matches!(self.translation_table_mode(), TranslationTableMode::Legacy)
    }

    /// ICC was set (section 11.4.6.1).
    fn context_command(&mut self, fx: &mut Effects) {
        let ccmd = self.registers.ccmd();
        let did = self.domain(ccmd.did());
        let granularity = ccmd.cirg();
        let scope = match granularity {
            1 => ContextScope::Global,
            2 => ContextScope::Domain(did),
            3 => ContextScope::Device {
                did,
                sid: ccmd.sid(),
                mask: function_mask(ccmd.fm().into()),
            },
            _ => return self.refuse_context_command(ccmd, fx),
        };
        if !self.takes_register_invalidation() {
            return self.refuse_context_command(ccmd, fx);
        }
        self.invalidate_contexts(scope, fx);
        self.registers.complete_context_invalidation(granularity);
    }

    /// IVT was set (section 11.4.6.3).
    fn iotlb_command(&mut self, fx: &mut Effects) {
        let (iotlb, iva) = (self.registers.iotlb(), self.registers.iva());
        let did = self.domain(iotlb.did());
        let granularity = iotlb.iirg();
        let am = iva.am();
        let range = AlignedRange::containing(iva.addr(), 12 + am.min(52));
        let scope = match (granularity, range) {
            (1, _) => IotlbScope::Global,
            (2, _) => IotlbScope::Domain(did),
            (3, Ok(range)) if am <= self.cap().mamv() => IotlbScope::DomainPages(did, range),
            _ => return self.refuse_iotlb_command(iotlb, fx),
        };
        if !self.takes_register_invalidation() {
            return self.refuse_iotlb_command(iotlb, fx);
        }
        let leaf_only = granularity == 3 && iva.ih();
        self.invalidate_iotlb(scope, leaf_only, fx);
        let asked = iotlb.dw() || iotlb.dr();
        if asked || self.caps.config().version.0 >= 2 {
            let generation = self.in_flight.drain();
            if !self.in_flight.drained(generation) {
                self.draining = Some((granularity, generation));
                return;
            }
        }
        self.registers.complete_iotlb_invalidation(granularity);
    }

    /// CAIG = 0 says that nothing was invalidated.
    fn refuse_context_command(&mut self, ccmd: ContextCommand, fx: &mut Effects) {
        self.registers.complete_context_invalidation(0);
        fx.push(Effect::Refused(Refusal::ContextCommand(ccmd)));
    }

    /// IAIG = 0 says that nothing was invalidated.
    fn refuse_iotlb_command(&mut self, iotlb: IotlbCommand, fx: &mut Effects) {
        self.registers.complete_iotlb_invalidation(0);
        fx.push(Effect::Refused(Refusal::IotlbCommand(iotlb)));
    }

    /// The domain that a field names: hardware ignores the bits beyond the width.
    const fn domain(&self, bits: u16) -> DomainId {
        DomainId(bits & mask(self.cap().domain_id_width() - 1, 0) as u16)
    }

    fn invalidate_all(&mut self, fx: &mut Effects) {
        self.invalidate_contexts(ContextScope::Global, fx);
        self.invalidate_pasids(PasidScope::Global, fx);
        self.invalidate_iotlb(IotlbScope::Global, false, fx);
    }

    fn invalidate_contexts(&mut self, scope: ContextScope, fx: &mut Effects) {
        self.contexts.invalidate(scope);
        self.changes += 1;
        fx.push(Effect::Invalidated(Invalidated::Context(scope)));
    }

    fn invalidate_pasids(&mut self, scope: PasidScope, fx: &mut Effects) {
        self.spaces.invalidate(scope);
        fx.push(Effect::Invalidated(Invalidated::Pasid(scope)));
    }

    /// Invalidates translations (tables 23 and 24).
    fn invalidate_iotlb(&mut self, scope: IotlbScope, leaf_only: bool, fx: &mut Effects) {
        self.forget(scope);
        if breaks(Mutant::G31) {
            return;
        }
        let leaf_only = leaf_only && !breaks(Mutant::LeafHint);
        fx.push(Effect::Invalidated(Invalidated::Iotlb { scope, leaf_only }));
    }

    fn forget(&mut self, scope: IotlbScope) {
        use crate::context::TranslationType;
        let iotlb = &mut self.iotlb;
        match scope {
            IotlbScope::Global if breaks(Mutant::S75B) => {}
            IotlbScope::Domain(_) if breaks(Mutant::S75A) => {}
            IotlbScope::Global => self.spaces.forget_all(),
            IotlbScope::Domain(_) if breaks(Mutant::Rule75) => self.spaces.forget_all(),
            IotlbScope::Pasid(..) | IotlbScope::PasidPages(..) if breaks(Mutant::Rule28) => {}
            IotlbScope::Domain(did) => self.spaces.forget_domain(did),
            IotlbScope::DomainPages(did, range) => {
                // What went through the first stage goes whatever its address.
                self.spaces.forget_some(did, None, |space, regime| {
                    matches!(
                        regime.translation,
                        TranslationType::Second(_) | TranslationType::PassThrough
                    ) && iotlb.remove(space.owner(), space.sizes, range)
                });
            }
            IotlbScope::Pasid(did, pasid) => {
                self.spaces
                    .forget_some(did, Some(pasid.get()), |_, _| false);
            }
            IotlbScope::PasidPages(did, pasid, range) => {
                self.spaces.forget_some(did, Some(pasid.get()), |space, _| {
                    iotlb.remove(space.owner(), space.sizes, range)
                });
            }
        }
    }

    /// Records a fault that was found elsewhere (section 7.2.1): by the hardware below, for a
    /// function that is passed through and translates with this unit's tables.
    pub fn report_fault(&mut self, record: &FaultRecord, fx: &mut Effects) {
        if !breaks(Mutant::G28) {
            self.registers.record_fault(record, fx);
        }
    }

    /// An untranslated request that was translated starts to access memory. What it wrote is
    /// visible, and what it reads was fetched, when the ticket is given to [`Unit::end_access`];
    /// until then, invalidations that drain do not complete (section 6.5.4). The host takes the
    /// ticket together with the translation.
    pub fn begin_access(&mut self) -> Ticket {
        self.in_flight.begin()
    }

    /// An access has ended: what waited for it to drain may complete (section 6.5.4).
    pub fn end_access(&mut self, memory: &impl Memory, ticket: Ticket, fx: &mut Effects) {
        drop(ticket);
        self.accesses_ended();
        self.complete_waits(memory, fx);
    }

    /// Accesses may have ended: a register-based invalidation may be complete.
    fn accesses_ended(&mut self) {
        self.in_flight.settle();
        if let Some((granularity, generation)) = self.draining {
            if self.in_flight.drained(generation) {
                self.draining = None;
                self.registers.complete_iotlb_invalidation(granularity);
            }
        }
    }
}
