// SPDX-License-Identifier: MIT OR Apache-2.0
//! The request to a walk (sections 3.6 to 3.9), its result, and its failures.

use crate::capabilities::Capabilities;
use crate::context::FaultCondition;
use crate::mutant::{Mutant, breaks};
use crate::request::Access;
use crate::spec::fault::FaultReason as R;
use crate::spec::interrupt::{RANGE_BASE, RANGE_LAST, in_range};

/// Whether a request needs write permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// It does not write.
    No,
    /// It fails without.
    Required,
    /// It uses it if it is granted (a translation request).
    IfPermitted,
}

/// Whether a request needs read permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// It does not read, or uses what is granted (a translation request).
    No,
    /// It fails without.
    Required,
    /// It needs read or write permission (a zero-length read).
    OrWrite,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// Read permission.
    pub read: Read,
    /// Write permission.
    pub write: Write,
    /// Execute permission.
    pub execute: bool,
    /// The permissions of privileged mode.
    pub privileged: bool,
    /// It uses the whole page, not one address in it (a translation request).
    pub whole_page: bool,
}

impl Want {
    /// What a memory request needs. `zlr` is CAP_REG.ZLR.
    pub const fn access(access: Access, execute: bool, privileged: bool, zlr: bool) -> Self {
        let (read, write) = match access {
            Access::ZeroLengthRead if zlr => (Read::OrWrite, Write::No),
            Access::Read | Access::ZeroLengthRead => (Read::Required, Write::No),
            Access::Write => (Read::No, Write::Required),
            Access::Atomic => (Read::Required, Write::Required),
        };
        Want {
            read,
            write,
            execute,
            privileged,
            whole_page: false,
        }
    }

    /// What a translation request uses.
    pub const fn translation(no_write: bool, privileged: bool) -> Self {
        Want {
            read: Read::No,
            write: if no_write {
                Write::No
            } else {
                Write::IfPermitted
            },
            execute: false,
            privileged,
            whole_page: true,
        }
    }
}

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Output address for the input address.
    pub address: u64,
    /// Log2 of the size of the page, within which output follows input.
    pub shift: u8,
    /// Reads are permitted.
    pub read: bool,
    /// Writes are permitted.
    pub write: bool,
    /// Execution is permitted.
    pub execute: bool,
    /// Accesses snoop processor caches.
    pub snoop: bool,
    /// Writes do not need to set any more flags.
    pub dirty: bool,
}

impl Mapping {
    /// Whether the output lies in the interrupt address range (section 3.15).
    pub fn meets_interrupts(&self, whole_page: bool) -> bool {
        if breaks(Mutant::S24B) {
            return false;
        }
        if whole_page {
            let first = self.address & !self.offset();
            first <= RANGE_LAST && first | self.offset() >= RANGE_BASE
        } else {
            in_range(self.address)
        }
    }

    /// The bits of an address that select a byte in the page.
    pub const fn offset(&self) -> u64 {
        (1 << self.shift) - 1
    }
}

/// The common data of walks.
pub(crate) struct Walker<'a, M> {
    pub memory: &'a M,
    pub caps: &'a Capabilities,
}

/// Why a walk stops: it has to start again, or fails.
pub(super) enum Stop {
    /// An entry changed during the walk.
    Again(R),
    /// A fault condition.
    Fault(FaultCondition),
}

impl From<FaultCondition> for Stop {
    fn from(fault: FaultCondition) -> Self {
        Stop::Fault(fault)
    }
}

/// Number of attempts before a walk gives up. Each attempt fails only if a processor changes an
/// entry of the walk between its read and its update.
pub(super) const ATTEMPTS: usize = 1000;

/// Checks the permissions that both stages grant together.
pub(super) fn check(scalable: bool, mapping: &Mapping, want: &Want) -> Result<(), FaultCondition> {
    let fault = |reason| Err(FaultCondition::new(reason));
    if want.write == Write::Required && !mapping.write {
        return fault(if scalable { R::ScalableWrite } else { R::Write });
    }
    let read = match want.read {
        Read::No => true,
        Read::Required => mapping.read,
        Read::OrWrite => mapping.read || mapping.write,
    };
    if !read {
        return fault(if scalable { R::ScalableRead } else { R::Read });
    }
    if want.execute && !mapping.execute {
        return fault(R::NoExecute);
    }
    Ok(())
}
