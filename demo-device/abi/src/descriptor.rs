// SPDX-License-Identifier: MIT OR Apache-2.0
//! The work descriptor: 64 bytes in the submission ring, in the process's own memory.
//!
//! All addresses are virtual addresses of the process that the context is bound to.

/// Size of a descriptor in bytes.
pub const SIZE: usize = 64;

/// Offset of the operation, 8 bits: see [`Operation`].
pub const OPERATION: usize = 0;
/// Offset of the flags, 8 bits: see [`flags`].
pub const FLAGS: usize = 1;
/// Offset of the completion record's address, 64 bits; 0 for none.
pub const COMPLETION: usize = 8;
/// Offset of the source address, 64 bits.
pub const SOURCE: usize = 16;
/// Offset of the destination address, 64 bits.
pub const DESTINATION: usize = 24;
/// Offset of the length in bytes, 64 bits.
pub const LENGTH: usize = 32;
/// Offset of the first operand, 64 bits.
pub const OPERAND0: usize = 40;
/// Offset of the second operand, 64 bits.
pub const OPERAND1: usize = 48;

/// Flags of a descriptor.
pub mod flags {
    /// Starts only when all earlier descriptors of the context have completed.
    pub const FENCE: u8 = 1 << 0;
    /// Sends the context's interrupt when the descriptor has completed.
    pub const INTERRUPT: u8 = 1 << 1;
    /// Requests pages that are not present and waits for them. Without it the descriptor fails
    /// at the first such page, with the number of bytes done and the address.
    pub const BLOCK_ON_FAULT: u8 = 1 << 2;
    /// All flags that have a meaning.
    pub const ALL: u8 = FENCE | INTERRUPT | BLOCK_ON_FAULT;
}

/// Declares the operations once: the enumeration, and the table for manuals and tools.
macro_rules! operations {
    ($($(#[doc = $doc:literal])+ $name:ident = $value:literal, $key:literal;)+) => {
        /// What a descriptor asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Operation {
            $($(#[doc = $doc])+ $name = $value,)+
        }
        impl Operation {
            /// Every operation.
            pub const ALL: &'static [Operation] = &[$(Operation::$name,)+];

            /// The operation of a number in a descriptor.
            pub const fn from_u8(value: u8) -> Option<Operation> {
                match value {
                    $($value => Some(Operation::$name),)+
                    _ => None,
                }
            }
            /// Name in tools.
            pub const fn key(self) -> &'static str {
                match self {
                    $(Operation::$name => $key,)+
                }
            }
            /// The description, as in the manual.
            pub const fn doc(self) -> &'static str {
                match self {
                    $(Operation::$name => concat!($($doc),+),)+
                }
            }
        }
    };
}

operations! {
    /// Does nothing and completes. All fields but operation, flags and completion are 0.
    Nop = 0, "nop";
    /// Copies `length` bytes from `source` to `destination`; the ranges may overlap. Operands 0.
    Copy = 1, "copy";
    /// Writes the 8 bytes of `operand0`, little-endian, over and over to `destination`, `length`
    /// bytes. Source and `operand1` are 0.
    Fill = 2, "fill";
    /// Compares `length` bytes at `source` and `destination`. The result is the offset of the
    /// first byte that differs, or `length` if none does. Operands 0.
    Compare = 3, "compare";
    /// CRC-32C (Castagnoli) of `length` bytes at `source`, continued from the checksum in
    /// `operand0` bits 31:0 (0 to begin). The result is the checksum. Others 0.
    Crc32c = 4, "crc32c";
    /// Adds `operand0` to the 64-bit number at `destination`, aligned to 8 bytes, with one atomic
    /// access. The result is the number before. Others 0.
    FetchAdd = 5, "fetch_add";
    /// Follows a chain of nodes that starts at `source` and ends with a null pointer: adds up the
    /// 64-bit numbers at offset `operand1` of each node, and finds the next node's address at
    /// offset `operand0`. Nodes are aligned to 8 bytes, offsets are below 4096 and multiples of 8.
    /// `length` is the most nodes to visit. The result is the sum, wrapping. Destination 0.
    Chase = 6, "chase";
}

/// A descriptor as a value: the words, not yet judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Number of the [`Operation`].
    pub operation: u8,
    /// See [`flags`].
    pub flags: u8,
    /// Bytes 2 to 7, which are 0.
    pub reserved0: [u8; 6],
    /// Address of the completion record; 0 for none.
    pub completion: u64,
    /// Source address.
    pub source: u64,
    /// Destination address.
    pub destination: u64,
    /// Length in bytes.
    pub length: u64,
    /// First operand.
    pub operand0: u64,
    /// Second operand.
    pub operand1: u64,
    /// Bytes 56 to 63, which are 0.
    pub reserved1: u64,
}

impl Descriptor {
    /// The descriptor as it stands in memory, little-endian.
    pub fn to_bytes(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[OPERATION] = self.operation;
        bytes[FLAGS] = self.flags;
        bytes[2..8].copy_from_slice(&self.reserved0);
        let words = [
            self.completion,
            self.source,
            self.destination,
            self.length,
            self.operand0,
            self.operand1,
            self.reserved1,
        ];
        let mut at = COMPLETION;
        for word in words {
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
            at += 8;
        }
        bytes
    }

    /// The descriptor that stands in memory.
    pub fn from_bytes(bytes: &[u8; SIZE]) -> Self {
        let word = |at: usize| {
            let mut w = [0; 8];
            w.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(w)
        };
        let mut reserved0 = [0; 6];
        reserved0.copy_from_slice(&bytes[2..8]);
        Descriptor {
            operation: bytes[OPERATION],
            flags: bytes[FLAGS],
            reserved0,
            completion: word(COMPLETION),
            source: word(SOURCE),
            destination: word(DESTINATION),
            length: word(LENGTH),
            operand0: word(OPERAND0),
            operand1: word(OPERAND1),
            reserved1: word(56),
        }
    }
}
