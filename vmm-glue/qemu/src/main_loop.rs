// SPDX-License-Identifier: GPL-2.0-or-later
//! Work for QEMU's main loop, which runs it with the BQL held and without any other lock: for
//! threads that must not wait for the BQL.

use std::ffi::c_void;

use crate::abi::qemu;
use crate::bql::Bql;

/// The work.
type Work = Box<dyn FnOnce(&Bql) + Send>;

/// Schedules work for the main loop.
pub fn soon(work: impl FnOnce(&Bql) + Send + 'static) {
    let work: Box<Work> = Box::new(Box::new(work));
    // SAFETY: the main loop's context exists before the machine; it calls the function once, which
    // takes the box back.
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
    // SAFETY: it is the box from `soon`, passed once; the main loop holds the BQL.
    let (work, bql) = unsafe { (Box::from_raw(opaque.cast::<Work>()), Bql::held()) };
    work(&bql);
}
