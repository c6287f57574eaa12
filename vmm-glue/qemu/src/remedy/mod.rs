// SPDX-License-Identifier: GPL-2.0-or-later
//! What QEMU's own unit, `intel-iommu`, falls short of for shared virtual addressing, made up for
//! from outside of it. Each remedy is asked for by a property of the device, on unless it is
//! switched off, and none is applied to an `svm-vtd`, which needs none.

pub mod pasid_entries;
pub mod smpwcs;
pub mod wide_invalidations;

use std::ffi::c_void;

use crate::abi::layout::Notifier;
use crate::abi::qemu;
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

/// Something to be done when the machine is complete.
#[repr(C)]
struct Waiting {
    notifier: Notifier,
    apply: fn(&Bql),
}

/// Has it done now, or when the machine is complete.
pub fn when_complete(_bql: &Bql, apply: fn(&Bql)) {
    let waiting = Box::leak(Box::new(Waiting {
        notifier: Notifier {
            notify: complete,
            node: [std::ptr::null_mut(); 2],
        },
        apply,
    }));
    // SAFETY: the notifier lives for ever. QEMU calls it at once if the machine is complete.
    unsafe { (qemu().qemu_add_machine_init_done_notifier)(&raw mut *waiting as *mut Notifier) }
}

/// The machine is complete.
unsafe extern "C" fn complete(notifier: *mut Notifier, _data: *mut c_void) {
    // SAFETY: the notifier is the first field of a `Waiting`, which lives for ever; QEMU
    // completes the machine with the BQL held.
    let (waiting, bql) = unsafe { (&*notifier.cast::<Waiting>(), Bql::held()) };
    (waiting.apply)(&bql);
}
