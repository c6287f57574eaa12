// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel says while a case runs: a warning, or any word about the device or the IOMMU,
//! is a fault unless the case provokes it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// Level of a warning (`KERN_WARNING`); what is worse has a lower number.
const WARNING: u32 = 4;

/// Texts by which a message is about the device or the IOMMU, whatever its level.
const SUBJECTS: &[&str] = &["svm_demo", "DMAR", "iommu", "BUG", "Call Trace"];

/// What is said of no fault. The driver tells of each function that it finds, and the PCI core of
/// what a driver does and of functions that come and go; a timer that QEMU runs late, as it does on
/// a busy host, is no matter of this program.
const HARMLESS: &[&str] = &[
    ": interface ",
    "enabling device",
    ": resetting",
    ": reset done",
    "Adding to iommu group",
    "Removing from iommu group",
    "loading out-of-tree module taints kernel",
    "module verification failed",
    "clocksource",
    "TSC",
    "tsc",
    "sched_clock",
    "perf: interrupt took too long",
];

/// What the IOMMU driver says when a process dies while the device works for it: the accesses that
/// the device makes until its context halts find no entry of the PASID any more. The driver means
/// to suppress these messages, by the entry's bit FPD, but Linux 7.2 and 7.3 clear the bit "present"
/// before `intel_pasid_clear_entry()` looks at it, and so leave FPD out.
const AFTER_DEATH: &[&str] = &[
    "SM: Present bit in PASID Table Entry is clear",
    "handling fault status reg",
    "dmar_fault: ",
];

/// What a case provokes that has a process killed for want of memory.
pub const OOM_KILLER: &str = "invoked oom-killer";
/// What a case provokes that has the handler of page requests meet a page that only a program can
/// provide, on a kernel that checks its memory management (`CONFIG_DEBUG_VM`).
pub const NO_RETRY: &str = "FAULT_FLAG_ALLOW_RETRY missing";

/// First and last line of what the kernel says at length, with stack traces and tables between
/// them.
const LONG: &[(&str, &str)] = &[(OOM_KILLER, "Killed process"), (NO_RETRY, "</TASK>")];

/// The kernel's log, from the moment of opening on.
#[derive(Debug)]
pub struct Messages {
    log: File,
}

impl Messages {
    /// Opens the log at its end.
    ///
    /// # Errors
    ///
    /// Those of opening `/dev/kmsg`, which takes a privilege.
    pub fn open() -> std::io::Result<Messages> {
        let mut log = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open("/dev/kmsg")?;
        log.seek(SeekFrom::End(0))?;
        Ok(Messages { log })
    }

    /// What the kernel has said since the last time that is neither harmless nor `provoked`.
    pub fn unexpected(&mut self, provoked: &[&str]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        let mut until = None;
        loop {
            match self.log.read(&mut record) {
                Ok(0) => return lines,
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    until = until.or_else(|| {
                        let mut long = LONG.iter();
                        long.find(|(first, _)| provoked.contains(first) && text.contains(first))
                    });
                    match until {
                        Some((_, last)) if text.contains(last) => until = None,
                        Some(_) => {}
                        None => lines.extend(fault(&text, provoked)),
                    }
                }
                // Overwritten before it was read: more was said than anybody should say.
                Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {
                    lines.push("more than its log can hold".to_owned());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return lines,
            }
        }
    }
}

/// The text of a record if it tells of a fault.
fn fault(record: &str, provoked: &[&str]) -> Option<String> {
    let (prefix, text) = record.split_once(';')?;
    // Further lines of a record begin with a blank, and hold its subject and device.
    let text = text.lines().next()?.trim();
    let number: u32 = prefix.split(',').next()?.parse().ok()?;
    let (facility, level) = (number >> 3, number & 7);
    let has = |texts: &[&str]| texts.iter().any(|part| text.contains(part));
    let told = facility == 0 && (level <= WARNING || has(SUBJECTS));
    (told && !has(HARMLESS) && !has(AFTER_DEATH) && !has(provoked)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_the_kernel_are_faults_and_what_programs_write_is_not() {
        let fault = |record| fault(record, &["oom-killer"]);
        let warning = fault("4,812,90,-;WARNING: CPU: 0\n SUBSYSTEM=pci\n");
        assert_eq!(warning.as_deref(), Some("WARNING: CPU: 0"));
        assert_eq!(fault("6,813,91,-;random: crng init done\n"), None);
        assert_eq!(fault("12,814,92,-;svm-init: a line of a program\n"), None);
        assert_eq!(
            fault("4,815,93,-;svmctl invoked oom-killer: order=0\n"),
            None
        );
    }

    #[test]
    fn whatever_is_said_of_the_device_is_a_fault_unless_it_is_known() {
        let fault = |record| fault(record, &[]);
        assert!(fault("6,1,1,-;DMAR: something new\n").is_some());
        let found = "6,1,1,-;svm_demo 0000:00:02.0: svm0: interface 1.1, 64 contexts\n";
        assert_eq!(fault(found), None);
    }
}
