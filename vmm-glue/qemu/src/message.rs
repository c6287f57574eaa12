// SPDX-License-Identifier: GPL-2.0-or-later
//! Messages to the user of QEMU, through QEMU's own functions, so that they go to the monitor or
//! the standard error like QEMU's own.

use std::ffi::{CString, c_char};

use crate::abi::layout::{ErrorOut, LOG_GUEST_ERROR};
use crate::abi::{functions, qemu};

/// The place in which a function that QEMU called stores its error.
#[derive(Clone, Copy)]
pub struct ErrorSlot(ErrorOut);

impl ErrorSlot {
    /// A slot from QEMU.
    ///
    /// # Safety
    ///
    /// The pointer is one that QEMU accepts as `Error **`, and it outlives the value.
    pub unsafe fn new(out: ErrorOut) -> ErrorSlot {
        ErrorSlot(out)
    }

    /// As QEMU takes it.
    pub fn as_out(self) -> ErrorOut {
        self.0
    }

    /// Stores an error. QEMU accepts only the first one, so call it once.
    pub fn set(self, message: &str) {
        let message = c_string(message);
        // SAFETY: the slot is valid, and the format consumes the one string that follows it.
        unsafe {
            (qemu().error_setg_internal)(
                self.0,
                c"svm-demo".as_ptr(),
                0,
                c"svm-demo".as_ptr(),
                c"%s".as_ptr(),
                message.as_ptr(),
            );
        }
    }
}

/// Reports an error without a caller that could receive it.
pub fn error(message: &str) {
    report(|| qemu().error_report, message);
}

/// Reports something that works, but probably not as intended.
pub fn warning(message: &str) {
    report(|| qemu().warn_report, message);
}

/// Logs an error of the guest, if QEMU logs these (`-d guest_errors`).
pub fn guest_error(message: &str) {
    // SAFETY: the variable is QEMU's; it is a number that may be read at any time.
    let levels = unsafe { qemu().qemu_loglevel.read_volatile() };
    if levels & LOG_GUEST_ERROR != 0 {
        let message = c_string(message);
        // SAFETY: the format consumes the one string that follows it.
        unsafe { (qemu().qemu_log)(c"%s\n".as_ptr(), message.as_ptr()) }
    }
}

/// One of QEMU's functions that report messages.
type Reporter = unsafe extern "C" fn(*const c_char, ...);

/// Reports through one of QEMU's functions, or to the standard error if there is no QEMU.
fn report(function: impl FnOnce() -> Reporter, message: &str) {
    let message = format!("svm-demo: {message}");
    if !functions::is_known() {
        return eprintln!("{message}");
    }
    let message = c_string(&message);
    // SAFETY: the format consumes the one string that follows it.
    unsafe { function()(c"%s".as_ptr(), message.as_ptr()) }
}

/// A C string without null characters, which messages do not have.
pub fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}
