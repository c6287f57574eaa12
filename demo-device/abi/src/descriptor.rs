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
    /// Starts only when all earlier descriptors of the context have completed: their data and
    /// records are in memory. A context works on one descriptor after another, so today this holds
    /// for every descriptor; without the flag it is not guaranteed. In a batch it means more: see
    /// [`super::batch`].
    pub const FENCE: u8 = 1 << 0;
    /// Sends the context's interrupt when the descriptor has completed.
    pub const INTERRUPT: u8 = 1 << 1;
    /// Requests pages that are not present and waits for them. Without it the descriptor fails at
    /// the first such page; its record has the number of bytes done and the address.
    pub const BLOCK_ON_FAULT: u8 = 1 << 2;
    /// All flags that have a meaning.
    pub const ALL: u8 = FENCE | INTERRUPT | BLOCK_ON_FAULT;
}

/// Entries of the list of `GATHER`: 16 bytes each.
pub mod gather {
    /// Size of an entry in bytes, and alignment of the list.
    pub const ENTRY_SIZE: u64 = 16;
    /// Offset of the address in an entry, 64 bits.
    pub const ADDRESS: usize = 0;
    /// Offset of the number of bytes in an entry, 64 bits; may be 0.
    pub const LENGTH: usize = 8;
    /// The largest number of entries of a list.
    pub const MAX_ENTRIES: u64 = 1 << 16;
}

/// The array of `BATCH`: descriptors of the same form as those of the ring, each with a record, an
/// interrupt and flags of its own.
///
/// The device performs them in order, as if they were in the ring, with two differences. An entry
/// that is a batch itself fails with `NestedBatch`. The device starts an entry with the flag
/// `FENCE` only if no earlier entry of the batch has failed: otherwise the batch ends before it,
/// and the device does not perform the remaining entries and writes no records for them. Without
/// fences a failure does not stop the batch.
///
/// The device may read entries long before it performs them, and more than once: the process must
/// not change them before the batch has completed.
pub mod batch {
    /// Alignment of the array in bytes.
    pub const ALIGNMENT: u64 = super::SIZE as u64;
    /// The largest number of entries of a batch.
    pub const MAX_ENTRIES: u64 = 1 << super::super::ids::MAX_BATCH_LOG2;
}

/// The result of `TRANSLATE`. Bits 63:12 have the translated address only if the device has its
/// laboratory, and are 0 otherwise: processes must not learn physical addresses.
pub mod translation {
    /// Mask of log2 of the size of the translation in bytes.
    pub const SIZE: u64 = 0x7f;
    /// Reads are permitted.
    pub const READ: u64 = 1 << 7;
    /// Writes are permitted.
    pub const WRITE: u64 = 1 << 8;
    /// To be reached by untranslated requests only.
    pub const UNTRANSLATED_ONLY: u64 = 1 << 9;
    /// The same in every address space of the function.
    pub const GLOBAL: u64 = 1 << 10;
    /// Execution is permitted; set only if it was requested.
    pub const EXECUTE: u64 = 1 << 11;
    /// Mask of the translated address.
    pub const ADDRESS: u64 = !0xfff;
}

/// Bits of `operand0`.
pub mod operand {
    /// `PREFETCH` and `TRANSLATE`: requests write permission.
    pub const WRITE: u64 = 1 << 0;
    /// `TRANSLATE`: requests the permission to execute.
    pub const EXECUTE: u64 = 1 << 1;
    /// `CACHE_CONTROL`: applies to the whole address space.
    pub const ALL: u64 = 1 << 0;
}

/// Declares the operations once: the enumeration, and the table for manuals and tools.
macro_rules! operations {
    ($($(#[doc = $doc:literal])+ $name:ident = $value:literal, $key:literal;)+) => {
        /// The operation of a descriptor.
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
    /// Fills `length` bytes at `destination` with copies of the 8 bytes of `operand0`,
    /// little-endian. Source and `operand1` are 0.
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
    /// Follows a chain of nodes that starts at `source` and ends with a null pointer: sums the
    /// 64-bit numbers at offset `operand1` of each node, and reads the next node's address at
    /// offset `operand0`. Nodes are aligned to 8 bytes, offsets are below 4096 and multiples of 8.
    /// `length` is the largest number of nodes to visit. The result is the sum, wrapping.
    /// Destination 0. A null node ends the chain before its offsets are used; a node whose 4096
    /// bytes would wrap round the address space fails with `BadLength`.
    Chase = 6, "chase";
    /// Completes when all earlier descriptors of the context have completed and their data and
    /// records are in memory. All fields but operation, flags and completion are 0.
    Drain = 7, "drain";
    /// Writes `operand1` to the 64-bit number at `destination`, aligned to 8 bytes, if the number
    /// is `operand0`, with one atomic access. The result is the number before. Others 0.
    CompareSwap = 8, "compare_swap";
    /// Copies the ranges of a list to `destination`, one after another. The list is at `source`,
    /// aligned to 16 bytes, and has `length` entries, at most 65536, of an address and a number of
    /// bytes (see `gather`). It writes at most `operand0` bytes: an entry that exceeds this fails
    /// with `BadLength`. The result is the number of bytes, and so is `bytes_done`. The destination
    /// must not overlap the list or the ranges. `operand1` is 0.
    Gather = 9, "gather";
    /// Translates `length` bytes at `source` into the address translation cache, and with
    /// `BLOCK_ON_FAULT` requests the pages that are not present, but moves no data. Bit 0 of
    /// `operand0` asks for write permission. Others 0.
    Prefetch = 10, "prefetch";
    /// Requests the translation of the page at `source`, bypassing the cache, and returns the
    /// answer (see `translation`). It sends no page request. Bit 0 of `operand0` asks for write
    /// permission; without it the request has No Write set. Bit 1 asks for the permission to
    /// execute; this fails with `UnsupportedAccess` while the function may not request it. Others
    /// 0.
    Translate = 11, "translate";
    /// Drops the translations of `length` bytes at `source` that the device has cached for the
    /// context's address space; with bit 0 of `operand0`, all of them (then source and length are
    /// 0). The result is the number of entries dropped. Others 0. It affects only performance.
    CacheControl = 12, "cache_control";
    /// Performs the `length` descriptors, at most 1024, of the array at `source`, aligned to 64
    /// bytes, one after another (see `batch`). The record of the batch follows those of its
    /// entries. The batch succeeds if all entries do, and fails with `EntryFailed` otherwise, with
    /// the address of the first that failed. If the device cannot read the array, the batch fails
    /// for that reason at the unreadable entry; `BLOCK_ON_FAULT` of the batch applies to the array
    /// only. In all cases the result is the number of entries that succeeded, and `bytes_done` is
    /// the number of entries that were performed. Others 0.
    Batch = 13, "batch";
}

/// A descriptor as a value: its fields, not validated.
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
    /// The descriptor as stored in memory, little-endian.
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

    /// The descriptor from its bytes in memory.
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
