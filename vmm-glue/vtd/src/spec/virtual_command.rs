// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual command interface (ECAP_REG.VCS, section 11.4.3; registers of section 11.4): how a
//! guest asks its host for PASIDs.
//!
//! The layout is the corrected one: VCMD at E00h, VCMD_EO at E08h, VCRSP at E10h and VCCAP at E30h;
//! operand and result begin at bit 16, the status has bits 7:1. A first draft had other places.

use super::field;
use pcie_ats::Pasid;

/// PAS of VCCAP_REG: PASIDs can be allocated and freed.
pub const VCCAP_PASID: u64 = 1 << 0;

/// A command of VCMD_REG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// 1: allocate a PASID.
    AllocatePasid,
    /// 2: free a PASID, which is the operand (35:16).
    FreePasid(Pasid),
}

impl Command {
    /// The command that a value of VCMD_REG asks for; none if it is unknown.
    pub fn from_word(word: u64) -> Option<Self> {
        match field(word, 7, 0) {
            1 => Some(Command::AllocatePasid),
            2 => {
                let operand = Pasid::new(field(word, 35, 16) as u32).ok()?;
                Some(Command::FreePasid(operand))
            }
            _ => None,
        }
    }

    /// The value of VCMD_REG that asks for it.
    pub const fn to_word(self) -> u64 {
        match self {
            Command::AllocatePasid => 1,
            Command::FreePasid(pasid) => 2 | (pasid.get() as u64) << 16,
        }
    }
}

/// SC: how a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 0: it was carried out.
    Success,
    /// 1: there is no such command.
    InvalidCommand,
    /// 16: there is no PASID left, or, of a command that frees one, the PASID is not one that was
    /// allocated. One number has both meanings: the command tells them apart.
    NoOrInvalidPasid,
    /// Any other number.
    Unknown(u8),
}

/// Values of VCRSP_REG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// SC.
    pub status: Status,
    /// RSLT: the PASID that was allocated.
    pub result: u32,
}

impl Response {
    /// IP: a command is in progress.
    pub const IN_PROGRESS: u64 = 1 << 0;

    /// The response of a command that has ended; none as long as one is in progress.
    pub const fn from_word(word: u64) -> Option<Self> {
        if word & Self::IN_PROGRESS != 0 {
            return None;
        }
        let status = match field(word, 7, 1) as u8 {
            0 => Status::Success,
            1 => Status::InvalidCommand,
            16 => Status::NoOrInvalidPasid,
            other => Status::Unknown(other),
        };
        Some(Response {
            status,
            result: field(word, 35, 16) as u32,
        })
    }

    /// The value of VCRSP_REG when a command has ended.
    pub const fn ended(status: Status, result: u32) -> u64 {
        let number = match status {
            Status::Success => 0,
            Status::InvalidCommand => 1,
            Status::NoOrInvalidPasid => 16,
            Status::Unknown(other) => other & 0x7f,
        };
        (number as u64) << 1 | (result as u64) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_responses_have_their_bits() {
        let pasid = Pasid::new(0xabcde).unwrap();
        for (command, word) in [
            (Command::AllocatePasid, 1),
            (Command::FreePasid(pasid), 0xa_bcde_0002),
        ] {
            assert_eq!(command.to_word(), word);
            assert_eq!(Command::from_word(word), Some(command));
        }
        assert_eq!(Command::from_word(3), None);
        assert_eq!(Response::from_word(1), None);
        assert_eq!(Response::ended(Status::Success, 0xabcde), 0xa_bcde_0000);
        assert_eq!(Response::ended(Status::NoOrInvalidPasid, 0), 0x20);
        for status in [Status::Success, Status::InvalidCommand, Status::Unknown(5)] {
            let response = Response { status, result: 7 };
            assert_eq!(
                Response::from_word(Response::ended(status, 7)),
                Some(response)
            );
        }
    }
}
