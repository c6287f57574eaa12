// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory accesses that parts of the device request: a piece of a process's address space and
//! the kind of access. Knows nothing of translations.

use svm_abi::completion::Error;

/// What an access does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It does both at once: an AtomicOp.
    ReadWrite,
}

impl Access {
    /// Bit of a read in [`Access::bits`].
    pub const READ: u32 = 1 << 0;
    /// Bit of a write in [`Access::bits`].
    pub const WRITE: u32 = 1 << 1;

    /// The permissions that it needs.
    pub const fn bits(self) -> u32 {
        match self {
            Access::Read => Self::READ,
            Access::Write => Self::WRITE,
            Access::ReadWrite => Self::READ | Self::WRITE,
        }
    }

    /// Whether it reads.
    pub const fn reads(self) -> bool {
        self.bits() & Self::READ != 0
    }

    /// Whether it writes.
    pub const fn writes(self) -> bool {
        self.bits() & Self::WRITE != 0
    }
}

/// Bytes of a process that the device will access from one end to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// First address.
    pub address: u64,
    /// Number of bytes, at least 1; `address + length` does not wrap.
    pub length: u64,
    /// What is done there.
    pub access: Access,
    /// From the last byte down.
    pub backward: bool,
}

impl Piece {
    /// A piece that is processed upwards.
    pub const fn forward(address: u64, length: u64, access: Access) -> Self {
        Piece {
            address,
            length,
            access,
            backward: false,
        }
    }

    /// The last address.
    pub const fn last(&self) -> u64 {
        self.address + (self.length - 1)
    }

    /// The next address: it must be accessible for the work to continue.
    pub const fn focus(&self) -> u64 {
        if self.backward {
            self.last()
        } else {
            self.address
        }
    }
}

/// Whether an address can belong to a process: all bits from bit `bits - 1` up are equal. The
/// device sends no requests for other addresses (rule 27). The translation agent knows which
/// addresses are not memory on this machine.
pub(crate) const fn canonical(address: u64, bits: u8) -> bool {
    let unused = 64 - bits as u32;
    ((address << unused) as i64 >> unused) as u64 == address
}

/// Why work on a descriptor cannot continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The reason.
    pub error: Error,
    /// The address whose access failed; 0 if none did.
    pub address: u64,
    /// The access was a write.
    pub write: bool,
}

impl Failure {
    /// A failure without a failed access.
    pub const fn of(error: Error) -> Self {
        Failure {
            error,
            address: 0,
            write: false,
        }
    }

    /// The failure of a piece at its focus.
    pub const fn at(error: Error, piece: &Piece) -> Self {
        Failure {
            error,
            address: piece.focus(),
            write: piece.access.writes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_27_only_canonical_addresses_can_be_of_a_process() {
        for address in [0, 0x7fff_ffff_f000, 0xff_ffff_ffff_ffff, !0, 0xff00 << 48] {
            assert!(canonical(address, 57), "{address:#x}");
        }
        assert!(!canonical(1 << 47, 48) && canonical(1 << 47, 57));
        assert!(canonical(0xffff_8000 << 32, 48) && !canonical(0xff00 << 48, 48));
        for address in [1 << 56, 0xdead_0000_0000_0000, 1 << 63, 0xfeff << 48] {
            assert!(!canonical(address, 57), "{address:#x}");
        }
    }

    #[test]
    fn the_focus_of_backward_work_is_the_last_byte() {
        let piece = Piece {
            backward: true,
            ..Piece::forward(0x1000, 0x100, Access::Write)
        };
        assert_eq!(piece.focus(), 0x10ff);
        assert_eq!(Failure::at(Error::PageFault, &piece).address, 0x10ff);
        assert!(Failure::at(Error::PageFault, &piece).write);
    }
}
