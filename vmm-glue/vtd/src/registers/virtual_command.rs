// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual command registers (section 11.4): VCCAP, VCMD, VCMD_EO and VCRSP. Software asks for
//! one thing at a time; the host carries it out and gives the response.

use crate::mutant::{Mutant, breaks};
use crate::spec::virtual_command::{Command, Response, Status, VCCAP_PASID};

/// The registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtualCommands {
    command: u64,
    operand: u64,
    response: u64,
}

impl VirtualCommands {
    /// VCCAP_REG.
    pub fn capability(&self) -> u64 {
        if breaks(Mutant::N1_20) {
            return 0;
        }
        VCCAP_PASID
    }

    /// VCMD_REG, as it was written last.
    pub const fn command(&self) -> u64 {
        self.command
    }

    /// VCMD_EO_REG: the extended operand.
    pub const fn operand(&self) -> u64 {
        self.operand
    }

    /// VCRSP_REG.
    pub const fn response(&self) -> u64 {
        self.response
    }

    /// VCMD_EO_REG is written.
    pub const fn set_operand(&mut self, value: u64) {
        self.operand = value;
    }

    /// The upper half of VCMD_REG is written; the lower half starts the command.
    pub fn set_upper(&mut self, value: u32) {
        if !self.busy() {
            self.command = self.command & 0xffff_ffff | u64::from(value) << 32;
        }
    }

    /// The lower half of VCMD_REG is written: a command begins, and IP says so until it ends. What
    /// is written meanwhile is ignored. An unknown command ends at once.
    pub fn start(&mut self, value: u32) -> Option<Command> {
        if self.busy() && !breaks(Mutant::N1_26) {
            return None;
        }
        self.command = self.command >> 32 << 32 | u64::from(value);
        match Command::from_word(self.command) {
            Some(command) => {
                self.response = Response::IN_PROGRESS;
                match breaks(Mutant::N1_22) {
                    true => Some(Command::AllocatePasid),
                    false => Some(command),
                }
            }
            None => {
                self.response = Response::ended(Status::InvalidCommand, 0);
                None
            }
        }
    }

    /// Whether a command is in progress (IP).
    pub fn busy(&self) -> bool {
        self.response & Response::IN_PROGRESS != 0 && !breaks(Mutant::N1_23)
    }

    /// The command in progress ends. Without one, nothing happens.
    pub fn end(&mut self, status: Status, pasid: u32) {
        if self.busy() {
            self.response = Response::ended(status, pasid);
        }
    }
}
