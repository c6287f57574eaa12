// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests of all crates, by cargo, with the prepared QEMU at hand for those that need it.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::launcher::{Launcher, cargo};
use crate::tally::Tally;

/// Environment variable that holds the path of a program that is QEMU with the plug-in in it.
pub const QEMU_VARIABLE: &str = "SVM_QEMU";

/// Runs the tests of all crates, and those of the plug-in again: with this project's own VT-d unit
/// in the place of QEMU's, and, where there is KVM, with either in machines of KVM.
pub fn run(launcher: &Launcher) -> anyhow::Result<Tally> {
    let workspace = ["--workspace", "--no-fail-fast"];
    let mut total = cargo_test(launcher, &workspace, &[])?;
    let plugin = ["-p", "svm-qemu", "--test", "plugin"];
    let unit = ("SVM_QTEST_IOMMU", "svm-vtd");
    println!("# the plug-in with svm-vtd");
    total += cargo_test(launcher, &plugin, &[unit])?;
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => {
            let kvm = ("SVM_QTEST_ACCEL", "kvm");
            println!("# the plug-in with KVM");
            total += cargo_test(launcher, &plugin, &[kvm])?;
            println!("# the plug-in with svm-vtd and KVM");
            total += cargo_test(launcher, &plugin, &[unit, kvm])?;
        }
        Err(error) => println!("# not with KVM: /dev/kvm cannot be opened: {error}"),
    }
    Ok(total)
}

/// Runs `cargo test`, shows what it prints, and adds up its totals.
fn cargo_test(
    launcher: &Launcher,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> anyhow::Result<Tally> {
    let mut child = Command::new(cargo())
        .args(["test", "--color", "never"])
        .args(arguments)
        .env(QEMU_VARIABLE, launcher.qemu_wrapper()?)
        .envs(variables.iter().copied())
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
