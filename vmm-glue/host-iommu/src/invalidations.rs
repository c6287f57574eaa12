// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which translations the host has to forget when the guest invalidates its IOTLB, and what becomes
//! of an invalidation that the host does not carry out. It reads bindings, and changes none.
//!
//! The host forgets them in the Device-TLBs of assigned devices too, so that a Device-TLB
//! invalidation of the guest needs nothing more.

use crate::bindings::{Bindings, NestedSpace};
use crate::host::{Errno, HostError, HostIommu, HwptId, Invalidation, Operation, Partial};
use crate::mutant::{Mutant, breaks};
use std::collections::BTreeSet;
use vtd::spec::descriptor::{IotlbScope, QueueError};

/// Bits of an address within a page.
const PAGE_SHIFT: u8 = 12;

/// The host did not forget translations that the guest has invalidated. The descriptor must not be
/// reported as complete: the queue stops there (see [`Failed::queue_error`]).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} of {total} page tables were not invalidated; {}", .errors.len(), .errors[0])]
pub struct Failed {
    /// How many page tables of the host were concerned.
    pub total: usize,
    /// What the host said, once for each page table that it failed for; not empty.
    pub errors: Vec<Partial>,
}

impl Failed {
    /// What the guest's queue reports: IQE without further information. A time-out (ITE) would be
    /// another thing, which names a device that does not answer.
    pub const fn queue_error(&self) -> QueueError {
        QueueError::NoInformation
    }
}

/// Invalidates entries of one page table, all or an error: it says how many were done of how many.
/// A host that says that it is done, and has done fewer, has failed.
pub fn invalidate_cache(
    host: &mut impl HostIommu,
    hwpt: HwptId,
    entries: &[Invalidation],
) -> Result<(), Partial> {
    let result = host.invalidate(hwpt, entries);
    match result {
        Err(partial) if breaks(Mutant::N4_1) => Err(Partial {
            done: partial.total,
            ..partial
        }),
        other => other,
    }
}

/// What a page table has to forget of the address spaces that a scope selects; none if nothing.
pub fn entry(scope: IotlbScope, leaf_only: bool, space: &NestedSpace) -> Option<Invalidation> {
    let in_domain = |did| did == space.domain || breaks(Mutant::N4_26);
    match scope {
        IotlbScope::Global => Some(Invalidation::All),
        // An invalidation by pages of a domain takes all that went through a first stage (table
        // 23).
        IotlbScope::Domain(did) | IotlbScope::DomainPages(did, _) => {
            in_domain(did).then_some(Invalidation::All)
        }
        IotlbScope::Pasid(did, pasid) => {
            (in_domain(did) && pasid.get() == space.number).then_some(Invalidation::All)
        }
        IotlbScope::PasidPages(did, pasid, range) => {
            if !in_domain(did) || pasid.get() != space.number {
                return None;
            }
            // What covers all input addresses is all: the host takes no number of pages for it.
            if u32::from(range.shift()) >= space.address_width {
                return Some(Invalidation::All);
            }
            Some(Invalidation::Pages {
                address: range.base(),
                pages: match breaks(Mutant::Range) {
                    true => 1 << ((range.shift() - PAGE_SHIFT) & 31),
                    false => 1 << (range.shift() - PAGE_SHIFT),
                },
                leaf_only: leaf_only && !breaks(Mutant::Leaf),
            })
        }
    }
}

/// Carries an IOTLB invalidation of the guest out. A page table that several address spaces share
/// is told once. One that fails is told to forget everything; if it fails again, the others are
/// told all the same, and the invalidation has failed.
///
/// # Errors
///
/// The page tables that were not invalidated.
pub fn iotlb_invalidated(
    host: &mut impl HostIommu,
    bindings: &Bindings,
    scope: IotlbScope,
    leaf_only: bool,
) -> Result<(), Failed> {
    let (mut told, mut errors) = (BTreeSet::new(), Vec::new());
    for space in bindings.nested_spaces() {
        let Some(entry) = entry(scope, leaf_only, &space) else {
            continue;
        };
        if !told.insert(space.hwpt) {
            continue;
        }
        // One entry at a time: a host that stops in the middle of a list may count what it has
        // not done.
        let Err(error) = invalidate_cache(host, space.hwpt, &[entry]) else {
            continue;
        };
        if breaks(Mutant::Whole) {
            errors.push(error);
        } else if let Err(error) = invalidate_cache(host, space.hwpt, &[Invalidation::All]) {
            errors.push(error);
            if breaks(Mutant::Others) {
                break;
            }
        }
    }
    let total = told.len();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Failed { total, errors }),
    }
}

/// The result of an invalidation of which a host says how many entries it has done, and the error
/// that it returned. One that says that it has succeeded, and has done fewer, has not.
pub fn checked(done: usize, total: usize, errno: Option<Errno>) -> Result<(), Partial> {
    let errno = match errno {
        None if done == total => return Ok(()),
        None => Errno::Io,
        Some(errno) => errno,
    };
    Err(Partial {
        done,
        total,
        error: HostError {
            operation: Operation::Invalidate,
            errno,
        },
    })
}
