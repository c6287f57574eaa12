// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests of all crates, by cargo, with the prepared QEMU at hand for those that need it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::launcher::{Launcher, cargo};
use crate::tally::Tally;

/// Environment variable that holds the path of a program that is QEMU with the plug-in in it.
pub const QEMU_VARIABLE: &str = "SVM_QEMU";

/// Runs `cargo test` over the workspace, shows what it prints, and adds up its totals.
pub fn run(launcher: &Launcher) -> anyhow::Result<Tally> {
    let mut child = Command::new(cargo())
        .args(["test", "--workspace", "--no-fail-fast", "--color", "never"])
        .env(QEMU_VARIABLE, launcher.qemu_wrapper()?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo did not start")?;
    let mut total = Tally::default();
    let mut results = 0;
    let output = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some(tally) = Tally::from_cargo(&line) {
            total += tally;
            results += 1;
        }
    }
    let status = child.wait()?;
    // A crate that does not build, or a runner that dies, prints no total.
    if !status.success() && total.failed == 0 || results == 0 {
        println!("not ok - cargo test ended with {status} and {results} totals");
        total.failed += 1;
    }
    Ok(total)
}
