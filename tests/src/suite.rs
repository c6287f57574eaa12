// SPDX-License-Identifier: MIT OR Apache-2.0
//! The correctness suite: all rules on all benches, and the violations of the in-process one.

use std::process::Command;

use anyhow::ensure;

use crate::host::QEMU_VARIABLE;
use crate::launcher::{Launcher, cargo};
use crate::parts::Part;

/// Runs the suite with its output shown.
///
/// # Errors
///
/// QEMU cannot be prepared. What goes wrong in the suite is a test that failed.
pub fn run(launcher: &Launcher, part: &mut Part) -> anyhow::Result<()> {
    let qemu = launcher.qemu_wrapper()?;
    for (name, arguments) in [
        (
            "the rules are kept on all benches, or deviate as expected",
            &[][..],
        ),
        (
            "each violation of a rule is noticed on the in-process bench",
            &["--mutants", "--bench", "in-process"],
        ),
        (
            "QEMU's units and this project's differ as reported, in 80 random cases",
            &["--differential", "--cases", "80"],
        ),
    ] {
        part.test(name, |part| {
            let mut command = Command::new(cargo());
            command
                .args(["run", "--quiet", "-p", "svm-suite", "--"])
                .args(arguments)
                .env(QEMU_VARIABLE, &qemu);
            let mut last = String::new();
            let status = part.follow(&mut command, |part, line| {
                last = line.to_owned();
                part.line(line);
            })?;
            ensure!(status.success(), "it ended with {status}: {last}");
            Ok("")
        });
    }
    Ok(())
}
