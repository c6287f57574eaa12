// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual commands (section 11.4): the host has the PASIDs, and answers.

use super::Unit;
use crate::mutant::{Mutant, breaks};
use crate::spec::virtual_command::Status;
use pcie_ats::Pasid;

/// How the host ends a virtual command (section 11.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualCommandEnd {
    /// A PASID was allocated.
    Allocated(Pasid),
    /// The PASID was freed.
    Freed,
    /// There is no PASID left.
    NoPasid,
    /// The PASID is not one that was allocated.
    InvalidPasid,
}

impl Unit {
    /// The virtual command in progress, which [`crate::Effect::VirtualCommand`] told, has ended.
    /// Without one, for instance after a reset, nothing happens (section 11.4).
    pub fn virtual_command_ended(&mut self, end: VirtualCommandEnd) {
        let (status, pasid) = match end {
            VirtualCommandEnd::Allocated(pasid) => (Status::Success, pasid.get()),
            VirtualCommandEnd::Freed => (Status::Success, 0),
            VirtualCommandEnd::NoPasid | VirtualCommandEnd::InvalidPasid
                if breaks(Mutant::N1_24) =>
            {
                (Status::Success, 0)
            }
            VirtualCommandEnd::NoPasid | VirtualCommandEnd::InvalidPasid => {
                (Status::NoOrInvalidPasid, 0)
            }
        };
        self.registers.virtual_commands().end(status, pasid);
    }
}
