// SPDX-License-Identifier: GPL-2.0-or-later
//! Remedies for shortcomings of QEMU's own unit, `intel-iommu`, that concern shared virtual
//! addressing, applied from outside. A property of the device controls each remedy and is on by
//! default: of `svm-demo`, or of `vfio-pci` for devices of the host. An `svm-vtd` needs none and gets
//! none. One remedy, [`nested_events`], is for QEMU's emulated processors, whatever the unit, and a
//! property of the accelerator controls it.

pub mod nested_events;
pub mod page_requests;
pub mod pasid_entries;
pub mod smpwcs;
pub mod wide_invalidations;

use crate::bql::Bql;
use crate::memory::Space;
use crate::qom::Neighbour;
use crate::vtd;

/// The address of the registers of the only unit in QEMU's machines.
const REGISTERS: u64 = 0xfed9_0000;
/// Regions of remedies overlay the region of the unit.
const PRIORITY: i32 = 1;

/// QEMU's own unit, if the machine has it.
pub fn intel_iommu(bql: &Bql) -> Option<Neighbour> {
    match Neighbour::find(bql, vtd::TYPE) {
        Some(_) => None,
        None => Neighbour::find(bql, c"intel-iommu"),
    }
}

/// Reads a register of 64 bits like software.
fn register(_bql: &Bql, offset: u16) -> Option<u64> {
    let mut bytes = [0; 8];
    let read = Space::system().read(REGISTERS + u64::from(offset), 0, &mut bytes);
    read.is_ok().then(|| u64::from_le_bytes(bytes))
}
