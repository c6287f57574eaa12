// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that reach the unit, and their results.

use crate::spec::SourceId;
use crate::spec::fault::{FaultReason, RequestKind};
use pcie_ats::{AlignedRange, Pasid};

/// What a memory request does (sections 3.1 and 3.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads.
    Read,
    /// Reads nothing (section 3.14): also permitted where only writes are.
    ZeroLengthRead,
    /// Writes.
    Write,
    /// Reads and writes in one (AtomicOp).
    Atomic,
}

impl Access {
    /// Whether it changes memory, and so needs write permission (sections 3.6 and 3.7).
    pub const fn writes(self) -> bool {
        matches!(self, Access::Write | Access::Atomic)
    }

    /// T1 and T2 of a fault record (section 11.4.7.6).
    pub const fn kind(self) -> RequestKind {
        match self {
            Access::Read | Access::ZeroLengthRead => RequestKind::Read,
            Access::Write => RequestKind::Write,
            Access::Atomic => RequestKind::Atomic,
        }
    }
}

/// A memory request with an untranslated address (AT = 00b), without PASID or with one (section
/// 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The function that sent it.
    pub requester: SourceId,
    /// PASID; none for requests without one.
    pub pasid: Option<Pasid>,
    /// Address of the first byte. A request does not cross a page of 4 KiB (section 3.13).
    pub address: u64,
    /// What it does.
    pub access: Access,
    /// Execute Requested; needs a PASID and a read.
    pub execute: bool,
    /// Privileged Mode Requested; needs a PASID.
    pub privileged: bool,
}

/// The translation of an untranslated request (sections 3.6 to 3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// Host physical address of the first byte.
    pub address: u64,
    /// The page of input addresses for which the translation is valid, until it is invalidated.
    pub page: AlignedRange,
    /// Reads are permitted in the page.
    pub read: bool,
    /// Writes are permitted in the page without another translation.
    pub write: bool,
    /// The access snoops processor caches, whatever its No Snoop attribute (section 3.10).
    pub snoop: bool,
}

/// A request that was blocked (section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// A remapping fault, which was recorded unless software suppresses it.
    #[error("blocked by remapping: condition {} (reason {:#04x})", .0.condition(), .0.code())]
    Fault(FaultReason),
    /// The address is protected memory; that is not recorded (section 11.4.8.1).
    #[error("blocked: the address lies in a protected memory region")]
    ProtectedMemory,
    /// Hardware does not accept such a request at all (section 4.2.1); not recorded.
    #[error("unsupported request: {0}")]
    Unsupported(&'static str),
}
