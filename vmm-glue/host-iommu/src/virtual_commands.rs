// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both ends of the virtual command interface: the host answers a command from its ids, and a guest
//! allocates PASIDs by commands. The registers between them are those of the unit.

use crate::ids::{Allocator, IdSpaces, SetId};
use crate::mutant::{Mutant, breaks};
use pcie_ats::Pasid;
use vtd::VirtualCommandEnd;
use vtd::spec::capability::ExtendedCapability;
use vtd::spec::register::offset;
use vtd::spec::virtual_command::{Command, Response, Status, VCCAP_PASID};

/// The PASIDs that a guest can get: 0 is that of requests without one.
const MIN: u32 = 1;

/// Answers a command of a guest: every PASID is one of the host's ids, and belongs to the guest's
/// set. One that belongs to another is not freed.
pub fn answer<T: Default>(
    ids: &mut IdSpaces<T>,
    guest: SetId,
    command: Command,
) -> VirtualCommandEnd {
    match command {
        Command::AllocatePasid => {
            let id = match breaks(Mutant::N1_14) {
                true => Some(MIN),
                false => ids.allocate(guest, MIN, Pasid::MAX, T::default()),
            };
            let pasid = id.and_then(|id| Pasid::new(id).ok());
            pasid.map_or(VirtualCommandEnd::NoPasid, VirtualCommandEnd::Allocated)
        }
        Command::FreePasid(pasid) => {
            let is_its_own = ids.find(Some(guest), pasid.get(), |_| true).is_ok();
            match is_its_own && ids.free(pasid.get()).is_ok() {
                true => VirtualCommandEnd::Freed,
                false => VirtualCommandEnd::InvalidPasid,
            }
        }
    }
}

/// The registers of a unit, as a guest reaches them.
pub trait Registers {
    /// Reads 64 bits.
    fn read(&mut self, offset: u16) -> u64;

    /// Writes 64 bits.
    fn write(&mut self, offset: u16, value: u64);
}

/// Why a guest has no PASID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// ENOSPC: the host has none left.
    #[error("the host has no PASID left")]
    NoPasid,
    /// EINVAL: the PASID was not allocated.
    #[error("the PASID is not one that the host gave")]
    InvalidPasid,
    /// ENODEV: the response is not one that a guest knows.
    #[error("the virtual command ended with status {0:?}")]
    Unknown(Status),
    /// The command did not end in time.
    #[error("the virtual command did not end after {0} looks at the response")]
    TimedOut(u32),
}

/// A guest's allocator: PASIDs by virtual commands. A custom allocator of [`IdSpaces`].
#[derive(Debug)]
pub struct VirtualCommandAllocator<R> {
    registers: R,
    /// How often the response is looked at before a command has timed out.
    looks: u32,
    /// The command that has timed out: it may be in progress still.
    given_up: Option<Command>,
}

impl<R: Registers> VirtualCommandAllocator<R> {
    /// The allocator of a unit; none if the unit does not report virtual commands (ECAP_REG.VCS) or
    /// does not allocate PASIDs by them (VCCAP_REG).
    pub fn new(mut registers: R, looks: u32) -> Option<Self> {
        let ecap = ExtendedCapability(registers.read(offset::ECAP));
        if !ecap.vcs() && !breaks(Mutant::N1_13) {
            return None;
        }
        let pasids = registers.read(offset::VCCAP) & VCCAP_PASID != 0;
        pasids.then_some(VirtualCommandAllocator {
            registers,
            looks,
            given_up: None,
        })
    }

    /// Gives a command and waits for its end. One that has timed out has to end before: until then
    /// the unit ignores others, and its response is not theirs. The PASID that it has allocated
    /// nobody knows of, so it is given back.
    fn command(&mut self, command: Command) -> Result<Response, CommandError> {
        if let Some(before) = self.given_up.filter(|_| !breaks(Mutant::GivenUp)) {
            let late = self.end_of(before)?;
            if (before, late.status) == (Command::AllocatePasid, Status::Success) {
                if let Ok(pasid) = Pasid::new(late.result) {
                    self.give(Command::FreePasid(pasid))?;
                }
            }
        }
        self.give(command)
    }

    fn give(&mut self, command: Command) -> Result<Response, CommandError> {
        self.registers.write(offset::VCMD, command.to_word());
        self.end_of(command)
    }

    /// Waits for the end of a command that was given.
    fn end_of(&mut self, command: Command) -> Result<Response, CommandError> {
        self.given_up = None;
        for _ in 0..self.looks {
            let word = self.registers.read(offset::VCRSP);
            if let Some(response) = Response::from_word(word) {
                return Ok(response);
            }
            if breaks(Mutant::N1_25) {
                break;
            }
        }
        self.given_up = Some(command);
        Err(CommandError::TimedOut(self.looks))
    }

    /// Allocates a PASID.
    ///
    /// # Errors
    ///
    /// There is none left, or the host does not answer as it should.
    pub fn allocate_pasid(&mut self) -> Result<Pasid, CommandError> {
        let response = self.command(Command::AllocatePasid)?;
        match response.status {
            Status::Success => {
                let pasid = Pasid::new(response.result);
                pasid.map_err(|_| CommandError::Unknown(response.status))
            }
            Status::NoOrInvalidPasid => Err(CommandError::NoPasid),
            other => Err(CommandError::Unknown(other)),
        }
    }

    /// Frees a PASID.
    ///
    /// # Errors
    ///
    /// It was not allocated, or the host does not answer as it should.
    pub fn free_pasid(&mut self, pasid: Pasid) -> Result<(), CommandError> {
        match self.command(Command::FreePasid(pasid))?.status {
            Status::Success => Ok(()),
            Status::NoOrInvalidPasid => Err(CommandError::InvalidPasid),
            other => Err(CommandError::Unknown(other)),
        }
    }
}

impl<R: Registers> Allocator for VirtualCommandAllocator<R> {
    /// The host chooses the number: one that is not in the range is given back.
    fn allocate(&mut self, min: u32, max: u32) -> Option<u32> {
        let pasid = self.allocate_pasid().ok()?;
        if (min..=max).contains(&pasid.get()) || breaks(Mutant::VirtualRange) {
            return Some(pasid.get());
        }
        // What cannot be freed is lost to the guest, not to the host.
        let _ = self.free_pasid(pasid);
        None
    }

    fn free(&mut self, id: u32) {
        if let Ok(pasid) = Pasid::new(id) {
            let _ = self.free_pasid(pasid);
        }
    }
}
