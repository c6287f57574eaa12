// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of configuration space that belongs to the device: the three capability structures,
//! linked in this order, and the bus master bit. It knows the registers and their rules, but not
//! their effects. The code that lays out configuration space handles the header of the function,
//! BARs and MSI-X, and may link the structures in another order.

use crate::config::Config;
use crate::mutant::Mutant;
use pcie_ats::Pasid;
use pcie_ats::capability::{
    ATS_ID, ATS_SIZE, Ats, PASID_ID, PASID_SIZE, PRI_ID, PRI_SIZE, PasidCapability, Pri, PriChange,
};

/// Offset of the ATS extended capability.
pub const ATS: u16 = 0x100;
/// Offset of the page request extended capability.
pub const PRI: u16 = 0x110;
/// Offset of the PASID extended capability.
pub const PASID: u16 = 0x120;

/// Offset of the command register (PCIe 7.5.1.1.3).
const COMMAND: u16 = 0x04;
/// Bus Master Enable.
const BUS_MASTER: u32 = 1 << 2;

/// Power state of the function (PCIe 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It works.
    D0,
    /// D3hot: only configuration space answers, and the function sends no requests. The state is
    /// kept (No_Soft_Reset), but active contexts halt.
    D3Hot,
}

/// The registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConfigSpace {
    /// Power state. The owner of the power management capability sets it.
    pub power: Power,
    /// Bus Master Enable: whether the function may send memory requests and interrupts.
    pub bus_master: bool,
    /// ATS.
    pub ats: Ats,
    /// Page requests.
    pub pri: Pri,
    /// PASID.
    pub pasid: PasidCapability,
}

impl ConfigSpace {
    /// The registers after a reset.
    pub fn new(config: &Config) -> Self {
        ConfigSpace {
            power: Power::D0,
            bus_master: false,
            // Queue depth 0 means 32, the number of tags.
            ats: Ats::new(0, true),
            pri: Pri::new(config.pri_capacity),
            pasid: PasidCapability::new(config.pasid_width, config.execute, config.privileged),
        }
    }

    /// Whether the function is in D0 (rule 71).
    pub fn awake(&self, mutant: Option<Mutant>) -> bool {
        self.power == Power::D0 || mutant == Some(Mutant::Rule71)
    }

    /// Whether contexts can work: memory requests with translated addresses and translation
    /// requests with a PASID are permitted (rules 5 to 7).
    pub fn operational(&self, mutant: Option<Mutant>) -> bool {
        self.translates(mutant) && self.pasid.enable
    }

    /// The same for contexts without a PASID.
    pub fn translates(&self, mutant: Option<Mutant>) -> bool {
        self.may_send(mutant) && (self.ats.enable || mutant == Some(Mutant::Rule69))
    }

    /// Whether a context may start, with a PASID or without.
    pub fn may_start(&self, with_pasid: bool, mutant: Option<Mutant>) -> bool {
        self.may_send(None)
            && (self.ats.enable || mutant == Some(Mutant::Rule05))
            && (!with_pasid || self.pasid.enable || mutant == Some(Mutant::Rule70))
    }

    /// Whether requests with a PASID may request execution and privileged mode (rule 7). Requests
    /// without a PASID cannot.
    pub fn may_ask(&self, pasid: Option<Pasid>, execute: bool, privileged: bool) -> bool {
        (!execute || pasid.is_some() && self.pasid.execute_enable)
            && (!privileged || pasid.is_some() && self.pasid.privileged_enable)
    }

    /// Whether the function may send requests and interrupts at all (rule 68).
    pub fn may_send(&self, mutant: Option<Mutant>) -> bool {
        self.awake(mutant) && (self.bus_master || mutant == Some(Mutant::Rule68))
    }

    /// Reads a double word.
    pub fn read(&self, offset: u16, mutant: Option<Mutant>) -> u32 {
        match offset {
            COMMAND => return u32::from(self.bus_master) * BUS_MASTER,
            ATS if mutant == Some(Mutant::Rule01) => return header(ATS_ID, 0),
            ATS => return header(ATS_ID, PRI),
            PRI => return header(PRI_ID, PASID),
            PASID => return header(PASID_ID, 0),
            _ => {}
        }
        if let Some(at) = within(offset, ATS, ATS_SIZE) {
            return self.ats.read(at);
        }
        if let Some(at) = within(offset, PRI, PRI_SIZE) {
            return self.pri.read(at);
        }
        if let Some(at) = within(offset, PASID, PASID_SIZE) {
            return self.pasid.read(at);
        }
        0
    }

    /// Writes the bits of `mask` of a double word, and returns what the page request interface has
    /// to do.
    pub fn write(
        &mut self,
        offset: u16,
        value: u32,
        mask: u32,
        mutant: Option<Mutant>,
    ) -> PriChange {
        if offset == COMMAND {
            if mask & BUS_MASTER != 0 {
                self.bus_master = value & BUS_MASTER != 0;
            }
        } else if let Some(at) = within(offset, ATS, ATS_SIZE) {
            let lost = match mutant {
                Some(Mutant::Width04) => 1 << 20,
                _ => 0,
            };
            self.ats.write(at, value & !lost, mask);
        } else if let Some(at) = within(offset, PRI, PRI_SIZE) {
            self.pri.stopped |= mutant == Some(Mutant::Rule09);
            return self.pri.write(at, value, mask);
        } else if let Some(at) = within(offset, PASID, PASID_SIZE) {
            let fixed = self.ats.enable && mutant != Some(Mutant::Rule06);
            self.pasid.write(at, value, mask, fixed);
        }
        PriChange::None
    }
}

/// The header of an extended capability structure of version 1, with the offset of the next one,
/// 0 for the last (PCIe 7.6.3).
const fn header(id: u16, next: u16) -> u32 {
    id as u32 | 1 << 16 | (next as u32) << 20
}

/// The offset inside a structure, if the structure contains it.
fn within(offset: u16, start: u16, size: u16) -> Option<u16> {
    offset.checked_sub(start).filter(|at| *at < size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_answer_at_their_offsets_and_nowhere_else() {
        let mut space = ConfigSpace::new(&Config::default());
        assert_eq!(space.read(ATS, None), 0x1101_000f);
        assert_eq!(space.read(ATS + 4, None) & 0x7f, 0x60);
        assert_eq!(space.read(PRI + 8, None), 512);
        assert_eq!(space.read(PASID + 4, None), 20 << 8);
        assert_eq!(space.write(0, !0, !0, None), PriChange::None);
        assert_eq!(space.write(0x200, !0, !0, None), PriChange::None);
        assert_eq!(space.read(COMMAND, None), 0);
        assert_eq!(space.write(PRI + 4, 1, !0, None), PriChange::Enabled);
        assert!(space.pri.enable);
    }

    #[test]
    fn rule_05_and_06_work_needs_bus_master_ats_and_pasid() {
        let mut space = ConfigSpace::new(&Config::default());
        for (offset, value) in [(COMMAND, 4), (PASID + 4, 1 << 16), (ATS + 4, 1 << 31)] {
            assert!(!space.operational(None));
            let _ = space.write(offset, value, !0, None);
        }
        assert!(space.operational(None));
        // Other code handles the interrupt disable bit and other bits of the command register.
        let _ = space.write(COMMAND, 0x0400, 0xff00, None);
        assert!(space.operational(None));
        let _ = space.write(COMMAND, 0, 0xff, None);
        assert!(!space.operational(None));
    }
}
