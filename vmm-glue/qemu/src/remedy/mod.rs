// SPDX-License-Identifier: GPL-2.0-or-later
//! What QEMU's own unit, `intel-iommu`, falls short of for shared virtual addressing, made up for
//! from outside of it. Each remedy is asked for by a property of the device, on unless it is
//! switched off, and none is applied to an `svm-vtd`, which needs none.

pub mod pasid_entries;
pub mod smpwcs;
pub mod wide_invalidations;

use crate::bql::Bql;
use crate::memory::Space;
use crate::qom::Neighbour;
use crate::vtd;

/// Where QEMU's machines have the registers of their only unit.
const REGISTERS: u64 = 0xfed9_0000;
/// Regions of remedies lie above that of the unit.
const PRIORITY: i32 = 1;

/// QEMU's own unit, if the machine has it.
pub fn intel_iommu(bql: &Bql) -> Option<Neighbour> {
    match Neighbour::find(bql, vtd::TYPE) {
        Some(_) => None,
        None => Neighbour::find(bql, c"intel-iommu"),
    }
}

/// Reads a register of 64 bits as software does.
fn register(_bql: &Bql, offset: u16) -> Option<u64> {
    let mut bytes = [0; 8];
    let read = Space::system().read(REGISTERS + u64::from(offset), 0, &mut bytes);
    read.is_ok().then(|| u64::from_le_bytes(bytes))
}
