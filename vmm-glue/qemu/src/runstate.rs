// SPDX-License-Identifier: GPL-2.0-or-later
//! Whether the machine runs: `stop` and `cont` of the monitor, and everything else that stops it.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use crate::abi::layout::VMChangeStateEntry;
use crate::abi::qemu;
use crate::bql::Bql;

/// The action when the machine starts (true) or stops (false).
type Action = Box<dyn Fn(&Bql, bool) + Send + Sync>;

/// Runs an action at each change, until it is dropped.
pub struct Watch {
    entry: *mut VMChangeStateEntry,
    action: NonNull<Action>,
}

// SAFETY: the entry is QEMU's and is accessed only under the BQL; the action is Send and Sync.
unsafe impl Send for Watch {}

impl Watch {
    /// Starts watching.
    pub fn new(_bql: &Bql, action: Action) -> Watch {
        let action = NonNull::from(Box::leak(Box::new(action)));
        // SAFETY: the action does not move until the entry has been deleted.
        let entry =
            unsafe { (qemu().qemu_add_vm_change_state_handler)(changed, action.as_ptr().cast()) };
        Watch { entry, action }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: the entry is that of `new`; devices are dropped with the BQL held. The action
        // came from a box, and is not called any more.
        unsafe {
            (qemu().qemu_del_vm_change_state_handler)(self.entry);
            drop(Box::from_raw(self.action.as_ptr()));
        }
    }
}

/// `VMChangeStateHandler`.
unsafe extern "C" fn changed(opaque: *mut c_void, running: bool, _state: c_int) {
    // SAFETY: the action of a watch that has not been dropped; QEMU changes the state of the
    // machine with the BQL held.
    let (action, bql) = unsafe { (&*opaque.cast::<Action>(), Bql::held()) };
    action(&bql, running);
}
