// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the unit asks of its host. It never calls out: its methods append to a list of effects,
//! which the host carries out in order after it has let go of the unit.

use crate::spec::SourceId;
use crate::spec::descriptor::{ContextScope, IotlbScope, PasidScope};
use crate::spec::interrupt::Message;
use pcie_ats::{InvalidateRequest, PrgResponse};

/// Something that the host is to do: messages to functions and processors (sections 4.3, 5.1 and
/// 7.6.1), and notices of what has changed.
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
    /// The invalidation queue (section 6.5.2) can advance: call [`crate::Unit::process_queue`], now or later.
    QueueReady,
    /// DMA remapping was switched on or off (TES, section 11.4.4.2).
    TranslationEnabled(bool),
    /// Interrupt remapping was switched on or off (IRES, section 11.4.4.2).
    InterruptRemappingEnabled(bool),
    /// Cached translations or interrupts became invalid: for hosts that keep copies of them, for
    /// instance in an IOMMU below or in interrupt routes.
    Invalidated(Invalidated),
}

/// Which cached state became invalid (section 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidated {
    /// Context entries (section 6.5.2.1).
    Context(ContextScope),
    /// PASID table entries (section 6.5.2.2).
    Pasid(PasidScope),
    /// Translations (sections 6.5.2.3 and 6.5.2.4).
    Iotlb(IotlbScope),
    /// Interrupt remapping table entries: the first and log2 of how many; none for all.
    Interrupts(Option<(u16, u8)>),
}

/// A list of effects, in order. Not of the specification.
pub type Effects = Vec<Effect>;
