// SPDX-License-Identifier: GPL-2.0-or-later
//! The unit with its lock.
//!
//! The lock is a leaf: while it is held, only the unit runs, which reads and writes guest memory.
//! The effects of the unit are carried out afterwards, with the BQL held: at once by a thread that
//! holds it, otherwise by the main loop. The files above do that ([`CarryOut`]).

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use vtd::recording::{RecordedUnit, Sink};
use vtd::spec::SourceId;
use vtd::{Capabilities, Effects, Reach, ReachPart};

use super::copies::Span;
use super::function::Bus;
use super::guest_memory::GuestMemory;
use crate::bql::{self, Bql};
use crate::main_loop;

/// The code above the unit that carries out its effects.
pub trait CarryOut: Sync {
    /// Carries out effects.
    fn carry_out(&'static self, bql: &Bql, effects: Effects);
    /// How functions are translated has changed.
    fn review(&'static self, bql: &Bql);
}

/// The unit of a machine. It is never freed.
pub struct LockedUnit {
    unit: Mutex<RecordedUnit>,
    above: OnceLock<&'static dyn CarryOut>,
    /// The bus from which all functions are reached.
    root: Bus,
    /// The unit validates the source of the I/O APIC's interrupts.
    pub validates_ioapic: bool,
}

impl LockedUnit {
    /// A unit; nothing carries out its effects yet.
    pub fn new(
        capabilities: Capabilities,
        sink: Option<Sink>,
        root: Bus,
        validates_ioapic: bool,
    ) -> Self {
        LockedUnit {
            unit: Mutex::new(RecordedUnit::new(capabilities, sink)),
            above: OnceLock::new(),
            root,
            validates_ioapic,
        }
    }

    /// Sets, once, the code that carries out the effects of the unit.
    pub fn set_above(&self, above: &'static dyn CarryOut) {
        // A second one would belong to another machine.
        let _ = self.above.set(above);
    }

    /// How functions are translated has changed.
    pub fn review(&self, bql: &Bql) {
        if let Some(above) = self.above.get() {
            above.review(bql);
        }
    }

    /// Works with the unit. Its effects are carried out after its lock is released.
    pub fn with<R>(&'static self, work: impl FnOnce(&mut RecordedUnit, &mut Effects) -> R) -> R {
        let mut effects = Effects::new();
        let result = work(&mut self.lock(), &mut effects);
        self.deliver(effects);
        result
    }

    /// Whether translation is on.
    pub fn is_translating(&self) -> bool {
        self.lock().translation_enabled()
    }

    /// The width of addresses that functions may use.
    pub fn address_width(&self) -> u8 {
        let unit = self.lock();
        let capabilities = unit.capabilities();
        let second = capabilities.config().second_stage_width.bits();
        if capabilities.cap().fs5lp() {
            57
        } else {
            second
        }
    }

    /// The capabilities that are relevant to clients that watch address spaces: Caching Mode, Snoop
    /// Control and Device-TLBs.
    pub fn abilities(&self) -> (bool, bool, bool) {
        let unit = self.lock();
        let capabilities = unit.capabilities();
        let ecap = capabilities.ecap();
        (capabilities.cap().cm(), ecap.sc(), ecap.dt())
    }

    /// A part of the pages that a function reaches, for clients with a copy. Others can use the
    /// unit between two parts.
    pub fn reach(&self, requester: SourceId, span: Span) -> ReachPart {
        const READS: usize = 1 << 16;
        let unit = self.lock();
        unit.reach_part(&GuestMemory, requester, span.first, span.last, READS)
    }

    /// Whether a function is not translated.
    pub fn reaches_everything(&self, requester: SourceId) -> bool {
        let unit = self.lock();
        // It examines no address, so that it sets no flag.
        let part = unit.reach_part(&GuestMemory, requester, u64::MAX, 0, 0);
        part.reach == Reach::Everything
    }

    /// The bus from which all functions are reached.
    pub fn root(&self) -> Bus {
        self.root
    }

    /// Carries out effects with the BQL held: now, or in the main loop.
    fn deliver(&'static self, effects: Effects) {
        if effects.is_empty() {
            return;
        }
        let carry_out = move |bql: &Bql| {
            if let Some(above) = self.above.get() {
                above.carry_out(bql, effects);
            }
        };
        if bql::is_held() {
            // SAFETY: the line above has checked it.
            carry_out(&unsafe { Bql::held() });
        } else {
            main_loop::soon(carry_out);
        }
    }

    /// The unit, locked. The caller carries out the effects, if there are any.
    pub fn lock(&self) -> MutexGuard<'_, RecordedUnit> {
        self.unit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
