// SPDX-License-Identifier: MIT OR Apache-2.0
//! The unit's requests to its host. The unit never calls out: its methods append to a list of
//! effects, which the host carries out in order after it has released the unit.

use crate::spec::SourceId;
use crate::spec::context::{ContextEntry, ScalableContextEntry};
use crate::spec::descriptor::{ContextScope, IotlbScope, PasidScope, QueueError, Wrong};
use crate::spec::fault::FaultReason;
use crate::spec::interrupt::Message;
use crate::spec::invalidation::Fields;
use crate::spec::pasid::{PasidDirectoryEntry, PasidEntry};
use crate::spec::register::{ContextCommand, IotlbCommand};
use crate::spec::root::{RootEntry, ScalableRootHalf};
use crate::spec::virtual_command::Command as VirtualCommand;
use pcie_ats::{InvalidateRequest, PrgResponse};
use std::fmt::Debug;

/// Work for the host: messages to functions and processors (sections 4.3, 5.1 and
/// 7.6.1), and notifications of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send an interrupt of the unit itself; it is not subject to remapping (section 5.1).
    Interrupt(Message),
    /// Send an invalidation request to a function. The host reports its completions to
    /// [`crate::Unit::invalidate_completion`].
    InvalidateRequest {
        /// The function.
        requester: SourceId,
        /// The request.
        request: InvalidateRequest,
    },
    /// Send a page request group response to a function.
    PrgResponse {
        /// The function.
        requester: SourceId,
        /// The response.
        response: PrgResponse,
    },
    /// The invalidation queue (section 6.5.2) can advance: call [`crate::Unit::process_queue`], now
    /// or later.
    QueueReady,
    /// DMA remapping was switched on or off (TES, section 11.4.4.2).
    TranslationEnabled(bool),
    /// Interrupt remapping was switched on or off (IRES, section 11.4.4.2).
    InterruptRemappingEnabled(bool),
    /// Cached translations or interrupts became invalid: for hosts that keep copies of them, for
    /// instance in a physical IOMMU or in interrupt routes.
    Invalidated(Invalidated),
    /// Software gave a virtual command (section 11.4). The host ends it by
    /// [`crate::Unit::virtual_command_ended`], now or later.
    VirtualCommand(VirtualCommand),
    /// The unit refused something that software or a function requested: for hosts that log it.
    /// Blocked requests are not reported here, because their callers get an error; but a wrong
    /// entry that blocked one is.
    Refused(Refusal),
}

/// What was refused, and why (sections 6.5.2.11 and 11.2). It prints as one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The invalidation queue stopped at a descriptor, with IQE (section 6.5.2.11).
    Descriptor {
        /// IQH_REG: the offset of the descriptor in the queue.
        head: u64,
        /// The words of the descriptor; zeros if it was not fetched.
        words: [u64; 4],
        /// IQEI.
        error: QueueError,
        /// What was wrong.
        wrong: Wrong,
    },
    /// A request was blocked because of an invalid table entry (table 30). The fault is recorded.
    Entry {
        /// The function.
        requester: SourceId,
        /// The reason, which tells the kind of the entry.
        reason: FaultReason,
        /// What was wrong.
        wrong: Wrong,
    },
    /// A register-based context-cache invalidation: the written CCMD_REG (section 11.4.6.1).
    ContextCommand(ContextCommand),
    /// A register-based IOTLB invalidation: the written IOTLB_REG (section 11.4.6.3).
    IotlbCommand(IotlbCommand),
    /// A function completed an invalidation request that was not pending; this sets ICE (section
    /// 4.3).
    Completion {
        /// The function.
        requester: SourceId,
        /// The tags of its message.
        itag_vector: u32,
    },
    /// A register access other than 4 or 8 bytes at an aligned offset (section 11.2).
    RegisterWrite {
        /// The offset.
        offset: u16,
        /// Number of bytes.
        size: u8,
    },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Descriptor {
                head,
                words: [w0, w1, w2, w3],
                error,
                wrong,
            } => {
                let (fields, iqei) = (Fields([*w0, *w1]), *error as u8);
                write!(
                    f,
                    "the invalidation queue stopped at offset {head:#x}, descriptor \
                     {w0:#x} {w1:#x} {w2:#x} {w3:#x} ({fields:?}): {wrong} (IQEI {iqei}); \
                     correct it and clear IQE"
                )
            }
            Refusal::Entry {
                requester,
                reason,
                wrong,
            } => {
                let condition = reason.condition();
                write!(
                    f,
                    "a request of function {requester} was blocked ({condition}): "
                )?;
                entry(f, *reason, *wrong)
            }
            Refusal::ContextCommand(value) => write!(
                f,
                "the context-cache invalidation {value:?} by CCMD_REG was refused (CAIG 0): it \
                 needs legacy mode, a queue that is off, and a granularity of 1 to 3"
            ),
            Refusal::IotlbCommand(value) => write!(
                f,
                "the IOTLB invalidation {value:?} by IOTLB_REG was refused (IAIG 0): it needs \
                 legacy mode, a queue that is off, a granularity of 1 to 3 and a mask of at most \
                 MAMV"
            ),
            Refusal::Completion {
                requester,
                itag_vector,
            } => write!(
                f,
                "function {requester} completed invalidation requests {itag_vector:#x}, of which \
                 some are not pending (ICE)"
            ),
            Refusal::RegisterWrite { offset, size } => write!(
                f,
                "a write of {size} bytes at register offset {offset:#x} was ignored: write 4 or 8 \
                 bytes at an offset that is a multiple of them"
            ),
        }
    }
}

/// Describes the error in the entry of a fault reason: reserved bits with the names of their
/// fields, which belong to features that the unit does not have.
fn entry(f: &mut std::fmt::Formatter<'_>, reason: FaultReason, wrong: Wrong) -> std::fmt::Result {
    use FaultReason as R;
    let (word, bits) = match wrong {
        Wrong::Reserved { word, bits } => (usize::from(word), bits),
        Wrong::Field(name) => {
            return write!(f, "not valid: {name}");
        }
    };
    f.write_str("reserved bits are set: ")?;
    match reason {
        R::RootEntryReserved => RootEntry(only(word, bits)).fmt(f),
        R::ContextEntryReserved => ContextEntry(only(word, bits)).fmt(f),
        R::ScalableRootEntryReserved => ScalableRootHalf(bits).fmt(f),
        R::ScalableContextEntryReserved => ScalableContextEntry(only(word, bits)).fmt(f),
        R::PasidDirectoryReserved => PasidDirectoryEntry(bits).fmt(f),
        R::PasidEntryReserved => PasidEntry(only(word, bits)).fmt(f),
        _ => write!(f, "{bits:#x} of word {word}"),
    }
}

/// Words, one of which has bits.
fn only<const N: usize>(word: usize, bits: u64) -> [u64; N] {
    std::array::from_fn(|n| if n == word { bits } else { 0 })
}

/// Which cached state became invalid (section 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidated {
    /// Context entries (section 6.5.2.1).
    Context(ContextScope),
    /// PASID table entries (section 6.5.2.2).
    Pasid(PasidScope),
    /// Translations (sections 6.5.2.3 and 6.5.2.4).
    Iotlb {
        /// Which ones.
        scope: IotlbScope,
        /// IH: software has changed leaf entries only (section 6.5.2.4). A hint: a cache
        /// of upper entries may keep them.
        leaf_only: bool,
    },
    /// Interrupt remapping table entries: the first and log2 of their number; none for all.
    Interrupts(Option<(u16, u8)>),
}

/// A list of effects, in order. Not of the specification.
pub type Effects = Vec<Effect>;
