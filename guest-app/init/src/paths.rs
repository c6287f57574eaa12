// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths in the guest.

/// The [plan](crate::plan::Plan) of the run, as JSON.
pub const PLAN: &str = "/svm/plan.json";

/// Directory of the kernel modules, `NAME.ko`.
pub const MODULES: &str = "/svm/modules";

/// The script that a shell runs instead of a user's commands.
pub const SCRIPT: &str = "/svm/script";

/// The kernel's console; the interactive shell uses it too.
pub const CONSOLE: &str = "/dev/ttyS0";

/// The results channel: the second serial port, or what [`RESULTS_PARAMETER`] says.
pub const RESULTS: &str = "/dev/ttyS1";

/// The word of the kernel's command line that names another terminal for the results channel.
pub const RESULTS_PARAMETER: &str = "svm_results=";

/// The serial port through which fetched files leave if the kernel cannot drive [the
/// disk](FETCH_DISK).
pub const FETCH_PORT: &str = "/dev/ttyS2";

/// Serial number of the disk through which fetched files leave.
pub const FETCH_DISK: &str = "svm-fetch";

/// Directory of files whose destination lies under a mount point of `svm-init`, which copies them
/// there after mounting.
pub const LATE: &str = "/svm/late";

/// Working directory of programs. Files whose place in the guest is not given go here and come from
/// here.
pub const HOME: &str = "/root";

/// Where programs find the libraries that are copied along with them.
pub const LIBRARIES: &str = "/lib/x86_64-linux-gnu:/lib/i386-linux-gnu";

/// Search path of the guest's programs.
pub const PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin";

/// The line that `svm-init` writes to the kernel's log before it makes the kernel list its tasks,
/// so that their stack traces are not mistaken for those of a fault.
pub const TASKS_FOLLOW: &str = "svm-init: a step exceeded its time, the tasks follow";
