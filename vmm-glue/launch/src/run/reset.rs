// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a guest ended before its plan did: QEMU writes it down when an emulated processor comes to a
//! triple fault, which otherwise looks like a guest that reboots.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::cli::Accel;

/// What QEMU writes then.
const TRIPLE_FAULT: &str = "Triple fault";

/// QEMU's options that write it into a file. A processor of the machine that runs QEMU tells nothing.
pub fn arguments(accel: Accel, log: &Path) -> Vec<OsString> {
    match accel {
        Accel::Tcg => vec!["-d".into(), "cpu_reset".into(), "-D".into(), log.into()],
        Accel::Kvm => Vec::new(),
    }
}

/// Whether the file says that. It does not if QEMU has other options.
pub fn is_triple_fault(log: &Path) -> bool {
    let log = fs::read(log).unwrap_or_default();
    let mut lines = log.split(|&byte| byte == b'\n');
    lines.any(|line| line == TRIPLE_FAULT.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_triple_fault_is_told_from_the_reset_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("processors.log");
        assert!(!is_triple_fault(&log));
        let start = "CPU Reset (CPU 0)\nEAX=00000000 EBX=00000000\n";
        fs::write(&log, start).unwrap();
        assert!(!is_triple_fault(&log));
        fs::write(&log, format!("{start}Triple fault\n")).unwrap();
        assert!(is_triple_fault(&log));
    }

    #[test]
    fn a_processor_of_the_machine_has_no_file() {
        assert!(arguments(Accel::Kvm, Path::new("l")).is_empty());
        assert_eq!(arguments(Accel::Tcg, Path::new("l")).last().unwrap(), "l");
    }
}
