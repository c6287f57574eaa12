// SPDX-License-Identifier: GPL-2.0-or-later
//! One bit that QEMU's vIOMMU lacks: Scalable-Mode Page-Walk Coherency Support, ECAP.SMPWCS
//! (VT-d 11.4.3).
//!
//! QEMU's intel-iommu walks tables in coherent memory, as all of QEMU's memory is, but does not
//! say so, and Linux then refuses shared virtual addressing. A small region is laid over the
//! register; it answers as the register below it does, with the bit set. It is laid when the
//! machine is complete, if there is an intel-iommu in scalable mode that lacks the bit, and if
//! a device asks for it, as devices do unless they are told `smpwcs=off`.

use std::ffi::c_void;
use std::sync::OnceLock;

use crate::abi::layout::Notifier;
use crate::abi::qemu;
use crate::bql::Bql;
use crate::memory::{IoRegion, Mmio, Space};
use crate::qom::Neighbour;

/// Address of the extended capability register of QEMU's only VT-d unit.
const ECAP: u64 = 0xfed9_0000 + 0x10;
/// Its size in bytes.
const SIZE: u64 = 8;
/// Scalable Mode Translation Support.
const SMTS: u64 = 1 << 43;
/// Scalable-Mode Page-Walk Coherency Support.
const SMPWCS: u64 = 1 << 48;
/// Above the region of the vIOMMU.
const PRIORITY: i32 = 1;

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

/// Lays the region, now or when the machine is complete.
pub fn request(_bql: &Bql) {
    static REQUESTED: OnceLock<()> = OnceLock::new();
    if REQUESTED.set(()).is_err() {
        return;
    }
    let notifier = Box::leak(Box::new(Notifier {
        notify: machine_done,
        node: [std::ptr::null_mut(); 2],
    }));
    // SAFETY: the notifier lives for ever. QEMU calls it at once if the machine is complete.
    unsafe { (qemu().qemu_add_machine_init_done_notifier)(notifier) }
}

/// The machine is complete.
unsafe extern "C" fn machine_done(_notifier: *mut Notifier, _data: *mut c_void) {
    // SAFETY: QEMU completes the machine with the BQL held.
    let bql = unsafe { Bql::held() };
    if Neighbour::find(&bql, c"intel-iommu").is_none() {
        return;
    }
    let mut bytes = [0; SIZE as usize];
    if Space::system().read(ECAP, 0, &mut bytes).is_err() {
        return;
    }
    if let Some(value) = overlay(u64::from_le_bytes(bytes)) {
        lay(&bql, value);
    }
}

/// What the guest is to read instead, if anything.
fn overlay(ecap: u64) -> Option<u64> {
    (ecap & SMTS != 0 && ecap & SMPWCS == 0).then_some(ecap | SMPWCS)
}

/// Lays the region over the register.
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
    // SAFETY: both regions live for ever.
    unsafe {
        (qemu().memory_region_add_subregion_overlap)(
            (qemu().get_system_memory)(),
            ECAP,
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
