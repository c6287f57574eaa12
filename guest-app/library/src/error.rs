// SPDX-License-Identifier: MIT OR Apache-2.0
//! The errors of the library, in sentences that say what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use svm_abi::completion::{self, Completion, access};
use svm_abi::registers::halt;

/// Why the library could not perform a request.
///
/// The text of an error contains everything that is known, including the system's message: there is
/// no chain of sources to print in addition.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device file could not be opened.
    #[error("cannot open {}: {cause}\n{}", path.display(), advice(cause, path))]
    Open {
        /// The device file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The device has another version of the interface.
    #[error(
        "the device has version {}.{} of the interface, this program was built for {}.{}: \
         use a program, a module and a device of the same major version",
        found >> 8, found & 0xff,
        svm_abi::ids::ABI_VERSION >> 8, svm_abi::ids::ABI_VERSION & 0xff
    )]
    Version {
        /// Version of the device: major in bits 15:8, minor in 7:0.
        found: u32,
    },
    /// The ring cannot have this size.
    #[error(
        "a ring has a power of two of descriptors, from 1 to {max}; {requested} were asked for"
    )]
    Capacity {
        /// Requested number of descriptors.
        requested: u32,
        /// Descriptors of the largest ring.
        max: u32,
    },
    /// A system call failed.
    #[error("{action}: {cause}{}", hint(cause))]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The device stopped the context.
    #[error("the device halted the context: {0}; QUEUE_STOP and QUEUE_SETUP start it again")]
    Halted(Halt),
    /// The completion record of a descriptor could not be written.
    #[error(
        "the completion record of descriptor {number} could not be written{}: its memory must be \
         writable and stay mapped until the descriptor has completed",
        reason(*why)
    )]
    Lost {
        /// Number of the descriptor since the start of the queue.
        number: u64,
        /// The device's reason, if no other record was lost since.
        why: Option<completion::Error>,
    },
    /// The device went away.
    #[error("the device is gone: it was unplugged, or its driver unbound; open it again")]
    Gone,
    /// Something else stopped the context, such as a reset of the device.
    #[error("the context was stopped by a reset of the device; start the queue again")]
    Reset,
    /// The queue was stopped, by the program or after an earlier error.
    #[error("the queue is stopped: start it again or open the device again")]
    Stopped,
    /// The process is a child of the one that opened the device.
    #[error(
        "the queue belongs to the address space of the process that opened the device: \
         a child has to open the device itself"
    )]
    Forked,
    /// There are as many unused tickets as the ring has descriptors.
    #[error("the queue is full: wait for ticket {oldest} first")]
    Full {
        /// Number of the ticket that occupies the next slot of the ring.
        oldest: u64,
    },
    /// The ticket does not belong to this queue since its last start.
    #[error("ticket {0} is not of this queue, or the queue was started anew since")]
    UnknownTicket(u64),
    /// The work did not end in time. The queue was stopped.
    #[error("the device did not finish in time; the queue is stopped")]
    TimedOut,
    /// The device could not perform the operation.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// A slice does not fit the operation.
    #[error("{0}")]
    Argument(&'static str),
}

impl Error {
    pub(crate) fn system(action: &'static str) -> impl Fn(io::Error) -> Error {
        move |cause| match Errno::from_raw(cause.raw_os_error().unwrap_or(0)) {
            Errno::ENODEV | Errno::ENXIO => Error::Gone,
            _ => Error::System { action, cause },
        }
    }
}

/// Why a record was lost, as part of a sentence.
fn reason(why: Option<completion::Error>) -> String {
    why.map_or_else(String::new, |why| format!(" ({why:?}: {})", why.text()))
}

/// What to check if the device file cannot be opened.
fn advice(cause: &io::Error, path: &Path) -> String {
    let path = path.display();
    match Errno::from_raw(cause.raw_os_error().unwrap_or(0)) {
        Errno::ENOENT => format!(
            "There is no {path}. Check, in this order:\n  \
             - the device is there: `lspci -nn -d 1234:5356` shows it;\n  \
             - the module is loaded: `lsmod | grep svm_demo`, else `modprobe svm_demo`;\n  \
             - the module took the device: `dmesg | grep svm_demo` says why if it did not."
        ),
        Errno::ENXIO | Errno::ENODEV | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENOSPC => {
            "The device cannot share this process's address space. Check, in this order:\n  \
             - the kernel command line has `intel_iommu=on,sm_on` (`cat /proc/cmdline`);\n  \
             - the IOMMU has scalable mode with first-stage translation, PASID and page requests, \
             and the device ATS, PRI and PASID (`svmctl doctor` lists them);\n  \
             - processor and IOMMU agree on paging: without 5-level paging in the IOMMU, QEMU \
             needs `-cpu max,la57=off`;\n  \
             - the device is still plugged: `lspci -nn -d 1234:5356`."
                .to_owned()
        }
        Errno::EBUSY => {
            "All contexts of the device are in use: close a program that has it open, or give \
             the device more (`-device svm-demo,contexts=N`). If none is, the kernel log says \
             what is wrong with the page tables of this process (5-level paging?)."
                .to_owned()
        }
        Errno::EACCES | Errno::EPERM => {
            format!(
                "This user may not open {path}: run as root, or join its group (`ls -l {path}`; with \
                 the driver's udev rule it is `svm`)."
            )
        }
        Errno::ENOTTY => format!("{path} is not a device of svm_demo, as /dev/svm0 is."),
        Errno::EMFILE | Errno::ENFILE => "Close some of the open files.".to_owned(),
        _ => format!("`dmesg` may say more about {path}."),
    }
}

/// A hint to add to the message of a failed system call.
fn hint(cause: &io::Error) -> &'static str {
    match Errno::from_raw(cause.raw_os_error().unwrap_or(0)) {
        Errno::ENOTTY => " (is the file a device of svm_demo?)",
        Errno::EPERM => " (only the process that opened the device may use it)",
        Errno::EBUSY => " (the context already has a queue)",
        Errno::ENOMEM => " (out of memory)",
        Errno::ETIMEDOUT => " (a page request is still without its response)",
        _ => "",
    }
}

/// Why a context halted, from its `STATUS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halt(pub u8);

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            halt::NONE => "no reason given",
            halt::BAD_PASID => "its PASID is not valid (BAD_PASID)",
            halt::BAD_RING => "its ring is not valid (BAD_RING)",
            halt::BAD_DOORBELL => "the doorbell ran ahead of the ring, or backwards (BAD_DOORBELL)",
            halt::RING_FAULT => "the ring could not be read (RING_FAULT)",
            halt::FUNCTION_DISABLED => {
                "bus mastering, ATS or PASID were disabled (FUNCTION_DISABLED)"
            }
            other => return write!(f, "unknown reason {other}"),
        })
    }
}

/// The failure of an operation, from its completion record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// Number of the error; see [`Failure::error`].
    pub number: u8,
    /// The access that failed was a write.
    pub write: bool,
    /// Address whose access failed; 0 if none did.
    pub address: u64,
    /// Bytes processed before; nodes, for a chase.
    pub bytes_done: u64,
}

impl Failure {
    /// The failure of a completion record; `None` if the operation succeeded.
    pub fn of(record: &Completion) -> Option<Failure> {
        (record.status != completion::status::SUCCESS).then_some(Failure {
            number: record.error,
            write: record.access & access::WRITE != 0,
            address: record.fault_address,
            bytes_done: record.bytes_done,
        })
    }

    /// The error, if the interface knows its number.
    pub fn error(&self) -> Option<completion::Error> {
        completion::Error::from_u8(self.number)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error() {
            Some(error) => write!(f, "{error:?}: {}", error.text())?,
            None => write!(f, "unknown error {}", self.number)?,
        }
        if self.address != 0 {
            let access = if self.write { "write" } else { "read" };
            write!(f, "; {access} at {:#x}", self.address)?;
        }
        write!(f, ", {} done before", self.bytes_done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_file_says_what_to_check() {
        let error = Error::Open {
            path: "/dev/svm0".into(),
            cause: Errno::ENOENT.into(),
        };
        let text = error.to_string();
        assert!(text.contains("modprobe svm_demo"), "{text}");
        assert!(text.contains("lspci"), "{text}");
    }

    #[test]
    fn a_device_without_sva_says_what_to_check() {
        let error = Error::Open {
            path: "/dev/svm0".into(),
            cause: Errno::ENODEV.into(),
        };
        assert!(error.to_string().contains("sm_on"), "{error}");
    }

    #[test]
    fn a_failure_names_error_access_and_address() {
        let failure = Failure::of(&Completion {
            status: completion::status::FAILURE,
            error: completion::Error::PageFault as u8,
            access: access::WRITE,
            bytes_done: 96,
            fault_address: 0x7000,
            result: 0,
        })
        .unwrap();
        let text = failure.to_string();
        assert!(text.starts_with("PageFault: "), "{text}");
        assert!(text.ends_with("write at 0x7000, 96 done before"), "{text}");
    }

    #[test]
    fn a_success_is_no_failure() {
        let record = Completion {
            status: completion::status::SUCCESS,
            ..Completion::default()
        };
        assert_eq!(Failure::of(&record), None);
    }

    #[test]
    fn every_halt_reason_has_a_text() {
        for reason in halt::NONE..=halt::FUNCTION_DISABLED {
            assert!(!Halt(reason).to_string().contains("unknown"), "{reason}");
        }
    }
}
