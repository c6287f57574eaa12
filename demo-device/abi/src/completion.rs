// SPDX-License-Identifier: MIT OR Apache-2.0
//! The completion record: 32 bytes that the device writes to the address in the descriptor, aligned
//! to 32 bytes.
//!
//! The process sets the status to 0 before it submits. The device writes bytes 8 to 31 first and
//! bytes 0 to 7 last, in one access: when the status is not 0, the record and all data of the
//! operation are in memory.

/// Size of a record in bytes, and its alignment.
pub const SIZE: usize = 32;

/// Offset of the status, 8 bits.
pub const STATUS: usize = 0;
/// Offset of the error, 8 bits: see [`Error`].
pub const ERROR: usize = 1;
/// Offset of the access that failed, 8 bits: see [`access`].
pub const ACCESS: usize = 2;
/// Offset of the number of bytes processed before the operation ended, 64 bits. For `CHASE`, the
/// number of nodes; for `BATCH`, the number of descriptors.
pub const BYTES_DONE: usize = 8;
/// Offset of the virtual address whose access failed, 64 bits; 0 if none did.
pub const FAULT_ADDRESS: usize = 16;
/// Offset of the operation's result, 64 bits; 0 if it failed, except for `BATCH`.
pub const RESULT: usize = 24;

/// Values of the status.
pub mod status {
    /// The device has not finished. The process writes this value, never the device.
    pub const PENDING: u8 = 0;
    /// The operation succeeded.
    pub const SUCCESS: u8 = 1;
    /// The operation failed: the error says why.
    pub const FAILURE: u8 = 2;
}

/// Bits of the access that failed.
pub mod access {
    /// The access was a write.
    pub const WRITE: u8 = 1 << 0;
}

/// Declares the errors once: the enumeration, and the table for manuals and messages.
macro_rules! errors {
    ($($(#[doc = $doc:literal])+ $name:ident = $value:literal, $text:literal;)+) => {
        /// Why a descriptor failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Error {
            $($(#[doc = $doc])+ $name = $value,)+
        }
        impl Error {
            /// Every error.
            pub const ALL: &'static [Error] = &[$(Error::$name,)+];

            /// The error of a number in a record.
            pub const fn from_u8(value: u8) -> Option<Error> {
                match value {
                    $($value => Some(Error::$name),)+
                    _ => None,
                }
            }
            /// One sentence for people.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Error::$name => $text,)+
                }
            }
            /// The long description, as in the manual.
            pub const fn doc(self) -> &'static str {
                match self {
                    $(Error::$name => concat!($($doc),+),)+
                }
            }
        }
    };
}

errors! {
    /// The operation is not one that the device performs.
    BadOperation = 1, "unknown operation";
    /// A flag or a reserved field of the descriptor is set.
    Reserved = 2, "a reserved bit of the descriptor is set";
    /// An address or a length is not aligned as the operation demands.
    Misaligned = 3, "an address is not aligned as the operation demands";
    /// The length is longer than the longest transfer, or a range wraps round the address space.
    BadLength = 4, "the length is too long, or the range wraps round the address space";
    /// The response to the page request was "invalid request": the process has no such mapping, or
    /// not with this permission (PCIe 10.4.2).
    PageFault = 5, "the address is not mapped with the permission that the access needs";
    /// The response to the page request was "response failure", and page requests stay off until
    /// software enables them again (PCIe 10.4.2).
    ResponseFailure = 6, "the page request interface failed";
    /// The page was still not accessible after the device's limit of successful page requests for
    /// one access.
    RetriesExhausted = 7, "the page was gone again after every page request";
    /// The page is not present, and page requests are disabled, not accepted, or not requested by
    /// the descriptor (`BLOCK_ON_FAULT` clear).
    NotPresent = 8, "the page is not present and no page request was possible or wanted";
    /// A translation request was completed with Unsupported Request (PCIe 10.2.3).
    UnsupportedRequest = 9, "translation requests are not permitted here";
    /// A translation request was completed with Completer Abort (PCIe 10.2.3).
    CompleterAbort = 10, "the translation agent failed";
    /// A memory access with a translated address was refused.
    MemoryAccess = 11, "memory refused a translated access";
    /// The chain of `CHASE` is longer than the descriptor allows.
    ChainTooLong = 12, "the chain is longer than allowed";
    /// No process can have this address: it is not canonical.
    BadAddress = 13, "the address cannot belong to a process";
    /// A translation request was not completed in time (completion time-out, PCIe 2.8).
    CompletionTimeout = 14, "no answer came to a translation request";
    /// A page request got no response in time, or the device cannot send one because earlier ones
    /// never got a response.
    ResponseTimeout = 15, "no answer came to a page request";
    /// The root complex cannot carry the request, or the function may not send it: an atomic
    /// operation that the root complex lacks, or a request for the permission to execute while
    /// Execute Permission Enable is off (PCIe 7.8.9.3).
    UnsupportedAccess = 16, "the memory does not know this kind of access";
    /// A descriptor of the batch failed; its own record gives the reason. The fault address is the
    /// address of the descriptor in the array.
    EntryFailed = 17, "a descriptor of the batch failed";
    /// A descriptor of a batch is a batch itself.
    NestedBatch = 18, "a batch cannot hold another batch";
}

/// A completion record as a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// See [`status`].
    pub status: u8,
    /// Number of the [`Error`]; 0 if there is none.
    pub error: u8,
    /// See [`access`].
    pub access: u8,
    /// Bytes processed.
    pub bytes_done: u64,
    /// Virtual address whose access failed.
    pub fault_address: u64,
    /// Result of the operation.
    pub result: u64,
}

impl Completion {
    /// The record as stored in memory, little-endian.
    pub fn to_bytes(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[STATUS] = self.status;
        bytes[ERROR] = self.error;
        bytes[ACCESS] = self.access;
        bytes[BYTES_DONE..BYTES_DONE + 8].copy_from_slice(&self.bytes_done.to_le_bytes());
        bytes[FAULT_ADDRESS..FAULT_ADDRESS + 8].copy_from_slice(&self.fault_address.to_le_bytes());
        bytes[RESULT..RESULT + 8].copy_from_slice(&self.result.to_le_bytes());
        bytes
    }

    /// The record from its bytes in memory.
    pub fn from_bytes(bytes: &[u8; SIZE]) -> Self {
        let word = |at: usize| {
            let mut w = [0; 8];
            w.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(w)
        };
        Completion {
            status: bytes[STATUS],
            error: bytes[ERROR],
            access: bytes[ACCESS],
            bytes_done: word(BYTES_DONE),
            fault_address: word(FAULT_ADDRESS),
            result: word(RESULT),
        }
    }
}
