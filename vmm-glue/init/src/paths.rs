// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things lie in the guest.

/// The [plan](crate::plan::Plan) of the run, as JSON.
pub const PLAN: &str = "/svm/plan.json";

/// Directory of the kernel modules, `NAME.ko`.
pub const MODULES: &str = "/svm/modules";

/// The kernel's console; the interactive shell has it too.
pub const CONSOLE: &str = "/dev/ttyS0";

/// The results channel: the second serial port.
pub const RESULTS: &str = "/dev/ttyS1";

/// Search path of the guest's programs.
pub const PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin";

/// What `svm-init` writes to the kernel's log before it makes the kernel list its tasks, so that
/// their stack traces are not taken for those of a fault.
pub const TASKS_FOLLOW: &str = "svm-init: a step exceeded its time, the tasks follow";
