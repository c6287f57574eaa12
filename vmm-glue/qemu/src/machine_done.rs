// SPDX-License-Identifier: GPL-2.0-or-later
//! Actions for the time when the machine is complete and all devices of the command line exist.

use std::ffi::c_void;

use crate::abi::layout::Notifier;
use crate::abi::qemu;
use crate::bql::Bql;

/// An action that waits for the machine to be complete.
#[repr(C)]
struct Waiting {
    notifier: Notifier,
    apply: fn(&Bql),
}

/// Runs an action when the machine is complete, or now if it is.
pub fn when_complete(_bql: &Bql, apply: fn(&Bql)) {
    let waiting = Box::leak(Box::new(Waiting {
        notifier: Notifier {
            notify: complete,
            node: [std::ptr::null_mut(); 2],
        },
        apply,
    }));
    // SAFETY: the notifier is never freed. QEMU calls it at once if the machine is complete.
    unsafe { (qemu().qemu_add_machine_init_done_notifier)(&raw mut *waiting as *mut Notifier) }
}

/// The machine is complete.
unsafe extern "C" fn complete(notifier: *mut Notifier, _data: *mut c_void) {
    // SAFETY: the notifier is the first field of a `Waiting`, which is never freed; QEMU completes
    // the machine with the BQL held.
    let (waiting, bql) = unsafe { (&*notifier.cast::<Waiting>(), Bql::held()) };
    (waiting.apply)(&bql);
}
