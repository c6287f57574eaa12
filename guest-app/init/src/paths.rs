// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things lie in the guest.

/// The [plan](crate::plan::Plan) of the run, as JSON.
pub const PLAN: &str = "/svm/plan.json";

/// Directory of the kernel modules, `NAME.ko`.
pub const MODULES: &str = "/svm/modules";

/// What a shell runs instead of a person's commands.
pub const SCRIPT: &str = "/svm/script";

/// The kernel's console; the interactive shell has it too.
pub const CONSOLE: &str = "/dev/ttyS0";

/// The results channel: the second serial port.
pub const RESULTS: &str = "/dev/ttyS1";

/// The serial port that fetched files leave by, where the kernel cannot drive [the
/// disk](FETCH_DISK).
pub const FETCH_PORT: &str = "/dev/ttyS2";

/// Serial number of the disk that fetched files leave by.
pub const FETCH_DISK: &str = "svm-fetch";

/// Directory of files for places that `svm-init` mounts on: it copies them there.
pub const LATE: &str = "/svm/late";

/// Working directory of programs, and where files come from and go to whose place is not said.
pub const HOME: &str = "/root";

/// Where programs find the libraries that were copied with them.
pub const LIBRARIES: &str = "/lib/x86_64-linux-gnu:/lib/i386-linux-gnu";

/// Search path of the guest's programs.
pub const PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin";

/// What `svm-init` writes to the kernel's log before it makes the kernel list its tasks, so that
/// their stack traces are not taken for those of a fault.
pub const TASKS_FOLLOW: &str = "svm-init: a step exceeded its time, the tasks follow";
