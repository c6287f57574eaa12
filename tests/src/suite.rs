// SPDX-License-Identifier: MIT OR Apache-2.0
//! The correctness suite: all rules on all benches, the violations of the in-process one, and the
//! rules that a guest's cases judge.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

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

/// How many rules there are.
pub const RULES: u8 = 81;

/// Has rules judged by what the cases of a guest reported in a run that is over. Returns the counts.
///
/// # Errors
///
/// One is not kept, or a case that judges it was not run: what the suite says of them.
pub fn judged(
    bench: &str,
    rules: impl IntoIterator<Item = u8>,
    results: &Path,
) -> anyhow::Result<String> {
    let mut command = Command::new(cargo());
    command.args(["run", "--quiet", "-p", "svm-suite", "--", "--bench", bench]);
    command.arg("--guest-results").arg(results);
    for rule in rules {
        command.args(["--rule", &rule.to_string()]);
    }
    let output = command.output().context("the suite did not start")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let kept = said.lines().filter(|line| !line.starts_with("ok"));
    let kept: Vec<&str> = kept.collect();
    ensure!(
        output.status.success(),
        "{}\n{}",
        kept.join("\n"),
        String::from_utf8_lossy(&output.stderr)
    );
    let last = kept.last().copied().unwrap_or_default();
    Ok(last.trim_start_matches("suite: ").to_owned())
}
