// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's messages while a case runs. A warning, or any message about the device or the
//! IOMMU, is a fault unless the case provokes it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// The kernel's log.
const LOG: &str = "/dev/kmsg";

/// Level of a warning (`KERN_WARNING`). More severe levels have lower numbers.
const WARNING: u32 = 4;

/// Texts that mark a message as one about the device or the IOMMU, whatever its level.
const SUBJECTS: &[&str] = &["svm_demo", "DMAR", "iommu", "BUG", "Call Trace"];

/// Messages that indicate no fault, whatever runs: on a busy host, QEMU runs timers late, which
/// this program does not check. As everywhere in this module, a text matches the beginning of a
/// message, and `*` matches anything.
const HARMLESS: &[&str] = &[
    "clocksource: ",
    "tsc: ",
    "TSC found unstable",
    "sched_clock: Marking unstable",
    "perf: interrupt took too long",
];

/// Messages when the driver binds to a function: the driver's, and the PCI core's about what the
/// driver does.
pub const BOUND: &[&str] = &["svm_demo *: interface ", "svm_demo *: enabling device"];

/// The driver's message when it binds to a function whose contexts were not stopped: the function
/// did not answer before, or a context ignored STOP.
pub const RESET: &str = "svm_demo *: contexts are not disabled: the function is reset";

/// Messages about a function that is hot-added and removed.
pub const HOTPLUGGED: &[&str] = &[
    "svm_demo *: interface ",
    "svm_demo *: enabling device",
    "pci *: Adding to iommu group",
    "pci *: Removing from iommu group",
];

/// Messages when out-of-tree modules are loaded, once per boot, or when VFIO has the function for a
/// while.
pub const LOADED: &[&str] = &[
    "svm_demo *: interface ",
    "svm_demo *: enabling device",
    "svm_demo: loading out-of-tree module taints kernel",
    "svm_demo: module verification failed",
    "vfio-pci *: enabling device",
    "vfio-pci *: resetting",
    "vfio-pci *: reset done",
];

/// The IOMMU driver's messages when the device requests an address in the interrupt range: QEMU's
/// own unit refuses and records it, even for a request with a PASID.
pub const INTERRUPT_RANGE: &[&str] = &[
    "DMAR: [DMA * PASID *] Request device * fault addr 0xfee* [fault reason 0x87]",
    "DMAR: DRHD: handling fault status reg",
    "dmar_fault: * callbacks suppressed",
];

/// The IOMMU driver's messages when a process dies while the device works for it: until its context
/// halts, the device's accesses find no PASID entry any more. The driver means to suppress these
/// messages with the entry's bit FPD. But Linux 7.2 and 7.3 clear the bit "present" before
/// `intel_pasid_clear_entry()` checks it, and so do not set FPD.
const AFTER_DEATH: &[&str] = &[
    "DMAR: [DMA * PASID *] Request device * SM: Present bit in PASID Table Entry is clear",
    "DMAR: DRHD: handling fault status reg",
    "dmar_fault: * callbacks suppressed",
];

/// Messages when a process dies while the device works for it: see `guest-driver/README.md`. There
/// are none with QEMU's own unit: the device sends it no requests for such a PASID
/// (`docs/architecture.md`, `pasid-check`).
pub fn after_death() -> &'static [&'static str] {
    match version(UNITS.as_ref()) {
        Some(version) if version == QEMU => &[],
        _ => AFTER_DEATH,
    }
}

/// Where the kernel lists its IOMMUs.
const UNITS: &str = "/sys/class/iommu";
/// Version of QEMU's own unit. That of `svm-vtd` is higher.
const QEMU: &str = "1:0";

/// Version of the first remapping unit of VT-d; `None` where there is none.
fn version(units: &Path) -> Option<String> {
    let mut units = fs::read_dir(units).ok()?.flatten();
    units.find_map(|unit| {
        let text = fs::read_to_string(unit.path().join("intel-iommu/version")).ok()?;
        Some(text.trim().to_owned())
    })
}

/// Message that a case provokes when the kernel kills a process because memory ran out.
pub const OOM_KILLER: &str = "*invoked oom-killer";
/// Message that a case provokes when the page request handler meets a page that only a program can
/// provide, on a kernel that checks its memory management (`CONFIG_DEBUG_VM`).
pub const NO_RETRY: &str = "FAULT_FLAG_ALLOW_RETRY missing";

/// Long messages of the kernel: the first line and the possible last lines. Stack traces and tables
/// lie between them.
const LONG: &[(&str, &[&str])] = &[
    (
        OOM_KILLER,
        &[
            "*Killed process",
            // A second allocation that fails while the first victim is still dying.
            "Out of memory and no killable processes",
        ],
    ),
    (NO_RETRY, &["*</TASK>"]),
];

/// Beginnings of messages that are never part of a long one.
const NEVER_PART: &[&str] = &["DMAR: ", "svm_demo "];

/// Whether a message begins with a text in which `*` matches anything.
fn begins(message: &str, text: &str) -> bool {
    let mut parts = text.split('*');
    let Some(rest) = message.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    parts
        .try_fold(rest, |rest, part| Some(rest.split_once(part)?.1))
        .is_some()
}

fn begins_with_one<T: AsRef<str>>(message: &str, texts: &[T]) -> bool {
    texts.iter().any(|text| begins(message, text.as_ref()))
}

/// The kernel's log, from the moment it is opened.
#[derive(Debug)]
pub struct Messages {
    log: File,
}

impl Messages {
    /// Opens the log at its end.
    ///
    /// # Errors
    ///
    /// `/dev/kmsg` cannot be opened; this requires a privilege.
    pub fn open() -> io::Result<Messages> {
        let open = || {
            let mut log = OpenOptions::new()
                .read(true)
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(LOG)?;
            log.seek(SeekFrom::End(0))?;
            Ok(Messages { log })
        };
        open().map_err(|error: io::Error| {
            let text = format!(
                "what the kernel says has to be heard, and {LOG} cannot be opened: {error}; run \
                 it as root"
            );
            io::Error::new(error.kind(), text)
        })
    }

    /// The messages since the last call that are neither harmless nor `provoked`. A log that cannot
    /// be read, or that has lost messages, is unexpected, too.
    pub fn unexpected<T: AsRef<str>>(&mut self, provoked: &[T]) -> Vec<String> {
        let mut listener = Listener::new(provoked);
        let mut record = [0; 8192];
        loop {
            match self.log.read(&mut record) {
                Ok(0) => break listener.fail("its log has ended"),
                Ok(length) => listener.hear(&String::from_utf8_lossy(&record[..length])),
                // All was read.
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Overwritten before it was read: there were more messages than there should ever
                // be.
                Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {
                    listener.fail("more than its log can hold");
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break listener.fail(&format!("{LOG} cannot be read: {error}")),
            }
        }
        listener.end()
    }
}

/// Judges records of the log one after the other.
struct Listener<'a, T> {
    provoked: &'a [T],
    lines: Vec<String>,
    /// While a long message is being read: its possible last lines.
    until: Option<&'static [&'static str]>,
}

impl<'a, T: AsRef<str>> Listener<'a, T> {
    fn new(provoked: &'a [T]) -> Listener<'a, T> {
        Listener {
            provoked,
            lines: Vec::new(),
            until: None,
        }
    }

    fn fail(&mut self, what: &str) {
        self.lines.push(what.to_owned());
    }

    /// Judges a record in the format of `/dev/kmsg`: level and times, `;`, the text, further lines.
    fn hear(&mut self, record: &str) {
        let Some((prefix, text)) = record.split_once(';') else {
            return self.fail(&format!("what is no record of {LOG}: {record:?}"));
        };
        // Further lines of a record begin with a blank and hold its subsystem and device.
        let text = text.lines().next().unwrap_or_default().trim();
        let Some(Ok(number)) = prefix.split(',').next().map(str::parse::<u32>) else {
            return self.fail(&format!("what is no record of {LOG}: {record:?}"));
        };
        let (facility, level) = (number >> 3, number & 7);
        if facility != 0 {
            return;
        }
        self.until = self.until.or_else(|| {
            let mut long = LONG.iter().filter(|(first, _)| {
                self.provoked.iter().any(|text| text.as_ref() == *first) && begins(text, first)
            });
            long.next().map(|(_, last)| *last)
        });
        if let Some(last) = self.until.filter(|_| !begins_with_one(text, NEVER_PART)) {
            if begins_with_one(text, last) {
                self.until = None;
            }
            return;
        }
        let told = level <= WARNING || SUBJECTS.iter().any(|subject| text.contains(subject));
        if told && !begins_with_one(text, HARMLESS) && !begins_with_one(text, self.provoked) {
            self.fail(text);
        }
    }

    fn end(mut self) -> Vec<String> {
        if let Some([last, ..]) = self.until {
            // The messages in between were not judged.
            self.fail(&format!("something at length, without its end \"{last}\""));
        }
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn heard(records: &[&str], provoked: &[&str]) -> Vec<String> {
        let mut listener = Listener::new(provoked);
        for record in records {
            listener.hear(record);
        }
        listener.end()
    }

    #[test]
    fn warnings_of_the_kernel_are_faults_and_what_programs_write_is_not() {
        let records = [
            "4,812,90,-;WARNING: CPU: 0\n SUBSYSTEM=pci\n",
            "6,813,91,-;random: crng init done\n",
            "12,814,92,-;svm-init: a line of a program\n",
            "4,815,93,-;page allocation failure: order=0\n",
        ];
        let lines = heard(&records, &["page allocation failure"]);
        assert_eq!(lines, ["WARNING: CPU: 0"]);
    }

    #[test]
    fn whatever_is_said_of_the_device_is_a_fault_unless_it_is_provoked() {
        assert_eq!(heard(&["6,1,1,-;DMAR: something new\n"], &[]).len(), 1);
        let found = ["6,1,1,-;svm_demo 0000:00:02.0: svm0: interface 1.1, 64 contexts\n"];
        assert_eq!(heard(&found, &[]).len(), 1, "nobody binds it");
        assert!(heard(&found, BOUND).is_empty());
        let reset = ["6,1,1,-;svm_demo 0000:00:02.0: resetting\n"];
        for provoked in [BOUND, HOTPLUGGED, LOADED] {
            assert_eq!(
                heard(&reset, provoked).len(),
                1,
                "a reset that nobody asked for"
            );
        }
    }

    #[test]
    fn faults_of_a_dead_process_are_provoked_and_no_others() {
        let fault = |kind: &str, why: &str| {
            format!(
                "3,1,1,-;DMAR: [DMA {kind} PASID 0x2] Request device [0000:00:01.0] fault addr \
                 0x7fe204e00000 [fault reason 0x59] {why}\n"
            )
        };
        let clear = "SM: Present bit in PASID Table Entry is clear";
        let dead = [
            "3,1,1,-;DMAR: DRHD: handling fault status reg 402\n".to_owned(),
            fault("Write", clear),
            fault("Read", clear),
            "4,1,1,-;dmar_fault: 164 callbacks suppressed\n".to_owned(),
        ];
        let dead: Vec<&str> = dead.iter().map(String::as_str).collect();
        assert_eq!(heard(&dead, &[]).len(), 4);
        assert!(heard(&dead, AFTER_DEATH).is_empty());
        let other = fault("Write", "SM: Second-stage not permitted");
        assert_eq!(heard(&[&other], AFTER_DEATH).len(), 1);
    }

    #[test]
    fn qemus_own_unit_is_known_by_its_version() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(version(directory.path()), None);
        let unit = directory.path().join("dmar0/intel-iommu");
        fs::create_dir_all(&unit).unwrap();
        fs::write(unit.join("version"), "1:0\n").unwrap();
        assert_eq!(version(directory.path()).as_deref(), Some(QEMU));
    }

    #[test]
    fn what_is_said_at_length_hides_only_itself_and_must_end() {
        let first = "4,1,1,-;svmctl invoked oom-killer: order=0\n";
        let last = "3,9,9,-;Memory cgroup out of memory: Killed process 80\n";
        let trace = "4,2,2,-;Call Trace:\n";
        let whole = [first, trace, last];
        assert!(heard(&whole, &[OOM_KILLER]).is_empty());
        assert_eq!(heard(&whole, &[]).len(), 3);
        assert_eq!(
            heard(&[first, trace, last, trace], &[OOM_KILLER]),
            ["Call Trace:"]
        );
        let fault = "3,2,2,-;DMAR: DRHD: handling fault status reg 2\n";
        assert_eq!(heard(&[first, fault, last], &[OOM_KILLER]).len(), 1);
        let error = &heard(&[first, trace], &[OOM_KILLER])[0];
        assert!(error.contains("without its end"), "{error}");
    }

    #[test]
    fn what_is_no_log_is_a_fault() {
        assert!(heard(&["no record"], &[])[0].contains("no record"));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"6,1,1,-;nothing\n").unwrap();
        // A file has an end; the kernel's log has none.
        let mut messages = Messages {
            log: file.reopen().unwrap(),
        };
        assert_eq!(messages.unexpected::<&str>(&[]), ["its log has ended"]);
        let directory = tempfile::tempdir().unwrap();
        let mut messages = Messages {
            log: File::open(directory.path()).unwrap(),
        };
        let error = messages.unexpected::<&str>(&[]).pop().unwrap();
        assert!(error.contains("cannot be read"), "{error}");
    }
}
