// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest's tables say, as bindings ask it: of a unit with its memory, or of whatever a
//! test has in its place.

use pcie_ats::Pasid;
use vtd::memory::Memory;
use vtd::spec::SourceId;
use vtd::spec::register::TranslationTableMode;
use vtd::{AddressSpace, Unit};

/// How the virtual unit treats requests at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Remapping is off: addresses are guest physical ones.
    Off,
    /// Legacy mode: the host's own copy of the mappings is what a device reaches.
    Legacy,
    /// Scalable mode: the PASID tables count.
    Scalable,
    /// Abort-DMA mode, or one that is not valid: every request is blocked.
    Blocked,
}

/// The guest's tables.
pub trait GuestTables {
    /// How the unit treats requests.
    fn mode(&self) -> Mode;

    /// By which PASID table entry requests without PASID are translated; none if they are blocked.
    fn rid_pasid(&self, requester: SourceId) -> Option<Pasid>;

    /// An address space of a function: of the requests without PASID, or of those with one. None
    /// if they are blocked.
    fn address_space(&self, requester: SourceId, pasid: Option<Pasid>) -> Option<AddressSpace>;

    /// The PASIDs of a function, below a limit, whose entry is present.
    fn pasids(&self, requester: SourceId, limit: u32) -> Vec<Pasid>;
}

/// A unit with its memory.
#[derive(Clone, Copy, Debug)]
pub struct UnitTables<'a, M> {
    /// The unit.
    pub unit: &'a Unit,
    /// Guest physical memory.
    pub memory: &'a M,
}

/// How many entries are read at a time: those of a large PASID table take several parts.
const READS: usize = 1 << 16;

impl<M: Memory> GuestTables for UnitTables<'_, M> {
    fn mode(&self) -> Mode {
        if !self.unit.translation_enabled() {
            return Mode::Off;
        }
        let ecap = self.unit.capabilities().ecap();
        match self.unit.translation_table_mode() {
            TranslationTableMode::Legacy => Mode::Legacy,
            TranslationTableMode::Scalable if ecap.smts() => Mode::Scalable,
            _ => Mode::Blocked,
        }
    }

    fn rid_pasid(&self, requester: SourceId) -> Option<Pasid> {
        self.unit.rid_pasid(self.memory, requester)
    }

    fn address_space(&self, requester: SourceId, pasid: Option<Pasid>) -> Option<AddressSpace> {
        let found = self.unit.address_space(self.memory, requester, pasid);
        found.ok()
    }

    fn pasids(&self, requester: SourceId, limit: u32) -> Vec<Pasid> {
        let (mut all, mut at) = (Vec::new(), Some(0));
        while let Some(first) = at {
            let mut part = self
                .unit
                .pasids(self.memory, requester, first, limit, READS);
            all.append(&mut part.pasids);
            at = part.next;
        }
        all
    }
}
