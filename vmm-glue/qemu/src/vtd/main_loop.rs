// SPDX-License-Identifier: GPL-2.0-or-later
//! Work for QEMU's main loop, which does it with the BQL held and with no lock of anybody else:
//! for threads that must not wait for the BQL.

use std::ffi::c_void;

use crate::abi::qemu;
use crate::bql::Bql;

/// What to do.
type Work = Box<dyn FnOnce(&Bql) + Send>;

/// Runs something in the main loop, soon.
pub fn soon(work: impl FnOnce(&Bql) + Send + 'static) {
    let work: Box<Work> = Box::new(Box::new(work));
    // SAFETY: the main loop's context exists from before the machine on; it calls the function
    // once, which takes the box back.
    unsafe {
        (qemu().aio_bh_schedule_oneshot_full)(
            (qemu().qemu_get_aio_context)(),
            run,
            Box::into_raw(work).cast(),
            c"svm-vtd".as_ptr(),
        );
    }
}

/// `QEMUBHFunc`.
unsafe extern "C" fn run(opaque: *mut c_void) {
    // SAFETY: the box that `soon` has given, once; the main loop holds the BQL.
    let (work, bql) = unsafe { (Box::from_raw(opaque.cast::<Work>()), Bql::held()) };
    work(&bql);
}
