// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registers of BAR 0.
//!
//! All registers are 64 bits wide and little-endian. Software accesses them with aligned accesses
//! of 8 bytes, or of 4 bytes for either half; a write of one half does not change the other half.
//! Accesses of other sizes or alignments read as zero and write nothing. Reserved bits and offsets
//! read as zero and ignore writes.

/// How software may access a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterAccess {
    /// Read-only: writes are ignored.
    ReadOnly,
    /// A write gives a command; reads as zero.
    WriteOnly,
    /// Read and written at any time.
    ReadWrite,
    /// Read at any time; writes are ignored unless the context is in state `DISABLED`.
    WhileDisabled,
}

/// One register, for manuals and tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Name.
    pub name: &'static str,
    /// Offset in bytes from the start of its block.
    pub offset: u64,
    /// Access rule.
    pub access: RegisterAccess,
    /// Meaning.
    pub doc: &'static str,
}

/// Declares the registers of a block once: offsets by name, and the table.
macro_rules! block {
    ($(#[doc = $mdoc:literal])+ $module:ident, $table:ident;
     $($(#[doc = $doc:literal])+ $name:ident = $offset:literal, $access:ident;)+) => {
        $(#[doc = $mdoc])+
        pub mod $module {
            $($(#[doc = $doc])+ pub const $name: u64 = $offset;)+
        }
        $(#[doc = $mdoc])+
        pub const $table: &[Register] = &[
            $(Register {
                name: stringify!($name),
                offset: $offset,
                access: RegisterAccess::$access,
                doc: concat!($($doc),+),
            },)+
        ];
    };
}

/// Size of the register BAR in bytes.
pub const REGISTERS_SIZE: u64 = 0x2_0000;
/// Offset of the device's counter block.
pub const DEVICE_COUNTERS: u64 = 0x100;
/// Offset of the laboratory's registers.
pub const LABORATORY: u64 = 0x800;
/// Offset of the first context's register block.
pub const CONTEXTS: u64 = 0x1000;
/// Distance between the register blocks of two contexts, in bytes.
pub const CONTEXT_STRIDE: u64 = 0x100;
/// Offset of a context's counter block from the start of its register block.
pub const CONTEXT_COUNTERS: u64 = 0x80;

block! {
    /// Registers of the device as a whole, from offset 0.
    device, DEVICE_REGISTERS;
    /// Magic number `0x53564d44` in 63:32, version of this interface in 15:0.
    IDENT = 0x00, ReadOnly;
    /// Number of contexts 15:0; MSI-X vectors 31:16; log2 of the largest ring 39:32; log2 of the
    /// longest transfer 47:40; log2 of the longest batch 55:48; laboratory present 63.
    CAPABILITIES = 0x08, ReadOnly;
    /// Bit n is 1 if the device performs operation n.
    OPERATIONS = 0x10, ReadOnly;
    /// Entries of the address translation cache 31:0; page request capacity 63:32.
    RESOURCES = 0x18, ReadOnly;
    /// What the function's configuration permits: bus master 0, ATS enabled 1, PRI enabled 2,
    /// PASID enabled 3, requests for execution enabled 4, for privileged mode 5.
    FUNCTION = 0x20, ReadOnly;
}

block! {
    /// Registers of one context, from `CONTEXTS + n * CONTEXT_STRIDE`.
    context, CONTEXT_REGISTERS;
    /// Command: 1 START, 2 STOP. Other commands are ignored, and so are commands that the state
    /// forbids.
    CONTROL = 0x00, WriteOnly;
    /// State 7:0 (0 DISABLED, 1 ENABLED, 2 STOPPING, 3 HALTED); reason of the halt 15:8.
    STATUS = 0x08, ReadOnly;
    /// Address space of the ring, the descriptors, the completion records and the data: PASID
    /// 19:0, none 29, privileged 30, valid 31. A write also clears the counters, `HEAD`, `TAIL` and
    /// `MODERATION`, so that the next process does not see them. Requests of a privileged context
    /// ask for privileged mode: such a context is for the owner of the machine, and never for a
    /// process. It starts only while such requests are enabled. Requests of a context with bit 29
    /// set have no PASID, and bits 31 and 30 must be 0: its address space is that of the function
    /// itself, as the owner of the machine maps it. Such a context requests no pages, and works
    /// while PASID is not enabled.
    PASID = 0x10, WhileDisabled;
    /// Virtual address of the submission ring, aligned to 64 bytes.
    RING = 0x18, WhileDisabled;
    /// Log2 of the number of descriptors in the ring, 0 to `ring_log2_max`.
    RING_LOG2 = 0x20, WhileDisabled;
    /// MSI-X vector of the context's interrupts 15:0, enabled 31.
    VECTOR = 0x28, ReadWrite;
    /// Descriptors consumed since the start of the context; 0 after a write of `PASID`.
    HEAD = 0x30, ReadOnly;
    /// Descriptors submitted since the start of the context, as written to the doorbell; 0 after a
    /// write of `PASID`.
    TAIL = 0x38, ReadOnly;
    /// Moderation of the context's interrupts: number of completions 15:0, microseconds 63:32.
    /// The device counts completions that ask for an interrupt, and sends one interrupt for all of
    /// them when the number is reached, or when the time has passed since the first of them, by the
    /// clock of the host, which may be late. Number 0 or 1: no moderation, the device sends each
    /// completion's interrupt at once. Time 0: no time limit, only the number. A write sends a
    /// pending interrupt at once and restarts the count. STOP and a reset drop it; the interrupt of
    /// a halt is always sent at once. The register keeps its value over STOP and START; it is 0
    /// after a reset and after a write of `PASID`.
    MODERATION = 0x40, ReadWrite;
    /// The last completion record that the device could not write: the reason, as the error of a
    /// record, 7:0 (`Misaligned` if its address was not aligned to 32 bytes), and the number of its
    /// descriptor since the start 63:8. 0 if no record was lost. Cleared with the counters.
    LOST = 0x48, ReadOnly;
}

block! {
    /// Laboratory: raw requests of the function, for tests of the IOMMU and the root complex.
    /// Present only if the device was created with its laboratory on; reads as zero otherwise.
    laboratory, LABORATORY_REGISTERS;
    /// Address of the request.
    ADDRESS = 0x00, ReadWrite;
    /// PASID 19:0, PASID present 31, privileged mode 32, execute 33, no write 34, read 35,
    /// write 36, last request of the group 37, group index 56:48.
    ATTRIBUTES = 0x08, ReadWrite;
    /// Data of an 8-byte read or write.
    DATA = 0x10, ReadWrite;
    /// Starts a request when it is IDLE: 1 translation request, 2 page request, 3 untranslated
    /// read, 4 untranslated write, 5 translated read, 6 translated write, 7 untranslated
    /// zero-length read, 8 translated zero-length read.
    COMMAND = 0x18, WriteOnly;
    /// 0 IDLE, 1 busy, 2 done, 3 refused or failed. Reason of the failure 15:8, as the error of a
    /// completion record: BadOperation for an unknown command, NotPresent if the state of the
    /// function, the credits or a group index in use forbid the request, PageFault and
    /// ResponseFailure for such responses, UnsupportedRequest, CompleterAbort and
    /// CompletionTimeout for such completions, MemoryAccess if memory refused. A write of any value
    /// sets it to 0 if it is 2 or 3.
    STATE = 0x20, ReadWrite;
    /// Translated address of a translation completion.
    TRANSLATED = 0x28, ReadOnly;
    /// Size of the translation as log2 of bytes 7:0; read 8, write 9, execute 10, privileged 11,
    /// global 12, untranslated only 13.
    COMPLETION = 0x30, ReadOnly;
    /// Number of the rule of the conformance table that the device breaks from now on, 0 for none:
    /// a mutant, so that a test can prove that it notices. The device ignores numbers for which it
    /// has no mutant. Kept over a function level reset.
    MUTANT = 0x38, ReadWrite;
    /// Number of reads of a context's `STATUS` in BAR 0 (not in the doorbell pages) that return all
    /// ones, beginning with the next STOP of a context that is not DISABLED. A function in reset
    /// reads the same; a test checks how a driver reacts. Counts down. Kept over a function level
    /// reset.
    SILENCE = 0x40, ReadWrite;
    /// 1 while the device has something to do by itself, 0 when it rests until something comes down
    /// to it or time passes.
    WORK = 0x48, ReadOnly;
    /// How many requests the function has sent since power-up: see `SENT_WHAT`.
    SENT = 0x50, ReadOnly;
    /// Number, from 0 on, of the request that the next three registers show. The last 1024 are kept;
    /// of others they are 0.
    SENT_NUMBER = 0x58, ReadWrite;
    /// A request that was sent: its kind 63:60, as in `COMMAND`, or 9 untranslated atomic operation,
    /// 11 translated atomic operation, 15 interrupt; the rest as in `ATTRIBUTES`.
    SENT_WHAT = 0x60, ReadOnly;
    /// Address of that request; of an interrupt, its vector.
    SENT_ADDRESS = 0x68, ReadOnly;
    /// Length of that request: bytes of an access, pages of a translation request.
    SENT_LENGTH = 0x70, ReadOnly;
}

/// Bits of the laboratory's `ATTRIBUTES`.
pub mod attributes {
    /// Mask of the PASID.
    pub const PASID: u64 = 0xf_ffff;
    /// The request has the PASID.
    pub const PASID_PRESENT: u64 = 1 << 31;
    /// Privileged Mode Requested.
    pub const PRIVILEGED: u64 = 1 << 32;
    /// Execute Requested.
    pub const EXECUTE: u64 = 1 << 33;
    /// No Write.
    pub const NO_WRITE: u64 = 1 << 34;
    /// The page will be read.
    pub const READ: u64 = 1 << 35;
    /// The page will be written.
    pub const WRITE: u64 = 1 << 36;
    /// Last Request In Group.
    pub const LAST: u64 = 1 << 37;
    /// Lowest bit of the group index.
    pub const GROUP_SHIFT: u32 = 48;
    /// Mask of the group index.
    pub const GROUP: u64 = 0x1ff << GROUP_SHIFT;
    /// Every bit that has a meaning.
    pub const ALL: u64 =
        PASID | PASID_PRESENT | PRIVILEGED | EXECUTE | NO_WRITE | READ | WRITE | LAST | GROUP;
}

/// Values of the laboratory's `COMMAND`.
pub mod command {
    /// A translation request.
    pub const TRANSLATE: u64 = 1;
    /// A page request.
    pub const PAGE_REQUEST: u64 = 2;
    /// An untranslated read of 8 bytes.
    pub const UNTRANSLATED_READ: u64 = 3;
    /// An untranslated write of 8 bytes.
    pub const UNTRANSLATED_WRITE: u64 = 4;
    /// A translated read of 8 bytes.
    pub const TRANSLATED_READ: u64 = 5;
    /// A translated write of 8 bytes.
    pub const TRANSLATED_WRITE: u64 = 6;
    /// An untranslated zero-length read.
    pub const UNTRANSLATED_PROBE: u64 = 7;
    /// A translated zero-length read.
    pub const TRANSLATED_PROBE: u64 = 8;
}

/// Fields and values of the laboratory's `SENT_WHAT`.
pub mod sent {
    /// Lowest bit of the kind.
    pub const KIND_SHIFT: u32 = 60;
    /// An untranslated atomic operation.
    pub const UNTRANSLATED_ATOMIC: u64 = 9;
    /// An atomic operation with a translated address.
    pub const TRANSLATED_ATOMIC: u64 = 11;
    /// An interrupt.
    pub const INTERRUPT: u64 = 15;
}

/// Offset of a register block of context `n` in the register BAR.
pub const fn context_block(n: u16) -> u64 {
    CONTEXTS + n as u64 * CONTEXT_STRIDE
}

/// Bits of `CAPABILITIES`.
pub mod capabilities {
    /// The laboratory is present.
    pub const LABORATORY: u64 = 1 << 63;

    /// The register's value.
    pub const fn encode(
        contexts: u16,
        vectors: u16,
        ring_log2: u8,
        transfer_log2: u8,
        batch_log2: u8,
    ) -> u64 {
        contexts as u64
            | (vectors as u64) << 16
            | (ring_log2 as u64) << 32
            | (transfer_log2 as u64) << 40
            | ((batch_log2 & 0x7f) as u64) << 48
    }
    /// Number of contexts.
    pub const fn contexts(value: u64) -> u16 {
        value as u16
    }
    /// Number of MSI-X vectors.
    pub const fn vectors(value: u64) -> u16 {
        (value >> 16) as u16
    }
    /// Log2 of the largest ring.
    pub const fn ring_log2(value: u64) -> u8 {
        (value >> 32) as u8
    }
    /// Log2 of the longest transfer in bytes.
    pub const fn transfer_log2(value: u64) -> u8 {
        (value >> 40) as u8
    }
    /// Log2 of the longest batch; meaningless if the device performs no batches.
    pub const fn batch_log2(value: u64) -> u8 {
        (value >> 48) as u8 & 0x7f
    }
}

/// Bits of `FUNCTION`.
pub mod function {
    /// Command register: bus master enable.
    pub const BUS_MASTER: u64 = 1 << 0;
    /// ATS control register: enable.
    pub const ATS: u64 = 1 << 1;
    /// PRI control register: enable.
    pub const PRI: u64 = 1 << 2;
    /// PASID control register: enable.
    pub const PASID: u64 = 1 << 3;
    /// PASID control register: execute permission enable.
    pub const EXECUTE: u64 = 1 << 4;
    /// PASID control register: privileged mode enable.
    pub const PRIVILEGED: u64 = 1 << 5;
}

/// Commands of a context's `CONTROL` register.
pub mod control {
    /// From DISABLED to ENABLED: reads `PASID`, `RING` and `RING_LOG2`, clears the counters, head
    /// and tail. Halts at once with an error if a register is wrong.
    pub const START: u64 = 1;
    /// From any state to STOPPING, and to DISABLED as soon as no page request of the context is
    /// outstanding. Descriptors in progress are abandoned without a completion record, but an
    /// access in flight ends first, even if it writes the record.
    pub const STOP: u64 = 2;
}

/// Bits of a context's `STATUS` register.
pub mod status {
    /// Accepts no work; registers may be written.
    pub const DISABLED: u8 = 0;
    /// Works on its ring.
    pub const ENABLED: u8 = 1;
    /// Waits for the responses to its page requests.
    pub const STOPPING: u8 = 2;
    /// Has met an error that does not belong to one descriptor; only STOP leads out of this state.
    pub const HALTED: u8 = 3;

    /// State.
    pub const fn state(value: u64) -> u8 {
        value as u8
    }
    /// Why the context halted: see [`super::halt`].
    pub const fn error(value: u64) -> u8 {
        (value >> 8) as u8
    }
    /// The register's value.
    pub const fn encode(state: u8, error: u8) -> u64 {
        state as u64 | (error as u64) << 8
    }
}

/// Why a context halted.
pub mod halt {
    /// It did not halt.
    pub const NONE: u8 = 0;
    /// Started without a valid PASID and without `NONE`, with both, with a PASID that is wider than
    /// the function's PASIDs, or as privileged while the function may not request privileged mode.
    pub const BAD_PASID: u8 = 1;
    /// Started with a ring that is not aligned, too large, or wraps round the address space.
    pub const BAD_RING: u8 = 2;
    /// The doorbell ran more than one ring ahead of the head, or backwards.
    pub const BAD_DOORBELL: u8 = 3;
    /// The ring could not be read at the head.
    pub const RING_FAULT: u8 = 4;
    /// The function lost bus mastering, ATS or PASID while the context was working.
    pub const FUNCTION_DISABLED: u8 = 5;
}

/// Bits of `PASID`.
pub mod pasid {
    /// Requests have no PASID.
    pub const NONE: u64 = 1 << 29;
    /// Requests ask for privileged mode.
    pub const PRIVILEGED: u64 = 1 << 30;
    /// The PASID is valid.
    pub const VALID: u64 = 1 << 31;
    /// Mask of the PASID.
    pub const MASK: u64 = 0xf_ffff;
}

/// Bits of `VECTOR`.
pub mod vector {
    /// Interrupts are sent.
    pub const ENABLE: u64 = 1 << 31;
    /// Mask of the vector.
    pub const MASK: u64 = 0xffff;
}

/// Bits of `LOST`.
pub mod lost {
    /// The register's value from the number of the error and the number of the descriptor.
    pub const fn encode(error: u8, descriptor: u64) -> u64 {
        error as u64 | descriptor << 8
    }
    /// Number of the error; 0 if no record was lost.
    pub const fn error(value: u64) -> u8 {
        value as u8
    }
    /// Number of the descriptor since the start; for an entry of a batch, the number of the batch.
    pub const fn descriptor(value: u64) -> u64 {
        value >> 8
    }
}

/// Bits of `MODERATION`.
pub mod moderation {
    /// Every bit that has a meaning.
    pub const ALL: u64 = 0xffff_ffff_0000_ffff;

    /// The register's value: completions, and microseconds.
    pub const fn encode(completions: u16, microseconds: u32) -> u64 {
        completions as u64 | (microseconds as u64) << 32
    }
    /// Completions of one interrupt; 0 and 1 for no moderation.
    pub const fn completions(value: u64) -> u16 {
        value as u16
    }
    /// The longest delay of a completion's interrupt, in microseconds; 0 means no limit.
    pub const fn microseconds(value: u64) -> u32 {
        (value >> 32) as u32
    }
}
