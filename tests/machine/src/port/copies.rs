// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies of translated requests, which move bytes where they lie in memory.

use super::{Port, last};
use crate::prefetch::prefetch;
use pcie_ats::{CopyError, MemoryAddressType, MemoryCopy, MemoryError, MemoryRequest, RootPort};
use std::sync::atomic::{Ordering, fence};
use vm_memory::VolatileSlice;
use vtd::Access;

impl Port<'_> {
    /// Copies bytes of memory where they lie.
    #[inline(always)]
    pub(super) fn copy_directly(
        &self,
        source: &MemoryRequest,
        destination: &MemoryRequest,
        length: usize,
    ) -> Result<(), CopyError> {
        let translated = MemoryAddressType::Translated;
        if source.address_type != translated || destination.address_type != translated {
            // Each is translated by itself.
            return Err(CopyError::Apart);
        }
        self.check([
            (source, length, Access::Read),
            (destination, length, Access::Write),
        ])
        .map_err(|(n, error)| match n {
            0 => CopyError::Read(error),
            _ => CopyError::Write(error),
        })?;
        copy_bytes(&self.ram().all(), source, destination, length)
    }

    /// Asks for the first bytes of a copy.
    #[inline]
    pub(super) fn fetch_ahead(&self, next: &MemoryCopy) {
        fetch(&self.ram().all(), next);
    }

    /// Performs copies one after another, for [`RootPort::copy_all`].
    pub(super) fn copy_each(
        &self,
        copies: &[MemoryCopy],
        buffer: &mut [u8],
        permitted: &dyn Fn() -> bool,
    ) -> (usize, Option<CopyError>) {
        let (slot, unit, all) = (self.slot(), self.unit, self.ram().all());
        // Once for all of them, and not between two: there, each instruction counts, because the
        // processor begins a copy of bytes only when the one before has ended.
        let plain = |request: &MemoryRequest, length| {
            let within = |last| slot.may_be_granted(unit, request.address, last);
            request.pasid.is_none()
                && request.address_type == MemoryAddressType::Translated
                && last(request, length).is_some_and(within)
        };
        let plain = copies
            .iter()
            .all(|copy| plain(&copy.source, copy.length) && plain(&copy.destination, copy.length));
        for (done, copy) in copies.iter().enumerate() {
            if !permitted() {
                return (done, None);
            }
            if let Some(next) = copies.get(done + 1) {
                fetch(&all, next);
            }
            let MemoryCopy {
                source,
                destination,
                length,
            } = copy;
            let copied = if plain && slot.knows(unit) && !self.is_watched() {
                copy_bytes(&all, source, destination, *length)
            } else {
                self.copy(source, destination, &mut buffer[..*length])
            };
            if let Err(error) = copied {
                return (done, Some(error));
            }
        }
        (copies.len(), None)
    }
}

/// Asks for the first bytes of a copy.
#[inline(always)]
fn fetch(all: &VolatileSlice<'_>, next: &MemoryCopy) {
    prefetch(all, next.source.address);
    prefetch(all, next.destination.address);
}

/// Copies bytes of memory where they lie.
#[inline(always)]
fn copy_bytes(
    all: &VolatileSlice<'_>,
    source: &MemoryRequest,
    destination: &MemoryRequest,
    length: usize,
) -> Result<(), CopyError> {
    let slice = |address| {
        all.subslice(address as usize, length)
            .map_err(|_| MemoryError::Refused { address })
    };
    let from = slice(source.address).map_err(CopyError::Read)?;
    let to = slice(destination.address).map_err(CopyError::Write)?;
    fence(Ordering::AcqRel);
    from.copy_to_volatile_slice(to);
    Ok(())
}
