// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a unit consists of.

use super::groups::Groups;
use super::waits::Waits;
use crate::cache::{ContextCache, InterruptEntryCache, Iotlb, SpaceCache};
use crate::capabilities::Capabilities;
use crate::device_tlb::DeviceTlb;
use crate::in_flight::InFlight;
use crate::registers::Registers;
use crate::spec::register::{InterruptRemappingTableAddress, RootTableAddress};
use crate::turn::Turns;

/// Counters of what the unit did. Not of the specification, which has its performance monitoring
/// for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were translated from the IOTLB.
    pub iotlb_hits: u64,
    /// Requests that needed a page walk.
    pub page_walks: u64,
    /// Descriptors of the invalidation queue that were processed.
    pub descriptors: u64,
    /// Page requests that were put into the queue.
    pub page_requests: u64,
    /// Page requests that were answered or dropped by the unit itself.
    pub page_requests_refused: u64,
    /// Page group responses for a group that was not outstanding. They are sent all the same:
    /// the function decides about them (PCIe 10.4.2.2).
    pub unexpected_responses: u64,
    /// Invalidation requests that timed out.
    pub invalidation_timeouts: u64,
    /// Status writes of wait descriptors that met no memory.
    pub lost_status_writes: u64,
}

/// A remapping unit: the hardware of chapters 3 to 7, as software sees it by chapter 11.
#[derive(Debug)]
pub struct Unit {
    pub(super) caps: Capabilities,
    pub(super) registers: Registers,
    /// RTADDR_REG as it was at the last SRTP.
    pub(super) rtaddr: RootTableAddress,
    /// IRTA_REG as it was at the last SIRTP.
    pub(super) irta: InterruptRemappingTableAddress,
    pub(super) contexts: ContextCache,
    pub(super) spaces: SpaceCache,
    pub(super) iotlb: Iotlb,
    pub(super) interrupts: InterruptEntryCache,
    pub(super) queue: Waits,
    pub(super) device_tlb: DeviceTlb,
    pub(super) in_flight: InFlight,
    pub(super) turns: Turns,
    /// A register-based IOTLB invalidation that waits for requests in flight: its IAIG, and the
    /// generation of requests to drain.
    pub(super) draining: Option<(u8, u64)>,
    pub(super) groups: Groups,
    pub(super) counters: Counters,
    /// See [`Unit::changes`].
    pub(super) changes: u64,
}

impl Unit {
    /// A unit after a reset: registers have the defaults of section 11.4.
    pub fn new(caps: Capabilities) -> Self {
        let sizes = caps.config().caches;
        let timeout = caps.config().device_tlbs.map(|d| d.timeout);
        Unit {
            registers: Registers::new(caps),
            rtaddr: RootTableAddress::ZERO,
            irta: InterruptRemappingTableAddress::ZERO,
            contexts: ContextCache::new(sizes.contexts),
            spaces: SpaceCache::new(sizes.pasids),
            iotlb: Iotlb::new(sizes.iotlb),
            interrupts: InterruptEntryCache::new(sizes.interrupts),
            queue: Waits::default(),
            device_tlb: DeviceTlb::new(timeout.unwrap_or_default()),
            in_flight: InFlight::default(),
            turns: Turns::default(),
            draining: None,
            groups: Groups::default(),
            counters: Counters::default(),
            changes: 0,
            caps,
        }
    }
}
