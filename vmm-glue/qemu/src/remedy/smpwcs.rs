// SPDX-License-Identifier: GPL-2.0-or-later
//! A capability bit that QEMU's vIOMMU lacks: Scalable-Mode Page-Walk Coherency Support,
//! ECAP.SMPWCS (VT-d 11.4.3).
//!
//! QEMU's intel-iommu walks tables in coherent memory, like all of QEMU's memory, but does not
//! report it, and Linux then refuses shared virtual addressing. A small region overlays the
//! register; it returns the register's value with the bit set. The library adds the region when the
//! machine is complete, if there is an intel-iommu in scalable mode that lacks the bit, and if a
//! device requests it, as devices do without `smpwcs=off`.

use std::sync::OnceLock;

use vtd::spec::register::offset;

use super::{PRIORITY, REGISTERS};
use crate::abi::qemu;
use crate::bql::Bql;
use crate::memory::{IoRegion, Mmio};

/// Size of the register in bytes.
const SIZE: u64 = 8;
/// Scalable Mode Translation Support.
const SMTS: u64 = 1 << 43;
/// Scalable-Mode Page-Walk Coherency Support.
const SMPWCS: u64 = 1 << 48;

/// The register as the guest sees it.
struct Register(u64);

impl Mmio for Register {
    fn read(&self, _bql: &Bql, offset: u64, size: u8) -> u64 {
        let bytes = self.0.to_le_bytes();
        let mut value = [0; 8];
        for (to, from) in value
            .iter_mut()
            .zip(bytes.iter().skip(offset as usize))
            .take(size.into())
        {
            *to = *from;
        }
        u64::from_le_bytes(value)
    }

    fn write(&self, _bql: &Bql, _offset: u64, _value: u64, _size: u8) {
        // The register is read-only.
    }
}

/// Adds the region, now or when the machine is complete.
pub fn request(bql: &Bql) {
    static REQUESTED: OnceLock<()> = OnceLock::new();
    if REQUESTED.set(()).is_ok() {
        crate::machine_done::when_complete(bql, apply);
    }
}

/// Adds the region if the unit needs it.
fn apply(bql: &Bql) {
    if super::intel_iommu(bql).is_none() {
        return;
    }
    if let Some(value) = super::register(bql, offset::ECAP).and_then(overlay) {
        lay(bql, value);
    }
}

/// The value that the guest reads instead, if different.
fn overlay(ecap: u64) -> Option<u64> {
    (ecap & SMTS != 0 && ecap & SMPWCS == 0).then_some(ecap | SMPWCS)
}

/// Adds the region over the register.
fn lay(bql: &Bql, value: u64) {
    // SAFETY: the region has no owner and is never dropped.
    let region = unsafe {
        IoRegion::new(
            bql,
            std::ptr::null_mut(),
            c"svm-demo-ecap-smpwcs",
            SIZE,
            Box::new(Register(value)),
        )
    };
    // SAFETY: both regions are never freed.
    unsafe {
        (qemu().memory_region_add_subregion_overlap)(
            (qemu().get_system_memory)(),
            REGISTERS + u64::from(offset::ECAP),
            region.as_ptr(),
            PRIORITY,
        );
    }
    std::mem::forget(region);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_scalable_unit_without_the_bit_is_changed() {
        assert_eq!(overlay(0xf46), None);
        assert_eq!(overlay(SMTS | 0xf46), Some(SMTS | SMPWCS | 0xf46));
        assert_eq!(overlay(SMTS | SMPWCS), None);
    }
}
